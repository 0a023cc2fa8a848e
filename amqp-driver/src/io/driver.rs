//! The future that moves the bytes of a connection.

use std::{
    fmt,
    future::Future,
    io, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_core::{Endpoint, Instant, TimeoutReason, Transmit};
use bytes::BytesMut;

use super::{
    lent::LentDriver,
    transport::{Timer, Transport, no_wakeup},
};

/// An [`Endpoint`] that a [`Driver`] can wait on.
pub trait DrivenEndpoint: Endpoint {
    /// The number of bytes, read and written, after which the driver yields. A server lowers it: its
    /// other connections wait meanwhile, and a runtime may poll dozens of tasks before it looks for
    /// readable sockets. The default suits a client, which yields by time and turns.
    const BYTES_PER_POLL: usize = TURNS * READ_MAX;

    /// Whether to read. `false` under back-pressure, while untaken deliveries pile up.
    fn wants_input(&mut self, now: Instant) -> bool;

    /// The maximum number of bytes to read now, at least 1, for an endpoint with a throttle. The
    /// default is without limit.
    fn read_limit(&mut self, now: Instant) -> usize {
        let _ = now;
        usize::MAX
    }

    /// Registers `waker`, to be woken at the next command, and returns `true`, unless there is
    /// already work: output, which counts only if `output` says that there is room for it; input
    /// capacity; a deadline before `alarm`; or the end of the connection.
    fn register_waker(&mut self, waker: &Waker, output: bool, alarm: Option<Instant>) -> bool;

    /// Whether to send the rest of the output after the connection's end, such as the answer to the
    /// peer's close. `false` if the transport ended or failed, or the peer timed out.
    fn flush_on_close(&self) -> bool;

    /// Called when the driver is dropped: no bytes move any more.
    fn abandon(&mut self);
}

/// The maximum number of turns that a driver takes before it yields.
const TURNS: usize = 32;

/// The maximum time that a driver runs before it yields: short enough that its input does not pile
/// up.
const SLICE: Duration = Duration::from_millis(1);

/// The upper bound for sending the final frames and closing the transport.
const LINGER: Duration = Duration::from_secs(5);

/// The upper bound for discarding input after the transport is closed, until the peer's end of
/// stream. Several round trips of a slow network: the peer needs one to read the final frames and
/// to stop sending.
///
/// A kernel answers input to a socket that is gone, or unread in it, with a reset, and the peer
/// then loses the final frames that it has not read.
const DRAIN: Duration = Duration::from_secs(1);

/// The maximum number of bytes discarded then: more than the socket buffers of both sides hold, and
/// bounded against a peer that keeps sending.
const DRAIN_MAX: usize = 16 << 20;

/// The size of a read of discarded input, in bytes.
const DRAIN_READ: usize = 16 << 10;

/// The minimum size of a read, in bytes.
const READ_MIN: usize = 4 << 10;

/// The maximum number of reads after a failed write: more than a socket buffers, and bounded
/// against a peer that keeps sending.
const LAST_READS: usize = 256;

/// The time to go on reading before the peer is judged: after a failed write, for which the input
/// may have the reason, and at a deadline, which may have been noticed late.
///
/// A process that was stopped, as by SIGSTOP, a debugger or a paused virtual machine, finds its
/// deadlines passed and its input unread, and on Linux the poll for input may be interrupted once
/// (`epoll_wait` returns EINTR). The runtime therefore gets another turn, with a timer, to report
/// readable input.
const LISTEN: Duration = Duration::from_millis(20);

/// The maximum size of a read, in bytes: the fastest for consumers of small messages.
pub(crate) const READ_MAX: usize = 128 << 10;

/// Moves the bytes of one connection between its machine and its transport, and keeps its time.
/// Ends when the connection has ended, the transport is closed and the peer has ended its output,
/// for which it waits for a second at most. The handles do not wait for that.
///
/// Spawn it, or poll it beside other futures. Dropping it ends the connection at once: output that
/// the transport accepts without waiting is written, and every waiting future gets the reason.
pub struct Driver<E: DrivenEndpoint, T: Transport, C: Timer> {
    endpoint: E,
    transport: T,
    clock: C,
    /// Output of the machine that the transport has not accepted.
    output: Transmit,
    /// Whether bytes were written since the last flush.
    unflushed: bool,
    /// The number of bytes that the present poll has read and written.
    moved: usize,
    /// Input that the machine has not consumed: part of a frame.
    input: BytesMut,
    /// The current size of a read, in bytes.
    read_size: usize,
    /// Whether the transport has ended or failed.
    ended: bool,
    /// The error of a failed write, and the time until which to read on for its reason.
    write_error: Option<(io::Error, Instant)>,
    /// A passed deadline that judges the peer, and the time until which to read on before it does.
    overdue: Option<(Instant, Instant)>,
    /// The earliest deadline given to the clock that has not passed.
    alarm: Option<Instant>,
    /// The time at which to drop the transport. `Some` once the connection has ended.
    leave_at: Option<Instant>,
    /// The time until which to discard input. `Some` once the transport is closed.
    drain_until: Option<Instant>,
    /// The number of bytes discarded.
    drained: usize,
}

impl<E: DrivenEndpoint, T: Transport, C: Timer> Driver<E, T, C> {
    /// A driver of `endpoint` over `transport`, by `clock`.
    pub fn new(endpoint: E, transport: T, clock: C) -> Self {
        Self {
            endpoint,
            transport,
            clock,
            output: Transmit::new(),
            unflushed: false,
            moved: 0,
            input: BytesMut::new(),
            read_size: READ_MIN,
            ended: false,
            write_error: None,
            overdue: None,
            alarm: None,
            leave_at: None,
            drain_until: None,
            drained: 0,
        }
    }

    /// Whether [`write_inline`](Self::write_inline) may be called.
    pub(crate) fn is_inline(&self) -> bool {
        self.transport.is_inline()
    }

    /// The driven endpoint.
    pub const fn endpoint(&self) -> &E {
        &self.endpoint
    }

    /// Whether the transport is closed. The endpoint is not used any more, except when the driver
    /// is dropped.
    pub const fn is_closed(&self) -> bool {
        self.drain_until.is_some()
    }

    /// Writes the pending output. Returns whether any was written.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.output.is_empty() {
            self.endpoint
                .poll_transmit(self.clock.now(), &mut self.output);
        }
        let mut moved = false;
        while !self.output.is_empty() {
            match self.transport.poll_write(cx, &mut self.output) {
                Poll::Ready(Ok(0)) => self.on_write_error(cx, io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(count)) => {
                    moved = true;
                    self.moved = self.moved.saturating_add(count);
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => self.on_write_error(cx, error),
                Poll::Pending => break,
            }
        }
        if moved && !self.output.is_empty() {
            self.endpoint.handle_written(self.clock.now());
        }
        if self.unflushed && self.output.is_empty() {
            match self.transport.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.on_write_error(cx, error),
                Poll::Pending => {}
            }
        }
        moved
    }

    /// Reads once. Returns whether there was input, the end or an error.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let missing = self.endpoint.read_hint().min(READ_MAX);
        let mut wanted = self.read_size.max(missing);
        let limit = self.endpoint.read_limit(self.clock.now());
        let read = if wanted <= limit {
            wanted = self.make_room(wanted, missing, limit);
            self.transport.poll_read(cx, &mut self.input)
        } else {
            // The room of a buffer of its own is the limit.
            let mut input = BytesMut::with_capacity(limit.max(1));
            let read = self.transport.poll_read(cx, &mut input);
            self.input.extend_from_slice(&input);
            read
        };
        match read {
            Poll::Ready(Ok(0)) => {
                self.on_eof();
                true
            }
            Poll::Ready(Ok(count)) => {
                self.moved = self.moved.saturating_add(count);
                if count >= wanted {
                    self.read_size = (self.read_size * 2).min(READ_MAX);
                } else if count < self.read_size / 4 {
                    self.read_size = (self.read_size / 2).max(READ_MIN);
                }
                self.endpoint
                    .handle_input(self.clock.now(), &mut self.input);
                true
            }
            // TLS reports an end without its closure alert (RFC 8446, section 6.1) as an error.
            // AMQP has a close handshake of its own.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.on_eof();
                true
            }
            Poll::Ready(Err(error)) => {
                self.fail(&error);
                true
            }
            Poll::Pending => false,
        }
    }

    /// Makes room for a read of `wanted` bytes, of which a frame needs `missing`. Returns the size of
    /// the read.
    fn make_room(&mut self, wanted: usize, missing: usize, limit: usize) -> usize {
        let spare = self.input.capacity() - self.input.len();
        let frame = self.endpoint.frame_hint();
        if frame > 0 && limit == usize::MAX {
            // A large body keeps its read buffers alive: they hold whole frames and nothing else.
            if spare == 0 || self.input.capacity() < frame {
                let frames = frame * (READ_MAX / frame).max(1);
                let size = frames.max(self.input.len() + missing.max(1));
                let partial = mem::replace(&mut self.input, BytesMut::with_capacity(size));
                self.input.extend_from_slice(&partial);
            }
            return self.input.capacity() - self.input.len();
        }
        // A small frame that comes byte by byte, as a login may, stays in its first buffer.
        if !self.input.is_empty() && wanted == READ_MIN && spare >= missing.max(READ_MIN / 2) {
            return spare.min(wanted);
        }
        self.input.reserve(wanted);
        wanted
    }

    /// Handles the end of the peer's output.
    fn on_eof(&mut self) {
        self.ended = true;
        self.endpoint.handle_eof(self.clock.now());
    }

    /// Handles a failed write. The peer may have sent the reason before it closed the transport, so
    /// its input is read first, including input that the runtime has not reported yet.
    fn on_write_error(&mut self, cx: &mut Context<'_>, error: io::Error) {
        self.output.clear();
        self.unflushed = false;
        for _ in 0..LAST_READS {
            if self.ended || self.endpoint.is_finished() {
                return;
            }
            if !self.read(cx) {
                self.write_error = Some((error, self.clock.now() + LISTEN));
                return;
            }
        }
        self.fail(&error);
    }

    /// Reports a failed write, once the time to read on has passed.
    fn check_grace(&mut self) {
        let now = self.clock.now();
        if let Some((error, _)) = self.write_error.take_if(|(_, until)| *until <= now) {
            self.fail(&error);
        }
    }

    /// The time at which to call the endpoint. A deadline that judges the peer is deferred until
    /// the input received before it was read.
    fn due(&self, deadline: Option<(Instant, TimeoutReason)>) -> Option<Instant> {
        let (at, _) = deadline?;
        match self.overdue {
            Some((deadline, until)) if deadline == at => Some(until),
            _ => Some(at),
        }
    }

    /// Returns the time for the alarm if the next deadline is `at`: an earlier one is kept. Requests
    /// have their deadlines the same time ahead, so that the alarm for one serves the next.
    fn keep_alarm(&mut self, at: Option<Instant>) -> Option<Instant> {
        let now = self.clock.now();
        let kept = self.alarm.filter(|&alarm| alarm > now);
        self.alarm = at.into_iter().chain(kept).min();
        self.alarm
    }

    fn handle_timeout(&mut self) {
        let now = self.clock.now();
        if let Some((at, reason)) = self.endpoint.poll_timeout()
            && at <= now
            && judges(reason, now, at)
            && !self.ended
        {
            match self.overdue {
                Some((deadline, until)) if deadline == at => {
                    if now < until {
                        return;
                    }
                    self.overdue = None;
                }
                _ => {
                    self.overdue = Some((at, now + LISTEN));
                    return;
                }
            }
        }
        self.endpoint.handle_timeout(now);
    }

    /// Writes the output on a thread that does not drive, and registers the waker of the parked
    /// driver again. Returns `false` if the driver is to be polled instead: the transport takes no
    /// more, or there is other work.
    pub(crate) fn write_inline(&mut self, waker: &Waker) -> bool {
        if self.is_ending() {
            return false;
        }
        // With output that is left from before, the task waits for the transport.
        let full = !self.output.is_empty() || self.unflushed;
        if !full {
            self.write(&mut Context::from_waker(no_wakeup()));
            if self.ended || self.write_error.is_some() || !self.output.is_empty() || self.unflushed
            {
                return false;
            }
        }
        self.endpoint.register_waker(waker, !full, self.alarm)
    }

    /// The function that takes the driver for a waiting thread.
    pub(crate) fn lender(&self) -> Option<fn(LentDriver)> {
        self.transport.lender()
    }

    /// Moves bytes on a thread that waits for an answer, and registers the waker of that thread.
    /// Deadlines stay with the alarm of the task. Returns `false` if the task is to be polled instead:
    /// there is other work.
    pub(crate) fn poll_lent(&mut self, cx: &mut Context<'_>) -> bool {
        for _ in 0..TURNS {
            if self.is_ending() {
                return false;
            }
            let mut moved = self.write(cx);
            if !self.is_ending() && self.endpoint.wants_input(self.clock.now()) {
                moved |= self.read(cx);
            }
            if !moved {
                let room = self.output.is_empty();
                let waker = cx.waker();
                let parked =
                    !self.is_ending() && self.endpoint.register_waker(waker, room, self.alarm);
                if parked {
                    self.shrink();
                }
                return parked;
            }
        }
        false
    }

    /// Lets the transport wake the task again, and registers the waker of the task. Returns `false` if
    /// the task is to be polled.
    pub(crate) fn take_back(&mut self, task: &Waker) -> bool {
        if self.is_ending() || !self.output.is_empty() || self.unflushed {
            return false;
        }
        let flushed = self.transport.poll_flush(&mut Context::from_waker(task));
        matches!(flushed, Poll::Ready(Ok(())))
            && self.endpoint.register_waker(task, true, self.alarm)
    }

    /// Whether the transport or the connection has ended, or a write has failed.
    const fn is_ending(&self) -> bool {
        self.ended || self.write_error.is_some() || self.leave_at.is_some()
    }

    /// Writes all that the transport accepts at once: nothing drives it afterwards.
    fn write_last(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..TURNS {
            if self.ended || self.write_error.is_some() || !self.write(&mut cx) {
                return;
            }
        }
    }

    fn fail(&mut self, error: &io::Error) {
        self.ended = true;
        self.output.clear();
        self.unflushed = false;
        let (now, message) = (self.clock.now(), error.to_string());
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe => self.endpoint.handle_reset(now, &message),
            _ => self.endpoint.handle_transport_error(now, &message),
        }
    }

    /// Sends the final frames of an ended connection, closes the transport and discards input until
    /// the peer's end of stream. Ready when that is done, or after [`LINGER`] and then [`DRAIN`].
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.clock.now();
        let at = *self.leave_at.get_or_insert(now + LINGER);
        if self.ended || !self.endpoint.flush_on_close() {
            self.output.clear();
            self.unflushed = false;
        }
        let said = self.output.is_empty() && !self.unflushed;
        if said && let Poll::Ready(closed) = self.transport.poll_close(cx) {
            // A transport error after the connection's end changes no outcome.
            if self.ended || closed.is_err() {
                return Poll::Ready(());
            }
            self.input = BytesMut::with_capacity(DRAIN_READ);
            let until = self.clock.now() + DRAIN;
            self.drain_until = Some(until);
            return self.drain(cx, until);
        }
        self.clock.poll_deadline(cx, Some(at))
    }

    /// Discards input. Ready at the peer's end of stream, at an error, at the time `until`, and
    /// after [`DRAIN_MAX`] bytes.
    fn drain(&mut self, cx: &mut Context<'_>, until: Instant) -> Poll<()> {
        let slice = self.clock.now() + SLICE;
        for _ in 0..TURNS {
            let now = self.clock.now();
            if now >= until || self.drained >= DRAIN_MAX {
                return Poll::Ready(());
            }
            if now >= slice {
                break;
            }
            self.input.clear();
            self.input.reserve(DRAIN_READ);
            match self.transport.poll_read(cx, &mut self.input) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => self.drained += count,
                Poll::Pending => return self.clock.poll_deadline(cx, Some(until)),
            }
        }
        self.clock.yield_now(cx);
        Poll::Pending
    }

    /// Releases the memory that an idle connection does not need.
    fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > READ_MIN {
            self.input = BytesMut::new();
        }
    }
}

