//! Numbers with a meaning, each a type of its own so that none is taken for another.

use core::{fmt, num::NonZeroU64};

/// One incarnation of a channel of a connection.
///
/// Channel numbers are used again after a channel was closed. The identifier carries a count of
/// incarnations beside the number, so that one kept from an earlier channel reaches nothing.
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

    /// The channel's number on the wire, 1 to 65,535.
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

/// A request of this side that waits for its outcome. Exactly one comes back for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

/// A consumer of a channel: a small number, counted from 0 within the channel, that saves looking
/// up the consumer tag of each delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConsumerId(pub(crate) u32);

impl ConsumerId {
    /// The number, from 0: an index into a list of the channel's consumers.
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// The number of a delivery within its channel, from 1. It is never 0, which means "all" in an
/// acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeliveryTag(NonZeroU64);

impl DeliveryTag {
    /// The tag of that value, none for 0.
    #[must_use]
    pub fn new(tag: u64) -> Option<Self> {
        NonZeroU64::new(tag).map(Self)
    }

    /// The value on the wire.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }
}

/// The number of a publish within its channel, from 1, counted from the moment the channel was
/// put into confirm mode. The server confirms by this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublishSeq(pub(crate) u64);

impl PublishSeq {
    /// The value on the wire.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }
}

/// Which deliveries an acknowledgement speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tags {
    /// This one.
    One(DeliveryTag),
    /// This one and all unacknowledged ones before it.
    UpTo(DeliveryTag),
    /// All unacknowledged ones that have come. What is still on its way is not among them.
    All,
}

impl Tags {
    /// The `delivery-tag` and `multiple` arguments that say so on the wire.
    #[must_use]
    pub const fn to_wire(self) -> (u64, bool) {
        match self {
            Self::One(tag) => (tag.get(), false),
            Self::UpTo(tag) => (tag.get(), true),
            Self::All => (0, true),
        }
    }
}

/// What the server does with a message that is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Requeue {
    /// Put it back into its queue, where possible at its old place.
    Yes,
    /// Drop it, or dead-letter it where the queue says so.
    No,
}

impl From<Requeue> for bool {
    fn from(requeue: Requeue) -> Self {
        requeue == Requeue::Yes
    }
}
