//! The lock that a connection's handles and its driver share.

use std::{
    fmt,
    future::{Future, poll_fn},
    mem,
    pin::{Pin, pin},
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_core::{
    ChannelId, CloseCause, Endpoint, Instant, RequestId, TimeoutReason, Timeouts, Transmit,
    client::{self, GetMessage},
    protocol::Method,
};
use bytes::BytesMut;

use super::{
    alarms::AlarmId,
    later::Later,
    slots::Answer,
    state::State,
    waiters::{Place, Waiters},
};
use crate::{
    error::Error,
    io::{Clock, DrivenEndpoint, wake_all},
    sync::{Mutex, MutexGuard},
    unless::unless,
};

/// A connection's state, behind its one lock.
///
/// The lock is never held across an await, a system call or foreign code: wakers are cloned before
/// it is taken, and wakers and bodies are woken and dropped after it is released; see [`Later`].
pub(crate) struct Shared {
    state: Mutex<State>,
    timeouts: Timeouts,
    clock: Clock,
}

impl Shared {
    pub(crate) fn new(
        machine: client::Connection,
        timeouts: Timeouts,
        clock: Clock,
        #[cfg(feature = "tracing")] trace: crate::trace::Trace,
    ) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State::new(
                machine,
                #[cfg(feature = "tracing")]
                trace,
            )),
            timeouts,
            clock,
        })
    }

    pub(crate) const fn timeouts(&self) -> &Timeouts {
        &self.timeouts
    }

    /// The driver's time.
    pub(crate) fn now(&self) -> Instant {
        (self.clock)()
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in a critical section panics. If it does, the state is still the best available.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registers the waker of the task that takes the place of the driver between two lives, and
    /// returns the next deadline of the handles.
    pub(crate) fn await_command(&self, waker: &Waker) -> Option<Instant> {
        let waker = waker.clone();
        let mut state = self.lock();
        let before = state.driver.replace(waker);
        let next = state.next_deadline();
        drop(state);
        drop(before);
        next
    }

    /// Runs `act` under the lock, and the effects that it defers after it. Wakes the driver if the
    /// machine has received a command, or paused reading can resume. A command that is awaited, and
    /// no other, is written at once instead.
    #[inline]
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut State, &mut Later) -> T) -> T {
        let mut later = Later::default();
        let mut state = self.lock();
        let result = act(&mut state, &mut later);
        let alone = mem::take(&mut state.alone);
        let driver = if later.commanded || (state.reading_paused && state.wants_input()) {
            state.driver.take()
        } else {
            None
        };
        let inline = match &state.inline {
            Some(inline) if alone && driver.is_some() => Some(Arc::clone(inline)),
            _ => None,
        };
        state.written_inline |= inline.is_some();
        let lent = if later.waits { state.lendable() } else { None };
        drop(state);
        later.run();
        if let Some(driver) = driver {
            match inline {
                Some(inline) => inline.write(driver),
                None => driver.wake(),
            }
        }
        if let Some(lent) = lent {
            lent.lend();
        }
        result
    }

    /// As [`with`](Self::with), for a command to the machine.
    #[inline]
    pub(crate) fn command<T>(&self, command: impl FnOnce(&mut State) -> T) -> T {
        self.with(|state, later| {
            later.commanded = true;
            command(state)
        })
    }

    /// As [`command`](Self::command), and processes the resulting events.
    pub(crate) fn command_and_process<T>(
        &self,
        command: impl FnOnce(&mut State, &mut Later) -> T,
    ) -> T {
        self.with(|state, later| {
            later.commanded = true;
            let result = command(state, later);
            state.process_events(later);
            result
        })
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// The error for an answer that does not fit its request.
const WRONG: Error = Error::Internal("the answer is of another type");

/// The wait for the answer to a request.
///
/// Dropping it abandons the request: a late answer is undone.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    shared: &'a Shared,
    channel: Option<ChannelId>,
    request: Option<RequestId>,
    #[cfg(feature = "tracing")]
    trace: crate::trace::RequestTrace,
}

impl<'a> Wait<'a> {
    /// Waits for a request that was just made under this state.
    pub(crate) fn new(
        shared: &'a Shared,
        state: &mut State,
        channel: Option<ChannelId>,
        request: RequestId,
    ) -> Self {
        state.expect(request);
        Self {
            shared,
            channel,
            request: Some(request),
            #[cfg(feature = "tracing")]
            trace: crate::trace::RequestTrace::default(),
        }
    }

    /// The reply, as the method type that the request expects.
    pub(crate) async fn reply<R: TryFrom<Method>>(self) -> Result<R, Error> {
        match self.await? {
            Answer::Reply(method) => R::try_from(method).map_err(|_| WRONG),
            Answer::Got(_) | Answer::Failed(_) => Err(WRONG),
        }
    }

