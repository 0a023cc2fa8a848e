//! A message on its way in: method, content header, body frames.

use bytes::Bytes;

use crate::{
    body::{Body, Content, EncodedProperties},
    fault::Fault,
    frame::ContentHeader,
    limits::Limits,
    method::MethodId,
    protocol::Method,
};

/// The message that a channel is receiving.
///
/// ```text
///  Idle ── method with content ──> Header ── header ──> Body ── all bytes ──> (complete) ──> Idle
///                                     └── header of an empty body ──> (complete) ──> Idle
/// ```
#[derive(Debug, Default)]
pub(crate) enum Assembly {
    #[default]
    Idle,
    /// The content header is due.
    Header(Method),
    /// Body frames are due.
    Body(Partial),
}

#[derive(Debug)]
pub(crate) struct Partial {
    method: Method,
    content: Content,
    /// How much of the body is due, in bytes; never 0.
    left: u64,
    /// How many frames without a byte have come.
    empty_frames: u32,
}

/// A method with its content, whole.
pub(crate) type Complete = (Method, Content);

impl Assembly {
    /// The method of the message in progress.
    pub(crate) fn method(&self) -> Option<MethodId> {
        match self {
            Self::Idle => None,
            Self::Header(method) => Some(method.id()),
            Self::Body(partial) => Some(partial.method.id()),
        }
    }

    /// Checks a content header's payload against the method it follows.
    pub(crate) fn check_header<'a>(
        &self,
        payload: &'a [u8],
        limits: &Limits,
    ) -> Result<ContentHeader<'a>, Fault> {
        let Self::Header(method) = self else {
            return Err(Fault::UnexpectedHeader);
        };
        let header = ContentHeader::parse(payload)?;
        if header.class != method.id().class {
            return Err(Fault::HeaderClass(header.class));
        }
        if header.weight != 0 {
            return Err(Fault::HeaderWeight(header.weight));
        }
        if header.body_size > limits.body {
            return Err(Fault::BodyTooLarge {
                size: header.body_size,
                limit: limits.body,
            });
        }
        Ok(header)
    }

    /// Takes a checked header; an empty body makes the message whole.
    pub(crate) fn take_header(
        &mut self,
        properties: EncodedProperties,
        body_size: u64,
    ) -> Option<Complete> {
        let Self::Header(method) = core::mem::take(self) else {
            return None;
        };
        let content = Content {
            properties,
            body: Body::new(),
        };
        if body_size == 0 {
            return Some((method, content));
        }
        *self = Self::Body(Partial {
            method,
            content,
            left: body_size,
            empty_frames: 0,
        });
        None
    }

    /// Takes a piece of the body; the last one makes the message whole.
    pub(crate) fn take_body(
        &mut self,
        piece: Bytes,
        limits: &Limits,
    ) -> Result<Option<Complete>, Fault> {
        let Self::Body(partial) = self else {
            return Err(Fault::UnexpectedBody);
        };
        let len = piece.len() as u64;
        if len == 0 {
            partial.empty_frames += 1;
            if partial.empty_frames > limits.empty_frames {
                return Err(Fault::TooManyEmptyFrames(partial.empty_frames));
            }
        }
        partial.left = match partial.left.checked_sub(len) {
            Some(left) => left,
            None => {
                return Err(Fault::BodyOverrun {
                    excess: len - partial.left,
                });
            }
        };
        partial.content.body.push(piece);
        if partial.left > 0 {
            return Ok(None);
        }
        match core::mem::take(self) {
            Self::Body(partial) => Ok(Some((partial.method, partial.content))),
            Self::Idle | Self::Header(_) => Ok(None),
        }
    }
}
