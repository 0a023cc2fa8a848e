//! An alarm that wakes a thread.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use crate::executor::wake_at;

/// Waits, where [`block_on`](crate::block_on) or a call of this crate runs it; elsewhere it asks to
/// be polled again and again. A [`SleepClock`](amqp_driver::io::SleepClock) can be made of it.
#[derive(Debug)]
pub struct Sleep {
    /// Until when; none for ever.
    until: Option<Instant>,
    /// Whom an alarm will wake.
    alarm: Option<Waker>,
}

impl Sleep {
    /// Waits so long from now.
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
