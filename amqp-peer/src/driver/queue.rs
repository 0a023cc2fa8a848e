//! The events that the application has not taken.

use std::{collections::VecDeque, task::Waker};

use amqp_driver::{Delivery, Error};

use super::{
    connector::ConnectorId,
    events::{NotAcceptedError, UnreachableError},
    listener::ListenerId,
};
use crate::machine::Event;

/// The maximum number of events other than received messages. Beyond, the machine keeps them, and
/// begins no further link; those of deliveries and calls pass by.
const MAX_OTHERS: usize = 8192;

/// The maximum number of events of which refused links are added: strangers make them.
const MAX_REFUSED: usize = 1024;

/// The events that were not taken. Those of messages are bounded by the windows of the senders.
#[derive(Debug, Default)]
pub(super) struct Queue {
    entries: VecDeque<Entry>,
    /// The number of entries that are not received messages.
    others: usize,
    /// The handle was dropped: nothing is kept.
    is_closed: bool,
    pub(super) waker: Option<Waker>,
}

/// An event, before it is one of the application.
#[derive(Debug)]
pub(super) enum Entry {
    Machine(Event),
    /// A message of a plain client.
    Inbox(Box<Delivery>),
    /// The inbox has ended, and begins again.
    InboxFailed(Box<Error>),
    Unreachable(ConnectorId, Box<UnreachableError>),
    /// A refused connection, and the number of them.
    NotAccepted(ListenerId, Box<NotAcceptedError>, u64),
}

impl Entry {
    const fn is_message(&self) -> bool {
        matches!(self, Self::Machine(Event::Received(_)) | Self::Inbox(_))
    }
}

impl Queue {
    /// Whether there is room for another event of the machine.
    pub(super) const fn has_room(&self) -> bool {
        self.is_closed || self.others < MAX_OTHERS
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds an event. Returns it if it is not kept, to be dropped after the lock is released.
    #[must_use]
    pub(super) fn push(&mut self, entry: Entry) -> Option<Entry> {
        if self.is_closed {
            return Some(entry);
        }
        if !entry.is_message() {
            let is_refusal = matches!(entry, Entry::Machine(Event::Refused(_)));
            if is_refusal && self.others >= MAX_REFUSED {
                return Some(entry);
            }
            self.others += 1;
        }
        self.entries.push_back(entry);
        None
    }

    /// Takes all events, in exchange for an empty queue.
    pub(super) fn take(&mut self, into: &mut VecDeque<Entry>) {
        self.others = 0;
        std::mem::swap(&mut self.entries, into);
    }

    /// Keeps nothing any more. Returns what it has kept, to be dropped after the lock is released.
    #[must_use]
    pub(super) fn close(&mut self) -> VecDeque<Entry> {
        self.is_closed = true;
        self.others = 0;
        std::mem::take(&mut self.entries)
    }
}
