//! The optional arguments of RabbitMQ with types: presets of declarations and consumers, and the
//! settings of each.
//!
//! A preset results in the methods of [`protocol`](crate::protocol): [`Queue`] in a
//! `queue.declare`, [`Exchange`] in an `exchange.declare`, [`HeadersMatch`] in the arguments of a
//! binding, [`StreamConsume`] in a `basic.consume` and its `basic.qos`. RabbitMQ 4 accepts each: a
//! setting that a type of queue does not have is not on its preset, and a number that RabbitMQ
//! refuses is an [`ArgumentError`]. A preset keeps the first error of its settings until the method
//! is made. Settings of a message are on
//! [`basic::Properties`](crate::protocol::basic::Properties), those of any consumer on
//! [`basic::Consume`](crate::protocol::basic::Consume).
//!
//! RabbitMQ recommends policies for settings that are to change, because those of a declaration
//! stay with the queue (<https://www.rabbitmq.com/docs/parameters#why-policies-exist>).
//!
//! ```
//! use amqp_core::{
//!     arguments::{DeadLetter, Exchange, Queue},
//!     protocol::{exchange, queue},
//! };
//! use core::time::Duration;
//!
//! let events: exchange::Declare = Exchange::topic("events").declare()?;
//! assert_eq!(events.kind, "topic");
//!
//! let orders: queue::Declare = Queue::quorum("orders")
//!     .delivery_limit(5)
//!     .message_ttl(Duration::from_secs(3600))
//!     .dead_letter(DeadLetter::to("failed"))
//!     .declare()?;
//! assert!(orders.durable);
//! assert_eq!(orders.arguments.len(), 4); // with x-queue-type
//! # Ok::<(), amqp_core::arguments::ArgumentError>(())
//! ```

mod consume;
mod exchange;
mod headers;
mod properties;
mod queue;

use alloc::{format, string::String};
use core::time::Duration;

pub use self::{
    consume::{StreamConsume, StreamOffset},
    exchange::{Exchange, ExchangeType, HashOn},
    headers::HeadersMatch,
    queue::{
        AtLeastOnce, Classic, ClassicKind, ClassicOverflow, Consuming, DeadLetter, Exclusive,
        LeaderLocator, Located, Queue, QueueKind, Quorum, QuorumKind, QuorumOverflow, Stream,
    },
};

use crate::wire::{FieldTable, FieldValue, IntoShortStr, ShortStr};

/// A setting that RabbitMQ refuses. Nothing has changed.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArgumentError {
    /// A name has more than 255 bytes.
    #[error("{argument} has {len} bytes, it may have at most {max}", max = ShortStr::MAX_LEN)]
    TooLong {
        /// The name of the argument.
        argument: &'static str,
        /// The length of the name, in bytes.
        len: usize,
    },
    /// A name is empty, and the server gives none.
    #[error("{0} needs a name")]
    NameRequired(&'static str),
    /// A number or a duration is out of range.
    #[error("{argument} is {value}, it may be {min} to {max}")]
    OutOfRange {
        /// The name of the argument or the property.
        argument: &'static str,
        /// The value, in the unit of the argument.
        value: u128,
        /// The least value, in the unit of the argument.
        min: u64,
        /// The greatest value, in the unit of the argument.
        max: u64,
    },
}

/// The longest time to live of a message or a queue, in milliseconds: ten years of 365 days.
/// RabbitMQ refuses more: `amqp-broker/tests/broker/queues.rs` has its answer.
const TIME_MAX: u64 = 10 * 365 * 24 * 60 * 60 * 1000;

/// Sets an argument. The names are those of this module, which are short.
fn set(arguments: &mut FieldTable, name: &'static str, value: impl Into<FieldValue>) {
    if let Some(name) = ShortStr::from_static(name) {
        arguments.insert(name, value);
    }
}

/// The first error of a preset's settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FirstError(Option<ArgumentError>);

impl FirstError {
    /// Keeps the error of a setting. Returns the value, if there is one.
    fn keep<T>(&mut self, setting: Result<T, ArgumentError>) -> Option<T> {
        match setting {
            Ok(value) => Some(value),
            Err(error) => {
                self.0.get_or_insert(error);
                None
            }
        }
    }

    /// Returns the method of a preset without errors.
    fn finish<T>(self, method: T) -> Result<T, ArgumentError> {
        self.0.map_or(Ok(method), Err)
    }
}

/// Checks the name of an entity that the server does not name.
fn required(entity: &'static str, name: impl IntoShortStr) -> Result<ShortStr, ArgumentError> {
    let name = short(entity, name)?;
    if name.is_empty() {
        return Err(ArgumentError::NameRequired(entity));
    }
    Ok(name)
}

/// Checks that a name fits into a short string.
fn short(argument: &'static str, name: impl IntoShortStr) -> Result<ShortStr, ArgumentError> {
    let name = name.into_short_str();
    let len = name.len();
    if len > ShortStr::MAX_LEN {
        return Err(ArgumentError::TooLong { argument, len });
    }
    Ok(name)
}

/// Converts a bound on a number or a size. A bound above `i64::MAX`, the widest integer of a table,
/// is never reached either.
fn bound(bound: u64) -> i64 {
    i64::try_from(bound).unwrap_or(i64::MAX)
}

/// Converts a number of that range, which is within that of an `i64`.
fn number(
    argument: &'static str,
    value: impl Into<u128>,
    min: u64,
    max: u64,
) -> Result<i64, ArgumentError> {
    let value = value.into();
    let out_of_range = ArgumentError::OutOfRange {
        argument,
        value,
        min,
        max,
    };
    if value < u128::from(min) || value > u128::from(max) {
        return Err(out_of_range);
    }
    i64::try_from(value).map_err(|_| out_of_range)
}

/// Converts a duration to milliseconds of that range, rounded up: nothing ends too early.
fn millis(
    argument: &'static str,
    duration: Duration,
    min: u64,
    max: u64,
) -> Result<i64, ArgumentError> {
    number(argument, duration.as_nanos().div_ceil(1_000_000), min, max)
}

/// Converts a duration to an interval in seconds, rounded up, such as `3600s`
/// (<https://www.rabbitmq.com/docs/streams#retention>).
fn interval(argument: &'static str, duration: Duration) -> Result<String, ArgumentError> {
    let seconds = duration.as_nanos().div_ceil(1_000_000_000);
    Ok(format!(
        "{}s",
        number(argument, seconds, 1, TIME_MAX / 1000)?
    ))
}
