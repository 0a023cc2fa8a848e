//! The tags of the messages on one link, in either direction.

use super::numbered::Numbered;

/// A message sent over the link.
#[derive(Clone, Copy, Debug)]
struct Sent {
    /// The position in the outbox.
    position: u64,
    /// The size of the body, in bytes.
    bytes: u64,
}

/// The messages sent over the link that are not acknowledged, by tag from 1.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    /// The messages that are not settled, by the number of tags before theirs.
    sent: Numbered<Sent>,
    /// The size of the bodies that are not settled, in bytes.
    pub(super) bytes: u64,
}

/// An acknowledgement of a tag that is not outstanding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UnknownTag;

impl Outgoing {
    /// The number of messages that are not settled.
    pub(super) fn count(&self) -> usize {
        self.sent.len()
    }

    /// Notes a sent message. Returns its tag.
    pub(super) fn add(&mut self, position: u64, bytes: u64) -> u64 {
        self.bytes += bytes;
        self.sent.push(Sent { position, bytes }) + 1
    }

    /// Whether there is room for a message in the receiver's window, beside `others` that count to
    /// it as well.
    pub(super) fn fits(&self, others: usize, window: usize, window_bytes: u64) -> bool {
        let own = self.count();
        let count = own + others;
        count == 0 || (count < window && (own == 0 || self.bytes < window_bytes))
    }

    /// Settles one tag. Returns the position of its message.
    pub(super) fn settle(&mut self, tag: u64) -> Result<u64, UnknownTag> {
        let number = tag.checked_sub(1).ok_or(UnknownTag)?;
        let sent = self.sent.remove(number).ok_or(UnknownTag)?;
        self.bytes -= sent.bytes;
        Ok(sent.position)
    }

    /// Settles the first tag that is not settled, if it is at most `last`. Returns the position of
    /// its message.
    pub(super) fn settle_first(&mut self, last: u64) -> Option<u64> {
        let first = self.sent.first()? + 1;
        if first > last {
            return None;
        }
        self.settle(first).ok()
    }

    /// Whether a tag was given out.
    pub(super) fn knows(&self, tag: u64) -> bool {
        tag > 0 && tag <= self.last()
    }

    /// The last tag that was given out.
    pub(super) fn last(&self) -> u64 {
        self.sent.end()
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The application has it, or its acceptance is being stored.
    Open,
    /// It is to be acknowledged.
    Accepted,
}

/// The messages received over the link that are not acknowledged, by tag from 1.
#[derive(Debug, Default)]
pub(super) struct Incoming {
    /// The messages that are not settled, with the sizes of their bodies, by the number of tags
    /// before theirs.
    received: Numbered<(State, u64)>,
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
    /// The number of messages that are not settled.
    pub(super) fn count(&self) -> usize {
        self.received.len()
    }

    /// The tag of the next message.
    pub(super) fn next_tag(&self) -> u64 {
        self.received.end() + 1
    }

    /// Whether another message is within the window.
    pub(super) fn fits(&self, window: usize, window_bytes: u64) -> bool {
        let count = self.count();
        count == 0 || (count < window && self.bytes < window_bytes)
    }

    /// Adds the message with the [next tag](Self::next_tag).
    pub(super) fn add(&mut self, bytes: u64) {
        self.received.push((State::Open, bytes));
        self.bytes += bytes;
    }

    fn state(&self, number: u64) -> Option<State> {
        self.received.get(number).map(|(state, _)| *state)
    }

    fn settle(&mut self, number: u64) {
        if let Some((_, bytes)) = self.received.remove(number) {
            self.bytes -= bytes;
        }
    }

    /// Notes that a message is accepted: its tag is to be acknowledged.
    pub(super) fn accept(&mut self, tag: u64) {
        let Some(number) = tag.checked_sub(1) else {
            return;
        };
        let Some((state @ State::Open, _)) = self.received.get_mut(number) else {
            return;
        };
        *state = State::Accepted;
        self.is_due = true;
        let before = number.checked_sub(1);
        let follows = self.received.first() == Some(number)
            || before.and_then(|before| self.state(before)) == Some(State::Accepted);
        if !follows {
            self.scattered.push(tag);
        }
    }

    /// Notes that a message is given back with a method of its own. Returns whether its tag was
    /// open.
    pub(super) fn give_back(&mut self, tag: u64) -> bool {
        let Some(number) = tag.checked_sub(1) else {
            return false;
        };
        let is_open = self.state(number) == Some(State::Open);
        if is_open {
            self.settle(number);
        }
        is_open
    }

    /// Takes what is to be acknowledged.
    pub(super) fn take(&mut self) -> Acks {
        let mut acks = Acks::default();
        if !std::mem::take(&mut self.is_due) {
            return acks;
        }
        while let Some(first) = self.received.first()
            && self.state(first) == Some(State::Accepted)
        {
            self.settle(first);
            acks.up_to = Some(first + 1);
        }
        // Whatever follows an accepted message behind an open one is accepted or not; each run of
        // them begins with one of these.
        for first in std::mem::take(&mut self.scattered) {
            let mut tag = first;
            while self.state(tag - 1) == Some(State::Accepted) {
                self.settle(tag - 1);
                acks.single.push(tag);
                tag += 1;
            }
        }
        acks
    }
}
