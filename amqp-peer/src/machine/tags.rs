//! The tags of the messages on one link, in either direction.

use std::collections::VecDeque;

/// A message sent over the link.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// The position in the outbox.
    position: u64,
    /// The size of the body, in bytes.
    bytes: u64,
    is_settled: bool,
}

/// The messages sent over the link that are not acknowledged, by tag from 1.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    sent: VecDeque<Sent>,
    /// The number of tags before the first of `sent`.
    before: u64,
    /// The number of messages that are not settled.
    pub(super) count: usize,
    /// The size of the bodies that are not settled, in bytes.
    pub(super) bytes: u64,
}

/// An acknowledgement of a tag that is not outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnknownTag;

impl Outgoing {
    /// Notes a sent message. Returns its tag.
    pub(super) fn add(&mut self, position: u64, bytes: u64) -> u64 {
        self.sent.push_back(Sent {
            position,
            bytes,
            is_settled: false,
        });
        self.count += 1;
        self.bytes += bytes;
        self.before + self.sent.len() as u64
    }

    /// Whether there is room for a message in the receiver's window, beside `others` that count to
    /// it as well.
    pub(super) const fn fits(&self, others: usize, window: usize, window_bytes: u64) -> bool {
        let count = self.count + others;
        count == 0 || (count < window && (self.count == 0 || self.bytes < window_bytes))
    }

    /// Settles one tag. Returns the position of its message.
    pub(super) fn settle(&mut self, tag: u64) -> Result<u64, UnknownTag> {
        let at = tag.checked_sub(self.before + 1).ok_or(UnknownTag)?;
        let at = usize::try_from(at).map_err(|_| UnknownTag)?;
        let sent = self.sent.get_mut(at).ok_or(UnknownTag)?;
        if sent.is_settled {
            return Err(UnknownTag);
        }
        sent.is_settled = true;
        let position = sent.position;
        self.count -= 1;
        self.bytes -= sent.bytes;
        while self.sent.front().is_some_and(|sent| sent.is_settled) {
            self.sent.pop_front();
            self.before += 1;
        }
        Ok(position)
    }

    /// Settles the first tag that is not settled, if it is at most `last`. Returns the position of
    /// its message.
    pub(super) fn settle_first(&mut self, last: u64) -> Option<u64> {
        // The first one is never settled.
        if self.before >= last {
            return None;
        }
        self.settle(self.before + 1).ok()
    }

    /// Whether a tag was given out.
    pub(super) fn knows(&self, tag: u64) -> bool {
        tag > 0 && tag <= self.before + self.sent.len() as u64
    }

    /// The last tag that was given out.
    pub(super) fn last(&self) -> u64 {
        self.before + self.sent.len() as u64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The application has it, or its acceptance is being stored.
    Open,
    /// It is to be acknowledged.
    Accepted,
    /// It was acknowledged or given back.
    Settled,
}

/// The messages received over the link that are not acknowledged, by tag from 1.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    received: VecDeque<(State, u64)>,
    /// The number of tags before the first of `received`.
    before: u64,
    /// The number of messages that are not settled.
    pub(super) count: usize,
    /// The size of the bodies that are not settled, in bytes.
    bytes: u64,
    /// The tags that were accepted while one before them was open.
    scattered: Vec<u64>,
    /// Whether there is something to acknowledge.
    pub(super) is_due: bool,
}

/// What to acknowledge.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Acks {
    /// All up to this tag.
    pub(super) up_to: Option<u64>,
    /// These, one by one.
    pub(super) single: Vec<u64>,
}

impl Incoming {
    /// The tag of the next message.
    pub(super) fn next_tag(&self) -> u64 {
        self.before + self.received.len() as u64 + 1
    }

    /// Whether another message is within the window.
    pub(super) const fn fits(&self, window: usize, window_bytes: u64) -> bool {
        self.count == 0 || (self.count < window && self.bytes < window_bytes)
    }

    /// Adds the message with the [next tag](Self::next_tag).
    pub(super) fn add(&mut self, bytes: u64) {
        self.received.push_back((State::Open, bytes));
        self.count += 1;
        self.bytes += bytes;
    }

    fn state_mut(&mut self, tag: u64) -> Option<&mut (State, u64)> {
        let at = tag.checked_sub(self.before + 1)?;
        self.received.get_mut(usize::try_from(at).ok()?)
    }

    /// Notes that a message is accepted: its tag is to be acknowledged.
    pub(super) fn accept(&mut self, tag: u64) {
        let follows = tag == self.before + 1
            || tag
                .checked_sub(self.before + 2)
                .and_then(|at| self.received.get(usize::try_from(at).ok()?))
                .is_some_and(|(state, _)| *state == State::Accepted);
        if let Some((state @ State::Open, _)) = self.state_mut(tag) {
            *state = State::Accepted;
            self.is_due = true;
            if !follows {
                self.scattered.push(tag);
            }
        }
    }

    /// Notes that a message is given back with a method of its own. Returns whether its tag was
    /// open.
    pub(super) fn give_back(&mut self, tag: u64) -> bool {
        let Some((state @ State::Open, bytes)) = self.state_mut(tag) else {
            return false;
        };
        *state = State::Settled;
        let bytes = *bytes;
        self.count -= 1;
        self.bytes -= bytes;
        while let Some((State::Settled, _)) = self.received.front() {
            self.received.pop_front();
            self.before += 1;
        }
        true
    }

    /// Takes what is to be acknowledged.
    pub(super) fn take(&mut self) -> Acks {
        let mut acks = Acks::default();
        if !std::mem::take(&mut self.is_due) {
            return acks;
        }
        while let Some(&(state @ (State::Accepted | State::Settled), bytes)) = self.received.front()
        {
            self.received.pop_front();
            self.before += 1;
            if state == State::Accepted {
                self.count -= 1;
                self.bytes -= bytes;
                acks.up_to = Some(self.before);
            }
        }
        // Whatever follows an accepted message behind an open one is accepted or not; each run of
        // them begins with one of these.
        for first in std::mem::take(&mut self.scattered) {
            let mut tag = first;
            while let Some((state @ State::Accepted, bytes)) = self.state_mut(tag) {
                *state = State::Settled;
                let bytes = *bytes;
                self.count -= 1;
                self.bytes -= bytes;
                acks.single.push(tag);
                tag += 1;
            }
        }
        acks
    }
}
