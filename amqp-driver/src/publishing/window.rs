//! The room for messages in flight, and the line for it.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    task::Waker,
};

use super::options::Window;
use crate::session::{later::Later, waiters::Place};

/// Accounts for the messages in flight. A message that finds no room waits in line, first in, first
/// out.
///
/// Released room is charged to the first in line before that is woken, so that a future that is not
/// polled holds up no more than its own message.
#[derive(Debug)]
pub(crate) struct Room {
    limit: Window,
    messages: usize,
    bytes: usize,
    line: BTreeMap<u64, (usize, Waker)>,
    /// The messages that were charged, until their futures are polled.
    granted: BTreeSet<u64>,
    last: u64,
}

impl Room {
    pub(crate) const fn new(limit: Window) -> Self {
        Self {
            limit,
            messages: 0,
            bytes: 0,
            line: BTreeMap::new(),
            granted: BTreeSet::new(),
            last: 0,
        }
    }

    /// The messages and bytes that are charged.
    pub(crate) const fn used(&self) -> (usize, usize) {
        (self.messages, self.bytes)
    }

    /// Charges a message, if there is room and no other waits before it.
    pub(crate) fn take(&mut self, bytes: usize, place: &mut Place) -> bool {
        if let Some(number) = *place {
            let granted = self.granted.remove(&number);
            if granted {
                *place = None;
            }
            return granted;
        }
        let taken = self.line.is_empty() && self.has_room(bytes);
        if taken {
            self.charge(bytes);
        }
        taken
    }

    /// Takes a place in line, or keeps the current one, and stores the waker.
    pub(crate) fn wait(
        &mut self,
        bytes: usize,
        place: &mut Place,
        waker: Waker,
        later: &mut Later,
    ) {
        let number = *place.get_or_insert_with(|| {
            self.last += 1;
            self.last
        });
        let replaced = self.line.insert(number, (bytes, waker));
        later.drop_waker(replaced.map(|(_, waker)| waker));
    }

    /// Gives up a place, and passes the room on.
    pub(crate) fn leave(&mut self, bytes: usize, place: &mut Place, later: &mut Later) {
        let Some(number) = place.take() else { return };
        if self.granted.remove(&number) {
            self.release(bytes, later);
        } else {
            let left = self.line.remove(&number);
            later.drop_waker(left.map(|(_, waker)| waker));
            self.grant(later);
        }
    }

    pub(crate) fn release(&mut self, bytes: usize, later: &mut Later) {
        debug_assert!(self.messages > 0 && bytes <= self.bytes);
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
        self.grant(later);
    }

    /// Wakes all in line: none of them needs room any more.
    pub(crate) fn dismiss(&mut self, later: &mut Later) {
        for (_, waker) in mem::take(&mut self.line).into_values() {
            later.wake(Some(waker));
        }
    }

    /// Charges the first in line, as far as there is room, and wakes them.
    fn grant(&mut self, later: &mut Later) {
        while let Some(first) = self.line.first_entry()
            && has_room(&self.limit, self.messages, self.bytes, first.get().0)
        {
            let (number, (bytes, waker)) = first.remove_entry();
            self.charge(bytes);
            self.granted.insert(number);
            later.wake(Some(waker));
        }
    }

    const fn has_room(&self, bytes: usize) -> bool {
        has_room(&self.limit, self.messages, self.bytes, bytes)
    }

    const fn charge(&mut self, bytes: usize) {
        self.messages += 1;
        self.bytes += bytes;
    }
}

/// Whether another message fits. A message of any size does while no other is in flight.
const fn has_room(limit: &Window, messages: usize, used: usize, bytes: usize) -> bool {
    messages == 0 || messages < limit.messages && used.saturating_add(bytes) <= limit.bytes
}
