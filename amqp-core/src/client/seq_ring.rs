//! A ring of values with consecutive numbers.

use alloc::{boxed::Box, vec};

/// The number of places of the first ring.
const FIRST_PLACES: usize = 4;

/// Values with consecutive numbers. They are added at the end and removed at the front.
///
/// The place of a value follows from its number alone: the number of places is a power of two. So
/// adding a value is a comparison and a store.
#[derive(Debug)]
pub(super) struct SeqRing<T> {
    places: Box<[T]>,
    /// The number of the value at the front.
    first: u64,
    len: usize,
}

impl<T: Copy + Default> SeqRing<T> {
    /// Creates an empty ring. `first` is the number of the first value.
    pub(super) fn new(first: u64) -> Self {
        Self {
            places: Box::default(),
            first,
            len: 0,
        }
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The number of the value at the front, or of the next one in an empty ring.
    #[inline]
    pub(super) const fn first(&self) -> u64 {
        self.first
    }

    /// The number of the next value.
    #[inline]
    pub(super) const fn next(&self) -> u64 {
        self.first + self.len as u64
    }

    #[inline]
    const fn place(&self, seq: u64) -> usize {
        seq as usize & self.places.len().wrapping_sub(1)
    }

    const fn contains(&self, seq: u64) -> bool {
        self.first <= seq && seq < self.next()
    }

    pub(super) fn get(&self, seq: u64) -> Option<&T> {
        let place = self.place(seq);
        self.places.get(place).filter(|_| self.contains(seq))
    }

    pub(super) fn get_mut(&mut self, seq: u64) -> Option<&mut T> {
        let (place, contained) = (self.place(seq), self.contains(seq));
        self.places.get_mut(place).filter(|_| contained)
    }

    /// The values up to the number `last`, with their numbers.
    pub(super) fn up_to(&self, last: u64) -> impl Iterator<Item = (u64, &T)> {
        let end = self.next().min(last.saturating_add(1));
        (self.first..end).filter_map(|seq| Some((seq, self.places.get(self.place(seq))?)))
    }

    /// Adds a value at the end. Returns its number.
    #[inline(always)]
    pub(super) fn push(&mut self, value: T) -> u64 {
        if self.len >= self.places.len() {
            self.grow();
        }
        let seq = self.next();
        let place = self.place(seq);
        if let Some(free) = self.places.get_mut(place) {
            *free = value;
            self.len += 1;
        }
        seq
    }

    /// Removes the value at the front.
    pub(super) fn pop_front(&mut self) -> Option<T> {
        let front = *self.get(self.first)?;
        self.first += 1;
        self.len -= 1;
        Some(front)
    }

    /// Releases the memory of an empty ring, but for `kept` places, a power of two.
    #[inline]
    pub(super) fn release(&mut self, kept: usize) {
        if self.len == 0 && self.places.len() > kept {
            self.places = vec![T::default(); kept].into_boxed_slice();
        }
    }

    /// Doubles the number of places.
    #[cold]
    fn grow(&mut self) {
        let count = (2 * self.places.len()).max(FIRST_PLACES);
        let mut places = vec![T::default(); count].into_boxed_slice();
        for (seq, value) in self.up_to(u64::MAX) {
            if let Some(place) = places.get_mut(seq as usize & (count - 1)) {
                *place = *value;
            }
        }
        self.places = places;
    }
}

#[cfg(test)]
mod tests {
    use alloc::{collections::VecDeque, vec::Vec};

    use super::*;

    #[test]
    fn values_keep_their_numbers_while_the_ring_turns_and_grows() {
        let mut ring = SeqRing::new(6);
        let mut expected = VecDeque::new();
        let (mut front, mut next) = (6, 6);
        for round in 0..200_u64 {
            for _ in 0..round % 7 {
                assert_eq!(ring.push(100 + next), next);
                expected.push_back((next, 100 + next));
                next += 1;
            }
            for _ in 0..round % 5 {
                let popped = expected.pop_front();
                assert_eq!(ring.pop_front(), popped.map(|(_, value)| value));
                front += u64::from(popped.is_some());
            }
            assert_eq!((ring.first(), ring.next()), (front, next));
            assert_eq!(ring.len(), expected.len());
            let all: Vec<_> = ring.up_to(u64::MAX).map(|(seq, it)| (seq, *it)).collect();
            assert_eq!(all, Vec::from(expected.clone()));
            for seq in front.saturating_sub(9)..next + 9 {
                let value = (front..next).contains(&seq).then_some(100 + seq);
                assert_eq!(ring.get(seq).copied(), value);
                assert_eq!(ring.get_mut(seq).copied(), value);
            }
        }
        assert_eq!(ring.up_to(front + 1).count(), ring.len().min(2));
        assert_eq!(ring.up_to(front - 1).count(), 0);
        ring.release(4);
        assert!(ring.places.len() > 4, "it is in use");
        while ring.pop_front().is_some() {}
        ring.release(4);
        assert_eq!(ring.places.len(), 4);
        assert_eq!((ring.push(1), ring.get(next)), (next, Some(&1)));
    }
}
