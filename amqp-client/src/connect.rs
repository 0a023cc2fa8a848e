//! Making connections, on any runtime.

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
    uri::{Scheme, Uri, UriError},
};

use crate::{
    Connection, Error, Runtime, Timer, Transport,
    auth::{CredentialsError, CredentialsProvider, log_in},
    runtime::within,
    tls::{Secured, TlsError, TlsOptions, Watched},
};

/// How long one host gets where nothing else is said. The handshake has a timeout of its own.
const TCP_TIMEOUT: Duration = Duration::from_secs(10);

/// Where and how to connect.
#[derive(Clone, Debug)]
pub struct Options {
    /// The addresses of the broker's nodes: the first one that answers is taken.
    pub addresses: Vec<Address>,
    /// In which order they are tried. Default as they are listed.
    pub order: Order,
    /// How long one address may take, from the resolution of its name to the end of the TCP
    /// connect. Default 10 s.
    pub tcp_timeout: Duration,
    /// How to secure the connection; none for plain TCP.
    pub tls: Option<TlsOptions>,
    /// Who gives the credentials, for each connect anew; none for those of the configuration.
    pub credentials: Option<Arc<dyn CredentialsProvider>>,
    /// Who, which virtual host, and within which bounds.
    pub config: Config,
}

impl Default for Options {
    /// What `amqp://` says: `guest` at `localhost`.
    fn default() -> Self {
        Self {
            addresses: Uri::default().addresses,
            order: Order::default(),
            tcp_timeout: TCP_TIMEOUT,
            tls: None,
            credentials: None,
            config: Config::default(),
        }
    }
}

impl Options {
    /// What a URI says; see [`Uri`] for its form, and [`Config::from_uri`].
    ///
    /// # Errors
    /// When the URI is not one, naming the part that is wrong, or asks for something that is not
    /// known here.
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

/// Connects to the first address that answers, opens a connection, and spawns what drives it.
///
/// A host that does not answer, cannot be secured, or does not open the connection is followed by
/// the next one. Credentials that are refused are not tried elsewhere.
///
/// # Cancel safety
/// Dropping it closes what was opened.
///
/// # Errors
/// When no address could be reached, or no connection be opened.
pub async fn connect<R: Runtime>(
    runtime: &R,
    options: &Options,
) -> Result<Connection, ConnectError> {
    let mut dialing = Dialing::new(runtime, options);
    let mut refusal = None;
    while let Some((attempt, stream)) = dialing.next_stream().await {
        let opened = match dialing.dialer.address() {
            Some(address) => open(runtime, options, address, stream).await,
            None => break,
        };
        match opened {
            Ok(connection) => return Ok(connection),
            Err(error) if error.is_final() => return Err(error),
            Err(error) => {
                dialing.dialer.handle_refused(attempt, &error.to_string());
                refusal = Some((dialing.dialer.failures().as_slice().len(), error));
            }
        }
    }
    let failures = dialing.dialer.into_failures();
    Err(match refusal {
        // The last failure is the one that has more to say than its text.
        Some((count, error)) if count == failures.as_slice().len() => error,
        _ => ConnectError::Unreachable(failures),
    })
}

/// Secures a stream, if that is wanted, and opens a connection over it.
async fn open<R: Runtime>(
    runtime: &R,
    options: &Options,
    address: &Address,
    stream: R::Stream,
) -> Result<Connection, ConnectError> {
    let Some(tls) = &options.tls else {
        return greet(runtime, options, stream, Vec::new()).await;
    };
    let failed = |error| ConnectError::Tls {
        address: address.clone(),
        error,
    };
    let tls = tls.for_host(address).map_err(failed)?;
    let securing = runtime.secure(stream, &tls);
    let limit = options.config.timeouts.handshake;
    let secured = within(&mut runtime.clock(), limit, securing).await;
    let secured = secured.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
    let Secured {
        stream,
        certificates,
    } = secured.map_err(|error| failed(error.into()))?;
    let (stream, complaint) = Watched::new(stream);
    greet(runtime, options, stream, certificates)
        .await
        .map_err(|error| complaint.take().map_or(error, failed))
}

/// Opens a connection over a stream that is as it shall be.
async fn greet<R: Runtime>(
    runtime: &R,
    options: &Options,
    stream: impl Transport + Unpin + 'static,
    certificates: Vec<Vec<u8>>,
) -> Result<Connection, ConnectError> {
    let mut config = options.config.clone();
    let mut expires_in = None;
    if let Some(provider) = &options.credentials {
        let limit = config.timeouts.handshake;
        let mut clock = runtime.clock();
        let asked = within(&mut clock, limit, provider.login()).await;
        let late = || Err(CredentialsError("the provider took too long".into()));
        let login = asked.unwrap_or_else(late)?;
        log_in(&mut config, &login)?;
        expires_in = login.expires_in;
    }
    let (connection, driver) = Connection::start(config, stream, runtime.clock())?;
    connection.keep_certificates(certificates);
    runtime.spawn(driver);
    connection.opened().await?;
    if let (Some(provider), Some(expires_in)) = (&options.credentials, expires_in) {
        runtime.spawn(connection.renew(Arc::clone(provider), expires_in));
    }
    Ok(connection)
}

/// Opens a connection over a transport that was made elsewhere, and spawns what drives it.
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
    let (connection, driver) = Connection::start(config, transport, runtime.clock())?;
    runtime.spawn(driver);
    connection.opened().await?;
    Ok(connection)
}

