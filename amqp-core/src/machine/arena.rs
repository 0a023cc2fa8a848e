//! The memory for small pieces of content.

use alloc::collections::VecDeque;
use core::{mem, time::Duration};

use bytes::{Bytes, BytesMut};

use crate::time::Instant;

/// The part of a block that a copy of a single piece may take. A larger one gets an allocation of
/// its own.
const ARENA_PART: usize = 8;

/// The number of used blocks that are looked at for one without copies that are alive: all are held
/// while an application falls behind.
const OLDEST: usize = 4;

/// The time after which used blocks are released: all of them if none was used up meanwhile, and half of
/// them if none was missing.
const PERIOD: Duration = Duration::from_millis(100);

/// The block that small pieces of content are copied into, so that they do not keep a large read
/// buffer alive.
///
/// A used block is written again once no copy in it is alive: a busy connection, whose application
/// keeps up, does not allocate.
#[derive(Debug)]
pub(super) struct Arena {
    /// The end of the block: what no copy occupies. `Some` after the first copy.
    block: Option<BytesMut>,
    /// The size of a block, in bytes.
    size: usize,
    /// The ends of the used blocks, the oldest first.
    used: VecDeque<BytesMut>,
    /// The maximum number of used blocks.
    used_max: usize,
    /// A block was used up since [`note_time`](Self::note_time).
    is_busy: bool,
    /// The time at which the last block was used up.
    used_at: Instant,
    /// A new block was needed in the present period.
    is_short: bool,
    /// The end of the present period. `Some` while there are used blocks, once the time was
    /// [noted](Self::note_time).
    release_at: Option<Instant>,
}

impl Arena {
    pub(super) const fn new(size: usize, used_max: usize) -> Self {
        Self {
            block: None,
            size,
            used: VecDeque::new(),
            used_max,
            is_busy: false,
            used_at: Instant::ORIGIN,
            is_short: false,
            release_at: None,
        }
    }

    /// Returns a copy of the piece.
    pub(super) fn copy(&mut self, piece: &[u8]) -> Bytes {
        if piece.is_empty() {
            return Bytes::new();
        }
        if piece.len() >= self.size / ARENA_PART {
            return Bytes::copy_from_slice(piece);
        }
        self.place(piece)
    }

    /// Returns a copy of several pieces, which keep each other alive. At most the size of a block.
    pub(super) fn copy_run(&mut self, pieces: &[u8]) -> Bytes {
        if pieces.is_empty() || pieces.len() > self.size {
            return Bytes::copy_from_slice(pieces);
        }
        self.place(pieces)
    }

    /// The number of bytes for which there is room in the block.
    pub(super) fn room(&self) -> usize {
        let room = |block: &BytesMut| block.capacity() - block.len();
        self.block.as_ref().map_or(0, room)
    }

    fn place(&mut self, piece: &[u8]) -> Bytes {
        if self.room() < piece.len() {
            self.use_up();
        }
        let block = self.block.get_or_insert_default();
        block.extend_from_slice(piece);
        block.split().freeze()
    }

    /// Goes on to one of the oldest used blocks, if no copy in it is alive, or else to a new one.
    fn use_up(&mut self) {
        let mut oldest = self.used.iter_mut().take(OLDEST);
        let free = oldest.position(|block| block.try_reclaim(self.size));
        let next = match free {
            // Those that are older are held for long.
            Some(free) => self.used.drain(..=free).next_back(),
            None => None,
        };
        self.is_short |= next.is_none();
        let next = next.unwrap_or_else(|| BytesMut::with_capacity(self.size));
        let used = self.block.replace(next);
        if let Some(used) = used.filter(|_| self.used_max > 0) {
            if self.used.len() == self.used_max {
                self.used.pop_front();
            }
            self.used.push_back(used);
            self.is_busy = true;
        }
    }

    /// Notes the time if a block was used up, and begins a period if there is none.
    #[inline]
    pub(super) fn note_time(&mut self, now: Instant) {
        if mem::take(&mut self.is_busy) {
            self.used_at = now;
            self.release_at.get_or_insert(now + PERIOD);
        }
    }

    /// The time at which used blocks are to be released. `Some` while there are any.
    pub(super) const fn release_at(&self) -> Option<Instant> {
        self.release_at
    }

