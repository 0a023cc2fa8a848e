//! New connections, and those of machines that have begun elsewhere.

use alloc::boxed::Box;

use amqp_core::{
    Instant,
    server::{self, AuthRequest},
};

use super::{AcceptError, Broker};
use crate::{keys::ConnectionKey, model::conn_state::ConnState};

impl Broker {
    /// Adopts a connection from a machine that has begun elsewhere, such as one that tells several
    /// kinds of clients apart by their properties. `request` is that of the machine's last event,
    /// [`Event::Authenticate`](server::Event::Authenticate), to which the broker replies. From then
    /// on the connection is as one that was [accepted](Self::accept).
    ///
    /// The machine should have the [configuration](Self::server_config) of the broker's own, apart
    /// from its properties. The transport of an adopted connection has identified no user: EXTERNAL
    /// is refused.
    ///
    /// ```
    /// use amqp_broker::{Broker, Config};
    /// use amqp_core::{
    ///     Instant, Transmit, client,
    ///     server::{Connection, Event},
    /// };
    /// use bytes::BytesMut;
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let now = Instant::ORIGIN;
    /// # fn pass(now: Instant, from: &mut client::Connection, to: &mut Connection) {
    /// #     let mut out = Transmit::new();
    /// #     from.poll_transmit(now, &mut out);
    /// #     let mut bytes = out.segments().flatten().copied().collect::<BytesMut>();
    /// #     to.handle_input(now, &mut bytes);
    /// # }
    /// let mut broker = Broker::new(Config::default())?;
    /// let mut machine = Connection::new(broker.server_config().clone(), now)?;
    /// # let mut client = client::Connection::new(client::Config::default(), now)?;
    /// # pass(now, &mut client, &mut machine);
    /// # let mut out = Transmit::new();
    /// # machine.poll_transmit(now, &mut out);
    /// # let mut bytes = out.segments().flatten().copied().collect::<BytesMut>();
    /// # client.handle_input(now, &mut bytes);
    /// # pass(now, &mut client, &mut machine);
    /// // ... once the machine has received the login of a client:
    /// if let Some(Event::Authenticate(request)) = machine.poll_event() {
    ///     let key = broker.adopt(machine, &request, now)?;
    ///     assert!(!broker.is_finished(key));
    /// #   return Ok(());
    /// }
    /// # Err("no login".into())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`accept`](Self::accept). The machine is dropped: close its transport.
    pub fn adopt(
        &mut self,
        machine: server::Connection,
        request: &AuthRequest,
        now: Instant,
    ) -> Result<ConnectionKey, AcceptError> {
        self.advance_clock(now);
        self.check_acceptance()?;
        let key = self.add_connection(machine);
        self.authenticate(key, request);
        self.take_events(key);
        self.wake(key);
        self.finish();
        Ok(key)
    }

    /// The configuration of the machines of new connections: that of [`Config::server`], with the
    /// bounds of [`Config::limits`]. For machines to be [adopted](Self::adopt).
    ///
    /// [`Config::server`]: crate::Config::server
    /// [`Config::limits`]: crate::Config::limits
    #[must_use]
    pub const fn server_config(&self) -> &server::Config {
        &self.server
    }

    /// Checks whether another connection is accepted.
    pub(super) fn check_acceptance(&mut self) -> Result<(), AcceptError> {
        if self.stopped {
            return Err(AcceptError::Stopped);
        }
        let limit = self.config.limits.connections;
        if self.connections.len() >= limit {
            return Err(AcceptError::TooManyConnections { limit });
        }
        if self.faults.refuses_connect() {
            return Err(AcceptError::Refused);
        }
        Ok(())
    }

    /// Adds the connection of a machine.
    pub(super) fn add_connection(&mut self, machine: server::Connection) -> ConnectionKey {
        self.accepted += 1;
        let key = ConnectionKey(self.accepted);
        self.connections
            .insert(key, Box::new(ConnState::new(machine)));
        self.faults.bytes.on_accept(key);
        key
    }
}
