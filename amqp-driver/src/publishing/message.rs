//! A message to be published.

use std::time::Duration;

use amqp_core::{Body, protocol::basic, wire::Encode as _};

/// A message to be published: the arguments of `basic.publish`, properties and body.
///
/// ```
/// use amqp_driver::{protocol::basic, publishing::OutgoingMessage};
/// use std::time::Duration;
///
/// let to_tasks = basic::Publish::default().routing_key("tasks").mandatory(true);
/// let persistent = basic::Properties::default().delivery_mode(2);
/// let message = OutgoingMessage::new(to_tasks, "sweep the yard")
///     .properties(persistent)
///     .confirm_timeout(Duration::from_secs(5));
/// assert_eq!(message.body, "sweep the yard");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct OutgoingMessage {
    /// The exchange, the routing key and the flags.
    pub publish: basic::Publish,
    /// The properties.
    pub properties: basic::Properties,
    /// The body.
    pub body: Body,
    /// The time for the confirm, if it is less than [`Timeouts::confirm`](amqp_core::Timeouts).
    /// Default `None`: that of the [publisher](crate::publishing::PublisherOptions).
    pub confirm_timeout: Option<Duration>,
}

impl OutgoingMessage {
    /// Creates a message without properties.
    #[must_use]
    pub fn new(publish: basic::Publish, body: impl Into<Body>) -> Self {
        Self {
            publish,
            body: body.into(),
            ..Self::default()
        }
    }

    /// Sets [`properties`](Self::properties).
    #[must_use]
    pub fn properties(mut self, properties: basic::Properties) -> Self {
        self.properties = properties;
        self
    }

    /// Sets [`confirm_timeout`](Self::confirm_timeout).
    #[must_use]
    pub const fn confirm_timeout(mut self, timeout: Duration) -> Self {
        self.confirm_timeout = Some(timeout);
        self
    }

    /// The memory that the message occupies, in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.publish.exchange.len()
            + self.publish.routing_key.len()
            + self.properties.encoded_len()
            + self.body.len()
    }
}
