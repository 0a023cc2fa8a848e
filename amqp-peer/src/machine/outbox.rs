//! The outbox: the messages for one receiver, in order, until they are acknowledged.
//!
//! ```text
//!  first           next                 end
//!  │ in flight       │ waiting           │
//!  ▼                 ▼                   ▼
//!  [ sent | gone | sent | waiting | … ]
//! ```
//!
//! Those before `next` were sent over the present link, in order. When the link ends, `next` goes
//! back to the first.

use std::{
    collections::{BTreeSet, VecDeque},
    time::Duration,
};

use super::numbered::Numbered;
use crate::{
    config::Receipts,
    message::{Message, MessageId},
    storage::BatchId,
};

/// A message in the outbox.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) id: MessageId,
    pub(super) message: Message,
    /// The size that the message counts as, in bytes.
    pub(super) memory: usize,
    /// The time on the queue's clock at which the message expires.
    pub(super) expires_at: Option<Duration>,
    /// The number in the storage. `Some` if the message is persistent.
    pub(super) sequence: Option<u64>,
    /// The batch with which a persistent message is stored.
    pub(super) batch: BatchId,
    pub(super) receipts: Receipts,
    /// Whether the message was sent before, over any link.
    pub(super) was_sent: bool,
    /// Whether another process of the receiver than the present one may have it.
    pub(super) may_be_elsewhere: bool,
}

impl Entry {
    pub(super) fn new(id: MessageId, message: Message, receipts: Receipts) -> Self {
        Self {
            id,
            memory: message.memory(),
            message,
            expires_at: None,
            sequence: None,
            batch: BatchId::default(),
            receipts,
            was_sent: false,
            may_be_elsewhere: false,
        }
    }
}

/// A message that has left the outbox.
#[derive(Debug)]
pub(super) struct Gone {
    pub(super) id: MessageId,
    pub(super) message: Message,
    pub(super) memory: usize,
    pub(super) sequence: Option<u64>,
    pub(super) receipts: Receipts,
    pub(super) was_sent: bool,
    /// Whether no message before it is left.
    pub(super) is_first: bool,
}

#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// The messages by position. Positions are counted for the life of the outbox.
    entries: Numbered<Entry>,
    /// The position of the first entry that was not sent over the present link.
    next: u64,
    /// Positions before `next` that the receiver has given back, to be sent again first.
    again: VecDeque<u64>,
    /// The entries with a time to live.
    expiries: BTreeSet<(Duration, u64)>,
    /// The number in the storage for the next persistent message.
    pub(super) next_sequence: u64,
    /// The size of the entries, in bytes.
    bytes: usize,
    /// The number of persistent entries.
    pub(super) persistent: usize,
    /// The number of persistent messages that were sent and have left, where that is not stored
    /// yet: an end of the process brings them back, and they are sent again. They count to the
    /// window of the receiver, which remembers no more.
    pub(super) leaving: usize,
    /// The number of events that are not taken.
    pub(super) untaken: usize,
    /// The size of the messages in events that are not taken, in bytes.
    pub(super) untaken_bytes: usize,
}

impl Outbox {
    /// The number of messages, including events that are not taken.
    pub(super) fn messages(&self) -> usize {
        self.entries.len() + self.untaken
    }

    /// The size of the messages, including those in events that are not taken, in bytes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes + self.untaken_bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn push(&mut self, entry: Entry) {
        if let Some(expires_at) = entry.expires_at {
            self.expiries.insert((expires_at, self.entries.end()));
        }
        self.bytes += entry.memory;
        self.persistent += usize::from(entry.sequence.is_some());
        self.entries.push(entry);
    }

    /// Returns the next message to be sent over the present link, and its position.
    pub(super) fn peek(&mut self) -> Option<(u64, &mut Entry)> {
        while let Some(&position) = self.again.front()
            && self.entries.get(position).is_none()
        {
            self.again.pop_front();
        }
        let position = self.again.front().copied();
        let position = position.unwrap_or_else(|| self.skip_gone());
        let entry = self.entries.get_mut(position)?;
        Some((position, entry))
    }

    /// Whether there may be a message to be sent over the present link.
    pub(super) fn has_unsent(&self) -> bool {
        !self.again.is_empty() || self.next < self.entries.end()
    }

    /// Moves `next` to the next entry that is left, or the end.
    fn skip_gone(&mut self) -> u64 {
        let mut rest = self.entries.range(self.next);
        let next = rest.next().map(|(position, _)| position);
        drop(rest);
        self.next = next.unwrap_or_else(|| self.entries.end());
        self.next
    }

    /// Notes that the message of [`peek`](Self::peek) was sent.
    pub(super) fn sent(&mut self, position: u64) {
        if self.again.front() == Some(&position) {
            self.again.pop_front();
        } else {
            self.next = position + 1;
        }
        if let Some(entry) = self.entries.get_mut(position) {
            entry.was_sent = true;
        }
    }

    /// Notes that the receiver has given a message back.
    pub(super) fn send_again(&mut self, position: u64) {
        if position < self.next && self.entries.get(position).is_some() {
            self.again.push_back(position);
        }
    }

    /// Notes that the link has ended: everything is to be sent again.
    pub(super) fn rewind(&mut self) {
        self.next = 0;
        self.again.clear();
    }

    /// Notes that another process of the receiver has taken the place of the last one.
    pub(super) fn receiver_changed(&mut self) {
        let sent = self.entries.values_mut().filter(|entry| entry.was_sent);
        sent.for_each(|entry| entry.may_be_elsewhere = true);
    }

    /// Takes a message out. `None` if it has gone already.
    pub(super) fn remove(&mut self, position: u64) -> Option<Gone> {
        let is_first = self.entries.first() == Some(position);
        let entry = self.entries.remove(position)?;
        if let Some(expires_at) = entry.expires_at {
            self.expiries.remove(&(expires_at, position));
        }
        self.bytes -= entry.memory;
        self.persistent -= usize::from(entry.sequence.is_some());
        Some(Gone {
            id: entry.id,
            message: entry.message,
            memory: entry.memory,
            sequence: entry.sequence,
            receipts: entry.receipts,
            was_sent: entry.was_sent,
            is_first,
        })
    }

    /// Returns the time on the clock at which the next message expires.
    pub(super) fn next_expiry(&self) -> Option<Duration> {
        self.expiries.first().map(|(time, _)| *time)
    }

    /// Takes out the next message that has expired at that time on the clock.
    pub(super) fn expire(&mut self, time: Duration) -> Option<Gone> {
        let &(expires_at, position) = self.expiries.first()?;
        if expires_at > time {
            return None;
        }
        self.expiries.pop_first();
        self.remove(position)
    }

    /// Takes out the first message that `leaves` holds for, from a position on. Returns its
    /// position as well.
    pub(super) fn remove_if(
        &mut self,
        from: u64,
        leaves: impl Fn(&Entry) -> bool,
    ) -> Option<(u64, Gone)> {
        let mut rest = self.entries.range(from);
        let (position, _) = rest.find(|(_, entry)| leaves(entry))?;
        drop(rest);
        Some((position, self.remove(position)?))
    }
}
