//! The clock of the time to live of one receiver's queue.

use std::time::Duration;

use amqp_core::Instant;

use crate::storage::{StoredClock, WallTime};

/// The clock of a queue: it runs while the receiver has no link, or always.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct QueueClock {
    /// The time on the clock when it was last started or stopped.
    elapsed: Duration,
    /// When it was started. `None` if it stands.
    since: Option<Instant>,
}

impl QueueClock {
    /// Continues a clock of an earlier run. The time between the runs counts if it was running.
    pub(super) fn resume(stored: StoredClock, now: Instant, wall: WallTime) -> Self {
        let between = stored
            .since
            .map_or(Duration::ZERO, |since| wall.saturating_since(since));
        Self {
            elapsed: stored.disconnected.saturating_add(between),
            since: Some(now),
        }
    }

    pub(super) fn at(&self, now: Instant) -> Duration {
        let running = self.since.map_or(Duration::ZERO, |since| now - since);
        self.elapsed.saturating_add(running)
    }

    pub(super) fn start(&mut self, now: Instant) {
        self.since.get_or_insert(now);
    }

    pub(super) fn stop(&mut self, now: Instant) {
        self.elapsed = self.at(now);
        self.since = None;
    }

    pub(super) const fn is_running(&self) -> bool {
        self.since.is_some()
    }

    /// The time at which the clock shows `time`. `Some` if it runs, and ever does.
    pub(super) fn when(&self, time: Duration) -> Option<Instant> {
        let since = self.since?;
        let rest = time.saturating_sub(self.elapsed);
        let at = since + rest;
        (at - since >= rest).then_some(at)
    }
}
