//! Connectors: they dial a peer for ever.

use std::{
    fmt, future::Future, future::poll_fn, path::Path, pin::pin, sync::Arc, task::Poll, task::Waker,
    time::Duration,
};

use amqp_core::{Instant, dial::Address};
#[cfg(feature = "tls")]
use amqp_driver::TlsOptions;
use amqp_driver::{
    ConnectError, Options,
    io::{Secured, dial, poll_locked, within},
};
use amqp_embedded::ServerRuntime;
use bytes::Bytes;

use super::{
    backoff::{Backoff, MIN_WAIT},
    events::UnreachableError,
    queue::Entry,
    runner::Runner,
    shared::Shared,
    state::State,
};
use crate::{
    cause::{DownCause, LinkError},
    event::LinkKey,
    name::PeerName,
};

/// The key of a connector. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectorId(pub(super) u64);

/// The address of a peer that listens, and how it is dialled.
///
/// ```
/// use std::time::Duration;
///
/// use amqp_peer::Connect;
///
/// let connect = Connect::tcp("alice.example.com", 4000)
///     .retry(Duration::from_millis(500), Duration::from_secs(30));
/// let on_this_machine = Connect::unix("/run/alice");
/// let by_uri = Connect::uri("amqp://alice.example.com:4000")?;
/// # Ok::<(), amqp_peer::amqp_driver::ConnectError>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Connect {
    /// The addresses, timeouts and TLS. The credentials, the configuration and the recovery are not
    /// used.
    pub options: Options,
    /// The first wait before another attempt, doubled with each attempt. Default 0.1 s.
    pub retry_first: Duration,
    /// The maximum wait. Default 3 s.
    pub retry_max: Duration,
}

impl Connect {
    /// A peer at a TCP port of a host: a name, which is resolved anew at each attempt, or an address
    /// of IPv4 or IPv6.
    #[must_use]
    pub fn tcp(host: &str, port: u16) -> Self {
        Self::to([Address::tcp(host, port)])
    }

    /// A peer at a Unix socket.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::to([Address::unix(path.as_ref().to_string_lossy())])
    }

    /// A peer at the hosts of a URI: `amqp://host:port`, or `amqps://host:port` for TLS.
    ///
    /// # Errors
    /// If the URI is malformed.
    pub fn uri(uri: &str) -> Result<Self, ConnectError> {
        Options::from_uri(uri).map(Self::with_options)
    }

    /// A peer at one of several addresses, of which the first one that answers is used.
    #[must_use]
    pub fn to(addresses: impl IntoIterator<Item = Address>) -> Self {
        Self::with_options(Options::default().addresses(addresses))
    }

    /// A peer dialled by these options.
    #[must_use]
    pub fn with_options(options: Options) -> Self {
        Self {
            options,
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(3),
        }
    }

    /// Secures the connection with TLS.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: TlsOptions) -> Self {
        self.options.tls = Some(tls);
        self
    }

    /// Sets the waits before further attempts: the first one, at least 1 ms, and the maximum, at least
    /// the first one.
    #[must_use]
    pub fn retry(mut self, first: Duration, max: Duration) -> Self {
        self.retry_first = first.max(MIN_WAIT);
        self.retry_max = max.max(self.retry_first);
        self
    }
}

/// The state of a connector.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectorInfo {
    /// The key of the connector.
    pub id: ConnectorId,
    /// What it does.
    pub state: ConnectorState,
    /// The number of attempts so far.
    pub attempts: u64,
}

/// What a connector does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectorState {
    /// It connects, or its link is not up yet.
    Connecting,
    /// Its link is up, to that peer.
    Up(PeerName),
    /// It waits before the next attempt.
    Waiting,
    /// It sleeps until a link to that peer ends, which the peer has dialled.
    Sleeping(PeerName),
}

/// The state of a connector, behind the lock.
#[derive(Debug)]
pub(super) struct ConnectorSlot {
    pub(super) state: ConnectorState,
    pub(super) attempts: u64,
    /// An event of a failed attempt is not taken: further ones add none.
    pub(super) has_reported: bool,
    /// The waker for the removal.
    pub(super) removal: Option<Waker>,
    /// The waker for the end of a link.
    pub(super) progress: Option<Waker>,
}

