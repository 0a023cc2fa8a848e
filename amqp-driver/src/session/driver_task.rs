//! The task of a driver, which a command may use for a write on its own thread.
//!
//! ```text
//!           a poll of the task, or a command
//!   free ───────────────────────────────────> in use
//!     ^                                         │
//!     └── it is parked, or the task is woken ───┘
//! ```

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

use super::{
    inline::InlineWrite,
    shared::{ClientEndpoint, Shared},
};
use crate::{
    io::{Driver, Timer, Transport, poll_locked},
    sync::{Mutex, MutexGuard},
};

/// The driver of one life, shared by its task and the commands.
struct Slot<T: Transport, C: Timer>(Mutex<Content<T, C>>);

struct Content<T: Transport, C: Timer> {
    /// `Some` while it is not in use.
    driver: Option<Box<Driver<ClientEndpoint, T, C>>>,
    /// The waker of the task, which was polled while a command used the driver.
    waiting: Option<Waker>,
    /// Whether the task was dropped.
    dropped: bool,
}

impl<T: Transport, C: Timer> Slot<T, C> {
    fn lock(&self) -> MutexGuard<'_, Content<T, C>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Transport + Unpin, C: Timer + Unpin> InlineWrite for Slot<T, C> {
    fn write(&self, task: Waker) {
        // The task is about to park it.
        let Some(mut driver) = self.lock().driver.take() else {
            return task.wake();
        };
        // If it was parked again since, it has done what there was, and `task` may be an old waker.
        let parked = driver.endpoint().is_parked() || driver.write_inline(&task);
        let mut content = self.lock();
        let waiting = content.waiting.take();
        // Its destructor is that of the end of the connection, and takes other locks.
        let ended = if content.dropped {
            Some(driver)
        } else {
            content.driver = Some(driver);
            None
        };
        drop(content);
        drop(ended);
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        if !parked {
            task.wake();
        }
    }
}

impl<T: Transport, C: Timer> fmt::Debug for Slot<T, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot").finish_non_exhaustive()
    }
}

/// The task of a driver that commands may use.
pub(crate) struct DriverTask<T: Transport, C: Timer>(Arc<Slot<T, C>>);

impl<T, C> DriverTask<T, C>
where
    T: Transport + Unpin + 'static,
    C: Timer + Unpin + 'static,
{
    /// Creates the task of the driver of the present life.
    pub(crate) fn new(driver: Driver<ClientEndpoint, T, C>, shared: &Shared) -> Self {
        let slot = Arc::new(Slot(Mutex::new(Content {
            driver: Some(Box::new(driver)),
            waiting: None,
            dropped: false,
        })));
        let inline: Arc<dyn InlineWrite> = Arc::clone(&slot) as _;
        let before = shared.lock().inline.replace(inline);
        drop(before);
        Self(slot)
    }

    /// Whether the transport is closed, so that only the peer's end is awaited.
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
        let free = |content: &mut Content<T, C>| content.driver.take();
        let taken = poll_locked(&slot.0, cx.waker(), free, |content| &mut content.waiting);
        let Poll::Ready(mut driver) = taken else {
            return Poll::Pending;
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
