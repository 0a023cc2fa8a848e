//! Receiving: from the link to the application, and the acknowledgements back.

use amqp_core::{Content, protocol::ReplyCode};

use super::{
    Machine,
    inbox::Found,
    journal::CHANGE,
    link::{Link, Stage},
    wire,
};
use crate::{
    event::{Event, LinkKey, Received, Sender, Token},
    storage::{BatchId, Change},
};

/// The minimum size of acceptances that are not stored, in bytes, at which persistent messages are
/// refused.
const UNSTORED_MIN: usize = 64 << 10;

impl Machine {
    /// Handles a message of the peer.
    pub(super) fn receive(&mut self, link: &mut Link, tag: Option<u64>, content: Content) {
        if link.stage == Stage::Ended {
            return;
        }
        let expected = link.incoming.next_tag();
        let (true, Some(key)) = (link.is_up() && tag == Some(expected), link.peer) else {
            return self.close_broken(link, ReplyCode::COMMAND_INVALID);
        };
        let limits = &self.config.limits;
        let window = usize::from(limits.window);
        if !link.incoming.fits(window, u64::from(limits.window_bytes)) {
            return self.close_broken(link, ReplyCode::RESOURCE_ERROR);
        }
        let len = content.body.len() as u64;
        if len > limits.body {
            return self.close_broken(link, ReplyCode::CONTENT_TOO_LARGE);
        }
        let Some(arrived) = wire::read(content) else {
            return self.close_broken(link, ReplyCode::SYNTAX_ERROR);
        };
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        link.incoming.add(len);
        let (id, is_repeated) = (arrived.id, arrived.is_repeated);
        let found = if is_repeated {
            peer.inbox.find(id, link.key, expected, &self.journal)
        } else {
            Found::New
        };
        match found {
            Found::New => {
                // Those of earlier links, which their sender has dropped since, count as well.
                if peer.inbox.len() >= 2 * window {
                    return self.close_broken(link, ReplyCode::RESOURCE_ERROR);
                }
                let was_given = is_repeated && peer.inbox.was_given_back(id);
                let memory = arrived.message.memory();
                let total = self.unaccepted + memory;
                if self.unaccepted > 0 && total > limits.unaccepted_total {
                    return self.close_broken(link, ReplyCode::RESOURCE_ERROR);
                }
                let unstored = limits.unstored.max(UNSTORED_MIN);
                let accepted = self.storing.len() * CHANGE;
                if arrived.message.is_persistent && accepted > unstored {
                    return self.close_broken(link, ReplyCode::RESOURCE_ERROR);
                }
                self.unaccepted = total;
                let number = peer.inbox.give(id, &arrived.message, link.key, expected);
                self.events.push_back(Event::Received(Received {
                    from: Sender::Peer(peer.name.clone()),
                    id,
                    message: arrived.message,
                    token: Token {
                        sender: key,
                        number,
                    },
                    is_repeated: arrived.may_be_elsewhere || was_given,
                }));
            }
            Found::Pending => {}
            // It is in the storage as it was: a repeat is acknowledged at once.
            Found::Accepted(position) => {
                link.incoming.accept(expected);
                if let Some(position) = position {
                    let from = peer.name.clone();
                    self.journal.push(Change::Accepted { from, id, position });
                    if let Some(below) = peer.inbox.take_forgotten() {
                        let from = peer.name.clone();
                        self.journal.push(Change::Forgotten { from, below });
                    }
                }
            }
        }
    }

    /// Accepts a message. A persistent one is acknowledged when that is stored.
    pub(super) fn accept_message(&mut self, token: Token) {
        let Token { sender, number } = token;
        let Some(peer) = self.peers.get_mut(sender) else {
            return;
        };
        let Some(given) = peer.inbox.given(number) else {
            return;
        };
        self.unaccepted -= given.memory;
        if given.is_persistent {
            let Some((id, position)) = peer.inbox.storing(number) else {
                return;
            };
            let from = peer.name.clone();
            let batch = self.journal.push(Change::Accepted { from, id, position });
            self.storing.push_back((batch, sender, number));
        } else if let Some((link, tag)) = peer.inbox.accept(number) {
            self.accepted(sender, link, tag);
        }
    }

    /// Acknowledges a message that is accepted, and stored if it is persistent.
    fn accepted(&mut self, sender: u64, link: LinkKey, tag: u64) {
        if let Some(link) = self.links.get_mut(&link) {
            link.incoming.accept(tag);
            if !std::mem::replace(&mut link.is_woken, true) {
                self.wakes.push_back(link.key);
            }
        }
        let Some(peer) = self.peers.get_mut(sender) else {
            return;
        };
        if let Some(below) = peer.inbox.take_forgotten() {
            let from = peer.name.clone();
            self.journal.push(Change::Forgotten { from, below });
        }
        self.count_disconnected(sender);
    }

    /// Counts a sender with remembered messages, if it has no link.
    fn count_disconnected(&mut self, key: u64) {
        if let Some(peer) = self.peers.get(key)
            && peer.up.is_none()
            && !self.disconnected.contains_key(&peer.down_order)
        {
            self.remember_disconnected(key);
        }
    }

    /// Handles that batches are stored: acceptances that waited for it are acknowledged.
    pub(super) fn accept_stored(&mut self, up_to: BatchId) {
        while let Some(&(batch, sender, number)) = self.storing.front()
            && batch <= up_to
        {
            self.storing.pop_front();
            let accepted = self
                .peers
                .get_mut(sender)
                .and_then(|peer| peer.inbox.accept(number));
            if let Some((link, tag)) = accepted {
                self.accepted(sender, link, tag);
            }
        }
    }

    /// Gives a message back to its sender.
    pub(super) fn give_back(&mut self, token: Token) {
        let Token { sender, number } = token;
        let Some(peer) = self.peers.get_mut(sender) else {
            return;
        };
        let memory = peer.inbox.given(number).map(|given| given.memory);
        self.unaccepted -= memory.unwrap_or_default();
        if let Some((link, tag)) = peer.inbox.give_back(number)
            && let Some(link) = self.links.get_mut(&link)
            && link.is_up()
            && link.incoming.give_back(tag)
        {
            link.give_back(tag);
            let key = link.key;
            self.wake_key(key);
        }
        self.count_disconnected(sender);
    }

    /// Counts a sender with remembered messages among those without a link. Forgets the one
    /// that has been there for the longest time if they are too many.
    pub(super) fn remember_disconnected(&mut self, key: u64) {
        let Some(peer) = self.peers.get_mut(key) else {
            return;
        };
        if !peer.inbox.remembers() {
            return;
        }
        self.last_down += 1;
        peer.down_order = self.last_down;
        self.disconnected.insert(peer.down_order, key);
        while self.disconnected.len() > self.config.limits.senders
            && let Some((_, oldest)) = self.disconnected.pop_first()
        {
            if let Some(peer) = self.peers.get_mut(oldest)
                && peer.inbox.forget_all()
            {
                let from = peer.name.clone();
                let below = u64::MAX;
                self.journal.push(Change::Forgotten { from, below });
            }
            self.forget_if_idle(oldest);
        }
    }
}
