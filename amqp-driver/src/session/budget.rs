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

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, Mutex},
        task::Wake,
    };

    use amqp_core::{Timeouts, client};

    use super::*;

    /// A session with a clock that the test sets.
    fn session() -> (Arc<Shared>, Arc<Mutex<Instant>>) {
        let now = Arc::new(Mutex::new(Instant::ORIGIN + Duration::from_secs(7)));
        let clock = Arc::clone(&now);
        let machine = client::Connection::new(client::Config::default(), Instant::ORIGIN);
        let shared = Shared::new(
            machine.unwrap(),
            Timeouts::default(),
            Arc::new(move || *clock.lock().unwrap()),
            #[cfg(feature = "tracing")]
            crate::trace::Trace::new(&amqp_core::wire::FieldTable::new()),
        );
        (shared, now)
    }

    /// The number of turns until a yield, up to `most`.
    fn turns(budget: &Budget, shared: &Shared, most: u32) -> u32 {
        (0..most).take_while(|_| budget.take(shared)).count() as u32
    }

    #[test]
    fn a_task_yields_at_a_look_at_the_clock_after_its_slice() {
        let (shared, now) = session();
        let budget = Budget::default();
        assert!(budget.take(&shared));
        let begun = *now.lock().unwrap();
        *now.lock().unwrap() = begun + (SLICE - Duration::from_nanos(1));
        assert_eq!(turns(&budget, &shared, LOOK), LOOK);
        *now.lock().unwrap() = begun + SLICE;
        assert_eq!(turns(&budget, &shared, LOOK), LOOK - 1);
        // The yield has renewed it.
        assert_eq!(turns(&budget, &shared, 2 * LOOK), 2 * LOOK);
        *now.lock().unwrap() = begun + 2 * SLICE;
        assert_eq!(turns(&budget, &shared, 1), 0);
    }

    #[test]
    fn a_task_yields_though_the_clock_stands_still() {
        let (shared, _now) = session();
        let budget = Budget::default();
        for _ in 0..2 {
            assert_eq!(turns(&budget, &shared, 2 * TURNS), TURNS);
        }
    }

    #[test]
    fn a_task_that_yields_is_woken() {
        struct Woken(Mutex<u32>);
        impl Wake for Woken {
            fn wake(self: Arc<Self>) {
                *self.0.lock().unwrap() += 1;
            }
        }
        let (shared, _now) = session();
        let (budget, woken) = (Budget::default(), Arc::new(Woken(Mutex::new(0))));
        let waker = woken.clone().into();
        let cx = Context::from_waker(&waker);
        for _ in 0..TURNS {
            assert!(budget.poll_proceed(&shared, &cx).is_ready());
        }
        assert_eq!(*woken.0.lock().unwrap(), 0);
        assert!(budget.poll_proceed(&shared, &cx).is_pending());
        assert_eq!(*woken.0.lock().unwrap(), 1);
        assert!(budget.poll_proceed(&shared, &cx).is_ready());
    }

    #[test]
    fn a_wait_renews_the_budget() {
        let (shared, now) = session();
        let budget = Budget::default();
        assert_eq!(turns(&budget, &shared, LOOK), LOOK);
        budget.renew();
        *now.lock().unwrap() = Instant::ORIGIN + Duration::from_secs(8);
        assert_eq!(turns(&budget, &shared, LOOK), LOOK);
    }
}
