//! The server's side of a connection.
//!
//! [`Connection`] is the machine, [`Config`] what it begins with, [`Event`] what comes out of it,
//! and [`ChannelMut`] the commands of one channel. Exchanges and queues are not its business: they
//! are a broker's.

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
    method::{MethodDef as _, MethodId},
    protocol::{ReplyCode, connection},
    time::Instant,
    transmit::Transmit,
    wire::{FieldTable, LongStr, ShortStr},
};

/// A connection, as its server sees it: bytes in, events and bytes out.
///
/// The methods are of the same four kinds as those of
/// [`client::Connection`](crate::client::Connection). Three times the machine waits for a
/// decision: after [`Event::Authenticate`] for [`accept`](Self::accept),
/// [`challenge`](Self::challenge) or [`refuse`](Self::refuse), after [`Event::Open`] for
/// [`open`](Self::open) or [`close`](Self::close), and after each [`Event::Request`] that is
/// synchronous, and each [`Event::Flow`], for its answer.
///
/// A client that breaks the protocol is answered as RabbitMQ 3.10 does: with its reply codes and
/// texts, or, during the handshake and for what RabbitMQ cannot make out, by hanging up on it.
/// [`CloseReason::code`] tells what was sent.
#[derive(Debug)]
pub struct Connection(Machine<Server>);

/// What only a server knows of its connection.
#[derive(Debug)]
pub(crate) struct Server {
    config: Config,
    /// What is to be decided before the handshake can go on.
    decision: Decision,
    /// What the client said in `start-ok`; the mechanism is empty before.
    client_properties: FieldTable,
    mechanism: ShortStr,
    locale: ShortStr,
    /// Publishers have been asked to stop.
    blocked: bool,
}

/// What the handshake waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    None,
    Credentials,
    VirtualHost,
}

