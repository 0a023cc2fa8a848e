//! The room for messages: in the outboxes, in the storage, and among the receivers.

use std::time::Duration;

use super::{Machine, peer::Peer};
use crate::{message::Message, name::PeerName};

/// What a message needs to be sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Demand {
    /// The size that the message counts as, in bytes.
    pub(crate) bytes: usize,
    /// Whether the message is stored.
    pub(crate) is_stored: bool,
    /// Whether the message waits for a place among the receivers.
    pub(crate) awaits_place: bool,
}

impl Demand {
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            bytes: message.memory(),
            is_stored: message.is_persistent && message.ttl != Some(Duration::ZERO),
            awaits_place: false,
        }
    }

    /// The demand of any message.
    const NONE: Self = Self {
        bytes: 0,
        is_stored: false,
        awaits_place: false,
    };
}

/// The bounds of all receivers together because of which room was refused.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct WereFull {
    outboxes: bool,
    storage: bool,
    receivers: bool,
}

impl Machine {
    /// Whether there is room for a message. If not, `poll_room` names the receiver when there may
    /// be.
    pub(crate) fn room_of(&mut self, to: &PeerName, demand: Demand) -> bool {
        let has_room = self.has_room(to, demand);
        if !has_room {
            self.want_room(to, demand);
        }
        has_room
    }

    fn has_room(&self, to: &PeerName, demand: Demand) -> bool {
        let peer = self.peers.named(to);
        self.fits(peer, demand.bytes)
            && self.storage_has_room(demand)
            && (!demand.awaits_place || self.has_place(peer))
    }

    pub(super) fn fits(&self, peer: Option<&Peer>, bytes: usize) -> bool {
        let limits = &self.config.limits;
        let fits = |used: usize, limit: usize| used == 0 || used.saturating_add(bytes) <= limit;
        let own = peer.is_none_or(|peer| {
            peer.outbox.messages() < limits.outbox_messages
                && fits(peer.outbox.bytes(), limits.outbox_bytes)
        });
        own && fits(self.outbox_total, limits.outbox_total)
    }

    /// Whether there is a place among the receivers, or the receiver has one.
    pub(super) fn has_place(&self, peer: Option<&Peer>) -> bool {
        self.receivers < self.config.limits.receivers
            || peer.is_some_and(|peer| peer.outbox.messages() > 0)
    }

    /// Whether the storage is not too far behind. One that has failed refuses the message.
    pub(super) fn storage_has_room(&self, demand: Demand) -> bool {
        let limit = self.config.limits.unstored;
        !demand.is_stored
            || self.journal.error().is_some()
            || self.journal.has_room(demand.bytes, limit)
    }

    /// Notes that the application waits for room.
    pub(super) fn want_room(&mut self, to: &PeerName, demand: Demand) {
        let key = self.know(to);
        let lacks_place = demand.awaits_place && !self.has_place(self.peers.get(key));
        if let Some(peer) = self.peers.get_mut(key) {
            peer.wants_room = true;
        }
        self.wanting.insert(key);
        let total = self.outbox_total.saturating_add(demand.bytes);
        self.were_full.outboxes |= total > self.config.limits.outbox_total;
        self.were_full.storage |= !self.storage_has_room(demand);
        self.were_full.receivers |= lacks_place;
    }

    /// Notes that the outbox of a peer has shrunk.
    pub(super) fn freed(&mut self, key: u64) {
        let WereFull {
            outboxes,
            receivers,
            ..
        } = self.were_full;
        let has_places = self.receivers < self.config.limits.receivers;
        self.offer_room(|waiting| waiting == key || outboxes || (receivers && has_places));
    }

    /// Notes that the storage has stored something, or has failed.
    pub(super) fn storage_moved(&mut self) {
        if self.were_full.storage {
            self.offer_room(|_| true);
        }
    }

    /// Names the receivers that may have room again, of those that the application waits for.
    fn offer_room(&mut self, concerns: impl Fn(u64) -> bool) {
        if self.wanting.is_empty() {
            return;
        }
        let waiting: Vec<u64> = self.wanting.iter().copied().collect();
        for waiting in waiting.into_iter().filter(|it| concerns(*it)) {
            let Some(peer) = self.peers.get(waiting) else {
                continue;
            };
            let name = peer.name.clone();
            if self.has_room(&name, Demand::NONE) {
                self.wanting.remove(&waiting);
                if let Some(peer) = self.peers.get_mut(waiting) {
                    peer.wants_room = false;
                }
                self.rooms.push_back(name);
                self.forget_if_idle(waiting);
            }
        }
        if self.wanting.is_empty() {
            self.were_full = WereFull::default();
        }
    }
}
