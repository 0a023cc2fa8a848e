//! The settings of consumers, and the preset of a consumer of a stream.

use core::time::Duration;

use super::{ArgumentError, FirstError, TIME_MAX, bound, interval, millis, number, required, set};
use crate::{
    protocol::basic,
    wire::{FieldValue, IntoShortStr, Timestamp},
};

impl basic::Consume {
    /// Sets `x-priority`: consumers of a higher priority are served first, and 0 is the default
    /// (<https://www.rabbitmq.com/docs/consumer-priority>). Streams have none.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        set(&mut self.arguments, "x-priority", priority);
        self
    }

    /// Sets `x-consumer-timeout`, the time in which a delivery is to be acknowledged, in
    /// milliseconds, rounded up. RabbitMQ 4.3 and later have it, for quorum queues
    /// (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
    ///
    /// # Errors
    /// If it is zero or longer than ten years.
    pub fn consumer_timeout(mut self, timeout: Duration) -> Result<Self, ArgumentError> {
        const NAME: &str = "x-consumer-timeout";
        let timeout = millis(NAME, timeout, 1, TIME_MAX)?;
        set(&mut self.arguments, NAME, timeout);
        Ok(self)
    }
}

/// The first message that a consumer of a stream gets
/// (<https://www.rabbitmq.com/docs/streams#consuming>).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StreamOffset {
    /// The first message that is kept.
    First,
    /// The first message of the last chunk that was written.
    Last,
    /// The next message that is published. The server's default.
    #[default]
    Next,
    /// The message with that offset, or the first one after it.
    Offset(u64),
    /// The first message of the chunk of that time, or the first one after it.
    Timestamp(Timestamp),
    /// The same for the time that long ago, in seconds, rounded up.
    Interval(Duration),
}

/// A consumer of a stream: its `basic.consume`, and the `basic.qos` that is sent before it on the
/// same channel.
///
/// RabbitMQ refuses a consumer of a stream without a prefetch or without acknowledgements, which
/// are its flow control (<https://www.rabbitmq.com/docs/streams#consuming>). This one has both.
///
/// ```
/// use amqp_core::arguments::{StreamConsume, StreamOffset};
///
/// let log = StreamConsume::new("log", 100).offset(StreamOffset::First);
/// assert_eq!(log.qos().prefetch_count, 100);
/// assert!(!log.consume()?.no_ack);
/// # Ok::<(), amqp_core::arguments::ArgumentError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[must_use = "it consumes nothing until its methods are sent"]
pub struct StreamConsume {
    consume: basic::Consume,
    prefetch: u16,
    error: FirstError,
}

impl StreamConsume {
    /// Creates a preset with a prefetch, the number of messages that may be unacknowledged. A name
    /// that is empty or has more than 255 bytes, and a prefetch of zero, are errors of
    /// [`consume`](Self::consume).
    pub fn new(queue: impl IntoShortStr, prefetch: u16) -> Self {
        let mut error = FirstError::default();
        error.keep(number("prefetch-count", prefetch, 1, u16::MAX.into()));
        let queue = error.keep(required("a stream", queue));
        Self {
            consume: basic::Consume {
                queue: queue.unwrap_or_default(),
                ..basic::Consume::default()
            },
            prefetch,
            error,
        }
    }

    /// Sets `x-stream-offset`. An interval of zero or of more than ten years is an error of
    /// [`consume`](Self::consume).
    pub fn offset(mut self, offset: StreamOffset) -> Self {
        const NAME: &str = "x-stream-offset";
        let value: FieldValue = match offset {
            StreamOffset::First => "first".into(),
            StreamOffset::Last => "last".into(),
            StreamOffset::Next => "next".into(),
            StreamOffset::Offset(offset) => bound(offset).into(),
            StreamOffset::Timestamp(time) => time.into(),
            StreamOffset::Interval(ago) => match self.error.keep(interval(NAME, ago)) {
                Some(ago) => ago.into(),
                None => return self,
            },
        };
        set(&mut self.consume.arguments, NAME, value);
        self
    }

    /// Sets the consumer tag. By default the tag is chosen for each consumer.
    pub fn consumer_tag(mut self, tag: impl IntoShortStr) -> Self {
        self.consume.consumer_tag = tag.into_short_str();
        self
    }

    /// Returns the prefetch, to be sent first.
    #[must_use]
    pub fn qos(&self) -> basic::Qos {
        basic::Qos::default().prefetch_count(self.prefetch)
    }

    /// Returns the request of the consumer.
    ///
    /// # Errors
    /// The first error of the settings.
    pub fn consume(&self) -> Result<basic::Consume, ArgumentError> {
        self.error.clone().finish(self.consume.clone())
    }
}
