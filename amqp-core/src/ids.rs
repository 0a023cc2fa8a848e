//! Identifiers and sequence numbers, each a type of its own.

use core::{fmt, num::NonZeroU64};

/// One incarnation of a channel number of a connection.
///
/// Channel numbers are reused after a channel was closed. The identifier contains a count of
/// incarnations in addition to the number, so that an identifier of an earlier channel is invalid.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelId {
    number: u16,
    incarnation: u32,
}

impl ChannelId {
    pub(crate) const fn new(number: u16, incarnation: u32) -> Self {
        Self {
            number,
            incarnation,
        }
    }

    /// Returns the channel number on the wire, 1 to 65,535.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.number
    }

    pub(crate) const fn incarnation(self) -> u32 {
        self.incarnation
    }
}

impl fmt::Debug for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChannelId({}/{})", self.number, self.incarnation)
    }
}

impl fmt::Display for ChannelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// A request of this side. Each has exactly one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

/// A consumer of a channel: a small number, counted from 0 within the channel. It saves a lookup of
/// the consumer tag of each delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub(crate) u32);

impl ConsumerId {
    /// Returns the number, from 0: an index into a list of the channel's consumers.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The sequence number of a delivery within its channel, from 1. Never 0, which means "all" in an
/// acknowledgement (section 1.8.3.13 of the protocol reference). A channel that is
/// [reopened](crate::client::Connection::reopen_channel) goes on counting, while the server begins
/// with 1 again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryTag(NonZeroU64);

impl DeliveryTag {
    /// Creates a delivery tag. Returns `None` for 0.
    #[must_use]
    pub fn new(tag: u64) -> Option<Self> {
        NonZeroU64::new(tag).map(Self)
    }

    /// Returns the number: that on the wire, unless the channel was reopened.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// The sequence number of a publish within its channel, from 1, counted from the moment when the
/// channel was put into confirm mode. The server's confirms refer to it
/// (<https://www.rabbitmq.com/docs/confirms>). A channel that is
/// [reopened](crate::client::Connection::reopen_channel) goes on counting, while the server begins
/// with 1 again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishSeq(pub(crate) u64);

impl PublishSeq {
    /// Returns the number: that on the wire, unless the channel was reopened.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// The deliveries that an acknowledgement covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tags {
    /// This one.
    One(DeliveryTag),
    /// This one and all unacknowledged ones before it.
    UpTo(DeliveryTag),
    /// All unacknowledged ones received so far, excluding those still in transit.
    All,
}

impl Tags {
    /// Returns the `delivery-tag` and `multiple` arguments for the wire.
    #[must_use]
    pub const fn to_wire(self) -> (u64, bool) {
        match self {
            Self::One(tag) => (tag.get(), false),
            Self::UpTo(tag) => (tag.get(), true),
            Self::All => (0, true),
        }
    }
}

/// The server's treatment of a rejected message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Requeue {
    /// Requeues it, if possible at its original position
    /// (<https://www.rabbitmq.com/docs/confirms>).
    Yes,
    /// Drops it, or dead-letters it if the queue is configured so
    /// (<https://www.rabbitmq.com/docs/dlx>).
    No,
}

impl From<Requeue> for bool {
    fn from(requeue: Requeue) -> Self {
        requeue == Requeue::Yes
    }
}
