//! The bounds of a peer's memory.

use crate::config::ConfigError;

/// The bounds of a peer's memory. Each is one that a stranger, or a receiver that is away, could
/// otherwise make grow.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The maximum number of links that are up. Default 10,000.
    pub links: usize,
    /// The maximum number of accepted links that are not up yet. Default 100: a flood of strangers
    /// takes some 100 KiB each.
    pub pending_links: usize,
    /// The largest body of a message, sent or received, in bytes. Default 64 MiB.
    pub body: u64,
    /// The maximum number of messages that a sender has in flight to this peer, received but not
    /// accepted ones included, at most 65,535. Their ids are remembered, twice as many. Default
    /// 4,096: more than is under way on a fast link.
    pub window: u16,
    /// The maximum size of the messages in flight to this peer from one sender, in bytes. One
    /// message may exceed it. Default 16 MiB.
    pub window_bytes: u32,
    /// The maximum number of messages that wait for one receiver, events of them that are not taken
    /// included. Default 100,000.
    pub outbox_messages: usize,
    /// The maximum size of the messages that wait for one receiver, in bytes by
    /// [`Message::memory`](crate::Message::memory). Default 64 MiB.
    pub outbox_bytes: usize,
    /// The maximum size of the messages that wait for all receivers, in bytes. Default 256 MiB.
    pub outbox_total: usize,
    /// The maximum size of the changes that the storage has not stored, in bytes: beyond, no
    /// persistent message is taken. One may exceed it. Acceptances may have as much
    /// again, and 64 KiB at least; beyond, the link that a persistent message comes over ends, and
    /// its sender sends it again. Default 64 MiB.
    pub unstored: usize,
    /// The maximum number of receivers that messages wait for. The reply to a call waits for a place.
    /// Default 10,000.
    pub receivers: usize,
    /// The maximum number of senders without a link of which accepted messages are remembered. Beyond, the one is
    /// forgotten that has been without a link for the longest time: its repeats are then given
    /// again. Default 10,000.
    pub senders: usize,
    /// The maximum size of the messages that are not accepted, of all senders together, in bytes by
    /// [`Message::memory`](crate::Message::memory). Beyond, the link that a message comes over ends,
    /// and its sender sends it again. Default 256 MiB.
    pub unaccepted_total: usize,
    /// The maximum number of events of links that are not taken: no further link is begun. Default
    /// 1,000.
    pub link_events: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            links: 10_000,
            pending_links: 100,
            body: 64 << 20,
            window: 4096,
            window_bytes: 16 << 20,
            outbox_messages: 100_000,
            outbox_bytes: 64 << 20,
            outbox_total: 256 << 20,
            unstored: 64 << 20,
            receivers: 10_000,
            senders: 10_000,
            unaccepted_total: 256 << 20,
            link_events: 1000,
        }
    }
}

/// The maximum size of a message's properties, in bytes: they fit into a frame of the smallest size
/// that two peers agree on.
pub(crate) const MAX_PROPERTIES: usize = 8000;

macro_rules! setters {
    ($($field:ident: $type:ty),* $(,)?) => {
        impl Limits {$(
            #[doc = concat!("Sets `", stringify!($field), "`.")]
            #[must_use]
            pub fn $field(mut self, $field: $type) -> Self {
                self.$field = $field;
                self
            }
        )*}
    };
}

setters! {
    links: usize,
    pending_links: usize,
    body: u64,
    window: u16,
    window_bytes: u32,
    outbox_messages: usize,
    outbox_bytes: usize,
    outbox_total: usize,
    unstored: usize,
    receivers: usize,
    senders: usize,
    unaccepted_total: usize,
    link_events: usize,
}

impl Limits {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let counts = [
            ("links", self.links),
            ("pending_links", self.pending_links),
            ("window", usize::from(self.window)),
            ("window_bytes", self.window_bytes as usize),
            ("outbox_messages", self.outbox_messages),
            ("outbox_bytes", self.outbox_bytes),
            ("outbox_total", self.outbox_total),
            ("unstored", self.unstored),
            ("receivers", self.receivers),
            ("senders", self.senders),
            ("unaccepted_total", self.unaccepted_total),
            ("link_events", self.link_events),
        ];
        match counts.into_iter().find(|(_, count)| *count == 0) {
            Some((setting, _)) => Err(ConfigError {
                setting,
                problem: "must not be zero",
            }),
            None => Ok(()),
        }
    }
}
