//! The output queue, and the order in which frames are handed out.
//!
//! Three lanes lead to the transport. `urgent` holds frames of the connection: the handshake,
//! heartbeats, a close for a fault. `ready` holds complete frames of all channels in the order of
//! the calls that queued them. A message that does not fit into one frame, and all later frames of
//! its channel, are queued in that channel's [`Backlog`]; the channels with a backlog take turns by
//! the frame (round-robin). The order within a channel is therefore strict (section 4.7 of the
//! specification), and a message of a gigabyte delays another channel by one frame. `last` holds a
//! requested close: it is handed out after all other output.
//!
//! ```text
//!  urgent ──────────────────────────┐
//!  ready ───────────────────────────┤ completely, at each call
//!  backlog 1 ─┐                     ├──> transport
//!  backlog 2 ─┼─ ring, by the frame ┘ at least one turn per call, and as many bytes as of `ready`
//!  backlog n ─┘
//! ```
//!
//! The lanes are bounded separately, so that none blocks publishes of another: the ready lane and
//! each backlog by `output_high`, all backlogs together by `output_backlog`.

mod content;

use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};
use core::fmt;

use bytes::{Bytes, BytesMut};

pub(crate) use self::content::{CHAIN_FROM, Route};
pub(crate) use super::backlog::Backlog;
use super::{
    backlog::{Item, Queue, Spare},
    frame_len::payload_len,
    heads::{put_method, write_method},
};
use crate::{
    body::Body,
    error::{ApiMisuse, Hold},
    frame::{FrameKind, HEARTBEAT, METHOD_HEAD, put_head},
    limits::{FRAME_OVERHEAD, Limits, Tuning},
    method::MethodDef,
    protocol::FRAME_END,
    transmit::{Segments, Transmit},
};

/// The approximate number of bytes that one call hands out if less than half of it is in the ready
/// lane: the rest stays in the backlogs, where it is counted and can still be dropped. If more is
/// ready, the backlogs provide half of the output.
const TRANSMIT_BUDGET: usize = 256 << 10;

/// The largest buffer that an idle connection keeps, in bytes.
const IDLE_BUFFER: usize = 4096;

/// The maximum size of unread answers to requests of the peer, in bytes. A peer that reads never
/// has that many queued: the answers to the closes of all possible channels are 1 MiB.
const MAX_UNREAD_ANSWERS: usize = 4 << 20;

pub(crate) struct Output {
    urgent: BytesMut,
    ready: Segments,
    /// An empty buffer for the next frames of a backlog.
    backlog_buffer: BytesMut,
    spare_queue: Spare,
    /// The channels with a backlog that may send, in round-robin order.
    round_robin: VecDeque<u16>,
    /// The channels with a backlog that is held.
    corked: BTreeSet<u16>,
    last: BytesMut,
    /// The size of all backlogs, in bytes.
    waiting: usize,
    /// The size of the requests in the ready lane, in bytes.
    requests: usize,
    /// The total number of bytes ever put into `ready`.
    queued: u64,
    /// The total number of bytes ever taken from `ready`.
    moved: u64,
    /// The number of messages ever queued.
    messages: u64,
    /// The number of frames in the urgent lane.
    urgent_frames: u64,
    /// The number of frames in the ready lane.
    ready_frames: u64,
    /// The size of the answers queued since the output last reached `reply_watermark`, in bytes.
    answers: usize,
    /// The position of the output at which everything queued before those answers has been handed
    /// out.
    reply_watermark: u64,
    /// The pieces of bodies that were copied or will not be sent. Their destructors belong to the
    /// application and must not run in the middle of a call.
    discarded: Vec<Bytes>,
    /// The frame limit, in bytes.
    frame_max: u32,
    /// Whether a content header may exceed `frame_max`.
    large_headers: bool,
    /// The limit of a frame with a content header, in bytes.
    header_max: u32,
    /// The number of body bytes per frame, at least 1.
    chunk: usize,
}

/// Prints lengths only: the bytes may contain secrets.
impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("urgent", &self.urgent.len())
            .field("ready", &self.ready)
            .field("round_robin", &self.round_robin)
            .field("corked", &self.corked)
            .field("last", &self.last.len())
            .field("waiting", &self.waiting)
            .finish_non_exhaustive()
    }
}