impl<E: DrivenEndpoint, T: Transport, C: Timer> Future for Driver<E, T, C>
where
    Self: Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if let Some(until) = this.drain_until {
            return this.drain(cx, until);
        }
        let until = this.clock.now() + SLICE;
        this.moved = 0;
        for turn in 0..TURNS {
            if turn > 0 && (this.moved >= E::BYTES_PER_POLL || this.clock.now() >= until) {
                break;
            }
            let mut moved = this.write_error.is_none() && this.write(cx);
            if !this.ended && this.endpoint.wants_input(this.clock.now()) {
                moved |= this.read(cx);
            }
            if this.endpoint.is_finished() {
                if this.leave(cx).is_ready() {
                    return Poll::Ready(());
                }
                if !moved || this.is_closed() {
                    return Poll::Pending;
                }
                continue;
            }
            let broken = this.write_error.as_ref().map(|(_, until)| *until);
            let deadline = this.endpoint.poll_timeout();
            let at = this.due(deadline).into_iter().chain(broken).min();
            let at = this.keep_alarm(at);
            if this.clock.poll_deadline(cx, at).is_ready() {
                this.alarm = None;
                this.check_grace();
                // All the output handed out may have been written since.
                if this.output.is_empty() && this.write_error.is_none() {
                    this.write(cx);
                }
                this.handle_timeout();
                moved = true;
            }
            let room = this.output.is_empty() && this.write_error.is_none();
            let known = deadline.map(|(at, _)| at).into_iter().chain(broken).min();
            if !moved && this.endpoint.register_waker(cx.waker(), room, known) {
                this.shrink();
                return Poll::Pending;
            }
        }
        this.clock.yield_now(cx);
        Poll::Pending
    }
}

