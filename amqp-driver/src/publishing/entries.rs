//! The messages that were accepted, until their outcomes are taken.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    sync::Arc,
    task::{Poll, Waker},
};

use amqp_core::{Close, CloseCause, CloseReason, MethodDef as _, TimeoutReason, protocol::basic};

use super::{
    message::OutgoingMessage,
    options::{Republish, Window},
    outcome::Outcome,
    target::{Boxed, Sent},
    window::Room,
};
use crate::{
    error::Error,
    session::{
        later::{Later, register},
        waiters::Waiters,
    },
    unconfirmed::Unconfirmed,
};

/// A publish in progress, of a message that is published again.
type Resend<A> = Boxed<Result<Sent<A>, Error>>;

/// The state of a publisher, behind its lock. `I` is the part of a message that is shared with its
/// waker, `A` the wait for an answer.
pub(super) struct State<I, A> {
    pub(super) room: Room,
    /// Names messages. `Some` if they are published again.
    pub(super) republish: Option<Republish>,
    entries: BTreeMap<u64, Entry<I, A>>,
    last: u64,
    /// The number of messages without an outcome.
    unsettled: usize,
    /// The messages with a future that was woken.
    ready: Vec<u64>,
    /// The messages that are to be published again, in order.
    again: BTreeSet<u64>,
    /// The message that is being published again.
    resending: Option<u64>,
    /// A thread polls the futures of messages.
    driving: bool,
    /// Messages that wait for earlier ones to be published again.
    pub(super) gate: Waiters,
    /// Futures that wait until all messages have their outcomes.
    pub(super) idle: Waiters,
}

/// A message that was accepted. Dropped without the lock: the body is the application's.
pub(super) struct Entry<I, A> {
    item: Arc<I>,
    /// The charge in the window, in bytes.
    bytes: usize,
    stage: Stage<A>,
    /// The cause of the first attempt that ended unknown.
    doubt: Option<CloseReason>,
    waker: Option<Waker>,
    has_receipt: bool,
}

/// ```text
///  Confirming ──> Settled
///    │    ^          ^
///    v    └────┐     │
///  Again <──> Resending
/// ```
enum Stage<A> {
    /// `None` while it is polled.
    Confirming(Option<A>),
    /// The message is to be published again.
    Again,
    /// `None` while it is polled.
    Resending(Option<Resend<A>>),
    Settled(Outcome),
}

/// The next step of [`Engine::drive`](super::engine::Engine::drive).
pub(super) enum Work<A> {
    Poll(Vec<u64>),
    Resend(u64),
    /// A publish that is given up, because an earlier message goes first.
    GiveUp(Option<Resend<A>>),
}

/// The future of a message.
pub(super) enum Pending<A> {
    Answer(A),
    Resend(Resend<A>),
}

impl<I, A> State<I, A> {
    pub(super) fn new(window: Window, republish: Option<Republish>) -> Self {
        Self {
            room: Room::new(window),
            republish,
            entries: BTreeMap::new(),
            last: 0,
            unsettled: 0,
            ready: Vec::new(),
            again: BTreeSet::new(),
            resending: None,
            driving: false,
            gate: Waiters::default(),
            idle: Waiters::default(),
        }
    }

    pub(super) const fn unsettled(&self) -> usize {
        self.unsettled
    }

    /// Whether new messages must wait for earlier ones, which may have to be published again.
    pub(super) fn is_gated(&self) -> bool {
        let unsure = self.driving || !self.ready.is_empty();
        self.is_resending() || (self.republish.is_some() && unsure)
    }

    fn is_resending(&self) -> bool {
        self.resending.is_some() || !self.again.is_empty()
    }

    /// Adds a message that was accepted, and returns its number.
    pub(super) fn add(
        &mut self,
        bytes: usize,
        sent: Sent<A>,
        item: impl FnOnce(u64) -> Arc<I>,
        later: &mut Later,
    ) -> u64 {
        self.last += 1;
        let number = self.last;
        let stage = match sent {
            Sent::Confirming(answer) => {
                self.ready.push(number);
                self.unsettled += 1;
                Stage::Confirming(Some(answer))
            }
            Sent::Unacknowledged => {
                self.room.release(bytes, later);
                Stage::Settled(Outcome::Unacknowledged)
            }
        };
        let entry = Entry {
            item: item(number),
            bytes,
            stage,
            doubt: None,
            waker: None,
            has_receipt: true,
        };
        self.entries.insert(number, entry);
        number
    }

