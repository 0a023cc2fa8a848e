//! An alarm that wakes a thread.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::executor::wake_at;

/// A timer for futures run by [`block_on`](crate::block_on) or by a call of this crate. Elsewhere
/// it wakes its task at once, which polls it in a busy loop. A
/// [`SleepClock`](amqp_driver::io::SleepClock) can be built on it.
#[derive(Debug)]
pub struct Sleep {
    /// The deadline. `Some` if it can be represented; otherwise the timer never ends.
    until: Option<Instant>,
    /// The waker of the alarm, once it is set.
    alarm: Option<Waker>,
}

impl Sleep {
    /// Creates a timer that ends after `time`, counted from now.
    #[must_use]
    pub fn new(time: Duration) -> Self {
        Self {
            until: Instant::now().checked_add(time),
            alarm: None,
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(until) = self.until else {
            return Poll::Pending;
        };
        if until <= Instant::now() {
            return Poll::Ready(());
        }
        let waker = cx.waker();
        if !self.alarm.as_ref().is_some_and(|it| it.will_wake(waker)) {
            match wake_at(until, waker) {
                Some(()) => self.alarm = Some(waker.clone()),
                None => waker.wake_by_ref(),
            }
        }
        Poll::Pending
    }
}
