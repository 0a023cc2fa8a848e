//! Numbers that name things within a broker, none of which is ever used twice.

use amqp_core::ChannelId;

/// A connection of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey(pub(crate) u64);

impl ConnectionKey {
    /// The number: connections are counted from 1 in the order in which they were accepted.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// A queue of a broker. Another queue that is later declared by the same name has another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey(pub(crate) u64);

/// A consumer of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConsumerKey(pub(crate) u64);

/// A channel of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelKey {
    pub(crate) connection: ConnectionKey,
    pub(crate) id: ChannelId,
}
