//! The outcomes of publishes, until their futures take them.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    ops::RangeInclusive,
    task::{Poll, Waker},
};

use amqp_core::client::Outcome;

use super::later::{Later, register};
use crate::{returned_message::ReturnedMessage, unconfirmed::Unconfirmed};

/// Above this number of slots, an outcome that its future has not taken moves out of the ring, so
/// that it does not keep the slots behind it.
const SLOTS_MAX: usize = 4096;

/// The number of publishes that an empty ring keeps memory for, so that small batches allocate
/// nothing.
const SLOTS_KEPT: usize = 128;

/// The outcomes of a channel's publishes, and the futures that await them, by sequence number.
///
/// The server sends the `basic.return` of a message before its confirm, see
/// <https://www.rabbitmq.com/docs/confirms>.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// The sequence number of the slot at the front.
    first: u64,
    slots: VecDeque<Slot>,
    /// Whether others were in flight beside the last publish.
    batched: bool,
    /// The outcomes that their futures have not taken: failures, and all from before the front.
    outcomes: BTreeMap<u64, Result<(), Unconfirmed>>,
    /// The returned messages of waiting publishes. Their confirms follow.
    returned: BTreeMap<u64, Returned>,
}

/// The state of a publish. Small, as each publish has one: the rare parts are beside the slots.
#[derive(Debug)]
enum Slot {
    Waiting(Option<Waker>),
    Acked,
    /// The failure is in [`Confirms::outcomes`].
    Failed,
    /// Unsettled, without a future.
    Abandoned,
    Taken,
}

#[derive(Debug)]
struct Returned {
    message: Box<ReturnedMessage>,
    /// The message is certainly the one of this publish.
    is_certain: bool,
}

/// Sums over the confirms of all channels of a connection.
#[derive(Debug, Default)]
pub(crate) struct Totals {
    /// The number of waiting futures.
    pub(crate) awaited: usize,
    /// Bytes of returned messages that their futures have not taken.
    pub(crate) returned: usize,
}

impl Totals {
    fn stop_waiting(&mut self, waker: Option<&Waker>) {
        self.awaited = self.awaited.saturating_sub(usize::from(waker.is_some()));
    }

    fn release(&mut self, returned: Option<&ReturnedMessage>) {
        let bytes = returned.map_or(0, ReturnedMessage::memory);
        self.returned = self.returned.saturating_sub(bytes);
    }
}

impl Default for Confirms {
    fn default() -> Self {
        Self {
            first: 1,
            slots: VecDeque::new(),
            batched: false,
            outcomes: BTreeMap::new(),
            returned: BTreeMap::new(),
        }
    }
}

impl Confirms {
    /// Whether the next publish is likely awaited by itself: none is in flight, and the last one was
    /// alone too. The first of a batch leaves with the others.
    #[inline]
    pub(crate) fn is_alone(&self) -> bool {
        self.slots.is_empty() && !self.batched
    }

    /// Registers the next sequence number. `tracked` is `false` if no future awaits the outcome.
    #[inline]
    pub(crate) fn expect(&mut self, tracked: bool) {
        self.batched = !self.slots.is_empty();
        self.slots.push_back(if tracked {
            Slot::Waiting(None)
        } else {
            Slot::Abandoned
        });
    }

    /// Takes the outcome, if it is known.
    #[inline]
    pub(crate) fn take(&mut self, seq: u64, totals: &mut Totals) -> Poll<Result<(), Unconfirmed>> {
        match self.slot(seq) {
            Some(slot @ Slot::Acked) => {
                *slot = Slot::Taken;
                self.sweep();
                Poll::Ready(Ok(()))
            }
            Some(Slot::Waiting(_)) => Poll::Pending,
            _ => self.take_stored(seq, totals),
        }
    }

    #[cold]
    fn take_stored(&mut self, seq: u64, totals: &mut Totals) -> Poll<Result<(), Unconfirmed>> {
        let Some(outcome) = self.outcomes.remove(&seq) else {
            return Poll::Pending;
        };
        totals.release(returned_in(&outcome));
        if let Some(slot) = self.slot(seq) {
            *slot = Slot::Taken;
        }
        self.sweep();
        Poll::Ready(outcome)
    }

    /// Stores the waker of a waiting future.
    pub(crate) fn wait(&mut self, seq: u64, totals: &mut Totals, waker: Waker, later: &mut Later) {
        match self.slot(seq) {
            Some(Slot::Waiting(slot)) => {
                totals.awaited += usize::from(slot.is_none());
                register(slot, waker, later);
            }
            _ => later.drop_waker(Some(waker)),
        }
    }

    /// Abandons a future's interest in an outcome.
    pub(crate) fn abandon(&mut self, seq: u64, totals: &mut Totals, later: &mut Later) {
        if let Some(outcome) = self.outcomes.remove(&seq) {
            totals.release(returned_in(&outcome));
        }
        if let Some(returned) = self.returned.remove(&seq) {
            totals.release(Some(&returned.message));
        }
        if let Some(slot) = self.slot(seq) {
            let next = match slot {
                Slot::Waiting(_) | Slot::Abandoned => Slot::Abandoned,
                Slot::Acked | Slot::Failed | Slot::Taken => Slot::Taken,
            };
            if let Slot::Waiting(waker) = std::mem::replace(slot, next) {
                totals.stop_waiting(waker.as_ref());
                later.drop_waker(waker);
            }
        }
        self.sweep();
    }

