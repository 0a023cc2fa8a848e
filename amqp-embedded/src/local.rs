//! A broker in this process, on the tasks of a runtime.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use amqp_broker::{AcceptError, Broker, ConfigError, Inspection};
use amqp_core::{
    ApiMisuse, Instant,
    protocol::ReplyCode,
    server::{self, AuthRequest},
};
use amqp_driver::{
    Config, Connection, Error,
    io::{Runtime, Timer as _, Transport, pipe, within},
};

use crate::{
    identity::Peer,
    shared::{BrokerDriver, BrokerEndpoint, SharedBroker},
};

/// A broker in this process, to connect to without a socket, and to [`serve`](crate::serve) to
/// others. Adapters export it under the same name, for their runtime.
///
/// All clones are the same broker. It is dropped, with everything in it, with the last clone and
/// the last connection: nothing is kept on disk, unless it is opened with a store.
#[doc(alias("mock", "fake", "in_memory"))]
#[derive(Clone, Debug)]
pub struct LocalBroker<R: Runtime> {
    pub(crate) shared: SharedBroker,
    pub(crate) runtime: R,
    /// The clock that all connections share.
    pub(crate) clock: R::Clock,
}

impl<R: Runtime> LocalBroker<R> {
    /// Creates a broker as configured, on that runtime. Without
    /// [`Config::epoch`](amqp_broker::Config::epoch), the time of day is that of the system.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or allows no client to connect.
    pub fn on(runtime: R, config: amqp_broker::Config) -> Result<Self, ConfigError> {
        let clock = runtime.clock();
        let broker = Broker::new(with_time_of_day(config, clock.now()))?;
        Ok(Self::from_parts(SharedBroker::new(broker), runtime, clock))
    }

    pub(crate) const fn from_parts(shared: SharedBroker, runtime: R, clock: R::Clock) -> Self {
        Self {
            shared,
            runtime,
            clock,
        }
    }

    /// Opens a connection without a socket. Spawns the drivers of both ends on the runtime.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection.
    ///
    /// # Errors
    /// If the broker refuses the connection, or the configuration has a setting that no server
    /// accepts.
    pub async fn connect(&self, config: Config) -> Result<Connection, Error> {
        self.runtime.check()?;
        let (ours, theirs) = pipe();
        // A refused connection is closed without a handshake, as by a listener.
        if let Ok(driver) = self.accept(theirs) {
            self.runtime.spawn(driver);
        }
        let (connection, driver) = Connection::start(config, ours, self.clock.clone())?;
        self.runtime.spawn(driver);
        connection.opened().await?;
        Ok(connection)
    }

    /// Accepts a connection that a client has made by other means: over a Unix socket, or with TLS.
    /// Returns its driver, which must be spawned and ends with the connection.
    ///
    /// # Errors
    /// If the broker refuses the connection. The transport is dropped.
    pub fn accept<T: Transport>(
        &self,
        transport: T,
    ) -> Result<BrokerDriver<T, R::Clock>, AcceptError> {
        self.accept_identified(transport, |_| None)
    }

