//! A broker in this process, with blocking calls.

use std::{net::SocketAddr, ops::Deref, time::Duration};

use amqp_driver::{Config, Error};
use amqp_embedded::broker::{self, Broker, ConfigError};
use ref_cast::RefCast;

use crate::{handles::Connection, linger::linger, runtime::Blocking, wait::wait};

/// A broker in this process, to connect to without a socket, and to [`serve`](crate::serve) to
/// others. Dereferences to [`amqp_embedded::LocalBroker`].
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct LocalBroker(amqp_embedded::LocalBroker<Blocking>);

impl LocalBroker {
    /// Opens a connection to the broker, without a socket.
    ///
    /// # Errors
    /// If the broker refuses the connection, or the configuration has a setting that no server
    /// accepts; [`Error::TimedOut`] beyond the limit of [`within`](crate::within).
    pub fn connect(&self, config: Config) -> Result<Connection, Error> {
        let connection = wait(self.0.connect(config))??;
        connection.linger_on_drop(linger);
        Ok(connection.into())
    }

    /// Waits until the broker meets a condition: see [`amqp_embedded::LocalBroker::until`]. Returns
    /// `false` beyond the limit of [`within`](crate::within).
    pub fn until(&self, condition: impl FnMut(&Broker) -> bool) -> bool {
        wait(self.0.until(condition)).is_ok()
    }

    /// As [`until`](Self::until), for at most `limit`. Returns whether the condition was met.
    pub fn until_within(&self, limit: Duration, condition: impl FnMut(&Broker) -> bool) -> bool {
        wait(self.0.until_within(limit, condition)).unwrap_or(false)
    }
}

impl LocalBroker {
    /// Creates a broker as configured.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or allows no client to connect.
    pub fn new(config: broker::Config) -> Result<Self, ConfigError> {
        amqp_embedded::LocalBroker::new(config).map(Self)
    }

    /// Opens a broker with its durable state in a file: see [`amqp_embedded::LocalBroker::open_on`].
    ///
    /// # Errors
    /// If the file cannot be opened, is corrupt, or is open already, or the configuration is
    /// invalid.
    #[cfg(feature = "store")]
    pub fn open(
        path: impl AsRef<std::path::Path>,
        config: broker::Config,
    ) -> Result<Self, amqp_embedded::StoreError> {
        amqp_embedded::LocalBroker::open(path, config).map(Self)
    }
}

impl Default for LocalBroker {
    /// A broker with the configuration of a fresh RabbitMQ.
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

/// A broker that is served to clients. Dropping it stops listening, and ends its connections
/// without a close handshake.
#[derive(Debug)]
pub struct Server(amqp_embedded::Server<Blocking>);

impl Server {
    /// The address on which it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.0.local_addr()
    }

    /// The served broker.
    #[must_use]
    pub fn broker(&self) -> &LocalBroker {
        LocalBroker::ref_cast(self.0.broker())
    }

    /// Stops listening and closes the connections; see [`amqp_embedded::Server::shutdown`].
    /// Connections that are late, or not closed within the limit of [`within`](crate::within), end
    /// without a close handshake.
    pub fn shutdown(self) {
        let _late = wait(self.0.shutdown());
    }

    /// Converts into the asynchronous server.
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
