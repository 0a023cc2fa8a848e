//! A queue of numbered entries, which leave in any order.
//!
//! ```text
//!                          base
//!  stragglers              ▼ recent
//!  { 3, 17, 1204 }         [ entry | gone | entry | entry | … ]
//! ```
//!
//! Entries that leave in order cost no more than in a plain queue. A few that stay for long do not
//! keep the places of all that have gone behind them.

use std::collections::{BTreeMap, VecDeque};

/// The number of places of gone entries that are kept in any case.
const SLACK: usize = 32;

/// The number of places that an empty queue keeps.
const IDLE: usize = 8192;

/// A queue of numbered entries. Its memory is in proportion to the entries that are in it, at any
/// time.
#[derive(Debug)]
pub(super) struct Numbered<T> {
    /// The entries before `base`.
    stragglers: BTreeMap<u64, T>,
    /// The entries from `base` on. The first is not gone.
    recent: VecDeque<Option<T>>,
    /// The number of the first of `recent`.
    base: u64,
    /// The number of entries in `recent` that are not gone.
    live: usize,
}

impl<T> Default for Numbered<T> {
    fn default() -> Self {
        Self {
            stragglers: BTreeMap::new(),
            recent: VecDeque::new(),
            base: 0,
            live: 0,
        }
    }
}

impl<T> Numbered<T> {
    /// The number of entries.
    pub(super) fn len(&self) -> usize {
        self.stragglers.len() + self.live
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of the next entry. Numbers are counted from 0, and not used again.
    pub(super) fn end(&self) -> u64 {
        self.base + self.recent.len() as u64
    }

    /// Adds an entry. Returns its number.
    pub(super) fn push(&mut self, entry: T) -> u64 {
        let number = self.end();
        self.recent.push_back(Some(entry));
        self.live += 1;
        number
    }

    fn index(&self, number: u64) -> Option<usize> {
        usize::try_from(number.checked_sub(self.base)?).ok()
    }

    pub(super) fn get(&self, number: u64) -> Option<&T> {
        match self.index(number) {
            Some(index) => self.recent.get(index)?.as_ref(),
            None => self.stragglers.get(&number),
        }
    }

    pub(super) fn get_mut(&mut self, number: u64) -> Option<&mut T> {
        match self.index(number) {
            Some(index) => self.recent.get_mut(index)?.as_mut(),
            None => self.stragglers.get_mut(&number),
        }
    }

    /// The number of the first entry.
    pub(super) fn first(&self) -> Option<u64> {
        let straggler = self.stragglers.keys().next().copied();
        straggler.or_else(|| (self.live > 0).then_some(self.base))
    }

    /// Returns the entries from a number on, in order.
    pub(super) fn range(&self, from: u64) -> impl Iterator<Item = (u64, &T)> {
        let start = self.index(from).unwrap_or_default().min(self.recent.len());
        let recent = (self.base + start as u64..).zip(self.recent.range(start..));
        let recent = recent.filter_map(|(number, entry)| Some((number, entry.as_ref()?)));
        let stragglers = self.stragglers.range(from..);
        stragglers
            .map(|(number, entry)| (*number, entry))
            .chain(recent)
    }

    /// Returns all entries, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.range(0)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        let recent = self.recent.iter_mut().flatten();
        self.stragglers.values_mut().chain(recent)
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, number: u64) -> Option<T> {
        let Some(index) = self.index(number) else {
            return self.stragglers.remove(&number);
        };
        let entry = self.recent.get_mut(index)?.take()?;
        self.live -= 1;
        self.trim();
        // Each entry that is moved is paid for by a gone one that loses its place.
        while self.recent.len() > 2 * self.live + SLACK {
            if let Some(Some(straggler)) = self.recent.pop_front() {
                self.stragglers.insert(self.base, straggler);
                self.live -= 1;
            }
            self.base += 1;
            self.trim();
        }
        if self.recent.is_empty() && self.recent.capacity() > IDLE {
            self.recent = VecDeque::new();
        }
        Some(entry)
    }

    /// Removes the places of gone entries at the front.
    fn trim(&mut self) {
        while let Some(None) = self.recent.front() {
            self.recent.pop_front();
            self.base += 1;
        }
    }
}
