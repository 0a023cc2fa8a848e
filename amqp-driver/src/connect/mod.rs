//! Opening connections, on any runtime.

pub(crate) mod credentials;
mod error;
pub(crate) mod opening;

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    path::Path,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use amqp_core::{
    ApiMisuse, CloseCause,
    client::Config,
    dial::{Address, AttemptId, Dialer, Failures, Order, Step, Target},
    recovery::Policy,
    uri::{Scheme, Uri, UriError},
};

use self::{
    credentials::{CredentialsError, CredentialsProvider, log_in},
    opening::{First, Opening},
};
#[cfg(feature = "tracing")]
use crate::trace;
use crate::{
    connection::Connection,
    error::Error,
    io::{Runtime, Timer, Transport, within},
    recovery::random_seed,
    tls::{Secured, TlsError, TlsErrorTap, TlsOptions},
};

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
///     .config(Config::default().virtual_host("staging")?.heartbeat(20));
/// # Ok::<(), amqp_driver::Error>(())
/// ```
#[derive(Clone)]
#[non_exhaustive]
pub struct Options {
    /// The addresses of the broker's nodes: the first one that answers is used.
    pub addresses: Vec<Address>,
    /// The order in which they are tried. Default: as listed.
    pub order: Order,
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

    /// Sets `config`.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }
}

impl Options {
    /// Checks the bounds that the types do not express.
    fn check(&self) -> Result<(), ApiMisuse> {
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

/// Connects to the first address that answers, opens a connection, and spawns its driver.
///
/// If a host does not answer, cannot be secured, or does not open the connection, the next one is
/// tried, which may be another address of the same name. Refused credentials are not tried
/// elsewhere.
///
/// # Cancel safety
/// Dropping it closes the streams opened so far.
///
/// # Errors
/// When no address could be reached, or none opened a connection.
pub async fn connect<R: Runtime>(
    runtime: &R,
    options: &Options,
) -> Result<Connection, ConnectError> {
    connect_as(runtime, options, &mut First { runtime, options }).await
}

/// Connects to the first address that answers, and opens a connection.
pub(crate) async fn connect_as<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
) -> Result<O::Opened, ConnectError> {
    let dialing = dial(runtime, options, opening);
    #[cfg(feature = "tracing")]
    let dialing = tracing::Instrument::instrument(dialing, trace::connecting(&options.addresses));
    dialing.await
}

async fn dial<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
) -> Result<O::Opened, ConnectError> {
    options.check()?;
    runtime.check()?;
    let mut dialing = Connector::new(runtime, options);
    let mut refusals = Vec::new();
    while let Some((attempt, stream)) = dialing.next_stream().await {
        let Some(address) = dialing.dialer.address() else {
            break;
        };
        match secure_and_open(runtime, options, opening, address, stream).await {
            Ok(opened) => return Ok(opened),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                let text = error.without_address();
                #[cfg(feature = "tracing")]
                trace::refused(address, &text);
                dialing.dialer.handle_refused(attempt, &text);
                refusals.push(error);
            }
        }
    }
    let failures = dialing.dialer.into_failures();
    let last = refusals.pop();
    Err(match last {
        None => ConnectError::Unreachable(failures),
        // Unreached addresses of its name, such as the other family of `localhost`, are left out.
        Some(only) if options.addresses.len() == 1 && refusals.is_empty() => only,
        Some(last) => ConnectError::Refused {
            failures,
            last: Box::new(last),
        },
    })
}

/// Opens a connection over a stream that was just made to `address`: secures the stream if the
/// options say so, and spawns the driver. [`connect`] does so with each stream; this function is
/// for applications that dial by themselves. It ignores the options' addresses, their order and the
/// TCP settings.
///
/// ```no_run
/// use amqp_driver::{Connection, Options, connect_over, core::dial::Address, io::Runtime};
/// use std::error::Error;
///
/// /// Connects through a port here that is forwarded to a host which only the other end can name.
/// async fn connect<R: Runtime>(runtime: &R) -> Result<Connection, Box<dyn Error>> {
///     let options = Options::from_uri("amqps://me:secret@broker.internal")?;
///     let stream = runtime.connect_tcp("127.0.0.1:15671".parse()?, None).await?;
///     // The name to find in the certificate, and in errors.
///     let address = Address::tcp("broker.internal", 5671);
///     Ok(connect_over(runtime, &options, &address, stream).await?)
/// }
/// ```
///
/// # Cancel safety
/// Dropping it closes the stream.
///
/// # Errors
/// When the stream cannot be secured, there are no credentials, or the connection cannot be opened.
pub async fn connect_over<R: Runtime>(
    runtime: &R,
    options: &Options,
    address: &Address,
    stream: R::Stream,
) -> Result<Connection, ConnectError> {
    runtime.check()?;
    let mut first = First { runtime, options };
    secure_and_open(runtime, options, &mut first, address, stream).await
}

