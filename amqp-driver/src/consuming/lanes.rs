//! The order of deliveries with the same key.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
};

/// Items that wait until the one before them, of the same key, has left.
///
/// Invariant: a key has an entry while one of its items has entered and not left.
#[derive(Debug)]
pub(super) struct Lanes<T> {
    lanes: BTreeMap<u64, VecDeque<(usize, T)>>,
    /// The number of items that wait, and their bytes.
    waiting: usize,
    bytes: usize,
}

impl<T> Lanes<T> {
    pub(super) const fn new() -> Self {
        Self {
            lanes: BTreeMap::new(),
            waiting: 0,
            bytes: 0,
        }
    }

    /// The number of items that wait, and their bytes.
    pub(super) const fn waiting(&self) -> (usize, usize) {
        (self.waiting, self.bytes)
    }

    /// Lets an item enter its lane. Returns it if it is the first, and keeps it otherwise.
    pub(super) fn enter(&mut self, key: u64, bytes: usize, item: T) -> Option<T> {
        match self.lanes.get_mut(&key) {
            None => {
                self.lanes.insert(key, VecDeque::new());
                Some(item)
            }
            Some(lane) => {
                lane.push_back((bytes, item));
                self.waiting += 1;
                self.bytes += bytes;
                None
            }
        }
    }

    /// Lets the first item of a lane leave. Returns the next one, which is then the first.
    pub(super) fn leave(&mut self, key: u64) -> Option<T> {
        let Some((bytes, item)) = self.lanes.get_mut(&key)?.pop_front() else {
            self.lanes.remove(&key);
            return None;
        };
        self.waiting -= 1;
        self.bytes -= bytes;
        Some(item)
    }

    /// Takes the items that wait and match, in the order of each lane.
    pub(super) fn take_waiting(&mut self, matches: impl Fn(&T) -> bool) -> Vec<T> {
        let mut taken = Vec::new();
        for lane in self.lanes.values_mut() {
            for (bytes, item) in mem::take(lane) {
                if matches(&item) {
                    self.waiting -= 1;
                    self.bytes -= bytes;
                    taken.push(item);
                } else {
                    lane.push_back((bytes, item));
                }
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_of_a_key_leave_in_order_and_others_pass() {
        let mut lanes = Lanes::new();
        assert_eq!(lanes.enter(1, 10, 'a'), Some('a'));
        assert_eq!(lanes.enter(1, 20, 'b'), None);
        assert_eq!(lanes.enter(2, 30, 'c'), Some('c'));
        assert_eq!(lanes.enter(1, 40, 'd'), None);
        assert_eq!(lanes.waiting(), (2, 60));
        assert_eq!(lanes.leave(2), None);
        assert_eq!(lanes.leave(1), Some('b'));
        assert_eq!(lanes.leave(1), Some('d'));
        assert_eq!(lanes.leave(1), None);
        assert_eq!(lanes.waiting(), (0, 0));
        assert!(lanes.lanes.is_empty());
    }

    #[test]
    fn waiting_items_are_taken_and_the_first_ones_stay() {
        let mut lanes = Lanes::new();
        for (key, item) in [(1, 'a'), (1, 'b'), (2, 'c'), (2, 'd'), (1, 'e')] {
            lanes.enter(key, 1, item);
        }
        assert_eq!(lanes.take_waiting(|&item| item != 'e'), ['b', 'd']);
        assert_eq!(lanes.waiting(), (1, 1));
        assert_eq!(lanes.take_waiting(|_| true), ['e']);
        assert_eq!(lanes.waiting(), (0, 0));
        assert_eq!((lanes.leave(1), lanes.leave(2)), (None, None));
        assert!(lanes.lanes.is_empty());
    }
}
