//! The future that moves the bytes of a connection.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_core::{Endpoint, Instant, TimeoutReason, Transmit};
use bytes::BytesMut;

use super::transport::{Timer, Transport};

/// An [`Endpoint`] that a [`Driver`] can wait on.
pub trait Drive: Endpoint {
    /// Whether bytes are to be read. False while what was delivered piles up.
    fn wants_input(&mut self, now: Instant) -> bool;

    /// Keeps the waker, to be woken at the next command. False, and the waker is not kept, if one
    /// has come since this side looked: there is something to send, which counts only if `output`
    /// says that there is room for it, or to read, or a deadline before the `alarm` that is set, or
    /// it is all over.
    fn park(&mut self, waker: &Waker, output: bool, alarm: Option<Instant>) -> bool;

    /// Whether the peer is still to get what was handed out, now that it is all over, such as the
    /// answer to its close. Otherwise it is gone, or has not listened.
    fn has_last_words(&self) -> bool;

    /// The driver is gone: nothing moves the bytes any more.
    fn abandon(&mut self);
}

/// How many turns a driver takes at most before it lets others run.
const TURNS: usize = 32;

/// How long a driver goes on before it lets others run: little enough that what it reads does not pile up.
const SLICE: Duration = Duration::from_millis(1);

/// How long a transport may take for the last words, and to close, when it is all over. What it
/// has not done then will not be missed.
const LINGER: Duration = Duration::from_secs(5);

/// The least that is read at a time, in bytes.
const READ_MIN: usize = 4 << 10;

/// How often it is read at most after writing has failed: more than a socket keeps, and not for
/// ever from a peer that goes on sending.
const LAST_READS: usize = 256;

/// How long to listen for what the peer has sent before it is judged: after a failed write, which may
/// have a reason, and at a deadline, which may have been noticed late.
///
/// A process that was stopped, as by SIGSTOP, a debugger or a paused virtual machine, finds its
/// deadlines past and its input unread, and on Linux the poll for input may be interrupted once
/// (`epoll_wait` gives EINTR). So the runtime gets another turn, with a timer, to say what there is to
/// read.
const LISTEN: Duration = Duration::from_millis(20);

/// The most that is read at a time, in bytes: what a consumer of small messages is fastest with.
pub(crate) const READ_MAX: usize = 128 << 10;

/// Moves the bytes of one connection between its machine and its transport, and keeps its time. It
/// ends when the connection has, and the transport is closed.
///
/// Spawn it, or poll it along with the rest. Dropping it ends the connection at once: what the
/// transport takes without waiting is written, and every future that waits gets a reason.
pub struct Driver<E: Drive, T: Transport, C: Timer> {
    endpoint: E,
    transport: T,
    clock: C,
    /// What the machine has handed out and the transport not yet taken.
    output: Transmit,
    /// Something was written since the last flush.
    unflushed: bool,
    /// What was read and the machine not yet taken: part of a frame.
    input: BytesMut,
    /// How much to read at a time, in bytes.
    read_size: usize,
    /// The transport gives nothing more, or takes nothing more.
    ended: bool,
    /// Writing has failed, and until when to listen for the reason.
    broken: Option<(io::Error, Instant)>,
    /// A deadline that judges the peer has passed, and until when to listen before it does.
    overdue: Option<(Instant, Instant)>,
    /// When to leave the transport to itself; none while the connection lives.
    leave_at: Option<Instant>,
}

impl<E: Drive, T: Transport, C: Timer> Driver<E, T, C> {
    /// A driver of that endpoint over that transport, by that clock.
    pub fn new(endpoint: E, transport: T, clock: C) -> Self {
        Self {
            endpoint,
            transport,
            clock,
            output: Transmit::new(),
            unflushed: false,
            input: BytesMut::new(),
            read_size: READ_MIN,
            ended: false,
            broken: None,
            overdue: None,
            leave_at: None,
        }
    }

    /// What it drives.
    pub const fn endpoint(&self) -> &E {
        &self.endpoint
    }

