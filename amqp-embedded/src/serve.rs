//! Serving a broker to clients that connect.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_driver::io::{Runtime, Timer, Transport, poll_locked, wake_all, within};

use crate::{identity::Peer, local::LocalBroker};

/// The delay after a failed accept, in which resources may become free.
const RETRY: Duration = Duration::from_millis(50);

/// The maximum time for close handshakes at the shutdown of a server.
const CLOSING: Duration = Duration::from_secs(5);

/// A source of connections.
pub trait Listener: Send + 'static {
    /// An accepted connection.
    type Stream: Transport + Unpin + 'static;

    /// The local address.
    ///
    /// # Errors
    /// Errors of the system; one of the kind [`Unsupported`](io::ErrorKind::Unsupported) if it has
    /// no address of IP, as a Unix socket.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The client at the other end. Called after each read until it returns `Some`; the default
    /// returns `None`.
    fn peer(stream: &Self::Stream) -> Option<&Peer> {
        let _ = stream;
        None
    }

    /// Accepts the next connection. Cancel safe: dropping the future loses none.
    ///
    /// # Errors
    /// Errors of the system. A later call may succeed.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Serves a broker to the listener's clients, in tasks of the broker's runtime.
///
/// # Errors
/// If the listener has no local address, or the runtime is not running here.
pub fn serve<R: Runtime>(
    listener: impl Listener,
    broker: impl Into<LocalBroker<R>>,
) -> io::Result<Server<R>> {
    let broker = broker.into();
    let address = listener.local_addr()?;
    broker.runtime.check().map_err(io::Error::other)?;
    let connections = Arc::<Connections>::default();
    let accepting = AcceptGuard::new(&connections);
    let serving = serve_until(
        accepting,
        listener,
        broker.clone(),
        Arc::clone(&connections),
    );
    broker.runtime.spawn(serving);
    Ok(Server {
        address,
        broker,
        connections,
    })
}

/// A broker that is served to clients. Dropping it stops listening, and ends its connections
/// without a close handshake.
#[derive(Debug)]
pub struct Server<R: Runtime> {
    address: SocketAddr,
    broker: LocalBroker<R>,
    connections: Arc<Connections>,
}

impl<R: Runtime> Server<R> {
    /// The address on which it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// The served broker.
    #[must_use]
    pub const fn broker(&self) -> &LocalBroker<R> {
        &self.broker
    }

    /// Stops listening and closes the connections as RabbitMQ does at its shutdown: with 320,
    /// connection-forced. Connections without a completed close handshake after five seconds are
    /// aborted.
    ///
    /// # Cancel safety
    /// Dropping the future aborts the connections that are not closed yet.
    pub async fn shutdown(self) {
        self.connections.change(|state| state.closed = true);
        self.broker.close_connections("shutdown");
        let empty = poll_fn(|cx| {
            let empty = |state: &mut Inner| (state.open == 0 && !state.listening).then_some(());
            poll_locked(&self.connections.0, cx.waker(), empty, |state| {
                &mut state.shutdown_waiter
            })
        });
        // Dropping the server aborts the rest.
        let _late = within(&mut self.broker.runtime.clock(), CLOSING, empty).await;
    }
}

impl<R: Runtime> Drop for Server<R> {
    fn drop(&mut self) {
        self.connections.change(|state| {
            state.closed = true;
            state.aborted = true;
        });
    }
}

/// Accepts connections and spawns their drivers until the server is shut down. The guard is dropped
/// last, after the listener.
async fn serve_until<R: Runtime, L: Listener>(
    _accepting: AcceptGuard,
    mut listener: L,
    broker: LocalBroker<R>,
    connections: Arc<Connections>,
) {
    let mut clock = broker.runtime.clock();
    while let Some(accepted) = connections.until_closed(listener.accept()).await {
        let Ok(stream) = accepted else {
            // Too many open files, or a client that has disconnected already.
            if connections
                .until_closed(sleep(&mut clock, RETRY))
                .await
                .is_none()
            {
                break;
            }
            continue;
        };
        if let Ok(driver) = broker.accept_identified(stream, L::peer) {
            broker
                .runtime
                .spawn(ConnectionTask::new(&connections, driver));
        }
    }
}

