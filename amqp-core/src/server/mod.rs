//! The server's side of a connection.
//!
//! [`Connection`] is the state machine, [`Config`] its configuration, [`Event`] its output, and
//! [`ChannelMut`] the commands of one channel. Exchanges and queues are the task of a broker on top
//! of it.

mod access;
mod channel;
mod erlang;
mod event;
mod handshake;
mod precheck;
mod receive;
mod reply;

use alloc::string::String;

use bytes::BytesMut;

pub use self::{
    channel::ChannelMut,
    event::{AuthRequest, Event, Published},
    handshake::Config,
};
use crate::{
    close::{Close, CloseCause, CloseReason, Stage, TimeoutReason},
    endpoint::Endpoint,
    error::ApiMisuse,
    ids::ChannelId,
    limits::{Limits, Tuning},
    machine::Machine,
    method::MethodDef as _,
    method_id::MethodId,
    protocol::{ReplyCode, connection},
    time::Instant,
    transmit::Transmit,
    wire::{FieldTable, LongStr, ShortStr},
};

/// A server's connection: a state machine with bytes as input, and events and bytes as output.
///
/// The methods are of the same four kinds as those of
/// [`client::Connection`](crate::client::Connection). The machine waits for a decision of the
/// application in three cases: after [`Event::Authenticate`] for [`accept`](Self::accept),
/// [`challenge`](Self::challenge) or [`refuse`](Self::refuse); after [`Event::Open`] for
/// [`open`](Self::open) or [`close`](Self::close); and after each synchronous [`Event::Request`]
/// and each [`Event::Flow`] for the reply.
///
/// A client that violates the protocol is answered with the reply codes and texts of RabbitMQ 3.10.
/// During the handshake, and for input that RabbitMQ cannot decode, the transport is closed without
/// a close method. [`CloseReason::code`] returns the code that was sent.
#[derive(Debug)]
pub struct Connection(Machine<Server>);

/// The server's state of a connection.
#[derive(Debug)]
pub(crate) struct Server {
    config: Config,
    /// The pending decision of the application.
    decision: Decision,
    /// The fields of `start-ok`. The mechanism is empty until it has been received.
    client_properties: FieldTable,
    mechanism: ShortStr,
    locale: ShortStr,
    /// Whether `connection.blocked` is in force.
    blocked: bool,
}

/// A pending decision of the application during the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    None,
    Credentials,
    VirtualHost,
}

impl Connection {
    /// Creates the machine for a newly accepted transport. It waits for the client's protocol
    /// header.
    ///
    /// # Errors
    /// [`ApiMisuse::Config`] for a setting outside its bounds.
    pub fn new(config: Config, now: Instant) -> Result<Self, ApiMisuse> {
        config.check()?;
        let (limits, timeouts) = (config.limits.clone(), config.timeouts.clone());
        let role = Server {
            config,
            decision: Decision::None,
            client_properties: FieldTable::default(),
            mechanism: ShortStr::default(),
            locale: ShortStr::default(),
            blocked: false,
        };
        let mut machine = Machine::new(role, limits, timeouts, now);
        // A slow consumer may stop reading for an unlimited time while it still sends heartbeats.
        machine.set_may_not_read(true);
        Ok(Self(machine))
    }

    // Input.

