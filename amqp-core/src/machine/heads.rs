//! The encoding of method frames, and of the frames of a message up to its body: its heads.

use core::ops::Range;

use bytes::BytesMut;

use super::frame_len::payload_len;
use crate::{
    body::PropertyList,
    error::ApiMisuse,
    frame::{CONTENT_HEAD, FRAME_HEAD, FrameKind, METHOD_HEAD, frame_head, put_head},
    limits::FRAME_OVERHEAD,
    method::MethodDef,
    method_id::MethodId,
    protocol::FRAME_END,
    wire::{cursor::Cursor, put::Sink as _},
};

/// A method with content, and the properties of that content: the source of the heads of a message.
pub(crate) trait Head {
    /// Checks that the frames of the heads may be sent. Returns the sizes of their payloads, in
    /// bytes.
    fn check(&self, frame_max: u32, header_max: u32) -> Result<(usize, usize), ApiMisuse>;

    /// Appends the method frame and the content header frame, of checked sizes. Calls `inspect` with
    /// the encoded properties.
    fn put(&self, out: &mut BytesMut, heads: &Heads, inspect: impl FnOnce(&[u8]));

    /// Writes the method frame and the content header frame, and behind them the only body frame,
    /// unless the body is empty: its head alone if `body` is `None`. Returns the number of bytes, and
    /// the place of the encoded properties among them. `Some` if all of it fits into the room, and
    /// the frames into their limits.
    fn write(
        &self,
        room: &mut [u8],
        frames: &Frames,
        body: Option<&[u8]>,
    ) -> Option<(usize, Range<usize>)>;
}

/// A method and the properties of its content, to be encoded.
pub(crate) struct Message<'a, M, P> {
    pub(crate) method: &'a M,
    pub(crate) properties: &'a P,
}

/// The method frame and the content header frame (section 4.2.6 of the specification).
pub(crate) struct Heads {
    pub(super) channel: u16,
    /// The payload of the method frame, in bytes.
    pub(super) method_len: usize,
    /// The payload of the content header frame, in bytes.
    pub(super) header_len: usize,
    /// The body, in bytes.
    pub(super) body_len: usize,
}

impl Heads {
    pub(super) const fn len(&self) -> usize {
        self.method_len + self.header_len + 2 * FRAME_OVERHEAD
    }
}

/// The frames of a message to be written, and their limits.
pub(crate) struct Frames {
    pub(super) channel: u16,
    /// The body, in bytes, within the limit of a frame.
    pub(super) body_len: usize,
    /// The limit of a frame, in bytes.
    pub(super) frame_max: u32,
    /// The limit of a frame with a content header, in bytes; at least `frame_max`.
    pub(super) header_max: u32,
}

