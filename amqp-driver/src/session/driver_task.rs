//! The task of a driver, which a command may use for a write on its own thread.
//!
//! ```text
//!           a poll of the task, or a command
//!   free ───────────────────────────────────> in use ── a panic of a command ──> (ended)
//!     ^                                         │
//!     └── it is parked, or the task is woken ───┘
//! ```

use std::{
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    inline::InlineWrite,
    shared::{ClientEndpoint, Shared},
};
use crate::{
    io::{Driver, Timer, Transport, poll_locked, wake_all},
    sync::{Mutex, MutexGuard},
};

/// The task of the driver of one life. Commands may use the driver if its transport is
/// [inline](Transport::is_inline).
pub(crate) struct DriverTask<T: Transport, C: Timer>(Arc<Slot<T, C>>);

impl<T, C> DriverTask<T, C>
where
    T: Transport + Unpin + 'static,
    C: Timer + Unpin + 'static,
{
    /// Creates the task of the driver of the present life.
    pub(crate) fn new(driver: Driver<ClientEndpoint, T, C>, shared: &Shared) -> Self {
        let is_inline = driver.is_inline();
        let slot = Arc::new(Slot(Mutex::new(Content {
            driver: Some(Box::new(driver)),
            waiting: None,
            dropped: false,
            ended: false,
        })));
        let inline = is_inline.then(|| Arc::clone(&slot) as Arc<dyn InlineWrite>);
        let mut state = shared.lock();
        let before = std::mem::replace(&mut state.inline, inline);
        drop(state);
        drop(before);
        Self(slot)
    }

    /// Whether the transport is closed, so that only the peer's end is awaited. `false` while a
    /// command uses the driver, which wakes the task.
    pub(crate) fn is_closed(&self) -> bool {
        let content = self.0.lock();
        content.driver.as_ref().is_some_and(|it| it.is_closed())
    }
}

impl<T, C> Future for DriverTask<T, C>
where
    T: Transport + Unpin,
    C: Timer + Unpin,
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let slot = &self.0;
        let free = |content: &mut Content<T, C>| match content.driver.take() {
            None if content.ended => Some(None),
            driver => driver.map(Some),
        };
        let taken = poll_locked(&slot.0, cx.waker(), free, |content| &mut content.waiting);
        let mut driver = match taken {
            Poll::Ready(Some(driver)) => driver,
            Poll::Ready(None) => return Poll::Ready(()),
            Poll::Pending => return Poll::Pending,
        };
        let polled = Pin::new(&mut *driver).poll(cx);
        if polled.is_pending() {
            slot.lock().driver = Some(driver);
        }
        polled
    }
}

impl<T: Transport, C: Timer> Drop for DriverTask<T, C> {
    fn drop(&mut self) {
        let mut content = self.0.lock();
        content.dropped = true;
        let (driver, waiting) = (content.driver.take(), content.waiting.take());
        drop(content);
        drop((driver, waiting));
    }
}

/// The driver, shared by its task and the commands.
struct Slot<T: Transport, C: Timer>(Mutex<Content<T, C>>);

struct Content<T: Transport, C: Timer> {
    /// `Some` while it is free.
    driver: Option<Box<Driver<ClientEndpoint, T, C>>>,
    /// The waker of the task, which was polled while a command used the driver.
    waiting: Option<Waker>,
    /// Whether the task was dropped. A command that uses the driver meanwhile drops it.
    dropped: bool,
    /// Whether a write of a command has panicked, which has ended the life.
    ended: bool,
}

impl<T: Transport, C: Timer> Slot<T, C> {
    fn lock(&self) -> MutexGuard<'_, Content<T, C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Transport + Unpin, C: Timer + Unpin> InlineWrite for Slot<T, C> {
    fn write(&self, task: Waker) {
        let taken = self.lock().driver.take();
        let Some(mut driver) = taken else {
            // The task is about to park it, or another command uses it.
            return task.wake();
        };
        // If it was parked again since, `task` may be an old waker, which must not be registered.
        let mut write = || !driver.endpoint().is_parked() && driver.write_inline(&task);
        // The panic of a transport or of the destructor of a body, which the panic hook has reported,
        // is not the caller's. It ends the life; a connection with recovery begins another one.
        let written = catch_unwind(AssertUnwindSafe(&mut write));
        let mut content = self.lock();
        let waiting = content.waiting.take();
        content.ended = written.is_err();
        let dropped = if content.dropped || content.ended {
            Some(driver)
        } else {
            content.driver = Some(driver);
            None
        };
        drop(content);
        // Ends the life, if it has not ended.
        let _reported = catch_unwind(AssertUnwindSafe(|| drop(dropped)));
        let parked = matches!(written, Ok(true));
        wake_all(waiting.into_iter().chain((!parked).then_some(task)));
    }
}

impl<T: Transport, C: Timer> fmt::Debug for Slot<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}
