//! AMQP 0-9-1 for applications: the handles, and the driver that moves their bytes.
//!
//! This crate depends on no runtime. An adapter, such as `amqp-tokio`, provides a
//! [`Transport`](io::Transport) and a [`Timer`](io::Timer), gets a [`Connection`] and a
//! [`Driver`](io::Driver) from [`Connection::start`], and spawns the driver. The handles are the
//! same types everywhere, so that a library written on them runs under any runtime.
//!
//! | handle | purpose |
//! |---|---|
//! | [`Connection`] | opens channels, reports its end and its statistics |
//! | [`Connector`] | opens connections, sleeps and spawns on a runtime that its type does not name |
//! | [`ConnectionPair`] | a connection to publish and one to consume |
//! | [`Channel`] | requests, publishing, consuming, fetching |
//! | [`ConfirmChannel`] | publishing with a [`Confirm`] for each message |
//! | [`TxChannel`] | transactions |
//! | [`Consumer`] | the messages of a queue, as a stream of [`Delivery`]s, or [a loop](Consumer::for_each_concurrent) over them |
//! | [`ConsumerGroup`] | the messages of several queues, in turn |
//! | [`Returns`] | messages that no queue accepted, of a channel without confirms |
//! | [`ChannelPool`] | channels to check out and return |
//! | [`Publisher`](publishing::Publisher) | publishing within a window, with one [`Outcome`](publishing::Outcome) for each message |
//! | [`rpc::Client`], [`rpc::Server`] | requests and their replies |
//!
//! The crate `amqp-blocking` has the same handles with blocking calls, and a client for event loops
//! that needs neither threads nor `async`.
//!
//! # Connecting
//!
//! Every adapter has `connect`, which takes a [URI](amqp_core::uri), and `connect_with`, which
//! takes [`Options`]: the settings of a URI, and more. Both run [`connect()`] on their runtime.
//!
//! ```
//! use amqp_driver::{
//!     Options,
//!     core::dial::{Address, Order},
//! };
//! use std::{error::Error, time::Duration};
//!
//! fn options(seed: u64) -> Result<Options, Box<dyn Error>> {
//!     let uri = "amqps://me:secret@one.example.com,two.example.com/staging?cacertfile=/etc/ca.pem";
//!     let mut options = Options::from_uri(uri)?;
//!     options.addresses.push(Address::tcp("192.0.2.3", 5671));
//!     options.order = Order::Shuffled { seed };
//!     options.tcp_timeout = Duration::from_secs(3);
//!     options.config.heartbeat = Some(20);
//!     Ok(options.connection_name("billing"))
//! }
//! # assert_eq!(options(7)?.addresses.len(), 3);
//! # Ok::<(), Box<dyn Error>>(())
//! ```
//!
//! - **Several hosts** are the nodes of one cluster: separated by commas in the URI, or in
//!   [`Options::addresses`]. They are tried one after the other, as listed or
//!   [shuffled](core::dial::Order) by a seed, until one opens the connection. Credentials that one
//!   refuses are not tried with the others. If all fail, the error has the failure of each.
//! - **A name with several addresses** has them tried side by side, IPv6 and IPv4 in turn, by the
//!   rules of [RFC 8305](core::dial::Dialer): a dead address costs no more than a moment.
//! - **DNS SRV**: an [address](core::dial::Address::srv) can be the name of SRV records, such as
//!   `_amqps._tcp.example.com`, which the feature `srv` looks up at each connect, those of a recovery
//!   included. Their targets are tried by priority and weight (RFC 2782), each as a host of its own.
//!   With TLS, a target must be in the domain of the service, unless `server_name_indication` says
//!   the name to find in the certificate.
//! - **Unix sockets** are [addresses](core::dial::Address::unix) too. A URI cannot express them.
//! - **Timeouts**: [`Options::tcp_timeout`] for each host, from the resolution of its name to the
//!   end of the TCP connect, `connection_timeout` in the URI; [`Options::tls_timeout`] for the TLS
//!   handshake; [`Timeouts::handshake`](amqp_core::Timeouts) for the AMQP handshake. Afterwards a
//!   server that is silent for two intervals of [`heartbeat`](Config::heartbeat) is considered
//!   dead.
//! - **Client properties**: [`Config::properties`] is sent to the server, and RabbitMQ shows
//!   `connection_name` to its operators. `product`, `version`, `platform` and the `capabilities` of
//!   this client are always sent, and can be replaced. [`Connection::has_capability`] reports the
//!   capabilities of the server.
//! - **TLS** is used for `amqps`, with the server's name verified by the platform's authorities.
//!   Other settings are in [`TlsOptions`], as files, in memory or as a configuration of rustls, or
//!   in the URI's query: `cacertfile`, `certfile`, `keyfile`, `verify` and
//!   `server_name_indication`.
//! - **Credentials** are in the URI, or come from the provider in [`Options::credentials`], which
//!   is called at each connect, and again before they expire: see [`CredentialsProvider`]. The
//!   mechanisms are those of [`Config::mechanisms`], or `auth_mechanism` in the URI ([RabbitMQ's
//!   page](https://www.rabbitmq.com/docs/access-control)).
//! - **Recovery** after a loss is off by default, and on with [`Options::recovering`]: see
//!   [`recovery`].
//! - **A stream of one's own**: an adapter's `from_stream`, or [`from_transport`], opens a
//!   connection over any stream, as it is. For applications that dial by themselves,
//!   [`connect_over`] takes a stream that was just made, secures it as the options say, and opens
//!   the connection with their credentials.
//!
//! # Queues and messages
//!
//! [`arguments`] has presets of queues, exchanges, bindings and consumers of streams, with the
//! settings of RabbitMQ that each type has; [`basic::Properties`](protocol::basic::Properties) has
//! those of messages. The feature `json` has bodies in JSON (`json::content`, `Delivery::json`),
//! the feature `serde` the [values](wire) of tables and headers.
//!
//! ```no_run
//! use amqp_driver::{
//!     arguments::{DeadLetter, Exchange, Queue},
//!     protocol::{basic, queue},
//! };
//! use std::time::Duration;
//!
//! # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
//! channel.exchange_declare(Exchange::topic("events")).await?;
//! let orders = Queue::quorum("orders")
//!     .delivery_limit(5)
//!     .dead_letter_at_least_once(DeadLetter::to_queue("failed"))
//!     .max_length(100_000);
//! channel.queue_declare(orders).await?;
//! let bind = queue::Bind::default().queue("orders").exchange("events").routing_key("order.*");
//! channel.queue_bind(bind).await?;
//!
//! let to_events = basic::Publish::default().exchange("events").routing_key("order.new");
//! let properties = basic::Properties::default()
//!     .persistent()
//!     .expire_after(Duration::from_secs(60))?
//!     .header("attempt", 1);
//! channel.publish(&to_events, &properties, "3 apples").await?;
//! # Ok(()) }
//! ```
//!
//! # Diagnostics
//!
//! - **Errors** say the reply code and text, the method, the side that ended the channel or the
//!   connection, the channel, and the request that failed; [`CloseReason`] has each as a value. Any
//!   error answers [`is_not_found`](Error::is_not_found) and the like. The sentence is its `Display`;
//!   a `main` that returns an error prints its `Debug`, which is longer.
//! - **Frames**: with [`Config::frame_log`] the last frames are kept in words, without secrets,
//!   bodies and header values. [`Error::report`] prints an error with them,
//!   [`Connection::frame_log`] returns them at any time.
//! - **Statistics** are copies: [`Connection::stats`], [`BaseChannel::stats`],
//!   [`Connection::heartbeats`].
//! - **Features** report to other crates: `tracing` has spans and events of all but messages,
//!   `metrics` the statistics, `opentelemetry` trace contexts in headers.
//!
//! # What holds everywhere
//!
//! - **Nothing hangs.** Every future ends: with its answer, with the reason why there is none, or at its
//!   deadline in [`Timeouts`](amqp_core::Timeouts): requests, confirms, room to publish, a flush, a
//!   channel of a pool, the close. [`Connection::within`] sets that of a single call. When a connection
//!   ends, everything that waits on it gets the same reason. What waits for an event, as
//!   [`Consumer::next`] does, ends with the connection, whose end is noticed in every state.
//!   On a connection that [recovers](recovery), calls and publishes wait while it is lost: as long as
//!   its [`recovery::Policy`] goes on, which has no deadline by default.
//! - **An end is good only if it was**: [`Connection::close`] and [`BaseChannel::close`] succeed when the
//!   server has answered, and otherwise say what ended it, because what was sent last may be lost.
//! - **Dropping a future is safe** at any point. A command is queued when its future is first
//!   polled, whole or not at all; dropping it afterwards only drops the wait. The consequences of each
//!   are in its documentation.
//! - **Memory is bounded**: what is to be sent, what waits for its confirm, and what was delivered
//!   or returned and not yet taken, by [`Limits`](amqp_core::Limits) in bytes, headers and all.
//! - **Publishers are served in turn**, first in, first out, whatever channel they are on; a large
//!   message delays another channel by a frame.
//! - **A loop that only awaits yields**, on every runtime, so that heartbeats and other tasks run.
//! - **No code of the application runs under a lock**: bodies and wakers may do in their destructors
//!   what they like.
//! - **Dropping the last handle** of a connection or a channel closes it in good order. A runtime that
//!   shuts down cannot wait for the server, and the global ones of smol and async-std end with the
//!   program as they stand: call [`Connection::close`] to know that all has arrived.

