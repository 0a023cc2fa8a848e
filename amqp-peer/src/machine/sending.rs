//! Sending: from the application into the outbox, and the end of each message there.

use std::time::Duration;

use amqp_core::{Instant, client::Outcome};

use super::{
    Machine,
    link::Link,
    outbox::{Entry, Gone},
    room::Demand,
    wire,
};
use crate::{
    cause::{DropReason, SendError},
    config::{Receipts, TtlClock},
    event::{Dropped, Event},
    message::{Message, MessageId},
    name::PeerName,
    storage::{BatchId, Change, StoredMessage, WallTime},
};
use amqp_core::protocol::ReplyCode;

/// The time after which the clock of a receiver with a link is stored again: by as much less may be
/// counted of the time between two runs.
const MARK: Duration = Duration::from_secs(1);

impl Machine {
    /// Checks that a message may be sent at all.
    fn check_message(&self, message: &Message) -> Result<(), SendError> {
        let (len, limit) = (message.body.len() as u64, self.config.limits.body);
        if len > limit {
            return Err(SendError::TooLarge { len, limit });
        }
        let headers = &message.properties().headers;
        if headers
            .iter()
            .any(|(name, _)| name.as_str().starts_with(wire::RESERVED))
        {
            return Err(SendError::ReservedHeader);
        }
        wire::check_properties(message).map_err(|len| SendError::TooLarge {
            len: len as u64,
            limit: crate::limits::MAX_PROPERTIES as u64,
        })?;
        match self.journal.error() {
            Some(error) if message.is_persistent => Err(SendError::Storage {
                message: error.into(),
            }),
            _ => Ok(()),
        }
    }

    pub(super) fn push_message(
        &mut self,
        to: &PeerName,
        message: Message,
        receipts: Receipts,
    ) -> Result<MessageId, SendError> {
        match self.check_send(to, &message) {
            Ok(key) => Ok(self.enqueue(key, message, receipts)),
            Err(error) => {
                self.let_go(message);
                Err(error)
            }
        }
    }

    /// Hands a message that is gone to the host, or drops it.
    fn let_go(&mut self, message: Message) {
        if let Some(gone) = &mut self.gone {
            gone.push(message);
        }
    }

    /// Checks that a message may be sent now. Returns the key of its receiver.
    fn check_send(&mut self, to: &PeerName, message: &Message) -> Result<u64, SendError> {
        if self.is_stopped {
            return Err(SendError::Stopped);
        }
        if *to == self.config.name {
            return Err(SendError::OwnName);
        }
        self.check_message(message)?;
        let known = self.peers.key(to);
        let peer = known.and_then(|key| self.peers.get(key));
        let up = peer.and_then(|peer| peer.up);
        if up.is_none() && message.ttl == Some(Duration::ZERO) {
            return Err(SendError::NotConnected { to: to.clone() });
        }
        if let Some(identity) = up
            .and_then(|up| self.links.get(&up))
            .and_then(|link| link.identity.as_ref())
            && message.body.len() as u64 > identity.body
        {
            let (len, limit) = (message.body.len() as u64, identity.body);
            return Err(SendError::TooLarge { len, limit });
        }
        let limit = self.config.limits.receivers;
        if !self.has_place(peer) {
            return Err(SendError::TooManyReceivers { limit });
        }
        let demand = Demand::of(message);
        if !self.fits(peer, demand.bytes) {
            self.want_room(to, demand);
            let info = self.outbox(to);
            return Err(SendError::Full {
                to: to.clone(),
                messages: info.messages,
                bytes: info.bytes,
            });
        }
        if !self.storage_has_room(demand) {
            self.want_room(to, demand);
            return Err(SendError::Unstored {
                bytes: self.journal.unstored(),
                limit: self.config.limits.unstored,
            });
        }
        Ok(known.unwrap_or_else(|| self.know(to)))
    }

    fn enqueue(&mut self, key: u64, message: Message, receipts: Receipts) -> MessageId {
        self.sent_messages += 1;
        let mut bytes = [0; 16];
        let (instance, count) = bytes.split_at_mut(8);
        instance.copy_from_slice(&self.config.seed.to_be_bytes());
        count.copy_from_slice(&self.sent_messages.to_be_bytes());
        let id = MessageId::from_bytes(bytes);
        let now = self.now;
        let always = self.config.ttl_clock == TtlClock::Always;
        let Some(peer) = self.peers.get_mut(key) else {
            return id;
        };
        self.receivers += usize::from(peer.outbox.messages() == 0);
        if peer.up.is_none() || always {
            peer.clock.start(now);
        }
        let mut entry = Entry::new(id, message, receipts);
        let time = peer.clock.at(now);
        entry.expires_at = entry.message.ttl.map(|ttl| time.saturating_add(ttl));
        self.outbox_total += entry.memory;
        let is_persistent =
            entry.message.is_persistent && entry.message.ttl != Some(Duration::ZERO);
        if is_persistent {
            let sequence = peer.outbox.next_sequence;
            peer.outbox.next_sequence += 1;
            let message = StoredMessage {
                id,
                body: entry.message.body.clone(),
                properties: entry.message.to_wire(),
                expires_at: entry.expires_at,
            };
            let to = peer.name.clone();
            entry.sequence = Some(sequence);
            entry.batch = self.journal.push(Change::Pushed {
                to,
                sequence,
                message,
            });
            if self.unstored.back() != Some(&(entry.batch, key)) {
                self.unstored.push_back((entry.batch, key));
            }
        }
        let expires = entry.expires_at.is_some();
        peer.outbox.push(entry);
        let up = peer.up;
        let is_noted = peer.is_stored && (peer.clock.is_running() || peer.mark.is_some());
        if is_persistent && expires && !is_noted {
            self.note_clock(key);
        }
        if expires {
            self.plan_expiry(key);
        }
        if let Some(up) = up {
            self.wake_key(up);
        }
        id
    }

