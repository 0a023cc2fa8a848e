//! The data that is stored, and its changes.

use std::{collections::BTreeMap, time::Duration};

use amqp_core::{Body, EncodedProperties};

use crate::{message::MessageId, name::PeerName};

/// A point of wall time: the duration since the start of 1970 (UTC).
///
/// Only differences matter, of which a negative one counts as zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WallTime(pub Duration);

impl WallTime {
    /// Returns the time since `earlier`, or zero if the clock has jumped back.
    #[must_use]
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// A persistent message in a storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredMessage {
    /// The identifier of the message.
    pub id: MessageId,
    /// The body.
    pub body: Body,
    /// The properties in AMQP's wire format: [`Message::to_wire`](crate::Message::to_wire).
    pub properties: EncodedProperties,
    /// The time at which the message expires, by the clock of its receiver's queue. `None` for
    /// never.
    pub expires_at: Option<Duration>,
}

/// A change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// A message was put at the end of a receiver's queue.
    Pushed {
        /// The receiver.
        to: PeerName,
        /// The number of the message, larger than that of any message before it in the queue.
        sequence: u64,
        /// The message.
        message: StoredMessage,
    },
    /// A message has left a receiver's queue: it was acknowledged or dropped.
    Removed {
        /// The receiver.
        to: PeerName,
        /// The number of the message.
        sequence: u64,
    },
    /// All messages up to one have left a receiver's queue. Some may have been removed before.
    RemovedTo {
        /// The receiver.
        to: PeerName,
        /// The number of the last message.
        up_to: u64,
    },
    /// All that is stored for a receiver has gone: its messages, and its clock.
    Cleared {
        /// The receiver.
        to: PeerName,
    },
    /// A message of a sender was accepted. It may be stored already at a lower position, which
    /// stays.
    Accepted {
        /// The sender.
        from: PeerName,
        /// The identifier of the message.
        id: MessageId,
        /// The position, larger than any before it of that sender.
        position: u64,
    },
    /// The accepted messages of a sender at lower positions are forgotten.
    Forgotten {
        /// The sender.
        from: PeerName,
        /// The lowest position that stays.
        below: u64,
    },
    /// The clock of a receiver's queue was started or stopped, or stands still. Replaces the one that
    /// is stored.
    Clock {
        /// The receiver.
        name: PeerName,
        /// The time on the clock.
        disconnected: Duration,
        /// The time at which it was started, or would be by the end of the process, up to a second
        /// ahead. `None` if it stands.
        since: Option<WallTime>,
    },
}

/// The clock of the time to live of a receiver's queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StoredClock {
    /// The time on the clock when it was last started or stopped.
    pub disconnected: Duration,
    /// The time at which it was started, or was by the end of the process. `None` if it stands.
    pub since: Option<WallTime>,
}

/// All that is stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The messages for each receiver with their numbers, in ascending order.
    pub outbox: BTreeMap<PeerName, Vec<(u64, StoredMessage)>>,
    /// The accepted messages of each sender with their positions, in ascending order.
    pub accepted: BTreeMap<PeerName, Vec<(u64, MessageId)>>,
    /// The clocks of the receivers' queues.
    pub clocks: BTreeMap<PeerName, StoredClock>,
}

/// The number of a batch of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BatchId(pub(crate) u64);

impl BatchId {
    /// Returns the number: batches are counted from 1.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// Changes to be stored at once: all of them or none.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Batch {
    /// The number of the batch. Batches are stored in order.
    pub id: BatchId,
    /// The changes, in order.
    pub changes: Vec<Change>,
}
