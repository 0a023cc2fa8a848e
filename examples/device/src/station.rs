//! A broker behind a port.

use alloc::string::{String, ToString as _};

use amqp_broker::{Broker, Config, ConnectionKey};
use amqp_core::{Instant, Transmit, bytes::BytesMut};

use crate::port::{Port, read, write};

/// A broker with one port: a new connection begins when the last one has ended. With several ports,
/// `poll_wake` names those that have output after a turn of another.
#[derive(Debug)]
pub struct Station<P> {
    port: P,
    broker: Broker,
    connection: Option<ConnectionKey>,
    input: BytesMut,
    output: Transmit,
}

impl<P: Port> Station<P> {
    /// Creates a broker, which accepts a connection at once.
    ///
    /// # Errors
    /// If a setting is refused.
    pub fn new(port: P, now: Instant) -> Result<Self, String> {
        let mut broker = Broker::new(Config::default()).map_err(|error| error.to_string())?;
        let connection = broker.accept(now).map_err(|error| error.to_string())?;
        Ok(Self {
            port,
            broker,
            connection: Some(connection),
            input: BytesMut::new(),
            output: Transmit::new(),
        })
    }

    /// Moves bytes both ways, without waiting, and handles the time. Returns the next deadline.
    pub fn turn(&mut self, now: Instant) -> Option<Instant> {
        let connection = self.connection?;
        let broker = &mut self.broker;
        // If the client does not read, the broker does not read from it either.
        if broker.wants_input(connection) && read(&mut self.port, &mut self.input) {
            broker.handle_input(connection, now, &mut self.input);
        }
        broker.handle_timeout(now);
        broker.handle_connection_timeout(connection, now);
        while !self.output.is_empty() || broker.poll_transmit(connection, now, &mut self.output) {
            write(&mut self.port, &mut self.output);
            if !self.output.is_empty() {
                break;
            }
        }
        while broker.poll_wake().is_some() {} // the only connection has had its turn
        if broker.is_finished(connection) && self.output.is_empty() {
            broker.remove(connection, now);
            self.input.clear();
            self.connection = broker.accept(now).ok();
        }
        let deadline = self
            .connection
            .and_then(|it| self.broker.poll_connection_timeout(it));
        let deadlines = [self.broker.poll_timeout(), deadline.map(|(at, _)| at)];
        deadlines.into_iter().flatten().min()
    }
}