    /// Ends the life of a message that has left the outbox: delivered, or dropped for a reason.
    pub(super) fn finish(&mut self, key: u64, gone: Gone, dropped: Option<DropReason>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        self.outbox_total -= gone.memory;
        if let Some(sequence) = gone.sequence {
            let to = peer.name.clone();
            let batch = self.journal.push(if gone.is_first {
                let up_to = sequence;
                Change::RemovedTo { to, up_to }
            } else {
                Change::Removed { to, sequence }
            });
            if gone.was_sent {
                peer.outbox.leaving += 1;
                match self.leaving.back_mut() {
                    Some((last, of, count)) if (*last, *of) == (batch, key) => *count += 1,
                    _ => self.leaving.push_back((batch, key, 1)),
                }
            }
        }
        let event = match dropped {
            Some(reason) => Some(Event::Dropped(Dropped {
                to: peer.name.clone(),
                id: gone.id,
                message: gone.message,
                reason,
                was_sent: gone.was_sent,
            })),
            None => {
                // As `let_go` does; the receiver is borrowed here.
                if let Some(all) = &mut self.gone {
                    all.push(gone.message);
                }
                if let Some(all) = &mut self.delivered {
                    all.push((peer.name.clone(), gone.id));
                }
                (gone.receipts >= Receipts::Delivered).then(|| Event::Delivered {
                    to: peer.name.clone(),
                    id: gone.id,
                })
            }
        };
        if let Some(event) = event {
            let kept = if dropped.is_some() { gone.memory } else { 0 };
            peer.outbox.untaken += 1;
            peer.outbox.untaken_bytes += kept;
            self.outbox_total += kept;
            self.events.push_back(event);
        }
        if peer.outbox.is_empty() {
            peer.clock = super::clock::QueueClock::default();
            if std::mem::take(&mut peer.is_stored) {
                let to = peer.name.clone();
                self.journal.push(Change::Cleared { to });
            }
            if let Some(deadline) = peer.deadline.take() {
                self.deadlines.remove(&(deadline, key));
            }
            if let Some(mark) = peer.mark.take() {
                self.marks.remove(&(mark, key));
            }
        }
        self.emptied(key);
    }

    /// Notes that a message or an event of it has gone.
    fn emptied(&mut self, key: u64) {
        let is_empty = self
            .peers
            .get(key)
            .is_some_and(|peer| peer.outbox.messages() == 0);
        self.receivers -= usize::from(is_empty);
        self.freed(key);
        if is_empty {
            self.forget_if_idle(key);
        }
    }

    /// Notes that an event of a message was taken, which keeps that many bytes.
    pub(super) fn event_taken(&mut self, to: &PeerName, bytes: usize) {
        let Some(key) = self.peers.key(to) else {
            return;
        };
        if let Some(peer) = self.peers.get_mut(key) {
            peer.outbox.untaken -= 1;
            peer.outbox.untaken_bytes -= bytes;
            self.outbox_total -= bytes;
        }
        self.emptied(key);
    }

    /// Drops the messages of a receiver that have expired.
    pub(super) fn expire(&mut self, key: u64) {
        while let Some(peer) = self.peers.get_mut(key)
            && peer.clock.is_running()
            && let Some(gone) = peer.outbox.expire(peer.clock.at(self.now))
        {
            self.finish(key, gone, Some(DropReason::Expired));
        }
        self.plan_expiry(key);
    }

