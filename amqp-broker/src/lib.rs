//! An in-memory AMQP 0-9-1 broker as a pure state machine.
//!
//! Bytes of one connection go in, bytes of others come out. There is no I/O, no clock and no thread
//! in it: time and the seed of its names are given from outside, and the same calls give the same
//! results. What it does is what RabbitMQ 3.10 does, down to the texts of its errors, so that
//! clients and test suites that others wrote do not notice the difference.
//!
//! It is for tests, for examples, and for where nothing needs to survive: **durability is not its
//! job**. `durable` queues and `persistent` messages are accepted and treated like all others, and
//! everything is gone with the [`Broker`].
//!
//! # How it is driven
//! A connection is [accepted](Broker::accept), and then driven as any other end of a connection:
//!
//! | the world says | the broker says |
//! |---|---|
//! | [`handle_input`](Broker::handle_input), [`handle_eof`](Broker::handle_eof), [`handle_transport_error`](Broker::handle_transport_error) of a connection | [`poll_transmit`](Broker::poll_transmit): what to send to it; [`wants_input`](Broker::wants_input): whether to read from it |
//! | [`handle_connection_timeout`](Broker::handle_connection_timeout) | [`poll_connection_timeout`](Broker::poll_connection_timeout) |
//! | [`handle_timeout`](Broker::handle_timeout) | [`poll_timeout`](Broker::poll_timeout): when a message or a queue expires |
//! | [`remove`](Broker::remove): nobody drives the connection any more | [`is_finished`](Broker::is_finished) |
//!
//! What one connection says may concern others. After any call, [`poll_wake`](Broker::poll_wake)
//! names the connections that have something to send, or can be read from again; their drivers are
//! to be woken. After any call, [`poll_timeout`](Broker::poll_timeout) may name an earlier time than
//! before. Nothing is lost if it is served late: what is due is also looked for in every other call
//! that is told the time.
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
//! # For tests
//! [`Broker::inspect`] tells what a management API would: queues with what is in them, bindings,
//! consumers, connections. [`Broker::faults`] is a switch for what goes wrong only rarely: an alarm,
//! confirms that never come, a connection that is closed with a code, or whose bytes come late, in
//! pieces, or not at all. The bytes are moved by others: those who want that to work ask
//! [`Broker::poll_byte_plan`].
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

mod broker;
mod byte_faults;
mod config;
mod faults;
mod inspect;
mod keys;
mod methods;
mod model;
mod permission;
mod random;
mod refusal;

pub use self::{
    broker::{AcceptError, Broker},
    byte_faults::{ByteFaults, BytePlan, Direction, Disturbance, Passage},
    config::{Config, ConfigError, Limits, Rules, User},
    faults::{ConfirmFault, Faults},
    inspect::{
        BindingInfo, BindingTarget, ChannelInfo, ConnectionInfo, ConsumerInfo, ExchangeInfo,
        Inspection, QueueInfo, VhostInfo,
    },
    keys::ConnectionKey,
    permission::{BadPattern, Permissions},
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
