//! Peers with blocking calls: their tasks are threads.

use std::ops::Deref;

use amqp_blocking::{Blocking, block_on};

use crate::{
    cause::SendError,
    driver::{
        self, Event, Listen, ListenError, Listening, Setup, StartError, Undelivered, start_on,
    },
    message::{Message, MessageId},
    name::PeerName,
    rpc::blocking::Rpc,
};

/// Starts a peer. Its tasks are threads, one for each link, until it has stopped.
///
/// # Errors
/// [`StartError`], if a configuration contradicts itself or the storage cannot be read.
pub fn start(setup: impl Into<Setup>) -> Result<(Peer, Events), StartError> {
    let (peer, events) = start_on(Blocking, setup)?;
    Ok((Peer(peer), Events(events)))
}

/// A peer with blocking calls. Dereferences to the [asynchronous one](driver::Peer), of which the
/// calls that do not wait are used as they are.
#[derive(Clone, Debug)]
pub struct Peer(driver::Peer);

impl Peer {
    /// See [`add_listener`](driver::Peer::add_listener).
    ///
    /// # Errors
    /// As there.
    pub fn add_listener(&self, listen: Listen) -> Result<Listening, ListenError> {
        block_on(self.0.add_listener(listen))
    }

    /// See [`send`](driver::Peer::send).
    ///
    /// # Errors
    /// As there.
    pub fn send(&self, to: &PeerName, message: Message) -> Result<MessageId, SendError> {
        block_on(self.0.send(to, message))
    }

    /// See [`deliver`](driver::Peer::deliver).
    ///
    /// # Errors
    /// As there.
    pub fn deliver(&self, to: &PeerName, message: Message) -> Result<MessageId, Undelivered> {
        block_on(self.0.deliver(to, message))
    }

    /// The calls: the objects of this peer, and proxies of those of others.
    #[must_use]
    pub fn rpc(&self) -> Rpc {
        Rpc::from(self.0.rpc().clone())
    }

    /// See [`stop`](driver::Peer::stop).
    pub fn stop(&self) {
        block_on(self.0.stop());
    }

    /// See [`stopped`](driver::Peer::stopped).
    pub fn stopped(&self) {
        block_on(self.0.stopped());
    }
}

impl Deref for Peer {
    type Target = driver::Peer;

    fn deref(&self) -> &driver::Peer {
        &self.0
    }
}

/// The events of a peer, as an iterator that blocks until there is one, and ends when the peer has
/// stopped.
#[derive(Debug)]
pub struct Events(driver::Events);

impl Events {
    /// Returns the next event, if there is one now.
    pub fn try_next(&mut self) -> Option<Event> {
        self.0.try_next()
    }

    /// Converts into the asynchronous events.
    #[must_use]
    pub fn into_async(self) -> driver::Events {
        self.0
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        block_on(self.0.next())
    }
}
