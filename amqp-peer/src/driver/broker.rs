//! The broker in a peer.

use std::{fmt, sync::Arc};

use amqp_driver::{Connection, Error};
use amqp_embedded::{
    SharedBroker,
    broker::{Broker, Inspection},
};

use super::peer::Handles;

/// The embedded broker of a peer. Its clients are the plain AMQP clients that the peer's listeners
/// accept.
///
/// The queue `peer.inbox` is the peer's own: what is published to it arrives as
/// [`Event::Received`](crate::Event::Received).
#[derive(Clone)]
pub struct PeerBroker {
    broker: SharedBroker,
    handles: Arc<Handles>,
}

impl PeerBroker {
    /// The broker of a peer. `Some` if there is one.
    pub(super) fn of(handles: &Arc<Handles>) -> Option<Self> {
        Some(Self {
            broker: handles.runner.broker()?.clone(),
            handles: Arc::clone(handles),
        })
    }

    /// Opens a connection without a socket, for instance to publish what clients consume.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    /// If the broker refuses the connection, or the configuration has a setting that no server
    /// accepts.
    pub async fn connect(&self, config: amqp_driver::Config) -> Result<Connection, Error> {
        let connection = self.handles.runner.connect(config)?;
        connection.opened().await?;
        Ok(connection)
    }

    /// Calls `act` with the broker, which is locked meanwhile.
    pub fn with<T>(&self, act: impl FnOnce(&mut Broker) -> T) -> T {
        self.broker.with(act)
    }

    /// The state of the broker: queues with their messages, bindings, consumers, connections.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        self.broker.inspect()
    }
}

impl fmt::Debug for PeerBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerBroker").finish_non_exhaustive()
    }
}
