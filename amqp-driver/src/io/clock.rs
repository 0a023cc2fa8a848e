//! A clock over a runtime's sleep.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{self, Duration},
};

use amqp_core::Instant;

use super::transport::{Clock, Timer};

/// The time that other tasks get to run when a deadline is found to have passed.
const GRACE: Duration = Duration::from_millis(1);

/// The system's monotonic clock, and one alarm: a sleep of the runtime.
///
/// A passed deadline is reported only after one more short sleep. After a thread was blocked for
/// long, input that the runtime has not yet fetched, or other tasks have not yet forwarded, would
/// otherwise count as silence.
pub struct SleepClock<F> {
    /// The machine's origin of time.
    origin: time::Instant,
    sleep: fn(Duration) -> F,
    /// The alarm, and the deadline that it is set for.
    alarm: Option<(F, Instant)>,
    /// The deadline that was found to have passed.
    past: Option<Instant>,
}

impl<F: Future + Unpin + Send> SleepClock<F> {
    /// A clock that starts now. `sleep` is that of the runtime in which the clock is used: a future
    /// that ends after the given time, with any output.
    #[must_use]
    pub fn new(sleep: fn(Duration) -> F) -> Self {
        Self {
            origin: time::Instant::now(),
            sleep,
            alarm: None,
            past: None,
        }
    }

    /// Sets the alarm for `deadline`, in `time` from now.
    fn set(&mut self, time: Duration, deadline: Instant) {
        self.alarm = Some(((self.sleep)(time), deadline));
    }
}

impl<F> Clone for SleepClock<F> {
    /// A clock with the same time, and an alarm of its own.
    fn clone(&self) -> Self {
        Self {
            origin: self.origin,
            sleep: self.sleep,
            alarm: None,
            past: None,
        }
    }
}

impl<F: Future + Unpin + Send> Timer for SleepClock<F> {
    fn now(&self) -> Instant {
        Instant::from_origin(self.origin.elapsed())
    }

    fn clock(&self) -> Clock {
        let origin = self.origin;
        Arc::new(move || Instant::from_origin(origin.elapsed()))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else {
            return Poll::Pending;
        };
        // Deadlines move into the future with every packet. An alarm that goes off too early costs
        // one look at the clock; setting it again costs more.
        if self.alarm.as_ref().is_none_or(|(_, set)| at < *set) {
            self.set(at - self.now(), at);
        }
        while let Some((sleep, _)) = &mut self.alarm {
            let _ = ready!(Pin::new(sleep).poll(cx));
            self.alarm = None;
            let now = self.now();
            if now < at {
                self.set(at - now, at);
            } else if self.past != Some(at) {
                self.past = Some(at);
                self.set(GRACE, at);
            }
        }
        Poll::Ready(())
    }
}

impl<F> fmt::Debug for SleepClock<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let alarm = self.alarm.as_ref().map(|(_, at)| at);
        f.debug_struct("SleepClock")
            .field("origin", &self.origin)
            .field("alarm", &alarm)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        future::{Ready, ready},
        task::Waker,
    };

    use super::*;

    /// A sleep that ends on the test's command.
    struct Sleep(Duration);

    thread_local! {
        /// The durations slept, in order.
        static SLEEPS: RefCell<Vec<Duration>> = const { RefCell::new(Vec::new()) };
        /// Whether the alarm goes off.
        static OVER: RefCell<bool> = const { RefCell::new(false) };
    }

    impl Future for Sleep {
        type Output = Duration;

        /// Ready once each time that the test sets `OVER`.
        fn poll(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Duration> {
            if OVER.take() {
                Poll::Ready(self.0)
            } else {
                Poll::Pending
            }
        }
    }

    fn clock() -> SleepClock<Sleep> {
        SleepClock::new(|time| {
            SLEEPS.with_borrow_mut(|sleeps| sleeps.push(time));
            Sleep(time)
        })
    }

    fn poll(clock: &mut impl Timer, at: Instant) -> Poll<()> {
        clock.poll_deadline(&mut Context::from_waker(Waker::noop()), Some(at))
    }

    fn sleeps() -> usize {
        SLEEPS.with_borrow(Vec::len)
    }

    #[test]
    fn a_past_deadline_is_told_after_one_more_sleep() {
        let mut clock = clock();
        let at = clock.now();
        assert!(poll(&mut clock, at).is_pending());
        OVER.set(true);
        assert!(poll(&mut clock, at).is_pending());
        assert_eq!(SLEEPS.take(), [Duration::ZERO, GRACE]);
        // A poll in between is pending, and changes nothing.
        assert!(poll(&mut clock, at).is_pending());
        OVER.set(true);
        assert!(poll(&mut clock, at).is_ready());
        assert_eq!(sleeps(), 0);
    }

    #[test]
    fn a_deadline_that_moves_away_meanwhile_is_not_told() {
        let mut clock = clock();
        let at = clock.now();
        let later = at + Duration::from_secs(600);
        assert!(poll(&mut clock, at).is_pending());
        OVER.set(true);
        assert!(poll(&mut clock, at).is_pending());
        OVER.set(true);
        assert!(poll(&mut clock, later).is_pending());
        let last = SLEEPS.with_borrow(|sleeps| sleeps.last().copied());
        assert!(last.is_some_and(|last| last > Duration::from_secs(500)));
    }

    #[test]
    fn only_an_earlier_deadline_sets_the_alarm_anew() {
        let mut clock = clock();
        let at = |seconds| Instant::ORIGIN + Duration::from_secs(seconds);
        for (seconds, set) in [(100, 1), (200, 1), (100, 1), (50, 2), (300, 2)] {
            assert!(poll(&mut clock, at(seconds)).is_pending());
            assert_eq!(sleeps(), set, "{seconds}");
        }
        // The alarm goes off too early, and is set for the current deadline.
        OVER.set(true);
        assert!(poll(&mut clock, at(300)).is_pending());
        assert_eq!(sleeps(), 3);
    }

    #[test]
    fn a_sleep_that_never_takes_long_is_enough() {
        let mut clock: SleepClock<Ready<()>> = SleepClock::new(|_| ready(()));
        let at = clock.now() + Duration::from_millis(5);
        assert!(poll(&mut clock, at).is_ready());
        assert!(clock.now() >= at);
    }

    #[test]
    fn without_a_deadline_it_is_never_ready() {
        let mut clock = clock();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(clock.poll_deadline(&mut cx, None).is_pending());
        assert_eq!(sleeps(), 0);
    }
}
