//! Opening connections, on any runtime.

pub(crate) mod credentials;
pub(crate) mod error;
pub(crate) mod opening;
pub(crate) mod options;
mod repeated;
mod service;

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
    ApiMisuse,
    client::Config,
    dial::{Address, AttemptId, Dialer, SrvError, SrvRecord, Step, Target},
};

use self::{
    credentials::{CredentialsError, log_in},
    error::ConnectError,
    opening::{First, Opening},
    options::Options,
    repeated::connect_until,
    service::Service,
};
#[cfg(feature = "tracing")]
use crate::trace;
use crate::{
    connection::Connection,
    error::Error,
    io::{Runtime, Timer, Transport, within},
    tls::{Secured, TlsError, TlsErrorTap},
};

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
    let mut first = First { runtime, options };
    match &options.recovery {
        Some(policy) if policy.first_connect => {
            connect_until(runtime, options, policy, &mut first).await
        }
        _ => connect_as(runtime, options, &mut first).await,
    }
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
    let mut dialing = Dialing::new(runtime, options);
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
        Some(only) if is_one_name(&options.addresses) && refusals.is_empty() => only,
        Some(last) => ConnectError::Refused {
            failures,
            last: Box::new(last),
        },
    })
}

/// Whether all failures are those of one host.
fn is_one_name(addresses: &[Address]) -> bool {
    matches!(addresses, [only] if !matches!(only, Address::Srv(_)))
}

/// Opens a connection over a stream that was just made to `address`: secures the stream if the
/// options say so, and spawns the driver. [`connect`] does so with each stream; this function is
/// for applications that dial by themselves. It ignores the options' addresses, their order and the
/// TCP settings.
///
/// Such a connection does not recover: there is no dialer for a next one.
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
/// [`ApiMisuse::Config`] if the options have a [`recovery`](Options::recovery).
pub async fn connect_over<R: Runtime>(
    runtime: &R,
    options: &Options,
    address: &Address,
    stream: R::Stream,
) -> Result<Connection, ConnectError> {
    if options.recovery.is_some() {
        // After a loss the addresses would be dialled, and sent the credentials.
        return Err(ConnectError::Misuse(ApiMisuse::Config {
            setting: "recovery",
            problem: "is not for a stream that was made elsewhere",
        }));
    }
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
struct Dialing<R: Runtime> {
    runtime: R,
    clock: R::Clock,
    dialer: Dialer,
    keepalive: Option<Duration>,
    service: Service,
    running: Vec<(AttemptId, Pending<R::Stream>)>,
    /// The stream of the attempt that won.
    stream: Option<R::Stream>,
}

type Pending<S> = Pin<Box<dyn Future<Output = io::Result<Attempt<S>>> + Send>>;

/// The result of one step of an attempt.
enum Attempt<S> {
    Addresses(Vec<std::net::SocketAddr>),
    Records(Result<Vec<SrvRecord>, SrvError>),
    Stream(S),
}

impl<R: Runtime> Dialing<R> {
    fn new(runtime: &R, options: &Options) -> Self {
        let addresses = options.addresses.clone();
        Self {
            runtime: runtime.clone(),
            clock: runtime.clock(),
            dialer: Dialer::new(addresses, options.order, options.tcp_timeout),
            keepalive: options.tcp_keepalive,
            service: Service::new(options),
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
                Step::LookUp { attempt, name } => {
                    #[cfg(feature = "tracing")]
                    trace::looking_up(&name);
                    let service = self.service.clone();
                    let looking_up =
                        async move { Ok(Attempt::Records(service.records(&name).await)) };
                    self.running.push((attempt, Box::pin(looking_up)));
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
                Ok(Attempt::Records(records)) => {
                    let seed = self.runtime.random_seed();
                    self.dialer.handle_records(attempt, records, seed);
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

impl<R: Runtime> fmt::Debug for Dialing<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialing")
            .field("dialer", &self.dialer)
            .field("running", &self.running.len())
            .finish_non_exhaustive()
    }
}
