//! The settings of messages.

use alloc::string::ToString as _;
use core::time::Duration;

use super::{ArgumentError, TIME_MAX, millis, set};
use crate::{
    protocol::basic,
    wire::{FieldTable, FieldValue, IntoShortStr},
};

/// The values of the property `delivery-mode` (section 3.1.7 of the specification).
const TRANSIENT: u8 = 1;
const PERSISTENT: u8 = 2;

/// The longest delay of a message, in milliseconds: that of a timer of Erlang
/// (<https://github.com/rabbitmq/rabbitmq-delayed-message-exchange#limitations>).
const DELAY_MAX: u64 = u32::MAX as u64;

/// ```
/// use amqp_core::{protocol::basic, wire::Timestamp};
/// use core::time::Duration;
///
/// let properties = basic::Properties::default()
///     .persistent()
///     .content_type("text/plain")
///     .header("attempt", 1)
///     .expire_after(Duration::from_secs(60))?
///     .timestamp(Timestamp::since_epoch(Duration::from_millis(1_700_000_000_500)));
/// assert_eq!(properties.expiration.as_deref(), Some("60000"));
/// # Ok::<(), amqp_core::arguments::ArgumentError>(())
/// ```
impl basic::Properties {
    /// Sets `delivery-mode` to 2: the message survives a restart of the server in a durable queue.
    #[must_use]
    pub fn persistent(self) -> Self {
        self.delivery_mode(PERSISTENT)
    }

    /// Sets `delivery-mode` to 1: the message may be lost when the server restarts. Quorum queues
    /// and streams keep it nevertheless.
    #[must_use]
    pub fn transient(self) -> Self {
        self.delivery_mode(TRANSIENT)
    }

    /// Returns whether the message survives a restart of the server in a durable queue.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.delivery_mode == Some(PERSISTENT)
    }

    /// Adds a header, or replaces the value of the first one with this name. A publish with a name
    /// of more than 255 bytes is [refused](IntoShortStr).
    #[must_use]
    pub fn header(mut self, name: impl IntoShortStr, value: impl Into<FieldValue>) -> Self {
        let headers = self.headers.get_or_insert_with(FieldTable::new);
        headers.insert(name, value);
        self
    }

    /// Sets `expiration`, the time to live of this message in a queue, in milliseconds, rounded up.
    /// With zero it expires if no consumer takes it at once. The shorter of this and the time of
    /// the queue applies (<https://www.rabbitmq.com/docs/ttl#per-message-ttl-in-publishers>).
    ///
    /// # Errors
    /// If it is longer than ten years, for which RabbitMQ closes the channel.
    pub fn expire_after(mut self, time: Duration) -> Result<Self, ArgumentError> {
        let millis = millis("expiration", time, 0, TIME_MAX)?;
        self.expiration = Some(millis.to_string().into_short_str());
        Ok(self)
    }

    /// Sets the header `x-delay`, the time for which a
    /// [delayed exchange](crate::arguments::Exchange::delayed) holds the message, in milliseconds,
    /// rounded up.
    ///
    /// # Errors
    /// If it is longer than 4,294,967,295 milliseconds.
    pub fn delay(mut self, time: Duration) -> Result<Self, ArgumentError> {
        const NAME: &str = "x-delay";
        let millis = millis(NAME, time, 0, DELAY_MAX)?;
        let headers = self.headers.get_or_insert_with(FieldTable::new);
        set(headers, NAME, millis);
        Ok(self)
    }
}
