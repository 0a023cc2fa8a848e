//! Connections that outlive their broker.
//!
//! With [`Options::recovery`](crate::Options), a connection that is lost is opened again, with its
//! channels, its consumers and the exchanges, queues and bindings that were declared on it. The
//! handles stay the same: they wait meanwhile, and go on.
//!
//! ```no_run
//! use amqp_driver::{Options, connect, io::Runtime};
//!
//! # async fn example<R: Runtime>(runtime: R) -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::from_uri("amqp://one.example.com,two.example.com")?.recovering();
//! let connection = connect(&runtime, &options).await?;
//! let mut events = connection.recovery_events();
//! runtime.spawn(async move {
//!     while let Some(change) = events.next().await {
//!         eprintln!("{change}"); // +0.000 s lost: the transport ended ...
//!     }
//! });
//! # Ok(()) }
//! ```
//!
//! | handle, call | while the connection is lost, and afterwards |
//! |---|---|
//! | [`Channel::publish`](crate::Channel::publish) | waits, then publishes; the time of a recovery does not count towards [`Timeouts::publish`](amqp_core::Timeouts) |
//! | [`try_publish`](crate::Channel::try_publish) | returns the body ([`Hold::Recovering`](amqp_core::Hold)) |
//! | [`Confirm`](crate::Confirm) of before | ends: [`Unconfirmed`](crate::Unconfirmed) says whether the message was sent |
//! | a message published without confirms | is lost if it was in flight |
//! | [`BaseChannel::call`](crate::BaseChannel::call) and other requests | wait, then are sent; one that was in flight fails with [`Error::ConnectionClosed`](crate::Error), and its effect is unknown |
//! | [`Consumer`](crate::Consumer) | goes on; the server redelivers the messages that were not acknowledged. Reports the interruption if [asked](crate::ConsumeOptions::report_interruptions) |
//! | [`Acker`](crate::Acker) of before | does nothing: [`Error::Stale`](crate::Error) |
//! | [`TxChannel::commit`](crate::TxChannel::commit) | fails with [`Error::TransactionLost`](crate::Error) until a rollback |
//! | [`Connection::closed`](crate::Connection::closed) | is the final end: closed on request, or given up by the [`Policy`] |
//!
//! The first connect fails as any other, unless [`Policy::first_connect`] lets it await the broker.
//!
//! A server that answers heartbeats but no request of the restoration for
//! [`Timeouts::request`](amqp_core::Timeouts) counts as lost; one that answers others fails that step
//! alone.
//!
//! The death of a quorum queue's leader may leave a channel of RabbitMQ 3.10 in a state in which the
//! server refuses all its publishes to that queue with `basic.nack`, though the queue has a new leader
//! and the connection lives. Publish on another channel then: a
//! [`Publisher`](crate::publishing::Publisher) on a fresh one, or close the channel and open it anew.
//!
//! Connections recover from every end but a close by this side. Publishing goes on after the
//! consumers are back. Without a policy, a connection has one life and one end.
//!
//! The logic is that of [`amqp_core::recovery`], which an event loop of one's own uses as well.

mod events;
pub(crate) mod supervisor;

use std::hash::{BuildHasher as _, RandomState};

pub use amqp_core::recovery::*;

pub use self::events::RecoveryEvents;

/// Returns a seed for [`Policy::new`], different at each call: clients that lose the same broker
/// come back at different times.
#[must_use]
pub fn random_seed() -> u64 {
    RandomState::new().hash_one(std::process::id())
}
