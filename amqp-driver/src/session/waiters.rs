//! Futures that wait for the same condition.

use std::{collections::BTreeMap, task::Waker};

use super::later::Later;

/// The wakers of futures that wait for the same condition, in the order of arrival.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: BTreeMap<u64, Waker>,
    next: u64,
}

/// A future's place among [`Waiters`]. `Some` while it waits.
pub(crate) type Place = Option<u64>;

impl Waiters {
    /// Takes a place, or keeps the current one, and stores the waker.
    pub(crate) fn wait(&mut self, place: &mut Place, waker: Waker, later: &mut Later) {
        let key = *place.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        later.drop_waker(self.waiting.insert(key, waker));
    }

    /// Gives up a place.
    pub(crate) fn leave(&mut self, place: &mut Place, later: &mut Later) {
        if let Some(key) = place.take() {
            later.drop_waker(self.waiting.remove(&key));
        }
    }

    pub(crate) fn wake_all(&mut self, later: &mut Later) {
        for waker in std::mem::take(&mut self.waiting).into_values() {
            later.wake(Some(waker));
        }
    }
}
