//! A broker in this process, with calls that block.

use std::{net::SocketAddr, ops::Deref};

use amqp_broker::{Broker, ConfigError};
use ref_cast::RefCast;

use super::{Connection, wait};
use crate::{Config, Error, Runtime};

/// A broker in this process, to connect to without a socket, and to [`serve`](crate::serve) to
/// others. See [`crate::LocalBroker`], which it can be used as.
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct LocalBroker<R: Runtime>(crate::LocalBroker<R>);

impl<R: Runtime> LocalBroker<R> {
    /// Opens a connection to it, without a socket.
    ///
    /// # Errors
    /// When the broker does not take the connection, or the configuration has a setting that no
    /// server would accept; [`Error::TimedOut`] beyond the limit of [`within`](super::within).
    pub fn connect(&self, config: Config) -> Result<Connection, Error> {
        let connection = wait(self.0.connect(config))??;
        connection.linger_on_drop();
        Ok(connection.into())
    }
}

impl<R: Runtime + Default> LocalBroker<R> {
    /// A broker that begins as configured.
    ///
    /// # Errors
    /// For a configuration that contradicts itself, or that no client could connect to.
    pub fn new(config: amqp_broker::Config) -> Result<Self, ConfigError> {
        crate::LocalBroker::new(config).map(Self)
    }
}

impl<R: Runtime + Default> Default for LocalBroker<R> {
    /// A broker that begins as a fresh RabbitMQ.
    fn default() -> Self {
        Self(crate::LocalBroker::default())
    }
}

impl<R: Runtime + Default> From<Broker> for LocalBroker<R> {
    fn from(broker: Broker) -> Self {
        Self(broker.into())
    }
}

impl<R: Runtime> From<LocalBroker<R>> for crate::LocalBroker<R> {
    fn from(broker: LocalBroker<R>) -> Self {
        broker.0
    }
}

impl<R: Runtime> Deref for LocalBroker<R> {
    type Target = crate::LocalBroker<R>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A broker that is served to others. Dropping it stops listening, and cuts its connections off.
#[derive(Debug)]
pub struct Server<R: Runtime>(crate::Server<R>);

impl<R: Runtime> Server<R> {
    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    /// What it serves.
    #[must_use]
    pub fn broker(&self) -> &LocalBroker<R> {
        LocalBroker::ref_cast(self.0.broker())
    }

    /// Stops listening and closes the connections; see [`crate::Server::shutdown`]. Those that are
    /// late, or are not closed within the limit of [`within`](super::within), are cut off.
    ///
    /// On a runtime whose clocks work only in its own tasks, shut down the asynchronous one.
    pub fn shutdown(self) {
        let _late = wait(self.0.shutdown());
    }

    /// The asynchronous one.
    #[must_use]
    pub fn into_async(self) -> crate::Server<R> {
        self.0
    }
}

impl<R: Runtime> From<crate::Server<R>> for Server<R> {
    fn from(server: crate::Server<R>) -> Self {
        Self(server)
    }
}