    /// Notes that the future of a message was woken.
    pub(super) fn wake(&mut self, number: u64) {
        self.ready.push(number);
    }

    /// Begins to drive. Returns `false` if another thread, or a caller, does.
    pub(super) const fn begin_driving(&mut self) -> bool {
        !mem::replace(&mut self.driving, true)
    }

    /// The next step, or `None` and the end of driving.
    pub(super) fn next_work(&mut self, later: &mut Later) -> Option<Work<A>> {
        if !self.ready.is_empty() {
            return Some(Work::Poll(mem::take(&mut self.ready)));
        }
        match (self.again.first().copied(), self.resending) {
            (Some(first), None) => return Some(Work::Resend(first)),
            (Some(first), Some(current)) if first < current => {
                self.resending = None;
                self.again.insert(current);
                let stage = self.entries.get_mut(&current).map(|it| &mut it.stage);
                let given_up = stage.map(|stage| mem::replace(stage, Stage::Again));
                return Some(Work::GiveUp(match given_up {
                    Some(Stage::Resending(resend)) => resend,
                    _ => None,
                }));
            }
            _ => {}
        }
        self.driving = false;
        if !self.is_resending() {
            self.gate.wake_all(later);
        }
        None
    }

    /// Takes the future of a message, to poll it without the lock.
    pub(super) fn take(&mut self, number: u64) -> Option<(Arc<I>, Pending<A>)> {
        let entry = self.entries.get_mut(&number)?;
        let pending = match &mut entry.stage {
            Stage::Confirming(answer) => Pending::Answer(answer.take()?),
            Stage::Resending(resend) => Pending::Resend(resend.take()?),
            Stage::Again | Stage::Settled(_) => return None,
        };
        Some((Arc::clone(&entry.item), pending))
    }

