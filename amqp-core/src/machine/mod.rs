//! The connection state machine, common to both roles.
//!
//! It handles frames, channels, content, timers and closing, which are the same on both sides. The
//! rest is behind [`Role`]: the handshake, the meaning of methods, and the events they cause.

mod arena;
mod assembly;
mod backlog;
mod channels;
mod clock;
mod closing;
mod content_channel;
mod encoded_heads;
mod event_queue;
mod frame_len;
mod frame_log;
mod heads;
mod input;
mod output;
mod read_buffer;
mod resume;
mod role;
mod room;
mod skip;
mod statistics;
mod timers;
mod turns;
mod whole;

use alloc::{boxed::Box, format, vec::Vec};

use bytes::Bytes;

pub use self::turns::FlushMark;
use self::{
    arena::Arena,
    assembly::Spare,
    channels::Channels,
    event_queue::EventQueue,
    read_buffer::ReadBuffer,
    room::Wants,
    skip::Skip,
    timers::{RequestDeadlines, Timers},
};
pub(crate) use self::{
    assembly::Dropped,
    channels::{Channel, ChannelLife, Lookup},
    encoded_heads::EncodedHeads,
    heads::{Head, Message},
    output::{CHAIN_FROM, Lane, Output, Route},
    role::{OffendingFrame, Role, standard_close, unlisted},
    whole::Run,
};
use crate::{
    close::{CloseCause, CloseReason, Stage},
    error::ApiMisuse,
    fault::Fault,
    frame_log::FrameLog,
    ids::{ChannelId, RequestId},
    limits::{Limits, Timeouts, Tuning},
    method::MethodDef,
    stats::ConnectionStats,
    time::Instant,
};

/// The reason when the transport ends while the peer should be judging the credentials.
const HUNG_UP: &str = "the peer hung up instead of answering";

/// The queued events.
pub(crate) type Events<R> = EventQueue<<R as Role>::Event>;

/// The state of a connection.
///
/// ```text
///  Handshake ── open-ok ──> Open ── close() ──> Draining ── close handed out ──> Closing
///      │                      │                      │                              ^  │
///      │ peer's fault         │ peer's fault         │ peer's fault                 │  │
///      ├──────────────────────┴──────────────────────┴──────────────────────────────┘  │
///      │ close received (answered), EOF, refused, deadline                             │
///      └──────────────────────┴──────────────────────┴──────────> Closed <─────────────┘
///                                        close-ok, or any of the causes on the left;
///                                        also input that cannot be parsed
/// ```
///
/// The first cause that ends the connection is its final reason. `Requested` is the final reason
/// only if close-ok was received: after any other end of a requested close it is unknown whether
/// the peer has processed the last output. The reason of a close for a fault is announced when the
/// close begins, and is final.
#[derive(Debug)]
enum Life {
    Handshake(Stage),
    Open,
    /// A close was requested; the output accepted before it is sent first. Input is processed as in
    /// `Open`. The reason becomes final with close-ok.
    Draining(CloseReason),
    /// The close was handed out, or is for a fault. All input but close and close-ok is discarded
    /// (section 1.4.2.9 of the protocol reference).
    Closing(CloseReason),
    /// The connection has ended, for this reason.
    Closed(CloseReason),
}

/// An open channel, and the parts of its machine that a publish needs.
pub(crate) struct Open<'a, R: Role> {
    pub(crate) channel: &'a mut Channel<R::Channel>,
    pub(crate) output: &'a mut Output,
    pub(crate) limits: &'a Limits,
    pub(crate) role: &'a mut R,
}