/// The lane that a message goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lane {
    /// With the next output.
    Ready,
    /// Behind the backlog of its channel, or in several frames.
    Backlog,
}

/// The output of one turn of a channel.
pub(crate) struct Turn {
    /// The number of bytes.
    pub(crate) len: usize,
    /// The last publish with its first frame in this turn; 0 for none.
    pub(crate) last_publish: u64,
}

impl Output {
    pub(crate) fn new(limits: &Limits, large_headers: bool) -> Self {
        let mut output = Self {
            urgent: BytesMut::new(),
            ready: Segments::new(limits.output_high),
            backlog_buffer: BytesMut::new(),
            spare_queue: Spare::default(),
            round_robin: VecDeque::new(),
            corked: BTreeSet::new(),
            last: BytesMut::new(),
            waiting: 0,
            requests: 0,
            queued: 0,
            moved: 0,
            messages: 0,
            urgent_frames: 0,
            ready_frames: 0,
            answers: 0,
            reply_watermark: 0,
            discarded: Vec::new(),
            frame_max: 0,
            large_headers,
            header_max: 0,
            chunk: 1,
        };
        output.set_tuning(&Tuning::BEFORE, limits);
        output
    }

    pub(crate) fn set_tuning(&mut self, tuning: &Tuning, limits: &Limits) {
        self.frame_max = tuning.frame_max;
        self.header_max = if self.large_headers {
            u32::MAX
        } else {
            tuning.frame_max
        };
        self.chunk = tuning.chunk(limits).max(1);
    }

    /// The queued output, in bytes.
    pub(crate) fn len(&self) -> usize {
        self.urgent.len() + self.ready.len() + self.waiting + self.last.len()
    }

    /// The size of the urgent and the ready lane, in bytes.
    pub(crate) fn ready_len(&self) -> usize {
        self.urgent.len() + self.ready.len()
    }

    /// The size of all backlogs, in bytes.
    pub(crate) const fn backlog_len(&self) -> usize {
        self.waiting
    }

    /// Returns the limit that prevents a publish that would go to this lane. `Some` if the lane is
    /// full.
    #[inline]
    pub(crate) fn hold(&self, lane: Lane, backlog: &Backlog, limits: &Limits) -> Option<Hold> {
        if lane == Lane::Ready {
            (self.ready_len() >= limits.output_high).then_some(Hold::OutputFull)
        } else if backlog.len() >= limits.output_high {
            Some(Hold::ChannelBacklogFull)
        } else {
            (self.waiting >= limits.output_backlog).then_some(Hold::BacklogFull)
        }
    }

    /// The lane that a message with a body of `body_len` bytes goes to.
    #[inline]
    pub(crate) fn lane(&self, backlog: &Backlog, body_len: usize) -> Lane {
        if backlog.is_bypassed() && body_len <= self.chunk {
            Lane::Ready
        } else {
            Lane::Backlog
        }
    }

    /// Checks that another request may be queued in the lane that it would go to.
    pub(crate) fn check_requests(
        &self,
        backlog: Option<&Backlog>,
        limits: &Limits,
    ) -> Result<(), ApiMisuse> {
        let buffered = backlog
            .filter(|backlog| !backlog.is_bypassed())
            .map_or(self.requests, Backlog::requests);
        let limit = limits.unsent_requests;
        if buffered > limit {
            return Err(ApiMisuse::TooManyUnsent { buffered, limit });
        }
        Ok(())
    }

