//! Assembling an incoming message from its method, content header and body frames (section 4.2.6 of
//! the specification).

use alloc::vec::Vec;

use bytes::Bytes;

use super::{
    arena::Arena,
    read_buffer::{ReadBuffer, SHARE_FROM, Slices},
};
use crate::{
    body::{Content, EncodedProperties},
    fault::Fault,
    frame::ContentHeader,
    limits::Limits,
    method_id::MethodId,
    protocol::Method,
};

/// The size, in bytes, of the pieces that smaller pieces are joined into.
const COALESCE_TO: usize = 64 << 10;

/// The message that a channel is receiving.
///
/// ```text
///  Nothing ── method with content ──> Header ── header ──> Body ── all bytes ─> (whole) ─> Nothing
///                                        └── header of an empty body ──> (whole) ──> Nothing
/// ```
///
/// The received parts are not moved until the message is complete: this is on the path of every
/// message, and each move would be measurable.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    expect: Expect,
    /// `Some` while a message is being received.
    method: Option<Method>,
    content: Content,
    /// The slices of a read buffer that `content.body` ends with.
    slices: Slices,
    /// The bytes that the body keeps alive of read buffers without using them, as far as they are
    /// counted.
    unused: usize,
    /// The end of the received body, joined from small pieces. It follows `content.body`.
    small: Vec<u8>,
    /// The number of body bytes still missing; 0 unless a body is being received.
    remaining: u64,
    /// The number of empty body frames received.
    empty_frames: u32,
    /// `Some` if the content is discarded, with the cause.
    dropped: Option<Dropped>,
    /// The memory held by the content, in bytes.
    held: u64,
    /// The part of `held` that is included in [`Machine::assembled`](super::Machine).
    counted: u64,
}

/// The reason why the content of a message is discarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// The role does not need it.
    Unwanted,
    /// It exceeds a limit of this side.
    Unreadable(Fault),
}

/// The next expected frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Expect {
    #[default]
    Nothing,
    Header,
    Body,
}

/// The payload of a body frame.
pub(super) enum Piece<'a> {
    /// A slice of the read buffer that may be kept.
    Slice(Bytes),
    /// To be copied.
    Borrowed(&'a [u8]),
}

impl Piece<'_> {
    pub(super) const fn len(&self) -> usize {
        match self {
            Self::Slice(bytes) => bytes.len(),
            Self::Borrowed(bytes) => bytes.len(),
        }
    }
}

/// The memory that a piece is in, and that for its copy.
pub(super) struct Memory<'a> {
    pub(super) buffer: &'a ReadBuffer,
    pub(super) arena: &'a mut Arena,
}

/// A method with its complete content.
pub(crate) struct Complete {
    pub(crate) method: Method,
    pub(crate) content: Result<Content, Dropped>,
    /// The part of its memory that is included in [`Machine::assembled`](super::Machine), in bytes.
    pub(crate) counted: u64,
}

impl Assembly {
    /// The method of the message in progress.
    pub(crate) fn method(&self) -> Option<MethodId> {
        self.method.as_ref().map(Method::id)
    }

    pub(crate) const fn in_progress(&self) -> bool {
        self.method.is_some()
    }

    /// Whether the content header is expected next.
    pub(crate) fn wants_header(&self) -> bool {
        self.expect == Expect::Header
    }

    /// Whether the content is discarded.
    pub(crate) const fn is_dropped(&self) -> bool {
        self.dropped.is_some()
    }

    /// Whether at least `len` bytes of a body that is kept are still missing.
    pub(super) const fn expects_body(&self, len: usize) -> bool {
        self.dropped.is_none() && self.remaining >= len as u64
    }

    /// Begins a message. Its content is discarded unless `wanted`.
    #[inline(always)]
    pub(crate) fn begin(&mut self, method: Method, wanted: bool) {
        self.expect = Expect::Header;
        self.method = Some(method);
        self.dropped = if wanted {
            None
        } else {
            Some(Dropped::Unwanted)
        };
    }

    /// Discards the content, because of `fault`.
    pub(crate) fn drop_content(&mut self, fault: Fault) {
        self.dropped.get_or_insert(Dropped::Unreadable(fault));
    }

    /// Drops the message in progress. Returns the part of its memory that was counted.
    pub(crate) fn clear(&mut self) -> u64 {
        core::mem::take(self).counted
    }

    /// Returns the memory that is not counted yet, and marks it as counted.
    pub(crate) const fn count(&mut self) -> u64 {
        let more = self.held - self.counted;
        self.counted = self.held;
        more
    }

