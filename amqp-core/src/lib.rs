//! AMQP 0-9-1 as a pure state machine.
//!
//! Input is bytes, output is events and bytes. The state machine does no I/O and has no clock,
//! threads or callbacks: it can be driven by any event loop, blocking or not, and by hand in a
//! test.
//!
//! - [`client::Connection`] and [`server::Connection`] are the two sides, built on the same state
//!   machine. [`Connection`] describes how they are driven.
//! - [`protocol`] has a struct for every method of the standard and of RabbitMQ's extensions,
//!   generated from the specification, and the table of their rules.
//! - [`arguments`] has presets of queues, exchanges and consumers with RabbitMQ's settings.
//! - [`wire`] has the data types and [`frame`] the frames, for tools that only parse a stream.
//! - [`recovery`] restores a lost client connection with its topology.
//! - [`sasl`] has the authentication mechanisms, [`uri`] parses AMQP URIs, and [`dial`] chooses the
//!   address to connect to.
//! - `strategies`, of the feature `proptest`, has random values of all of them, for property tests.
//!
//! No peer input makes the state machine panic, loop, or exceed the memory bounded by its
//! [`Limits`]. The same calls give the same results, however the bytes are split.
//!
//! ```
//! use amqp_core::{Instant, Transmit, bytes::BytesMut, client};
//!
//! # fn now() -> Instant { Instant::ORIGIN }
//! # fn socket_write(_: &mut Transmit) {}
//! # fn socket_read(_: &mut BytesMut) {}
//! let mut connection = client::Connection::new(client::Config::default(), now())?;
//! let (mut input, mut output) = (BytesMut::new(), Transmit::new());
//! # let mut turns = 0;
//! while !connection.is_finished() {
//!     connection.poll_transmit(now(), &mut output);
//!     socket_write(&mut output); // and `advance` it by what the socket took
//!     socket_read(&mut input); // at most until `poll_timeout`
//!     connection.handle_input(now(), &mut input);
//!     connection.handle_timeout(now());
//!     while let Some(event) = connection.poll_event() {
//!         println!("{event:?}");
//!     }
//! #   turns += 1;
//! #   if turns > 2 { break }
//! }
//! # Ok::<_, amqp_core::ApiMisuse>(())
//! ```
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

pub mod arguments;
mod body;
pub mod client;
mod close;
mod connection;
pub mod dial;
mod endpoint;
mod error;
mod fault;
pub mod frame;
mod frame_log;
mod ids;
mod limits;
mod machine;
mod method;
mod method_id;
#[macro_use]
mod predicates;
pub mod protocol;
mod random;
pub mod recovery;
pub mod sasl;
pub mod server;
mod stats;
#[cfg(any(test, feature = "proptest"))]
pub mod strategies;
#[cfg(test)]
mod tests;
pub mod text;
mod time;
mod transmit;
pub mod uri;
pub mod wire;
mod words;

/// The buffers of the interface. Re-exported so that callers need no dependency of their own.
pub use bytes;

pub use self::{
    body::{Body, Content, EncodedProperties, PropertyList},
    close::{Close, CloseCause, CloseReason, NotAmqp, Origin, RequestError, Stage, TimeoutReason},
    connection::{Connection, Side},
    endpoint::Endpoint,
    error::{ApiMisuse, Hold, PublishError},
    fault::{Fault, ProtocolError},
    frame_log::{Direction, FrameLog, LoggedFrame},
    ids::{ChannelId, ConsumerId, DeliveryTag, PublishSeq, RequestId, Requeue, Tags},
    limits::{FRAME_MAX_BEFORE_TUNE, FRAME_OVERHEAD, Limits, Timeouts, Tuning},
    machine::FlushMark,
    method::{ClientSent, MethodDef, NoWait, Request, Rule, ServerSent},
    method_id::MethodId,
    stats::{ChannelStats, ConnectionStats, HeartbeatStats, Heartbeats, WireStats},
    time::Instant,
    transmit::Transmit,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(doctest)]
#[doc = include_str!("../docs/embedding.md")]
mod embedding {}
