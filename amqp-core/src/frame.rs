//! Frames: the unit of the wire.
//!
//! ```text
//!  0      1         3             7                  size+7 size+8
//!  +------+---------+-------------+------------------+-----+
//!  | type | channel |    size     |     payload      | end |
//!  +------+---------+-------------+------------------+-----+
//!   octet    short        long       `size` octets     0xCE
//! ```
//!
//! AMQP 0-9-1 section 4.2.3. The machine uses these; a proxy or a tool may read a stream with
//! [`Frame::parse`] and [`Frame::encode`] alone.

use bytes::BytesMut;

use crate::{
    fault::Fault,
    limits::FRAME_OVERHEAD,
    method::MethodId,
    protocol::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD},
};

/// The bytes before the payload.
pub(crate) const FRAME_HEAD: usize = 7;

/// The bytes of a content header before its properties: class, weight and body size.
pub(crate) const CONTENT_HEAD: usize = 12;

/// What a client sends first.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// What a frame holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A method: class, method and arguments.
    Method,
    /// A content header: class, weight, body size and properties.
    Header,
    /// A piece of a body.
    Body,
    /// A sign of life.
    Heartbeat,
}

impl FrameKind {
    const fn from_wire(kind: u8) -> Result<Self, Fault> {
        Ok(match kind {
            FRAME_METHOD => Self::Method,
            FRAME_HEADER => Self::Header,
            FRAME_BODY => Self::Body,
            FRAME_HEARTBEAT => Self::Heartbeat,
            other => return Err(Fault::FrameType(other)),
        })
    }

    pub(crate) const fn to_wire(self) -> u8 {
        match self {
            Self::Method => FRAME_METHOD,
            Self::Header => FRAME_HEADER,
            Self::Body => FRAME_BODY,
            Self::Heartbeat => FRAME_HEARTBEAT,
        }
    }
}

/// The part of a frame before its payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHead {
    pub(crate) kind: FrameKind,
    pub(crate) channel: u16,
    /// The payload's size in bytes.
    pub(crate) size: usize,
}

impl FrameHead {
    /// Reads the head at the front of `input`, none if it is not all there. Only the type is
    /// checked.
    #[inline]
    pub(crate) fn read(input: &[u8]) -> Result<Option<Self>, Fault> {
        // A wrong type is told at the first octet, so that a peer of another protocol is not
        // waited for.
        let Some(&first) = input.first() else {
            return Ok(None);
        };
        let kind = FrameKind::from_wire(first)?;
        let Some(&[_, c1, c0, s3, s2, s1, s0]) = input.first_chunk::<FRAME_HEAD>() else {
            return Ok(None);
        };
        Ok(Some(Self {
            kind,
            channel: u16::from_be_bytes([c1, c0]),
            size: u32::from_be_bytes([s3, s2, s1, s0]) as usize,
        }))
    }

    /// Checks the size of the whole frame, before anything of the payload is waited for.
    #[inline]
    pub(crate) const fn check(&self, limit: u32) -> Result<(), Fault> {
        let size = self.size as u64 + FRAME_OVERHEAD as u64;
        if size > limit as u64 {
            return Err(Fault::FrameTooLarge { size, limit });
        }
        Ok(())
    }

    /// The whole frame's length in bytes.
    pub(crate) const fn frame_len(&self) -> usize {
        self.size.saturating_add(FRAME_OVERHEAD)
    }

    /// The payload, none if the frame is not all there.
    pub(crate) fn payload<'a>(&self, input: &'a [u8]) -> Result<Option<&'a [u8]>, Fault> {
        let Some(&end) = input.get(FRAME_HEAD + self.size) else {
            return Ok(None);
        };
        if end != FRAME_END {
            return Err(Fault::FrameEnd(end));
        }
        Ok(input.get(FRAME_HEAD..FRAME_HEAD + self.size))
    }
}

/// A frame, borrowed from the bytes it stands in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// What it holds.
    pub kind: FrameKind,
    /// The number of the channel it belongs to; 0 is the connection itself.
    pub channel: u16,
    /// What it holds, in bytes.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame at the front of `input`, none if it is not all there. `limit` is the
    /// largest frame to accept, in bytes; a larger one is refused before it is there.
    ///
    /// # Errors
    /// When the type does not exist, the size is over the limit, or the last octet is wrong.
    ///
    /// ```
    /// use amqp_core::frame::{Frame, FrameKind};
    ///
    /// let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xCE];
    /// assert_eq!(Frame::parse(&heartbeat[..5], 8192), Ok(None));
    /// let frame = Frame::parse(&heartbeat, 8192)?.expect("it is all there");
    /// assert_eq!((frame.kind, frame.len()), (FrameKind::Heartbeat, 8));
    /// # Ok::<_, amqp_core::Fault>(())
    /// ```
    pub fn parse(input: &'a [u8], limit: u32) -> Result<Option<Self>, Fault> {
        let Some(head) = FrameHead::read(input)? else {
            return Ok(None);
        };
        head.check(limit)?;
        Ok(head.payload(input)?.map(|payload| Self {
            kind: head.kind,
            channel: head.channel,
            payload,
        }))
    }

    /// The length of the whole frame in bytes.
    #[expect(clippy::len_without_is_empty, reason = "a frame is never empty")]
    #[must_use]
    pub const fn len(&self) -> usize {
        self.payload.len() + FRAME_OVERHEAD
    }

    /// Appends the frame to `out`.
    pub fn encode(&self, out: &mut BytesMut) {
        out.reserve(self.len());
        put_head(out, self.kind, self.channel, self.payload.len());
        out.extend_from_slice(self.payload);
        out.extend_from_slice(&[FRAME_END]);
    }
}

/// Appends the head of a frame; its payload and the end octet follow.
#[inline]
pub(crate) fn put_head(out: &mut BytesMut, kind: FrameKind, channel: u16, size: usize) {
    let [c1, c0] = channel.to_be_bytes();
    // Callers keep to the frame limit, which is a u32.
    let [s3, s2, s1, s0] = (size as u32).to_be_bytes();
    out.extend_from_slice(&[kind.to_wire(), c1, c0, s3, s2, s1, s0]);
}

/// A heartbeat frame.
pub(crate) const HEARTBEAT: [u8; 8] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// Splits the payload of a method frame into the method's numbers and its arguments.
///
/// # Errors
/// When it is too short for the numbers.
#[inline]
pub fn split_method(payload: &[u8]) -> Result<(MethodId, &[u8]), Fault> {
    let (&[c1, c0, m1, m0], arguments) = payload.split_first_chunk().ok_or(Fault::FrameTooShort)?;
    let (class, method) = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0]));
    Ok((MethodId::new(class, method), arguments))
}

/// The payload of a content header frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method it follows.
    pub class: u16,
    /// Always 0.
    pub weight: u16,
    /// The length of the body in bytes.
    pub body_size: u64,
    /// Flag words and values of the properties.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads the payload of a content header frame. The properties are not looked at.
    ///
    /// # Errors
    /// When it is too short.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, Fault> {
        let (&fixed, properties) = payload
            .split_first_chunk::<CONTENT_HEAD>()
            .ok_or(Fault::FrameTooShort)?;
        let [c1, c0, w1, w0, body_size @ ..] = fixed;
        Ok(Self {
            class: u16::from_be_bytes([c1, c0]),
            weight: u16::from_be_bytes([w1, w0]),
            body_size: u64::from_be_bytes(body_size),
            properties,
        })
    }
}
