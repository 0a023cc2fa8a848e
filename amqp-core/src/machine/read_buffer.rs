//! The size of the caller's read buffer, which a slice of it keeps alive.

use bytes::BytesMut;

/// The smallest piece of a body, in bytes, that may be a slice of the read buffer. For smaller
/// pieces, the overhead of an entry in a list of pieces would be noticeable.
pub(super) const SHARE_FROM: usize = 16 << 10;

/// A piece may be a slice of the read buffer if it is at least one third of it. A slice therefore
/// keeps at most three times its length alive. Two messages of 64 KiB can still share a buffer of
/// 128 KiB.
const PINNED: usize = 3;

/// The size of the allocation behind the caller's input.
///
/// The capacity of a `BytesMut` counts from its front. It shrinks as frames are split off, and
/// grows only when the caller reserves more: then it covers the whole allocation.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
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
