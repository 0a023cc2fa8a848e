//! Listeners: they accept peers, and plain clients.

#[cfg(feature = "tls")]
use std::sync::Mutex;
use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    task::{Poll, Waker},
    time::Duration,
};

use amqp_driver::io::{poll_locked, within};
#[cfg(feature = "tls")]
use amqp_driver::rustls::ServerConfig;
#[cfg(feature = "tls")]
use amqp_embedded::PendingTransport;
use amqp_embedded::{Listener as _, ServerRuntime};
#[cfg(feature = "tls")]
use bytes::Bytes;

use super::{
    events::NotAcceptedError,
    inbox::Inbox,
    queue::Entry,
    runner::Runner,
    shared::Shared,
    state::State,
    waiters::{Waiters, wait_for},
};
use crate::{cause::LinkError, event::LinkKey};

/// The delay after a failed accept, in which resources may become free.
const RETRY: Duration = Duration::from_millis(50);

/// The key of a listener. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ListenerId(pub(super) u64);

impl ListenerId {
    /// Returns the number: listeners and connectors are counted from 1 in the order in which they were
    /// added.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// The place at which a peer listens.
///
/// ```
/// use amqp_peer::Listen;
///
/// let anywhere = Listen::tcp("[::]:4000");
/// let here_on_a_free_port = Listen::tcp("127.0.0.1:0");
/// let on_this_machine = Listen::unix("/run/bob");
/// # drop((anywhere, here_on_a_free_port, on_this_machine));
/// ```
#[derive(Clone)]
pub struct Listen {
    place: Place,
    #[cfg(feature = "tls")]
    tls: Option<Arc<ServerConfig>>,
}

#[derive(Clone, Debug)]
enum Place {
    Tcp(String),
    Unix(PathBuf),
}

impl Listen {
    /// A TCP port: `host:port`, an IPv6 address in brackets. The port 0 is a free one.
    #[must_use]
    pub fn tcp(address: impl Into<String>) -> Self {
        Self::at(Place::Tcp(address.into()))
    }

    /// A Unix socket. A file left by a process that has ended is replaced; it is removed with the
    /// listener.
    #[must_use]
    pub fn unix(path: impl AsRef<Path>) -> Self {
        Self::at(Place::Unix(path.as_ref().to_owned()))
    }

    const fn at(place: Place) -> Self {
        Self {
            place,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Secures the connections with TLS. The configuration decides whether a peer must show a
    /// certificate, and which ones are valid.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, config: impl Into<Arc<ServerConfig>>) -> Self {
        self.tls = Some(config.into());
        self
    }
}

impl fmt::Debug for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listen")
            .field("place", &self.place)
            .finish_non_exhaustive()
    }
}

/// A listener that accepts connections.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listening {
    /// The key of the listener.
    pub id: ListenerId,
    /// The address at which it listens.
    pub address: ListenAddress,
}

impl Listening {
    /// The port. `Some` for TCP.
    #[must_use]
    pub const fn port(&self) -> Option<u16> {
        match &self.address {
            ListenAddress::Tcp(address) => Some(address.port()),
            ListenAddress::Unix(_) => None,
        }
    }
}

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenAddress {
    /// An address of TCP.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// The reason for which a peer does not listen.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum ListenError {
    /// The system refuses it.
    #[error("cannot listen: {0}")]
    System(#[source] Arc<io::Error>),
    /// The peer has stopped, or the listener was removed before it listened.
    #[error("the peer has stopped")]
    Stopped,
}

/// The state of a listener, behind the lock.
#[derive(Debug, Default)]
pub(super) struct ListenerSlot {
    /// The result of binding, until it is taken.
    pub(super) bound: Option<Result<ListenAddress, ListenError>>,
    /// The waker for the removal.
    pub(super) waker: Option<Waker>,
    /// The number of connections that were not accepted since an event of one was taken.
    pub(super) refused: u64,
}

/// Listens until the listener is removed or the peer stops.
pub(super) async fn run<R: ServerRuntime>(runner: Arc<Runner<R>>, id: ListenerId, listen: Listen) {
    let shared = &*runner.shared;
    let Some(bound) = until_removed(shared, id, bind(&runner.runtime, &listen)).await else {
        return;
    };
    let (bound, listening) = match bound {
        Ok(bound) => (Ok(bound.address.clone()), Some(bound)),
        Err(error) => (Err(ListenError::System(Arc::new(error))), None),
    };
    match &bound {
        Ok(address) => shared.trace.listening(id, address),
        Err(error) => shared.trace.not_listening(id, error),
    }
    shared.with(|state| {
        if let Some(slot) = state.listeners.get_mut(&id) {
            slot.bound = Some(bound);
        }
        state.changed.wake_all(&mut state.after.wakes);
    });
    let Some(mut bound) = listening else {
        return;
    };
    // No client is to declare the queue of the inbox first.
    let changed: fn(&mut State) -> &mut Waiters = |state| &mut state.changed;
    let begun = wait_for(shared, changed, |state| {
        (state.inbox != Inbox::Beginning).then_some(())
    });
    if until_removed(shared, id, begun).await.is_none() {
        return;
    }
    let mut clock = runner.clock();
    while let Some(accepted) = until_removed(shared, id, bound.listener.accept()).await {
        match accepted {
            Ok(stream) => accept(&runner, id, &listen, stream),
            // Too many open files, or a peer that has disconnected already.
            Err(error) => {
                let error = NotAcceptedError::System(Arc::new(error));
                shared.with(|state| state.report_not_accepted(id, error));
                let pause = within(&mut clock, RETRY, std::future::pending::<()>());
                if until_removed(shared, id, pause).await.is_none() {
                    break;
                }
            }
        }
    }
}

impl State {
    /// Reports a connection that is not accepted, unless an event of one is not taken.
    pub(super) fn report_not_accepted(&mut self, id: ListenerId, error: NotAcceptedError) {
        let Some(slot) = self.listeners.get_mut(&id) else {
            return;
        };
        slot.refused += 1;
        let is_first = slot.refused == 1;
        self.after.notes.not_accepted(id, &error, is_first);
        if is_first {
            self.push_event(Entry::NotAccepted(id, Box::new(error), 1));
        }
    }

    /// Removes a listener after the end of its task. The result of a bind that was not taken stays.
    pub(super) fn end_listener(&mut self, id: ListenerId) {
        if let Some(slot) = self.listeners.get(&id)
            && slot.bound.is_none()
        {
            let slot = self.listeners.remove(&id);
            let waker = slot.and_then(|slot| slot.waker);
            self.after.wakes.extend(waker);
            self.changed.wake_all(&mut self.after.wakes);
        }
    }
}

/// The output of `future`. `None` if the listener is removed first.
async fn until_removed<T>(
    shared: &Shared,
    id: ListenerId,
    future: impl Future<Output = T>,
) -> Option<T> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        let removed = poll_locked(
            shared.mutex(),
            cx.waker(),
            |state| (!state.listeners.contains_key(&id)).then_some(()),
            |state| match state.listeners.get_mut(&id) {
                Some(slot) => &mut slot.waker,
                None => &mut state.spare,
            },
        );
        match removed {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => future.as_mut().poll(cx).map(Some),
        }
    })
    .await
}

