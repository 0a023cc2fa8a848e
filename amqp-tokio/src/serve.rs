//! A broker in this process.

use std::{
    future::{Future as _, poll_fn},
    io,
    net::SocketAddr,
    pin::pin,
    task::Poll,
    time::Duration,
};

use amqp_client::{
    BrokerDriver, Config, Connection, Error, SharedBroker,
    broker::{AcceptError, Broker, ConfigError, Inspection},
    pipe,
    protocol::ReplyCode,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
    sync::oneshot,
    task::{JoinHandle, JoinSet},
    time,
};

use crate::{TokioClock, TokioStream};

/// How long to wait after a connection could not be accepted: what it takes may come free.
const RETRY: Duration = Duration::from_millis(50);

/// How long connections may take to close in good order when a server is shut down.
const CLOSING: Duration = Duration::from_secs(5);

/// A broker in this process, to connect to without a socket, and to [`serve`] to others.
///
/// It can be cloned; all clones are one broker, which is gone with the last clone and the last
/// connection, and all that was in it: durability is not its job.
///
/// ```
/// use amqp_tokio::{LocalBroker, protocol::{basic, queue}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = LocalBroker::default();
/// let connection = broker.connect(amqp_tokio::Config::default()).await?;
/// let channel = connection.open_channel().await?.confirm_select().await?;
/// channel.call(queue::Declare::default().queue("tasks")?).await?;
///
/// let to_tasks = basic::Publish::default().routing_key("tasks")?;
/// let confirm = channel
///     .publish(&to_tasks, &basic::Properties::default(), "the first")
///     .await?;
/// confirm.await?;
/// let tasks = &broker.inspect().vhosts[0].queues[0];
/// assert_eq!((tasks.name.as_str(), tasks.ready), ("tasks", 1));
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct LocalBroker {
    shared: SharedBroker,
    /// The time that all its connections have.
    clock: TokioClock,
}

impl LocalBroker {
    /// A broker that begins as configured.
    ///
    /// # Errors
    /// For a configuration that contradicts itself, or that no client could connect to.
    pub fn new(config: amqp_client::broker::Config) -> Result<Self, ConfigError> {
        Ok(Broker::new(config)?.into())
    }

    /// Opens a connection to it, without a socket. The drivers of both ends are spawned on the
    /// current runtime.
    ///
    /// # Cancel safety
    /// Dropping it closes the connection.
    ///
    /// # Errors
    /// When the broker does not take the connection, or the configuration has a setting that no
    /// server would accept.
    pub async fn connect(&self, config: Config) -> Result<Connection, Error> {
        let (ours, theirs) = pipe();
        self.keep_time();
        // One that is not taken is hung up on, as a listener would do.
        if let Ok(driver) = self.shared.accept(theirs, self.clock.clone()) {
            tokio::spawn(driver);
        }
        let (connection, driver) = Connection::start(config, ours, self.clock.clone())?;
        tokio::spawn(driver);
        connection.opened().await?;
        Ok(connection)
    }

    /// Takes a connection that a client made to this process in its own way: over a Unix socket, or
    /// with TLS. Gives back what drives it, to be spawned; it ends with the connection.
    ///
    /// # Errors
    /// When the broker does not take it. The stream is dropped.
    pub fn accept<S>(
        &self,
        stream: S,
    ) -> Result<BrokerDriver<TokioStream<S>, TokioClock>, AcceptError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.keep_time();
        let transport = TokioStream::new(stream);
        self.shared.accept(transport, self.clock.clone())
    }

    /// Does something with the broker itself, such as throwing one of its
    /// [fault switches](Broker::faults). Meanwhile nobody else can.
    ///
    /// Here every byte comes alone until the handshake is over, and then the line stands still until
    /// the client takes the broker for dead:
    ///
    /// ```
    /// use amqp_tokio::{Config, LocalBroker, broker::{ByteFaults, Disturbance}};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let broker = LocalBroker::default();
    /// let crumbs = ByteFaults::both(Disturbance::new().split(1));
    /// broker.with(|broker| broker.faults().bytes_of_next(1, crumbs));
    /// let connection = broker.connect(Config::default()).await?;
    ///
    /// let key = broker.inspect().connections[0].key;
    /// let stall = ByteFaults::new().to_client(Disturbance::new().stall_after(0));
    /// broker.with(|broker| broker.faults().bytes(key, stall));
    /// let reason = connection.closed().await;
    /// assert!(reason.to_string().contains("two heartbeat intervals"));
    /// # Ok(()) }
    /// ```
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

    fn keep_time(&self) {
        if let Some(timekeeper) = self.shared.keep_time(self.clock.clone()) {
            tokio::spawn(timekeeper);
        }
    }
}

