//! Dialling: the first stream of the addresses that answers.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    path::Path,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use amqp_core::dial::{Address, AttemptId, Dialer, SrvError, SrvRecord, Step, Target};

use super::{error::ConnectError, options::Options, secure_stream, service::Service};
#[cfg(feature = "tracing")]
use crate::trace;
use crate::{
    io::{Runtime, Timer},
    tls::Secured,
};

/// Connects to the first address that answers, and secures the stream if the options say so, without
/// opening an AMQP connection on it: for another protocol, or another role in it. Returns the address
/// and the stream with the peer's certificates.
///
/// The names are resolved anew by each call, and all their addresses are tried, as
/// [`connect`](crate::connect()) does. Uses the [`Options`] but for their configuration, credentials
/// and recovery.
///
/// ```no_run
/// use amqp_driver::{ConnectError, Options, core::dial::Address, io::{self, Runtime}};
///
/// # async fn example<R: Runtime>(runtime: &R) -> Result<(), ConnectError> {
/// let options = Options::default().addresses([Address::tcp("other.example.com", 4000)]);
/// let (address, secured) = io::dial(runtime, &options).await?;
/// println!("connected to {address}, {} certificates", secured.certificates.len());
/// # drop(secured.stream);
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Dropping it closes the streams opened so far.
///
/// # Errors
/// When no address could be reached, or none could be secured.
pub async fn dial<R: Runtime>(
    runtime: &R,
    options: &Options,
) -> Result<(Address, Secured<R::Stream>), ConnectError> {
    options.check()?;
    runtime.check()?;
    let mut dialing = Dialing::new(runtime, options);
    while let Some((attempt, address, stream)) = dialing.next_stream().await {
        match secure_stream(runtime, options, &address, stream).await {
            Ok(secured) => return Ok((address, secured)),
            Err(error) => dialing.handle_refused(attempt, &address, error)?,
        }
    }
    Err(dialing.into_error(options))
}

/// Whether all failures are those of one host.
fn is_one_name(addresses: &[Address]) -> bool {
    matches!(addresses, [only] if !matches!(only, Address::Srv(_)))
}

/// The TCP connections in progress, and the name resolutions before them.
pub(super) struct Dialing<R: Runtime> {
    runtime: R,
    clock: R::Clock,
    dialer: Dialer,
    keepalive: Option<Duration>,
    service: Service,
    running: Vec<(AttemptId, Pending<R::Stream>)>,
    /// The stream of the attempt that won.
    stream: Option<R::Stream>,
    /// The failures of the addresses that were reached.
    refusals: Vec<ConnectError>,
}

type Pending<S> = Pin<Box<dyn Future<Output = io::Result<Attempt<S>>> + Send>>;

/// The result of one step of an attempt.
enum Attempt<S> {
    Addresses(Vec<std::net::SocketAddr>),
    Records(Result<Vec<SrvRecord>, SrvError>),
    Stream(S),
}

impl<R: Runtime> Dialing<R> {
    pub(super) fn new(runtime: &R, options: &Options) -> Self {
        let addresses = options.addresses.clone();
        Self {
            runtime: runtime.clone(),
            clock: runtime.clock(),
            dialer: Dialer::new(addresses, options.order, options.tcp_timeout),
            keepalive: options.tcp_keepalive,
            service: Service::new(options),
            running: Vec::new(),
            stream: None,
            refusals: Vec::new(),
        }
    }

    /// The next stream to try, and its address. `Some` while an address is left.
    pub(super) async fn next_stream(&mut self) -> Option<(AttemptId, Address, R::Stream)> {
        let (attempt, stream) = poll_fn(|cx| self.poll_stream(cx)).await?;
        let address = self.dialer.address()?.clone();
        Some((attempt, address, stream))
    }

    /// Handles the failure of an address that was reached. Returns it if every other address would
    /// fail in the same way.
    pub(super) fn handle_refused(
        &mut self,
        attempt: AttemptId,
        address: &Address,
        error: ConnectError,
    ) -> Result<(), ConnectError> {
        if error.is_final() {
            return Err(error);
        }
        let text = error.without_address();
        #[cfg(feature = "tracing")]
        trace::refused(address, &text);
        #[cfg(not(feature = "tracing"))]
        let _ = address;
        self.dialer.handle_refused(attempt, &text);
        self.refusals.push(error);
        Ok(())
    }

    /// The error of all addresses.
    pub(super) fn into_error(mut self, options: &Options) -> ConnectError {
        let failures = self.dialer.into_failures();
        match self.refusals.pop() {
            None => ConnectError::Unreachable(failures),
            // Unreached addresses of its name, such as the other family of `localhost`, are left out.
            Some(only) if is_one_name(&options.addresses) && self.refusals.is_empty() => only,
            Some(last) => ConnectError::Refused {
                failures,
                last: Box::new(last),
            },
        }
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