    /// Writes what there is to write. Ready if it moved anything.
    fn write(&mut self, cx: &mut Context<'_>) -> bool {
        if self.output.is_empty() {
            self.endpoint
                .poll_transmit(self.clock.now(), &mut self.output);
        }
        let mut moved = false;
        while !self.output.is_empty() {
            match self.transport.poll_write(cx, &mut self.output) {
                Poll::Ready(Ok(0)) => self.failed(cx, io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(_)) => {
                    moved = true;
                    self.unflushed = true;
                }
                Poll::Ready(Err(error)) => self.failed(cx, error),
                Poll::Pending => break,
            }
        }
        if moved && !self.output.is_empty() {
            self.endpoint.handle_written(self.clock.now());
        }
        if self.unflushed && self.output.is_empty() {
            match self.transport.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(error)) => self.failed(cx, error),
                Poll::Pending => {}
            }
        }
        moved
    }

    /// Reads once. True if it got anything.
    fn read(&mut self, cx: &mut Context<'_>) -> bool {
        let wanted = self.read_size.max(self.endpoint.read_hint().min(READ_MAX));
        self.input.reserve(wanted);
        match self.transport.poll_read(cx, &mut self.input) {
            Poll::Ready(Ok(0)) => {
                self.end();
                true
            }
            Poll::Ready(Ok(count)) => {
                if count >= wanted {
                    self.read_size = (self.read_size * 2).min(READ_MAX);
                } else if count < self.read_size / 4 {
                    self.read_size = (self.read_size / 2).max(READ_MIN);
                }
                self.endpoint
                    .handle_input(self.clock.now(), &mut self.input);
                true
            }
            // TLS tells an end without a goodbye from one with it. AMQP has a goodbye of its own.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.end();
                true
            }
            Poll::Ready(Err(error)) => {
                self.fail(&error);
                true
            }
            Poll::Pending => false,
        }
    }

    /// The peer sends nothing more.
    fn end(&mut self) {
        self.ended = true;
        self.endpoint.handle_eof(self.clock.now());
    }

    /// Writing has failed. The peer may have said why before it hung up, so that what it sent is
    /// read first: also what the runtime has not heard of yet.
    fn failed(&mut self, cx: &mut Context<'_>, error: io::Error) {
        self.output.clear();
        self.unflushed = false;
        for _ in 0..LAST_READS {
            if self.ended || self.endpoint.is_finished() {
                return;
            }
            if !self.read(cx) {
                self.broken = Some((error, self.clock.now() + LISTEN));
                return;
            }
        }
        self.fail(&error);
    }

    /// Fails if writing has failed and nothing more was heard since.
    fn give_up(&mut self) {
        let now = self.clock.now();
        if let Some((error, _)) = self.broken.take_if(|(_, until)| *until <= now) {
            self.fail(&error);
        }
    }

    /// When the endpoint wants to be called: for a deadline that judges the peer not before all was
    /// read that came until then.
    fn due(&self, deadline: Option<(Instant, TimeoutReason)>) -> Option<Instant> {
        let (at, _) = deadline?;
        match self.overdue {
            Some((deadline, until)) if deadline == at => Some(until),
            _ => Some(at),
        }
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

    /// Hands the transport all that it takes at once: nothing will drive it any more.
    fn write_last(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..TURNS {
            if self.ended || self.broken.is_some() || !self.write(&mut cx) {
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

    /// It is all over: sends the last words and closes the transport. Ready when that is done, or
    /// takes too long.
    fn leave(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let now = self.clock.now();
        let at = *self.leave_at.get_or_insert(now + LINGER);
        if self.ended || !self.endpoint.has_last_words() {
            self.output.clear();
            self.unflushed = false;
        }
        let said = self.output.is_empty() && !self.unflushed;
        if said && self.transport.poll_close(cx).is_ready() {
            // An error of the transport at its end changes no outcome.
            return Poll::Ready(());
        }
        self.clock.poll_deadline(cx, Some(at))
    }

    /// Gives back what an idle connection does not need.
    fn shrink(&mut self) {
        if self.input.is_empty() && self.input.capacity() > READ_MIN {
            self.input = BytesMut::new();
        }
    }
}

impl<E: Drive, T: Transport, C: Timer> Future for Driver<E, T, C>
where
    Self: Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let until = this.clock.now() + SLICE;
        for turn in 0..TURNS {
            if turn > 0 && this.clock.now() >= until {
                break;
            }
            let mut moved = this.broken.is_none() && this.write(cx);
            if !this.ended && this.endpoint.wants_input(this.clock.now()) {
                moved |= this.read(cx);
            }
            if this.endpoint.is_finished() {
                if this.leave(cx).is_ready() {
                    return Poll::Ready(());
                }
                if !moved {
                    return Poll::Pending;
                }
                continue;
            }
            let broken = this.broken.as_ref().map(|(_, until)| *until);
            let deadline = this.endpoint.poll_timeout();
            let at = this.due(deadline).into_iter().chain(broken).min();
            if this.clock.poll_deadline(cx, at).is_ready() {
                this.give_up();
                // All that was handed out may have been written since.
                if this.output.is_empty() && this.broken.is_none() {
                    this.write(cx);
                }
                this.handle_timeout();
                moved = true;
            }
            let room = this.output.is_empty() && this.broken.is_none();
            let known = deadline.map(|(at, _)| at).into_iter().chain(broken).min();
            if !moved && this.endpoint.park(cx.waker(), room, known) {
                this.shrink();
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whether a deadline says that the peer has not answered in time, which input may still disprove; or
/// is noticed so late that one behind it may, which is handled in the same call.
fn judges(reason: TimeoutReason, now: Instant, at: Instant) -> bool {
    match reason {
        TimeoutReason::SetDeadline => false,
        TimeoutReason::HeartbeatDue | TimeoutReason::Secret => now >= at + LISTEN,
        _ => true,
    }
}

/// A runtime that shuts down drops its tasks while their sockets still work: what was accepted leaves
/// as far as the socket takes it, the close that the last handle has left included.
impl<E: Drive, T: Transport, C: Timer> Drop for Driver<E, T, C> {
    fn drop(&mut self) {
        if !self.endpoint.is_finished() || self.endpoint.has_last_words() {
            self.write_last();
        }
        self.endpoint.abandon();
    }
}

impl<E: Drive, T: Transport, C: Timer> fmt::Debug for Driver<E, T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver")
            .field("output", &self.output.len())
            .field("input", &self.input.len())
            .finish_non_exhaustive()
    }
}
