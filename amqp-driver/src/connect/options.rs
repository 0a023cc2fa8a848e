//! The addresses and settings of a connection.

#[cfg(feature = "srv")]
use std::net::SocketAddr;
use std::{fmt, sync::Arc, time::Duration};

use amqp_core::{
    ApiMisuse,
    client::Config,
    dial::{Address, Order},
    recovery::Policy,
    uri::{Scheme, Uri},
    wire::LongStr,
};

use super::{credentials::CredentialsProvider, error::ConnectError};
use crate::{recovery::random_seed, tls::TlsOptions};

/// The default of [`Options::tcp_timeout`].
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// The default of [`Options::tls_timeout`].
const TLS_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses and settings of a connection.
///
/// Three timeouts apply to an attempt, one after the other: that of TCP, that of TLS, and
/// [`Timeouts::handshake`](amqp_core::Timeouts), which limits the credentials provider and then the
/// AMQP handshake.
///
/// ```
/// use amqp_driver::{Config, Options, core::dial::{Address, Order}};
///
/// let nodes = ["a.example.com", "b.example.com"].map(|host| Address::tcp(host, 5672));
/// let options = Options::default()
///     .addresses(nodes)
///     .order(Order::Shuffled { seed: 1 })
///     .config(Config::default().virtual_host("staging").heartbeat(20));
/// # Ok::<(), amqp_driver::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The addresses of the broker's nodes: the first one that answers is used.
    pub addresses: Vec<Address>,
    /// The order in which they are tried. Default: as listed.
    pub order: Order,
    /// The name servers to ask for the records of an [`Address::Srv`]. Default: none, which means
    /// those of the system, in `/etc/resolv.conf`.
    #[cfg(feature = "srv")]
    pub name_servers: Vec<SocketAddr>,
    /// The timeout of one address, from the resolution of its name to the end of the TCP connect.
    /// Default 10 s.
    pub tcp_timeout: Duration,
    /// The idle time after which the system probes whether the host still answers (TCP keepalive),
    /// at least 1 s; the interval and number of probes are the system's settings. Default `None`,
    /// no probes: heartbeats detect a dead peer ([RabbitMQ's
    /// page](https://www.rabbitmq.com/docs/heartbeats)). For connections without heartbeats, and
    /// for networks that drop a connection idle between two of them. Unix sockets ignore it.
    pub tcp_keepalive: Option<Duration>,
    /// The timeout of the TLS handshake. Default 10 s.
    pub tls_timeout: Duration,
    /// The TLS settings. `Some` for TLS, `None` for plain TCP.
    pub tls: Option<TlsOptions>,
    /// The source of the credentials, called for each connect. `None` for those of the
    /// configuration.
    pub credentials: Option<Arc<dyn CredentialsProvider>>,
    /// The recovery of the connection after a loss, with its topology. Default `None`: a connection
    /// that is lost has ended. See [`recovery`](crate::recovery).
    pub recovery: Option<Policy>,
    /// The login, the virtual host and the limits.
    pub config: Config,
}

impl Default for Options {
    /// The options of `amqp://`: `guest` at `localhost`.
    fn default() -> Self {
        Self {
            addresses: Uri::default().addresses,
            order: Order::default(),
            #[cfg(feature = "srv")]
            name_servers: Vec::new(),
            tcp_timeout: TCP_TIMEOUT,
            tcp_keepalive: None,
            tls_timeout: TLS_TIMEOUT,
            tls: None,
            credentials: None,
            recovery: None,
            config: Config::default(),
        }
    }
}

impl Options {
    /// Sets `addresses`.
    #[must_use]
    pub fn addresses(mut self, addresses: impl IntoIterator<Item = Address>) -> Self {
        self.addresses = addresses.into_iter().collect();
        self
    }

    /// Sets `order`.
    #[must_use]
    pub fn order(mut self, order: Order) -> Self {
        self.order = order;
        self
    }

    /// Sets `name_servers`.
    #[cfg(feature = "srv")]
    #[must_use]
    pub fn name_servers(mut self, servers: impl IntoIterator<Item = SocketAddr>) -> Self {
        self.name_servers = servers.into_iter().collect();
        self
    }

