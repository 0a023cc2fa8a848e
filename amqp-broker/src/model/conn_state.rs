//! The state of a connection.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    string::String,
};

use amqp_core::{ChannelId, server};
use bytes::{Bytes, BytesMut};

use super::channel::Channel;
use crate::keys::QueueKey;

#[derive(Debug)]
pub(crate) struct ConnState {
    pub(crate) machine: server::Connection,
    /// The authenticated user; empty before the login.
    pub(crate) user: String,
    /// `true` if the user had the tag `impersonator` at the login.
    pub(crate) impersonator: bool,
    /// The user for EXTERNAL: `Some` if the transport has authenticated one.
    pub(crate) external_user: Option<String>,
    /// The virtual host; empty before it is open.
    pub(crate) vhost: String,
    /// The channels, by number. Boxed, because a node of the map has room for eleven, and most
    /// connections have one.
    pub(crate) channels: BTreeMap<u16, Box<Channel>>,
    /// The exclusive queues, which are deleted with the connection.
    pub(crate) exclusive: BTreeSet<QueueKey>,
    /// The input that was received while reading was paused, including a partial frame at its end.
    pub(crate) pending: BytesMut,
    /// `true` while reading is paused because the client published during a memory alarm
    /// (<https://www.rabbitmq.com/docs/alarms>).
    pub(crate) blocked: bool,
    /// `true` while reading is paused because more than `limits.replies` bytes of output were
    /// queued.
    pub(crate) output_full: bool,
    /// `true` while reading is paused because the journal is full.
    pub(crate) journal_full: bool,
    /// `true` while reading is paused because the reply to `tx.commit` waits for the journal.
    pub(crate) committing: bool,
    /// The client's certificate, in DER: `Some` if the transport has received one.
    pub(crate) certificate: Option<Bytes>,
    /// `true` while the connection is in the queue of wake-ups.
    pub(crate) woken: bool,
    /// The channels that have pending confirms.
    pub(crate) confirming: BTreeSet<ChannelId>,
}

impl ConnState {
    pub(crate) fn new(machine: server::Connection) -> Self {
        Self {
            machine,
            user: String::new(),
            impersonator: false,
            external_user: None,
            vhost: String::new(),
            channels: BTreeMap::new(),
            exclusive: BTreeSet::new(),
            pending: BytesMut::new(),
            blocked: false,
            output_full: false,
            journal_full: false,
            committing: false,
            certificate: None,
            woken: false,
            confirming: BTreeSet::new(),
        }
    }

    /// Returns a channel: `Some` if it has not ended.
    pub(crate) fn channel(&mut self, id: ChannelId) -> Option<&mut Channel> {
        let channel = self.channels.get_mut(&id.number())?;
        (channel.id == id).then_some(&mut **channel)
    }

    /// Returns whether the connection is read from.
    pub(crate) const fn wants_input(&self) -> bool {
        !self.blocked && !self.output_full && !self.journal_full && !self.committing
    }
}