    /// Puts a pending future back.
    pub(super) fn put_back(&mut self, number: u64, pending: Pending<A>) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.stage = match pending {
                Pending::Answer(answer) => Stage::Confirming(Some(answer)),
                Pending::Resend(resend) => Stage::Resending(Some(resend)),
            };
        }
    }

    /// Begins to publish a message again.
    pub(super) fn begin_resend(&mut self, number: u64) -> Option<Arc<I>> {
        self.again.remove(&number);
        let entry = self.entries.get_mut(&number)?;
        entry.stage = Stage::Resending(None);
        self.resending = Some(number);
        Some(Arc::clone(&entry.item))
    }

    /// Keeps the publish of a message that waits for room, to be polled next.
    pub(super) fn await_resend(&mut self, number: u64, resend: Resend<A>) {
        self.put_back(number, Pending::Resend(resend));
        self.ready.push(number);
    }

    /// Notes the end of a publish of [`begin_resend`](Self::begin_resend). Returns the entry if no
    /// receipt takes its outcome.
    pub(super) fn resent(
        &mut self,
        number: u64,
        result: Result<Sent<A>, Error>,
        message: impl FnOnce(&I) -> OutgoingMessage,
        later: &mut Later,
    ) -> Option<Entry<I, A>> {
        self.resending = None;
        match result {
            Ok(Sent::Confirming(answer)) => {
                self.put_back(number, Pending::Answer(answer));
                self.ready.push(number);
                None
            }
            Ok(Sent::Unacknowledged) => self.settle(number, Outcome::Unacknowledged, later),
            Err(cause) => {
                let entry = self.entries.get(&number)?;
                let outcome = match &entry.doubt {
                    Some(doubt) => Outcome::Unknown(doubt.clone()),
                    None => not_sent(message(&entry.item), cause),
                };
                self.settle(number, outcome, later)
            }
        }
    }

    /// Notes the answer to a message. Returns the entry if no receipt takes its outcome.
    pub(super) fn answered(
        &mut self,
        number: u64,
        answer: Result<(), Unconfirmed>,
        message: impl FnOnce(&I) -> OutgoingMessage,
        later: &mut Later,
    ) -> Option<Entry<I, A>> {
        let entry = self.entries.get_mut(&number)?;
        let again = self.republish.is_some();
        let outcome = match answer {
            Ok(()) => Outcome::Acked,
            Err(Unconfirmed::NotSent(reason)) if again && is_loss(&reason) => {
                entry.stage = Stage::Again;
                self.again.insert(number);
                return None;
            }
            Err(Unconfirmed::Unknown(reason)) if again && is_loss(&reason) => {
                entry.doubt.get_or_insert(reason);
                entry.stage = Stage::Again;
                self.again.insert(number);
                return None;
            }
            Err(other) => match (&entry.doubt, other) {
                (Some(doubt), _) => Outcome::Unknown(doubt.clone()),
                (None, Unconfirmed::Returned(returned)) => Outcome::Returned(returned),
                (None, Unconfirmed::PossiblyReturned(it)) => Outcome::PossiblyReturned(it),
                (None, Unconfirmed::Nacked { .. }) => Outcome::Nacked,
                (None, Unconfirmed::NotSent(reason)) => {
                    not_sent(message(&entry.item), Error::of_channel(reason))
                }
                (None, Unconfirmed::Unknown(reason)) => Outcome::Unknown(reason),
            },
        };
        self.settle(number, outcome, later)
    }

    fn settle(&mut self, number: u64, outcome: Outcome, later: &mut Later) -> Option<Entry<I, A>> {
        let entry = self.entries.get_mut(&number)?;
        self.room.release(entry.bytes, later);
        self.unsettled -= 1;
        if self.unsettled == 0 {
            self.idle.wake_all(later);
        }
        later.wake(entry.waker.take());
        entry.stage = Stage::Settled(outcome);
        if entry.has_receipt {
            return None;
        }
        self.entries.remove(&number)
    }

    /// Removes a message that has its outcome. Without one, stores the waker.
    pub(super) fn poll_outcome(
        &mut self,
        number: u64,
        waker: Option<Waker>,
        later: &mut Later,
    ) -> Poll<Option<Entry<I, A>>> {
        let Some(entry) = self.entries.get_mut(&number) else {
            later.drop_waker(waker);
            return Poll::Pending;
        };
        if !matches!(entry.stage, Stage::Settled(_)) {
            if let Some(waker) = waker {
                register(&mut entry.waker, waker, later);
            }
            return Poll::Pending;
        }
        later.drop_waker(waker);
        Poll::Ready(self.entries.remove(&number))
    }

    /// Gives up a receipt. Returns the entry if it has its outcome.
    pub(super) fn leave(&mut self, number: u64, later: &mut Later) -> Option<Entry<I, A>> {
        let entry = self.entries.get_mut(&number)?;
        entry.has_receipt = false;
        later.drop_waker(entry.waker.take());
        match entry.stage {
            Stage::Settled(_) => self.entries.remove(&number),
            Stage::Confirming(_) | Stage::Again | Stage::Resending(_) => None,
        }
    }
}

impl<I, A> Entry<I, A> {
    /// The outcome. `Some` once there is one.
    pub(super) fn into_outcome(self) -> Option<Outcome> {
        match self.stage {
            Stage::Settled(outcome) => Some(outcome),
            Stage::Confirming(_) | Stage::Again | Stage::Resending(_) => None,
        }
    }
}

/// Whether another attempt may end otherwise: the channel or the connection has ended, and not because
/// of a publish, which would be refused again. A server that does not confirm in time would not do so
/// at another attempt.
fn is_loss(reason: &CloseReason) -> bool {
    let by_publish = |close: &Close| close.method == Some(basic::Publish::ID);
    let timed_out = CloseCause::TimedOut(TimeoutReason::Confirm);
    *reason.cause() != timed_out && !reason.by_peer().is_some_and(by_publish)
}

pub(super) fn not_sent(message: OutgoingMessage, cause: Error) -> Outcome {
    let message = Box::new(message);
    Outcome::NotSent { message, cause }
}
