//! Tasks that wait for a change of the state.

use std::{
    collections::BTreeMap,
    future::poll_fn,
    sync::{Mutex, PoisonError},
    task::Waker,
};

use amqp_driver::io::poll_locked;

use super::{shared::Shared, state::State};

/// The tasks that wait for one kind of change, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    last: u64,
    /// The wakers. `None` after the waiter was woken, or before its first poll.
    wakers: BTreeMap<u64, Option<Waker>>,
}

impl Waiters {
    pub(super) fn is_empty(&self) -> bool {
        self.wakers.is_empty()
    }

    pub(super) fn add(&mut self) -> u64 {
        self.last += 1;
        self.wakers.insert(self.last, None);
        self.last
    }

    /// Whether a waiter is the first one.
    pub(super) fn is_first(&self, key: u64) -> bool {
        self.wakers.keys().next() == Some(&key)
    }

    /// Removes a waiter. Its waker is to be dropped after the lock is released.
    #[must_use]
    pub(super) fn remove(&mut self, key: u64) -> Option<Waker> {
        self.wakers.remove(&key).flatten()
    }

    pub(super) fn slot(&mut self, key: u64) -> &mut Option<Waker> {
        self.wakers.entry(key).or_default()
    }

    pub(super) fn wake_first(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.wakers.values_mut().next().and_then(Option::take));
    }

    pub(super) fn wake_all(&mut self, wakes: &mut Vec<Waker>) {
        wakes.extend(self.wakers.values_mut().filter_map(Option::take));
    }
}

/// A place in a set of waiters, left on drop.
struct Place<'a> {
    state: &'a Mutex<State>,
    set: fn(&mut State) -> &mut Waiters,
    key: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let waker = (self.set)(&mut state).remove(self.key);
        drop(state);
        drop(waker);
    }
}

/// Waits until `ready` returns `Some`. It is called now, and when the set is woken.
pub(super) async fn wait_for<T>(
    shared: &Shared,
    set: fn(&mut State) -> &mut Waiters,
    mut ready: impl FnMut(&mut State) -> Option<T>,
) -> T {
    let place = {
        let mut state = shared.lock();
        if let Some(value) = ready(&mut state) {
            return value;
        }
        Place {
            state: shared.mutex(),
            set,
            key: set(&mut state).add(),
        }
    };
    let key = place.key;
    poll_fn(|cx| {
        poll_locked(shared.mutex(), cx.waker(), &mut ready, |state| {
            set(state).slot(key)
        })
    })
    .await
}