/// Sleeps, by that clock.
async fn sleep<C: Timer>(clock: &mut C, time: Duration) {
    let at = clock.now() + time;
    poll_fn(|cx| clock.poll_deadline(cx, Some(at))).await;
}

/// The state that a server shares with its accept loop and its connections. Wakers are cloned,
/// woken and dropped without its lock.
#[derive(Default)]
struct Connections(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// No more connections are accepted.
    closed: bool,
    /// Connections end at once.
    aborted: bool,
    /// The accept loop is running.
    listening: bool,
    /// The number of connections that have not ended.
    open: usize,
    /// The key of the latest connection in `tasks`.
    last: u64,
    /// The waker of the accept loop.
    acceptor: Option<Waker>,
    /// The wakers of the connections' tasks. `Some` after the first poll of a task.
    tasks: BTreeMap<u64, Option<Waker>>,
    /// The waker of the shutdown, which waits until no connection is open.
    shutdown_waiter: Option<Waker>,
}

impl Connections {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, and wakes every task that depends on it.
    fn change(&self, change: impl FnOnce(&mut Inner)) {
        let mut state = self.lock();
        change(&mut state);
        let tasks = std::mem::take(&mut state.tasks).into_values();
        let wakes: Vec<Waker> = [state.acceptor.take(), state.shutdown_waiter.take()]
            .into_iter()
            .chain(tasks)
            .flatten()
            .collect();
        drop(state);
        wake_all(wakes);
    }

    /// The output of `future`. `None` if the server is closed first.
    async fn until_closed<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let closed = |state: &mut Inner| state.closed.then_some(());
            match poll_locked(&self.0, cx.waker(), closed, |state| &mut state.acceptor) {
                Poll::Ready(()) => Poll::Ready(None),
                Poll::Pending => future.as_mut().poll(cx).map(Some),
            }
        })
        .await
    }
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let open = self.lock().open;
        f.debug_struct("Connections").field("open", &open).finish()
    }
}

/// Marks the accept loop as running until it is dropped.
struct AcceptGuard(Arc<Connections>);

impl AcceptGuard {
    fn new(connections: &Arc<Connections>) -> Self {
        connections.lock().listening = true;
        Self(Arc::clone(connections))
    }
}

impl Drop for AcceptGuard {
    fn drop(&mut self) {
        self.0.change(|state| state.listening = false);
    }
}

/// Drives a connection until it ends or is aborted.
struct ConnectionTask<D> {
    connections: Arc<Connections>,
    number: u64,
    driver: D,
}

impl<D> ConnectionTask<D> {
    fn new(connections: &Arc<Connections>, driver: D) -> Self {
        let mut state = connections.lock();
        state.open += 1;
        state.last += 1;
        let number = state.last;
        drop(state);
        Self {
            connections: Arc::clone(connections),
            number,
            driver,
        }
    }
}

impl<D: Future<Output = ()> + Unpin> Future for ConnectionTask<D> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let aborted = |state: &mut Inner| state.aborted.then_some(());
        let number = this.number;
        let aborted = poll_locked(&this.connections.0, cx.waker(), aborted, |state| {
            state.tasks.entry(number).or_default()
        });
        match aborted {
            Poll::Ready(()) => Poll::Ready(()),
            Poll::Pending => Pin::new(&mut this.driver).poll(cx),
        }
    }
}

impl<D> Drop for ConnectionTask<D> {
    fn drop(&mut self) {
        let mut state = self.connections.lock();
        state.open -= 1;
        let own = state.tasks.remove(&self.number);
        let waiter = if state.open == 0 {
            state.shutdown_waiter.take()
        } else {
            None
        };
        drop(state);
        drop(own);
        wake_all(waiter);
    }
}