    /// Sets `tcp_timeout`.
    #[must_use]
    pub fn tcp_timeout(mut self, tcp_timeout: Duration) -> Self {
        self.tcp_timeout = tcp_timeout;
        self
    }

    /// Sets `tcp_keepalive`.
    #[must_use]
    pub fn tcp_keepalive(mut self, tcp_keepalive: impl Into<Option<Duration>>) -> Self {
        self.tcp_keepalive = tcp_keepalive.into();
        self
    }

    /// Sets `tls_timeout`.
    #[must_use]
    pub fn tls_timeout(mut self, tls_timeout: Duration) -> Self {
        self.tls_timeout = tls_timeout;
        self
    }

    /// Sets `tls`.
    #[must_use]
    pub fn tls(mut self, tls: impl Into<Option<TlsOptions>>) -> Self {
        self.tls = tls.into();
        self
    }

    /// Sets `credentials`.
    #[must_use]
    pub fn credentials(mut self, credentials: Arc<dyn CredentialsProvider>) -> Self {
        self.credentials = Some(credentials);
        self
    }

    /// Sets `recovery` to the default policy: everything is restored, for as long as it takes.
    #[doc(alias("reconnect", "auto_recover", "automatic_recovery"))]
    #[must_use]
    pub fn recovering(self) -> Self {
        self.recovery(Policy::new(random_seed()))
    }

    /// Sets `recovery`.
    #[must_use]
    pub fn recovery(mut self, recovery: impl Into<Option<Policy>>) -> Self {
        self.recovery = recovery.into();
        self
    }

    /// Sets the name of the connection in `config`: see [`Config::connection_name`].
    ///
    /// ```
    /// use amqp_driver::Options;
    ///
    /// let options = Options::from_uri("amqp://localhost")?.connection_name("billing");
    /// let name = options.config.properties.get("connection_name");
    /// assert_eq!(name.and_then(|name| name.as_str()), Some("billing"));
    /// # Ok::<(), amqp_driver::ConnectError>(())
    /// ```
    #[must_use]
    pub fn connection_name(mut self, name: impl Into<LongStr>) -> Self {
        self.config = self.config.connection_name(name);
        self
    }

    /// Sets `config`.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }
}

impl Options {
    /// Checks the bounds that the types do not express.
    pub(super) fn check(&self) -> Result<(), ApiMisuse> {
        // The system counts in seconds, and its error for 0 names no setting.
        match self.tcp_keepalive {
            Some(idle) if idle < Duration::from_secs(1) => Err(ApiMisuse::Config {
                setting: "tcp_keepalive",
                problem: "must be at least 1 s",
            }),
            _ => Ok(()),
        }
    }

    /// Returns the options of a URI; see [`Uri`] for its form, and [`Config::from_uri`]. RabbitMQ
    /// specifies the form (<https://www.rabbitmq.com/docs/uri-spec>) and the query parameters
    /// (<https://www.rabbitmq.com/docs/uri-query-parameters>).
    ///
    /// # Errors
    /// When the URI is malformed, with the part that is wrong, or requests an unknown setting.
    pub fn from_uri(uri: &str) -> Result<Self, ConnectError> {
        let uri: Uri = uri.parse()?;
        let config = Config::from_uri(&uri)?;
        let tls = (uri.scheme == Scheme::Amqps).then(|| TlsOptions::from_uri(&uri));
        Ok(Self {
            addresses: uri.addresses,
            tcp_timeout: uri.connection_timeout.unwrap_or(TCP_TIMEOUT),
            tls,
            config,
            ..Self::default()
        })
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A provider may contain a secret.
        let credentials = self.credentials.as_ref().map(|_| format_args!("_"));
        let mut debug = f.debug_struct("Options");
        debug
            .field("addresses", &self.addresses)
            .field("order", &self.order);
        #[cfg(feature = "srv")]
        debug.field("name_servers", &self.name_servers);
        debug
            .field("tcp_timeout", &self.tcp_timeout)
            .field("tcp_keepalive", &self.tcp_keepalive)
            .field("tls_timeout", &self.tls_timeout)
            .field("tls", &self.tls)
            .field("credentials", &credentials)
            .field("recovery", &self.recovery)
            .field("config", &self.config)
            .finish()
    }
}