async fn secure_and_open<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
    address: &Address,
    stream: R::Stream,
) -> Result<O::Opened, ConnectError> {
    let opened = secure(runtime, options, opening, address, stream);
    #[cfg(feature = "tracing")]
    let opened = tracing::Instrument::instrument(opened, trace::handshake(address));
    opened.await
}

/// Secures the stream if the options say so, and opens a connection over it.
async fn secure<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
    address: &Address,
    stream: R::Stream,
) -> Result<O::Opened, ConnectError> {
    let Some(tls) = &options.tls else {
        return greet(runtime, options, opening, address, stream, Vec::new()).await;
    };
    let failed = |error| ConnectError::Tls {
        address: address.clone(),
        error,
    };
    let tls = tls.for_host(address).map_err(failed)?;
    let securing = runtime.secure(stream, &tls);
    let limit = options.tls_timeout;
    let secured = within(&mut runtime.clock(), limit, securing).await;
    let secured = secured.ok_or_else(|| failed(TlsError::TimedOut(limit)))?;
    let Secured {
        stream,
        certificates,
    } = secured.map_err(|error| failed(error.into()))?;
    let (stream, complaint) = TlsErrorTap::new(stream);
    greet(runtime, options, opening, address, stream, certificates)
        .await
        .map_err(|error| complaint.take().map_or(error, failed))
}

/// Opens a connection over a stream that is ready for AMQP.
async fn greet<R: Runtime, O: Opening>(
    runtime: &R,
    options: &Options,
    opening: &mut O,
    address: &Address,
    stream: impl Transport + Unpin + 'static,
    certificates: Vec<Vec<u8>>,
) -> Result<O::Opened, ConnectError> {
    let mut config = options.config.clone();
    config.resumable = options.recovery.is_some();
    let limit = config.timeouts.handshake;
    let (mut clock, mut expires_at) = (runtime.clock(), None);
    if let Some(provider) = &options.credentials {
        let asked = within(&mut clock, limit, provider.login()).await;
        let late = || Err(CredentialsError("the provider took too long".into()));
        let login = asked.unwrap_or_else(late)?;
        log_in(&mut config, &login)?;
        expires_at = login.expires_in.map(|time| clock.now() + time);
    }
    let opened = opening.open(config, stream, certificates.into()).await;
    let (opened, shared) = opened.map_err(|error| ConnectError::NotOpened {
        address: address.clone(),
        error,
    })?;
    if let (Some(provider), Some(expires_at)) = (&options.credentials, expires_at) {
        let left = expires_at - clock.now();
        let provider = Arc::clone(provider);
        runtime.spawn(credentials::renew(shared, provider, left, limit));
    }
    Ok(opened)
}

/// Opens a connection over an existing transport, and spawns its driver.
///
/// # Cancel safety
/// Dropping it closes the connection.
///
/// # Errors
/// When the connection cannot be opened, or the configuration has a setting that no server would
/// accept.
pub async fn from_transport<R: Runtime>(
    runtime: &R,
    transport: impl Transport + Unpin + 'static,
    config: Config,
) -> Result<Connection, Error> {
    runtime.check()?;
    let (connection, driver) = Connection::start(config, transport, runtime.clock())?;
    runtime.spawn(driver);
    connection.opened().await?;
    Ok(connection)
}

/// The TCP connections in progress, and the name resolutions before them.
struct Connector<R: Runtime> {
    runtime: R,
    clock: R::Clock,
    dialer: Dialer,
    keepalive: Option<Duration>,
    running: Vec<(AttemptId, Pending<R::Stream>)>,
    /// The stream of the attempt that won.
    stream: Option<R::Stream>,
}

type Pending<S> = Pin<Box<dyn Future<Output = io::Result<Attempt<S>>> + Send>>;

/// The result of one step of an attempt.
enum Attempt<S> {
    Addresses(Vec<std::net::SocketAddr>),
    Stream(S),
}

impl<R: Runtime> Connector<R> {
    fn new(runtime: &R, options: &Options) -> Self {
        let addresses = options.addresses.clone();
        Self {
            runtime: runtime.clone(),
            clock: runtime.clock(),
            dialer: Dialer::new(addresses, options.order, options.tcp_timeout),
            keepalive: options.tcp_keepalive,
            running: Vec::new(),
            stream: None,
        }
    }

    /// The next stream to try. `Some` while an address is left.
    async fn next_stream(&mut self) -> Option<(AttemptId, R::Stream)> {
        poll_fn(|cx| self.poll_stream(cx)).await
    }

    fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<Option<(AttemptId, R::Stream)>> {
        loop {
            match self.dialer.poll_step(self.clock.now()) {
                Step::Resolve {
                    attempt,
                    host,
                    port,
                } => {
                    #[cfg(feature = "tracing")]
                    trace::resolving(&host);
                    let runtime = self.runtime.clone();
                    let resolving = async move {
                        let addresses = runtime.resolve(&host, port).await?;
                        Ok(Attempt::Addresses(addresses))
                    };
                    self.running.push((attempt, Box::pin(resolving)));
                }
                Step::Connect { attempt, to } => {
                    #[cfg(feature = "tracing")]
                    trace::attempt(&to);
                    let (runtime, keepalive) = (self.runtime.clone(), self.keepalive);
                    let connecting = async move {
                        let stream = match to {
                            Target::Tcp(to) => runtime.connect_tcp(to, keepalive).await,
                            Target::Unix(path) => runtime.connect_unix(Path::new(&path)).await,
                            Target::Other(address) => runtime.connect_other(&address).await,
                            _ => Err(io::ErrorKind::Unsupported.into()),
                        };
                        Ok(Attempt::Stream(stream?))
                    };
                    self.running.push((attempt, Box::pin(connecting)));
                }
                Step::Abandon => self.running.clear(),
                Step::Connected(attempt) => {
                    return Poll::Ready(self.stream.take().map(|stream| (attempt, stream)));
                }
                Step::GiveUp => return Poll::Ready(None),
                Step::Wait(until) => {
                    let progress = self.poll_running(cx)
                        || self.clock.poll_deadline(cx, Some(until)).is_ready();
                    if !progress {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    /// Passes the result of an attempt to the dialer. Returns whether there was one.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> bool {
        for at in 0..self.running.len() {
            let (attempt, future) = &mut self.running[at];
            let attempt = *attempt;
            let Poll::Ready(result) = future.as_mut().poll(cx) else {
                continue;
            };
            drop(self.running.swap_remove(at));
            match result {
                Ok(Attempt::Addresses(addresses)) => {
                    self.dialer.handle_resolved(attempt, addresses);
                }
                Ok(Attempt::Stream(stream)) => {
                    if self.dialer.handle_connected(attempt) {
                        self.stream = Some(stream);
                    }
                }
                Err(error) => {
                    #[cfg(feature = "tracing")]
                    trace::attempt_failed(&error);
                    self.dialer.handle_failed(attempt, &error.to_string());
                }
            }
            return true;
        }
        false
    }
}

/// The reason for which no connection was opened.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URI is invalid.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The configuration has a setting that no server would accept.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The system provides no facility to wait for sockets.
    #[error("cannot wait for sockets: {0}")]
    System(#[source] Arc<io::Error>),
    /// No address could be reached, with the failure of each.
    #[error("could not reach {0}")]
    Unreachable(Failures),
    /// A host was reached, but the TLS handshake with it failed.
    #[error("no TLS with {address}: {error}")]
    Tls {
        /// The address of the host.
        address: Address,
        /// The failure.
        #[source]
        error: TlsError,
    },
    /// The provider has no credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A host was reached, but did not open the connection.
    #[error("no connection with {address}: {error}")]
    NotOpened {
        /// The address of the host.
        address: Address,
        /// The failure.
        #[source]
        error: Error,
    },
    /// Several addresses failed, and some of them were reached.
    #[error("no connection was opened: {failures}")]
    Refused {
        /// The failure of each.
        failures: Failures,
        /// The last failure of an address that was reached.
        last: Box<Self>,
    },
    /// The caller's time limit passed first.
    #[error("no connection was made in time")]
    TimedOut,
}

impl ConnectError {
    /// Whether another host would fail in the same way.
    fn is_final(&self) -> bool {
        match self {
            Self::NotOpened {
                error: Error::ConnectionClosed(reason),
                ..
            } => {
                matches!(reason.cause(), CloseCause::AuthenticationFailed { .. })
            }
            Self::NotOpened {
                error: Error::Misuse(_),
                ..
            }
            | Self::Misuse(_)
            | Self::Credentials(_) => true,
            #[cfg(feature = "tls")]
            Self::Tls {
                error: TlsError::Setup(error),
                ..
            } => error.is_final(),
            _ => false,
        }
    }

    /// The text of the error, for use beside the address.
    fn without_address(&self) -> String {
        match self {
            Self::Tls { error, .. } => format!("no TLS: {error}"),
            Self::NotOpened { error, .. } => error.to_string(),
            other => other.to_string(),
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A provider may contain a secret.
        let credentials = self.credentials.as_ref().map(|_| format_args!("_"));
        f.debug_struct("Options")
            .field("addresses", &self.addresses)
            .field("order", &self.order)
            .field("tcp_timeout", &self.tcp_timeout)
            .field("tls_timeout", &self.tls_timeout)
            .field("tls", &self.tls)
            .field("credentials", &credentials)
            .field("recovery", &self.recovery)
            .field("config", &self.config)
            .finish()
    }
}

impl<R: Runtime> fmt::Debug for Connector<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector")
            .field("dialer", &self.dialer)
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}
