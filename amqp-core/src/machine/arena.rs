//! The memory for small pieces of content.

use bytes::{Bytes, BytesMut};

/// The part of a block that a copy in it may take. A larger one gets an allocation of its own.
const ARENA_PART: usize = 8;

/// The block that small pieces of content are copied into, so that they do not keep a large read
/// buffer alive.
#[derive(Debug)]
pub(super) struct Arena {
    /// The end of the block: what no copy occupies.
    block: BytesMut,
    /// The size of a block, in bytes.
    size: usize,
}

impl Arena {
    pub(super) fn new(size: usize) -> Self {
        Self {
            block: BytesMut::new(),
            size,
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
        if self.block.capacity() - self.block.len() < piece.len() {
            self.block = BytesMut::with_capacity(self.size);
        }
        self.block.extend_from_slice(piece);
        self.block.split().freeze()
    }

    /// Releases the block.
    pub(super) fn clear(&mut self) {
        self.block = BytesMut::new();
    }
}
