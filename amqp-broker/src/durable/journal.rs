//! The journal: changes that the host has not stored, and replies that wait for it.

use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};

use amqp_core::{Instant, protocol::tx};

use super::change::Change;
use crate::{
    broker::Broker,
    keys::{ChannelKey, ConnectionKey},
    model::{
        channel::Mode,
        spare::{pop_front, release_spare},
    },
};

/// The journal of a broker. It is empty unless [`Config::journal`](crate::Config::journal) is set.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    pub(super) enabled: bool,
    /// The number of the last change.
    last: u64,
    /// The changes that were not polled. The last one has the number `last`.
    changes: VecDeque<Change>,
    /// The sizes of the changes that are not stored, polled or not, in bytes.
    sizes: VecDeque<usize>,
    /// The sum of `sizes`.
    size: usize,
    /// The replies that wait for a change to be stored, in the order of its number.
    waiting: VecDeque<(u64, Reply)>,
    /// `true` if a connection may be paused because the journal is full.
    was_full: bool,
}

/// A reply that waits for a change to be stored.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Reply {
    /// The confirm of a publish.
    Confirm {
        channel: ChannelKey,
        /// The sequence number of the publish.
        seq: u64,
    },
    /// `tx.commit-ok`. The connection is not read from meanwhile: replies stay in order.
    Commit { channel: ChannelKey },
}

impl Journal {
    pub(crate) fn new(enabled: bool) -> Self {
        Self {
            enabled,
            ..Self::default()
        }
    }

    /// Returns the number of the last change; 0 before the first.
    pub(crate) const fn last(&self) -> u64 {
        self.last
    }

    /// Adds a change. Without effect while the journal is not enabled.
    pub(super) fn push(&mut self, change: Change) {
        if self.enabled {
            let size = change.size();
            self.last += 1;
            self.size += size;
            self.sizes.push_back(size);
            self.changes.push_back(change);
        }
    }

    /// Lets a reply wait until the last change is stored.
    pub(crate) fn wait(&mut self, reply: Reply) {
        self.waiting.push_back((self.last, reply));
    }

    /// Returns whether more than `limit` bytes of changes are not stored.
    pub(crate) const fn is_full(&mut self, limit: usize) -> bool {
        let full = self.size > limit;
        self.was_full |= full;
        full
    }

    /// Returns `true` once after the journal was full, when at most half of `limit` is used.
    const fn has_room_again(&mut self, limit: usize) -> bool {
        let again = self.was_full && self.size <= limit / 2;
        self.was_full &= !again;
        again
    }

    /// Forgets the changes up to a number, and takes the replies that waited for them.
    fn take_stored(&mut self, number: u64) -> Vec<Reply> {
        let unpolled = self.last - self.changes.len() as u64;
        let number = number.min(unpolled);
        while self.last - (self.sizes.len() as u64) < number
            && let Some(size) = pop_front(&mut self.sizes)
        {
            self.size -= size;
        }
        let count = self.waiting.partition_point(|(at, _)| *at <= number);
        let replies = self.waiting.drain(..count).map(|(_, reply)| reply);
        let replies = replies.collect();
        release_spare(&mut self.waiting);
        replies
    }
}

impl Broker {
    /// Returns the next change of the durable state, and its number: changes are numbered from 1.
    /// There are changes only with [`Config::journal`](crate::Config::journal). Poll it after any
    /// call, store the changes in their order, and call [`handle_stored`](Self::handle_stored).
    ///
    /// ```
    /// use amqp_broker::{Broker, Change, Config};
    /// use amqp_core::Instant;
    ///
    /// let mut broker = Broker::new(Config::default().journal(true))?;
    /// assert_eq!(broker.poll_change(), None);
    /// broker.stop(Instant::ORIGIN);
    /// assert_eq!(broker.poll_change(), Some((1, Change::Stopped)));
    /// # Ok::<_, amqp_broker::ConfigError>(())
    /// ```
    pub fn poll_change(&mut self) -> Option<(u64, Change)> {
        let journal = &mut self.journal;
        let number = journal.last + 1 - journal.changes.len() as u64;
        Some((number, pop_front(&mut journal.changes)?))
    }

    /// Returns whether [`poll_change`](Self::poll_change) returns a change.
    #[must_use]
    pub fn has_changes(&self) -> bool {
        !self.journal.changes.is_empty()
    }

    /// Returns the number of the last change; 0 before the first.
    #[must_use]
    pub const fn last_change(&self) -> u64 {
        self.journal.last
    }

    /// Returns the number up to which changes are [stored](Self::handle_stored).
    #[must_use]
    pub fn last_stored(&self) -> u64 {
        self.journal.last - self.journal.sizes.len() as u64
    }

    /// Handles that the changes up to a number are stored: sends the confirms
    /// (<https://www.rabbitmq.com/docs/confirms>) and the `tx.commit-ok` that waited for them, and
    /// reads again from connections that were paused because more than
    /// [`Limits::journal`](crate::Limits::journal) bytes were not stored. Numbers of changes that
    /// were not polled count as the last one that was.
    pub fn handle_stored(&mut self, number: u64, now: Instant) {
        self.advance_clock(now);
        let mut confirming = BTreeSet::new();
        for reply in self.journal.take_stored(number) {
            match reply {
                Reply::Confirm { channel, seq } => {
                    if let Ok(found) = self.channel(channel)
                        && let Mode::Confirm(confirms) = &mut found.mode
                    {
                        confirms.handle_stored(seq);
                        confirming.insert(channel.connection);
                        if let Ok(conn) = self.conn(channel.connection) {
                            conn.confirming.insert(channel.id);
                        }
                    }
                }
                Reply::Commit { channel } => self.end_commit(channel),
            }
        }
        for key in confirming {
            self.send_confirms(key);
            self.wake(key);
        }
        if self.journal.has_room_again(self.config.limits.journal) {
            let paused = self
                .connections
                .iter()
                .filter(|(_, conn)| conn.journal_full);
            let paused: Vec<ConnectionKey> = paused.map(|(key, _)| *key).collect();
            for key in paused {
                if let Some(conn) = self.connections.get_mut(&key) {
                    conn.journal_full = false;
                }
                self.resume(key);
            }
        }
        self.finish();
    }

    /// Replies to a commit, and reads again from its connection.
    fn end_commit(&mut self, channel: ChannelKey) {
        if let Some(conn) = self.connections.get_mut(&channel.connection)
            && conn.committing
        {
            conn.committing = false;
            self.send(channel, &tx::CommitOk);
            self.resume(channel.connection);
        }
    }
}
