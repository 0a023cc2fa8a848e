//! A peer before its start: the configuration, and what it stands on.

use std::{fmt, io, sync::Arc};

use amqp_core::ApiMisuse;
use amqp_embedded::broker;

use crate::{
    config::{Config, ConfigError},
    storage::{Storage, StorageError},
};

/// A peer before its start: its configuration, its storage, and the broker for plain AMQP clients.
///
/// Made from a [`Config`], or by [`Config::storage`] and [`Config::broker`].
///
/// ```
/// use amqp_peer::{Clients, Config, storage::MemoryStorage};
///
/// let setup = Config::new("bob")?
///     .clients(Clients::Allow)
///     .storage(MemoryStorage::new())
///     .broker(amqp_peer::broker::Config::default());
/// # Ok::<(), amqp_peer::PeerNameError>(())
/// ```
pub struct Setup {
    pub(super) config: Config,
    pub(super) storage: Option<Box<dyn Storage>>,
    pub(super) broker: Option<broker::Config>,
}

impl Setup {
    /// Sets the storage of persistent messages. Without one, they are as transient as the others.
    /// It is used by a thread of its own.
    #[must_use]
    pub fn storage(mut self, storage: impl Storage) -> Self {
        self.storage = Some(Box::new(storage));
        self
    }

    /// Sets the configuration of the [broker](crate::Peer::broker), of which the plain AMQP clients
    /// are, if they are [allowed](crate::Clients::Allow): its users, virtual hosts and limits.
    /// Without it, the broker is that of a fresh RabbitMQ, with the user `guest`.
    #[must_use]
    pub fn broker(mut self, config: broker::Config) -> Self {
        self.broker = Some(config);
        self
    }
}

impl From<Config> for Setup {
    fn from(config: Config) -> Self {
        Self {
            config,
            storage: None,
            broker: None,
        }
    }
}

impl Config {
    /// Adds a storage: see [`Setup::storage`].
    #[must_use]
    pub fn storage(self, storage: impl Storage) -> Setup {
        Setup::from(self).storage(storage)
    }

    /// Adds the configuration of the broker: see [`Setup::broker`].
    #[must_use]
    pub fn broker(self, config: broker::Config) -> Setup {
        Setup::from(self).broker(config)
    }
}

impl fmt::Debug for Setup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup")
            .field("config", &self.config)
            .field("storage", &self.storage.is_some())
            .field("broker", &self.broker)
            .finish()
    }
}

/// The reason for which a peer was not started.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration of the broker contradicts itself.
    #[error("the broker: {0}")]
    Broker(#[from] broker::ConfigError),
    /// The storage cannot be read.
    #[error(transparent)]
    Storage(Arc<StorageError>),
    /// The system cannot create the thread of the storage.
    #[error("no thread for the storage: {0}")]
    Thread(Arc<io::Error>),
    /// The runtime does not run here.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
}

impl From<StorageError> for StartError {
    fn from(error: StorageError) -> Self {
        Self::Storage(Arc::new(error))
    }
}
