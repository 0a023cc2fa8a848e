//! Who waits for a condition, and waking them outside the lock.

use std::{
    collections::BTreeMap,
    task::{Context, Waker},
};

/// The wakers of futures that wait for the same condition.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

/// One future's place among [`Waiters`]; none while it does not wait.
pub(crate) type Place = Option<u64>;

impl Waiters {
    /// Takes a place, or renews it.
    pub(crate) fn wait(&mut self, place: &mut Place, cx: &Context<'_>) {
        let key = *place.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        match self.waiting.get_mut(&key) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                self.waiting.insert(key, cx.waker().clone());
            }
        }
    }

    /// Gives up a place.
    pub(crate) fn leave(&mut self, place: &mut Place) {
        if let Some(key) = place.take() {
            self.waiting.remove(&key);
        }
    }

    /// Everyone is to look again.
    pub(crate) fn wake_all(&mut self, wakes: &mut Wakes) {
        wakes
            .0
            .extend(std::mem::take(&mut self.waiting).into_values());
    }
}

/// Wakers that were collected under a lock, to be woken after it.
#[derive(Debug, Default)]
pub(crate) struct Wakes(Vec<Waker>);

impl Wakes {
    pub(crate) fn add(&mut self, waker: Option<Waker>) {
        self.0.extend(waker);
    }

    pub(crate) fn wake(self) {
        for waker in self.0 {
            waker.wake();
        }
    }
}

/// Keeps the waker of the task that waits.
pub(crate) fn keep(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
