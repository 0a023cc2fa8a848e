//! Sending: with or without waiting for room.

use std::{future::poll_fn, task::Poll};

use amqp_core::Instant;

use super::{
    shared::Shared,
    state::State,
    waiters::{Waiters, wait_for},
};
use crate::{
    cause::SendError,
    config::Receipts,
    machine::Demand,
    message::{Message, MessageId},
    name::PeerName,
    rpc::has_reserved_kind,
    storage::BatchId,
};

/// The number of messages after which a task that sends makes way for the drivers: some 60 KiB of
/// small messages.
const TURN: usize = 1024;

/// What is asked for beyond the plain send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tracking {
    /// As the configuration says.
    Configured,
    /// The delivery is waited for.
    Delivery,
    /// Without receipts.
    Nothing,
    /// Without receipts, and it waits for a place among the receivers.
    Reply,
}

impl State {
    /// Sends a message if there is room, and no other one waits.
    pub(super) fn send(
        &mut self,
        to: &PeerName,
        message: Message,
        tracking: Tracking,
    ) -> Result<MessageId, SendError> {
        let length = self.after.notes.sending(&message);
        let sent = self.hand_over(to, message, tracking);
        self.after.notes.sent(to, length, &sent);
        sent
    }

    fn hand_over(
        &mut self,
        to: &PeerName,
        message: Message,
        tracking: Tracking,
    ) -> Result<MessageId, SendError> {
        let now = self.now;
        let configured = self.machine.config().receipts;
        match tracking {
            Tracking::Configured => self.machine.send(now, to, message),
            Tracking::Delivery => {
                let receipts = configured.max(Receipts::Delivered);
                let id = self.machine.send_with(now, to, message, receipts)?;
                self.deliveries.add(id);
                Ok(id)
            }
            Tracking::Nothing | Tracking::Reply => {
                self.machine.send_with(now, to, message, Receipts::None)
            }
        }
    }

    /// Whether a send waits for room of that receiver, and the peer has not stopped.
    pub(super) fn has_waiters(&self, to: &PeerName) -> bool {
        let waiters = self.room.get(to);
        !self.machine.is_stopped() && waiters.is_some_and(|waiters| !waiters.is_empty())
    }

    /// Whether a message may be sent now, by the waiter with that key, or by none.
    fn may_send(&mut self, to: &PeerName, demand: Demand, waiter: Option<u64>) -> bool {
        if self.machine.is_stopped() {
            return true; // to fail
        }
        if let Some(waiters) = self.room.get(to)
            && !waiters.is_empty()
            && !waiter.is_some_and(|key| waiters.is_first(key))
        {
            return false;
        }
        self.machine.room_of(to, demand)
    }
}

/// Checks that a message of the application does not have a kind of those of calls.
pub(super) fn check_kind(message: &Message, tracking: Tracking) -> Result<(), SendError> {
    let is_own = matches!(tracking, Tracking::Configured | Tracking::Delivery);
    if is_own && has_reserved_kind(message) {
        return Err(SendError::ReservedKind);
    }
    Ok(())
}

/// A place in the line for the room of a receiver.
struct Place<'a> {
    shared: &'a Shared,
    to: &'a PeerName,
    key: u64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let waker = self.shared.with(|state| {
            let waiters = state.room.get_mut(self.to)?;
            let waker = waiters.remove(self.key);
            if waiters.is_empty() {
                state.room.remove(self.to);
            } else {
                waiters.wake_first(&mut state.after.wakes);
            }
            waker
        });
        drop(waker);
    }
}

/// Sends a message when there is room, in the order of the calls.
pub(super) async fn send(
    shared: &Shared,
    to: &PeerName,
    message: Message,
    tracking: Tracking,
) -> Result<MessageId, SendError> {
    send_with(shared, to, message, tracking, (|_, _| {}, || {})).await
}

/// As [`send`], with what is done to the message just before it enters the outbox, and what is done
/// just after. Both run under the lock.
pub(super) async fn send_with(
    shared: &Shared,
    to: &PeerName,
    message: Message,
    tracking: Tracking,
    hooks: (impl Fn(&mut Message, Instant), impl Fn()),
) -> Result<MessageId, SendError> {
    let sent = submit(shared, to, message, tracking, hooks).await?;
    let id = sent.id;
    sent.settle(shared).await?;
    Ok(id)
}

/// A message that was sent.
pub(super) struct Sent {
    pub(super) id: MessageId,
    /// The batch with which it is stored. `Some` if it is persistent.
    batch: Option<BatchId>,
    /// The task makes way for others.
    is_long: bool,
}

impl Sent {
    /// Waits until a persistent message is stored.
    pub(super) async fn settle(self, shared: &Shared) -> Result<(), SendError> {
        if let Some(batch) = self.batch {
            stored(shared, batch).await?;
        } else if self.is_long {
            make_way().await;
        }
        Ok(())
    }
}

/// Sends a message when there is room, with the hooks of [`send_with`]. Nothing is awaited after it
/// is sent.
pub(super) async fn submit(
    shared: &Shared,
    to: &PeerName,
    message: Message,
    tracking: Tracking,
    (prepare, note): (impl Fn(&mut Message, Instant), impl Fn()),
) -> Result<Sent, SendError> {
    check_kind(&message, tracking)?;
    let mut demand = Demand::of(&message);
    demand.awaits_place = tracking == Tracking::Reply;
    let is_persistent = message.is_persistent;
    let mut message = Some(message);
    let mut attempt = |state: &mut State, waiter: Option<u64>| {
        if !state.may_send(to, demand, waiter) {
            return None;
        }
        let mut message = message.take()?;
        prepare(&mut message, state.now);
        let sent = state.send(to, message, tracking);
        if sent.is_ok() {
            note();
        }
        state.sent_in_turn += 1;
        let batch = state.machine.latest_batch().filter(|_| is_persistent);
        // Until a driver has run, every further send makes way.
        let is_long = state.sent_in_turn >= TURN && state.machine.is_up(to);
        Some(sent.map(|id| Sent { id, batch, is_long }))
    };
    let first = shared.at_now(|state, _| match attempt(state, None) {
        Some(sent) => Ok(sent),
        None => Err(state.room.entry(to.clone()).or_default().add()),
    });
    match first {
        Ok(sent) => sent,
        Err(key) => {
            let place = Place { shared, to, key };
            let sent = poll_fn(|cx| {
                let waker = cx.waker().clone();
                let (sent, replaced) = shared.at_now(|state, _| match attempt(state, Some(key)) {
                    Some(sent) => (Some(sent), None),
                    None => {
                        let waiters = state.room.entry(to.clone()).or_default();
                        (None, waiters.slot(key).replace(waker))
                    }
                });
                drop(replaced);
                sent.map_or(Poll::Pending, Poll::Ready)
            })
            .await;
            drop(place);
            sent
        }
    }
}

/// Waits until a batch is stored.
async fn stored(shared: &Shared, batch: BatchId) -> Result<(), SendError> {
    let ready = |state: &mut State| {
        if state.machine.is_stored(batch) {
            return Some(Ok(()));
        }
        if let Some(message) = &state.store.failure {
            let message = message.clone();
            return Some(Err(SendError::Storage { message }));
        }
        state.is_stopped().then_some(Err(SendError::Stopped))
    };
    let set: fn(&mut State) -> &mut Waiters = |state| &mut state.stored;
    wait_for(shared, set, ready).await
}

/// Lets other tasks run.
async fn make_way() {
    let mut is_first = true;
    poll_fn(|cx| {
        if std::mem::take(&mut is_first) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(())
    })
    .await;
}
