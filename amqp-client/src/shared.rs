//! The lock that a connection's handles and its driver share.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use amqp_core::{
    ChannelId, CloseCause, Endpoint, Instant, RequestId, TimeoutReason, Transmit,
    client::{self, GetMessage},
    protocol::Method,
};
use bytes::BytesMut;

use crate::{
    driver::Drive,
    error::Error,
    state::{Answer, State},
    waiters::Wakes,
};

/// A connection's state, behind the one lock that it has. The lock is never held across an await
/// or a system call, and wakers are woken after it.
#[derive(Debug)]
pub(crate) struct Shared(Mutex<State>);

impl Shared {
    pub(crate) fn new(machine: client::Connection) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State::new(machine))))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in a critical section panics; should it, the state is still the best there is.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives a command, and wakes the driver if it sleeps.
    #[inline]
    pub(crate) fn command<T>(&self, command: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = command(&mut state);
        let driver = state.driver.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// Takes something that was delivered, or waits for it, and wakes the driver if it sleeps because
    /// there was no room for more.
    #[inline]
    pub(crate) fn take<T>(&self, take: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = take(&mut state);
        let room = state.reading_paused && state.wants_input();
        let driver = if room { state.driver.take() } else { None };
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
        result
    }

    /// As [`command`](Self::command), when the command may also wake others.
    pub(crate) fn command_and_pump<T>(
        &self,
        command: impl FnOnce(&mut State, &mut Wakes) -> T,
    ) -> T {
        let mut wakes = Wakes::default();
        let result = self.command(|state| {
            let result = command(state, &mut wakes);
            state.pump(&mut wakes);
            result
        });
        wakes.wake();
        result
    }
}

/// The wait for the answer to a request.
///
/// Dropping it gives the answer up: what it would bring is taken back.
#[derive(Debug)]
pub(crate) struct Wait<'a> {
    shared: &'a Shared,
    channel: Option<ChannelId>,
    request: Option<RequestId>,
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
        }
    }

    /// The answer, of the type that the request's method names.
    pub(crate) async fn reply<R: TryFrom<Method>>(self) -> Result<R, Error> {
        match self.await? {
            Answer::Reply(method) => R::try_from(method).map_err(|_| Error::TimedOut),
            Answer::Got(_) | Answer::Failed(_) => Err(Error::TimedOut),
        }
    }

    /// The message that was fetched.
    pub(crate) async fn message(self) -> Result<Option<GetMessage>, Error> {
        match self.await? {
            Answer::Got(message) => Ok(message),
            Answer::Reply(_) | Answer::Failed(_) => Err(Error::TimedOut),
        }
    }
}

impl Future for Wait<'_> {
    type Output = Result<Answer, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(request) = self.request else {
            return Poll::Pending;
        };
        let answer = self.shared.lock().poll_answer(request, cx);
        if answer.is_ready() {
            self.request = None;
        }
        answer
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if let Some(request) = self.request {
            self.shared
                .command(|state| state.abandon(self.channel, request));
        }
    }
}

/// The driver's end of a client's connection.
#[derive(Debug)]
pub struct ClientEndpoint(pub(crate) Arc<Shared>);

impl ClientEndpoint {
    /// Ends the connection at once.
    pub(crate) fn end(&self, why: &str) {
        // The time does not matter any more.
        self.with(|state| state.machine.handle_transport_error(Instant::ORIGIN, why));
    }

    /// Does something with the machine, and tells everyone whom it concerns.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut wakes = Wakes::default();
        let mut state = self.0.lock();
        let result = act(&mut state);
        state.pump(&mut wakes);
        drop(state);
        wakes.wake();
        result
    }
}

impl Endpoint for ClientEndpoint {
    fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        let mut wakes = Wakes::default();
        let mut state = self.0.lock();
        state.machine.handle_input(now, input);
        state.pump(&mut wakes);
        if !state.reading_paused && !state.wants_input() {
            state.reading_paused = true;
            state.machine.set_reading(now, false);
        }
        drop(state);
        wakes.wake();
    }

    fn handle_eof(&mut self, now: Instant) {
        self.with(|state| state.machine.handle_eof(now));
    }

    fn handle_reset(&mut self, now: Instant, message: &str) {
        self.with(|state| state.machine.handle_reset(now, message));
    }

    fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.with(|state| state.machine.handle_transport_error(now, message));
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.with(|state| state.machine.handle_timeout(now));
    }

    fn handle_written(&mut self, now: Instant) {
        self.0.lock().machine.handle_written(now);
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        let mut wakes = Wakes::default();
        let mut state = self.0.lock();
        let more = state.machine.poll_transmit(now, out);
        // The driver asks for more when all that it had was taken by the transport.
        state.in_transit = more;
        state.flushers.wake_all(&mut wakes);
        state.pump(&mut wakes);
        drop(state);
        wakes.wake();
        more
    }

    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.0.lock().machine.poll_timeout()
    }

    fn read_hint(&self) -> usize {
        self.0.lock().machine.read_hint()
    }

    fn is_finished(&self) -> bool {
        self.0.lock().machine.is_finished()
    }
}

impl Drive for ClientEndpoint {
    fn wants_input(&mut self, now: Instant) -> bool {
        let mut state = self.0.lock();
        if state.reading_paused && state.wants_input() {
            state.reading_paused = false;
            state.machine.set_reading(now, true);
        }
        !state.reading_paused
    }

    fn park(&mut self, waker: &Waker, output: bool, alarm: Option<Instant>) -> bool {
        let mut state = self.0.lock();
        let readable = state.reading_paused && state.wants_input();
        let writable = output && state.machine.has_transmit();
        let due = state.machine.poll_timeout().map(|(at, _)| at);
        let earlier = due.is_some_and(|due| alarm.is_none_or(|alarm| due < alarm));
        if readable || writable || earlier || state.machine.is_finished() {
            return false;
        }
        state.driver = Some(waker.clone());
        true
    }

    fn has_last_words(&self) -> bool {
        let state = self.0.lock();
        let reason = state.machine.close_reason();
        reason.is_some_and(|reason| {
            !matches!(
                reason.cause(),
                CloseCause::Eof { .. } | CloseCause::Transport { .. } | CloseCause::TimedOut(_)
            )
        })
    }

    fn abandon(&mut self) {
        self.end("the driver was dropped");
    }
}
