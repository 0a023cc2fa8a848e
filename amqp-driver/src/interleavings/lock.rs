//! A lock that is a point of an exploration, and outside of one the lock of `std`.

use std::{
    cell::Cell,
    fmt,
    ops::{Deref, DerefMut},
    sync::{self, LockResult, PoisonError},
};

thread_local! {
    /// Whether this thread runs an exploration. All threads of an exploration are coroutines of one.
    static EXPLORES: Cell<bool> = const { Cell::new(false) };
}

/// Runs `explore` with locks that are points of the exploration.
pub(super) fn exploring<T>(explore: impl FnOnce() -> T) -> T {
    struct End;
    impl Drop for End {
        fn drop(&mut self) {
            EXPLORES.set(false);
        }
    }
    EXPLORES.set(true);
    let _end = End;
    explore()
}

/// As [`std::sync::Mutex`].
pub struct Mutex<T> {
    /// Decides which thread goes on. `Some` if the lock was made in an exploration.
    gate: Option<shuttle::sync::Mutex<()>>,
    value: sync::Mutex<T>,
}

/// As [`std::sync::MutexGuard`].
pub(crate) struct MutexGuard<'a, T> {
    value: sync::MutexGuard<'a, T>,
    /// Dropped last: at its end another thread may run.
    _gate: Option<shuttle::sync::MutexGuard<'a, ()>>,
}

impl<T> Mutex<T> {
    pub(crate) fn new(value: T) -> Self {
        Self {
            gate: EXPLORES.get().then(|| shuttle::sync::Mutex::new(())),
            value: sync::Mutex::new(value),
        }
    }

    pub(crate) fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let gate = self.gate.as_ref();
        let gate = gate.map(|gate| gate.lock().unwrap_or_else(PoisonError::into_inner));
        let guard = |value| MutexGuard { value, _gate: gate };
        match self.value.lock() {
            Ok(value) => Ok(guard(value)),
            Err(poisoned) => Err(PoisonError::new(guard(poisoned.into_inner()))),
        }
    }
}

impl<T: Default> Default for Mutex<T> {
    fn default() -> Self {
        Self::new(T::default())
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

impl<T: fmt::Debug> fmt::Debug for MutexGuard<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.value.fmt(f)
    }
}
