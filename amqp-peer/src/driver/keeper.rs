//! The task that keeps the time of a peer, passes decisions on, and starts tasks.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_driver::io::Timer as _;
use amqp_embedded::ServerRuntime;

use super::{
    runner::Runner,
    state::{Phase, State, StoreThread},
};

/// The maximum number of turns before the keeper yields.
const TURNS: usize = 16;

/// Keeps the time of the machine, passes the decisions on received messages on, starts the tasks of
/// listeners and connectors, and ends the peer when it was stopped. The peer ends with it.
pub(super) struct Keeper<R: ServerRuntime> {
    runner: Arc<Runner<R>>,
    clock: R::Clock,
}

impl<R: ServerRuntime> Keeper<R> {
    pub(super) fn new(runner: Arc<Runner<R>>) -> Self {
        let clock = runner.clock();
        Self { runner, clock }
    }
}

impl<R: ServerRuntime> Future for Keeper<R> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let shared = &this.runner.shared;
        for _ in 0..TURNS {
            let settled = shared.take_settled(Some(cx.waker().clone()));
            let waker = cx.waker().clone();
            let turn = shared.at_now(|state, now| {
                state.apply(settled);
                if state.machine.poll_timeout().is_some_and(|due| due <= now) {
                    state.machine.handle_timeout(now);
                }
                let jobs = std::mem::take(&mut state.jobs);
                if jobs.is_empty() {
                    state.end_if_idle();
                }
                let late = matches!(state.phase, Phase::Stopping(until) if until <= now);
                let due = state.keeper_due();
                state.alarm = due;
                let replaced = state.keeper.replace(waker);
                Turn {
                    jobs,
                    is_over: state.is_stopped(),
                    is_late: late,
                    due,
                    replaced,
                }
            });
            drop(turn.replaced);
            if turn.is_over {
                return Poll::Ready(());
            }
            if turn.is_late {
                shared.abort();
                shared.at_now(State::finish);
                return Poll::Ready(());
            }
            let has_run = !turn.jobs.is_empty();
            for job in turn.jobs {
                this.runner.run(job);
            }
            if !has_run && this.clock.poll_deadline(cx, turn.due).is_pending() {
                return Poll::Pending;
            }
        }
        this.clock.yield_now(cx);
        Poll::Pending
    }
}

/// The result of one look at the state.
struct Turn {
    jobs: std::collections::VecDeque<super::runner::Job>,
    is_over: bool,
    is_late: bool,
    due: Option<amqp_core::Instant>,
    replaced: Option<std::task::Waker>,
}

/// A runtime that shuts down drops the keeper: nothing waits for ever then.
impl<R: ServerRuntime> Drop for Keeper<R> {
    fn drop(&mut self) {
        self.runner.shared.abort();
        self.runner.shared.at_now(State::finish);
    }
}

impl State {
    /// The time at which the keeper has something to do.
    fn keeper_due(&self) -> Option<amqp_core::Instant> {
        let stop = match self.phase {
            Phase::Stopping(until) => Some(until),
            Phase::Running | Phase::Stopped => None,
        };
        self.machine.poll_timeout().into_iter().chain(stop).min()
    }

    /// Goes on with a stop: when all tasks have ended, the storage is ended, and then the peer.
    fn end_if_idle(&mut self) {
        if !matches!(self.phase, Phase::Stopping(_)) || self.running > 0 {
            return;
        }
        if self.store.thread == StoreThread::Running {
            self.store.is_ending = true;
            self.after.wakes.extend(self.store.waker.take());
        } else {
            self.finish(self.now);
        }
    }
}
