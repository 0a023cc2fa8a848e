//! The memory for small pieces of content.

use alloc::collections::VecDeque;
use core::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::time::Instant;

/// The part of a block that a copy of a single piece may take. A larger one gets an allocation of
/// its own.
const ARENA_PART: usize = 8;

/// The maximum number of used blocks that are kept for reuse: some reads' worth of messages, of which
/// an application that keeps up holds the last ones.
const KEPT: usize = 64;

/// The number of used blocks that are looked at for one without copies that are alive: all are held
/// while an application falls behind.
const OLDEST: usize = 4;

/// The time after the last use of a new block in which the used ones are kept.
const IDLE_AFTER: Duration = Duration::from_millis(100);

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
    /// The ends of the used blocks, the oldest first. At most [`KEPT`].
    used: VecDeque<BytesMut>,
    /// A block was used up since [`note_time`](Self::note_time).
    is_busy: bool,
    /// The time from which the used blocks are released. `Some` while there are any, once the time
    /// of their last use was noted.
    release_at: Option<Instant>,
}

impl Arena {
    pub(super) const fn new(size: usize) -> Self {
        Self {
            block: None,
            size,
            used: VecDeque::new(),
            is_busy: false,
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
        let next = next.unwrap_or_else(|| BytesMut::with_capacity(self.size));
        if let Some(used) = self.block.replace(next) {
            if self.used.len() == KEPT {
                self.used.pop_front();
            }
            self.used.push_back(used);
            self.is_busy = true;
        }
    }

    /// Notes the time of the last use of a block.
    #[inline]
    pub(super) fn note_time(&mut self, now: Instant) {
        if core::mem::take(&mut self.is_busy) {
            self.release_at = Some(now + IDLE_AFTER);
        }
    }

    /// The time at which used blocks are to be released. `Some` while there are any.
    pub(super) const fn release_at(&self) -> Option<Instant> {
        self.release_at
    }

    /// Releases the used blocks, if it is time to.
    pub(super) fn release(&mut self, now: Instant) {
        if self.release_at.is_some_and(|at| at <= now) {
            self.used = VecDeque::new();
            self.release_at = None;
        }
    }

    /// Releases all blocks.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.size);
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    const SIZE: usize = 64;

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
        let mut arena = Arena::new(SIZE);
        assert_eq!(distinct(addresses(&mut arena, 0, 100)), 2);
        let mut arena = Arena::new(SIZE);
        assert_eq!(distinct(addresses(&mut arena, 10, 100)), 11);
    }

    #[test]
    fn a_copy_is_not_written_over() {
        let mut arena = Arena::new(SIZE);
        let held = arena.copy(&[1, 2]);
        let copies: Vec<_> = (3..203).map(|byte| arena.copy_run(&[byte; SIZE])).collect();
        assert_eq!(*held, [1, 2]);
        for (copy, byte) in copies.iter().zip(3..) {
            assert_eq!(**copy, [byte; SIZE]);
        }
    }

    #[test]
    fn blocks_that_are_held_for_long_keep_no_others_from_being_used_again() {
        let mut arena = Arena::new(SIZE);
        let held: Vec<_> = (1..OLDEST).map(|_| arena.copy_run(&[1; SIZE])).collect();
        assert_eq!(distinct(addresses(&mut arena, 0, 100)), 2);
        assert!(arena.used.len() < OLDEST, "the others are not kept");
        assert!(held.iter().all(|copy| **copy == [1; SIZE]));
        let _more = addresses(&mut arena, 3 * KEPT, 4 * KEPT);
        assert_eq!(arena.used.len(), KEPT);
    }

    #[test]
    fn used_blocks_are_released_some_time_after_their_last_use() {
        let mut arena = Arena::new(SIZE);
        let now = Instant::ORIGIN;
        arena.copy_run(&[1; SIZE]);
        arena.note_time(now);
        assert_eq!(arena.release_at(), None, "the one in use is kept");
        arena.copy_run(&[1; SIZE]);
        arena.note_time(now);
        let at = arena.release_at().expect("a block was used up");
        arena.note_time(now + IDLE_AFTER / 2);
        assert_eq!(arena.release_at(), Some(at), "none was used since");
        arena.release(now);
        assert_eq!(arena.used.len(), 1);
        arena.release(at);
        assert_eq!((arena.used.len(), arena.release_at()), (0, None));
    }
}
