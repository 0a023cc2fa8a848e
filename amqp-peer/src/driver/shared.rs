//! The one lock of a peer, and the tasks that wait for it.

use std::{
    collections::VecDeque,
    fmt, mem,
    sync::{Mutex, MutexGuard, PoisonError},
    task::Waker,
};

use amqp_core::Instant;
use amqp_driver::io::{Clock, wake_all};

use super::{queue::Entry, runner::Job, state::State};
use crate::{
    machine::Token,
    message::Message,
    storage::Batch,
    trace::{Notes, Trace},
};

/// A peer that its drivers, tasks and handles share. The lock is not held across a system call.
/// Wakers are cloned before it is taken, and woken and dropped after it is released, as they may use
/// the peer.
pub(crate) struct Shared {
    state: Mutex<State>,
    claims: Mutex<Claims>,
    clock: Clock,
    pub(super) trace: Trace,
}

/// The received messages that were accepted or requeued. They have a lock of their own, and the
/// keeper passes them on in batches.
#[derive(Debug, Default)]
struct Claims {
    settled: Vec<Settled>,
    keeper: Option<Waker>,
}

/// The decision on a received message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Settled {
    Accepted(Token),
    Requeued(Token),
}

/// The effects of changes, for the time after the lock is released.
#[derive(Debug, Default)]
pub(super) struct Aftermath {
    pub(super) wakes: Vec<Waker>,
    /// The events that are not kept. Their bodies have destructors of the application.
    pub(super) discarded: Vec<Entry>,
    /// The messages that have gone, with their bodies.
    pub(super) messages: Vec<Message>,
    /// The changes that wait for no storage. They contain bodies as well.
    pub(super) batches: Vec<Batch>,
    /// The jobs that do not run: the peer has stopped.
    pub(super) jobs: VecDeque<Job>,
    /// The events for the subscriber of `tracing`.
    pub(super) notes: Notes,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("name", &state.machine.config().name)
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(state: State, clock: Clock, trace: Trace) -> Self {
        Self {
            state: Mutex::new(state),
            claims: Mutex::default(),
            clock,
            trace,
        }
    }

    pub(super) fn now(&self) -> Instant {
        (self.clock)()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing in a critical section panics. If it does, the state is still the best available.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, for [`poll_locked`](amqp_driver::io::poll_locked).
    pub(super) const fn mutex(&self) -> &Mutex<State> {
        &self.state
    }

    /// Runs `act` under the lock, and then wakes the tasks that it affects.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let result = act(&mut state);
        state.collect();
        let aftermath = mem::take(&mut state.after);
        drop(state);
        let Aftermath { wakes, notes, .. } = aftermath;
        self.trace.emit(notes);
        wake_all(wakes);
        result
    }

    /// As [`with`](Self::with), at the present time.
    pub(super) fn at_now<T>(&self, act: impl FnOnce(&mut State, Instant) -> T) -> T {
        let now = self.now();
        self.with(|state| {
            let now = state.advance(now);
            act(state, now)
        })
    }

    /// Notes the decision on a received message. The keeper passes it on.
    pub(super) fn settle(&self, settled: Settled) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        claims.settled.push(settled);
        let keeper = claims.keeper.take();
        drop(claims);
        wake_all(keeper);
    }

    /// Takes the decisions, and registers the keeper for further ones if `waker` is `Some`.
    pub(super) fn take_settled(&self, waker: Option<Waker>) -> Vec<Settled> {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        let settled = mem::take(&mut claims.settled);
        let replaced = waker.map(|waker| claims.keeper.replace(waker));
        drop(claims);
        drop(replaced);
        settled
    }

    /// Ends all links at once.
    pub(super) fn abort(&self) {
        self.with(State::abort_links);
    }

    /// Stops the peer in good order.
    pub(super) fn begin_stop(&self) {
        self.at_now(State::begin_stop);
    }
}
