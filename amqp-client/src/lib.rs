//! AMQP 0-9-1 for applications: the handles, and the driver that moves their bytes.
//!
//! This crate knows no runtime. An adapter, such as `amqp-tokio`, brings a [`Transport`] and a
//! [`Timer`], gets a [`Connection`] and a [`Driver`] from [`Connection::start`], and spawns the
//! driver. The handles are the same types everywhere, so that a library written on them runs under
//! any runtime.
//!
//! | handle | what it does |
//! |---|---|
//! | [`Connection`] | opens channels, tells how it ended |
//! | [`Channel`] | requests, publishing, consuming, fetching |
//! | [`ConfirmChannel`] | publishing with a [`Confirm`] for each message |
//! | [`TxChannel`] | transactions |
//! | [`Consumer`] | the messages of a queue, as a stream of [`Delivery`]s |
//! | [`Returns`] | messages that no queue took, of a channel without confirms |
//! | [`ChannelPool`] | channels to take out and put back |
//!
//! With the feature `blocking`, the module of that name has the same handles with calls that block,
//! and [`promises`] a client for event loops of one's own, which needs neither threads nor `async`.
//!
//! # What holds everywhere
//!
//! - **Nothing hangs.** Every future ends: with its answer, with the reason why there is none, or
//!   with [`Error::TimedOut`] after [`Timeouts::request`](amqp_core::Timeouts). When a connection
//!   ends, everyone who waits on it gets the same reason.
//! - **Dropping a future is safe** at any point. A command is queued when its future is first
//!   polled, whole or not at all; dropping it afterwards only drops the wait. What that means for
//!   each is said in its documentation.
//! - **Memory is bounded**: what is to be sent, what waits for its confirm, and what was delivered
//!   and not yet taken.
//! - **Dropping the last handle** of a connection or a channel closes it in good order.

#[cfg(feature = "broker")]
mod arriving;
mod auth;
#[cfg(feature = "blocking")]
pub mod blocking;
mod channel;
mod channel_table;
mod clock;
mod confirm;
mod connect;
mod connection;
mod consumer;
mod driver;
#[cfg(feature = "broker")]
mod embedded;
mod error;
#[cfg(feature = "broker")]
mod faulty;
#[cfg(feature = "futures-io")]
mod futures_stream;
#[cfg(feature = "futures-rustls")]
mod futures_tls;
#[cfg(feature = "broker")]
mod local;
mod peer;
mod pipe;
mod pool;
#[cfg(feature = "blocking")]
pub mod promises;
mod publishers;
mod returns;
mod runtime;
mod scope;
mod shared;
mod state;
mod tls;
mod transport;
mod tx;
mod waiters;

#[cfg(feature = "broker")]
pub use amqp_broker as broker;
pub use amqp_core as core;
pub use amqp_core::{
    Body, CloseReason, Content, DeliveryTag, EncodedProperties, Requeue, Tags, client::Config,
    protocol, wire,
};
#[cfg(feature = "tls")]
pub use rustls;

#[cfg(feature = "futures-io")]
pub use self::futures_stream::{FuturesStream, Socket};
#[cfg(all(feature = "broker", feature = "futures-rustls"))]
pub use self::futures_tls::FuturesTlsListener;
#[cfg(feature = "tls")]
pub use self::tls::{
    CertificateFault, Certificates, ClientCertificateFault, Identity, Key, MaterialFault,
    TlsSetupError, peer_certificates,
};
#[cfg(all(feature = "broker", feature = "tls"))]
pub use self::tls::{LoginFrom, NameFunction, ServerTls};
#[cfg(feature = "broker")]
pub use self::{
    arriving::Arriving,
    embedded::{BrokerDriver, BrokerEndpoint, SharedBroker, Timekeeper},
    local::{Listener, LocalBroker, Server, serve},
};
pub use self::{
    auth::{CredentialsError, CredentialsProvider, Login, LoginFuture},
    channel::{Channel, Fetched},
    clock::SleepClock,
    confirm::{Confirm, ConfirmChannel, Unconfirmed},
    connect::{ConnectError, Options, connect, connect_over, from_transport},
    connection::Connection,
    consumer::{Acker, Acks, Consumer, Delivery, ManualAck, Message, NoAck},
    driver::{Drive, Driver},
    error::Error,
    peer::{Introduced, Peer},
    pipe::{Pipe, pipe},
    pool::{ChannelPool, PooledChannel},
    returns::{ReturnedMessage, Returns},
    runtime::Runtime,
    shared::ClientEndpoint,
    tls::{Secured, Tls, TlsError, TlsOptions},
    transport::{Slices, Timer, Transport},
    tx::TxChannel,
};
