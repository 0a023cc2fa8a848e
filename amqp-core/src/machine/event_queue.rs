//! The queue of events.

use alloc::collections::VecDeque;

/// The capacity, in events, that an idle connection keeps: enough that a busy one, which drains its
/// queue at every turn, seldom has to reallocate.
const IDLE: usize = 128;

/// The number of times in a row that the queue is emptied with few events before it shrinks.
const CALM: u32 = 64;

/// The events that wait for the caller. The queue keeps its capacity while the connection is busy.
#[derive(Debug)]
pub(crate) struct EventQueue<E> {
    events: VecDeque<E>,
    /// The number of events taken since the queue was empty.
    taken: usize,
    /// The number of times in a row that it was emptied with few events.
    calm: u32,
}

impl<E> Default for EventQueue<E> {
    fn default() -> Self {
        Self {
            events: VecDeque::new(),
            taken: 0,
            calm: 0,
        }
    }
}

impl<E> EventQueue<E> {
    #[inline]
    pub(crate) fn push(&mut self, event: E) {
        self.events.push_back(event);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<E> {
        if self.events.is_empty() {
            self.emptied();
            return None;
        }
        self.taken += 1;
        self.events.pop_front()
    }

    fn emptied(&mut self) {
        let taken = core::mem::take(&mut self.taken);
        if self.events.capacity() <= IDLE || taken == 0 {
            return;
        }
        self.calm = if taken > IDLE { 0 } else { self.calm + 1 };
        if self.calm == CALM {
            self.shrink();
        }
    }

    /// Releases the memory that an idle connection does not need. Called now and then.
    pub(super) fn shrink(&mut self) {
        self.events.shrink_to(IDLE);
        self.calm = 0;
    }
}
