//! A broker in this process, on the tasks of a runtime.

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

use amqp_broker::{AcceptError, Broker, ConfigError, Inspection};
use amqp_core::protocol::ReplyCode;

use crate::{
    BrokerDriver, Config, Connection, Error, Runtime, SharedBroker, Timer, Transport, pipe,
    runtime::within, session::waiters::keep,
};

/// How long to wait after a connection could not be accepted: what it takes may come free.
const RETRY: Duration = Duration::from_millis(50);

/// How long connections may take to close in good order when a server is shut down.
const CLOSING: Duration = Duration::from_secs(5);

/// A broker in this process, to connect to without a socket, and to [`serve`] to others. Adapters
/// have it under the same name, for their runtime.
///
/// It can be cloned; all clones are one broker, which is gone with the last clone and the last
/// connection, and all that was in it: durability is not its job.
#[derive(Clone, Debug)]
pub struct LocalBroker<R: Runtime> {
    shared: SharedBroker,
    runtime: R,
    /// The time that all its connections have.
    clock: R::Clock,
}

impl<R: Runtime> LocalBroker<R> {
    /// A broker that begins as configured, on that runtime.
    ///
    /// # Errors
    /// For a configuration that contradicts itself, or that no client could connect to.
    pub fn on(runtime: R, config: amqp_broker::Config) -> Result<Self, ConfigError> {
        Ok(Self::over(runtime, Broker::new(config)?))
    }

    fn over(runtime: R, broker: Broker) -> Self {
        let clock = runtime.clock();
        Self {
            shared: SharedBroker::new(broker),
            runtime,
            clock,
        }
    }

    /// Opens a connection to it, without a socket. The drivers of both ends are spawned on the
    /// runtime.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    ///
    /// # Errors
    /// When the broker does not take the connection, or the configuration has a setting that no
    /// server would accept.
    pub async fn connect(&self, config: Config) -> Result<Connection, Error> {
        self.runtime.check()?;
        let (ours, theirs) = pipe();
        // One that is not taken is hung up on, as a listener would do.
        if let Ok(driver) = self.accept(theirs) {
            self.runtime.spawn(driver);
        }
        let (connection, driver) = Connection::start(config, ours, self.clock.clone())?;
        self.runtime.spawn(driver);
        connection.opened().await?;
        Ok(connection)
    }

    /// Takes a connection that a client made to this process in its own way: over a Unix socket, or
    /// with TLS. Gives back what drives it, to be spawned; it ends with the connection.
    ///
    /// # Errors
    /// When the broker does not take it. The stream is dropped.
    pub fn accept<T: Transport>(
        &self,
        transport: T,
    ) -> Result<BrokerDriver<T, R::Clock>, AcceptError> {
        self.runtime.check()?;
        if let Some(timekeeper) = self.shared.keep_time(self.clock.clone()) {
            self.runtime.spawn(timekeeper);
        }
        self.shared.accept(transport, self.clock.clone())
    }

    /// Does something with the broker itself, such as throwing one of its
    /// [fault switches](Broker::faults). Meanwhile nobody else can.
    pub fn with<T>(&self, act: impl FnOnce(&mut Broker) -> T) -> T {
        self.shared.with(act)
    }

    /// What is there: queues with what is in them, bindings, consumers, connections.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        self.shared.inspect()
    }

    /// Closes all connections as RabbitMQ does when an operator wants it: with 320,
    /// connection-forced, and that reason.
    pub fn close_connections(&self, reason: &str) {
        let text =
            format!("CONNECTION_FORCED - broker forced connection closure with reason '{reason}'");
        self.with(|broker| {
            for connection in broker.inspect().connections {
                let code = ReplyCode::CONNECTION_FORCED;
                broker
                    .faults()
                    .close_connection(connection.key, code, &text);
            }
        });
    }
}

impl<R: Runtime + Default> LocalBroker<R> {
    /// A broker that begins as configured.
    ///
    /// # Errors
    /// For a configuration that contradicts itself, or that no client could connect to.
    pub fn new(config: amqp_broker::Config) -> Result<Self, ConfigError> {
        Self::on(R::default(), config)
    }
}

impl<R: Runtime + Default> Default for LocalBroker<R> {
    /// A broker that begins as a fresh RabbitMQ.
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the default is one of its own tests")]
        let broker =
            Broker::new(amqp_broker::Config::default()).expect("the default configuration is good");
        broker.into()
    }
}

impl<R: Runtime + Default> From<Broker> for LocalBroker<R> {
    fn from(broker: Broker) -> Self {
        Self::over(R::default(), broker)
    }
}