mod acker;
mod background;
mod base_channel;
mod both;
mod channel;
mod confirm;
mod connect;
mod connection;
mod connector;
mod consume_options;
mod consumer;
mod consuming;
mod error;
#[cfg(test)]
mod interleavings;
pub mod io;
#[cfg(feature = "json")]
pub mod json;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "opentelemetry")]
pub mod opentelemetry;
mod pair;
mod pool;
pub mod publishing;
pub mod recovery;
mod report;
mod requests;
mod returned_message;
mod returns;
pub mod rpc;
mod session;
#[cfg(feature = "srv")]
mod srv;
mod states;
mod sync;
mod system_time;
mod tls;
#[cfg(feature = "tracing")]
mod trace;
mod tx;
mod unconfirmed;
mod unless;

pub use amqp_core as core;
pub use amqp_core::{
    Body, CloseReason, Content, DeliveryTag, EncodedProperties, Requeue, Tags, arguments, bytes,
    client::{Config, Prefetch, PreparedPublish},
    protocol, wire,
};
#[cfg(feature = "tls")]
pub use rustls;

#[cfg(feature = "tls")]
pub use self::tls::{
    CertificateFault, Certificates, ClientCertificateFault, Identity, Key, MaterialFault,
    TlsSetupError,
};
pub use self::{
    acker::Acker,
    base_channel::{BaseChannel, Fetched},
    channel::Channel,
    confirm::{Confirm, ConfirmChannel},
    connect::{
        connect, connect_over,
        credentials::{CredentialsError, CredentialsProvider, Login, LoginFuture},
        error::ConnectError,
        from_transport,
        options::Options,
    },
    connection::{Connection, Linger},
    connector::Connector,
    consume_options::{ConsumeOptions, OnDrop},
    consumer::{Acks, Consumer, Delivery, ManualAck, Message, NoAck},
    consuming::{
        BatchAcker, Buffered, ConsumerGroup, Counts, Drained, EndReason, Ended, Failure, ForEach,
        ForEachOptions, GroupCredit, GroupDelivery, GroupPrefetch, OnFailure, Panicked, Retry,
        Stopper,
    },
    error::{Error, TryPublishError},
    pair::{ConnectionPair, PairState, PairStates, connect_pair},
    pool::{ChannelPool, PooledChannel},
    report::Report,
    returned_message::ReturnedMessage,
    returns::Returns,
    states::{ChannelState, ChannelStates, ConnectionState, ConnectionStates},
    system_time::SystemTimestamp,
    tls::{TlsError, TlsOptions},
    tx::TxChannel,
    unconfirmed::Unconfirmed,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
