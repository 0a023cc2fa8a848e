//! AMQP 0-9-1 as a pure state machine.
//!
//! Bytes go in, events and bytes come out. The machine does no I/O, has no clock, no threads and
//! no callbacks: it can be driven by any event loop, blocking or not, and in a test by hand.
//!
//! - [`client::Connection`] and [`server::Connection`] are the two sides. Both are faces of the
//!   same machine, and each describes how it is driven.
//! - [`protocol`] has a struct for every method of the standard and of RabbitMQ's extensions,
//!   generated from the specification, and the table of what is legal where.
//! - [`wire`] has the data types, [`frame`] the frames, for those who want no more than to read a
//!   stream.
//! - [`sasl`] has the mechanisms to log in with, [`uri`] reads AMQP URIs, [`dial`] decides which
//!   address to connect to.
//!
//! Nothing that a peer sends makes the machine panic, loop, or take memory beyond its
//! [`Limits`]. The same calls give the same results, whatever pieces the bytes come in.
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

mod body;
pub mod client;
mod close;
pub mod dial;
mod endpoint;
mod error;
mod fault;
pub mod frame;
mod ids;
mod limits;
mod machine;
mod method;
pub mod protocol;
pub mod sasl;
pub mod server;
#[cfg(test)]
mod tests;
pub mod text;
mod time;
mod transmit;
pub mod uri;
pub mod wire;

/// The buffers that the machine takes and gives; whoever drives it needs no dependency of their own.
pub use bytes;

pub use self::{
    body::{Body, Content, EncodedProperties, PropertyList},
    close::{Close, CloseCause, CloseReason, NotAmqp, RequestError, Stage, TimeoutReason},
    endpoint::Endpoint,
    error::{ApiMisuse, Hold, PublishError},
    fault::{Fault, ProtocolError},
    ids::{ChannelId, ConsumerId, DeliveryTag, PublishSeq, RequestId, Requeue, Tags},
    limits::{FRAME_MAX_BEFORE_TUNE, FRAME_OVERHEAD, Limits, Timeouts, Tuning},
    machine::FlushMark,
    method::{ClientSent, MethodDef, MethodId, NoWait, Request, Rule, ServerSent},
    time::Instant,
    transmit::Transmit,
};
