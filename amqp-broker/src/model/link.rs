//! What a broker knows of a connection.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    string::String,
};

use amqp_core::{ChannelId, server};
use bytes::BytesMut;

use super::channel::Channel;
use crate::keys::QueueKey;

#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) machine: server::Connection,
    /// Who has logged in.
    pub(crate) user: String,
    /// Who it is that logs in with EXTERNAL, if the transport knows.
    pub(crate) vouched: Option<String>,
    /// Which virtual host is used; empty before one is.
    pub(crate) vhost: String,
    /// By their numbers.
    pub(crate) channels: BTreeMap<u16, Channel>,
    /// The queues that go with the connection.
    pub(crate) exclusive: BTreeSet<QueueKey>,
    /// What has come and was not looked at, because nothing more is to be read now, and the rest of
    /// a frame behind it.
    pub(crate) pending: BytesMut,
    /// It published while memory was short, and is not read from.
    pub(crate) blocked: bool,
    /// Output piled up, and it is not read from.
    pub(crate) stuffed: bool,
    /// It is among those whose drivers are to be woken.
    pub(crate) woken: bool,
    /// The channels that have something to confirm.
    pub(crate) confirming: BTreeSet<ChannelId>,
}

impl Link {
    pub(crate) fn new(machine: server::Connection) -> Self {
        Self {
            machine,
            user: String::new(),
            vouched: None,
            vhost: String::new(),
            channels: BTreeMap::new(),
            exclusive: BTreeSet::new(),
            pending: BytesMut::new(),
            blocked: false,
            stuffed: false,
            woken: false,
            confirming: BTreeSet::new(),
        }
    }

    /// A channel, unless it has ended.
    pub(crate) fn channel(&mut self, id: ChannelId) -> Option<&mut Channel> {
        let channel = self.channels.get_mut(&id.number())?;
        (channel.id == id).then_some(channel)
    }

    /// Whether it is read from.
    pub(crate) const fn is_read(&self) -> bool {
        !self.blocked && !self.stuffed
    }
}
