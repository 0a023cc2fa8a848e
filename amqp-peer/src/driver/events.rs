//! The events of a peer, as its application takes them.

use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_driver::{ConnectError, Error, io::poll_locked};
use amqp_embedded::broker::AcceptError;
use futures_core::Stream;

use super::{
    connector::ConnectorId, inbox, listener::ListenerId, peer::Handles, queue::Entry,
    received::Received, state::State,
};
use crate::{
    cause::LinkError,
    event::{Down, Dropped, Refused, Up},
    machine,
    message::MessageId,
    name::PeerName,
};

/// An event of a peer. The same on both ends of a link.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// A link to a peer is up: messages flow in both directions.
    Up(Up),
    /// The link to a peer has ended.
    Down(Down),
    /// A link ended before it was up.
    Refused(Refused),
    /// An attempt of a connector has failed, the first one since this event was last taken.
    Unreachable(Unreachable),
    /// A listener has refused a connection before a link was begun, the first one since this event was
    /// last taken.
    NotAccepted(NotAccepted),
    /// The [inbox](crate::PeerBroker) of plain clients has ended, for instance because an
    /// administrator has closed its connection, or another client has the name of its queue. It
    /// begins again by itself; until it has, this event comes once. Messages that were in it, and not
    /// accepted, are gone if its connection has ended, and come again otherwise.
    InboxFailed(Error),
    /// A message has arrived, to be [accepted](Received::accept).
    Received(Received),
    /// A message was handed to the transport for the first time. With
    /// [`Receipts::All`](crate::Receipts::All).
    Written {
        /// The receiver.
        to: PeerName,
        /// The message.
        id: MessageId,
    },
    /// The receiver's application has accepted a message. With
    /// [`Receipts::Delivered`](crate::Receipts::Delivered).
    Delivered {
        /// The receiver.
        to: PeerName,
        /// The message.
        id: MessageId,
    },
    /// A message will not be delivered.
    Dropped(Dropped),
}

/// A failed attempt of a connector. The next one comes by itself.
#[derive(Debug)]
#[non_exhaustive]
pub struct Unreachable {
    /// The connector.
    pub connector: ConnectorId,
    /// The reason.
    pub error: UnreachableError,
}

/// The reason for which an attempt of a connector has failed.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum UnreachableError {
    /// There is no transport.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The peer begins no further link: a limit is reached.
    #[error(transparent)]
    Link(#[from] LinkError),
}

/// A connection that a listener has refused before a link was begun. The listener goes on.
#[derive(Debug)]
#[non_exhaustive]
pub struct NotAccepted {
    /// The listener.
    pub listener: ListenerId,
    /// The reason.
    pub error: NotAcceptedError,
    /// The number of connections that the listener has refused so since this event was last taken,
    /// this one included.
    pub count: u64,
}

/// The reason for which a connection was not accepted.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum NotAcceptedError {
    /// The system has none for the listener, such as for want of file descriptors. The listener tries
    /// again after 50 ms.
    #[error("cannot accept: {0}")]
    System(#[source] Arc<io::Error>),
    /// The peer begins no further link: a limit is reached.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// The embedded broker takes no further client.
    #[error(transparent)]
    Broker(#[from] AcceptError),
}

/// The events of a peer, in order.
///
/// Received messages that are not taken slow their senders down. Of other events some thousands are
/// kept; beyond, no further link is begun until some are taken. Those of
/// [deliveries](crate::Peer::deliver) and calls do not come here. A program that does not read events
/// drops it: that discards them, and leaves messages with their senders.
pub struct Events {
    handles: Arc<Handles>,
    /// Events that were taken together.
    taken: VecDeque<Entry>,
    /// The number of events since other tasks could last run.
    in_turn: usize,
}

/// The number of events after which the task makes way for others.
const TURN: usize = 256;

impl Events {
    pub(super) const fn new(handles: Arc<Handles>) -> Self {
        Self {
            handles,
            taken: VecDeque::new(),
            in_turn: 0,
        }
    }

    /// The next event. `None` once the peer has stopped and all events are taken.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| self.poll_event(cx)).await
    }

    /// Returns the next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        if self.taken.is_empty() {
            let Self { handles, taken, .. } = self;
            handles.shared.with(|state| state.take_events(taken));
        }
        self.taken.pop_front().map(|entry| self.event(entry))
    }

    /// Polls the next event.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        if self.in_turn >= TURN {
            self.in_turn = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.in_turn += 1;
        if self.taken.is_empty() {
            let Self { handles, taken, .. } = self;
            let shared = &handles.shared;
            let ready = |state: &mut State| {
                state.take_events(taken);
                let has_ended = taken.is_empty() && state.is_stopped();
                (!taken.is_empty() || has_ended).then_some(())
            };
            let polled = poll_locked(shared.mutex(), cx.waker(), ready, |state| {
                &mut state.events.waker
            });
            if polled.is_pending() {
                self.in_turn = 0;
                return Poll::Pending;
            }
            // Events that the machine has kept for want of room.
            shared.with(|_| {});
        }
        let entry = self.taken.pop_front();
        Poll::Ready(entry.map(|entry| self.event(entry)))
    }

    fn event(&self, entry: Entry) -> Event {
        match entry {
            Entry::Machine(event) => match event {
                machine::Event::Up(up) => Event::Up(up),
                machine::Event::Down(down) => Event::Down(down),
                machine::Event::Refused(refused) => Event::Refused(refused),
                machine::Event::Received(received) => {
                    Event::Received(Received::of_link(received, &self.handles.shared))
                }
                machine::Event::Written { to, id } => Event::Written { to, id },
                machine::Event::Delivered { to, id } => Event::Delivered { to, id },
                machine::Event::Dropped(dropped) => Event::Dropped(dropped),
            },
            Entry::Inbox(delivery) => Event::Received(inbox::received(*delivery)),
            Entry::InboxFailed(error) => Event::InboxFailed(*error),
            Entry::NotAccepted(listener, error, count) => Event::NotAccepted(NotAccepted {
                listener,
                error: *error,
                count,
            }),
            Entry::Unreachable(connector, error) => Event::Unreachable(Unreachable {
                connector,
                error: *error,
            }),
        }
    }
}

impl State {
    fn take_events(&mut self, into: &mut VecDeque<Entry>) {
        self.events.take(into);
        for entry in into {
            match entry {
                Entry::Unreachable(id, _) => {
                    if let Some(slot) = self.connectors.get_mut(id) {
                        slot.has_reported = false;
                    }
                }
                Entry::NotAccepted(id, _, count) => {
                    if let Some(slot) = self.listeners.get_mut(id) {
                        *count = std::mem::take(&mut slot.refused);
                    }
                }
                _ => {}
            }
        }
    }
}

impl Stream for Events {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.poll_event(cx)
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.handles.shared.with(|state| {
            let kept = state.events.close();
            state.after.discarded.extend(kept);
        });
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}