    /// Checks the payload of a content header against its method (section 4.2.6.1 of the
    /// specification).
    #[inline]
    pub(crate) fn check_header<'a>(
        &self,
        payload: &'a [u8],
        limits: &Limits,
    ) -> Result<ContentHeader<'a>, Fault> {
        let (Expect::Header, Some(method)) = (self.expect, &self.method) else {
            return Err(Fault::UnexpectedHeader);
        };
        let header = ContentHeader::parse(payload)?;
        if header.class != method.id().class {
            return Err(Fault::HeaderClass(header.class));
        }
        if header.weight != 0 {
            return Err(Fault::HeaderWeight(header.weight));
        }
        if header.body_size > limits.body && self.dropped.is_none() {
            return Err(Fault::BodyTooLarge {
                size: header.body_size,
                limit: limits.body,
            });
        }
        Ok(header)
    }

    /// Accepts a checked header. Returns whether the message is complete, which is the case if its
    /// body is empty.
    #[inline]
    pub(crate) fn take_header(&mut self, properties: EncodedProperties, body_size: u64) -> bool {
        self.content.properties = properties;
        self.remaining = body_size;
        if body_size == 0 {
            return true;
        }
        self.held = self.content.properties.as_bytes().len() as u64;
        self.expect = Expect::Body;
        self.empty_frames = 0;
        false
    }

    /// Accepts a piece of the body. Returns whether the message is complete.
    #[inline]
    pub(super) fn take_body(
        &mut self,
        piece: Piece<'_>,
        memory: Memory<'_>,
        limits: &Limits,
    ) -> Result<bool, Fault> {
        if self.expect != Expect::Body {
            return Err(Fault::UnexpectedBody);
        }
        let len = piece.len() as u64;
        if len == 0 {
            self.empty_frames += 1;
            if self.empty_frames > limits.empty_frames {
                return Err(Fault::TooManyEmptyFrames(self.empty_frames));
            }
        }
        self.remaining = match self.remaining.checked_sub(len) {
            Some(left) => left,
            None => {
                return Err(Fault::BodyOverrun {
                    excess: len - self.remaining,
                });
            }
        };
        if self.dropped.is_some() {
            return Ok(self.remaining == 0);
        }
        if self.remaining > 0 {
            self.held += len;
            self.keep(piece, memory.buffer);
            return Ok(false);
        }
        let piece = match piece {
            Piece::Slice(bytes) => bytes,
            Piece::Borrowed(bytes) => memory.arena.copy(bytes),
        };
        self.coalesce();
        self.push(piece);
        Ok(true)
    }

    /// Keeps a piece that is not the last. Small pieces are joined: each alone would take more
    /// memory than its length, for its entry in the list and the block that it keeps alive.
    fn keep(&mut self, piece: Piece<'_>, buffer: &ReadBuffer) {
        match piece {
            Piece::Slice(bytes) => {
                self.coalesce();
                if !self.slices.are_of(buffer) {
                    self.end_slices();
                }
                self.slices.add(bytes.len(), buffer);
                self.content.body.push(bytes);
            }
            Piece::Borrowed(bytes) if bytes.len() >= SHARE_FROM => {
                self.coalesce();
                self.push(Bytes::copy_from_slice(bytes));
            }
            Piece::Borrowed(bytes) => self.join(bytes),
        }
    }

    /// Appends a small piece to those before it, in blocks of [`COALESCE_TO`] bytes.
    fn join(&mut self, piece: &[u8]) {
        let room = COALESCE_TO - self.small.len();
        let (piece, rest) = piece.split_at_checked(room).unwrap_or((piece, &[]));
        let len = self.small.len() + piece.len();
        if len > self.small.capacity() {
            // The block grows with what is received, and never beyond its size.
            let capacity = len.max(2 * self.small.capacity()).min(COALESCE_TO);
            self.small.reserve_exact(capacity - self.small.len());
        }
        self.small.extend_from_slice(piece);
        if self.small.len() == COALESCE_TO {
            self.coalesce();
        }
        if !rest.is_empty() {
            self.join(rest);
        }
    }

    #[inline]
    fn coalesce(&mut self) {
        if !self.small.is_empty() {
            let small = core::mem::take(&mut self.small);
            self.push(small.into());
        }
    }

    /// Appends a piece that is not a slice of the present read buffer.
    #[inline]
    fn push(&mut self, piece: Bytes) {
        self.end_slices();
        self.content.body.push(piece);
    }

    /// Ends the run of slices: other pieces follow.
    #[inline]
    fn end_slices(&mut self) {
        let copied = self.slices.end(&mut self.unused);
        if copied > 0 {
            self.content.body.copy_last(copied);
        }
    }

    /// Returns the complete message.
    #[inline(always)]
    pub(crate) fn complete(&mut self) -> Option<Complete> {
        self.expect = Expect::Nothing;
        let method = self.method.take()?;
        let content = core::mem::take(&mut self.content);
        (self.held, self.unused) = (0, 0);
        Some(Complete {
            method,
            content: match self.dropped.take() {
                None => Ok(content),
                Some(why) => Err(why),
            },
            counted: core::mem::take(&mut self.counted),
        })
    }
}
