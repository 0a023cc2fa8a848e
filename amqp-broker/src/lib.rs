//! An in-memory AMQP 0-9-1 broker as a pure state machine.
//!
//! Takes the input of each connection and produces the output of all of them. It performs no I/O,
//! reads no clock and starts no thread: the caller supplies the time and the seed of generated
//! names, and the same calls give the same results. It behaves as RabbitMQ 3.10 does, down to the
//! texts of its errors, so that existing clients and test suites run against it unchanged.
//!
//! It is meant for tests, for examples, and for small uses. All state is in memory. A broker can be
//! [stopped](Broker::stop) and started again: it keeps durable entities and persistent messages, as
//! RabbitMQ does. They outlive the [`Broker`] as a [snapshot](Broker::snapshot), or as the
//! [changes](Broker::poll_change) that its host stores: see [`Broker::restore`].
//!
//! # How it is driven
//! A connection is [accepted](Broker::accept), and then driven like any other endpoint:
//!
//! | calls of a driver | results for a driver |
//! |---|---|
//! | [`handle_input`](Broker::handle_input), [`handle_eof`](Broker::handle_eof), [`handle_transport_error`](Broker::handle_transport_error) of a connection | [`poll_transmit`](Broker::poll_transmit): its output; [`wants_input`](Broker::wants_input): whether to read from it |
//! | [`handle_connection_timeout`](Broker::handle_connection_timeout) | [`poll_connection_timeout`](Broker::poll_connection_timeout) |
//! | [`handle_timeout`](Broker::handle_timeout) | [`poll_timeout`](Broker::poll_timeout): the time at which a message or a queue expires, or an acknowledgement is overdue |
//! | [`remove`](Broker::remove): the connection has no driver | [`is_finished`](Broker::is_finished) |
//!
//! A call for one connection may affect others. After any call, [`poll_wake`](Broker::poll_wake)
//! returns the connections that have output, or can be read from again; wake their drivers. After
//! any call, [`poll_timeout`](Broker::poll_timeout) may return an earlier time than before. A late
//! [`handle_timeout`](Broker::handle_timeout) loses nothing: every other call that takes the time
//! also processes the deadlines that have passed.
//!
//! ```
//! use amqp_broker::{Broker, Config};
//! use amqp_core::{Instant, Transmit, client};
//! use bytes::BytesMut;
//!
//! let now = Instant::ORIGIN;
//! let mut broker = Broker::new(Config::default())?;
//! let connection = broker.accept(now)?;
//! let mut client = client::Connection::new(client::Config::default(), now)?;
//!
//! let (mut there, mut back) = (Transmit::new(), Transmit::new());
//! let (mut to_broker, mut to_client) = (BytesMut::new(), BytesMut::new());
//! while !client.is_open() {
//!     client.poll_transmit(now, &mut there);
//!     for segment in there.take_segments() {
//!         to_broker.extend_from_slice(&segment);
//!     }
//!     broker.handle_input(connection, now, &mut to_broker);
//!     broker.poll_transmit(connection, now, &mut back);
//!     for segment in back.take_segments() {
//!         to_client.extend_from_slice(&segment);
//!     }
//!     client.handle_input(now, &mut to_client);
//! }
//! assert_eq!(broker.inspect().connections.len(), 1);
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! # Queues
//! A queue is classic, a quorum queue or a stream, as its argument `x-queue-type` says
//! (<https://www.rabbitmq.com/docs/queues>). There is one node, so that arguments about the members
//! of a cluster are validated and have no effect.
//!
//! A stream keeps its messages when they are acknowledged, until its retention limits
//! (`x-max-length-bytes`, `x-max-age`) drop a whole segment
//! (<https://www.rabbitmq.com/docs/streams>). Each consumer reads at its own offset, from
//! `x-stream-offset` on. RabbitMQ stores messages that arrive together as one chunk, and delivers
//! a chunk as a whole, regardless of the prefetch limit; here each message is a chunk. Sizes of
//! segments are estimated. The messages count towards [`Limits::memory`]: a stream without
//! retention limits that has filled it up blocks publishers until it is deleted.
//! They are in no journal and no snapshot: a restored stream is empty.
//!
//! A channel is closed when a delivery is not acknowledged within
//! [`Config::consumer_timeout`].
//!
//! # Administration
//! [`Broker::admin`] changes a running broker as `rabbitmqctl` does: users, virtual hosts,
//! permissions, [policies](Policy), limits, and connections that are closed with a reason. The
//! feature `definitions` adds `definitions::Definitions`, RabbitMQ's `definitions.json`.
//!
//! # For tests
//! [`Broker::inspect`] returns the state as a management API would: queues with their message
//! counts, bindings, consumers, connections. [`Broker::faults`] injects faults: an alarm, confirms
//! that are never sent, a connection that is closed with a code, bytes that are delayed, split,
//! stalled or cut off. The broker only decides on faults of bytes: the transport applies them, as
//! planned by [`Broker::poll_byte_plan`].
//!
//! # For operators
//! [`Broker::totals`] and the calls `list_*` return the state in bounded pieces, with counts of
//! messages, [`Broker::peek`] the messages of a queue, and [`Broker::poll_notice`] the logins and
//! ends of connections. The program `amqp-broker` of the crate `amqp-broker-server` shows them.
#![no_std]
#![forbid(unsafe_code)]
#![deny(
    missing_docs,
    clippy::alloc_instead_of_core,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::std_instead_of_alloc,
    clippy::std_instead_of_core,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod admin;
mod broker;
mod byte_faults;
mod config;
#[cfg(feature = "definitions")]
pub mod definitions;
mod durable;
mod fault_state;
mod faults;
mod inspect;
mod keys;
mod listing;
mod methods;
mod model;
mod notice;
mod pattern;
mod permission;
mod policy;
mod rabbitmq;
mod random;
mod refusal;
mod user_info;

pub use self::{
    admin::{Admin, AdminError, UserLimits, VhostLimits},
    broker::{AcceptError, Broker},
    byte_faults::{ByteFaults, BytePlan, Direction, Gate, Impairment},
    config::{Config, ConfigError, Limits, Password, Rules, User},
    durable::{
        BadChange, Change, DurableBinding, DurableExchange, DurableMessage, DurableQueue,
        DurableVhost, MessageState, RestoreError, StreamMessage,
    },
    fault_state::ConfirmFault,
    faults::Faults,
    inspect::{
        BindingInfo, BindingTarget, ChannelInfo, ConnectionInfo, ConsumerInfo, ExchangeInfo,
        Inspection, QueueInfo, VhostInfo,
    },
    keys::ConnectionKey,
    listing::{ExchangeSummary, MessageCounts, PeekedMessage, QueueSummary, Totals},
    notice::Notice,
    pattern::{BadPattern, Pattern},
    permission::{Permissions, TopicPermissions},
    policy::{AppliedPolicies, ApplyTo, Policy, PolicyKind},
    rabbitmq::RabbitMq,
    user_info::{PermissionInfo, TopicPermissionInfo, UserInfo},
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
