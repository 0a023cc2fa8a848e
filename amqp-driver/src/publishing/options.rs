//! The options of a publisher.

use std::time::Duration;

use amqp_core::{
    protocol::basic,
    wire::{ShortStr, ShortStrError},
};

/// The options of a [`Publisher`](crate::publishing::Publisher).
///
/// ```
/// use amqp_driver::publishing::{PublisherOptions, Republish, Window};
/// use std::time::Duration;
///
/// let options = PublisherOptions::default()
///     .window(Window { messages: 200, bytes: 4 << 20 })
///     .confirm_timeout(Duration::from_secs(20))
///     .republish(Republish::new("orders-7-")?);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct PublisherOptions {
    /// The messages in flight.
    pub window: Window,
    /// The time for the confirm of each message that has none of its own. Default `None`:
    /// [`Timeouts::confirm`](amqp_core::Timeouts), which also bounds this one.
    pub confirm_timeout: Option<Duration>,
    /// Whether messages that were lost with a connection are published again. Default `None`: they
    /// are not.
    pub republish: Option<Republish>,
}

impl PublisherOptions {
    /// Sets [`window`](Self::window).
    #[must_use]
    pub const fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Sets [`confirm_timeout`](Self::confirm_timeout).
    #[must_use]
    pub const fn confirm_timeout(mut self, timeout: Duration) -> Self {
        self.confirm_timeout = Some(timeout);
        self
    }

    /// Sets [`republish`](Self::republish).
    #[must_use]
    pub fn republish(mut self, republish: Republish) -> Self {
        self.republish = Some(republish);
        self
    }
}

/// The bound of the messages in flight. A message has to wait while either is exceeded; one that is
/// larger than `bytes` waits until no other is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The number of messages, at least 1. Default 1000: RabbitMQ confirms no faster beyond that.
    /// [`Limits::unconfirmed`](amqp_core::Limits) is a bound of the channel besides.
    pub messages: usize,
    /// The memory of the messages, in bytes: bodies, properties and arguments. Default 16 MiB.
    pub bytes: usize,
}

impl Default for Window {
    fn default() -> Self {
        Self {
            messages: 1000,
            bytes: 16 << 20,
        }
    }
}

/// The message ids of messages that may be published again.
///
/// Messages without a confirm when the connection was lost are published again, in order and before
/// later ones, once the channel accepts messages again: each arrives at least once. So that
/// consumers can drop repeats, a message without a `message-id` gets one: the prefix, followed by a
/// counter. The prefix has to be unique among the publishers of a consumer's messages, over restarts
/// of the program too.
///
/// A message that was not confirmed in time is not published again, nor are the messages of a channel
/// or connection that the server has closed because of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Republish {
    prefix: ShortStr,
    next: u64,
}

/// The longest counter, in decimal.
const COUNTER: &str = "18446744073709551615";

impl Republish {
    /// Creates ids with this prefix, which count from 1.
    ///
    /// # Errors
    /// When the prefix is longer than 235 bytes, which leaves no room for the counter.
    pub fn new(prefix: &str) -> Result<Self, ShortStrError> {
        let _longest = ShortStr::try_from(format!("{prefix}{COUNTER}"))?;
        Ok(Self {
            prefix: prefix.try_into()?,
            next: 1,
        })
    }

    /// Counts from `first`.
    #[must_use]
    pub const fn counting_from(mut self, first: u64) -> Self {
        self.next = first;
        self
    }

    /// Gives a message an id, unless it has one.
    pub(super) fn name(&mut self, properties: &mut basic::Properties) {
        if properties.message_id.is_none() {
            let id = ShortStr::try_from(format!("{}{}", self.prefix, self.next));
            // Short enough: `new` has checked it.
            properties.message_id = id.ok();
            self.next = self.next.wrapping_add(1);
        }
    }
}

/// Whether the server acknowledges the messages of a publisher ([RabbitMQ's
/// page](https://www.rabbitmq.com/docs/confirms)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Acknowledgements {
    /// The channel is put into confirm mode: the outcome of a message is the server's answer.
    #[default]
    On,
    /// The channel stays as it is: of a [`Publisher`](crate::publishing::Publisher), the outcome of a
    /// message is [`Unacknowledged`](crate::publishing::Outcome::Unacknowledged) as soon as it is
    /// accepted into the output buffer. Mandatory messages that no queue accepts come back on
    /// [`BaseChannel::returns`](crate::BaseChannel::returns).
    Off,
    /// As [`On`](Self::On) if the server has announced the capability `publisher_confirms`, as
    /// RabbitMQ does, and otherwise as [`Off`](Self::Off).
    IfSupported,
}
