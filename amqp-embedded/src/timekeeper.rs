//! The time of the broker itself: expiries of messages and queues.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
};

use amqp_driver::io::Timer;

use crate::shared::{Owner, SharedBroker};

impl SharedBroker {
    /// Returns the task that expires messages and queues in time, which must be spawned and ends
    /// with the broker. `None` while there is one already.
    #[must_use]
    pub fn keep_time<C: Timer>(&self, clock: C) -> Option<Timekeeper<C>> {
        let mut state = self.0.lock();
        if state.timekeeper_running {
            return None;
        }
        state.timekeeper_running = true;
        Some(Timekeeper {
            shared: Arc::downgrade(&self.0.owner),
            clock,
        })
    }
}

/// Expires messages and queues of a broker in time.
#[derive(Debug)]
#[must_use = "it does nothing unless it is spawned"]
pub struct Timekeeper<C> {
    shared: Weak<Owner>,
    clock: C,
}

impl<C: Timer + Unpin> Future for Timekeeper<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        loop {
            let Some(shared) = this.shared.upgrade() else {
                return Poll::Ready(());
            };
            let waker = cx.waker().clone();
            let mut state = shared.lock();
            let due = state.broker.poll_timeout().filter(|_| !state.paused);
            state.alarm = due;
            let replaced = state.timekeeper_waker.replace(waker);
            drop(state);
            drop(replaced);
            if this.clock.poll_deadline(cx, due).is_pending() {
                return Poll::Pending;
            }
            let now = this.clock.now();
            let next = shared.with(|state| {
                state.advance_clock(now);
                state.alarm = None;
                state.broker.handle_timeout(now);
                state.broker.poll_timeout()
            });
            if next.is_some_and(|at| at <= now) {
                // The broker has left work, to let connections run in between.
                this.clock.yield_now(cx);
                return Poll::Pending;
            }
        }
    }
}

impl<C> Drop for Timekeeper<C> {
    fn drop(&mut self) {
        if let Some(shared) = self.shared.upgrade() {
            let mut state = shared.lock();
            state.timekeeper_running = false;
            state.alarm = None;
            let waker = state.timekeeper_waker.take();
            drop(state);
            drop(waker);
        }
    }
}
