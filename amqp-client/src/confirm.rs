//! Publishing with confirms.

use std::{
    collections::{BTreeMap, VecDeque},
    future::Future,
    ops::{Deref, RangeInclusive},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use amqp_core::{Body, CloseReason, PropertyList, PublishSeq, client::Outcome, protocol::basic};

use crate::{
    channel::{Channel, Inner, publish_on},
    error::Error,
    returns::ReturnedMessage,
    waiters::{Wakes, keep},
};

/// A channel in confirm mode: the server tells of each publish whether it has taken it.
///
/// Everything that a [`Channel`] can do, it can do; only publishing gives more.
#[derive(Debug)]
pub struct ConfirmChannel(Channel);

impl ConfirmChannel {
    pub(crate) const fn new(channel: Channel) -> Self {
        Self(channel)
    }

    /// Publishes a message, and gives back its [`Confirm`]. It returns when the message is
    /// accepted into the output buffer; await the confirm to know what became of it. Keep many
    /// confirms under way for speed: as many as [`Limits::unconfirmed`](amqp_core::Limits) allows.
    ///
    /// ```no_run
    /// use amqp_client::protocol::basic;
    ///
    /// # async fn example(channel: amqp_client::ConfirmChannel) -> Result<(), Box<dyn std::error::Error>> {
    /// let to_hello = basic::Publish::default().routing_key("hello")?.mandatory(true);
    /// let confirm = channel
    ///     .publish(&to_hello, &basic::Properties::default(), "Hello World!")
    ///     .await?;
    /// confirm.await?; // the server has it, and a queue took it
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// The message is accepted whole or not at all; if the future is dropped before it is ready,
    /// not at all.
    ///
    /// # Errors
    /// As [`Channel::publish`].
    pub async fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Confirm, Error> {
        let seq = publish_on(self.0.inner(), publish, properties, body.into(), true).await?;
        Ok(Confirm {
            channel: Arc::clone(self.0.inner()),
            seq,
        })
    }
}

impl Deref for ConfirmChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0
    }
}

/// What becomes of a publish, once the server has told.
///
/// It ends: at the latest when the channel or the connection does. Dropping it leaves the publish
/// as it is.
#[derive(Debug)]
#[must_use = "a publish is confirmed only when this says so"]
pub struct Confirm {
    channel: Arc<Inner>,
    /// None when it was told.
    seq: Option<PublishSeq>,
}

impl Confirm {
    /// The number of the publish on its channel, from 1.
    #[must_use]
    pub const fn seq(&self) -> Option<PublishSeq> {
        self.seq
    }
}

impl Future for Confirm {
    type Output = Result<(), Unconfirmed>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(seq) = self.seq else {
            return Poll::Pending;
        };
        let id = self.channel.id;
        let outcome = self
            .channel
            .shared()
            .take(|state| state.poll_confirm(id, seq, cx));
        if outcome.is_ready() {
            self.seq = None;
        }
        outcome
    }
}

impl Drop for Confirm {
    fn drop(&mut self) {
        if let Some(seq) = self.seq {
            let id = self.channel.id;
            self.channel.shared().lock().abandon_confirm(id, seq);
        }
    }
}

/// Why a publish was not confirmed.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Unconfirmed {
    /// It was mandatory and no queue took it: here it is. It may have come back without its confirm,
    /// before the channel or the connection ended.
    #[error("the message was returned: {} {}", .0.code, .0.text)]
    Returned(Box<ReturnedMessage>),
    /// The server could not take responsibility for it: it may be lost.
    #[error("the server refused the message")]
    Nacked,
    /// The channel or the connection ended before any of it was sent.
    #[error("the message was not sent: {0}")]
    NotSent(CloseReason),
    /// The channel or the connection ended before the server told: it may have taken it or not.
    #[error("it is not known whether the server has the message: {0}")]
    Unknown(CloseReason),
}

/// From so many slots on, what became of a publish is put elsewhere if nobody has asked for it.
const SLOTS_MAX: usize = 4096;

/// What became of the publishes of a channel, and who waits for it, by number.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// The number of the slot at the front.
    first: u64,
    slots: VecDeque<Slot>,
    /// What became of publishes before the front, of which the futures are there and have not
    /// asked.
    late: BTreeMap<u64, Result<(), Unconfirmed>>,
}

