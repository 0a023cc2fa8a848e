//! The encoding of the frames that precede a body.

use bytes::BytesMut;

use crate::{
    body::Body,
    frame::{FrameKind, put_head},
    limits::FRAME_OVERHEAD,
    method::MethodDef,
    method_id::MethodId,
    protocol::FRAME_END,
    wire::Encode,
};

/// A method with its content.
pub(crate) struct Message<'a, M, P> {
    pub(crate) method: &'a M,
    pub(crate) properties: &'a P,
    /// Taken by the output unless it is copied.
    pub(crate) body: &'a mut Body,
    /// The sequence number among the channel's publishes in confirm mode, or 0.
    pub(crate) publish: u64,
}

/// The method frame and the content header frame (section 4.2.6 of the specification).
pub(super) struct Heads {
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

    #[inline]
    pub(super) fn put<M: MethodDef, P: Encode, T>(
        &self,
        out: &mut BytesMut,
        method: &M,
        properties: &P,
        inspect: impl FnOnce(&[u8]) -> T,
    ) -> T {
        put_method(out, self.channel, method, self.method_len);
        put_head(out, FrameKind::Header, self.channel, self.header_len);
        let [c1, c0] = M::ID.class.to_be_bytes();
        out.extend_from_slice(&[c1, c0, 0, 0]);
        out.extend_from_slice(&(self.body_len as u64).to_be_bytes());
        let start = out.len();
        properties.encode(out);
        let inspected = inspect(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&[FRAME_END]);
        inspected
    }
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