#[derive(Debug)]
pub(crate) struct Machine<R: Role> {
    pub(crate) role: R,
    life: Life,
    /// Whether the peer's greeting was recognized as this protocol.
    header_seen: bool,
    tuning: Tuning,
    limits: Limits,
    timeouts: Timeouts,
    channels: Channels<R::Channel>,
    /// The channels to remove once the ready lane has been handed out.
    closing_after_flush: Vec<ChannelId>,
    output: Output,
    events: Events<R>,
    /// The end of the ready lane when this side closed the connection. Output before it counts as
    /// progress of the close.
    close_from: u64,
    /// Whether the final event was queued.
    final_event_emitted: bool,
    /// Whether the connection has ended without a close, and awaits the end of the transport.
    hanging_up: bool,
    now: Instant,
    timers: Timers,
    deadlines: RequestDeadlines,
    /// The next request id.
    next_request: u64,
    /// The pending requests for an event when there is room in the output.
    wants: Wants,
    arena: Arena,
    spare: Spare,
    /// The memory held by the unfinished messages of all channels, in bytes: the sum over their
    /// assemblies.
    assembled: u64,
    /// `Some` in the middle of a frame that is being skipped.
    skip: Option<Skip>,
    /// The caller's read buffer.
    buffer: ReadBuffer,
    /// The part of the last input that remained in the caller's buffer, in bytes.
    leftover: usize,
    /// The number of bytes that the frame in progress needs at least.
    missing: usize,
    /// The expected size of the next frame, in bytes, in the middle of a large body; otherwise 0.
    next_frame: usize,
    pub(crate) stats: ConnectionStats,
    /// `Some` if frames are logged.
    frame_log: Option<Box<FrameLog>>,
}

impl<R: Role> Machine<R> {
    pub(crate) fn new(role: R, limits: Limits, timeouts: Timeouts, now: Instant) -> Self {
        Self {
            output: Output::new(&limits, role.sends_large_headers()),
            role,
            life: Life::Handshake(Stage::Greeting),
            header_seen: false,
            tuning: Tuning::BEFORE,
            channels: Channels::new(R::FORGIVES_ENDED),
            closing_after_flush: Vec::new(),
            events: EventQueue::default(),
            close_from: 0,
            final_event_emitted: false,
            hanging_up: false,
            now,
            timers: Timers::new(now, timeouts.handshake),
            deadlines: RequestDeadlines::new(timeouts.request),
            next_request: 1,
            wants: Wants::default(),
            arena: Arena::new(R::ARENA_BLOCK, R::ARENA_USED),
            spare: Spare::default(),
            assembled: 0,
            skip: None,
            buffer: ReadBuffer::default(),
            leftover: 0,
            missing: 0,
            next_frame: 0,
            stats: ConnectionStats::default(),
            frame_log: None,
            limits,
            timeouts,
        }
    }

    /// Sets the limit of incoming frames until limits are negotiated, in bytes.
    pub(crate) const fn limit_frames_before_tune(&mut self, frame_max: u32) {
        self.tuning.frame_max = frame_max;
    }

    // Inputs. `handle_input` is in `input.rs`.

    pub(crate) fn handle_eof(&mut self, now: Instant) {
        let stage = self.stage();
        let cause = if self.is_refusal() {
            let (why, close) = (HUNG_UP.into(), None);
            CloseCause::AuthenticationFailed { why, close }
        } else {
            CloseCause::Eof { stage }
        };
        self.transport_ended(now, cause);
    }

    pub(crate) fn handle_reset(&mut self, now: Instant, message: &str) {
        if self.is_refusal() {
            let (why, close) = (format!("{HUNG_UP}: {message}"), None);
            self.transport_ended(now, CloseCause::AuthenticationFailed { why, close });
        } else {
            self.handle_transport_error(now, message);
        }
    }

    pub(crate) fn handle_transport_error(&mut self, now: Instant, message: &str) {
        let (stage, message) = (self.stage(), message.into());
        self.transport_ended(now, CloseCause::Transport { stage, message });
    }

    /// Whether a hang-up of the peer now means that it refuses the credentials.
    fn is_refusal(&self) -> bool {
        self.stage() == Stage::Authenticating && self.role.refuses_by_hanging_up()
    }

