//! Methods with content: their frames, and the copy or the chain of the body.

use super::{Backlog, Lane, Output};
use crate::{
    body::Body,
    error::ApiMisuse,
    frame::{FrameKind, put_head},
    limits::FRAME_OVERHEAD,
    machine::{
        backlog::Item,
        heads::{Head, Heads},
    },
    protocol::FRAME_END,
};

/// The smallest piece of a body, in bytes, that is chained instead of copied. Copying a smaller one
/// is cheaper than another segment of a vectored write.
pub(super) const CHAIN_FROM: usize = 4096;

/// The size up to which a body is written into the scratch behind its frames, and copied with them,
/// in bytes. A larger one is copied once.
const SCRATCH_BODY: usize = 64;

/// The way of a message through the output.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Route {
    pub(crate) lane: Lane,
    /// The number of the channel.
    pub(crate) channel: u16,
    /// The size of the body, in bytes.
    pub(crate) body_len: usize,
    /// The sequence number among the channel's publishes in confirm mode, or 0.
    pub(crate) publish: u64,
}

impl Output {
    /// Queues a method with content. The body is taken unless it is copied. Calls `inspect` with the
    /// encoded properties.
    #[inline]
    pub(crate) fn put_content(
        &mut self,
        route: Route,
        backlog: &mut Backlog,
        head: &impl Head,
        body: &mut Body,
        inspect: impl FnOnce(&[u8]),
    ) -> Result<(), ApiMisuse> {
        let Route {
            lane,
            channel,
            body_len,
            ..
        } = route;
        let (frame_max, header_max) = (self.frame_max, self.header_max);
        let scratch = &mut self.scratch;
        if lane == Lane::Ready
            && let Some(written) = head.write(scratch, channel, body_len, frame_max, header_max)
        {
            inspect(scratch.get(written.properties).unwrap_or_default());
            self.put_written(body, body_len, written.len);
            return Ok(());
        }
        self.put_checked(route, backlog, head, body, inspect)
    }

    /// Queues the frames that were written, of `len` bytes, and the body after them.
    #[inline(always)]
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
    #[inline(never)]
    fn put_checked(
        &mut self,
        route: Route,
        backlog: &mut Backlog,
        head: &impl Head,
        body: &mut Body,
        inspect: impl FnOnce(&[u8]),
    ) -> Result<(), ApiMisuse> {
        let (method_len, header_len) = head.check(self.frame_max, self.header_max)?;
        self.make_scratch();
        let Route {
            lane,
            channel,
            body_len,
            publish,
        } = route;
        let heads = Heads {
            channel,
            method_len,
            header_len,
            body_len,
        };
        self.messages += 1;
        if lane == Lane::Ready {
            let before = self.ready.len();
            let len = heads.len() + FRAME_OVERHEAD + copied(heads.body_len);
            let tail = self.ready.room(len);
            head.put(tail, &heads, inspect);
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
                head.put(out, &heads, inspect);
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
}

/// The number of bytes that are copied of a body of `len` bytes in one piece.
const fn copied(len: usize) -> usize {
    if len < CHAIN_FROM { len } else { 0 }
}
