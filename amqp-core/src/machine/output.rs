//! What leaves, and in which order.
//!
//! Three lanes lead to the transport. `urgent` holds what concerns the connection: the handshake,
//! heartbeats, closing for a fault. `ready` holds whole frames of all channels in the order of the
//! calls that made them. What does not fit into one frame, and whatever its channel says after it,
//! waits in that channel's [`Backlog`], and the channels that have one take turns by the frame. So
//! the order within a channel is strict, and a message of a gigabyte delays another channel by one
//! frame. `last` holds the close that was asked for: it leaves when everything else has left.
//!
//! ```text
//!  urgent ──────────────────────────┐
//!  ready ───────────────────────────┤ all of it, at each call
//!  backlog 1 ─┐                     ├──> transport
//!  backlog 2 ─┼─ ring, by the frame ┘ one turn at each call, and as many bytes as of the ready lane
//!  backlog n ─┘
//! ```
//!
//! The lanes are bounded apart, so that neither keeps publishes from the other: the ready lane by
//! `output_high`, each backlog by the same, all backlogs by `output_backlog`.

use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};
use core::fmt;

use bytes::{Bytes, BytesMut};

pub(crate) use super::backlog::Backlog;
use super::{
    backlog::Item,
    heads::{Heads, Message, put_method},
};
use crate::{
    body::Body,
    error::{ApiMisuse, Hold},
    frame::{CONTENT_HEAD, FrameKind, HEARTBEAT, put_head},
    limits::{FRAME_OVERHEAD, Limits, Tuning},
    method::MethodDef,
    protocol::FRAME_END,
    transmit::{Segments, Transmit},
    wire::Encode,
};

/// From this size on, in bytes, a piece of a body is chained instead of copied. Copying a smaller
/// one costs less than the extra segment of a vectored write.
const CHAIN_FROM: usize = 4096;

/// About how many bytes one call hands out if less than half of it is ready, so that what waits
/// stays here, where it is counted and can still be dropped. Of more, half is of the backlogs.
const TRANSMIT_BUDGET: usize = 256 << 10;

/// An idle connection keeps no buffer larger than this, in bytes.
const IDLE_BUFFER: usize = 4096;

/// How many bytes of answers may wait that only the peer asked for, and nobody here. A peer that
/// listens has none waiting for long; the answers to a close of all channels there can be are 1 MiB.
const MAX_UNREAD_ANSWERS: usize = 4 << 20;

/// The class and method numbers at the front of a method frame's payload, in bytes.
const METHOD_HEAD: usize = 4;

pub(crate) struct Output {
    urgent: BytesMut,
    ready: Segments,
    /// The channels whose backlog may send, in the order of their turns.
    ring: VecDeque<u16>,
    /// The channels that have a backlog and must be silent.
    corked: BTreeSet<u16>,
    last: BytesMut,
    /// What waits in all backlogs, in bytes: the sum of their lengths.
    waiting: usize,
    /// How many bytes of the ready lane are requests.
    requests: usize,
    /// How many bytes were ever put into `ready`.
    queued: u64,
    /// How many bytes ever left `ready`.
    moved: u64,
    /// How many bytes of answers were queued since the output last stood at `answers_gone`.
    answers: usize,
    /// Where the output stands when all that waited before those answers has left.
    answers_gone: u64,
    /// The pieces of bodies that were copied, or will not be sent: their destructors are the
    /// application's, and may not run in the middle of a call.
    discarded: Vec<Bytes>,
    /// The largest frame, in bytes.
    frame_max: u32,
    /// A content header may be larger.
    large_headers: bool,
    /// How many body bytes go into a frame, at least 1.
    chunk: usize,
}

/// Secrets may be among the bytes, so these are not shown.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("urgent", &self.urgent.len())
            .field("ready", &self.ready)
            .field("ring", &self.ring)
            .field("corked", &self.corked)
            .field("last", &self.last.len())
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

/// What a turn of a channel's backlog has sent.
pub(crate) struct Turn {
    /// How many bytes.
    pub(crate) len: usize,
    /// The last publish whose first frame left; 0 for none.
    pub(crate) last_publish: u64,
}

