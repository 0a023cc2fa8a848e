//! The prefetch of a group, on this side.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Waker},
};

/// The number of deliveries that a group may have handed out. Held by all handles of the group.
#[derive(Debug)]
pub(super) struct Credits(Mutex<State>);

#[derive(Debug)]
struct State {
    /// 0 for no bound.
    prefetch: u16,
    /// The number of deliveries that were handed out and are not settled.
    used: usize,
    /// The task that polls the group.
    task: Option<Waker>,
}

/// A part of the prefetch of a [`ConsumerGroup`](crate::ConsumerGroup), in use until it is dropped.
#[must_use = "dropped, it lets the group yield another delivery"]
pub struct GroupCredit(Arc<Credits>);

impl Credits {
    pub(super) fn new(prefetch: u16) -> Arc<Self> {
        Arc::new(Self(Mutex::new(State {
            prefetch,
            used: 0,
            task: None,
        })))
    }

    pub(super) fn prefetch(&self) -> u16 {
        self.lock().prefetch
    }

    pub(super) fn used(&self) -> usize {
        self.lock().used
    }

    /// Changes the prefetch, and wakes the group.
    pub(super) fn set_prefetch(&self, prefetch: u16) {
        let mut state = self.lock();
        state.prefetch = prefetch;
        let task = state.task.take();
        drop(state);
        task.into_iter().for_each(Waker::wake);
    }

    /// Registers the task, to be woken when the prefetch is changed or credit is released. Returns
    /// the prefetch, and whether there is credit.
    pub(super) fn look(&self, cx: &Context<'_>) -> (u16, bool) {
        let waker = cx.waker().clone();
        let mut state = self.lock();
        let replaced = state.task.replace(waker);
        let prefetch = state.prefetch;
        let free = prefetch == 0 || state.used < usize::from(prefetch);
        drop(state);
        drop(replaced);
        (prefetch, free)
    }

    pub(super) fn take(self: &Arc<Self>) -> GroupCredit {
        self.lock().used += 1;
        GroupCredit(Arc::clone(self))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GroupCredit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.used = state.used.saturating_sub(1);
        let task = state.task.take();
        drop(state);
        task.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for GroupCredit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupCredit").finish_non_exhaustive()
    }
}
