//! The virtual clock.

use std::{
    fmt,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
};

use amqp_driver::{
    core::Instant,
    io::{Clock, Timer},
};

use crate::{alarms::AlarmId, world::Shared};

/// The virtual clock of a simulation, with one alarm. It stands still while tasks run.
pub struct SimClock {
    shared: Arc<Shared>,
    /// `None` until it is set for the first time: a clock is cloned without the lock.
    alarm: Option<AlarmId>,
    /// The time that the alarm is set for.
    set: Option<Instant>,
}

impl SimClock {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            alarm: None,
            set: None,
        }
    }

    fn clear(&mut self) {
        if let Some((alarm, at)) = self.alarm.zip(self.set.take()) {
            self.shared
                .with(|world, later| world.alarms.clear(alarm, at, later));
        }
    }
}

impl Clone for SimClock {
    /// Returns a clock with the same time, and an alarm of its own.
    fn clone(&self) -> Self {
        Self::new(Arc::clone(&self.shared))
    }
}

impl Drop for SimClock {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Timer for SimClock {
    fn now(&self) -> Instant {
        self.shared.now()
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.shared.now);
        Arc::new(move || Instant::from_nanos(now.load(Relaxed)))
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let Some(at) = at else {
            self.clear();
            return Poll::Pending;
        };
        if self.now() >= at {
            self.clear();
            return Poll::Ready(());
        }
        let (before, waker) = (self.set.replace(at), cx.waker().clone());
        let alarm = &mut self.alarm;
        self.shared.with(|world, later| {
            let alarm = *alarm.get_or_insert_with(|| world.alarms.create());
            world.alarms.set(alarm, before, at, waker, later);
        });
        Poll::Pending
    }
}

impl fmt::Debug for SimClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimClock")
            .field("now", &self.now())
            .field("alarm", &self.set)
            .finish_non_exhaustive()
    }
}