impl Output {
    pub(crate) fn new(limits: &Limits, large_headers: bool) -> Self {
        let mut output = Self {
            urgent: BytesMut::new(),
            ready: Segments::default(),
            ring: VecDeque::new(),
            corked: BTreeSet::new(),
            last: BytesMut::new(),
            waiting: 0,
            requests: 0,
            queued: 0,
            moved: 0,
            answers: 0,
            answers_gone: 0,
            discarded: Vec::new(),
            frame_max: 0,
            large_headers,
            chunk: 1,
        };
        output.set_tuning(&Tuning::BEFORE, limits);
        output
    }

    pub(crate) fn set_tuning(&mut self, tuning: &Tuning, limits: &Limits) {
        self.frame_max = tuning.frame_max;
        self.chunk = tuning.chunk(limits).max(1);
    }

    /// How many bytes wait to be handed out.
    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.ready.len() + self.waiting + self.last.len()
    }

    /// How many bytes wait in the urgent and in the ready lane.
    pub(crate) fn ready_len(&self) -> usize {
        self.urgent.len() + self.ready.len()
    }

    /// How many bytes wait in all backlogs.
    pub(crate) const fn backlog_len(&self) -> usize {
        self.waiting
    }

    /// What keeps a publish with a body of that many bytes from being accepted.
    #[inline]
    pub(crate) fn hold(&self, backlog: &Backlog, body_len: usize, limits: &Limits) -> Option<Hold> {
        if self.bypasses(backlog, body_len) {
            (self.ready_len() >= limits.output_high).then_some(Hold::OutputFull)
        } else if backlog.len() >= limits.output_high {
            Some(Hold::ChannelBacklogFull)
        } else {
            (self.waiting >= limits.output_backlog).then_some(Hold::BacklogFull)
        }
    }

    /// Whether a message goes to the lane of ready frames.
    #[inline]
    pub(crate) fn bypasses(&self, backlog: &Backlog, body_len: usize) -> bool {
        backlog.is_bypassed() && body_len <= self.chunk
    }

    /// Checks that another request may wait behind those that do, in the lane that it would go to.
    pub(crate) fn check_requests(
        &self,
        backlog: Option<&Backlog>,
        limits: &Limits,
    ) -> Result<(), ApiMisuse> {
        let buffered = backlog
            .filter(|backlog| !backlog.is_bypassed())
            .map_or(self.requests, |backlog| backlog.requests);
        let limit = limits.unsent_requests;
        if buffered > limit {
            return Err(ApiMisuse::TooManyUnsent { buffered, limit });
        }
        Ok(())
    }

    /// The channels that have a backlog; one that has ended may be among them.
    pub(crate) fn backlogged(&self) -> impl Iterator<Item = u16> + '_ {
        self.ring.iter().chain(&self.corked).copied()
    }

    /// Whether a call would hand out anything now.
    pub(crate) fn has_transmit(&self) -> bool {
        !self.urgent.is_empty()
            || !self.ready.is_empty()
            || !self.ring.is_empty()
            || (!self.last.is_empty() && self.waiting == 0)
    }

    /// Where the next byte of the ready lane will stand in all that ever passed through it.
    pub(crate) const fn position(&self) -> u64 {
        self.queued
    }

    /// Whether the urgent lane, and the ready lane up to that position, were handed out.
    pub(crate) fn is_past(&self, position: u64) -> bool {
        self.urgent.is_empty() && self.moved >= position
    }

    /// How much of the ready lane was handed out: a position below this one has left.
    pub(crate) const fn handed_out(&self) -> u64 {
        self.moved
    }

    /// The protocol header, raw.
    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.urgent.extend_from_slice(bytes);
    }

    pub(crate) fn put_heartbeat(&mut self) {
        self.urgent.extend_from_slice(&HEARTBEAT);
    }

    /// Queues a method of the connection before everything else.
    pub(crate) fn put_urgent<M: MethodDef>(&mut self, method: &M) -> Result<(), ApiMisuse> {
        let len = self.check_frame::<M>(METHOD_HEAD + method.encoded_len())?;
        put_method(&mut self.urgent, 0, method, len);
        Ok(())
    }

    /// Queues a method of the connection behind all frames that are ready.
    pub(crate) fn put_behind<M: MethodDef>(&mut self, method: &M) -> Result<(), ApiMisuse> {
        let len = self.check_frame::<M>(METHOD_HEAD + method.encoded_len())?;
        put_method(self.ready.tail(), 0, method, len);
        self.queued += (len + FRAME_OVERHEAD) as u64;
        Ok(())
    }

    /// Queues the method that ends the connection, behind everything else.
    pub(crate) fn put_last<M: MethodDef>(&mut self, method: &M) {
        put_method(
            &mut self.last,
            0,
            method,
            METHOD_HEAD + method.encoded_len(),
        );
    }

    /// Queues a method of a channel; how many bytes it is.
    pub(crate) fn put_method<M: MethodDef>(
        &mut self,
        backlog: &mut Backlog,
        channel: u16,
        method: &M,
    ) -> Result<usize, ApiMisuse> {
        let len = self.check_frame::<M>(METHOD_HEAD + method.encoded_len())?;
        let size = len + FRAME_OVERHEAD;
        if backlog.is_bypassed() {
            put_method(self.ready.tail(), channel, method, len);
            self.queued += size as u64;
        } else {
            backlog.append(self.chunk, 0, |out| put_method(out, channel, method, len));
            self.wait(backlog, size);
            self.join_ring(backlog, channel);
        }
        Ok(size)
    }

    /// Queues a request of a channel, which counts among those that wait.
    pub(crate) fn put_request<M: MethodDef>(
        &mut self,
        backlog: &mut Backlog,
        channel: u16,
        method: &M,
    ) -> Result<(), ApiMisuse> {
        let size = self.put_method(backlog, channel, method)?;
        if let Some(Item::Frames(frames)) = backlog.items.back_mut() {
            frames.requests += size;
            backlog.requests += size;
        } else {
            self.requests += size;
        }
        Ok(())
    }

    /// Counts an answer that was just queued, of that many bytes. False if too much of the kind
    /// waits: the peer asks on and on, and does not listen.
    pub(crate) fn count_answer(&mut self, len: usize) -> bool {
        if self.moved >= self.answers_gone {
            self.answers = 0;
            self.answers_gone = self.queued + self.waiting as u64;
        }
        self.answers += len;
        self.answers <= MAX_UNREAD_ANSWERS
    }

    /// Queues a method of a channel that is written out: its numbers and its arguments.
    pub(crate) fn put_raw_method(&mut self, backlog: &mut Backlog, channel: u16, payload: &[u8]) {
        let put = |out: &mut BytesMut| {
            put_head(out, FrameKind::Method, channel, payload.len());
            out.extend_from_slice(payload);
            out.extend_from_slice(&[FRAME_END]);
        };
        let size = payload.len() + FRAME_OVERHEAD;
        if backlog.is_bypassed() {
            put(self.ready.tail());
            self.queued += size as u64;
        } else {
            backlog.append(self.chunk, 0, put);
            self.wait(backlog, size);
            self.join_ring(backlog, channel);
        }
    }

    /// Queues a method with content. `publish` is its number among the channel's publishes, or 0.
    /// Gives back the properties' bytes as `inspect` made of them.
    pub(crate) fn put_content<M: MethodDef, P: Encode, T>(
        &mut self,
        backlog: &mut Backlog,
        channel: u16,
        message: Message<'_, M, P>,
        inspect: impl FnOnce(&[u8]) -> T,
    ) -> Result<T, ApiMisuse> {
        let method_len = self.check_frame::<M>(METHOD_HEAD + message.method.encoded_len())?;
        let header_len = self.check_header::<M>(CONTENT_HEAD + message.properties.encoded_len())?;
        let heads = Heads {
            channel,
            method_len,
            header_len,
            body_len: message.body.len(),
        };
        let publish = message.publish;
        let body = message.body;
        if self.bypasses(backlog, heads.body_len) {
            let before = self.ready.len();
            let tail = self.ready.tail();
            tail.reserve(heads.len() + (FRAME_OVERHEAD + heads.body_len).min(CHAIN_FROM));
            let inspected = heads.put(tail, message.method, message.properties, inspect);
            if heads.body_len > 0 {
                self.put_body_frame(channel, body, heads.body_len);
            }
            self.queued += (self.ready.len() - before) as u64;
            Ok(inspected)
        } else {
            let inspected = backlog.append(self.chunk, publish, |out| {
                heads.put(out, message.method, message.properties, inspect)
            });
            self.wait(backlog, heads.len() + heads.body_len);
            if heads.body_len > 0 {
                backlog.items.push_back(Item::Body(core::mem::take(body)));
            }
            self.join_ring(backlog, channel);
            Ok(inspected)
        }
    }

    /// Lets nothing more of a channel out than what is queued already.
    pub(crate) fn cork(backlog: &mut Backlog) {
        if backlog.items.is_empty() {
            backlog.held = true;
        } else {
            backlog.items.push_back(Item::Hold);
        }
    }

    /// Lets a channel go on, where it is held or the next time that it would be.
    pub(crate) fn release(&mut self, backlog: &mut Backlog, channel: u16) {
        if core::mem::take(&mut backlog.held) {
            self.corked.remove(&channel);
        } else {
            let hold = |item: &Item| matches!(item, Item::Hold);
            if let Some(at) = backlog.items.iter().position(hold) {
                backlog.items.remove(at);
            }
        }
        if !backlog.items.is_empty() {
            self.join_ring(backlog, channel);
        }
    }

    /// Drops what a channel has not begun to send. A message that was begun is finished: the peer
    /// would take anything else in its place for a fault of the connection.
    pub(crate) fn trim(&mut self, backlog: &mut Backlog, channel: u16) {
        let mut dropped = core::mem::take(&mut backlog.items);
        if let Some(Item::Body(_)) = dropped.front() {
            backlog.items.extend(dropped.pop_front());
        }
        let len: usize = dropped.iter().map(Item::len).sum();
        self.leave(backlog, len);
        self.discard_items(dropped);
        backlog.requests = 0;
        self.release(backlog, channel);
    }

    /// Drops everything, and lets nothing but urgent frames out from now on.
    pub(crate) fn abort(&mut self) {
        self.ready.clear(&mut self.discarded);
        self.ring = VecDeque::new();
        self.corked = BTreeSet::new();
        self.last = BytesMut::new();
        self.waiting = 0;
        self.requests = 0;
    }

    /// Drops everything.
    pub(crate) fn clear(&mut self) {
        self.abort();
        self.urgent = BytesMut::new();
    }

    /// Drops a backlog whose channel has ended.
    pub(crate) fn discard(&mut self, backlog: Backlog) {
        self.discard_items(backlog.items);
    }

    fn discard_items(&mut self, items: VecDeque<Item>) {
        for item in items {
            if let Item::Body(body) = item {
                self.discard_body(body);
            }
        }
    }

    fn discard_body(&mut self, body: Body) {
        self.discarded.extend(body.into_pieces());
    }

    /// The pieces of bodies that were copied, or will not be sent.
    pub(crate) fn take_discarded(&mut self) -> Vec<Bytes> {
        core::mem::take(&mut self.discarded)
    }

    /// Appends a body frame with the first `len` bytes of `body`. A body in one small piece stays
    /// where it is.
    #[inline]
    fn put_body_frame(&mut self, channel: u16, body: &mut Body, len: usize) {
        let ready = &mut self.ready;
        if len < CHAIN_FROM {
            ready.tail().reserve(len + FRAME_OVERHEAD);
        }
        put_head(ready.tail(), FrameKind::Body, channel, len);
        if len < CHAIN_FROM
            && let Some(whole) = body.single().filter(|whole| whole.len() == len)
        {
            ready.tail().extend_from_slice(whole);
        } else {
            let mut left = len;
            while left > 0 {
                let piece = body.take_front(left);
                left = left.saturating_sub(piece.len().max(1));
                if piece.len() < CHAIN_FROM {
                    ready.tail().extend_from_slice(&piece);
                    self.discarded.push(piece);
                } else {
                    ready.chain(piece);
                }
            }
        }
        ready.tail().extend_from_slice(&[FRAME_END]);
    }

    /// Drops the close that was asked for.
    pub(crate) fn cancel_last(&mut self) {
        self.last = BytesMut::new();
    }

    /// Hands out the urgent and the ready frames.
    pub(crate) fn take_ready(&mut self, out: &mut Transmit) {
        if !self.urgent.is_empty() {
            out.push(self.urgent.split().freeze());
        }
        self.ready.move_into(out);
        self.moved = self.queued;
        self.requests = 0;
    }

    /// Hands out the close that was asked for, when nothing waits before it.
    pub(crate) fn take_last(&mut self, out: &mut Transmit) -> bool {
        let due = !self.last.is_empty() && self.waiting == 0 && self.ready.is_empty();
        if due {
            out.push(core::mem::take(&mut self.last).freeze());
        }
        due
    }

    /// How many bytes of backlogs to put behind that many others in one call: at least as many, so
    /// that neither lane starves the other one.
    pub(crate) const fn share(handed_out: usize) -> usize {
        match TRANSMIT_BUDGET.checked_sub(handed_out) {
            Some(rest) if rest > handed_out => rest,
            Some(_) | None => handed_out,
        }
    }

    /// Whose turn it is, none if nobody waits.
    pub(crate) fn pop_turn(&mut self) -> Option<u16> {
        self.ring.pop_front()
    }

    /// Sends one frame, or one run of small frames, of the channel whose turn it is.
    pub(crate) fn take_turn(&mut self, backlog: &mut Backlog, channel: u16) -> Turn {
        backlog.ringed = false;
        let mut turn = Turn {
            len: 0,
            last_publish: 0,
        };
        if backlog.held {
            return turn;
        }
        let before = self.ready.len();
        match backlog.items.pop_front() {
            Some(Item::Frames(frames)) => {
                self.leave(backlog, frames.bytes.len());
                backlog.requests -= frames.requests.min(backlog.requests);
                turn.last_publish = frames.last_publish;
                self.ready.append(frames.bytes);
            }
            Some(Item::Body(mut body)) => {
                let len = body.len().min(self.chunk);
                let last = len == body.len();
                self.leave(backlog, len);
                self.put_body_frame(channel, &mut body, len);
                if last {
                    self.discard_body(body);
                } else {
                    backlog.items.push_front(Item::Body(body));
                }
            }
            Some(Item::Hold) => backlog.held = true,
            None => {}
        }
        turn.len = self.ready.len() - before;
        self.queued += turn.len as u64;
        if !backlog.items.is_empty() {
            self.join_ring(backlog, channel);
        }
        turn
    }

    /// Gives back what an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        if self.urgent.is_empty() {
            self.urgent = BytesMut::new();
        }
        self.ready.shrink(IDLE_BUFFER);
    }

    /// So many bytes more wait in a backlog.
    fn wait(&mut self, backlog: &mut Backlog, len: usize) {
        self.waiting += len;
        backlog.put += len as u64;
    }

    /// So many bytes do not wait in a backlog any more.
    fn leave(&mut self, backlog: &mut Backlog, len: usize) {
        self.waiting = self.waiting.saturating_sub(len);
        backlog.left += len as u64;
    }

    /// Puts a channel that has a backlog to those that wait for their turn, or must not have one.
    fn join_ring(&mut self, backlog: &mut Backlog, channel: u16) {
        if backlog.held {
            self.corked.insert(channel);
        } else if !backlog.ringed {
            backlog.ringed = true;
            self.ring.push_back(channel);
        }
    }

    /// Checks that a payload of that many bytes fits into a frame.
    fn check_frame<M: MethodDef>(&self, payload: usize) -> Result<usize, ApiMisuse> {
        check_len::<M>(payload, self.frame_max)
    }

    /// Checks that a content header of that many bytes may leave.
    fn check_header<M: MethodDef>(&self, payload: usize) -> Result<usize, ApiMisuse> {
        let frame_max = if self.large_headers {
            u32::MAX
        } else {
            self.frame_max
        };
        check_len::<M>(payload, frame_max)
    }
}

fn check_len<M: MethodDef>(payload: usize, frame_max: u32) -> Result<usize, ApiMisuse> {
    let len = payload + FRAME_OVERHEAD;
    if len as u64 > u64::from(frame_max) {
        return Err(ApiMisuse::FrameTooLarge {
            method: M::NAME,
            len,
            frame_max,
        });
    }
    Ok(payload)
}