    /// The message of a `basic.get-ok`, or `None` for `basic.get-empty`.
    pub(crate) async fn message(self) -> Result<Option<GetMessage>, Error> {
        match self.await? {
            Answer::Got(message) => Ok(message),
            Answer::Reply(_) | Answer::Failed(_) => Err(WRONG),
        }
    }
}

impl Future for Wait<'_> {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(request) = self.request else {
            return Poll::Pending;
        };
        #[cfg(feature = "tracing")]
        {
            let (shared, channel) = (self.shared, self.channel);
            self.trace.begin(shared, channel, request);
        }
        let waker = cx.waker().clone();
        let answer = self.shared.with(|state, later| {
            let answer = state.take_answer(request);
            if answer.is_pending() {
                later.waits = true;
                state.await_answer(request, waker, later);
            } else {
                later.drop_waker(Some(waker));
            }
            answer
        });
        if answer.is_ready() {
            self.request = None;
        }
        #[cfg(feature = "tracing")]
        if let Poll::Ready(answer) = &answer {
            let shared = self.shared;
            self.trace.end(shared, answer);
        }
        answer
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.shared
                .with(|state, later| state.abandon(self.channel, request, later));
        }
    }
}

/// Waits until a condition holds. It is checked whenever `waiters` are woken.
pub(crate) async fn wait_for<T>(
    shared: &Shared,
    waiters: fn(&mut State) -> &mut Waiters,
    condition: impl Fn(&State) -> Option<T>,
) -> T {
    let mut waiting = Waiting {
        shared,
        waiters,
        place: None,
    };
    poll_fn(move |cx| waiting.poll(cx, &condition)).await
}

/// A place among waiters, left on drop.
pub(crate) struct Waiting<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) waiters: fn(&mut State) -> &mut Waiters,
    pub(crate) place: Place,
}

impl Waiting<'_> {
    pub(crate) fn poll<T>(
        &mut self,
        cx: &Context<'_>,
        condition: impl Fn(&State) -> Option<T>,
    ) -> Poll<T> {
        let waker = cx.waker().clone();
        self.shared.with(|state, later| match condition(state) {
            Some(value) => {
                later.drop_waker(Some(waker));
                Poll::Ready(value)
            }
            None => {
                (self.waiters)(state).wait(&mut self.place, waker, later);
                Poll::Pending
            }
        })
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.shared
                .with(|state, later| (self.waiters)(state).leave(&mut self.place, later));
        }
    }
}

/// A deadline by the driver's clock, counted from the first poll; `after` is `None` for no
/// deadline. On a connection that has ended the clock has stopped, and the deadline has passed.
#[derive(Debug)]
pub(crate) struct Alarm<'a> {
    shared: &'a Shared,
    after: Option<Duration>,
    id: Option<AlarmId>,
}

impl<'a> Alarm<'a> {
    pub(crate) const fn new(shared: &'a Shared, after: Option<Duration>) -> Self {
        Self {
            shared,
            after,
            id: None,
        }
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let Some(after) = self.after else {
            return Poll::Pending;
        };
        let waker = cx.waker().clone();
        self.shared.with(|state, later| match self.id {
            _ if state.closed.is_some() => {
                later.drop_waker(Some(waker));
                Poll::Ready(())
            }
            Some(id) => match state.alarms.update(id, waker, later) {
                true => Poll::Pending,
                false => Poll::Ready(()),
            },
            None => {
                self.id = Some(state.alarms.add(after, waker));
                // The driver sets the deadline.
                later.commanded = true;
                Poll::Pending
            }
        })
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            self.shared
                .with(|state, later| state.alarms.remove(id, later));
        }
    }
}

/// The output of `future`. `None` if it takes longer than `limit`.
pub(crate) async fn within<T>(
    shared: &Shared,
    limit: Option<Duration>,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut alarm = Alarm::new(shared, limit);
    unless(poll_fn(|cx| alarm.poll(cx)), pin!(future))
        .await
        .ok()
}

/// The driver's end of a client's connection, for one life of it.
#[derive(Debug)]
pub struct ClientEndpoint {
    shared: Arc<Shared>,
    life: u32,
}

impl ClientEndpoint {
    /// The end of the present life.
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let life = shared.lock().life;
        Self { shared, life }
    }

    /// Whether the driver sleeps until a command wakes it.
    pub(crate) fn is_parked(&self) -> bool {
        self.shared.lock().driver.is_some()
    }

    /// Takes the waker that is to be woken once the driver is parked.
    pub(crate) fn take_answered(&self) -> Option<Waker> {
        self.shared.lock().answered.take()
    }

    /// Ends the life of the connection at once, if it is still the present one.
    pub(crate) fn end(&self, why: &str) {
        let now = self.shared.now();
        self.shared.with(|state, later| {
            if state.life != self.life {
                return;
            }
            state.note_time(now);
            state.machine.handle_transport_error(now, why);
            state.process_events(later);
        });
    }

    /// Runs `act`, processes the resulting events and advances the clock.
    fn tell<T>(&self, now: Instant, act: impl FnOnce(&mut State) -> T) -> T {
        self.shared.with(|state, later| {
            state.note_time(now);
            let result = act(state);
            state.process_events(later);
            state.advance(now, later);
            result
        })
    }
}

