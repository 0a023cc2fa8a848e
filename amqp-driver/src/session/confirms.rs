//! The outcomes of publishes, until their futures take them.

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

/// The outcomes of a channel's publishes, and the futures that await them, by sequence number.
///
/// The server sends the `basic.return` of a message before its confirm, see
/// <https://www.rabbitmq.com/docs/confirms>.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// The sequence number of the slot at the front.
    first: u64,
    slots: VecDeque<Slot>,
    /// Outcomes from before the front that their futures have not taken yet.
    late: BTreeMap<u64, Result<(), Unconfirmed>>,
}

#[derive(Debug)]
enum Slot {
    Waiting {
        waker: Option<Waker>,
        /// The returned message, if this publish is or may be the returned one. Its confirm
        /// follows.
        returned: Option<Box<ReturnedMessage>>,
        /// The returned message is certainly this one.
        certain: bool,
    },
    Settled(Result<(), Unconfirmed>),
    /// Unsettled, without a future.
    Abandoned,
    Taken,
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
            late: BTreeMap::new(),
        }
    }
}

impl Confirms {
    /// Registers the next sequence number. `tracked` is `false` if no future awaits the outcome.
    #[inline]
    pub(crate) fn expect(&mut self, tracked: bool) {
        self.slots.push_back(if tracked {
            Slot::Waiting {
                waker: None,
                returned: None,
                certain: false,
            }
        } else {
            Slot::Abandoned
        });
    }

    /// Takes the outcome, if it is known.
    pub(crate) fn take(&mut self, seq: u64, totals: &mut Totals) -> Poll<Result<(), Unconfirmed>> {
        let settled = match self.late.remove(&seq) {
            Some(outcome) => Some(outcome),
            None => self.take_slot(seq),
        };
        let Some(outcome) = settled else {
            return Poll::Pending;
        };
        totals.release(returned_in(&outcome));
        self.sweep();
        Poll::Ready(outcome)
    }

    fn take_slot(&mut self, seq: u64) -> Option<Result<(), Unconfirmed>> {
        let slot = self.slot(seq)?;
        match std::mem::replace(slot, Slot::Taken) {
            Slot::Settled(outcome) => Some(outcome),
            unsettled => {
                *slot = unsettled;
                None
            }
        }
    }

    /// Stores the waker of a waiting future.
    pub(crate) fn wait(&mut self, seq: u64, totals: &mut Totals, waker: Waker, later: &mut Later) {
        match self.slot(seq) {
            Some(Slot::Waiting { waker: slot, .. }) => {
                totals.awaited += usize::from(slot.is_none());
                register(slot, waker, later);
            }
            _ => later.drop_waker(Some(waker)),
        }
    }

    /// Abandons a future's interest in an outcome.
    pub(crate) fn abandon(&mut self, seq: u64, totals: &mut Totals, later: &mut Later) {
        if let Some(outcome) = self.late.remove(&seq) {
            totals.release(returned_in(&outcome));
        }
        if let Some(slot) = self.slot(seq) {
            let next = match slot {
                Slot::Waiting { .. } | Slot::Abandoned => Slot::Abandoned,
                Slot::Settled(_) | Slot::Taken => Slot::Taken,
            };
            match std::mem::replace(slot, next) {
                Slot::Waiting {
                    waker, returned, ..
                } => {
                    totals.stop_waiting(waker.as_ref());
                    totals.release(returned.as_deref());
                    later.drop_waker(waker);
                }
                Slot::Settled(outcome) => totals.release(returned_in(&outcome)),
                Slot::Abandoned | Slot::Taken => {}
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
        match self.slot(seq) {
            Some(Slot::Waiting {
                returned, certain, ..
            }) => {
                totals.release(returned.as_deref());
                totals.returned += message.memory();
                *returned = Some(Box::new(message));
                *certain = true;
                Ok(())
            }
            _ => Err(message),
        }
    }

    /// Keeps a copy of a returned message for the future of a publish that may be the returned one.
    pub(crate) fn keep_possibly_returned(
        &mut self,
        seq: u64,
        message: &ReturnedMessage,
        totals: &mut Totals,
    ) {
        if let Some(Slot::Waiting {
            returned,
            certain: false,
            ..
        }) = self.slot(seq)
        {
            totals.release(returned.as_deref());
            totals.returned += message.memory();
            *returned = Some(Box::new(message.clone()));
        }
    }

    /// Settles a run of publishes.
    pub(crate) fn settle(
        &mut self,
        run: RangeInclusive<u64>,
        outcome: &Outcome,
        totals: &mut Totals,
        later: &mut Later,
    ) {
        for seq in run {
            let Some(slot) = self.slot(seq) else { continue };
            *slot = match std::mem::replace(slot, Slot::Taken) {
                Slot::Waiting {
                    waker,
                    returned,
                    certain,
                } => {
                    totals.stop_waiting(waker.as_ref());
                    later.wake(waker);
                    let bytes = returned.as_deref().map_or(0, ReturnedMessage::memory);
                    let result = result_of(outcome, returned, certain);
                    if returned_in(&result).is_none() {
                        totals.returned = totals.returned.saturating_sub(bytes);
                    }
                    Slot::Settled(result)
                }
                Slot::Abandoned | Slot::Taken => Slot::Taken,
                settled @ Slot::Settled(_) => settled,
            };
        }
        self.sweep();
    }

    fn slot(&mut self, seq: u64) -> Option<&mut Slot> {
        let at = seq.checked_sub(self.first)?;
        self.slots.get_mut(usize::try_from(at).ok()?)
    }

    /// Frees the slots at the front that no future needs.
    fn sweep(&mut self) {
        while let Some(front) = self.slots.front() {
            let frees = match front {
                Slot::Taken => true,
                Slot::Settled(_) => self.slots.len() > SLOTS_MAX,
                Slot::Waiting { .. } | Slot::Abandoned => false,
            };
            if !frees {
                return;
            }
            if let Some(Slot::Settled(outcome)) = self.slots.pop_front() {
                self.late.insert(self.first, outcome);
            }
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
fn result_of(
    outcome: &Outcome,
    returned: Option<Box<ReturnedMessage>>,
    certain: bool,
) -> Result<(), Unconfirmed> {
    match (outcome, returned) {
        (Outcome::Nacked, _) => Err(Unconfirmed::Nacked),
        // A certain return is reported with and without a confirm.
        (_, Some(message)) if certain => Err(Unconfirmed::Returned(message)),
        (Outcome::PossiblyReturned, message) => Err(Unconfirmed::PossiblyReturned(message)),
        (Outcome::Acked, _) => Ok(()),
        (Outcome::NotSent(reason), _) => Err(Unconfirmed::NotSent(reason.clone())),
        (Outcome::Unknown(reason), _) => Err(Unconfirmed::Unknown(reason.clone())),
    }
}
