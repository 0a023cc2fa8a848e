//! Deadlines of single waits, by the driver's clock.

use std::{
    collections::{BTreeMap, BTreeSet},
    task::Waker,
    time::Duration,
};

use amqp_core::Instant;

use super::later::Later;

/// The deadlines of futures.
///
/// A future does not know the time: the next call of the driver, which does, sets its deadline.
///
/// ```text
///  add ──> unset ── advance ──> set ── its time ──> expired (forgotten)
///            └───────────┴── remove ──> (forgotten)
/// ```
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    /// Invariant: an alarm is in `queue` exactly if it is set.
    alarms: BTreeMap<AlarmId, Alarm>,
    queue: BTreeSet<(Instant, AlarmId)>,
    /// The alarms without a deadline yet.
    unset: BTreeSet<AlarmId>,
    last: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AlarmId(u64);

#[derive(Debug)]
struct Alarm {
    waker: Waker,
    due: Due,
}

#[derive(Clone, Copy, Debug)]
enum Due {
    In(Duration),
    At(Instant),
}

impl Alarms {
    /// Adds a deadline, `after` from the next [`advance`](Self::advance).
    pub(crate) fn add(&mut self, after: Duration, waker: Waker) -> AlarmId {
        self.last += 1;
        let id = AlarmId(self.last);
        let due = Due::In(after);
        self.alarms.insert(id, Alarm { waker, due });
        self.unset.insert(id);
        id
    }

    /// Replaces the waker. Returns `false` if the deadline has passed.
    pub(crate) fn update(&mut self, id: AlarmId, waker: Waker, later: &mut Later) -> bool {
        let Some(alarm) = self.alarms.get_mut(&id) else {
            later.drop_waker(Some(waker));
            return false;
        };
        later.drop_waker(Some(std::mem::replace(&mut alarm.waker, waker)));
        true
    }

    pub(crate) fn remove(&mut self, id: AlarmId, later: &mut Later) {
        let Some(alarm) = self.alarms.remove(&id) else {
            return;
        };
        match alarm.due {
            Due::At(at) => {
                self.queue.remove(&(at, id));
            }
            Due::In(_) => {
                self.unset.remove(&id);
            }
        }
        later.drop_waker(Some(alarm.waker));
    }

    /// Sets the deadlines of the alarms that have none yet.
    pub(crate) fn advance(&mut self, now: Instant) {
        for id in std::mem::take(&mut self.unset) {
            if let Some(alarm) = self.alarms.get_mut(&id)
                && let Due::In(after) = alarm.due
            {
                alarm.due = Due::At(now + after);
                self.queue.insert((now + after, id));
            }
        }
    }

    /// Wakes and removes the alarms that are due.
    pub(crate) fn expire(&mut self, now: Instant, later: &mut Later) {
        while let Some(&(at, id)) = self.queue.first()
            && at <= now
        {
            self.queue.pop_first();
            later.wake(self.alarms.remove(&id).map(|alarm| alarm.waker));
        }
    }

    /// Expires all alarms: the clock stops.
    pub(crate) fn expire_all(&mut self, later: &mut Later) {
        for alarm in std::mem::take(&mut self.alarms).into_values() {
            later.wake(Some(alarm.waker));
        }
        self.queue.clear();
        self.unset.clear();
    }

    /// The next deadline. [`Instant::ORIGIN`], which is in the past, while one is still to be set.
    pub(crate) fn next(&self) -> Option<Instant> {
        if self.unset.is_empty() {
            self.queue.first().map(|&(at, _)| at)
        } else {
            Some(Instant::ORIGIN)
        }
    }
}
