//! Tokio's clock.

use std::{
    future::Future as _,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
};

use amqp_driver::{
    core::Instant,
    io::{Clock, Timer},
};
use tokio::{
    task,
    time::{self, Sleep},
};

/// Tokio's clock, which a test can pause and advance, with one alarm.
///
/// A paused clock is that of the runtime of the thread that reads it, and elsewhere time passes. A test
/// with paused time calls its handles within that runtime.
#[derive(Debug)]
pub struct TokioClock {
    /// The time that [`Instant::ORIGIN`] stands for.
    origin: time::Instant,
    /// The alarm and its time. `Some` after the first deadline.
    alarm: Option<(Pin<Box<Sleep>>, Instant)>,
}

impl TokioClock {
    /// Creates a clock that starts now.
    #[must_use]
    pub fn new() -> Self {
        Self {
            origin: time::Instant::now(),
            alarm: None,
        }
    }

    fn to_tokio(&self, at: Instant) -> time::Instant {
        self.origin + (at - Instant::ORIGIN)
    }
}

impl Clone for TokioClock {
    /// Returns a clock with the same origin, and an alarm of its own.
    fn clone(&self) -> Self {
        Self {
            origin: self.origin,
            alarm: None,
        }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Timer for TokioClock {
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
        // A past deadline still waits for tokio's timers, which are polled after the sockets.
        // Otherwise a thread that was blocked for long would miss its unread input, and report a
        // heartbeat timeout (section 4.2.7 of the specification,
        // https://www.rabbitmq.com/docs/heartbeats). See amqp-tokio/tests/blocked_thread.rs.
        let tokio_at = self.to_tokio(at);
        let (alarm, set_for) = self
            .alarm
            .get_or_insert_with(|| (Box::pin(time::sleep_until(tokio_at)), at));
        // Every packet postpones the deadline. An earlier alarm is kept, since an early wake-up
        // costs only one clock reading, and a reset costs more.
        if at < *set_for {
            alarm.as_mut().reset(tokio_at);
            *set_for = at;
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if time::Instant::now() >= tokio_at {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(tokio_at);
            *set_for = at;
        }
        Poll::Pending
    }

    /// A task that wakes itself runs up to 61 times before tokio looks for events of sockets.
    /// Tokio's own yield defers the wake-up until after that look.
    fn yield_now(&mut self, cx: &mut Context<'_>) {
        let pending = pin!(task::yield_now()).poll(cx);
        debug_assert!(pending.is_pending(), "a first poll yields");
    }
}
