//! The inbox: the messages of one sender that are not accepted, and the memory of those that were.
//!
//! A message is given to the application once. It is known again by its id, for as long as its
//! sender may send it again: until the sender has seen the acknowledgement.
//!
//! The memory is exact if it holds twice the window. The sender has at most a window of messages in
//! flight, and sends them again in order. Behind the acknowledgement of a message that the sender
//! has not seen, there are at most the others of the same batch, which may be in another order,
//! and those of messages in flight at the same time.

use std::collections::{HashMap, VecDeque};

use super::{journal::Journal, numbered::Numbered};
use crate::{
    event::LinkKey,
    message::{Message, MessageId},
    storage::BatchId,
};

/// A message that was given to the application.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: MessageId,
    /// The last link that it came over, and its tag there.
    pub(super) link: LinkKey,
    pub(super) tag: u64,
    pub(super) is_persistent: bool,
    /// The size that the message counts as, in bytes.
    pub(super) memory: usize,
    state: State,
    /// The position of its acceptance in the storage, while that is being stored.
    position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The application has it.
    Given,
    /// It is accepted, and the acceptance is being stored.
    Storing,
}

/// What is known of a message that comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is pending, under that number.
    Pending(u64),
    /// It was accepted, under that number.
    Accepted(u64),
}

/// The result of a look for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It is not known: it is to be given to the application.
    New,
    /// The application has it.
    Pending,
    /// It was accepted. `Some` has the position at which that is to be stored again.
    Accepted(Option<u64>),
}

#[derive(Clone, Copy, Debug)]
struct Accepted {
    id: MessageId,
    /// The position in the storage. `Some` if the acceptance is stored.
    position: Option<u64>,
    /// The batch with which the position is stored.
    batch: BatchId,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pending: Numbered<Pending>,
    /// The messages that were given back and have not come again, at most as many as are
    /// remembered.
    given_back: VecDeque<MessageId>,
    /// The accepted messages, in the order in which they could last be acknowledged.
    accepted: Numbered<Accepted>,
    /// The position in the storage of the next acceptance.
    next_position: u64,
    /// The number of accepted messages that are remembered.
    capacity: usize,
    /// The messages by id. `Some` since the first repeat of the present link.
    index: Option<HashMap<MessageId, Known>>,
    /// The number of stored acceptances that were forgotten and not reported.
    unreported: usize,
}

impl Inbox {
    /// Creates the inbox for a window, with the stored acceptances of an earlier run.
    pub(super) fn new(window: u16, stored: Vec<(u64, MessageId)>) -> Self {
        let next_position = stored.last().map_or(0, |(position, _)| position + 1);
        // An id at two positions counts at the higher one.
        let mut accepted = Numbered::default();
        for (position, id) in stored {
            accepted.push(Accepted {
                id,
                position: Some(position),
                batch: BatchId::default(),
            });
        }
        Self {
            // Those of a larger window, in an earlier run, stay as exact as they were.
            capacity: accepted.len().max(2 * usize::from(window)),
            accepted,
            next_position,
            ..Self::default()
        }
    }