    /// Consumes all complete frames at the front of `input`; a partial frame stays.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        self.0.handle_input(now, input);
    }

    /// Like [`handle_input`](Self::handle_input), but consumes at most one frame. Returns `false`
    /// if there was none. The caller can process the events of a frame before the next frame is
    /// decoded, so that all replies, including those of the machine itself, are sent in the order
    /// of the requests.
    pub fn handle_frame(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        self.0.handle_frame(now, input)
    }

    /// Handles the end of the transport.
    pub fn handle_eof(&mut self, now: Instant) {
        self.0.handle_eof(now);
    }

    /// Handles a failure of the transport, with its error message.
    pub fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.0.handle_transport_error(now, message);
    }

    /// Handles the time of [`poll_timeout`](Self::poll_timeout).
    pub fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    /// Sets whether the driver reads from the transport; see
    /// [`client::Connection::set_reading`](crate::client::Connection::set_reading).
    pub fn set_reading(&mut self, now: Instant, reading: bool) {
        self.0.set_reading(now, reading);
    }

    // Output.

    /// Moves bytes to send into `out`. Returns `false` if there are none.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.0.poll_transmit(now, out)
    }

    /// Returns the next deadline, and its reason. `Some` if
    /// [`handle_timeout`](Self::handle_timeout) has to be called at that time.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.0.poll_timeout()
    }

    /// Returns the next event. The last one is [`Event::Closed`].
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.0.poll_event()
    }

    // Commands.

    /// Replaces [`Config::mechanisms`] with these mechanisms, separated by spaces: whether EXTERNAL
    /// is possible may depend on the TLS handshake. Has no effect once the client's protocol header
    /// has been received.
    ///
    /// ```
    /// use amqp_core::{Instant, server::{Config, Connection}};
    ///
    /// let mut connection = Connection::new(Config::default(), Instant::ORIGIN)?;
    /// connection.set_mechanisms("PLAIN EXTERNAL");
    /// # Ok::<(), amqp_core::ApiMisuse>(())
    /// ```
    pub fn set_mechanisms(&mut self, mechanisms: impl Into<String>) {
        self.0.role.config.mechanisms = mechanisms.into();
    }

    /// Returns the offered mechanisms, separated by spaces. The client may have chosen a mechanism
    /// that is not among them: the application has to check.
    #[must_use]
    pub fn mechanisms(&self) -> &str {
        &self.0.role.config.mechanisms
    }

    /// Accepts the credentials, and sends `connection.tune`.
    ///
    /// # Errors
    /// If no decision about credentials is pending.
    pub fn accept(&mut self) -> Result<(), ApiMisuse> {
        self.decide(Decision::Credentials, connection::StartOk::NAME)?;
        self.0.tune();
        Ok(())
    }

    /// Sends a challenge with `connection.secure`. The response arrives as another
    /// [`Event::Authenticate`].
    ///
    /// # Errors
    /// If no decision about credentials is pending, or if the challenge does not fit into a frame.
    pub fn challenge(&mut self, challenge: impl Into<LongStr>) -> Result<(), ApiMisuse> {
        let challenge = challenge.into();
        self.decide(Decision::Credentials, connection::Secure::NAME)?;
        let sent = self.0.put_urgent(&connection::Secure { challenge });
        if sent.is_err() {
            self.0.role.decision = Decision::Credentials;
        }
        sent
    }

    /// Refuses the credentials with `connection.close` and 403. If the client does not have the
    /// capability `authentication_failure_close`, the transport is closed without a method instead
    /// (<https://www.rabbitmq.com/docs/auth-notification>).
    ///
    /// # Errors
    /// If no decision about credentials is pending.
    pub fn refuse(&mut self, text: &str) -> Result<(), ApiMisuse> {
        self.decide(Decision::Credentials, connection::StartOk::NAME)?;
        let close = Close {
            code: ReplyCode::ACCESS_REFUSED,
            text: text.into(),
            method: None,
        };
        let reason = CloseReason::from(CloseCause::AuthenticationFailed {
            why: text.into(),
            close: None,
        });
        if self.client_has_capability("authentication_failure_close") {
            self.0.close_for(&close, reason);
        } else {
            self.0.finish(reason);
        }
        Ok(())
    }

    /// Accepts the virtual host. The connection is then open.
    ///
    /// # Errors
    /// If no decision about a virtual host is pending.
    pub fn open(&mut self) -> Result<(), ApiMisuse> {
        self.decide(Decision::VirtualHost, connection::Open::NAME)?;
        self.0.put_urgent(&connection::OpenOk)?;
        self.0.set_open();
        self.0.push(Event::Opened);
        Ok(())
    }

    /// Returns the commands of a channel. `Some` while the channel exists.
    #[must_use]
    pub fn channel(&mut self, id: ChannelId) -> Option<ChannelMut<'_>> {
        self.0.channel(id)?;
        Some(ChannelMut::new(&mut self.0, id))
    }

    /// Sends `connection.blocked`, an extension of RabbitMQ that asks a client to stop publishing
    /// while a resource is short. Has no effect if the client does not have the capability
    /// `connection.blocked`, or is blocked already
    /// (<https://www.rabbitmq.com/docs/connection-blocked>).
    ///
    /// # Errors
    /// If the connection is not open.
    pub fn block(&mut self, reason: ShortStr) -> Result<(), ApiMisuse> {
        self.0.check_open()?;
        if !self.0.role.blocked && self.client_has_capability("connection.blocked") {
            self.0.role.blocked = true;
            self.0.put_urgent(&connection::Blocked { reason })?;
        }
        Ok(())
    }

    /// Sends `connection.unblocked` to a client that was [blocked](Self::block).
    ///
    /// # Errors
    /// If the connection is not open.
    pub fn unblock(&mut self) -> Result<(), ApiMisuse> {
        self.0.check_open()?;
        if core::mem::take(&mut self.0.role.blocked) {
            self.0.put_urgent(&connection::Unblocked)?;
        }
        Ok(())
    }

    /// Closes the connection after all queued output has been sent. After [`Event::Open`] it
    /// refuses the virtual host. In any other stage before the connection is open, the transport is
    /// closed without a method.
    pub fn close(&mut self, code: ReplyCode, text: &str) {
        let refused = self.decide(Decision::VirtualHost, connection::Open::NAME);
        if refused.is_ok() {
            self.close_at_once(code, text, Some(connection::Open::ID));
        } else {
            self.0.close(code, text);
        }
    }

    /// Closes the connection because of a method of the client, which stays unanswered. Queued
    /// output is sent first; later input is discarded.
    pub fn close_after(&mut self, code: ReplyCode, text: &str, method: MethodId) {
        if self.0.close_reason().is_none() {
            self.close_at_once(code, text, Some(method));
        }
    }

    fn close_at_once(&mut self, code: ReplyCode, text: &str, method: Option<MethodId>) {
        let close = Close {
            code,
            text: text.into(),
            method,
        };
        let reason = CloseCause::Requested(close.clone()).into();
        self.0.close_for(&close, reason);
    }

    fn decide(&mut self, decision: Decision, method: &'static str) -> Result<(), ApiMisuse> {
        if self.0.role.decision != decision || self.0.close_reason().is_some() {
            return Err(ApiMisuse::NothingToAnswer { method });
        }
        self.0.role.decision = Decision::None;
        Ok(())
    }

    // Getters.

    /// Returns whether the handshake is complete and the connection is not closing.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Returns whether the connection is finished: it neither accepts input nor has output.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// Returns the stage of the connection.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.0.stage()
    }

    /// Returns the reason for the close. `Some` while the connection is closing, and afterwards.
    #[must_use]
    pub const fn close_reason(&self) -> Option<&CloseReason> {
        self.0.close_reason()
    }

    /// Returns the negotiated limits. They are valid once the connection is open.
    #[must_use]
    pub const fn tuning(&self) -> &Tuning {
        self.0.tuning()
    }

    /// Returns the configured limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        self.0.limits()
    }

    /// Returns the client's properties from `start-ok`.
    #[must_use]
    pub const fn client_properties(&self) -> &FieldTable {
        &self.0.role.client_properties
    }

    /// Returns whether the client has announced a capability, such as `consumer_cancel_notify`
    /// (<https://www.rabbitmq.com/docs/consumer-cancel>).
    #[must_use]
    pub fn client_has_capability(&self, name: &str) -> bool {
        self.client_properties()
            .get("capabilities")
            .and_then(|capabilities| capabilities.as_table()?.get(name)?.as_bool())
            .unwrap_or(false)
    }

    /// Returns the number of channels that are in use.
    #[must_use]
    pub const fn channel_count(&self) -> usize {
        self.0.channel_count()
    }

    /// Returns the number of bytes queued for [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.0.buffered()
    }

    /// Returns a lower bound for the missing bytes of the incomplete frame; 0 if no frame is
    /// incomplete.
    #[must_use]
    pub const fn read_hint(&self) -> usize {
        self.0.read_hint()
    }
}

impl Endpoint for Connection {
    fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        self.0.handle_input(now, input);
    }

    fn handle_eof(&mut self, now: Instant) {
        self.0.handle_eof(now);
    }

    fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.0.handle_transport_error(now, message);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.0.poll_transmit(now, out)
    }

    fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.0.poll_timeout()
    }

    fn read_hint(&self) -> usize {
        self.0.read_hint()
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}