    /// As [`accept`](Self::accept), over a transport that can identify the client, as with TLS.
    /// `peer` is called after each read until it returns `Some`.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_identified<T: Transport>(
        &self,
        transport: T,
        peer: fn(&T) -> Option<&Peer>,
    ) -> Result<BrokerDriver<T, R::Clock>, AcceptError> {
        self.keep_time()?;
        self.shared
            .accept_identified(transport, peer, self.clock.clone())
    }

    /// Adopts a connection from a machine that has begun elsewhere, by the [clock](Self::clock) of
    /// the broker: see [`SharedBroker::adopt`].
    ///
    /// # Errors
    /// If the broker refuses the connection. The machine is dropped: close its transport.
    pub fn adopt(
        &self,
        machine: server::Connection,
        request: &AuthRequest,
    ) -> Result<BrokerEndpoint, AcceptError> {
        self.keep_time()?;
        self.shared.adopt(machine, request, self.clock.now())
    }

    /// The clock of the broker, with an alarm of its own.
    #[must_use]
    pub fn clock(&self) -> R::Clock {
        self.clock.clone()
    }

    /// The broker without its runtime.
    #[must_use]
    pub const fn shared(&self) -> &SharedBroker {
        &self.shared
    }

    /// Spawns the timekeeper, unless it runs.
    fn keep_time(&self) -> Result<(), ApiMisuse> {
        self.runtime.check()?;
        if let Some(timekeeper) = self.shared.keep_time(self.clock.clone()) {
            self.runtime.spawn(timekeeper);
        }
        Ok(())
    }

    /// Calls `act` with the broker, for instance to use one of its [fault
    /// switches](Broker::faults). The broker is locked meanwhile.
    pub fn with<T>(&self, act: impl FnOnce(&mut Broker) -> T) -> T {
        self.shared.with(act)
    }

    /// The state of the broker: queues with their messages, bindings, consumers, connections.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        self.shared.inspect()
    }

    /// Stops the broker as RabbitMQ stops in order: see [`Broker::stop`]. Connections are closed with
    /// 320, connection-forced. While it is stopped, [`connect`](Self::connect) fails. A
    /// [`Server`](crate::Server) keeps its port: it accepts connections and closes them at once, so
    /// that no other process can take the port before the broker starts again. RabbitMQ refuses
    /// them.
    pub fn stop(&self) {
        let now = self.clock.now();
        self.with(|broker| broker.stop(now));
    }

    /// Starts a stopped broker with its durable state: see [`Broker::start`]. A broker whose store
    /// has failed stays stopped, because it could confirm nothing.
    pub fn start(&self) {
        let now = self.clock.now();
        self.shared.0.with(|state| {
            if !state.has_failed() {
                state.broker.start(now);
            }
        });
    }

    /// Stops the broker and starts it again. Only its durable state remains.
    ///
    /// It returns before the clients have read that their connections are closed. A request that
    /// follows at once, on a connection that [recovers](amqp_driver::recovery) as well, may still go to
    /// the old life, and fails with [`Error::ConnectionClosed`]. [`until`](Self::until) waits for the
    /// end of the old connections; behind it, a request on a connection that recovers waits and
    /// succeeds:
    ///
    /// ```
    /// use amqp_driver::{Connection, Error, io::Runtime};
    /// use amqp_embedded::LocalBroker;
    ///
    /// async fn restart<R: Runtime>(
    ///     broker: &LocalBroker<R>,
    ///     recovering: &Connection,
    /// ) -> Result<(), Error> {
    ///     broker.restart();
    ///     broker.until(|it| it.inspect().connections.is_empty()).await;
    ///     recovering.open_channel().await?; // waits for the recovery
    ///     Ok(())
    /// }
    /// ```
    pub fn restart(&self) {
        self.stop();
        self.start();
    }

    /// Lets all connections and all clocks of the broker stand still, as `SIGSTOP` does with a
    /// process: nothing is read or written, and connections are accepted but not served. Clients
    /// with [heartbeats](https://www.rabbitmq.com/docs/heartbeats) give it up.
    /// [`with`](Self::with) and [`inspect`](Self::inspect) go on. Dropping the last clone ends the
    /// pause.
    pub fn pause(&self) {
        self.shared.pause();
    }

    /// Ends a [pause](Self::pause): all input that has arrived meanwhile is read, and deadlines that
    /// have passed are handled.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Waits until the broker meets a condition, which is checked now and after each change, with
    /// the broker locked.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait.
    pub async fn until(&self, condition: impl FnMut(&Broker) -> bool) {
        self.shared.until(condition).await;
    }

    /// As [`until`](Self::until), for at most `limit`. Returns whether the condition was met.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait.
    pub async fn until_within(
        &self,
        limit: Duration,
        condition: impl FnMut(&Broker) -> bool,
    ) -> bool {
        let mut clock = self.clock.clone();
        let met = within(&mut clock, limit, self.until(condition)).await;
        met.is_some()
    }

    /// Closes all connections as RabbitMQ does for an operator: with 320, connection-forced, and
    /// that reason.
    pub fn close_connections(&self, reason: &str) {
        let text =
            format!("CONNECTION_FORCED - broker forced connection closure with reason '{reason}'");
        self.with(|broker| {
            for connection in broker.list_connections(0, usize::MAX) {
                let code = ReplyCode::CONNECTION_FORCED;
                broker
                    .faults()
                    .close_connection(connection.key, code, &text);
            }
        });
    }
}

impl<R: Runtime + Default> LocalBroker<R> {
    /// Creates a broker as configured.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or allows no client to connect.
    pub fn new(config: amqp_broker::Config) -> Result<Self, ConfigError> {
        Self::on(R::default(), config)
    }
}

impl<R: Runtime + Default> Default for LocalBroker<R> {
    /// A broker with the configuration of a fresh RabbitMQ.
    fn default() -> Self {
        #[expect(clippy::expect_used, reason = "the default is one of its own tests")]
        Self::new(amqp_broker::Config::default()).expect("the default configuration is good")
    }
}

impl<R: Runtime + Default> From<Broker> for LocalBroker<R> {
    /// The time of day is that of the broker: see
    /// [`Config::epoch`](amqp_broker::Config::epoch).
    fn from(broker: Broker) -> Self {
        let runtime = R::default();
        let clock = runtime.clock();
        Self::from_parts(SharedBroker::new(broker), runtime, clock)
    }
}

/// Sets the time of day from the clock of the system, unless it is set. The clock of the broker
/// shows `now`.
pub(crate) fn with_time_of_day(
    mut config: amqp_broker::Config,
    now: Instant,
) -> amqp_broker::Config {
    let origin = || {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let elapsed = Duration::from_nanos(now.as_nanos());
        since.unwrap_or_default().saturating_sub(elapsed).as_secs()
    };
    config.epoch = Some(config.epoch.unwrap_or_else(origin));
    config
}
