//! The changes to be stored, in batches.

use std::collections::{BTreeMap, VecDeque};

use crate::{
    name::PeerName,
    storage::{Batch, BatchId, Change},
};

/// The size that a change counts as in addition to a message that it has, in bytes.
pub(super) const CHANGE: usize = 128;

/// The changes that wait to be stored, and those that a storage works on.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The changes of the next batch.
    open: Vec<Change>,
    /// The clocks among them: the places of the last ones.
    clocks: BTreeMap<PeerName, usize>,
    /// Their size, in bytes.
    open_size: usize,
    /// The batches that were handed out and are not stored, with their sizes.
    under_way: VecDeque<(u64, usize)>,
    /// The size of all changes that are not stored, in bytes.
    size: usize,
    /// The number of the last batch that was handed out.
    handed_out: u64,
    /// The number of the last batch that is stored.
    stored: u64,
    /// The error of the storage. `Some` until it works again.
    error: Option<String>,
}

impl Journal {
    /// Adds a change. Returns the batch that it is stored with.
    pub(super) fn push(&mut self, change: Change) -> BatchId {
        // A run of messages leaves as one, and of several clocks the last one counts.
        match &change {
            Change::RemovedTo { to, up_to } => {
                if let Some(Change::RemovedTo {
                    to: last_to,
                    up_to: last,
                }) = self.open.last_mut()
                    && to == last_to
                {
                    *last = *up_to;
                    return self.next();
                }
            }
            Change::Clock { name, .. } => {
                let place = self.clocks.get(name).copied();
                if let Some(last) = place.and_then(|place| self.open.get_mut(place)) {
                    *last = change;
                    return self.next();
                }
                self.clocks.insert(name.clone(), self.open.len());
            }
            Change::Cleared { to } => {
                self.clocks.remove(to);
            }
            _ => {}
        }
        let size = CHANGE
            + match &change {
                Change::Pushed { message, .. } => {
                    message.body.len() + message.properties.as_bytes().len()
                }
                _ => 0,
            };
        self.open_size += size;
        self.size += size;
        self.open.push(change);
        self.next()
    }

    /// The batch that the next change is stored with.
    pub(super) const fn next(&self) -> BatchId {
        BatchId(self.handed_out + 1)
    }

    pub(super) fn poll(&mut self) -> Option<Batch> {
        if self.open.is_empty() {
            return None;
        }
        self.handed_out += 1;
        self.clocks.clear();
        let size = std::mem::take(&mut self.open_size);
        self.under_way.push_back((self.handed_out, size));
        Some(Batch {
            id: BatchId(self.handed_out),
            changes: std::mem::take(&mut self.open),
        })
    }

    pub(super) fn latest(&self) -> Option<BatchId> {
        let latest = self.handed_out + u64::from(!self.open.is_empty());
        (latest > 0).then_some(BatchId(latest))
    }

    pub(super) const fn is_stored(&self, batch: BatchId) -> bool {
        batch.0 <= self.stored
    }

    /// Notes that the batches up to one are stored. One that was not handed out cannot be.
    pub(super) fn stored(&mut self, up_to: BatchId) {
        self.stored = self.stored.max(up_to.0.min(self.handed_out));
        self.error = None;
        while let Some((batch, size)) = self.under_way.front().copied()
            && batch <= self.stored
        {
            self.under_way.pop_front();
            self.size -= size;
        }
    }

    /// Whether there is room for a message of that many bytes, beside at most `limit` bytes that are
    /// not stored. One message may exceed it.
    pub(super) const fn has_room(&self, bytes: usize, limit: usize) -> bool {
        self.size == 0 || self.size.saturating_add(bytes) <= limit
    }

    /// The size of the changes that are not stored, in bytes.
    pub(super) const fn unstored(&self) -> usize {
        self.size
    }

    pub(super) fn failed(&mut self, message: &str) {
        self.error = Some(message.into());
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{message::MessageId, storage::StoredMessage};

    fn name(name: &str) -> PeerName {
        name.parse().unwrap()
    }

    fn clock(of: &str, seconds: u64) -> Change {
        Change::Clock {
            name: name(of),
            disconnected: Duration::from_secs(seconds),
            since: None,
        }
    }

    fn pushed(len: usize) -> Change {
        Change::Pushed {
            to: name("bob"),
            sequence: 0,
            message: StoredMessage {
                id: MessageId::from_bytes([0; 16]),
                body: vec![0; len].into(),
                properties: crate::Message::default().to_wire(),
                expires_at: None,
            },
        }
    }

    fn cleared(of: &str) -> Change {
        Change::Cleared { to: name(of) }
    }

    #[test]
    fn of_several_clocks_of_a_queue_the_last_one_is_stored() {
        let mut journal = Journal::default();
        for seconds in 0..100 {
            journal.push(clock("bob", seconds));
            journal.push(clock("jack", seconds));
        }
        let batch = journal.poll().unwrap();
        assert_eq!(batch.changes, [clock("bob", 99), clock("jack", 99)]);
        // One that is handed out is not changed any more.
        journal.push(clock("bob", 100));
        assert_eq!(journal.poll().unwrap().changes, [clock("bob", 100)]);
    }

    #[test]
    fn a_clock_behind_the_end_of_its_queue_stays_there() {
        let mut journal = Journal::default();
        let changes = [clock("bob", 1), cleared("bob"), clock("bob", 2)];
        for change in changes.clone() {
            journal.push(change);
        }
        journal.push(clock("bob", 3));
        let [first, second, _] = changes;
        assert_eq!(
            journal.poll().unwrap().changes,
            [first, second, clock("bob", 3)]
        );
    }

    #[test]
    fn room_is_that_of_what_is_not_stored() {
        let mut journal = Journal::default();
        assert!(journal.has_room(1_000_000, 1000), "one may exceed it");
        journal.push(pushed(500));
        assert!(journal.has_room(100, 1000) && !journal.has_room(500, 1000));
        let first = journal.poll().unwrap().id;
        journal.push(cleared("bob"));
        assert!((700..900).contains(&journal.unstored()));
        assert!(!journal.has_room(500, 1000), "handed out is not stored");
        journal.stored(first);
        assert_eq!(journal.unstored(), CHANGE);
        let second = journal.poll().unwrap().id;
        journal.stored(second);
        journal.stored(second);
        assert_eq!(journal.unstored(), 0);
    }
}