    fn transport_ended(&mut self, now: Instant, cause: CloseCause) {
        self.advance_clock(now);
        let reason = match &self.life {
            Life::Closed(reason) => reason.clone(),
            Life::Handshake(_) | Life::Open | Life::Draining(_) | Life::Closing(_) => cause.into(),
        };
        self.finish(reason);
        self.drop_output();
    }

    // Outputs.

    pub(crate) fn poll_event(&mut self) -> Option<R::Event> {
        self.events.pop(self.now)
    }

    // Getters.

    pub(crate) const fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    pub(crate) const fn limits(&self) -> &Limits {
        &self.limits
    }

    pub(crate) const fn now(&self) -> Instant {
        self.now
    }

    pub(crate) const fn read_hint(&self) -> usize {
        self.missing
    }

    pub(crate) const fn frame_hint(&self) -> usize {
        self.next_frame
    }

    pub(crate) fn buffered(&self) -> usize {
        self.output.len()
    }

    pub(crate) const fn handed_out(&self) -> u64 {
        self.output.handed_out()
    }

    pub(crate) const fn output_position(&self) -> u64 {
        self.output.position()
    }

    pub(crate) fn has_transmit(&self) -> bool {
        self.output.has_transmit()
    }

    pub(crate) fn has_ready_transmit(&self) -> bool {
        self.output.has_ready()
    }

    pub(crate) const fn channel_count(&self) -> usize {
        self.channels.len()
    }

