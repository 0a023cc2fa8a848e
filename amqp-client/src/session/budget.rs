//! The share of a task in its thread.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    task::{Context, Poll},
};

/// Makes a loop that always finds something ready yield now and then, on every runtime: the driver,
/// its heartbeats and other tasks run in between.
#[derive(Debug)]
pub(crate) struct Budget {
    left: AtomicU32,
    turns: u32,
}

impl Budget {
    /// A budget of so many turns without a yield.
    pub(crate) const fn new(turns: u32) -> Self {
        Self {
            left: AtomicU32::new(turns),
            turns,
        }
    }

    /// Takes a turn; false, with the budget renewed, if there is none left: the task is to yield.
    #[inline]
    pub(crate) fn take(&self) -> bool {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            self.renew();
            return false;
        }
        // Turns that two threads take at once may count as one, which is as good.
        self.left.store(left - 1, Ordering::Relaxed);
        true
    }

    /// Takes a turn. Pending, with the task woken, if there is none left.
    #[inline]
    pub(crate) fn poll_proceed(&self, cx: &Context<'_>) -> Poll<()> {
        if self.take() {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// The task waits, so that others run.
    #[inline]
    pub(crate) fn renew(&self) {
        self.left.store(self.turns, Ordering::Relaxed);
    }
}
