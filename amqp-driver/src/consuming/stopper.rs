//! The end of a loop from outside.

use std::{
    fmt,
    future::poll_fn,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use crate::{
    session::{
        later::Later,
        waiters::{Place, Waiters},
    },
    sync::{Mutex, MutexGuard},
};

/// Drains a loop over deliveries from any task or thread. Clones belong to the same loop.
///
/// See [`ForEach::stopper`](crate::ForEach::stopper).
#[derive(Clone)]
pub struct Stopper(Arc<Signal>);

/// The result of a [drain](Stopper::drain): the end of everything that was open when it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Drained {
    /// Bodies that have run to their end since the drain began.
    pub handled: u64,
    /// Deliveries that were buffered and requeued without a call of the body.
    pub requeued: u64,
    /// Bodies that were interrupted at the deadline. Their messages are requeued.
    pub unfinished: u64,
    /// Publishes that were not confirmed at the deadline: of the channel in
    /// [`ForEachOptions::publisher`](crate::ForEachOptions::publisher), and of the consumer's
    /// channel.
    pub unconfirmed: u64,
    /// Whether the server has processed all acknowledgements.
    pub acks_processed: bool,
}

impl fmt::Display for Drained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            handled,
            requeued,
            unfinished,
            unconfirmed,
            acks_processed,
        } = self;
        write!(
            f,
            "drained: {handled} handled, {requeued} requeued, {unfinished} unfinished, \
             {unconfirmed} unconfirmed"
        )?;
        if !acks_processed {
            f.write_str(", acknowledgements perhaps not processed")?;
        }
        Ok(())
    }
}

impl Stopper {
    /// Ends the loop in good order, and waits for its end: cancels the consumer, requeues or hands out
    /// the deliveries that are buffered, and waits for the bodies that run, for acknowledgements and
    /// for confirms. At the deadline, by the connection's clock, bodies that run are interrupted and
    /// their messages requeued.
    ///
    /// A second call replaces the deadline, counted from then. The clock of a connection that has
    /// ended has stopped: the deadline has passed. A loop that ends for another reason, or
    /// is dropped, ends the drain as well.
    ///
    /// # Cancel safety
    /// Once polled, the loop is being drained, and dropping it only drops the wait.
    pub async fn drain(&self, deadline: Duration) -> Drained {
        self.0.with(|state, later| {
            state.requests += 1;
            state.deadline = deadline;
            later.wake(state.task.take());
        });
        let mut waiting = Waiting {
            signal: &self.0,
            place: None,
        };
        poll_fn(|cx| {
            let waker = cx.waker().clone();
            let place = &mut waiting.place;
            waiting.signal.with(|state, later| match state.ended {
                Some(drained) => {
                    later.drop_waker(Some(waker));
                    Poll::Ready(drained)
                }
                None => {
                    state.waiters.wait(place, waker, later);
                    Poll::Pending
                }
            })
        })
        .await
    }

    /// Whether the loop has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.0.lock().ended.is_some()
    }

    pub(super) fn new() -> Self {
        Self(Arc::default())
    }

    pub(super) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.0)
    }
}

impl fmt::Debug for Stopper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stopper")
            .field("has_ended", &self.has_ended())
            .finish_non_exhaustive()
    }
}

/// The state shared by a loop and its stoppers.
#[derive(Default)]
pub(super) struct Signal(Mutex<State>);

#[derive(Default)]
struct State {
    /// The number of calls of `drain`, and the deadline of the last one.
    requests: u64,
    deadline: Duration,
    /// The task of the loop.
    task: Option<Waker>,
    /// The result. `Some` once the loop has ended.
    ended: Option<Drained>,
    waiters: Waiters,
}

impl Signal {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, act: impl FnOnce(&mut State, &mut Later) -> T) -> T {
        let mut later = Later::default();
        let mut state = self.lock();
        let result = act(&mut state, &mut later);
        drop(state);
        later.run();
        result
    }

    /// Registers the task of the loop. Returns the deadline of the last request if there are more
    /// than `seen`, which it updates.
    pub(super) fn look(&self, cx: &Context<'_>, seen: &mut u64) -> Option<Duration> {
        let waker = cx.waker().clone();
        self.with(|state, later| {
            later.drop_waker(state.task.replace(waker));
            let is_new = state.requests > *seen;
            *seen = state.requests;
            is_new.then_some(state.deadline)
        })
    }

    /// Reports the end of the loop. The first report counts.
    pub(super) fn end(&self, drained: Drained) {
        self.with(|state, later| {
            state.ended.get_or_insert(drained);
            later.drop_waker(state.task.take());
            state.waiters.wake_all(later);
        });
    }
}

/// A place among the waiters, left on drop.
struct Waiting<'a> {
    signal: &'a Signal,
    place: Place,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.signal
                .with(|state, later| state.waiters.leave(&mut self.place, later));
        }
    }
}
