//! The inbox: the messages of one sender that are not accepted, and the memory of those that were.
//!
//! A message is given to the application once. It is known again by its id, for as long as its
//! sender may send it again: until the sender has seen the acknowledgement.
//!
//! The memory is exact if it holds twice the window. The sender has at most a window of messages in
//! flight, and sends them again in order. Behind the acknowledgement of a message that the sender
//! has not seen, there are at most the others of the same batch, whose order within it may differ,
//! and those of messages in flight at the same time.

use std::collections::{HashMap, VecDeque};

use crate::{event::LinkKey, message::MessageId, storage::BatchId};

/// A message that was given to the application.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: MessageId,
    /// The last link that it came over, and its tag there.
    pub(super) link: LinkKey,
    pub(super) tag: u64,
    pub(super) is_persistent: bool,
    state: State,
    /// The position of its acceptance, while that is being stored.
    position: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The application has it.
    Given,
    /// It is accepted, and the acceptance is being stored.
    Storing,
    /// It is accepted or given back, and only keeps its place.
    Done,
}

/// What is known of a message that comes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// It is pending, under that number.
    Pending(u64),
    /// It was accepted, at that position.
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
    position: u64,
    id: MessageId,
    is_stored: bool,
}

#[derive(Debug, Default)]
pub(super) struct Inbox {
    pending: VecDeque<Pending>,
    /// The number of the first one that is pending.
    first: u64,
    /// The number of those that are not done.
    live: usize,
    /// The accepted messages, by position in ascending order.
    accepted: VecDeque<Accepted>,
    /// The position of the next acceptance.
    next: u64,
    /// The number of `accepted` that have a later one of the same id.
    stale: usize,
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
        let next = stored.last().map_or(0, |(position, _)| position + 1);
        // An id at two positions counts at the higher one.
        let accepted: VecDeque<_> = stored
            .into_iter()
            .map(|(position, id)| Accepted {
                position,
                id,
                is_stored: true,
            })
            .collect();
        Self {
            // Those of a larger window, in an earlier run, stay as exact as they were.
            capacity: accepted.len().max(2 * usize::from(window)),
            accepted,
            next,
            ..Self::default()
        }
    }

    /// Whether nothing is remembered or pending.
    pub(super) fn is_empty(&self) -> bool {
        self.pending.is_empty() && self.accepted.is_empty()
    }

    pub(super) fn remembers(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// The number of messages that are not accepted.
    pub(super) const fn len(&self) -> usize {
        self.live
    }

    /// Notes a message that is given to the application. Returns its number.
    pub(super) fn give(
        &mut self,
        id: MessageId,
        is_persistent: bool,
        link: LinkKey,
        tag: u64,
    ) -> u64 {
        let number = self.first + self.pending.len() as u64;
        self.pending.push_back(Pending {
            id,
            link,
            tag,
            is_persistent,
            state: State::Given,
            position: 0,
        });
        self.live += 1;
        if let Some(index) = &mut self.index {
            index.insert(id, Known::Pending(number));
        }
        number
    }

    /// Looks for a message that comes again, over `link` with `tag`.
    pub(super) fn find(&mut self, id: MessageId, link: LinkKey, tag: u64) -> Found {
        self.build_index();
        match self.index.as_ref().and_then(|index| index.get(&id)) {
            None => Found::New,
            Some(&Known::Pending(number)) => {
                if let Some(pending) = self.get_mut(number) {
                    (pending.link, pending.tag) = (link, tag);
                }
                Found::Pending
            }
            Some(&Known::Accepted(position)) => Found::Accepted(self.refresh(id, position)),
        }
    }

    fn build_index(&mut self) {
        if self.index.is_some() {
            return;
        }
        let mut index = HashMap::with_capacity(self.accepted.len() + self.live);
        for accepted in &self.accepted {
            let known = Known::Accepted(accepted.position);
            self.stale += usize::from(index.insert(accepted.id, known).is_some());
        }
        for (number, pending) in (self.first..).zip(&self.pending) {
            if pending.state != State::Done {
                index.insert(pending.id, Known::Pending(number));
            }
        }
        self.index = Some(index);
    }

    /// Moves an accepted message to the end of the memory. Returns its position if that is to be
    /// stored.
    fn refresh(&mut self, id: MessageId, position: u64) -> Option<u64> {
        let at = self
            .accepted
            .binary_search_by_key(&position, |it| it.position);
        let is_stored = at
            .ok()
            .and_then(|at| self.accepted.get(at))
            .is_some_and(|it| it.is_stored);
        self.stale += 1;
        let position = self.remember(id, is_stored);
        self.know(id, position);
        is_stored.then_some(position)
    }

    fn know(&mut self, id: MessageId, position: u64) {
        if let Some(index) = &mut self.index {
            index.insert(id, Known::Accepted(position));
        }
    }

    fn remember(&mut self, id: MessageId, is_stored: bool) -> u64 {
        let position = self.next;
        self.next += 1;
        self.accepted.push_back(Accepted {
            position,
            id,
            is_stored,
        });
        while self.accepted.len().saturating_sub(self.stale) > self.capacity {
            self.forget_first();
        }
        position
    }

    fn forget_first(&mut self) {
        let Some(first) = self.accepted.pop_front() else {
            return;
        };
        self.unreported += usize::from(first.is_stored);
        let Some(index) = &mut self.index else {
            return;
        };
        match index.get(&first.id) {
            Some(&Known::Accepted(position)) if position == first.position => {
                index.remove(&first.id);
            }
            Some(Known::Accepted(_)) => self.stale = self.stale.saturating_sub(1),
            Some(Known::Pending(_)) | None => {}
        }
    }

    /// Returns the lowest position that is remembered, if enough are forgotten to tell a storage.
    pub(super) fn take_forgotten(&mut self) -> Option<u64> {
        if self.unreported <= self.capacity / 4 {
            return None;
        }
        self.unreported = 0;
        Some(self.accepted.front().map_or(self.next, |it| it.position))
    }

    /// Forgets all that was accepted. Returns whether some of it is stored.
    pub(super) fn forget_all(&mut self) -> bool {
        let was_stored = self.unreported > 0 || self.accepted.iter().any(|it| it.is_stored);
        self.accepted = VecDeque::new();
        (self.stale, self.unreported, self.index) = (0, 0, None);
        was_stored
    }

    /// Notes the end of a link, or the start of one: no repeat has come since.
    pub(super) fn link_changed(&mut self) {
        let Some(index) = self.index.take() else {
            return;
        };
        if self.stale > 0 {
            self.accepted.retain(|it| match index.get(&it.id) {
                Some(&Known::Accepted(position)) => position == it.position,
                Some(Known::Pending(_)) | None => true,
            });
            self.stale = 0;
        }
    }

    fn get_mut(&mut self, number: u64) -> Option<&mut Pending> {
        let at = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.pending.get_mut(at)
    }

    /// Returns a message that the application has.
    pub(super) fn given(&mut self, number: u64) -> Option<&Pending> {
        let pending = self.get_mut(number)?;
        (pending.state == State::Given).then_some(pending)
    }

    /// Notes that the acceptance of a persistent message is being stored. Returns its id and its
    /// position.
    pub(super) fn storing(&mut self, number: u64) -> Option<(MessageId, u64)> {
        let id = self.given(number)?.id;
        let position = self.remember(id, true);
        let pending = self.get_mut(number)?;
        (pending.state, pending.position) = (State::Storing, position);
        Some((id, position))
    }

    /// Accepts a message: it is remembered from now on. Returns its link and its tag.
    pub(super) fn accept(&mut self, number: u64) -> Option<(LinkKey, u64)> {
        let pending = self.get_mut(number)?;
        let (id, link, tag) = (pending.id, pending.link, pending.tag);
        let position = match pending.state {
            State::Given => None,
            State::Storing => Some(pending.position),
            State::Done => return None,
        };
        self.done(number);
        let position = position.unwrap_or_else(|| self.remember(id, false));
        self.know(id, position);
        Some((link, tag))
    }

    /// Gives a message back. Returns its link and its tag.
    pub(super) fn give_back(&mut self, number: u64) -> Option<(LinkKey, u64)> {
        let pending = self.given(number)?;
        let (id, link, tag) = (pending.id, pending.link, pending.tag);
        if let Some(index) = &mut self.index {
            index.remove(&id);
        }
        self.done(number);
        Some((link, tag))
    }

    fn done(&mut self, number: u64) {
        if let Some(pending) = self.get_mut(number) {
            pending.state = State::Done;
            self.live -= 1;
        }
        while self
            .pending
            .front()
            .is_some_and(|it| it.state == State::Done)
        {
            self.pending.pop_front();
            self.first += 1;
        }
    }
}

/// Acceptances that are being stored, in the order of their batches.
pub(super) type Storing = VecDeque<(BatchId, u64, u64)>;
