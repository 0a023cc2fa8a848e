//! The caller's read buffer, which a slice of it keeps alive.

use bytes::BytesMut;

/// The smallest piece of a body, in bytes, that may be a slice of the read buffer. For smaller
/// pieces, the overhead of an entry in a list of pieces would be noticeable.
pub(super) const SHARE_FROM: usize = 16 << 10;

/// A piece may be a slice of the read buffer if it is at least one third of it. A slice therefore
/// keeps at most three times its length alive. Two messages of 64 KiB can still share a buffer of
/// 128 KiB.
const PINNED: usize = 3;

/// The part of a read buffer that the slices of a large body may leave unused.
const UNUSED_PART: usize = 8;

/// The bytes of read buffers beside its own that a body may keep alive, if its slices leave more
/// than that part of each unused. Bodies up to this length are not copied for it.
const UNUSED: usize = 1 << 20;

/// The allocation behind the caller's input.
///
/// The capacity of a `BytesMut` counts from its front. It shrinks as frames are split off, and
/// grows only when the caller reserves more: then it covers the whole allocation.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    /// The number of the allocation.
    number: u32,
    /// The whole allocation, in bytes.
    size: usize,
    /// The capacity of the input at the end of the last call, in bytes.
    room: usize,
}

impl ReadBuffer {
    /// Records the capacity at the start of a call.
    pub(super) fn enter(&mut self, input: &BytesMut) {
        let room = input.capacity();
        if room > self.room {
            self.size = room;
            self.number = self.number.wrapping_add(1);
        }
    }

    /// Records the capacity at the end of a call.
    pub(super) fn leave(&mut self, input: &BytesMut) {
        self.room = input.capacity();
    }

    /// Whether a piece of `len` bytes may be a slice of the read buffer.
    pub(super) const fn shares(&self, len: usize) -> bool {
        len >= SHARE_FROM && len.saturating_mul(PINNED) >= self.size
    }
}

/// The slices of one read buffer that are next to each other in a body.
#[derive(Debug, Default)]
pub(super) struct Slices {
    /// The number of the read buffer.
    buffer: u32,
    /// The size of the read buffer, in bytes.
    size: usize,
    count: usize,
    /// Their length together, in bytes.
    len: usize,
}

impl Slices {
    /// Whether a slice of that read buffer belongs to these.
    pub(super) const fn are_of(&self, buffer: &ReadBuffer) -> bool {
        self.count > 0 && self.buffer == buffer.number
    }

    /// Adds a slice of the read buffer.
    pub(super) const fn add(&mut self, len: usize, buffer: &ReadBuffer) {
        (self.buffer, self.size) = (buffer.number, buffer.size);
        self.count += 1;
        self.len += len;
    }

    /// Ends the run. Returns the number of slices that are to be replaced by a copy: all, if they
    /// leave too much of their read buffer unused, or none. `unused` is the sum for the body.
    pub(super) fn end(&mut self, unused: &mut usize) -> usize {
        let ended = core::mem::take(self);
        let more = ended.size.saturating_sub(ended.len);
        if more <= ended.size / UNUSED_PART {
            return 0;
        }
        if *unused + more <= UNUSED {
            *unused += more;
            return 0;
        }
        ended.count
    }
}
