//! Keys of the entities of a broker, none of which is ever reused.

use amqp_core::ChannelId;

/// The key of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionKey(pub(crate) u64);

impl ConnectionKey {
    /// Returns the number: connections are counted from 1 in the order in which they were accepted.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// The key of a queue. A queue that is declared again after its deletion has a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct QueueKey(pub(crate) u64);

/// The key of a consumer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ConsumerKey(pub(crate) u64);

/// The key of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelKey {
    pub(crate) connection: ConnectionKey,
    pub(crate) id: ChannelId,
}