    /// Enters the next expiry of a receiver's messages in the list of deadlines.
    pub(super) fn plan_expiry(&mut self, key: u64) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        let next = peer.outbox.next_expiry();
        let next = next.and_then(|time| peer.clock.when(time));
        if next == peer.deadline {
            return;
        }
        if let Some(deadline) = peer.deadline.take() {
            self.deadlines.remove(&(deadline, key));
        }
        if let Some(deadline) = next {
            self.deadlines.insert((deadline, key));
        }
        peer.deadline = next;
    }

    /// Stores the clock of a receiver's queue, if stored messages run by it. One that stands is stored
    /// as one that is started at the next mark: after the end of the process there is no link.
    pub(super) fn note_clock(&mut self, key: u64) {
        let now = self.now;
        let wall = self.wall();
        self.plan_mark(key, None);
        if let Some(peer) = self.peers.get_mut(key)
            && peer.outbox.persistent > 0
            && peer.outbox.next_expiry().is_some()
        {
            peer.is_stored = true;
            let is_running = peer.clock.is_running();
            let ahead = if is_running { Duration::ZERO } else { MARK };
            self.journal.push(Change::Clock {
                name: peer.name.clone(),
                disconnected: peer.clock.at(now),
                since: Some(WallTime(wall.0.saturating_add(ahead))),
            });
            self.plan_mark(key, (!is_running).then(|| now + MARK));
        }
    }

    /// Enters the next mark of a receiver's clock in the list, or removes it.
    fn plan_mark(&mut self, key: u64, mark: Option<Instant>) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if let Some(mark) = std::mem::replace(&mut peer.mark, mark) {
            self.marks.remove(&(mark, key));
        }
        self.marks.extend(mark.map(|mark| (mark, key)));
    }

    /// Stores the clocks that are due again.
    pub(super) fn note_marks(&mut self) {
        while let Some(&(at, key)) = self.marks.first()
            && at <= self.now
        {
            self.marks.pop_first();
            self.note_clock(key);
        }
    }

    /// The wall time.
    fn wall(&self) -> WallTime {
        let (start, wall) = self.started;
        WallTime(wall.0.saturating_add(self.now - start))
    }

    /// Handles the acknowledgement of a message.
    fn delivered(&mut self, key: u64, position: u64) {
        let gone = self
            .peers
            .get_mut(key)
            .and_then(|peer| peer.outbox.remove(position));
        if let Some(gone) = gone {
            self.finish(key, gone, None);
        }
    }

    /// Handles an acknowledgement of the connector.
    pub(super) fn on_ack(&mut self, link: &mut Link, tag: u64, multiple: bool) {
        let Some(key) = link.peer else {
            return;
        };
        let last = if multiple && tag == 0 {
            link.outgoing.last()
        } else {
            tag
        };
        if multiple && (last == 0 || link.outgoing.knows(last)) {
            while let Some(position) = link.outgoing.settle_first(last) {
                self.delivered(key, position);
            }
        } else if let Ok(position) = link.outgoing.settle(tag) {
            self.delivered(key, position);
        } else {
            self.close_broken(link, ReplyCode::PRECONDITION_FAILED);
        }
    }

    /// Handles a message that the receiver gives back.
    pub(super) fn on_given_back(&mut self, link: &mut Link, tag: u64) {
        match link.outgoing.settle(tag) {
            Ok(position) => {
                if let Some(peer) = link.peer.and_then(|key| self.peers.get_mut(key))
                    && peer.up == Some(link.key)
                {
                    peer.outbox.send_again(position);
                }
            }
            Err(_) => self.close_broken(link, ReplyCode::PRECONDITION_FAILED),
        }
    }

    /// Handles the confirms of the listener.
    pub(super) fn on_settled(
        &mut self,
        link: &mut Link,
        tags: std::ops::RangeInclusive<u64>,
        outcome: &Outcome,
    ) {
        for tag in tags {
            match outcome {
                Outcome::Acked | Outcome::PossiblyReturned => self.on_ack(link, tag, false),
                Outcome::Nacked => self.on_given_back(link, tag),
                // The link has ended.
                Outcome::NotSent(_) | Outcome::Unknown(_) => return,
            }
        }
    }

    /// Handles that batches are stored: messages that waited for it may be sent.
    pub(super) fn send_stored(&mut self, up_to: BatchId) {
        while let Some((batch, key)) = self.unstored.front().copied()
            && batch <= up_to
        {
            self.unstored.pop_front();
            if let Some(up) = self.peers.get(key).and_then(|peer| peer.up) {
                self.wake_key(up);
            }
        }
        while let Some((batch, key, count)) = self.leaving.front().copied()
            && batch <= up_to
        {
            self.leaving.pop_front();
            let Some(peer) = self.peers.get_mut(key) else {
                continue;
            };
            peer.outbox.leaving -= count;
            match peer.up {
                Some(up) => self.wake_key(up),
                None => self.forget_if_idle(key),
            }
        }
    }

    /// Drops the messages of a receiver that `leaves` holds for.
    pub(super) fn drop_messages(
        &mut self,
        key: u64,
        reason: DropReason,
        leaves: impl Fn(&Entry) -> bool,
    ) {
        let mut from = 0;
        while let Some((position, gone)) = self
            .peers
            .get_mut(key)
            .and_then(|peer| peer.outbox.remove_if(from, &leaves))
        {
            from = position;
            self.finish(key, gone, Some(reason));
        }
        self.plan_expiry(key);
    }
}