/// Whether a deadline judges the peer: it means that the peer has not answered in time, which unread
/// input may disprove. `true` as well for a deadline noticed so late that a judging one behind it
/// may be handled in the same call.
fn judges(reason: TimeoutReason, now: Instant, at: Instant) -> bool {
    match reason {
        TimeoutReason::SetDeadline => false,
        TimeoutReason::HeartbeatDue | TimeoutReason::Idle | TimeoutReason::Secret => {
            now >= at + LISTEN
        }
        _ => true,
    }
}

/// A runtime that shuts down drops its tasks while their sockets still work: accepted output is
/// written as far as the socket takes it, including the close sent by dropping the last handle.
impl<E: DrivenEndpoint, T: Transport, C: Timer> Drop for Driver<E, T, C> {
    fn drop(&mut self) {
        let closed = self.is_closed();
        if !closed && (!self.endpoint.is_finished() || self.endpoint.flush_on_close()) {
            // If the transport panics, the end is still reported.
            let _reported = catch_unwind(AssertUnwindSafe(|| self.write_last()));
        }
        self.endpoint.abandon();
    }
}

impl<E: DrivenEndpoint, T: Transport, C: Timer> fmt::Debug for Driver<E, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("output", &self.output.len())
            .field("input", &self.input.len())
            .finish_non_exhaustive()
    }
}
