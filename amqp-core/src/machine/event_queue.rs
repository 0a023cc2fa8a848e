//! The queue of events.

use alloc::collections::VecDeque;
use core::time::Duration;

use crate::time::Instant;

/// The capacity, in events, that an idle connection keeps. It is some 30 KiB.
const IDLE: usize = 128;

/// The time after the last burst in which the queue keeps its capacity: a busy connection, which
/// fills and drains its queue at every turn, does not reallocate.
const IDLE_AFTER: Duration = Duration::from_millis(100);

/// The events that wait for the caller.
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    events: VecDeque<E>,
    /// The number of events taken since the queue was empty.
    taken: usize,
    /// The time of the last burst of more than [`IDLE`] events. `Some` until the memory for it is
    /// released.
    burst: Option<Instant>,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            taken: 0,
            burst: None,
        }
    }
}

impl<E> EventQueue<E> {
    #[inline]
    pub(crate) fn push(&mut self, event: E) {
        self.events.push_back(event);
    }

    #[inline]
    pub(super) fn pop(&mut self, now: Instant) -> Option<E> {
        if self.events.is_empty() {
            if core::mem::take(&mut self.taken) > IDLE {
                self.burst = Some(now);
            }
            return None;
        }
        self.taken += 1;
        self.events.pop_front()
    }

    /// The time at which memory is to be released. `Some` after a burst.
    pub(super) fn release_at(&self) -> Option<Instant> {
        self.burst.map(|burst| burst + IDLE_AFTER)
    }

    /// Releases the memory that an idle connection does not need, if it is time to.
    pub(super) fn release(&mut self, now: Instant) {
        if self.release_at().is_some_and(|at| at <= now) {
            self.events.shrink_to(IDLE);
            self.burst = None;
        }
    }
}
