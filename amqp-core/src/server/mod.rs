//! The server's side of a connection.
//!
//! [`Connection`] is the state machine, [`Config`] its configuration, [`Event`] its output, and
//! [`ChannelMut`] the commands of one channel. Exchanges and queues are the task of a broker on top
//! of it.

mod channel;
mod event;
mod handshake;
mod policy;
mod precheck;
mod receive;

use alloc::string::String;

use bytes::BytesMut;

pub use self::{
    channel::ChannelMut,
    event::{AuthRequest, Event, Published},
    handshake::Config,
    policy::{
        ChannelState, IncompleteContent, Policy, ReceivedMethod, Standard, Tolerance, Verdict,
        Violation,
    },
};
use crate::{
    close::{Close, CloseCause, CloseReason},
    connection::Side,
    error::ApiMisuse,
    ids::ChannelId,
    limits::FRAME_MAX_BEFORE_TUNE,
    machine::Machine,
    method::MethodDef as _,
    method_id::MethodId,
    protocol::{ReplyCode, connection},
    time::Instant,
    wire::{FieldTable, LongStr, ShortStr},
};

/// A server's connection. The methods that both sides share are described at
/// [`Connection`](crate::Connection).
///
/// The machine waits for a decision of the application in three cases: after
/// [`Event::Authenticate`] for [`accept`](Self::accept), [`challenge`](Self::challenge) or
/// [`refuse`](Self::refuse); after [`Event::Open`] for [`open`](Self::open) or
/// `close`; and after each synchronous [`Event::Request`] and each [`Event::Flow`]
/// for the reply.
///
/// [`Config::policy`] decides on the treatment of a client that violates the protocol.
/// [`CloseReason::code`] returns the code that was sent.
pub type Connection = crate::connection::Connection<Server>;

/// The server side of a connection, and its state.
#[derive(Debug)]
pub struct Server {
    config: Config,
    /// That of the policy.
    tolerance: Tolerance,
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

impl Side for Server {}

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
            tolerance: config.policy.tolerance(),
            config,
            decision: Decision::None,
            client_properties: FieldTable::default(),
            mechanism: ShortStr::default(),
            locale: ShortStr::default(),
            blocked: false,
        };
        let before_tune = role.config.frame_min.min(FRAME_MAX_BEFORE_TUNE);
        let mut machine = Machine::new(role, limits, timeouts, now);
        machine.limit_frames_before_tune(before_tune);
        // A slow consumer may stop reading for an unlimited time while it still sends heartbeats.
        machine.set_may_not_read(true);
        Ok(Self(machine))
    }

    /// Like [`handle_input`](Self::handle_input), but consumes at most one frame. Returns `false`
    /// if there was none. The caller can process the events of a frame before the next frame is
    /// decoded, so that all replies, including those of the machine itself, are sent in the order
    /// of the requests.
    pub fn handle_frame(&mut self, now: Instant, input: &mut BytesMut) -> bool {
        self.0.handle_frame(now, input)
    }

    /// Returns the next event. The last one is [`Event::Closed`].
    #[must_use]
    #[inline]
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
            self.0.hang_up(reason);
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
}