#[derive(Debug)]
enum Slot {
    Waiting {
        waker: Option<Waker>,
        /// The message came back; the confirm follows.
        returned: Option<Box<ReturnedMessage>>,
    },
    Settled(Result<(), Unconfirmed>),
    /// Nobody waits for it.
    Abandoned,
    Taken,
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
    /// The next publish was made; there is a future that may ask what became of it, or there is
    /// none.
    #[inline]
    pub(crate) fn expect(&mut self, future: bool) {
        self.slots.push_back(if future {
            Slot::Waiting {
                waker: None,
                returned: None,
            }
        } else {
            Slot::Abandoned
        });
    }

    /// A future asks. `awaited` is how many wait for an answer.
    pub(crate) fn poll(
        &mut self,
        seq: u64,
        awaited: &mut usize,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Unconfirmed>> {
        if let Some(outcome) = self.late.remove(&seq) {
            return Poll::Ready(outcome);
        }
        let Some(slot) = self.slot(seq) else {
            return Poll::Pending;
        };
        if let Slot::Waiting { waker, .. } = slot {
            *awaited += usize::from(waker.is_none());
            keep(waker, cx);
            return Poll::Pending;
        }
        let taken = std::mem::replace(slot, Slot::Taken);
        self.sweep();
        match taken {
            Slot::Settled(outcome) => Poll::Ready(outcome),
            Slot::Waiting { .. } | Slot::Abandoned | Slot::Taken => Poll::Pending,
        }
    }

    /// A future was dropped.
    pub(crate) fn abandon(&mut self, seq: u64, awaited: &mut usize) {
        self.late.remove(&seq);
        if let Some(slot) = self.slot(seq) {
            *slot = match slot {
                Slot::Waiting { waker, .. } => {
                    *awaited = awaited.saturating_sub(usize::from(waker.is_some()));
                    Slot::Abandoned
                }
                Slot::Settled(_) | Slot::Abandoned | Slot::Taken => Slot::Taken,
            };
        }
        self.sweep();
    }

    /// A message came back. Gives it back if no future is there to tell of it.
    pub(crate) fn keep_returned(
        &mut self,
        seq: u64,
        message: ReturnedMessage,
    ) -> Option<ReturnedMessage> {
        match self.slot(seq) {
            Some(Slot::Waiting { returned, .. }) => {
                *returned = Some(Box::new(message));
                None
            }
            _ => Some(message),
        }
    }

    /// Says what became of a run of publishes.
    pub(crate) fn settle(
        &mut self,
        run: RangeInclusive<u64>,
        outcome: &Outcome,
        awaited: &mut usize,
        wakes: &mut Wakes,
    ) {
        for seq in run {
            let Some(slot) = self.slot(seq) else { continue };
            *slot = match std::mem::replace(slot, Slot::Taken) {
                Slot::Waiting { waker, returned } => {
                    *awaited = awaited.saturating_sub(usize::from(waker.is_some()));
                    wakes.add(waker);
                    Slot::Settled(told(outcome, returned))
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

    /// Frees the slots that nobody will ask for. A future that does not ask keeps no other's.
    fn sweep(&mut self) {
        while let Some(front) = self.slots.pop_front() {
            match front {
                Slot::Taken => {}
                Slot::Settled(outcome) if self.slots.len() >= SLOTS_MAX => {
                    self.late.insert(self.first, outcome);
                }
                stays => {
                    self.slots.push_front(stays);
                    return;
                }
            }
            self.first += 1;
        }
    }
}

/// What a publisher is told, whose message came back or did not.
fn told(outcome: &Outcome, returned: Option<Box<ReturnedMessage>>) -> Result<(), Unconfirmed> {
    match (outcome, returned) {
        (Outcome::Nacked, _) => Err(Unconfirmed::Nacked),
        // That no queue took it is known, whether or not its confirm still came.
        (_, Some(message)) => Err(Unconfirmed::Returned(message)),
        (Outcome::Acked, None) => Ok(()),
        (Outcome::NotSent(reason), None) => Err(Unconfirmed::NotSent(reason.clone())),
        (Outcome::Unknown(reason), None) => Err(Unconfirmed::Unknown(reason.clone())),
    }
}