    /// Whether nothing is remembered or pending.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && !self.remembers()
    }

    pub(super) fn remembers(&self) -> bool {
        !self.accepted.is_empty() || !self.given_back.is_empty()
    }

    /// The number of messages that are not accepted.
    pub(super) fn len(&self) -> usize {
        self.pending.len()
    }

    /// Notes a message that is given to the application. Returns its number.
    pub(super) fn give(
        &mut self,
        id: MessageId,
        message: &Message,
        link: LinkKey,
        tag: u64,
    ) -> u64 {
        let number = self.pending.push(Pending {
            id,
            link,
            tag,
            is_persistent: message.is_persistent,
            memory: message.memory(),
            state: State::Given,
            position: 0,
        });
        if let Some(index) = &mut self.index {
            index.insert(id, Known::Pending(number));
        }
        number
    }

    /// Looks for a message that comes again, over `link` with `tag`.
    pub(super) fn find(
        &mut self,
        id: MessageId,
        link: LinkKey,
        tag: u64,
        journal: &Journal,
    ) -> Found {
        self.build_index();
        match self.index.as_ref().and_then(|index| index.get(&id)) {
            None => Found::New,
            Some(&Known::Pending(number)) => {
                if let Some(pending) = self.pending.get_mut(number) {
                    (pending.link, pending.tag) = (link, tag);
                }
                Found::Pending
            }
            Some(&Known::Accepted(number)) => Found::Accepted(self.refresh(number, journal)),
        }
    }

    fn build_index(&mut self) {
        if self.index.is_some() {
            return;
        }
        let mut index = HashMap::with_capacity(self.accepted.len() + self.pending.len());
        let mut replaced = Vec::new();
        for (number, accepted) in self.accepted.iter() {
            let before = index.insert(accepted.id, Known::Accepted(number));
            if let Some(Known::Accepted(before)) = before {
                replaced.push(before);
            }
        }
        for number in replaced {
            self.forget(number);
        }
        for (number, pending) in self.pending.iter() {
            index.insert(pending.id, Known::Pending(number));
        }
        self.index = Some(index);
    }

    /// Moves an accepted message to the end of the memory. Returns its position if that is to be
    /// stored: not while its last one is being stored, lest repeats fill the journal.
    fn refresh(&mut self, number: u64, journal: &Journal) -> Option<u64> {
        let mut accepted = self.accepted.remove(number)?;
        let is_due = accepted.position.is_some() && journal.is_stored(accepted.batch);
        let position = is_due.then(|| self.take_position());
        if position.is_some() {
            self.unreported += 1;
            (accepted.position, accepted.batch) = (position, journal.next());
        }
        self.remember(accepted);
        position
    }

    const fn take_position(&mut self) -> u64 {
        self.next_position += 1;
        self.next_position - 1
    }

    fn remember(&mut self, accepted: Accepted) {
        let id = accepted.id;
        let number = self.accepted.push(accepted);
        if let Some(index) = &mut self.index {
            index.insert(id, Known::Accepted(number));
        }
        // One that many others were repeated behind was acknowledged: its sender repeats it with
        // them otherwise. Its position would keep theirs in the storage.
        let age = (AGE * self.capacity) as u64;
        while let Some(first) = self.accepted.first()
            && (self.accepted.len() > self.capacity || number - first > age)
        {
            self.forget(first);
        }
    }

    /// Forgets an accepted message.
    fn forget(&mut self, number: u64) {
        let Some(accepted) = self.accepted.remove(number) else {
            return;
        };
        self.unreported += usize::from(accepted.position.is_some());
        if let Some(index) = &mut self.index
            && index.get(&accepted.id) == Some(&Known::Accepted(number))
        {
            index.remove(&accepted.id);
        }
    }

    /// Returns the lowest position that is remembered, if enough are forgotten to tell a storage.
    pub(super) fn take_forgotten(&mut self) -> Option<u64> {
        if self.unreported <= self.capacity / 4 {
            return None;
        }
        self.unreported = 0;
        let accepted = self.accepted.iter().filter_map(|(_, it)| it.position);
        let pending = self.pending.iter().map(|(_, pending)| pending);
        let storing = pending.filter(|it| it.state == State::Storing);
        let lowest = accepted.chain(storing.map(|it| it.position)).min();
        Some(lowest.unwrap_or(self.next_position))
    }

    /// Forgets all that was accepted. Returns whether some of it is stored.
    pub(super) fn forget_all(&mut self) -> bool {
        let was_stored =
            self.unreported > 0 || self.accepted.iter().any(|(_, it)| it.position.is_some());
        self.accepted = Numbered::default();
        self.given_back = VecDeque::new();
        (self.unreported, self.index) = (0, None);
        was_stored
    }

    /// Notes the end of a link, or the start of one: no repeat has come since.
    pub(super) fn link_changed(&mut self) {
        self.index = None;
    }

    /// Returns a message that the application has.
    pub(super) fn given(&self, number: u64) -> Option<&Pending> {
        let pending = self.pending.get(number)?;
        (pending.state == State::Given).then_some(pending)
    }

    /// Notes that the acceptance of a persistent message is being stored. Returns its id and its
    /// position.
    pub(super) fn storing(&mut self, number: u64) -> Option<(MessageId, u64)> {
        self.given(number)?;
        let position = self.take_position();
        let pending = self.pending.get_mut(number)?;
        (pending.state, pending.position) = (State::Storing, position);
        Some((pending.id, position))
    }

    /// Accepts a message: it is remembered from now on. Returns its link and its tag.
    pub(super) fn accept(&mut self, number: u64) -> Option<(LinkKey, u64)> {
        let pending = self.pending.remove(number)?;
        let position = match pending.state {
            State::Given => None,
            State::Storing => Some(pending.position),
        };
        self.remember(Accepted {
            id: pending.id,
            position,
            batch: BatchId::default(),
        });
        Some((pending.link, pending.tag))
    }

    /// Gives a message back. Returns its link and its tag.
    pub(super) fn give_back(&mut self, number: u64) -> Option<(LinkKey, u64)> {
        self.given(number)?;
        let Pending { id, link, tag, .. } = self.pending.remove(number)?;
        if let Some(index) = &mut self.index
            && index.get(&id) == Some(&Known::Pending(number))
        {
            index.remove(&id);
        }
        self.given_back.push_back(id);
        if self.given_back.len() > self.capacity {
            self.given_back.pop_front();
        }
        Some((link, tag))
    }

    /// Whether a message that comes again was given back. It is so once.
    pub(super) fn was_given_back(&mut self, id: MessageId) -> bool {
        let at = self.given_back.iter().position(|it| *it == id);
        at.is_some_and(|at| self.given_back.remove(at).is_some())
    }
}

/// The number of times that the memory may be filled with repeats before one is forgotten that was
/// not repeated with them.
const AGE: usize = 4;

/// Acceptances that are being stored, in the order of their batches.
pub(super) type Storing = VecDeque<(BatchId, u64, u64)>;