/// Drives an accepted transport.
fn accept<R: ServerRuntime>(
    runner: &Arc<Runner<R>>,
    id: ListenerId,
    listen: &Listen,
    stream: R::Stream,
) {
    // A refused transport is closed without a handshake.
    let begun: Option<LinkKey> =
        runner
            .shared
            .at_now(|state, now| match state.machine.accept(now) {
                Ok(link) => {
                    state.add_link(link);
                    Some(link)
                }
                Err(LinkError::Stopped) => None,
                Err(error) => {
                    state.report_not_accepted(id, error.into());
                    None
                }
            });
    let Some(link) = begun else {
        return;
    };
    #[cfg(feature = "tls")]
    if let Some(tls) = &listen.tls {
        let (runtime, tls) = (runner.runtime.clone(), Arc::clone(tls));
        let certificates = Arc::<Mutex<Option<Vec<Bytes>>>>::default();
        let shown = Arc::clone(&certificates);
        let securing = async move {
            let secured = runtime.secure_accepted(stream, tls).await?;
            let own = secured.certificates.into_iter().map(Bytes::from).collect();
            let mut shown = shown
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            *shown = Some(own);
            Ok(secured.stream)
        };
        let stream = PendingTransport::new(securing);
        runner.drive(link, Some(id), Some(certificates), stream);
        return;
    }
    #[cfg(not(feature = "tls"))]
    let _ = listen;
    runner.drive(link, Some(id), None, stream);
}

/// A bound listener.
struct Bound<L> {
    /// The file of a Unix socket, removed on drop: before the socket is closed, or else the file of
    /// the next listener might be.
    _file: Option<SocketFile>,
    listener: L,
    address: ListenAddress,
}

/// The file of a Unix socket, removed on drop.
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _gone = std::fs::remove_file(&self.0);
    }
}

async fn bind<R: ServerRuntime>(runtime: &R, listen: &Listen) -> io::Result<Bound<R::Listener>> {
    match &listen.place {
        Place::Tcp(address) => {
            let addresses = match address.parse::<SocketAddr>() {
                Ok(address) => vec![address],
                Err(_) => {
                    let (host, port) = split(address)?;
                    runtime.resolve(host, port).await?
                }
            };
            let listener = std::net::TcpListener::bind(&*addresses)?;
            let address = ListenAddress::Tcp(listener.local_addr()?);
            Ok(Bound {
                listener: runtime.listen_tcp(listener)?,
                address,
                _file: None,
            })
        }
        Place::Unix(path) => bind_unix(runtime, path),
    }
}

/// Splits `host:port`.
fn split(address: &str) -> io::Result<(&str, u16)> {
    let parts = address.rsplit_once(':');
    let parts = parts.and_then(|(host, port)| Some((host, port.parse().ok()?)));
    parts.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not of the form host:port"))
}

#[cfg(unix)]
fn bind_unix<R: ServerRuntime>(runtime: &R, path: &Path) -> io::Result<Bound<R::Listener>> {
    use std::os::unix::net::{UnixListener, UnixStream};

    let listener = UnixListener::bind(path).or_else(|error| {
        let refused = |error: &io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
        let is_stale = error.kind() == io::ErrorKind::AddrInUse
            && UnixStream::connect(path).is_err_and(|error| refused(&error));
        if !is_stale {
            return Err(error);
        }
        std::fs::remove_file(path)?;
        UnixListener::bind(path)
    })?;
    let file = SocketFile(path.to_owned());
    Ok(Bound {
        listener: runtime.listen_unix(listener)?,
        address: ListenAddress::Unix(path.to_owned()),
        _file: Some(file),
    })
}

#[cfg(not(unix))]
fn bind_unix<R: ServerRuntime>(_runtime: &R, _path: &Path) -> io::Result<Bound<R::Listener>> {
    Err(io::ErrorKind::Unsupported.into())
}
