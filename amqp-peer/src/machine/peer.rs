//! What the machine knows of one other peer, whether or not there is a link to it.

use std::collections::BTreeMap;

use amqp_core::Instant;

use super::{clock::QueueClock, inbox::Inbox, outbox::Outbox};
use crate::{event::LinkKey, name::PeerName};

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) name: PeerName,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    pub(super) clock: QueueClock,
    /// Whether something of the outbox is stored: messages, or its clock.
    pub(super) is_stored: bool,
    /// The number of links to it that have not ended, from `Joining` on.
    pub(super) links: usize,
    /// The link that is up.
    pub(super) up: Option<LinkKey>,
    /// The instance of the peer at the other end of that link.
    pub(super) instance: u64,
    /// The link of a connector of this side that is joining.
    pub(super) joining: Option<LinkKey>,
    /// A link that waits for the end of the probe of the one that is up, and the time of it.
    pub(super) contest: Option<(LinkKey, Instant)>,
    /// Whether the application waits for room.
    pub(super) wants_room: bool,
    /// The entry in the machine's list of deadlines.
    pub(super) deadline: Option<Instant>,
    /// The entry in the machine's list of marks.
    pub(super) mark: Option<Instant>,
    /// The order in which peers have lost their links, among those without one.
    pub(super) down_order: u64,
}

impl Peer {
    pub(super) fn new(name: PeerName, inbox: Inbox) -> Self {
        Self {
            name,
            outbox: Outbox::default(),
            inbox,
            clock: QueueClock::default(),
            is_stored: false,
            links: 0,
            up: None,
            instance: 0,
            joining: None,
            contest: None,
            wants_room: false,
            deadline: None,
            mark: None,
            down_order: 0,
        }
    }

    /// Whether nothing needs to be known of the peer.
    pub(super) fn is_idle(&self) -> bool {
        self.links == 0 && !self.wants_room && self.outbox.messages() == 0 && self.inbox.is_empty()
    }
}

/// All peers that are known, by key and by name. A key is not used again.
#[derive(Debug, Default)]
pub(super) struct Peers {
    by_key: BTreeMap<u64, Peer>,
    by_name: BTreeMap<PeerName, u64>,
    last_key: u64,
}

impl Peers {
    pub(super) fn key(&self, name: &PeerName) -> Option<u64> {
        self.by_name.get(name).copied()
    }

    pub(super) fn get(&self, key: u64) -> Option<&Peer> {
        self.by_key.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: u64) -> Option<&mut Peer> {
        self.by_key.get_mut(&key)
    }

    pub(super) fn named(&self, name: &PeerName) -> Option<&Peer> {
        self.get(self.key(name)?)
    }

    /// Adds a peer that is not known.
    pub(super) fn add(&mut self, peer: Peer) -> u64 {
        self.last_key += 1;
        self.by_name.insert(peer.name.clone(), self.last_key);
        self.by_key.insert(self.last_key, peer);
        self.last_key
    }

    pub(super) fn remove(&mut self, key: u64) {
        if let Some(peer) = self.by_key.remove(&key) {
            self.by_name.remove(&peer.name);
        }
    }

    pub(super) fn keys(&self) -> Vec<u64> {
        self.by_key.keys().copied().collect()
    }
}
