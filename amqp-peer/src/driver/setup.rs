//! A peer before its start: the configuration, and what it stands on.

use std::{fmt, io, sync::Arc};

use amqp_core::ApiMisuse;
use amqp_embedded::broker;

#[cfg(feature = "tls")]
use crate::config::CertificateRule;
use crate::{
    config::{Config, ConfigError},
    rpc,
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
    pub(super) rpc: rpc::Limits,
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
    /// Without it, the broker has no users, and no client can log in.
    ///
    /// The default configuration of a broker has the user `guest` with the password `guest`: set
    /// other users before clients of a network are allowed. Its `consumer_timeout` also holds for
    /// received messages of clients: one that is not accepted in time is given again.
    #[must_use]
    pub fn broker(mut self, config: broker::Config) -> Self {
        self.broker = Some(config);
        self
    }

    /// Sets the bounds of [calls](crate::Peer::rpc).
    #[must_use]
    pub fn rpc_limits(mut self, limits: rpc::Limits) -> Self {
        self.rpc = limits;
        self
    }
}

impl From<Config> for Setup {
    fn from(config: Config) -> Self {
        Self {
            config,
            storage: None,
            broker: None,
            rpc: rpc::Limits::default(),
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

    /// Sets the bounds of calls: see [`Setup::rpc_limits`].
    #[must_use]
    pub fn rpc_limits(self, limits: rpc::Limits) -> Setup {
        Setup::from(self).rpc_limits(limits)
    }
}

#[cfg(feature = "tls")]
impl CertificateRule {
    /// The rule that the name of a peer is in its certificate: as an alternative name of the type
    /// DNS or URI, or as a common name. A peer without a certificate is refused.
    #[must_use]
    pub fn name() -> Self {
        Self::new(|name, certificates| {
            let own = certificates.first();
            let names = own.map(|own| amqp_embedded::certificate_names(own));
            names.is_some_and(|names| names.iter().any(|it| it == name.as_str()))
        })
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
