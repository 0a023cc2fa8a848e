//! Assembling an incoming message from its method, content header and body frames (section 4.2.6 of
//! the specification).

use alloc::{boxed::Box, vec::Vec};
use core::mem;

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

/// The message that a channel is receiving. It takes memory only while there is one: most messages
/// arrive [whole](super::whole), and most channels are idle.
///
/// ```text
///  Nothing ── method with content ──> Header ── header ──> Body ── all bytes ─> (whole) ─> Nothing
///                                        └── header of an empty body ──> (whole) ──> Nothing
/// ```
#[derive(Debug, Default)]
pub(crate) struct Assembly(Option<Box<Partial>>);

/// The memory of the message that was completed last, for the next one of any channel.
#[derive(Debug, Default)]
pub(crate) struct Spare(Option<Box<Partial>>);

/// A message of which parts are missing.
///
/// The received parts are not moved until the message is complete.
#[derive(Debug, Default)]
struct Partial {
    expect: Expect,
    /// `Some` while the message is being received.
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
        self.0.as_ref()?.method.as_ref().map(Method::id)
    }

    pub(crate) const fn in_progress(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the content header is expected next.
    pub(crate) fn wants_header(&self) -> bool {
        self.is(|message| message.expect == Expect::Header)
    }

    /// Whether the content is discarded.
    pub(crate) fn is_dropped(&self) -> bool {
        self.is(|message| message.dropped.is_some())
    }

    /// Whether at least `len` bytes of a body that is kept are still missing.
    pub(super) fn expects_body(&self, len: usize) -> bool {
        self.is(|message| message.dropped.is_none() && message.remaining >= len as u64)
    }

    fn is(&self, condition: impl FnOnce(&Partial) -> bool) -> bool {
        self.0.as_deref().is_some_and(condition)
    }

    /// Begins a message. Its content is discarded unless `wanted`.
    pub(super) fn begin(&mut self, method: Method, wanted: bool, spare: &mut Spare) {
        let mut message = spare.0.take().unwrap_or_default();
        message.method = Some(method);
        message.dropped = (!wanted).then_some(Dropped::Unwanted);
        self.0 = Some(message);
    }

    /// Discards the content, because of `fault`.
    pub(crate) fn drop_content(&mut self, fault: Fault) {
        if let Some(message) = &mut self.0 {
            message.dropped.get_or_insert(Dropped::Unreadable(fault));
        }
    }

    /// Drops the message in progress. Returns the part of its memory that was counted.
    pub(crate) fn clear(&mut self) -> u64 {
        self.0.take().map_or(0, |message| message.counted)
    }

    /// Returns the memory that is not counted yet, and marks it as counted.
    pub(crate) fn count(&mut self) -> u64 {
        let Some(message) = &mut self.0 else {
            return 0;
        };
        let more = message.held - message.counted;
        message.counted = message.held;
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
        let message = self.0.as_deref().filter(|it| it.expect == Expect::Header);
        let Some((message, method)) = message.and_then(|it| Some((it, it.method.as_ref()?))) else {
            return Err(Fault::UnexpectedHeader);
        };
        let header = ContentHeader::parse(payload)?;
        if header.class != method.id().class {
            return Err(Fault::HeaderClass(header.class));
        }
        if header.weight != 0 {
            return Err(Fault::HeaderWeight(header.weight));
        }
        if header.body_size > limits.body && message.dropped.is_none() {
            return Err(Fault::BodyTooLarge {
                size: header.body_size,
                limit: limits.body,
            });
        }
        Ok(header)
    }

    /// Accepts a checked header. Returns whether the message is complete, which is the case if its
    /// body is empty.
    pub(crate) fn take_header(&mut self, properties: EncodedProperties, body_size: u64) -> bool {
        let Some(message) = &mut self.0 else {
            return false;
        };
        message.content.properties = properties;
        message.remaining = body_size;
        if body_size == 0 {
            return true;
        }
        message.held = message.content.properties.as_bytes().len() as u64;
        message.expect = Expect::Body;
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
        match &mut self.0 {
            Some(message) if message.expect == Expect::Body => {
                message.take_body(piece, memory, limits)
            }
            _ => Err(Fault::UnexpectedBody),
        }
    }

    /// Returns the complete message.
    pub(super) fn complete(&mut self, spare: &mut Spare) -> Option<Complete> {
        let mut message = self.0.take()?;
        let Partial {
            method,
            content,
            dropped,
            counted,
            ..
        } = mem::take(&mut *message);
        spare.0 = Some(message);
        Some(Complete {
            method: method?,
            content: match dropped {
                None => Ok(content),
                Some(why) => Err(why),
            },
            counted,
        })
    }
}

impl Partial {
    fn take_body(
        &mut self,
        piece: Piece<'_>,
        memory: Memory<'_>,
        limits: &Limits,
    ) -> Result<bool, Fault> {
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
            let small = mem::take(&mut self.small);
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
}
