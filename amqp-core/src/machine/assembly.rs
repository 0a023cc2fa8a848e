//! A message on its way in: method, content header, body frames.

use bytes::{Bytes, BytesMut};

use super::read_buffer::SHARE_FROM;
use crate::{
    body::{Content, EncodedProperties},
    fault::Fault,
    frame::ContentHeader,
    limits::Limits,
    method::MethodId,
    protocol::Method,
};

/// Small pieces are put together into pieces of about this size, in bytes.
const TOGETHER: usize = 64 << 10;

/// The message that a channel is receiving.
///
/// ```text
///  Nothing ── method with content ──> Header ── header ──> Body ── all bytes ──> (whole) ──> Nothing
///                                        └── header of an empty body ──> (whole) ──> Nothing
/// ```
///
/// What has come stays where it is until the message is whole: this is on the path of every
/// message, and each move of it would be felt.
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    due: Due,
    /// Some unless nothing is due.
    method: Option<Method>,
    content: Content,
    /// What has come of the body behind that, in small pieces.
    small: BytesMut,
    /// How much of the body is due, in bytes; 0 unless a body is.
    left: u64,
    /// How many frames without a byte have come.
    empty_frames: u32,
    /// Why nothing of the content is kept. `None` if it is.
    dropped: Option<Dropped>,
    /// What is held of the content, in bytes.
    held: u64,
    /// How much of that is in the machine's sum.
    counted: u64,
}

/// Why the content of a message is not kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Dropped {
    /// It is of no interest.
    Unwanted,
    /// It is over a limit of this side.
    Unreadable(Fault),
}

/// What the peer has to send next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Due {
    #[default]
    Nothing,
    Header,
    Body,
}

/// A method whose content has come.
pub(crate) struct Complete {
    pub(crate) method: Method,
    pub(crate) content: Result<Content, Dropped>,
    /// What of it is in the machine's sum, in bytes.
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

    /// Whether the content header of the message in progress is still to come.
    pub(crate) fn wants_header(&self) -> bool {
        self.due == Due::Header
    }

    /// Whether nothing of the content is kept.
    pub(crate) const fn is_dropped(&self) -> bool {
        self.dropped.is_some()
    }

    /// A method with content has come. Nothing is kept of content that is not wanted.
    #[inline(always)]
    pub(crate) fn begin(&mut self, method: Method, wanted: bool) {
        self.due = Due::Header;
        self.method = Some(method);
        self.dropped = if wanted {
            None
        } else {
            Some(Dropped::Unwanted)
        };
    }

    /// Keeps nothing of the content, for that fault.
    pub(crate) fn drop_content(&mut self, fault: Fault) {
        self.dropped.get_or_insert(Dropped::Unreadable(fault));
    }

    /// Forgets what has come. Returns how much of it is in the machine's sum.
    pub(crate) fn clear(&mut self) -> u64 {
        core::mem::take(self).counted
    }

    /// What is held and not in the machine's sum yet, which it is from now on.
    pub(crate) const fn count(&mut self) -> u64 {
        let more = self.held - self.counted;
        self.counted = self.held;
        more
    }

    /// Checks a content header's payload against the method it follows.
    #[inline]
    pub(crate) fn check_header<'a>(
        &self,
        payload: &'a [u8],
        limits: &Limits,
    ) -> Result<ContentHeader<'a>, Fault> {
        let (Due::Header, Some(method)) = (self.due, &self.method) else {
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

    /// Takes a checked header. Whether the message is whole, as one with an empty body is.
    #[inline]
    pub(crate) fn take_header(&mut self, properties: EncodedProperties, body_size: u64) -> bool {
        self.content.properties = properties;
        self.left = body_size;
        if body_size == 0 {
            return true;
        }
        self.held = self.content.properties.as_bytes().len() as u64;
        self.due = Due::Body;
        self.empty_frames = 0;
        false
    }

    /// Takes a piece of the body. Whether the message is whole.
    #[inline]
    pub(crate) fn take_body(&mut self, piece: Bytes, limits: &Limits) -> Result<bool, Fault> {
        if self.due != Due::Body {
            return Err(Fault::UnexpectedBody);
        }
        let len = piece.len() as u64;
        if len == 0 {
            self.empty_frames += 1;
            if self.empty_frames > limits.empty_frames {
                return Err(Fault::TooManyEmptyFrames(self.empty_frames));
            }
        }
        self.left = match self.left.checked_sub(len) {
            Some(left) => left,
            None => {
                return Err(Fault::BodyOverrun {
                    excess: len - self.left,
                });
            }
        };
        if self.dropped.is_some() {
            return Ok(self.left == 0);
        }
        if self.left > 0 {
            self.held += len;
            self.keep(piece);
            return Ok(false);
        }
        self.put_together();
        self.content.body.push(piece);
        Ok(true)
    }

    /// Keeps a piece that is not the last. Small ones are put together: by itself, each would take
    /// more memory than it holds, for its place in the list and for the block that it keeps alive.
    fn keep(&mut self, piece: Bytes) {
        if piece.len() < SHARE_FROM {
            self.small.extend_from_slice(&piece);
            if self.small.len() >= TOGETHER {
                self.put_together();
            }
        } else {
            self.put_together();
            self.content.body.push(piece);
        }
    }

    #[inline]
    fn put_together(&mut self) {
        if !self.small.is_empty() {
            let small = core::mem::take(&mut self.small);
            self.content.body.push(small.freeze());
        }
    }

    /// Hands out the message that is whole.
    #[inline(always)]
    pub(crate) fn complete(&mut self) -> Option<Complete> {
        self.due = Due::Nothing;
        let method = self.method.take()?;
        let content = core::mem::take(&mut self.content);
        self.held = 0;
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