impl<M: MethodDef, P: PropertyList> Head for Message<'_, M, P> {
    fn check(&self, frame_max: u32, header_max: u32) -> Result<(usize, usize), ApiMisuse> {
        let method_len = payload_len::<M>(METHOD_HEAD, self.method, frame_max)?;
        let header_len = payload_len::<M>(CONTENT_HEAD, self.properties, header_max)?;
        Ok((method_len, header_len))
    }

    fn put(&self, out: &mut BytesMut, heads: &Heads, inspect: impl FnOnce(&[u8])) {
        put_method(out, heads.channel, self.method, heads.method_len);
        put_head(out, FrameKind::Header, heads.channel, heads.header_len);
        let [c1, c0] = M::ID.class.to_be_bytes();
        out.extend_from_slice(&[c1, c0, 0, 0]);
        out.extend_from_slice(&(heads.body_len as u64).to_be_bytes());
        let start = out.len();
        self.properties.encode(out);
        inspect(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&[FRAME_END]);
    }

    #[inline(always)]
    fn write(
        &self,
        room: &mut [u8],
        frames: &Frames,
        body: Option<&[u8]>,
    ) -> Option<(usize, Range<usize>)> {
        let &Frames {
            channel,
            body_len,
            frame_max,
            header_max,
        } = frames;
        let size = room.len();
        let mut out = Cursor::new(room);
        let method = begin_method::<M>(&mut out, self.method)?;
        let header = out.gap::<{ 1 + FRAME_HEAD + CONTENT_HEAD }>()?;
        let start = size - out.left();
        out.apart(|out| self.properties.put(out));
        let end = size - out.left();
        if body_len == 0 {
            out.array([FRAME_END]);
        } else {
            let [t, c1, c0, s3, s2, s1, s0] = frame_head(FrameKind::Body, channel, body_len);
            out.array([FRAME_END, t, c1, c0, s3, s2, s1, s0]);
            if let Some(body) = body {
                out.slice(body);
                out.array([FRAME_END]);
            }
        }
        let header_len = CONTENT_HEAD + (end - start);
        if !out.is_complete() || !fits(method.len, frame_max) || !fits(header_len, header_max) {
            return None;
        }
        let len = size - out.left();
        method.end::<M>(channel);
        let [t, c1, c0, s3, s2, s1, s0] = frame_head(FrameKind::Header, channel, header_len);
        let [k1, k0] = M::ID.class.to_be_bytes();
        let [b7, b6, b5, b4, b3, b2, b1, b0] = (body_len as u64).to_be_bytes();
        *header = [
            FRAME_END, t, c1, c0, s3, s2, s1, s0, k1, k0, 0, 0, b7, b6, b5, b4, b3, b2, b1, b0,
        ];
        Some((len, start..end))
    }
}

/// Writes a method frame. Returns the number of bytes; `Some` if they fit into the room, and into
/// the limit of a frame.
#[inline]
pub(super) fn write_method<M: MethodDef>(
    room: &mut [u8],
    channel: u16,
    method: &M,
    frame_max: u32,
) -> Option<usize> {
    let size = room.len();
    let mut out = Cursor::new(room);
    let begun = begin_method::<M>(&mut out, method)?;
    out.array([FRAME_END]);
    if !out.is_complete() || !fits(begun.len, frame_max) {
        return None;
    }
    let len = size - out.left();
    begun.end::<M>(channel);
    Some(len)
}

/// A method frame whose head is still to be written.
struct BegunMethod<'a> {
    head: &'a mut [u8; FRAME_HEAD + METHOD_HEAD],
    /// The payload, in bytes.
    len: usize,
}

#[inline(always)]
fn begin_method<'a, M: MethodDef>(out: &mut Cursor<'a>, method: &M) -> Option<BegunMethod<'a>> {
    let head = out.gap()?;
    let before = out.left();
    method.put(out);
    let len = METHOD_HEAD + (before - out.left());
    Some(BegunMethod { head, len })
}

impl BegunMethod<'_> {
    #[inline]
    fn end<M: MethodDef>(self, channel: u16) {
        let [t, c1, c0, s3, s2, s1, s0] = frame_head(FrameKind::Method, channel, self.len);
        let [k1, k0] = M::ID.class.to_be_bytes();
        let [m1, m0] = M::ID.method.to_be_bytes();
        *self.head = [t, c1, c0, s3, s2, s1, s0, k1, k0, m1, m0];
    }
}

/// Whether a frame with a payload of `len` bytes, which are in memory, is within the limit.
#[inline]
pub(super) const fn fits(len: usize, frame_max: u32) -> bool {
    (len + FRAME_OVERHEAD) as u64 <= frame_max as u64
}

#[inline]
pub(super) fn put_method<M: MethodDef>(out: &mut BytesMut, channel: u16, method: &M, len: usize) {
    let MethodId { class, method: id } = M::ID;
    out.reserve(len + FRAME_OVERHEAD);
    put_head(out, FrameKind::Method, channel, len);
    let [c1, c0] = class.to_be_bytes();
    let [m1, m0] = id.to_be_bytes();
    out.extend_from_slice(&[c1, c0, m1, m0]);
    method.encode(out);
    out.extend_from_slice(&[FRAME_END]);
}