impl Default for LocalBroker {
    /// A broker that begins as a fresh RabbitMQ.
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the default is one of its own tests")]
        let broker = Broker::new(amqp_client::broker::Config::default())
            .expect("the default configuration is good");
        broker.into()
    }
}

impl From<Broker> for LocalBroker {
    fn from(broker: Broker) -> Self {
        Self {
            shared: SharedBroker::new(broker),
            clock: TokioClock::new(),
        }
    }
}

/// Serves a broker to whoever connects to the listener, in tasks on the current runtime.
///
/// ```no_run
/// use amqp_tokio::{LocalBroker, serve};
/// use tokio::net::TcpListener;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let server = serve(listener, LocalBroker::default())?;
/// let connection = amqp_tokio::connect(&format!("amqp://{}", server.local_addr())).await?;
/// connection.close().await?;
/// server.shutdown().await;
/// # Ok(()) }
/// ```
///
/// # Errors
/// When the listener does not know its address.
pub fn serve(listener: TcpListener, broker: impl Into<LocalBroker>) -> io::Result<Server> {
    let broker = broker.into();
    let address = listener.local_addr()?;
    let (stop, stopped) = oneshot::channel();
    let task = tokio::spawn(serve_until(listener, broker.clone(), stopped));
    Ok(Server {
        address,
        broker,
        stop: Some(stop),
        task,
    })
}

/// A broker that is served to others. Dropping it stops listening, and cuts its connections off.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    broker: LocalBroker,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// What it serves.
    #[must_use]
    pub const fn broker(&self) -> &LocalBroker {
        &self.broker
    }

    /// Stops listening and closes the connections, as RabbitMQ does when it is shut down: with 320,
    /// connection-forced. Those that do not close in good order in five seconds are cut off.
    ///
    /// # Cancel safety
    /// Dropping it cuts off what is not closed yet.
    pub async fn shutdown(mut self) {
        if let Some(stop) = self.stop.take() {
            // When it is gone already there is nothing to stop.
            let _gone = stop.send(());
        }
        let _ended = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections and drives them until it is told to stop.
async fn serve_until(
    listener: TcpListener,
    broker: LocalBroker,
    mut stopped: oneshot::Receiver<()>,
) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = poll_fn(|cx| match pin!(&mut stopped).poll(cx) {
            Poll::Ready(_) => Poll::Ready(None),
            Poll::Pending => listener.poll_accept(cx).map(Some),
        });
        let stream = match accepted.await {
            Some(Ok((stream, _))) => stream,
            Some(Err(_)) => {
                // Too many open files, or a client that is gone already.
                time::sleep(RETRY).await;
                continue;
            }
            None => break,
        };
        // Without it the answers would only be late.
        let _unsupported = stream.set_nodelay(true);
        if let Ok(driver) = broker.accept(stream) {
            connections.spawn(driver);
        }
    }
    drop(listener);
    broker.close_connections("shutdown");
    let all = async { while connections.join_next().await.is_some() {} };
    // Those that are late are cut off with the set.
    let _late = time::timeout(CLOSING, all).await;
}
