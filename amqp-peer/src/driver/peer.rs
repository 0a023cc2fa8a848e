//! The handle of a peer.

use std::{fmt, sync::Arc};

use super::{
    broker::PeerBroker,
    connector::{Connect, ConnectorId, ConnectorInfo, ConnectorSlot},
    deliver::{Undelivered, deliver},
    listener::{Listen, ListenError, ListenerId, ListenerSlot, Listening},
    runner::{Job, Run},
    send::{Tracking, check_kind, send},
    shared::Shared,
    state::{Phase, State},
    waiters::{Waiters, wait_for},
};
use crate::{
    cause::SendError,
    machine::{LinkInfo, OutboxInfo, StoreInfo},
    message::{Message, MessageId},
    name::PeerName,
    rpc::Rpc,
};

/// What all handles of a peer share. The peer stops when it is dropped.
pub(super) struct Handles {
    pub(super) shared: Arc<Shared>,
    pub(super) runner: Arc<dyn Run>,
    pub(super) rpc: Rpc,
}

impl Drop for Handles {
    fn drop(&mut self) {
        self.shared.begin_stop();
    }
}

/// A peer: it listens, dials, and sends. The same type on every runtime.
///
/// Clones are the same peer. It stops in good order when all clones, its
/// [`Events`](crate::Events) and its [broker](Self::broker)'s handles are dropped; to know when it
/// has, call [`stop`](Self::stop).
#[derive(Clone)]
pub struct Peer {
    handles: Arc<Handles>,
}

impl Peer {
    pub(super) fn new(handles: &Arc<Handles>) -> Self {
        Self {
            handles: Arc::clone(handles),
        }
    }

    fn shared(&self) -> &Shared {
        &self.handles.shared
    }

    /// The name of this peer.
    #[must_use]
    pub fn name(&self) -> PeerName {
        self.shared().lock().machine.config().name.clone()
    }

    // Listeners and connectors.

    /// Listens for other peers, and for plain clients if they are allowed. Returns when it does. Any
    /// number of listeners may be added, at any time. A failure to accept does not end one.
    ///
    /// # Cancel safety
    /// Dropping the future removes the listener.
    ///
    /// # Errors
    /// [`ListenError::System`], such as of an address in use; [`ListenError::Stopped`].
    pub async fn add_listener(&self, listen: Listen) -> Result<Listening, ListenError> {
        let id = self.shared().at_now(|state, _| {
            let id = ListenerId(state.next_number());
            if state.phase == Phase::Running {
                state.listeners.insert(id, ListenerSlot::default());
                state.jobs.push_back(Job::Listen(id, listen));
            }
            id
        });
        let unless_bound = RemoveUnlessBound(Some(id), self);
        let set: fn(&mut State) -> &mut Waiters = |state| &mut state.changed;
        let bound = wait_for(self.shared(), set, |state| {
            match state.listeners.get_mut(&id) {
                Some(slot) => slot.bound.take(),
                None => Some(Err(ListenError::Stopped)),
            }
        });
        let address = bound.await?;
        unless_bound.keep();
        Ok(Listening { id, address })
    }

    /// Removes a listener: it accepts no more connections, and its port is free soon after. The
    /// links that it has accepted stay. Returns whether it was there.
    pub fn remove_listener(&self, id: ListenerId) -> bool {
        self.shared().with(|state| {
            let slot = state.listeners.remove(&id);
            let is_there = slot.is_some();
            state.after.wakes.extend(slot.and_then(|slot| slot.waker));
            state.changed.wake_all(&mut state.after.wakes);
            is_there
        })
    }

    /// Dials another peer, for ever: at once, again after each failure, and again when the link has
    /// ended. It sleeps while the other peer has dialled this one. Any number of connectors may be
    /// added, at any time. Does nothing once the peer has stopped.
    pub fn add_connector(&self, connect: Connect) -> ConnectorId {
        self.shared().at_now(|state, _| {
            let id = ConnectorId(state.next_number());
            if state.phase == Phase::Running {
                state.connectors.insert(id, ConnectorSlot::default());
                state.jobs.push_back(Job::Connect(id, Box::new(connect)));
            }
            id
        })
    }

    /// Removes a connector: it ends at once, also while it connects or its link is not up yet. A
    /// link that is up stays: [`disconnect`](Self::disconnect) ends it. Returns whether it was there.
    pub fn remove_connector(&self, id: ConnectorId) -> bool {
        self.shared().with(|state| {
            let slot = state.connectors.remove(&id);
            let is_there = slot.is_some();
            let wakers = slot.into_iter().flat_map(ConnectorSlot::wakers);
            state.after.wakes.extend(wakers);
            is_there
        })
    }

    /// The listeners that were not removed.
    #[must_use]
    pub fn listeners(&self) -> Vec<ListenerId> {
        self.shared().lock().listeners.keys().copied().collect()
    }

    /// The connectors that were not removed, with their states.
    #[must_use]
    pub fn connectors(&self) -> Vec<ConnectorInfo> {
        let state = self.shared().lock();
        let info = |(id, slot): (&ConnectorId, &ConnectorSlot)| ConnectorInfo {
            id: *id,
            state: slot.state.clone(),
            attempts: slot.attempts,
        };
        state.connectors.iter().map(info).collect()
    }

