//! The budget after which a busy task yields.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use amqp_core::Instant;

use super::shared::Shared;

/// The number of turns between two readings of the clock. A reading costs as much as a sixth of a
/// small message.
const LOOK: u32 = 32;

/// The time after which a task yields, checked at a reading of the clock. A yield may cost some
/// system calls of the driver, some 20 microseconds.
const SLICE: Duration = Duration::from_micros(250);

/// The maximum number of turns without a yield, for clocks that stand still.
const TURNS: u32 = 128 * LOOK;

/// Makes a loop that always finds something ready yield now and then, on every runtime, so that the
/// driver, its heartbeats and other tasks run in between.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    /// The number of turns since the task has waited or yielded.
    taken: AtomicU32,
    /// The time of the first of these turns, in nanoseconds.
    since: AtomicU64,
}

impl Budget {
    /// Takes a turn. Returns `false`, and renews the budget, if none is left: the task must yield.
    #[inline]
    pub(crate) fn take(&self, shared: &Shared) -> bool {
        let taken = self.taken.load(Ordering::Relaxed);
        if taken.is_multiple_of(LOOK) && !self.look(shared, taken) {
            return false;
        }
        // A race of two threads may count two turns as one, which does no harm.
        self.taken.store(taken + 1, Ordering::Relaxed);
        true
    }

    #[inline(never)]
    fn look(&self, shared: &Shared, taken: u32) -> bool {
        let now = shared.now() - Instant::ORIGIN;
        if taken == 0 {
            let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
            self.since.store(now, Ordering::Relaxed);
            return true;
        }
        let since = Duration::from_nanos(self.since.load(Ordering::Relaxed));
        let has_turns = taken < TURNS && now.saturating_sub(since) < SLICE;
        if !has_turns {
            self.renew();
        }
        has_turns
    }

    /// Takes a turn. If none is left, wakes the task and returns `Pending`.
    #[inline]
    pub(crate) fn poll_proceed(&self, shared: &Shared, cx: &Context<'_>) -> Poll<()> {
        if self.take(shared) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Renews the budget. Called when the task waits, which lets others run.
    #[inline]
    pub(crate) fn renew(&self) {
        self.taken.store(0, Ordering::Relaxed);
    }
}
