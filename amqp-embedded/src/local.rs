//! A broker in this process, on the tasks of a runtime.

use amqp_broker::{AcceptError, Broker, ConfigError, Inspection};
use amqp_core::protocol::ReplyCode;
use amqp_driver::{
    Config, Connection, Error,
    io::{Runtime, Transport, pipe},
};

use crate::{
    hub::{BrokerDriver, SharedBroker},
    identity::Peer,
};

/// A broker in this process, to connect to without a socket, and to [`serve`](crate::serve) to others. Adapters
/// have it under the same name, for their runtime.
///
/// It can be cloned; all clones are one broker, which is gone with the last clone and the last
/// connection, and all that was in it: durability is not its job.
#[derive(Clone, Debug)]
pub struct LocalBroker<R: Runtime> {
    shared: SharedBroker,
    pub(crate) runtime: R,
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
        self.accept_identified(transport, |_| None)
    }

    /// As [`accept`](Self::accept), over a transport that knows the client at its other end, as one
    /// with TLS does. `peer` is asked after each read, until it returns `Some`.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_identified<T: Transport>(
        &self,
        transport: T,
        peer: fn(&T) -> Option<&Peer>,
    ) -> Result<BrokerDriver<T, R::Clock>, AcceptError> {
        self.runtime.check()?;
        if let Some(timekeeper) = self.shared.keep_time(self.clock.clone()) {
            self.runtime.spawn(timekeeper);
        }
        self.shared
            .accept_identified(transport, peer, self.clock.clone())
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
