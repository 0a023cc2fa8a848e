//! The virtual time's alarms.

use std::{collections::BTreeMap, task::Waker};

use amqp_driver::core::Instant;

/// An alarm of one clock or one flow of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct AlarmId(u64);

/// Wakers that are woken or dropped after the lock of the world is released: either may run code
/// that takes it.
#[derive(Debug, Default)]
pub(crate) struct Later {
    wake: Vec<Waker>,
    dropped: Vec<Waker>,
}

impl Later {
    pub(crate) fn wake(&mut self, waker: impl IntoIterator<Item = Waker>) {
        self.wake.extend(waker);
    }

    pub(crate) fn drop(&mut self, waker: impl IntoIterator<Item = Waker>) {
        self.dropped.extend(waker);
    }

    pub(crate) fn run(self) {
        for waker in self.wake {
            waker.wake();
        }
    }
}

/// All alarms that are set, by their time.
#[derive(Debug, Default)]
pub(crate) struct Alarms {
    set: BTreeMap<(Instant, AlarmId), Waker>,
    last: u64,
}

impl Alarms {
    /// Creates an alarm, which is not set.
    pub(crate) const fn create(&mut self) -> AlarmId {
        self.last += 1;
        AlarmId(self.last)
    }

    /// Sets an alarm, in place of the time that it was set for before.
    pub(crate) fn set(
        &mut self,
        id: AlarmId,
        before: Option<Instant>,
        at: Instant,
        waker: Waker,
        later: &mut Later,
    ) {
        if let Some(before) = before.filter(|before| *before != at) {
            later.drop(self.set.remove(&(before, id)));
        }
        later.drop(self.set.insert((at, id), waker));
    }

    /// Clears an alarm that is set for `at`, or has gone off.
    pub(crate) fn clear(&mut self, id: AlarmId, at: Instant, later: &mut Later) {
        later.drop(self.set.remove(&(at, id)));
    }

    /// The time of the next alarm.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.set.first_key_value().map(|(&(at, _), _)| at)
    }

    /// Lets all alarms until `now` go off, in the order of their times.
    pub(crate) fn go_off(&mut self, now: Instant, later: &mut Later) {
        while self.next().is_some_and(|at| at <= now) {
            later.wake(self.set.pop_first().map(|(_, waker)| waker));
        }
    }

    pub(crate) fn take_all(&mut self, later: &mut Later) {
        later.drop(std::mem::take(&mut self.set).into_values());
    }
}