    /// The channels that have a backlog. May include a channel that has ended.
    pub(crate) fn backlogged(&self) -> impl Iterator<Item = u16> + '_ {
        self.round_robin.iter().chain(&self.corked).copied()
    }

    /// Whether a call would hand out any bytes now.
    pub(crate) fn has_transmit(&self) -> bool {
        self.has_ready() || !self.round_robin.is_empty()
    }

    /// Whether a call would hand out any bytes now without turns of the backlogs.
    pub(crate) fn has_ready(&self) -> bool {
        self.ready_len() > 0 || (!self.last.is_empty() && self.waiting == 0)
    }

    /// The position of the end of the ready lane, in bytes since the start of the connection.
    pub(crate) const fn position(&self) -> u64 {
        self.queued
    }

    /// Whether the urgent lane, and the ready lane up to `position`, were handed out.
    pub(crate) fn is_past(&self, position: u64) -> bool {
        self.urgent.is_empty() && self.moved >= position
    }

    /// The position up to which the ready lane was handed out.
    pub(crate) const fn handed_out(&self) -> u64 {
        self.moved
    }

    /// Queues the protocol header (section 4.2.2 of the specification).
    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.urgent.extend_from_slice(bytes);
    }

    pub(crate) fn put_heartbeat(&mut self) {
        self.urgent.extend_from_slice(&HEARTBEAT);
        self.urgent_frames += 1;
    }

    /// Queues a method of the connection before all other output.
    pub(crate) fn put_urgent<M: MethodDef>(&mut self, method: &M) -> Result<(), ApiMisuse> {
        let len = self.check_frame(method)?;
        put_method(&mut self.urgent, 0, method, len);
        self.urgent_frames += 1;
        Ok(())
    }

    /// Queues a method of the connection behind the ready lane.
    pub(crate) fn append<M: MethodDef>(&mut self, method: &M) -> Result<(), ApiMisuse> {
        let len = self.check_frame(method)?;
        let size = len + FRAME_OVERHEAD;
        self.ready
            .append(size, |tail| put_method(tail, 0, method, len));
        self.ready_frames += 1;
        self.queued += size as u64;
        Ok(())
    }

    /// Queues the method that ends the connection, behind all other output.
    pub(crate) fn put_last<M: MethodDef>(&mut self, method: &M) {
        put_method(
            &mut self.last,
            0,
            method,
            METHOD_HEAD + method.encoded_len(),
        );
    }

    /// Queues a method on a channel. Returns the size of its frame, in bytes.
    pub(crate) fn put_method<M: MethodDef>(
        &mut self,
        backlog: &mut Backlog,
        channel: u16,
        method: &M,
    ) -> Result<usize, ApiMisuse> {
        if backlog.is_bypassed()
            && let Some(size) = self
                .write_method(channel, method)
                .or_else(|| self.write_wider(channel, method))
        {
            self.queued += size as u64;
            self.ready_frames += 1;
            return Ok(size);
        }
        let len = self.check_frame(method)?;
        let size = len + FRAME_OVERHEAD;
        if backlog.is_bypassed() {
            self.ready
                .append(size, |tail| put_method(tail, channel, method, len));
            self.queued += size as u64;
            self.ready_frames += 1;
        } else {
            let queue = backlog.open(&mut self.spare_queue);
            queue.append(&mut self.backlog_buffer, self.chunk, 0, 1, |out| {
                put_method(out, channel, method, len);
            });
            self.wait(queue, channel, size);
        }
        Ok(size)
    }

    /// Writes a method into the window of the output. Returns the size of its frame, in bytes; `Some`
    /// if there is room.
    #[inline]
    fn write_method<M: MethodDef>(&mut self, channel: u16, method: &M) -> Option<usize> {
        let room = self.ready.window()?;
        let size = write_method(room, channel, method, self.frame_max)?;
        self.ready.advance(size);
        Some(size)
    }

    /// As `write_method`, with a wider window.
    #[cold]
    fn write_wider<M: MethodDef>(&mut self, channel: u16, method: &M) -> Option<usize> {
        while self.ready.widen() {
            if let Some(size) = self.write_method(channel, method) {
                return Some(size);
            }
        }
        None
    }

    /// Queues a request on a channel, and counts it as unsent.
    pub(crate) fn put_request<M: MethodDef>(
        &mut self,
        backlog: &mut Backlog,
        channel: u16,
        method: &M,
    ) -> Result<(), ApiMisuse> {
        let size = self.put_method(backlog, channel, method)?;
        if let Some(queue) = backlog.queue_mut()
            && let Some(Item::Frames(frames)) = queue.items.back_mut()
        {
            frames.requests += size;
            queue.requests += size;
        } else {
            self.requests += size;
        }
        Ok(())
    }

    /// Counts an answer of `len` bytes that was just queued. Returns `false` if too many answers
    /// are queued: the peer keeps sending requests without reading.
    pub(crate) fn charge_reply(&mut self, len: usize) -> bool {
        if self.moved >= self.reply_watermark {
            self.answers = 0;
            self.reply_watermark = self.queued + self.waiting as u64;
        }
        self.answers += len;
        self.answers <= MAX_UNREAD_ANSWERS
    }

    /// Queues an encoded method on a channel: its ids and arguments.
    pub(crate) fn put_raw_method(&mut self, backlog: &mut Backlog, channel: u16, payload: &[u8]) {
        let put = |out: &mut BytesMut| {
            put_head(out, FrameKind::Method, channel, payload.len());
            out.extend_from_slice(payload);
            out.extend_from_slice(&[FRAME_END]);
        };
        let size = payload.len() + FRAME_OVERHEAD;
        if backlog.is_bypassed() {
            self.ready.append(size, put);
            self.queued += size as u64;
            self.ready_frames += 1;
        } else {
            let queue = backlog.open(&mut self.spare_queue);
            queue.append(&mut self.backlog_buffer, self.chunk, 0, 1, put);
            self.wait(queue, channel, size);
        }
    }

    /// Holds all output of a channel that is queued from now on.
    pub(crate) fn cork(&mut self, backlog: &mut Backlog) {
        let queue = backlog.open(&mut self.spare_queue);
        if queue.items.is_empty() {
            queue.corked = true;
        } else {
            queue.items.push_back(Item::Cork);
        }
    }

    /// Releases the current or the next cork of a channel.
    pub(crate) fn release(&mut self, backlog: &mut Backlog, channel: u16) {
        let Some(queue) = backlog.queue_mut() else {
            return;
        };
        if core::mem::take(&mut queue.corked) {
            self.corked.remove(&channel);
        } else {
            let cork = |item: &Item| matches!(item, Item::Cork);
            if let Some(at) = queue.items.iter().position(cork) {
                queue.items.remove(at);
            }
        }
        self.schedule(queue, channel);
        backlog.shrink(&mut self.spare_queue);
    }

    /// Drops the output of a channel that has not begun to be sent. The rest of a begun message
    /// stays: any other frame in its place would be a connection error (section 4.2.6 of the
    /// specification).
    pub(crate) fn discard_unsent(&mut self, backlog: &mut Backlog, channel: u16) {
        let Some(queue) = backlog.queue_mut() else {
            return;
        };
        let mut dropped = core::mem::take(&mut queue.items);
        if let Some(Item::Body(_)) = dropped.front() {
            queue.items.extend(dropped.pop_front());
        }
        queue.requests = 0;
        let len: usize = dropped.iter().map(Item::len).sum();
        self.leave(backlog, len);
        self.discard_items(dropped);
        self.release(backlog, channel);
    }

    /// Drops everything but urgent frames.
    pub(crate) fn abort(&mut self) {
        self.ready.clear(&mut self.discarded);
        self.round_robin = VecDeque::new();
        self.corked = BTreeSet::new();
        self.last = BytesMut::new();
        self.waiting = 0;
        self.requests = 0;
        self.ready_frames = 0;
    }

    /// Drops everything, including urgent frames.
    pub(crate) fn clear(&mut self) {
        self.abort();
        self.urgent = BytesMut::new();
        self.urgent_frames = 0;
    }

    /// Drops the backlog of an ended channel.
    pub(crate) fn discard(&mut self, backlog: Backlog) {
        self.discard_items(backlog.into_items());
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

    /// Drops the pieces of bodies that were copied or will not be sent.
    pub(crate) fn drop_discarded(&mut self) {
        self.discarded.clear();
    }

    /// Takes the pieces of bodies that were copied or will not be sent.
    pub(crate) fn take_discarded(&mut self) -> Vec<Bytes> {
        core::mem::take(&mut self.discarded)
    }

    /// Drops the requested close.
    pub(crate) fn cancel_last(&mut self) {
        self.last = BytesMut::new();
    }

    /// Hands out the urgent and the ready lane.
    pub(crate) fn take_ready(&mut self, out: &mut Transmit) {
        if !self.urgent.is_empty() {
            out.push(self.urgent.split().freeze());
        }
        self.ready.move_into(out);
        self.moved = self.queued;
        self.requests = 0;
    }

    /// Hands out the requested close, if all other output is gone. Returns whether it did.
    pub(crate) fn take_last(&mut self, out: &mut Transmit) -> bool {
        let due = !self.last.is_empty() && self.waiting == 0 && self.ready.is_empty();
        if due {
            out.push(core::mem::take(&mut self.last).freeze());
            self.ready_frames += 1;
        }
        due
    }

    /// The number of messages ever queued.
    pub(crate) const fn messages(&self) -> u64 {
        self.messages
    }

    /// Returns the number of frames handed out since the last call, once the urgent and the ready
    /// lane are.
    pub(crate) fn take_frames(&mut self) -> u64 {
        core::mem::take(&mut self.urgent_frames) + core::mem::take(&mut self.ready_frames)
    }

    /// Returns the number of bytes to take from the backlogs if `handed_out` bytes came from the
    /// ready lane. It is at least as large: neither lane can starve the other.
    pub(crate) const fn share(handed_out: usize) -> usize {
        match TRANSMIT_BUDGET.checked_sub(handed_out) {
            Some(rest) if rest > handed_out => rest,
            Some(_) | None => handed_out,
        }
    }

    /// Takes the next channel from the ring.
    pub(crate) fn pop_turn(&mut self) -> Option<u16> {
        self.round_robin.pop_front()
    }

    /// Moves one frame, or one run of small frames, from the channel's backlog to the ready lane.
    pub(crate) fn take_turn(&mut self, backlog: &mut Backlog, channel: u16) -> Turn {
        let mut turn = Turn {
            len: 0,
            last_publish: 0,
        };
        let Some(queue) = backlog.queue_mut() else {
            return turn;
        };
        queue.scheduled = false;
        if queue.corked {
            return turn;
        }
        let before = self.ready.len();
        let sent = match queue.items.pop_front() {
            Some(Item::Frames(frames)) => {
                let len = frames.bytes.len();
                queue.requests -= frames.requests.min(queue.requests);
                turn.last_publish = frames.last_publish;
                self.ready_frames += frames.count;
                self.put_frames(frames.bytes);
                len
            }
            Some(Item::Body(mut body)) => {
                let len = body.len().min(self.chunk);
                let last = len == body.len();
                self.put_body_frame(channel, &mut body, len);
                self.ready_frames += 1;
                if last {
                    self.discard_body(body);
                } else {
                    queue.items.push_front(Item::Body(body));
                }
                len
            }
            Some(Item::Cork) => {
                queue.corked = true;
                0
            }
            None => 0,
        };
        self.schedule(queue, channel);
        self.leave(backlog, sent);
        turn.len = self.ready.len() - before;
        self.queued += turn.len as u64;
        backlog.shrink(&mut self.spare_queue);
        turn
    }

    /// Appends frames from a backlog. Few of them, such as the heads of a message, are copied, and
    /// their buffer is kept for the next ones.
    fn put_frames(&mut self, mut frames: BytesMut) {
        if frames.len() < CHAIN_FROM {
            self.ready.extend(&frames);
            frames.clear();
            self.backlog_buffer = frames;
        } else {
            self.ready.chain(frames.freeze());
        }
    }

    /// Releases the memory that an idle connection does not need.
    pub(crate) fn shrink(&mut self) {
        if self.backlog_buffer.capacity() > IDLE_BUFFER {
            self.backlog_buffer = BytesMut::new();
        }
        if self.discarded.is_empty() {
            self.discarded.shrink_to(8);
        }
        if self.urgent.is_empty() {
            self.urgent = BytesMut::new();
        }
        self.ready.shrink(IDLE_BUFFER);
    }

    /// Adds the `len` bytes that were appended to the size of a backlog, and schedules its channel.
    fn wait(&mut self, queue: &mut Queue, channel: u16, len: usize) {
        self.waiting += len;
        queue.wait(len);
        self.schedule(queue, channel);
    }

    /// Subtracts `len` bytes from the size of a backlog.
    fn leave(&mut self, backlog: &mut Backlog, len: usize) {
        self.waiting = self.waiting.saturating_sub(len);
        backlog.leave(len);
    }

    /// Adds a channel with output in its backlog to the ring, or to the corked channels if it is
    /// held.
    fn schedule(&mut self, queue: &mut Queue, channel: u16) {
        if queue.items.is_empty() {
            return;
        }
        if queue.corked {
            self.corked.insert(channel);
        } else if !queue.scheduled {
            queue.scheduled = true;
            self.round_robin.push_back(channel);
        }
    }

    /// Checks that the method fits into a frame. Returns the size of its payload, in bytes.
    fn check_frame<M: MethodDef>(&self, method: &M) -> Result<usize, ApiMisuse> {
        payload_len::<M>(METHOD_HEAD, method, self.frame_max)
    }
}
