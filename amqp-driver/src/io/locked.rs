//! Waiting for a condition behind a lock, and waking those that wait.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::PoisonError,
    task::{Poll, Waker},
};

use crate::sync::Mutex;

/// Checks a condition behind a lock. If it does not hold, stores the waker of the task in a slot
/// behind the same lock.
///
/// `ready` returns `Some` if the condition holds. It may be called twice.
///
/// No code of the application runs under the lock: the waker is cloned, and a replaced one is
/// dropped, while the lock is released. Either may use the object that the lock protects.
pub fn poll_locked<S, T>(
    state: &Mutex<S>,
    waker: &Waker,
    mut ready: impl FnMut(&mut S) -> Option<T>,
    slot: impl Fn(&mut S) -> &mut Option<Waker>,
) -> Poll<T> {
    let lock = || state.lock().unwrap_or_else(PoisonError::into_inner);
    let mut state = lock();
    if let Some(value) = ready(&mut state) {
        return Poll::Ready(value);
    }
    // A comparison of pointers, which runs no code of the application.
    if slot(&mut state)
        .as_ref()
        .is_some_and(|it| it.will_wake(waker))
    {
        return Poll::Pending;
    }
    drop(state);
    let waker = waker.clone();
    let mut state = lock();
    // The condition may have changed without the lock.
    if let Some(value) = ready(&mut state) {
        drop(state);
        drop(waker);
        return Poll::Ready(value);
    }
    let replaced = slot(&mut state).replace(waker);
    drop(state);
    drop(replaced);
    Poll::Pending
}

/// Wakes tasks, after the lock is released. A waker that panics does not keep the others from being
/// woken: the panic hook has reported it, and the panic ends here.
pub fn wake_all(wakers: impl IntoIterator<Item = Waker>) {
    for waker in wakers {
        let _reported = catch_unwind(AssertUnwindSafe(|| waker.wake()));
    }
}
