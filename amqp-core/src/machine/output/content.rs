//! Methods with content: their frames, and the copy or the chain of the body.

use core::ops::Range;

use super::{Backlog, Lane, Output};
use crate::{
    body::Body,
    error::ApiMisuse,
    frame::{FrameKind, put_head},
    limits::FRAME_OVERHEAD,
    machine::{
        backlog::Item,
        heads::{Frames, Head, Heads},
    },
    protocol::FRAME_END,
};

/// The smallest piece of a body, in bytes, that is chained instead of copied. Copying a smaller one
/// is cheaper than another segment of a vectored write.
pub(crate) const CHAIN_FROM: usize = 4096;

/// The largest body that is written together with the frames before it, in bytes: the memory in which
/// they are written has been cleared.
const SMALL_BODY: usize = 128;

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
    /// Queues a method with content, and a copy of its body. `None`, of which nothing is queued, if it
    /// does not fit into the window of the output, or into its frames.
    #[inline(always)]
    pub(crate) fn put_copy(&mut self, channel: u16, head: &impl Head, body: &[u8]) -> Option<()> {
        let size = body.len();
        let small = Some(body).filter(|_| size <= SMALL_BODY);
        let frames = self.frames(channel, size);
        let (len, _) = head.write(self.ready.window()?, &frames, small)?;
        self.ready.advance(len);
        self.messages += 1;
        self.ready_frames += 2 + u64::from(size > 0);
        self.queued += len as u64;
        if small.is_none() {
            self.ready.extend(body);
            self.ready.extend(&[FRAME_END]);
            self.queued += (size + 1) as u64;
        }
        Some(())
    }

    /// Writes the frames of a message up to its body into the window of the output. Returns their
    /// size, in bytes, and the place of the encoded properties in them. `Some` if there is room.
    #[inline(never)]
    fn write_heads(
        &mut self,
        channel: u16,
        head: &impl Head,
        body_len: usize,
    ) -> Option<(usize, Range<usize>)> {
        let frames = self.frames(channel, body_len);
        let written = head.write(self.ready.window()?, &frames, None)?;
        self.ready.advance(written.0);
        Some(written)
    }

    /// Widens the window of the output for [`put_copy`](Self::put_copy). Returns `false` if it is wide
    /// enough for most messages.
    pub(crate) fn widen(&mut self) -> bool {
        self.ready.widen()
    }

    /// A message to write, with a body of `body_len` bytes.
    #[inline]
    const fn frames(&self, channel: u16, body_len: usize) -> Frames {
        Frames {
            channel,
            body_len,
            frame_max: self.frame_max,
            header_max: self.header_max,
        }
    }

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
        let mut written = None;
        if lane == Lane::Ready {
            written = self.write_heads(channel, head, body_len);
            while written.is_none() && self.ready.widen() {
                written = self.write_heads(channel, head, body_len);
            }
        }
        if let Some((len, properties)) = written {
            inspect(self.ready.written(len).get(properties).unwrap_or_default());
            self.messages += 1;
            if body_len == 0 {
                self.ready_frames += 2;
                self.queued += len as u64;
            } else {
                self.ready_frames += 3;
                self.queued += (len + body_len + 1) as u64;
                self.put_body(body, body_len);
            }
            return Ok(());
        }
        self.put_checked(route, backlog, head, body, inspect)
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
            self.ready
                .append(len, |tail| head.put(tail, &heads, inspect));
            if heads.body_len > 0 {
                self.put_body_frame(channel, body, heads.body_len);
                self.ready_frames += 3;
            } else {
                self.ready_frames += 2;
            }
            self.queued += (self.ready.len() - before) as u64;
            Ok(())
        } else {
            let queue = backlog.open(&mut self.spare_queue);
            queue.append(&mut self.backlog_buffer, self.chunk, publish, 2, |out| {
                head.put(out, &heads, inspect);
            });
            if heads.body_len > 0 {
                queue.items.push_back(Item::Body(core::mem::take(body)));
            }
            self.wait(queue, channel, heads.len() + heads.body_len);
            Ok(())
        }
    }

    /// Appends a body frame with the first `len` bytes of `body`. A body in a single small piece is
    /// copied and remains in `body`.
    pub(super) fn put_body_frame(&mut self, channel: u16, body: &mut Body, len: usize) {
        let size = FRAME_OVERHEAD + copied(len);
        self.ready.append(size, |tail| {
            put_head(tail, FrameKind::Body, channel, len);
        });
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
