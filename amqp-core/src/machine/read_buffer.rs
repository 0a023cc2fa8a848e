//! The size of the caller's read buffer, which a slice of it keeps alive.

use bytes::BytesMut;

/// From this size on, in bytes, a piece of a body may be a slice of the read buffer. The place of a
/// smaller one in a list of pieces would be felt.
pub(super) const SHARE_FROM: usize = 16 << 10;

/// A piece is a slice of the read buffer if it is at least this part of it: the most memory, in
/// times its length, that it keeps alive. Two messages of 64 KiB still share a buffer of 128 KiB.
const PINNED: usize = 3;

/// How large the allocation is that the caller's input stands in.
///
/// A `BytesMut` tells only the room from its front on. That shrinks as frames are taken off, and
/// grows only when the caller makes room: then it begins with all that was allocated.
#[derive(Debug, Default)]
pub(super) struct ReadBuffer {
    /// The whole allocation, in bytes.
    size: usize,
    /// The room from the front on when the input was last seen, in bytes.
    room: usize,
}

impl ReadBuffer {
    /// The caller hands the input over.
    pub(super) fn enter(&mut self, input: &BytesMut) {
        let room = input.capacity();
        if room > self.room {
            self.size = room;
        }
    }

    /// The caller gets the input back.
    pub(super) fn leave(&mut self, input: &BytesMut) {
        self.room = input.capacity();
    }

    /// Whether a piece of that length may be a slice of it.
    pub(super) const fn shares(&self, len: usize) -> bool {
        len >= SHARE_FROM && len.saturating_mul(PINNED) >= self.size
    }
}
