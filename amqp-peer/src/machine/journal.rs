//! The changes to be stored, in batches.

use crate::storage::{Batch, BatchId, Change};

/// The changes that wait to be stored, and those that a storage works on.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// The changes of the next batch.
    open: Vec<Change>,
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
        if let Change::RemovedTo { to, up_to } = &change
            && let Some(Change::RemovedTo {
                to: last_to,
                up_to: last,
            }) = self.open.last_mut()
            && to == last_to
        {
            *last = *up_to;
        } else if let Change::Clock { name, .. } = &change
            && let Some(last) = self.open.last_mut()
            && matches!(last, Change::Clock { name: last, .. } if last == name)
        {
            *last = change;
        } else {
            self.open.push(change);
        }
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
    }

    pub(super) fn failed(&mut self, message: &str) {
        self.error = Some(message.into());
    }

    pub(super) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }
}