    /// Keeps a returned message for the future of its publish. Hands it back if there is no future.
    #[expect(clippy::result_large_err, reason = "the message itself is given back")]
    pub(crate) fn keep_returned(
        &mut self,
        seq: u64,
        message: ReturnedMessage,
        totals: &mut Totals,
    ) -> Result<(), ReturnedMessage> {
        if !matches!(self.slot(seq), Some(Slot::Waiting(_))) {
            return Err(message);
        }
        let is_certain = true;
        self.insert_returned(seq, message, is_certain, totals);
        Ok(())
    }

    /// Keeps a copy of a returned message for the future of a publish that may be the returned one.
    pub(crate) fn keep_possibly_returned(
        &mut self,
        seq: u64,
        message: &ReturnedMessage,
        totals: &mut Totals,
    ) {
        let is_settled = !matches!(self.slot(seq), Some(Slot::Waiting(_)));
        if is_settled || self.returned.get(&seq).is_some_and(|it| it.is_certain) {
            return;
        }
        let is_certain = false;
        self.insert_returned(seq, message.clone(), is_certain, totals);
    }

    fn insert_returned(
        &mut self,
        seq: u64,
        message: ReturnedMessage,
        is_certain: bool,
        totals: &mut Totals,
    ) {
        totals.returned += message.memory();
        let message = Box::new(message);
        let returned = Returned {
            message,
            is_certain,
        };
        if let Some(replaced) = self.returned.insert(seq, returned) {
            totals.release(Some(&replaced.message));
        }
    }

    /// Settles a run of publishes with the outcome, on the channel of that number.
    pub(crate) fn settle(
        &mut self,
        run: RangeInclusive<u64>,
        (channel, outcome): (u16, &Outcome),
        totals: &mut Totals,
        later: &mut Later,
    ) {
        let start = self.index(*run.start());
        let end = self.index(run.end().saturating_add(1)).max(start);
        for (seq, slot) in (self.first + start as u64..).zip(self.slots.range_mut(start..end)) {
            let waker = match slot {
                Slot::Waiting(waker) => waker.take(),
                Slot::Abandoned => {
                    *slot = Slot::Taken;
                    continue;
                }
                Slot::Acked | Slot::Failed | Slot::Taken => continue,
            };
            totals.stop_waiting(waker.as_ref());
            later.wake_answered(waker);
            let returned = match self.returned.is_empty() {
                true => None,
                false => self.returned.remove(&seq),
            };
            let memory = |it: &Returned| it.message.memory();
            let bytes = returned.as_ref().map_or(0, memory);
            let result = result_of((channel, outcome), returned);
            if bytes > 0 && returned_in(&result).is_none() {
                totals.returned = totals.returned.saturating_sub(bytes);
            }
            *slot = match result {
                Ok(()) => Slot::Acked,
                failure => {
                    self.outcomes.insert(seq, failure);
                    Slot::Failed
                }
            };
        }
        self.sweep();
    }

    /// The index of a slot, or that of the nearest end of the ring.
    fn index(&self, seq: u64) -> usize {
        let at = usize::try_from(seq.saturating_sub(self.first)).unwrap_or(usize::MAX);
        at.min(self.slots.len())
    }

    #[inline]
    fn slot(&mut self, seq: u64) -> Option<&mut Slot> {
        let at = seq.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    /// Frees the slots at the front that no future needs.
    #[inline]
    fn sweep(&mut self) {
        if self.slots.len() > SLOTS_MAX {
            self.shorten();
        }
        while let Some(Slot::Taken) = self.slots.front() {
            self.slots.pop_front();
            self.first += 1;
        }
        if self.slots.is_empty() && self.slots.capacity() > SLOTS_KEPT {
            self.slots.shrink_to(SLOTS_KEPT);
        }
    }

    /// Moves outcomes that their futures have not taken out of the front of a long ring.
    #[cold]
    fn shorten(&mut self) {
        while self.slots.len() > SLOTS_MAX {
            match self.slots.front() {
                Some(Slot::Acked) => {
                    self.outcomes.insert(self.first, Ok(()));
                }
                Some(Slot::Failed | Slot::Taken) => {}
                Some(Slot::Waiting(_) | Slot::Abandoned) | None => return,
            }
            self.slots.pop_front();
            self.first += 1;
        }
    }
}

fn returned_in(outcome: &Result<(), Unconfirmed>) -> Option<&ReturnedMessage> {
    match outcome {
        Err(Unconfirmed::Returned(message) | Unconfirmed::PossiblyReturned(Some(message))) => {
            Some(message)
        }
        Ok(()) | Err(_) => None,
    }
}

/// The outcome as reported to the publisher.
#[inline]
fn result_of(
    (channel, outcome): (u16, &Outcome),
    returned: Option<Returned>,
) -> Result<(), Unconfirmed> {
    let (message, is_certain) = match returned {
        Some(returned) => (Some(returned.message), returned.is_certain),
        None => (None, false),
    };
    match (outcome, message) {
        (Outcome::Nacked, _) => Err(Unconfirmed::Nacked { channel }),
        // A certain return is reported with and without a confirm.
        (_, Some(message)) if is_certain => Err(Unconfirmed::Returned(message)),
        (Outcome::PossiblyReturned, message) => Err(Unconfirmed::PossiblyReturned(message)),
        (Outcome::Acked, _) => Ok(()),
        (Outcome::NotSent(reason), _) => Err(Unconfirmed::NotSent(reason.clone())),
        (Outcome::Unknown(reason), _) => Err(Unconfirmed::Unknown(reason.clone())),
    }
}
