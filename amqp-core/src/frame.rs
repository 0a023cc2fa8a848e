//! Frames, the units of transmission (section 4.2.3 of the AMQP 0-9-1 specification).
//!
//! ```text
//!  0      1         3             7                  size+7 size+8
//!  +------+---------+-------------+------------------+-----+
//!  | type | channel |    size     |     payload      | end |
//!  +------+---------+-------------+------------------+-----+
//!   octet    short        long       `size` octets     0xCE
//! ```
//!
//! The state machine uses these. A proxy or a tool can process a stream with [`Frame::parse`] and
//! [`Frame::encode`] alone.

use bytes::BytesMut;

use crate::{
    fault::Fault,
    limits::FRAME_OVERHEAD,
    method_id::MethodId,
    protocol::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD},
};

/// The size of a frame before its payload, in bytes.
pub(crate) const FRAME_HEAD: usize = 7;

/// The size of a content header before its properties, in bytes: class, weight and body size
/// (section 4.2.6.1 of the specification).
pub(crate) const CONTENT_HEAD: usize = 12;

/// The class and method ids at the front of a method frame's payload, in bytes (section 4.2.4 of
/// the specification).
pub(crate) const METHOD_HEAD: usize = 4;

/// The first bytes of a client (section 4.2.2 of the specification).
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\x00\x00\x09\x01";

/// The type of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A method: class, method and arguments.
    Method,
    /// A content header: class, weight, body size and properties.
    Header,
    /// A piece of a body.
    Body,
    /// A heartbeat.
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
    /// The size of the payload, in bytes.
    pub(crate) size: usize,
}

impl FrameHead {
    /// Reads the head of the frame at the front of `input`. Returns `None` if it is incomplete.
    /// Checks the type only.
    #[inline]
    pub(crate) fn read(input: &[u8]) -> Result<Option<Self>, Fault> {
        // An unknown type is reported at the first octet, without waiting for more: the peer may
        // use another protocol.
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

    /// Checks the size of the whole frame, before its payload is received.
    #[inline]
    pub(crate) const fn check(&self, limit: u32) -> Result<(), Fault> {
        let size = self.size as u64 + FRAME_OVERHEAD as u64;
        if size > limit as u64 {
            return Err(Fault::FrameTooLarge { size, limit });
        }
        Ok(())
    }

    /// The length of the whole frame, in bytes.
    pub(crate) const fn frame_len(&self) -> usize {
        self.size.saturating_add(FRAME_OVERHEAD)
    }

    /// Returns the payload. `None` if the frame is incomplete.
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

/// A frame, borrowed from its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The type of the frame.
    pub kind: FrameKind,
    /// The channel number; 0 is the connection itself.
    pub channel: u16,
    /// The payload.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the frame at the front of `input`. Returns `None` if it is incomplete. `limit` is the
    /// largest frame to accept, in bytes; a larger one is refused as soon as its head is complete.
    ///
    /// # Errors
    /// If the type does not exist, the size exceeds the limit, or the last octet is not the
    /// frame-end octet.
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

    /// Reads the frame at the front of `input`. `None` if it is of another kind, incomplete, larger
    /// than `limit` or faulty.
    #[inline]
    pub(crate) fn of_kind(kind: FrameKind, input: &'a [u8], limit: u32) -> Option<Self> {
        let &[first, c1, c0, s3, s2, s1, s0] = input.first_chunk::<FRAME_HEAD>()?;
        let head = FrameHead {
            kind,
            channel: u16::from_be_bytes([c1, c0]),
            size: u32::from_be_bytes([s3, s2, s1, s0]) as usize,
        };
        if first != kind.to_wire() || head.check(limit).is_err() {
            return None;
        }
        let payload = head.payload(input).ok()??;
        Some(Self {
            kind,
            channel: head.channel,
            payload,
        })
    }

    /// Returns the length of the whole frame, in bytes.
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

/// Appends the head of a frame; its payload and the frame-end octet follow.
#[inline]
pub(crate) fn put_head(out: &mut BytesMut, kind: FrameKind, channel: u16, size: usize) {
    out.extend_from_slice(&frame_head(kind, channel, size));
}

/// The head of a frame with a payload of `size` bytes.
#[inline]
pub(crate) const fn frame_head(kind: FrameKind, channel: u16, size: usize) -> [u8; FRAME_HEAD] {
    let [c1, c0] = channel.to_be_bytes();
    // Callers keep to the frame limit, which is a `u32`.
    let [s3, s2, s1, s0] = (size as u32).to_be_bytes();
    [kind.to_wire(), c1, c0, s3, s2, s1, s0]
}

/// A heartbeat frame (section 4.2.7 of the specification).
pub(crate) const HEARTBEAT: [u8; 8] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// Splits the payload of a method frame into the ids of the method and its arguments (section 4.2.4
/// of the specification).
///
/// # Errors
/// If it is too short for the ids.
#[inline]
pub fn split_method(payload: &[u8]) -> Result<(MethodId, &[u8]), Fault> {
    let (&[c1, c0, m1, m0], arguments) = payload.split_first_chunk().ok_or(Fault::FrameTooShort)?;
    let (class, method) = (u16::from_be_bytes([c1, c0]), u16::from_be_bytes([m1, m0]));
    Ok((MethodId::new(class, method), arguments))
}

/// The payload of a content header frame (section 4.2.6.1 of the specification).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContentHeader<'a> {
    /// The class of the method.
    pub class: u16,
    /// The weight. Must be 0, which is not checked here.
    pub weight: u16,
    /// The length of the body, in bytes.
    pub body_size: u64,
    /// Property flags and values, encoded.
    pub properties: &'a [u8],
}

impl<'a> ContentHeader<'a> {
    /// Reads the payload of a content header frame. Does not check the properties.
    ///
    /// # Errors
    /// If it is too short.
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