    /// The channels in use, in ascending order of their numbers.
    pub(crate) fn channel_ids(&self) -> Vec<ChannelId> {
        self.channels.ids()
    }

    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.life, Life::Open)
    }

    /// Whether the connection has ended and all of its output was handed out.
    pub(crate) fn is_finished(&self) -> bool {
        matches!(self.life, Life::Closed(_)) && self.output.len() == 0
    }

    /// The reason why the connection ended or is closing. `Some` once a close has begun.
    pub(crate) const fn close_reason(&self) -> Option<&CloseReason> {
        match &self.life {
            Life::Draining(reason) | Life::Closing(reason) | Life::Closed(reason) => Some(reason),
            Life::Handshake(_) | Life::Open => None,
        }
    }

    pub(crate) const fn stage(&self) -> Stage {
        match &self.life {
            Life::Handshake(stage) => *stage,
            Life::Open => Stage::Open,
            Life::Draining(_) | Life::Closing(_) | Life::Closed(_) => Stage::Closing,
        }
    }

    // Functions for the roles.

    pub(crate) fn push(&mut self, event: R::Event) {
        self.events.push(event);
    }

    pub(crate) const fn set_stage(&mut self, stage: Stage) {
        if let Life::Handshake(current) = &mut self.life {
            *current = stage;
        }
    }

    /// Applies the negotiated limits.
    pub(crate) fn set_tuning(&mut self, tuning: Tuning) {
        self.tuning = tuning;
        self.output.set_tuning(&tuning, &self.limits);
        self.timers
            .set_interval(tuning.heartbeat_interval(), self.now);
    }

    /// Ends the handshake.
    pub(crate) fn set_open(&mut self) {
        self.life = Life::Open;
        self.timers.end_handshake();
    }

    pub(crate) fn put_raw(&mut self, bytes: &[u8]) {
        self.output.put_raw(bytes);
    }

    pub(crate) fn put_urgent<M: MethodDef>(&mut self, method: &M) -> Result<(), ApiMisuse> {
        self.output.put_urgent(method)
    }

    pub(crate) fn check_open(&self) -> Result<(), ApiMisuse> {
        if self.is_open() {
            Ok(())
        } else {
            Err(ApiMisuse::ConnectionNotOpen)
        }
    }

    /// Returns an open channel, and the parts that a publish on it needs.
    #[inline]
    pub(crate) fn open(&mut self, id: ChannelId) -> Result<Open<'_, R>, ApiMisuse> {
        if !matches!(self.life, Life::Open) {
            return Err(ApiMisuse::ConnectionNotOpen);
        }
        match self.channels.get_mut(id) {
            Some(channel) if channel.life == ChannelLife::Open => Ok(Open {
                channel,
                output: &mut self.output,
                limits: &self.limits,
                role: &mut self.role,
            }),
            Some(_) | None => Err(ApiMisuse::ChannelNotOpen),
        }
    }

    pub(crate) const fn output(&self) -> &Output {
        &self.output
    }

    /// Returns an open channel, and the output.
    #[inline]
    pub(crate) fn open_channel_and_output(
        &mut self,
        id: ChannelId,
    ) -> Result<(&mut Channel<R::Channel>, &mut Output), ApiMisuse> {
        let open = self.open(id)?;
        Ok((open.channel, open.output))
    }

    #[inline]
    pub(crate) fn channel_mut(&mut self, id: ChannelId) -> Option<&mut Channel<R::Channel>> {
        self.channels.get_mut(id)
    }

    #[inline]
    pub(crate) fn channel_and_events(
        &mut self,
        id: ChannelId,
    ) -> Option<(&mut Channel<R::Channel>, &mut Events<R>)> {
        Some((self.channels.get_mut(id)?, &mut self.events))
    }

    /// Returns the state of a channel number.
    pub(crate) fn lookup(&mut self, number: u16) -> Lookup<'_, R::Channel> {
        self.channels.lookup(number)
    }

    #[inline]
    pub(crate) fn channel(&self, id: ChannelId) -> Option<&Channel<R::Channel>> {
        self.channels.get(id)
    }

    /// Queues a method on an open channel.
    pub(crate) fn put_method<M: MethodDef>(
        &mut self,
        id: ChannelId,
        method: &M,
    ) -> Result<(), ApiMisuse> {
        let (channel, output) = self.open_channel_and_output(id)?;
        output.put_method(&mut channel.backlog, id.number(), method)?;
        Ok(())
    }

    /// Queues a request on an open channel. Fails if too many requests are unsent.
    pub(crate) fn put_request<M: MethodDef>(
        &mut self,
        id: ChannelId,
        method: &M,
    ) -> Result<(), ApiMisuse> {
        self.check_requests(Some(id))?;
        let (channel, output) = self.open_channel_and_output(id)?;
        output.put_request(&mut channel.backlog, id.number(), method)
    }

    /// Checks that another request may be queued, on an open channel or, if `id` is `None`, on a
    /// new one.
    pub(crate) fn check_requests(&mut self, id: Option<ChannelId>) -> Result<(), ApiMisuse> {
        if let Some(id) = id {
            self.open_channel_and_output(id)?;
        }
        let channel = id.and_then(|id| self.channels.get(id));
        let backlog = channel.map(|channel| &channel.backlog);
        self.output.check_requests(backlog, &self.limits)
    }

    /// Returns whether the negotiated limit allows another channel with this number.
    fn is_channel_allowed(&self, number: u16) -> bool {
        let channel_max = self.tuning.channel_max;
        if self.role.counts_channels() {
            self.channels.len() < usize::from(channel_max)
        } else {
            number <= channel_max
        }
    }

    /// The next free channel number that is not `taken`.
    pub(crate) fn free_channel(&self, taken: impl Fn(u16) -> bool) -> Result<u16, ApiMisuse> {
        let channel_max = self.tuning.channel_max;
        let free = self.channels.next_free(channel_max, taken);
        free.ok_or(ApiMisuse::NoFreeChannel { channel_max })
    }

    /// Reserves a free channel number: the requested one, or else the next free one.
    pub(crate) fn add_channel(
        &mut self,
        number: Option<u16>,
        life: ChannelLife,
    ) -> Result<ChannelId, ApiMisuse> {
        let channel_max = self.tuning.channel_max;
        let number = match number {
            Some(number) if self.is_channel_allowed(number) => number,
            Some(number) => {
                return Err(ApiMisuse::ChannelNumber {
                    number,
                    channel_max,
                });
            }
            None => self.free_channel(|_| false)?,
        };
        self.channels
            .insert(number, life)
            .ok_or(ApiMisuse::ChannelNumber {
                number,
                channel_max,
            })
    }

    /// Queues a method on a channel in any state.
    pub(crate) fn put_method_anyway<M: MethodDef>(&mut self, id: ChannelId, method: &M) {
        if let Some(channel) = self.channels.get_mut(id) {
            // The methods sent this way are far smaller than any frame limit.
            let _fits = self
                .output
                .put_method(&mut channel.backlog, id.number(), method);
        }
    }

    /// Queues a request on a channel in any state.
    pub(crate) fn put_request_anyway<M: MethodDef>(&mut self, id: ChannelId, method: &M) {
        if let Some(channel) = self.channels.get_mut(id) {
            // The methods sent this way are far smaller than any frame limit.
            let _fits = self
                .output
                .put_request(&mut channel.backlog, id.number(), method);
        }
    }

    /// Queues an answer to a request of the peer, on a channel in any state.
    ///
    /// # Errors
    /// [`Fault::UnreadAnswers`] if the peer does not read its answers.
    pub(crate) fn put_answer<M: MethodDef>(
        &mut self,
        id: ChannelId,
        method: &M,
    ) -> Result<(), Fault> {
        let before = self.output.len();
        self.put_method_anyway(id, method);
        let len = self.output.len() - before;
        let heard = self.output.charge_reply(len);
        heard.then_some(()).ok_or(Fault::UnreadAnswers)
    }

    /// Queues an encoded method that is not in [`RULES`](crate::protocol::RULES), on a live
    /// channel. It must fit into a frame.
    pub(crate) fn put_unlisted(&mut self, number: u16, payload: &[u8]) {
        if let Lookup::Live(_, channel) = self.channels.lookup(number) {
            self.output
                .put_raw_method(&mut channel.backlog, number, payload);
        }
    }

    /// Holds all further output of the channel until it is released.
    pub(crate) fn cork_channel(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            self.output.cork(&mut channel.backlog);
        }
    }

    pub(crate) fn release_channel(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            self.output.release(&mut channel.backlog, id.number());
        }
    }

    /// Drops the output of a channel that has not begun to be sent.
    pub(crate) fn discard_unsent_of(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            self.output
                .discard_unsent(&mut channel.backlog, id.number());
        }
    }

    /// Removes a channel and discards its backlog.
    pub(super) fn drop_channel(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.remove(id) {
            self.output.discard(channel.backlog);
        }
    }

    pub(crate) fn take_discarded(&mut self) -> Vec<Bytes> {
        self.output.take_discarded()
    }

    /// Whether a message with a body of `body_len` bytes would go to the channel's backlog.
    pub(crate) fn is_backlogged(&self, id: ChannelId, body_len: usize) -> bool {
        self.channels
            .get(id)
            .is_some_and(|channel| self.output.lane(&channel.backlog, body_len) == Lane::Backlog)
    }

    pub(crate) fn remove_channel(&mut self, id: ChannelId) {
        if let Some(mut channel) = self.channels.remove(id) {
            self.output
                .discard_unsent(&mut channel.backlog, id.number());
        }
    }

    pub(crate) const fn next_request(&mut self) -> RequestId {
        let id = RequestId(self.next_request);
        self.next_request += 1;
        id
    }

    pub(crate) fn add_deadline(&mut self, request: RequestId, channel: Option<ChannelId>) {
        self.deadlines.add(request, channel);
    }

    /// Records that a request has its outcome: an answer, or the end of the wait.
    pub(crate) fn request_settled(&mut self) {
        let mut deadlines = core::mem::take(&mut self.deadlines);
        deadlines.settle(|request, channel| R::is_waiting(self, channel, request));
        self.deadlines = deadlines;
    }
}