impl Endpoint for ClientEndpoint {
    fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        self.shared.with(|state, later| {
            later.wake(state.answered.take());
            state.note_time(now);
            state.written_inline = false;
            state.machine.handle_input(now, input);
            state.process_events(later);
            state.advance(now, later);
            if state.is_lending() {
                state.answered = later.take_answered();
            }
        });
        let mut state = self.shared.lock();
        if !state.reading_paused && !state.wants_input() {
            state.reading_paused = true;
            state.begin_stall(now, self.shared.timeouts.unread);
            state.machine.set_reading(now, false);
        }
    }

    fn handle_eof(&mut self, now: Instant) {
        self.tell(now, |state| state.machine.handle_eof(now));
    }

    fn handle_reset(&mut self, now: Instant, message: &str) {
        self.tell(now, |state| state.machine.handle_reset(now, message));
    }

    fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.tell(now, |state| {
            state.machine.handle_transport_error(now, message);
        });
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.shared.with(|state, later| {
            // A due deadline of the session that precedes the machine's is handled alone: the
            // machine's timeouts judge the server.
            state.note_time(now);
            let machine = state.machine.poll_timeout().map(|(at, _)| at);
            let own = state.next_deadline().filter(|&own| own <= now);
            if own.is_none_or(|own| machine.is_some_and(|at| at < own)) {
                state.machine.handle_timeout(now);
                state.process_events(later);
            }
            state.advance(now, later);
        });
    }

    fn handle_written(&mut self, now: Instant) {
        self.shared.lock().machine.handle_written(now);
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.shared.with(|state, later| {
            state.note_time(now);
            later.drop_bodies(state.machine.take_discarded());
            state.begin_due_rounds(later);
            let more = state.machine.poll_transmit(now, out);
            // The driver calls again when the transport has taken all output.
            state.in_transit = more;
            state.flushers.wake_all(later);
            state.process_events(later);
            more
        })
    }

    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        let state = self.shared.lock();
        let own = state
            .next_deadline()
            .map(|at| (at, TimeoutReason::SetDeadline));
        own.into_iter().chain(state.machine.poll_timeout()).min()
    }

    fn read_hint(&self) -> usize {
        self.shared.lock().machine.read_hint()
    }

    fn frame_hint(&self) -> usize {
        self.shared.lock().machine.frame_hint()
    }

    fn is_finished(&self) -> bool {
        self.shared.lock().machine.is_finished()
    }
}

impl DrivenEndpoint for ClientEndpoint {
    fn wants_input(&mut self, now: Instant) -> bool {
        let mut state = self.shared.lock();
        if state.reading_paused {
            if state.wants_input() {
                state.reading_paused = false;
                state.overfull = false;
                state.stalled_at = None;
                state.machine.set_reading(now, true);
            } else if state.stalled_at.is_none() {
                // There was progress, or reading is paused for unsent output.
                state.begin_stall(now, self.shared.timeouts.unread);
            }
        }
        !state.reading_paused
    }

    fn register_waker(&mut self, waker: &Waker, output: bool, alarm: Option<Instant>) -> bool {
        let waker = waker.clone();
        let mut state = self.shared.lock();
        let readable = state.reading_paused && state.wants_input();
        let writable = output && state.machine.has_transmit();
        let machine = state.machine.poll_timeout().map(|(at, _)| at);
        let due = machine.into_iter().chain(state.next_deadline()).min();
        let earlier = due.is_some_and(|due| alarm.is_none_or(|alarm| due < alarm));
        let parked = !(readable || writable || earlier || state.machine.is_finished());
        // Due once the tasks with a grant have had their chance to run.
        let next_round = output && state.is_round_due();
        state.round_due = next_round;
        let again = next_round.then(|| waker.clone());
        let mut later = Later::default();
        if output {
            // The transport has taken all output, of which an inline write does not ask again.
            state.in_transit = false;
            state.flushers.wake_all(&mut later);
        }
        let before = if parked {
            state.driver.replace(waker)
        } else {
            Some(waker)
        };
        drop(state);
        later.run();
        drop(before);
        again.into_iter().for_each(Waker::wake);
        parked
    }

    fn flush_on_close(&self) -> bool {
        let state = self.shared.lock();
        let reason = state.machine.close_reason();
        reason.is_some_and(|reason| {
            !matches!(
                reason.cause(),
                CloseCause::Eof { .. } | CloseCause::Transport { .. } | CloseCause::TimedOut(_)
            )
        })
    }

    fn abandon(&mut self) {
        wake_all(self.take_answered());
        self.end("the driver was dropped");
    }
}