impl Default for ConnectorSlot {
    fn default() -> Self {
        Self {
            state: ConnectorState::Connecting,
            attempts: 0,
            has_reported: false,
            removal: None,
            progress: None,
        }
    }
}

impl ConnectorSlot {
    pub(super) fn wakers(self) -> impl Iterator<Item = Waker> {
        self.removal.into_iter().chain(self.progress)
    }
}

/// A link of a connector.
#[derive(Debug)]
pub(super) struct Dialed {
    pub(super) connector: ConnectorId,
    name: Option<PeerName>,
    up_at: Option<Instant>,
    end: Option<Option<DownCause>>,
}

impl Dialed {
    pub(super) fn handle_up(&mut self, name: PeerName, now: Instant) {
        self.name = Some(name);
        self.up_at = Some(now);
    }

    pub(super) fn handle_end(&mut self, name: Option<PeerName>, cause: DownCause) {
        self.name = name.or_else(|| self.name.take());
        self.end = Some(Some(cause));
    }

    /// Handles the removal of the link, which may have ended without an event.
    pub(super) fn handle_removed(&mut self) {
        self.end.get_or_insert(None);
    }
}

/// The end of a connector's link.
struct Ended {
    name: Option<PeerName>,
    up_for: Option<Duration>,
    cause: Option<DownCause>,
}

/// Dials for ever, until the connector is removed or the peer stops.
pub(super) async fn run<R: ServerRuntime>(
    runner: Arc<Runner<R>>,
    id: ConnectorId,
    connect: Connect,
) {
    let shared = &*runner.shared;
    let dialing = dial_for_ever(&runner, id, &connect);
    until_removed(shared, id, dialing).await;
}

impl State {
    /// Removes a connector after the end of its task. The link that is up stays; one in its handshake
    /// ends.
    pub(super) fn end_connector(&mut self, id: ConnectorId) {
        if let Some(slot) = self.connectors.remove(&id) {
            self.after.wakes.extend(slot.wakers());
        }
        let dialed = self.dialed.iter();
        let own: Vec<_> = dialed
            .filter(|(_, dialed)| dialed.connector == id)
            .map(|(link, dialed)| (*link, dialed.up_at.is_some()))
            .collect();
        for (link, is_up) in own {
            self.dialed.remove(&link);
            if !is_up {
                self.abort_link(link);
            }
        }
    }
}

/// Runs `future` until the connector is removed.
async fn until_removed(shared: &Shared, id: ConnectorId, future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let removed = poll_locked(
            shared.mutex(),
            cx.waker(),
            |state| (!state.connectors.contains_key(&id)).then_some(()),
            |state| match state.connectors.get_mut(&id) {
                Some(slot) => &mut slot.removal,
                None => &mut state.spare,
            },
        );
        match removed {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => future.as_mut().poll(cx),
        }
    })
    .await;
}

/// Waits for progress: the end of a link.
async fn wait_for<T>(
    shared: &Shared,
    id: ConnectorId,
    mut ready: impl FnMut(&mut State) -> Option<T>,
) -> T {
    poll_fn(|cx| {
        poll_locked(shared.mutex(), cx.waker(), &mut ready, |state| match state
            .connectors
            .get_mut(&id)
        {
            Some(slot) => &mut slot.progress,
            None => &mut state.spare,
        })
    })
    .await
}

