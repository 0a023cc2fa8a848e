//! Methods with content: their frames, and the copy or the chain of the body.

use super::{Backlog, Output};
use crate::{
    body::{Body, PropertyList},
    error::ApiMisuse,
    frame::{CONTENT_HEAD, FrameKind, put_head},
    limits::FRAME_OVERHEAD,
    machine::{
        backlog::Item,
        frame_len::payload_len,
        heads::{Heads, Message, write_message},
    },
    method::MethodDef,
    protocol::FRAME_END,
    wire::Encode,
};

/// The smallest piece of a body, in bytes, that is chained instead of copied. Copying a smaller one
/// is cheaper than another segment of a vectored write.
pub(super) const CHAIN_FROM: usize = 4096;

/// The size up to which a body is written into the scratch behind its frames, and copied with them,
/// in bytes. A larger one is copied once.
const SCRATCH_BODY: usize = 64;

impl Output {
    /// Queues a method with content. Calls `inspect` with the encoded properties.
    #[inline(never)]
    pub(crate) fn put_content<M: MethodDef, P: PropertyList>(
        &mut self,
        backlog: &mut Backlog,
        channel: u16,
        message: Message<'_, M, P>,
        inspect: impl FnOnce(&[u8]),
    ) -> Result<(), ApiMisuse> {
        let scratch = &mut self.scratch;
        let body_len = message.body.len();
        if backlog.is_bypassed()
            && body_len <= self.chunk
            && let Some(written) = write_message(
                scratch,
                channel,
                &message,
                body_len,
                self.frame_max,
                self.header_max,
            )
        {
            inspect(scratch.get(written.properties).unwrap_or_default());
            self.put_written(message.body, body_len, written.len);
            return Ok(());
        }
        self.put_checked(backlog, channel, message, inspect)
    }

    /// Queues the frames that were written, of `len` bytes, and the body after them.
    #[inline]
    fn put_written(&mut self, body: &mut Body, body_len: usize, mut len: usize) {
        self.messages += 1;
        if body_len == 0 {
            self.ready_frames += 2;
            self.queued += len as u64;
            let frames = self.scratch.get(..len).unwrap_or_default();
            return self.ready.extend(frames);
        }
        self.ready_frames += 3;
        self.queued += (len + body_len + 1) as u64;
        if body_len <= SCRATCH_BODY
            && let Some(whole) = body.single()
            && let Some((room, [end, ..])) = self
                .scratch
                .get_mut(len..)
                .and_then(|left| left.split_at_mut_checked(body_len))
        {
            room.copy_from_slice(whole);
            *end = FRAME_END;
            len += body_len + 1;
            let frames = self.scratch.get(..len).unwrap_or_default();
            return self.ready.extend(frames);
        }
        let frames = self.scratch.get(..len).unwrap_or_default();
        let tail = self.ready.room(len + copied(body_len) + 1);
        tail.extend_from_slice(frames);
        self.put_body(body, body_len);
    }

    /// As `put_content`, for any message: checks its sizes, and makes room for it.
    #[cold]
    fn put_checked<M: MethodDef, P: PropertyList>(
        &mut self,
        backlog: &mut Backlog,
        channel: u16,
        message: Message<'_, M, P>,
        inspect: impl FnOnce(&[u8]),
    ) -> Result<(), ApiMisuse> {
        let method_len = self.check_frame(message.method)?;
        let header_len = self.check_header::<M>(message.properties)?;
        self.make_scratch();
        let heads = Heads {
            channel,
            method_len,
            header_len,
            body_len: message.body.len(),
        };
        let publish = message.publish;
        let body = message.body;
        self.messages += 1;
        if self.bypasses(backlog, heads.body_len) {
            let before = self.ready.len();
            let len = heads.len() + FRAME_OVERHEAD + copied(heads.body_len);
            let tail = self.ready.room(len);
            heads.put(tail, message.method, message.properties, inspect);
            if heads.body_len > 0 {
                self.put_body_frame(channel, body, heads.body_len);
                self.ready_frames += 3;
            } else {
                self.ready_frames += 2;
            }
            self.queued += (self.ready.len() - before) as u64;
            Ok(())
        } else {
            backlog.append(&mut self.backlog_buffer, self.chunk, publish, 2, |out| {
                heads.put(out, message.method, message.properties, inspect);
            });
            self.wait(backlog, heads.len() + heads.body_len);
            if heads.body_len > 0 {
                backlog.items.push_back(Item::Body(core::mem::take(body)));
            }
            self.schedule(backlog, channel);
            Ok(())
        }
    }

    /// Appends a body frame with the first `len` bytes of `body`. A body in a single small piece is
    /// copied and remains in `body`.
    pub(super) fn put_body_frame(&mut self, channel: u16, body: &mut Body, len: usize) {
        let tail = self.ready.room(FRAME_OVERHEAD + copied(len));
        put_head(tail, FrameKind::Body, channel, len);
        self.put_body(body, len);
    }

    /// Appends the first `len` bytes of `body`, and the end of the frame.
    #[inline]
    fn put_body(&mut self, body: &mut Body, len: usize) {
        let ready = &mut self.ready;
        if len < CHAIN_FROM
            && let Some(whole) = body.single().filter(|whole| whole.len() == len)
        {
            ready.extend(whole);
        } else {
            let mut left = len;
            while left > 0 {
                let piece = body.take_front(left);
                left = left.saturating_sub(piece.len().max(1));
                if piece.len() < CHAIN_FROM {
                    ready.extend(&piece);
                    self.discarded.push(piece);
                } else {
                    ready.chain(piece);
                }
            }
        }
        ready.extend(&[FRAME_END]);
    }

    /// Checks that a content header with the properties of a message of the method `M` may be sent.
    /// Returns the size of its payload, in bytes.
    fn check_header<M: MethodDef>(&self, properties: &impl Encode) -> Result<usize, ApiMisuse> {
        payload_len::<M>(CONTENT_HEAD, properties, self.header_max)
    }
}

/// The number of bytes that are copied of a body of `len` bytes in one piece.
const fn copied(len: usize) -> usize {
    if len < CHAIN_FROM { len } else { 0 }
}
