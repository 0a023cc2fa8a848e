//! A publisher that reports the outcome of each message.
//!
//! A [`Publisher`] publishes on a channel within a [`Window`] of messages and bytes, and gives a
//! [`Receipt`] for each message: a future of its [`Outcome`]. Every message has exactly one outcome,
//! also over `multiple`, returned messages, and the end of the channel or the connection.
//!
//! ```no_run
//! use amqp_driver::{
//!     ConfirmChannel,
//!     protocol::basic,
//!     publishing::{Outcome, OutgoingMessage, Publisher, PublisherOptions},
//! };
//!
//! # async fn example(channel: ConfirmChannel) -> Result<(), Box<dyn std::error::Error>> {
//! let publisher = Publisher::new(channel, PublisherOptions::default());
//! let to_tasks = basic::Publish::default().routing_key("tasks").mandatory(true);
//! let messages = (1..=10_000).map(|number| OutgoingMessage::new(to_tasks.clone(), number.to_string()));
//! let mut outcomes = publisher.publish_many(messages);
//! while let Some(outcome) = outcomes.next().await {
//!     if let Outcome::NotSent { message, cause } = outcome {
//!         println!("{} bytes are still here: {cause}", message.body.len());
//!     }
//! }
//! # Ok(()) }
//! ```
//!
//! | file | concern |
//! |---|---|
//! | `message.rs`, `outcome.rs`, `options.rs` | the values |
//! | `publisher.rs`, `many.rs` | the handles |
//! | `engine.rs`, `entries.rs` | the messages in flight, and publishing them again |
//! | `window.rs` | the room for messages in flight, and the line for it |
//! | `target.rs` | the channel, with or without confirms |

mod engine;
mod entries;
mod many;
mod message;
mod options;
mod outcome;
mod publisher;
mod target;
#[cfg(test)]
mod tests;
pub(crate) mod window;

pub use self::{
    many::PublishMany,
    message::OutgoingMessage,
    options::{Acknowledgements, PublisherOptions, Republish, Window},
    outcome::{NotAcked, NotPublished, NotPublishedReason, Outcome},
    publisher::{Publisher, Receipt},
};
