//! A storage in memory, for tests.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    Change, Storage, StorageError, StorageErrorKind, Stored, StoredClock, StoredMessage, check,
};
use crate::{MessageId, PeerName};

/// A storage in memory, for tests of what outlives a peer.
///
/// Its clones are the same storage, so that a clone that the test keeps is what the next peer
/// starts with. It fails on demand.
///
/// ```
/// use amqp_peer::{
///     PeerName,
///     storage::{Change, MemoryStorage, Storage, StorageErrorKind},
/// };
///
/// let kept = MemoryStorage::new();
/// let mut storage = kept.clone();
/// let bob: PeerName = "bob".parse()?;
/// kept.fail_next(1, StorageErrorKind::Io);
/// assert!(storage.apply(&[Change::Cleared { to: bob.clone() }]).is_err());
/// assert!(storage.apply(&[Change::Cleared { to: bob }]).is_ok());
/// assert_eq!(kept.batches(), 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default)]
pub struct MemoryStorage {
    shared: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    tables: Tables,
    /// The number of batches that were applied.
    batches: u64,
    /// The number of batches that are refused from now on, and the kind of the error.
    failing: Option<(u64, StorageErrorKind)>,
    /// The most memory of all messages together, in bytes.
    capacity: Option<usize>,
}

#[derive(Clone, Default)]
struct Tables {
    outbox: BTreeMap<PeerName, BTreeMap<u64, StoredMessage>>,
    accepted: BTreeMap<PeerName, BTreeMap<u64, MessageId>>,
    clocks: BTreeMap<PeerName, StoredClock>,
    /// The memory of all messages, in bytes.
    memory: usize,
}

impl MemoryStorage {
    /// Creates an empty storage.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes the next `count` batches fail with an error of that kind.
    pub fn fail_next(&self, count: u64, kind: StorageErrorKind) {
        self.lock().failing = (count > 0).then_some((count, kind));
    }

    /// Limits the memory of all messages together, the bytes of their bodies and properties. A batch that leaves more fails with
    /// [`StorageErrorKind::Full`], unless it leaves less than there was before. Default `None`.
    pub fn limit(&self, bytes: Option<usize>) {
        self.lock().capacity = bytes;
    }

    /// Returns all that is stored, as the next peer finds it.
    #[must_use]
    pub fn stored(&self) -> Stored {
        self.lock().tables.stored()
    }

    /// Returns the number of batches that were applied.
    #[must_use]
    pub fn batches(&self) -> u64 {
        self.lock().batches
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("MemoryStorage")
            .field("batches", &state.batches)
            .field("memory", &state.tables.memory)
            .finish_non_exhaustive()
    }
}

impl Storage for MemoryStorage {
    fn load(&mut self) -> Result<Stored, StorageError> {
        Ok(self.stored())
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        check(changes)?;
        let mut state = self.lock();
        if let Some((count, kind)) = state.failing {
            state.failing = (count > 1).then_some((count - 1, kind));
            return Err(StorageError::new(kind, "the storage was told to fail"));
        }
        if let Some(capacity) = state.capacity {
            let after = state.tables.memory_after(changes);
            if after > capacity && after >= state.tables.memory {
                let text = format!("{after} bytes are more than {capacity}");
                return Err(StorageError::new(StorageErrorKind::Full, text));
            }
        }
        for change in changes {
            state.tables.apply(change);
        }
        state.batches += 1;
        Ok(())
    }
}

impl Tables {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Pushed {
                to,
                sequence,
                message,
            } => {
                let queue = self.outbox.entry(to.clone()).or_default();
                self.memory += memory(message);
                if let Some(replaced) = queue.insert(*sequence, message.clone()) {
                    self.memory -= memory(&replaced);
                }
            }
            Change::Removed { to, sequence } => {
                if let Entry::Occupied(mut queue) = self.outbox.entry(to.clone()) {
                    if let Some(removed) = queue.get_mut().remove(sequence) {
                        self.memory -= memory(&removed);
                    }
                    if queue.get().is_empty() {
                        queue.remove();
                    }
                }
            }
            Change::RemovedTo { to, up_to } => {
                if let Entry::Occupied(mut queue) = self.outbox.entry(to.clone()) {
                    while let Some(first) = queue.get_mut().first_entry()
                        && first.key() <= up_to
                    {
                        self.memory -= memory(&first.remove());
                    }
                    if queue.get().is_empty() {
                        queue.remove();
                    }
                }
            }
            Change::Cleared { to } => {
                for (_, removed) in self.outbox.remove(to).into_iter().flatten() {
                    self.memory -= memory(&removed);
                }
                self.clocks.remove(to);
            }
            Change::Accepted { from, id, position } => {
                let accepted = self.accepted.entry(from.clone()).or_default();
                accepted.insert(*position, *id);
            }
            Change::Forgotten { from, below } => {
                if let Entry::Occupied(mut accepted) = self.accepted.entry(from.clone()) {
                    let kept = accepted.get_mut().split_off(below);
                    if kept.is_empty() {
                        accepted.remove();
                    } else {
                        accepted.insert(kept);
                    }
                }
            }
            Change::Clock {
                name,
                disconnected,
                since,
            } => {
                let clock = StoredClock {
                    disconnected: *disconnected,
                    since: *since,
                };
                self.clocks.insert(name.clone(), clock);
            }
        }
    }

    /// The memory of all messages after changes, in bytes.
    fn memory_after(&self, changes: &[Change]) -> usize {
        let mut after = self.clone();
        for change in changes {
            after.apply(change);
        }
        after.memory
    }

    fn stored(&self) -> Stored {
        let outbox = self.outbox.iter().map(|(to, queue)| {
            let queue = queue.iter().map(|(number, it)| (*number, it.clone()));
            (to.clone(), queue.collect())
        });
        let accepted = self.accepted.iter().map(|(from, accepted)| {
            let accepted = accepted.iter().map(|(number, id)| (*number, *id));
            (from.clone(), accepted.collect())
        });
        Stored {
            outbox: outbox.collect(),
            accepted: accepted.collect(),
            clocks: self.clocks.clone(),
        }
    }
}

/// The memory of a message, in bytes.
fn memory(message: &StoredMessage) -> usize {
    message.body.len() + message.properties.as_bytes().len()
}
