//! A connection that another server has begun, and a shared broker has adopted.

use std::task::Waker;

use amqp_driver::{
    Config, Connection, Error,
    core::{Endpoint, Instant, TimeoutReason, Transmit, server},
    io::{DrivenEndpoint, Driver, Runtime as _, Timer as _, pipe},
    protocol::{basic, queue},
};
use amqp_embedded::{BrokerEndpoint, broker};
use amqp_tokio::{LocalBroker, Tokio};
use bytes::BytesMut;

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A server that passes every login on to a broker.
enum Front {
    Before(Box<server::Connection>, LocalBroker),
    After(BrokerEndpoint),
    /// The broker has refused the connection.
    Refused,
}

impl Front {
    fn new(broker: &LocalBroker) -> Result<Self, Error> {
        let config = broker.with(|broker| broker.server_config().clone());
        let machine = server::Connection::new(config, broker.clock().now())?;
        Ok(Self::Before(Box::new(machine), broker.clone()))
    }

    fn on<T>(
        &mut self,
        before: impl FnOnce(&mut server::Connection) -> T,
        after: impl FnOnce(&mut BrokerEndpoint) -> T,
        refused: T,
    ) -> T {
        match self {
            Self::Before(machine, _) => before(machine),
            Self::After(endpoint) => after(endpoint),
            Self::Refused => refused,
        }
    }
}

impl Endpoint for Front {
    fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        match self {
            Self::Before(machine, _) => machine.handle_input(now, input),
            Self::After(endpoint) => endpoint.handle_input(now, input),
            Self::Refused => input.clear(),
        }
        if let Self::Before(machine, _) = self
            && let Some(server::Event::Authenticate(request)) = machine.poll_event()
            && let Self::Before(machine, broker) = std::mem::replace(self, Self::Refused)
        {
            *self = broker
                .adopt(*machine, &request)
                .map_or(Self::Refused, Self::After);
        }
    }

    fn handle_eof(&mut self, now: Instant) {
        self.on(|it| it.handle_eof(now), |it| it.handle_eof(now), ());
    }

    fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.on(
            |it| it.handle_transport_error(now, message),
            |it| it.handle_transport_error(now, message),
            (),
        );
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.on(|it| it.handle_timeout(now), |it| it.handle_timeout(now), ());
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        match self {
            Self::Before(machine, _) => machine.poll_transmit(now, out),
            Self::After(endpoint) => endpoint.poll_transmit(now, out),
            Self::Refused => false,
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        match self {
            Self::Before(machine, _) => machine.poll_timeout(),
            Self::After(endpoint) => endpoint.poll_timeout(),
            Self::Refused => None,
        }
    }

    fn read_hint(&self) -> usize {
        0
    }

    fn is_finished(&self) -> bool {
        match self {
            Self::Before(machine, _) => machine.is_finished(),
            Self::After(endpoint) => endpoint.is_finished(),
            Self::Refused => true,
        }
    }
}

impl DrivenEndpoint for Front {
    fn wants_input(&mut self, now: Instant) -> bool {
        self.on(|_| true, |it| it.wants_input(now), false)
    }

    fn register_waker(&mut self, waker: &Waker, output: bool, alarm: Option<Instant>) -> bool {
        self.on(
            |_| true,
            |it| it.register_waker(waker, output, alarm),
            false,
        )
    }

    fn flush_on_close(&self) -> bool {
        true
    }

    fn abandon(&mut self) {
        self.on(|_| {}, BrokerEndpoint::abandon, ());
    }
}

/// Connects to a broker through such a server.
async fn connect(broker: &LocalBroker) -> Result<Connection, Error> {
    let (client, server) = pipe();
    let (connection, driver) = Connection::start(Config::default(), client, broker.clock())?;
    Tokio.spawn(driver);
    Tokio.spawn(Driver::new(Front::new(broker)?, server, broker.clock()));
    connection.opened().await?;
    Ok(connection)
}

#[tokio::test]
async fn an_adopted_client_consumes_what_another_publishes() -> Outcome {
    let broker = LocalBroker::default();
    let connection = connect(&broker).await?;
    let channel = connection.open_channel().await?;
    let declare = queue::Declare::default().queue("q");
    channel.call(declare).await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue("q"))
        .await?;

    let other = broker.connect(Config::default()).await?;
    let publishing = other.open_channel().await?;
    let to_q = basic::Publish::default().routing_key("q");
    publishing
        .publish(&to_q, &basic::Properties::default(), "hello")
        .await?;
    let delivery = consumer.next().await.ok_or("no delivery")??;
    assert_eq!(delivery.body.to_vec(), b"hello");
    delivery.ack()?;
    connection.close().await?;
    broker
        .until(|broker| broker.inspect().connections.len() == 1)
        .await;
    Ok(())
}

#[tokio::test]
async fn a_broker_that_is_full_ends_a_connection_at_its_login() -> Outcome {
    let mut config = broker::Config::default();
    config.limits.connections = 1;
    let broker = LocalBroker::new(config)?;
    let first = connect(&broker).await?;
    let second = connect(&broker).await;
    assert!(
        matches!(second, Err(Error::ConnectionClosed(_))),
        "{second:?}"
    );
    first.close().await?;
    Ok(())
}
