//! A broker in this process, with calls that block.

use std::{net::SocketAddr, ops::Deref};

use amqp_driver::{Config, Error};
use amqp_embedded::broker::{self, Broker, ConfigError};
use ref_cast::RefCast;

use crate::{handles::Connection, linger::linger, runtime::Blocking, wait::wait};

/// A broker in this process, to connect to without a socket, and to [`serve`](crate::serve) to
/// others. See [`amqp_embedded::LocalBroker`], which it can be used as.
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct LocalBroker(amqp_embedded::LocalBroker<Blocking>);

impl LocalBroker {
    /// Opens a connection to it, without a socket.
    ///
    /// # Errors
    /// When the broker does not take the connection, or the configuration has a setting that no
    /// server would accept; [`Error::TimedOut`] beyond the limit of [`within`](crate::within).
    pub fn connect(&self, config: Config) -> Result<Connection, Error> {
        let connection = wait(self.0.connect(config))??;
        connection.linger_on_drop(linger);
        Ok(connection.into())
    }
}

impl LocalBroker {
    /// A broker that begins as configured.
    ///
    /// # Errors
    /// For a configuration that contradicts itself, or that no client could connect to.
    pub fn new(config: broker::Config) -> Result<Self, ConfigError> {
        amqp_embedded::LocalBroker::new(config).map(Self)
    }
}

impl Default for LocalBroker {
    /// A broker that begins as a fresh RabbitMQ.
    fn default() -> Self {
        Self(amqp_embedded::LocalBroker::default())
    }
}

impl From<Broker> for LocalBroker {
    fn from(broker: Broker) -> Self {
        Self(broker.into())
    }
}

impl From<LocalBroker> for amqp_embedded::LocalBroker<Blocking> {
    fn from(broker: LocalBroker) -> Self {
        broker.0
    }
}

impl Deref for LocalBroker {
    type Target = amqp_embedded::LocalBroker<Blocking>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

/// A broker that is served to others. Dropping it stops listening, and cuts its connections off.
#[derive(Debug)]
pub struct Server(amqp_embedded::Server<Blocking>);

impl Server {
    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    /// What it serves.
    #[must_use]
    pub fn broker(&self) -> &LocalBroker {
        LocalBroker::ref_cast(self.0.broker())
    }

    /// Stops listening and closes the connections; see [`amqp_embedded::Server::shutdown`]. Those that are
    /// late, or are not closed within the limit of [`within`](crate::within), are cut off.
    pub fn shutdown(self) {
        let _late = wait(self.0.shutdown());
    }

    /// The asynchronous one.
    #[must_use]
    pub fn into_async(self) -> amqp_embedded::Server<Blocking> {
        self.0
    }
}

impl From<amqp_embedded::Server<Blocking>> for Server {
    fn from(server: amqp_embedded::Server<Blocking>) -> Self {
        Self(server)
    }
}
