//! The output of a link: what goes to the AMQP machine when, and what the throttle lets pass.
//!
//! Without a throttle, messages are handed to the AMQP machine as long as it has room. With one,
//! they wait in the outbox, and the frames of large messages in the AMQP machine, until the budget
//! allows: heartbeats and acknowledgements never wait behind more than the frame in progress.

use amqp_core::Transmit;

use super::{Machine, link::Link, wire};
use crate::{cause::DropReason, config::Receipts, event::Event};

/// The size of output without messages that passes the throttle at once, in bytes: it is charged
/// later. More is the end of a link with its backlog.
const AT_ONCE: usize = 16 << 10;

impl Machine {
    /// Whether there is a message to be sent over the link now.
    pub(super) fn has_sendable(&mut self, link: &mut Link) -> bool {
        let Some(identity) = link.identity.as_ref().filter(|_| link.is_up()) else {
            return false;
        };
        let Some(peer) = link.peer.and_then(|key| self.peers.get_mut(key)) else {
            return false;
        };
        let (window, window_bytes) = (identity.window, identity.window_bytes);
        let leaving = peer.outbox.leaving;
        if !link.outgoing.fits(leaving, window, window_bytes) {
            return false;
        }
        let next = peer.outbox.peek();
        let Some((_, entry)) = next.filter(|(_, entry)| self.journal.is_stored(entry.batch)) else {
            return false;
        };
        let len = entry.message.body.len();
        link.has_room(len)
    }

    /// Hands messages to the AMQP machine: at most `count`, as long as it has room. Returns whether
    /// there was one.
    fn fill(&mut self, link: &mut Link, count: usize) -> bool {
        let (Some(key), Some(identity)) = (link.peer, &link.identity) else {
            return false;
        };
        let (window, window_bytes, body_max) =
            (identity.window, identity.window_bytes, identity.body);
        let mut any = false;
        for _ in 0..count {
            let Some(peer) = self.peers.get_mut(key).filter(|_| link.is_up()) else {
                break;
            };
            let leaving = peer.outbox.leaving;
            if !link.outgoing.fits(leaving, window, window_bytes) {
                break;
            }
            let Some((position, entry)) = peer.outbox.peek() else {
                break;
            };
            if !self.journal.is_stored(entry.batch) {
                break;
            }
            let len = entry.message.body.len();
            if len as u64 > body_max {
                let gone = peer.outbox.remove(position);
                if let Some(gone) = gone {
                    self.finish(key, gone, Some(DropReason::TooLarge));
                }
                continue;
            }
            if !link.has_room(len) {
                break;
            }
            let ttl = entry.expires_at.map(|expires_at| {
                let time = peer.clock.at(self.now);
                expires_at.saturating_sub(time)
            });
            let other =
                (!wire::set_plain(&mut self.plain, entry)).then(|| wire::properties(entry, ttl));
            let properties = other.as_ref().unwrap_or(&self.plain);
            let (id, receipts, was_sent) = (entry.id, entry.receipts, entry.was_sent);
            let body = entry.message.body.clone();
            let tag = link.outgoing.add(position, len as u64);
            if link.put(tag, was_sent, properties, body).is_err() {
                // The channel has room and the message is within its limits.
                self.close_broken(link, amqp_core::protocol::ReplyCode::INTERNAL_ERROR);
                break;
            }
            peer.outbox.sent(position);
            any = true;
            if receipts == Receipts::All && !was_sent {
                peer.outbox.untaken += 1;
                link.unwritten.push_back((link.side.flush_mark(), id));
            }
        }
        any
    }

    /// Moves output of the link into `out`.
    pub(super) fn transmit(&mut self, link: &mut Link, out: &mut Transmit) {
        link.acknowledge();
        if link.send_bucket.is_none() {
            self.fill(link, usize::MAX);
            let now = self.now;
            link.side.endpoint_mut().poll_transmit(now, out);
        } else {
            self.transmit_throttled(link, out);
        }
        // Replies and closes may have ended it.
        self.process(link);
        self.report_written(link);
    }

    fn transmit_throttled(&mut self, link: &mut Link, out: &mut Transmit) {
        let now = self.now;
        loop {
            let Some(bucket) = &mut link.send_bucket else {
                return;
            };
            if !link.staged.is_empty() {
                if !bucket.is_ready(now) && link.staged.len() > bucket.available(now) {
                    break;
                }
                let len = link.staged.len().min(bucket.available(now));
                bucket.take(now, len);
                link.staged.move_front(len, out);
                // The peer reads what the throttle lets pass.
                link.side.endpoint_mut().handle_written(now);
                if !link.staged.is_empty() {
                    break;
                }
            }
            link.side.poll_transmit_turns(now, &mut link.staged, 0);
            if !link.staged.is_empty() {
                let len = link.staged.len();
                if len <= AT_ONCE {
                    bucket.take(now, len);
                    link.staged.move_front(len, out);
                }
                continue;
            }
            if !bucket.is_ready(now) {
                break;
            }
            let has_turn = link.side.poll_transmit_turns(now, &mut link.staged, 1);
            if !has_turn {
                if !self.fill(link, 1) {
                    break;
                }
                // Small messages leave with the methods, large ones by their turns.
                link.side.poll_transmit_turns(now, &mut link.staged, 1);
            }
        }
    }

    /// Reports the messages that have left since the last call.
    fn report_written(&mut self, link: &mut Link) {
        while link.staged.is_empty()
            && let Some((mark, id)) = link.unwritten.front()
            && link.side.is_flushed(mark)
        {
            let id = *id;
            link.unwritten.pop_front();
            if let Some(peer) = link.peer.and_then(|key| self.peers.get(key)) {
                let to = peer.name.clone();
                self.events.push_back(Event::Written { to, id });
            }
        }
    }

    /// Whether the link has output that the throttle allows now.
    pub(super) fn has_output(&mut self, link: &mut Link) -> bool {
        if link.incoming.is_due && link.staged.is_empty() {
            return true;
        }
        let now = self.now;
        match &link.send_bucket {
            None => link.side.has_transmit() || self.has_sendable(link),
            Some(bucket) if !link.staged.is_empty() => {
                bucket.is_ready(now) || bucket.available(now) >= link.staged.len()
            }
            Some(bucket) if bucket.is_ready(now) => {
                link.side.has_transmit() || self.has_sendable(link)
            }
            Some(_) => link.side.has_control(),
        }
    }

    /// The time at which the throttle lets more output pass. `Some` if there may be some.
    pub(super) fn throttled_until(&self, link: &Link) -> Option<amqp_core::Instant> {
        let bucket = link.send_bucket.as_ref()?;
        if bucket.is_ready(self.now) {
            return None;
        }
        let peer = link.peer.and_then(|key| self.peers.get(key));
        let waits = !link.staged.is_empty()
            || link.side.has_transmit()
            || (link.is_up() && peer.is_some_and(|peer| peer.outbox.has_unsent()));
        waits.then(|| bucket.ready_at())
    }

    /// The time at which the throttle lets more input pass. `Some` if it does not now.
    pub(super) fn receives_at(&self, link: &Link) -> Option<amqp_core::Instant> {
        let bucket = link.receive_bucket.as_ref()?;
        (!bucket.is_ready(self.now)).then(|| bucket.ready_at())
    }
}