impl Connection {
    /// A connection that has just been accepted from the transport. It waits for the client's
    /// protocol header.
    ///
    /// # Errors
    /// [`ApiMisuse::Config`] for a setting that no client could accept.
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
        // A consumer that is behind stops reading, and beats on.
        machine.set_may_not_read(true);
        Ok(Self(machine))
    }

    // What happened in the world.

    /// Bytes came in. Takes the whole frames off the front of `input` and leaves a partial one.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        self.0.handle_input(now, input);
    }

    /// As [`handle_input`](Self::handle_input), but takes at most one frame; false if there was
    /// none. What a frame brings about can then be dealt with before the next one is looked at, so
    /// that answers leave in the order of the requests, those that the machine gives by itself
    /// among them.
    pub fn handle_frame(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        self.0.handle_frame(now, input)
    }

    /// The transport ended.
    pub fn handle_eof(&mut self, now: Instant) {
        self.0.handle_eof(now);
    }

    /// The transport failed, with that message.
    pub fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.0.handle_transport_error(now, message);
    }

    /// The time named by [`poll_timeout`](Self::poll_timeout) has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    /// Whether anybody reads from the transport; see
    /// [`client::Connection::set_reading`](crate::client::Connection::set_reading).
    pub fn set_reading(&mut self, now: Instant, reading: bool) {
        self.0.set_reading(now, reading);
    }

    // What the world is to do.

    /// Moves bytes to send into `out`; false if there are none.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.0.poll_transmit(now, out)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, and what for.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.0.poll_timeout()
    }

    /// The next thing that happened. The last event is [`Event::Closed`].
    #[must_use]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.0.poll_event()
    }

    // Commands.

    /// Offers these mechanisms, separated by spaces, in place of [`Config::mechanisms`]: what
    /// EXTERNAL takes may only be known when the transport is secured. Once the client's protocol
    /// header has come, all is said.
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

    /// The mechanisms that are offered, with spaces between them. Which one a client has taken is for
    /// the application to look at: it may be none of them.
    #[must_use]
    pub fn mechanisms(&self) -> &str {
        &self.0.role.config.mechanisms
    }

    /// The credentials are good: goes on with the negotiation of limits.
    ///
    /// # Errors
    /// When no credentials are to be decided on.
    pub fn accept(&mut self) -> Result<(), ApiMisuse> {
        self.decide(Decision::Credentials, connection::StartOk::NAME)?;
        self.0.tune();
        Ok(())
    }

    /// The mechanism needs another round: the response comes as another [`Event::Authenticate`].
    ///
    /// # Errors
    /// When no credentials are to be decided on, or the challenge does not fit into a frame.
    pub fn challenge(&mut self, challenge: impl Into<LongStr>) -> Result<(), ApiMisuse> {
        let challenge = challenge.into();
        self.decide(Decision::Credentials, connection::Secure::NAME)?;
        let sent = self.0.put_urgent(&connection::Secure { challenge });
        if sent.is_err() {
            self.0.role.decision = Decision::Credentials;
        }
        sent
    }

    /// The credentials are no good: closes with 403. A client that did not announce
    /// `authentication_failure_close` would not expect that and is hung up on.
    ///
    /// # Errors
    /// When no credentials are to be decided on.
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

    /// The virtual host may be used: the connection is open.
    ///
    /// # Errors
    /// When no virtual host is to be decided on.
    pub fn open(&mut self) -> Result<(), ApiMisuse> {
        self.decide(Decision::VirtualHost, connection::Open::NAME)?;
        self.0.put_urgent(&connection::OpenOk)?;
        self.0.set_open();
        self.0.push(Event::Opened);
        Ok(())
    }

    /// The commands of a channel; none if it has ended.
    #[must_use]
    pub fn channel(&mut self, id: ChannelId) -> Option<ChannelMut<'_>> {
        self.0.channel(id)?;
        Some(ChannelMut::new(&mut self.0, id))
    }

    /// Asks a client that understands it to stop publishing (`connection.blocked`), because a
    /// resource is short. RabbitMQ's extension.
    ///
    /// # Errors
    /// When the connection is not open.
    pub fn block(&mut self, reason: ShortStr) -> Result<(), ApiMisuse> {
        self.0.check_open()?;
        if !self.0.role.blocked && self.client_has_capability("connection.blocked") {
            self.0.role.blocked = true;
            self.0.put_urgent(&connection::Blocked { reason })?;
        }
        Ok(())
    }

    /// Lets a client publish that was [blocked](Self::block).
    ///
    /// # Errors
    /// When the connection is not open.
    pub fn unblock(&mut self) -> Result<(), ApiMisuse> {
        self.0.check_open()?;
        if core::mem::take(&mut self.0.role.blocked) {
            self.0.put_urgent(&connection::Unblocked)?;
        }
        Ok(())
    }

    /// Closes the connection. What was queued before is sent first. After [`Event::Open`] it
    /// refuses the virtual host; at other times before the connection is open, it hangs up.
    pub fn close(&mut self, code: ReplyCode, text: &str) {
        let refused = self.decide(Decision::VirtualHost, connection::Open::NAME);
        if refused.is_ok() {
            self.close_at_once(code, text, Some(connection::Open::ID));
        } else {
            self.0.close(code, text);
        }
    }

    /// Closes the connection because of a method that the client sent, which is not to be answered.
    /// What was queued before is sent first; nothing that comes in counts any more.
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

    /// Whether the handshake is over and the connection not closing.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Whether it is all over: nothing comes in or goes out any more.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// How far the connection has come.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.0.stage()
    }

    /// Why it is closing or closed; none while it is not.
    #[must_use]
    pub const fn close_reason(&self) -> Option<&CloseReason> {
        self.0.close_reason()
    }

    /// What was negotiated; meaningful once the connection is open.
    #[must_use]
    pub const fn tuning(&self) -> &Tuning {
        self.0.tuning()
    }

    /// The limits that were configured.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        self.0.limits()
    }

    /// What the client said of itself.
    #[must_use]
    pub const fn client_properties(&self) -> &FieldTable {
        &self.0.role.client_properties
    }

    /// Whether the client announced a capability, such as `consumer_cancel_notify`.
    #[must_use]
    pub fn client_has_capability(&self, name: &str) -> bool {
        self.client_properties()
            .get("capabilities")
            .and_then(|capabilities| capabilities.as_table()?.get(name)?.as_bool())
            .unwrap_or(false)
    }

    /// How many channels are not free.
    #[must_use]
    pub const fn channel_count(&self) -> usize {
        self.0.channel_count()
    }

    /// How many bytes wait for [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.0.buffered()
    }

    /// How many more bytes the frame in progress needs at least; 0 when none is in progress.
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