/// The TCP connections that are being made.
struct Dialing<R: Runtime> {
    runtime: R,
    clock: R::Clock,
    dialer: Dialer,
    running: Vec<(AttemptId, Pending<R::Stream>)>,
    /// The stream of the attempt that won.
    stream: Option<R::Stream>,
}

type Pending<S> = Pin<Box<dyn Future<Output = io::Result<Found<S>>> + Send>>;

/// What comes of an attempt.
enum Found<S> {
    Addresses(Vec<std::net::SocketAddr>),
    Stream(S),
}

impl<R: Runtime> Dialing<R> {
    fn new(runtime: &R, options: &Options) -> Self {
        let addresses = options.addresses.clone();
        Self {
            runtime: runtime.clone(),
            clock: runtime.clock(),
            dialer: Dialer::new(addresses, options.order, options.tcp_timeout),
            running: Vec::new(),
            stream: None,
        }
    }

    /// The next stream to try; none if no address is left.
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
                    let runtime = self.runtime.clone();
                    let resolving = async move {
                        let addresses = runtime.resolve(&host, port).await?;
                        Ok(Found::Addresses(addresses))
                    };
                    self.running.push((attempt, Box::pin(resolving)));
                }
                Step::Connect { attempt, to } => {
                    let runtime = self.runtime.clone();
                    let connecting = async move {
                        let stream = match to {
                            Target::Tcp(to) => runtime.connect_tcp(to).await,
                            Target::Unix(path) => runtime.connect_unix(Path::new(&path)).await,
                        };
                        Ok(Found::Stream(stream?))
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

    /// Tells the dialer what came of an attempt; false if nothing did.
    fn poll_running(&mut self, cx: &mut Context<'_>) -> bool {
        for at in 0..self.running.len() {
            let (attempt, future) = &mut self.running[at];
            let attempt = *attempt;
            let Poll::Ready(result) = future.as_mut().poll(cx) else {
                continue;
            };
            drop(self.running.swap_remove(at));
            match result {
                Ok(Found::Addresses(addresses)) => {
                    self.dialer.handle_resolved(attempt, addresses);
                }
                Ok(Found::Stream(stream)) => {
                    if self.dialer.handle_connected(attempt) {
                        self.stream = Some(stream);
                    }
                }
                Err(error) => self.dialer.handle_failed(attempt, &error.to_string()),
            }
            return true;
        }
        false
    }
}

/// Why no connection was made.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URI is wrong.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// Something is asked for that no server would accept.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The system gives nothing to wait for sockets with.
    #[error("cannot wait for sockets: {0}")]
    System(#[source] io::Error),
    /// No address could be reached: how each has failed.
    #[error("could not reach {0}")]
    Unreachable(Failures),
    /// A host was reached, and could not be spoken to with TLS.
    #[error("no TLS with {address}: {error}")]
    Tls {
        /// Where.
        address: Address,
        /// What is wrong.
        #[source]
        error: TlsError,
    },
    /// There are no credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A host was reached, and the connection not opened.
    #[error(transparent)]
    NotOpened(#[from] Error),
}

impl ConnectError {
    /// Whether another host would do the same.
    fn is_final(&self) -> bool {
        match self {
            Self::NotOpened(Error::ConnectionClosed(reason)) => {
                matches!(reason.cause(), CloseCause::AuthenticationFailed { .. })
            }
            Self::NotOpened(Error::Misuse(_)) | Self::Misuse(_) | Self::Credentials(_) => true,
            #[cfg(feature = "tls")]
            Self::Tls {
                error: TlsError::Setup(error),
                ..
            } => error.is_final(),
            _ => false,
        }
    }
}

impl<R: Runtime> fmt::Debug for Dialing<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialing")
            .field("dialer", &self.dialer)
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}
