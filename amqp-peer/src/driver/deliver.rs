//! Sending a message and waiting until the receiver has accepted it.

use std::{collections::BTreeMap, future::poll_fn, task::Waker};

use amqp_driver::io::poll_locked;

use super::{
    queue::Entry,
    send::{Tracking, submit},
    shared::Shared,
};
use crate::{
    cause::{DropReason, SendError},
    event::Dropped,
    machine::Event,
    message::{Message, MessageId},
    name::PeerName,
};

/// The reason for which a message was not delivered.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Undelivered {
    /// It was not taken to be sent.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// It was dropped.
    #[error("the message was dropped: {}", .0.reason)]
    Dropped(Box<Dropped>),
    /// The peer has stopped. The receiver may have the message nevertheless; a persistent one stays
    /// in the storage, and is sent in the next run.
    #[error("the peer has stopped")]
    Stopped,
}

impl Undelivered {
    /// The message, if it was dropped.
    #[must_use]
    pub fn message(&self) -> Option<&Message> {
        match self {
            Self::Dropped(dropped) => Some(&dropped.message),
            _ => None,
        }
    }

    /// The reason of the drop, if it was dropped.
    #[must_use]
    pub fn drop_reason(&self) -> Option<DropReason> {
        match self {
            Self::Dropped(dropped) => Some(dropped.reason),
            _ => None,
        }
    }
}

/// The deliveries that are waited for.
#[derive(Debug, Default)]
pub(super) struct Deliveries(BTreeMap<MessageId, Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    result: Option<Result<(), Undelivered>>,
    waker: Option<Waker>,
}

impl Deliveries {
    pub(super) fn add(&mut self, id: MessageId) {
        self.0.insert(id, Waiting::default());
    }

    /// Whether an event is of a delivery that is waited for.
    pub(super) fn awaits(&self, event: &Event) -> bool {
        match event {
            Event::Delivered { id, .. } => self.0.contains_key(id),
            Event::Dropped(dropped) => self.0.contains_key(&dropped.id),
            _ => false,
        }
    }

    /// Takes an event of a delivery that is waited for, and returns any other one.
    pub(super) fn note(&mut self, event: Event, wakes: &mut Vec<Waker>) -> Option<Event> {
        if self.0.is_empty() {
            return Some(event);
        }
        match event {
            Event::Delivered { to, id } => match self.0.get_mut(&id) {
                Some(waiting) => waiting.end(Ok(()), wakes),
                None => return Some(Event::Delivered { to, id }),
            },
            Event::Dropped(dropped) => match self.0.get_mut(&dropped.id) {
                Some(waiting) => {
                    waiting.end(Err(Undelivered::Dropped(Box::new(dropped))), wakes);
                }
                None => return Some(Event::Dropped(dropped)),
            },
            other => return Some(other),
        }
        None
    }

    /// Ends all: the peer has stopped.
    pub(super) fn end(&mut self, wakes: &mut Vec<Waker>) {
        for waiting in self.0.values_mut() {
            if waiting.result.is_none() {
                waiting.end(Err(Undelivered::Stopped), wakes);
            }
        }
    }
}

impl Waiting {
    fn end(&mut self, result: Result<(), Undelivered>, wakes: &mut Vec<Waker>) {
        self.result = Some(result);
        wakes.extend(self.waker.take());
    }
}

/// Forgets a delivery on drop. An end that was not taken becomes an event.
struct Forget<'a> {
    shared: &'a Shared,
    to: &'a PeerName,
    id: MessageId,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        let waker = self.shared.with(|state| {
            let waiting = state.deliveries.0.remove(&self.id)?;
            let event = match waiting.result {
                Some(Ok(())) => {
                    let to = self.to.clone();
                    Some(Event::Delivered { to, id: self.id })
                }
                Some(Err(Undelivered::Dropped(dropped))) => Some(Event::Dropped(*dropped)),
                Some(Err(_)) | None => None,
            };
            if let Some(event) = event {
                state.push_event(Entry::Machine(event));
            }
            waiting.waker
        });
        drop(waker);
    }
}

/// Sends a message, and waits for its fate.
pub(super) async fn deliver(
    shared: &Shared,
    to: &PeerName,
    message: Message,
) -> Result<MessageId, Undelivered> {
    let hooks = (|_: &mut Message, _| {}, || {});
    let sent = submit(shared, to, message, Tracking::Delivery, hooks).await?;
    let id = sent.id;
    let _forget = Forget { shared, to, id };
    sent.settle(shared).await?;
    poll_fn(|cx| {
        poll_locked(
            shared.mutex(),
            cx.waker(),
            |state| match state.deliveries.0.get_mut(&id) {
                Some(waiting) => waiting.result.take(),
                None => Some(Err(Undelivered::Stopped)),
            },
            |state| &mut state.deliveries.0.entry(id).or_default().waker,
        )
    })
    .await?;
    Ok(id)
}