    /// Releases used blocks at the end of a period, and begins another one if some are left.
    pub(super) fn release(&mut self, now: Instant) {
        if self.release_at.is_none_or(|at| at > now) {
            return;
        }
        let count = self.used.len();
        let kept = match mem::take(&mut self.is_short) {
            _ if self.used_at + PERIOD <= now => 0,
            true => count,
            false => count / 2,
        };
        self.used.drain(..count - kept);
        if kept == 0 {
            self.used = VecDeque::new();
        }
        self.release_at = (kept > 0).then(|| now + PERIOD);
    }

    /// Releases all blocks.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.size, self.used_max);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const SIZE: usize = 64;
    const KEPT: usize = 20;

    /// The addresses of copies of a block's size, of which the last `held` are alive at a time.
    fn addresses(arena: &mut Arena, held: usize, count: usize) -> Vec<usize> {
        let mut alive = VecDeque::new();
        let mut addresses = Vec::new();
        for _ in 0..count {
            let copy = arena.copy_run(&[7; SIZE]);
            addresses.push(copy.as_ptr().addr());
            alive.push_back(copy);
            if alive.len() > held {
                alive.pop_front();
            }
        }
        addresses
    }

    fn distinct(mut addresses: Vec<usize>) -> usize {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.len()
    }

    #[test]
    fn blocks_are_used_again_once_no_copy_in_them_is_alive() {
        let mut arena = Arena::new(SIZE, KEPT);
        assert_eq!(distinct(addresses(&mut arena, 0, 100)), 2);
        let mut arena = Arena::new(SIZE, KEPT);
        assert_eq!(distinct(addresses(&mut arena, 10, 100)), 11);
    }

    #[test]
    fn a_copy_is_not_written_over() {
        let mut arena = Arena::new(SIZE, KEPT);
        let held = arena.copy(&[1, 2]);
        let copies: Vec<_> = (3..203).map(|byte| arena.copy_run(&[byte; SIZE])).collect();
        assert_eq!(*held, [1, 2]);
        for (copy, byte) in copies.iter().zip(3..) {
            assert_eq!(**copy, [byte; SIZE]);
        }
    }

    #[test]
    fn blocks_that_are_held_for_long_keep_no_others_from_being_used_again() {
        let mut arena = Arena::new(SIZE, KEPT);
        let held: Vec<_> = (1..OLDEST).map(|_| arena.copy_run(&[1; SIZE])).collect();
        assert_eq!(distinct(addresses(&mut arena, 0, 100)), 2);
        assert!(arena.used.len() < OLDEST, "the others are not kept");
        assert!(held.iter().all(|copy| **copy == [1; SIZE]));
        let _more = addresses(&mut arena, 3 * KEPT, 4 * KEPT);
        assert_eq!(arena.used.len(), KEPT);
    }

    #[test]
    fn used_blocks_are_released_when_none_is_used_any_more() {
        let mut arena = Arena::new(SIZE, KEPT);
        let now = Instant::ORIGIN;
        arena.copy_run(&[1; SIZE]);
        arena.note_time(now);
        assert_eq!(arena.release_at(), None, "the one in use is kept");
        addresses(&mut arena, 10, 100);
        arena.note_time(now);
        assert_eq!(arena.release_at(), Some(now + PERIOD));
        addresses(&mut arena, 10, 100);
        arena.note_time(now + PERIOD / 2);
        assert_eq!(arena.release_at(), Some(now + PERIOD));
        arena.release(now + PERIOD / 2);
        assert_eq!(arena.used.len(), 10);
        arena.release(now + PERIOD);
        assert_eq!(arena.used.len(), 10, "they were used meanwhile");
        assert_eq!(arena.release_at(), Some(now + 2 * PERIOD));
        arena.note_time(now + 2 * PERIOD);
        arena.release(now + 2 * PERIOD);
        assert_eq!((arena.used.len(), arena.release_at()), (0, None));
    }

    #[test]
    fn a_busy_connection_comes_to_the_number_of_blocks_that_it_needs() {
        let mut arena = Arena::new(SIZE, KEPT);
        let mut now = Instant::ORIGIN;
        addresses(&mut arena, 15, 100);
        for _ in 0..10 {
            addresses(&mut arena, 3, 20);
            arena.note_time(now);
            now = now + PERIOD;
            arena.release(now);
        }
        let count = arena.used.len();
        assert!(count <= 6, "{count}");
    }
}
