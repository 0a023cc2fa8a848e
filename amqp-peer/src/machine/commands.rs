//! The calls of the application, of the clock, and of the storage.

use amqp_core::Instant;

use super::{Demand, Machine, OutboxInfo, StoreInfo};
use crate::{
    cause::{DownCause, DropReason, SendError},
    config::Receipts,
    event::{Event, LinkKey, Token},
    machine::LinkInfo,
    message::{Message, MessageId},
    name::PeerName,
    storage::{Batch, BatchId},
};

/// The number of places that an empty queue of events keeps.
const IDLE_EVENTS: usize = 1024;

impl Machine {
    // Messages.

    /// Puts a message into the outbox of its receiver, to be sent over the link to it, now or
    /// later.
    ///
    /// # Errors
    /// [`SendError`]; nothing has changed. With [`room_for`](Self::room_for) beforehand, it is
    /// neither [`SendError::Full`] nor [`SendError::Unstored`]. It is not
    /// [`SendError::ReservedKind`]: the machine knows nothing of calls.
    pub fn send(
        &mut self,
        now: Instant,
        to: &PeerName,
        message: Message,
    ) -> Result<MessageId, SendError> {
        self.send_with(now, to, message, self.config.receipts)
    }

    /// As [`send`](Self::send), with other receipts than those of the configuration.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn send_with(
        &mut self,
        now: Instant,
        to: &PeerName,
        message: Message,
        receipts: Receipts,
    ) -> Result<MessageId, SendError> {
        self.advance_clock(now);
        self.push_message(to, message, receipts)
    }

    /// Whether the outbox of a receiver has room for a message of that many bytes by
    /// [`Message::memory`]. If not, [`poll_room`](Self::poll_room) names it when it has room again.
    #[must_use]
    pub fn room(&mut self, to: &PeerName, bytes: usize) -> bool {
        let demand = Demand {
            bytes,
            is_stored: false,
            awaits_place: false,
        };
        self.room_of(to, demand)
    }

    /// As [`room`](Self::room), for a message: if it is persistent, the storage has room as well.
    #[must_use]
    pub fn room_for(&mut self, to: &PeerName, message: &Message) -> bool {
        self.room_of(to, Demand::of(message))
    }

    /// Returns the next receiver that has room again, after it had none.
    pub fn poll_room(&mut self) -> Option<PeerName> {
        self.rooms.pop_front()
    }

    /// Accepts a received message: it is acknowledged, and not given again. Does nothing if it was
    /// accepted or requeued before.
    pub fn settle(&mut self, now: Instant, token: Token) {
        self.advance_clock(now);
        self.accept_message(token);
    }

    /// Gives a received message back: its sender sends it again, behind those under way. Does
    /// nothing if it was accepted or requeued before.
    pub fn requeue(&mut self, now: Instant, token: Token) {
        self.advance_clock(now);
        self.give_back(token);
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.take_event(0)
    }

    /// The event behind that many others.
    pub(crate) fn event(&self, index: usize) -> Option<&Event> {
        self.events.get(index)
    }

    /// Takes the event behind that many others.
    pub(crate) fn take_event(&mut self, index: usize) -> Option<Event> {
        let event = self.events.remove(index);
        match &event {
            Some(Event::Up(_) | Event::Down(_) | Event::Refused(_)) => self.link_events -= 1,
            Some(Event::Written { to, .. } | Event::Delivered { to, .. }) => {
                self.event_taken(to, 0);
            }
            Some(Event::Dropped(dropped)) => {
                self.event_taken(&dropped.to, dropped.message.memory());
            }
            Some(Event::Received(_)) => {}
            None if self.events.capacity() > IDLE_EVENTS => self.events.shrink_to(IDLE_EVENTS),
            None => {}
        }
        event
    }

    /// Keeps messages that were delivered or refused until they are [taken](Self::take_gone).
    /// Destructors of the application's bodies then run there.
    pub(crate) fn keep_gone(&mut self) {
        self.gone = Some(Vec::new());
    }

    pub(crate) fn take_gone(&mut self, into: &mut Vec<Message>) {
        if let Some(gone) = &mut self.gone {
            into.append(gone);
        }
    }

    /// Sets whether deliveries are kept until they are [taken](Self::take_delivered), without receipts as
    /// well.
    pub(crate) fn keep_delivered(&mut self, keeps: bool) {
        if keeps != self.delivered.is_some() {
            self.delivered = keeps.then(Vec::new);
        }
    }

    pub(crate) fn take_delivered(&mut self) -> Vec<(PeerName, MessageId)> {
        self.delivered
            .as_mut()
            .map(std::mem::take)
            .unwrap_or_default()
    }

    /// Whether a link to that peer is up.
    #[must_use]
    pub fn is_up(&self, name: &PeerName) -> bool {
        self.peers.named(name).is_some_and(|peer| peer.up.is_some())
    }

    /// Returns the links, in the order in which they were begun.
    pub fn links(&self) -> impl Iterator<Item = LinkInfo> + '_ {
        self.links.values().map(|link| LinkInfo {
            key: link.key,
            name: link.identity.as_ref().map(|it| it.name.clone()),
            is_listener: link.is_listener(),
            is_up: link.is_up(),
            unacknowledged: link.outgoing.count(),
            unaccepted: link.incoming.count(),
        })
    }

    /// Returns the state of the outbox of a receiver.
    #[must_use]
    pub fn outbox(&self, name: &PeerName) -> OutboxInfo {
        let Some(peer) = self.peers.named(name) else {
            return OutboxInfo::default();
        };
        let up = peer.up.and_then(|up| self.links.get(&up));
        OutboxInfo {
            messages: peer.outbox.messages(),
            bytes: peer.outbox.bytes(),
            in_flight: up.map_or(0, |link| link.outgoing.count()),
        }
    }

    /// Returns the state of what is to be stored.
    #[must_use]
    pub fn store(&self) -> StoreInfo {
        StoreInfo {
            unstored: self.journal.unstored(),
            error: self.journal.error().map(str::to_owned),
        }
    }

    /// Ends the link to a peer, if one is up. What was not acknowledged waits for the next one.
    pub fn disconnect(&mut self, name: &PeerName, now: Instant) {
        self.advance_clock(now);
        if let Some(up) = self.peers.named(name).and_then(|peer| peer.up) {
            self.with_link(up, |machine, link| {
                machine.close(link, DownCause::Requested);
            });
        }
    }

    /// Drops all messages that wait for a receiver, each with an event.
    pub fn forget(&mut self, name: &PeerName, now: Instant) {
        self.advance_clock(now);
        if let Some(key) = self.peers.key(name) {
            self.drop_messages(key, DropReason::Removed, |_| true);
        }
    }

    /// Stops the peer: ends all links, and takes no message any more. Transient messages are
    /// dropped with an event; persistent ones stay in the storage.
    pub fn stop(&mut self, now: Instant) {
        self.advance_clock(now);
        if std::mem::replace(&mut self.is_stopped, true) {
            return;
        }
        let links: Vec<LinkKey> = self.links.keys().copied().collect();
        for key in links {
            self.with_link(key, |machine, link| {
                machine.close(link, DownCause::Requested);
            });
        }
        for key in self.peers.keys() {
            self.drop_messages(key, DropReason::Stopped, |entry| entry.sequence.is_none());
        }
    }

    /// Whether the peer has stopped.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    // Time.

    /// Returns the next deadline of the peer itself, such as the end of a time to live.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let expiry = self.deadlines.first().map(|(at, _)| *at);
        let mark = self.marks.first().map(|(at, _)| *at);
        let contest = |key: &u64| Some(self.peers.get(*key)?.contest?.1);
        let contests = self.contested.iter().filter_map(contest);
        contests.chain(expiry).chain(mark).min()
    }

    /// Handles the time of [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance_clock(now);
        while let Some(&(at, key)) = self.deadlines.first()
            && at <= self.now
        {
            self.expire(key);
        }
        self.note_marks();
        self.end_contests();
    }

    // Storage.

    /// Returns the next changes to be stored. Batches are stored in order; further ones may be
    /// taken meanwhile. Those that are taken late have less to store: of several clocks of a queue
    /// the last one.
    pub fn poll_changes(&mut self) -> Option<Batch> {
        self.journal.poll()
    }

    /// Returns the number of the batch that the latest change is in, or will be in. `None` if
    /// there was no change yet. A persistent message that was sent is stored with that batch.
    #[must_use]
    pub fn latest_batch(&self) -> Option<BatchId> {
        self.journal.latest()
    }

    /// Whether a batch is stored, and with it all before it.
    #[must_use]
    pub const fn is_stored(&self, batch: BatchId) -> bool {
        self.journal.is_stored(batch)
    }

    /// Notes that all batches up to one are stored. What depends on them goes on: the first
    /// transmission of persistent messages, and acknowledgements of received ones.
    pub fn handle_stored(&mut self, now: Instant, up_to: BatchId) {
        self.advance_clock(now);
        self.journal.stored(up_to);
        self.accept_stored(up_to);
        self.send_stored(up_to);
        self.storage_moved();
    }

    /// Notes that storing has failed, with the error's text. The batch has to be stored again; until
    /// that has worked, nothing persistent is taken.
    pub fn handle_store_failed(&mut self, now: Instant, message: &str) {
        self.advance_clock(now);
        self.journal.failed(message);
        self.storage_moved();
    }
}