/// Where connections come in.
pub trait Listener: Send + 'static {
    /// A connection that came in.
    type Stream: Transport + Unpin + 'static;

    /// Where it listens.
    ///
    /// # Errors
    /// What the system says.
    fn local_addr(&self) -> io::Result<SocketAddr>;

    /// The next connection. Dropping the future loses none.
    ///
    /// # Errors
    /// What the system says; there may be another one all the same.
    fn accept(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// Serves a broker to whoever connects to the listener, in tasks of the broker's runtime.
///
/// # Errors
/// When the listener does not know its address, or there is no such runtime here.
pub fn serve<R: Runtime>(
    listener: impl Listener,
    broker: impl Into<LocalBroker<R>>,
) -> io::Result<Server<R>> {
    let broker = broker.into();
    let address = listener.local_addr()?;
    broker.runtime.check().map_err(io::Error::other)?;
    let house = Arc::<House>::default();
    let doorman = Doorman::new(&house);
    let serving = serve_until(doorman, listener, broker.clone(), Arc::clone(&house));
    broker.runtime.spawn(serving);
    Ok(Server {
        address,
        broker,
        house,
    })
}

/// A broker that is served to others. Dropping it stops listening, and cuts its connections off.
#[derive(Debug)]
pub struct Server<R: Runtime> {
    address: SocketAddr,
    broker: LocalBroker<R>,
    house: Arc<House>,
}

impl<R: Runtime> Server<R> {
    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it serves.
    #[must_use]
    pub const fn broker(&self) -> &LocalBroker<R> {
        &self.broker
    }

    /// Stops listening and closes the connections, as RabbitMQ does when it is shut down: with 320,
    /// connection-forced. Those that do not close in good order in five seconds are cut off.
    ///
    /// # Cancel safety
    /// Dropping it cuts off what is not closed yet.
    pub async fn shutdown(self) {
        self.house.change(|state| state.closed = true);
        self.broker.close_connections("shutdown");
        let empty = poll_fn(|cx| {
            let mut state = self.house.lock();
            if state.guests == 0 && !state.listening {
                return Poll::Ready(());
            }
            keep(&mut state.owner, cx);
            Poll::Pending
        });
        // Those that are late are cut off with the server.
        let _late = within(&mut self.broker.runtime.clock(), CLOSING, empty).await;
    }
}

impl<R: Runtime> Drop for Server<R> {
    fn drop(&mut self) {
        self.house.change(|state| {
            state.closed = true;
            state.cut = true;
        });
    }
}

/// Accepts connections and spawns what drives them, until the house is closed. The doorman goes last:
/// then nothing listens any more.
async fn serve_until<R: Runtime>(
    _doorman: Doorman,
    mut listener: impl Listener,
    broker: LocalBroker<R>,
    house: Arc<House>,
) {
    let mut clock = broker.runtime.clock();
    while let Some(accepted) = house.until_closed(listener.accept()).await {
        let Ok(stream) = accepted else {
            // Too many open files, or a client that is gone already.
            if house.until_closed(sleep(&mut clock, RETRY)).await.is_none() {
                break;
            }
            continue;
        };
        if let Ok(driver) = broker.accept(stream) {
            broker.runtime.spawn(Guest::new(&house, driver));
        }
    }
}

/// Waits, by that clock.
async fn sleep<C: Timer>(clock: &mut C, time: Duration) {
    let at = clock.now() + time;
    poll_fn(|cx| clock.poll_deadline(cx, Some(at))).await;
}

/// What a server, its listener and its connections know of each other.
#[derive(Default)]
struct House(Mutex<Inside>);

#[derive(Default)]
struct Inside {
    /// Nobody comes in any more.
    closed: bool,
    /// Who is in goes at once.
    cut: bool,
    /// Somebody is at the door.
    listening: bool,
    guests: usize,
    /// The number of the guest who came last.
    last: u64,
    /// Wakes who is at the door.
    doorman: Option<Waker>,
    /// Wakes the guests, by number.
    sleepers: BTreeMap<u64, Waker>,
    /// Wakes who waits until the house is empty.
    owner: Option<Waker>,
}

impl House {
    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes something that everybody is to know.
    fn change(&self, change: impl FnOnce(&mut Inside)) {
        let mut state = self.lock();
        change(&mut state);
        let sleepers = std::mem::take(&mut state.sleepers).into_values();
        let wakes: Vec<Waker> = [state.doorman.take(), state.owner.take()]
            .into_iter()
            .flatten()
            .chain(sleepers)
            .collect();
        drop(state);
        wakes.into_iter().for_each(Waker::wake);
    }

    /// What comes of a future, unless the house is closed before.
    async fn until_closed<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        poll_fn(|cx| {
            let mut state = self.lock();
            if state.closed {
                return Poll::Ready(None);
            }
            keep(&mut state.doorman, cx);
            drop(state);
            future.as_mut().poll(cx).map(Some)
        })
        .await
    }
}

impl fmt::Debug for House {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guests = self.lock().guests;
        f.debug_struct("House").field("guests", &guests).finish()
    }
}

/// Somebody is at the door as long as this is there.
struct Doorman(Arc<House>);

impl Doorman {
    fn new(house: &Arc<House>) -> Self {
        house.lock().listening = true;
        Self(Arc::clone(house))
    }
}

impl Drop for Doorman {
    fn drop(&mut self) {
        self.0.change(|state| state.listening = false);
    }
}

/// A connection, driven until it ends or is cut off.
struct Guest<D> {
    house: Arc<House>,
    number: u64,
    driver: D,
}

impl<D> Guest<D> {
    fn new(house: &Arc<House>, driver: D) -> Self {
        let mut state = house.lock();
        state.guests += 1;
        state.last += 1;
        let number = state.last;
        drop(state);
        Self {
            house: Arc::clone(house),
            number,
            driver,
        }
    }
}

impl<D: Future<Output = ()> + Unpin> Future for Guest<D> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let mut state = this.house.lock();
        if state.cut {
            return Poll::Ready(());
        }
        match state.sleepers.get_mut(&this.number) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                state.sleepers.insert(this.number, cx.waker().clone());
            }
        }
        drop(state);
        Pin::new(&mut this.driver).poll(cx)
    }
}

impl<D> Drop for Guest<D> {
    fn drop(&mut self) {
        let mut state = self.house.lock();
        state.guests -= 1;
        state.sleepers.remove(&self.number);
        let owner = if state.guests == 0 {
            state.owner.take()
        } else {
            None
        };
        drop(state);
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}