    // Messages.

    /// Sends a message: puts it into the outbox of its receiver, from where it goes out over the
    /// link to it, now or later. Waits for room in the outbox, in the order of the calls, and, for a
    /// persistent message, while the storage is [behind](crate::Limits::unstored), and until the
    /// message is stored.
    ///
    /// # Cancel safety
    /// Dropping the future before it has room sends nothing; afterwards, the message is sent.
    ///
    /// # Errors
    /// [`SendError`], except [`SendError::Full`] and [`SendError::Unstored`]. After [`SendError::Storage`] the message may be
    /// sent nevertheless.
    pub async fn send(&self, to: &PeerName, message: Message) -> Result<MessageId, SendError> {
        send(self.shared(), to, message, Tracking::Configured).await
    }

    /// Sends a message if there is room, and no other one waits for it, without waiting. A persistent message is not sent over a
    /// link before it is stored.
    ///
    /// # Errors
    /// [`SendError`]; nothing was sent.
    pub fn try_send(&self, to: &PeerName, message: Message) -> Result<MessageId, SendError> {
        check_kind(&message, Tracking::Configured)?;
        self.shared().at_now(|state, _| {
            if state.has_waiters(to) {
                let OutboxInfo {
                    messages, bytes, ..
                } = state.machine.outbox(to);
                state.after.messages.push(message);
                return Err(SendError::Full {
                    to: to.clone(),
                    messages,
                    bytes,
                });
            }
            state.send(to, message, Tracking::Configured)
        })
    }

    /// Sends a message, and waits until the receiver's application has accepted it. Its fate is not
    /// among the events.
    ///
    /// # Cancel safety
    /// As [`send`](Self::send). The fate of a message that was sent is then among the events.
    ///
    /// # Errors
    /// [`Undelivered`]: it was not sent, it was dropped, or the peer has stopped.
    pub async fn deliver(&self, to: &PeerName, message: Message) -> Result<MessageId, Undelivered> {
        deliver(self.shared(), to, message).await
    }

    // Links.

    /// Whether a link to that peer is up.
    #[must_use]
    pub fn is_up(&self, name: &PeerName) -> bool {
        self.shared().lock().machine.is_up(name)
    }

    /// The links, in the order in which they were begun.
    #[must_use]
    pub fn links(&self) -> Vec<LinkInfo> {
        self.shared().lock().machine.links().collect()
    }

    /// The state of the outbox of a receiver.
    #[must_use]
    pub fn outbox(&self, name: &PeerName) -> OutboxInfo {
        self.shared().lock().machine.outbox(name)
    }

    /// The state of what is to be stored: how far the storage is behind, and whether it has failed.
    #[must_use]
    pub fn store(&self) -> StoreInfo {
        self.shared().lock().machine.store()
    }

    /// Ends the link to a peer, if one is up. What was not acknowledged waits for the next one, which
    /// a connector makes soon: after its first wait at most.
    pub fn disconnect(&self, name: &PeerName) {
        self.shared()
            .at_now(|state, now| state.machine.disconnect(name, now));
    }

    /// Drops all messages that wait for a receiver, each with an event, and ends the calls of its
    /// objects. Calls that are made afterwards are not concerned.
    pub fn forget(&self, name: &PeerName) {
        // The calls first: one that is made meanwhile loses its request, and ends by that.
        self.handles.rpc.handle_removed(name);
        self.shared()
            .at_now(|state, now| state.machine.forget(name, now));
    }

    /// The calls: the objects of this peer, and proxies of those of others.
    #[must_use]
    pub fn rpc(&self) -> &Rpc {
        &self.handles.rpc
    }

    /// The embedded broker. `Some` if plain clients are [allowed](crate::Clients::Allow), or it was
    /// configured.
    #[must_use]
    pub fn broker(&self) -> Option<PeerBroker> {
        PeerBroker::of(&self.handles)
    }

    /// Stops the peer: removes its listeners and connectors, closes its links, and waits until that
    /// is done, the tasks of calls have ended and all is stored, for five seconds at most; the rest
    /// ends at once. Transient messages
    /// are dropped, each with an event; persistent ones stay in the storage.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait, not the stop.
    pub async fn stop(&self) {
        self.shared().begin_stop();
        self.stopped().await;
    }

    /// Waits until the peer has stopped.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait.
    pub async fn stopped(&self) {
        let set: fn(&mut State) -> &mut Waiters = |state| &mut state.changed;
        wait_for(self.shared(), set, |state| state.is_stopped().then_some(())).await;
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// Removes a listener on drop, unless it is bound.
struct RemoveUnlessBound<'a>(Option<ListenerId>, &'a Peer);

impl RemoveUnlessBound<'_> {
    fn keep(mut self) {
        self.0 = None;
    }
}

impl Drop for RemoveUnlessBound<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.0 {
            self.1.remove_listener(id);
        }
    }
}
