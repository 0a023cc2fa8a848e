//! A driver that a waiting thread uses while the driver's task is parked.

use std::{fmt, sync::Arc, task::Context};

/// A driver that its task lends to a thread which waits for the answer to its command. That saves
/// the wake-ups of two threads: the one that waits reads the answer itself.
///
/// ```text
///   parked task ── a command writes inline ──> lent ── poll: false, or drop ──> parked task
///                                               │
///                                               └── the task is polled: its alarm, a waker ──> task
/// ```
///
/// Whichever thread polls the driver last is the one that is woken for it. Dropping this gives the
/// driver back to its task: it [flushes](super::Transport::poll_flush) the transport with the waker of
/// the task, on the thread of the drop, so that the transport wakes the task from then on.
///
/// A transport lends its driver if [`Transport::lender`](super::Transport::lender) names a function
/// that takes it.
pub struct LentDriver {
    lender: Arc<dyn Lend>,
    /// The number of the loan, which ends when the task is polled. There may be a later one.
    loan: u64,
    /// Whether the driver was polled, so that it wakes the thread that waits.
    polled: bool,
}

impl LentDriver {
    pub(crate) const fn new(lender: Arc<dyn Lend>, loan: u64) -> Self {
        Self {
            lender,
            loan,
            polled: false,
        }
    }

    /// Writes and reads all that the transport takes and has, and arranges that the thread is woken
    /// for more, and at the next command. Call it before the thread waits, and again after it was
    /// woken.
    ///
    /// Returns `false` once the task has the driver again: this is to be dropped.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> bool {
        self.polled = true;
        self.lender.poll_lent(self.loan, cx)
    }
}

impl Drop for LentDriver {
    fn drop(&mut self) {
        self.lender.take_back(self.loan, self.polled);
    }
}

impl fmt::Debug for LentDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentDriver")
            .field("polled", &self.polled)
            .finish_non_exhaustive()
    }
}

/// The task of a driver, as the lender of it.
pub(crate) trait Lend: Send + Sync {
    /// Polls the driver with the waker of the thread that has it. Returns `false` if the loan has ended.
    fn poll_lent(&self, loan: u64, cx: &mut Context<'_>) -> bool;

    /// Takes the driver back, unless the loan has ended. `polled`: its waker is that of another thread.
    fn take_back(&self, loan: u64, polled: bool);
}
