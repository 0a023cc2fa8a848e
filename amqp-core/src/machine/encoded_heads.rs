//! Heads of messages that are encoded once.

use core::ops::Range;

use bytes::{Bytes, BytesMut};

use super::heads::{Frames, Head, Heads, Message, fits};
use crate::{
    body::PropertyList,
    error::ApiMisuse,
    frame::{CONTENT_HEAD, FRAME_HEAD, FrameKind, put_head},
    limits::FRAME_OVERHEAD,
    method::MethodDef,
    protocol::FRAME_END,
};

/// The heads of a message, encoded, apart from the channel and the size of the body.
#[derive(Clone, Debug)]
pub(crate) struct EncodedHeads {
    /// The method frame, the content header frame, and the head of a body frame. The channel and the
    /// sizes of the body are 0.
    bytes: Bytes,
    /// The payload of the method frame, in bytes.
    method_len: usize,
    /// The payload of the content header frame, in bytes.
    header_len: usize,
    /// The larger of the two, in bytes.
    largest: usize,
    /// The name of the method.
    method: &'static str,
}

impl EncodedHeads {
    /// Encodes the heads.
    ///
    /// # Errors
    /// If a text is too long.
    pub(crate) fn new<M: MethodDef, P: PropertyList>(
        message: &Message<'_, M, P>,
    ) -> Result<Self, ApiMisuse> {
        let (method_len, header_len) = message.check(u32::MAX, u32::MAX)?;
        let heads = Heads {
            channel: 0,
            method_len,
            header_len,
            body_len: 0,
        };
        let mut bytes = BytesMut::with_capacity(heads.len() + FRAME_HEAD);
        message.put(&mut bytes, &heads, |_| ());
        put_head(&mut bytes, FrameKind::Body, 0, 0);
        Ok(Self {
            bytes: bytes.freeze(),
            method_len,
            header_len,
            largest: method_len.max(header_len),
            method: M::NAME,
        })
    }

    /// The position of the content header frame.
    #[inline]
    const fn header_at(&self) -> usize {
        self.method_len + FRAME_OVERHEAD
    }

    /// The place of the encoded properties.
    #[inline]
    const fn properties(&self) -> Range<usize> {
        let payload = self.header_at() + FRAME_HEAD;
        payload + CONTENT_HEAD..payload + self.header_len
    }

    /// Writes the channel and the size of the body into a copy of the method frame and the content
    /// header frame. `Some` if it has both.
    #[inline]
    fn patch(&self, copy: &mut [u8], channel: u16, body_len: usize) -> Option<()> {
        let number = channel.to_be_bytes();
        let (method, header) = copy.split_at_mut_checked(self.header_at())?;
        let [_, method_channel @ ..] = method.first_chunk_mut::<3>()?;
        *method_channel = number;
        let header = header.first_chunk_mut::<{ FRAME_HEAD + CONTENT_HEAD }>()?;
        let [_, h1, h0, _, _, _, _, _, _, _, _, size @ ..] = header;
        [*h1, *h0] = number;
        *size = (body_len as u64).to_be_bytes();
        Some(())
    }
}

impl Head for EncodedHeads {
    fn check(&self, frame_max: u32, header_max: u32) -> Result<(usize, usize), ApiMisuse> {
        for (len, frame_max) in [(self.method_len, frame_max), (self.header_len, header_max)] {
            if !fits(len, frame_max) {
                return Err(ApiMisuse::FrameTooLarge {
                    method: self.method,
                    len: len + FRAME_OVERHEAD,
                    frame_max,
                });
            }
        }
        Ok((self.method_len, self.header_len))
    }

    fn put(&self, out: &mut BytesMut, heads: &Heads, inspect: impl FnOnce(&[u8])) {
        let start = out.len();
        out.extend_from_slice(self.bytes.get(..heads.len()).unwrap_or_default());
        let copy = out.get_mut(start..).unwrap_or_default();
        let _whole = self.patch(copy, heads.channel, heads.body_len);
        inspect(copy.get(self.properties()).unwrap_or_default());
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
            ..
        } = frames;
        // A content header may be larger than other frames, but few are.
        if !fits(self.largest, frame_max) {
            return None;
        }
        let (copy, rest) = room.split_at_mut_checked(self.bytes.len())?;
        copy.copy_from_slice(&self.bytes);
        self.patch(copy, channel, body_len)?;
        let mut len = self.bytes.len();
        if body_len == 0 {
            len -= FRAME_HEAD;
        } else {
            let [_, body_channel @ .., _, _, _, _] = copy.last_chunk_mut::<FRAME_HEAD>()?;
            *body_channel = channel.to_be_bytes();
            // Within the frame limit, which is a `u32`.
            *copy.last_chunk_mut()? = (body_len as u32).to_be_bytes();
            if let Some(body) = body {
                let (copy, end) = rest.split_at_mut_checked(body.len())?;
                copy.copy_from_slice(body);
                *end.first_mut()? = FRAME_END;
                len += body.len() + 1;
            }
        }
        Some((len, self.properties()))
    }
}