async fn dial_for_ever<R: ServerRuntime>(
    runner: &Arc<Runner<R>>,
    id: ConnectorId,
    connect: &Connect,
) {
    let shared = &*runner.shared;
    let trace = &shared.trace;
    let mut clock = runner.clock();
    let mut backoff = Backoff::new(connect, runner.runtime.random_seed());
    let mut last_name: Option<PeerName> = None;
    let mut has_failed = false;
    loop {
        if let Some(name) = &last_name {
            sleep_while_up(shared, id, name).await;
        }
        let attempt = shared.with(|state| {
            let slot = state.connectors.get_mut(&id)?;
            slot.state = ConnectorState::Connecting;
            slot.attempts += 1;
            Some(slot.attempts)
        });
        trace.dialing(id, attempt.unwrap_or_default());
        match self::attempt(runner, id, connect).await {
            Ok(ended) => {
                has_failed = false;
                last_name = ended.name.or(last_name);
                let was_long = ended.up_for.is_some_and(|time| backoff.is_long(time));
                let is_requested = ended.cause == Some(DownCause::Requested);
                let is_kept_by_other = ended.cause == Some(DownCause::Duplicate);
                if was_long || is_requested || is_kept_by_other {
                    backoff.reset();
                }
                let is_up = |name| shared.lock().machine.is_up(name);
                if was_long || (is_kept_by_other && last_name.as_ref().is_some_and(is_up)) {
                    continue;
                }
            }
            Err(error) => {
                trace.dial_failed(id, !std::mem::replace(&mut has_failed, true), &error);
                shared.with(|state| state.report_unreachable(id, error));
            }
        }
        shared.with(|state| {
            if let Some(slot) = state.connectors.get_mut(&id) {
                slot.state = ConnectorState::Waiting;
            }
        });
        let wait = backoff.next();
        trace.dial_waits(id, wait);
        let _passed = within(&mut clock, wait, std::future::pending::<()>()).await;
    }
}

impl State {
    fn report_unreachable(&mut self, id: ConnectorId, error: UnreachableError) {
        if let Some(slot) = self.connectors.get_mut(&id)
            && !slot.has_reported
        {
            slot.has_reported = true;
            self.push_event(Entry::Unreachable(id, Box::new(error)));
        }
    }
}

/// Sleeps while a link to that peer is up.
async fn sleep_while_up(shared: &Shared, id: ConnectorId, name: &PeerName) {
    if shared.lock().machine.is_up(name) {
        shared.trace.dial_sleeps(id, name);
    }
    let ready = |state: &mut State| {
        if !state.machine.is_up(name) {
            return Some(());
        }
        if let Some(slot) = state.connectors.get_mut(&id) {
            slot.state = ConnectorState::Sleeping(name.clone());
        }
        None
    };
    wait_for(shared, id, ready).await;
}

/// Dials, and waits for the end of the link.
async fn attempt<R: ServerRuntime>(
    runner: &Arc<Runner<R>>,
    id: ConnectorId,
    connect: &Connect,
) -> Result<Ended, UnreachableError> {
    runner.shared.lock().machine.check_begin(false)?;
    let dialing = dial(&runner.runtime, &connect.options);
    let (_, secured) = runner.shared.trace.within(dialing).await?;
    Ok(link(runner, id, secured).await?)
}

/// Drives a link over a transport, and waits for its end.
async fn link<R: ServerRuntime>(
    runner: &Arc<Runner<R>>,
    id: ConnectorId,
    secured: Secured<R::Stream>,
) -> Result<Ended, LinkError> {
    let shared = &*runner.shared;
    let certificates: Vec<Bytes> = secured.certificates.into_iter().map(Bytes::from).collect();
    let link = shared.at_now(|state, now| {
        let link = state.machine.dial(now)?;
        state.machine.handle_certificates(link, certificates);
        state.add_link(link);
        let dialed = Dialed {
            connector: id,
            name: None,
            up_at: None,
            end: None,
        };
        state.dialed.insert(link, dialed);
        Ok::<_, LinkError>(link)
    })?;
    runner.drive(link, None, None, secured.stream);
    Ok(wait_for(shared, id, |state| state.take_ended(link)).await)
}

impl State {
    /// Takes a link of a connector, if it has ended.
    fn take_ended(&mut self, link: LinkKey) -> Option<Ended> {
        self.dialed.get(&link)?.end.as_ref()?;
        let dialed = self.dialed.remove(&link)?;
        Some(Ended {
            name: dialed.name,
            up_for: dialed.up_at.map(|at| self.now - at),
            cause: dialed.end.flatten(),
        })
    }
}

impl ConnectorId {
    /// Returns the number: listeners and connectors are counted from 1 in the order in which they were
    /// added.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectorId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connector {}", self.0)
    }
}
