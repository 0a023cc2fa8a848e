//! The client side of a connection.
//!
//! [`Connection`] is the state machine, [`Config`] its configuration, [`Event`] its output, and
//! [`ChannelMut`] the commands of one channel.

mod channel;
mod channel_state;
mod checks;
mod config;
mod confirm_deadlines;
mod confirms;
mod consumers;
mod event;
mod fingerprint;
mod handshake;
mod last_delivery;
mod messages;
mod pending;
mod prepared;
mod publish;
mod receive;
mod reply_to;
mod resume;
mod returns;
mod seq_ring;
pub(crate) mod unacked;

use alloc::collections::VecDeque;
use core::time::Duration;

pub use self::{
    channel::ChannelMut,
    config::{Checks, Config, Prefetch},
    event::{Delivery, Event, GetMessage, Outcome, Returned},
    prepared::PreparedPublish,
};
use self::{
    confirm_deadlines::ConfirmDeadlines,
    handshake::Handshake,
    pending::{Pending, SparePending},
    resume::Ended,
};
use crate::{
    close::{CloseCause, TimeoutReason},
    connection::Side,
    error::ApiMisuse,
    frame_log::FrameLog,
    ids::{ChannelId, RequestId},
    machine::{ChannelLife, Machine},
    method::MethodDef as _,
    method_id::MethodId,
    protocol::{ReplyCode, channel as channel_class, connection},
    time::Instant,
    wire::{FieldTable, IntoShortStr, Secret, ShortStr},
};

/// A client's connection. The methods that both sides share are described at
/// [`Connection`](crate::Connection).
///
/// ```
/// use amqp_core::{Instant, Transmit, client::{Config, Connection}};
///
/// let now = Instant::ORIGIN; // from a monotonic clock
/// let mut connection = Connection::new(Config::default(), now)?;
/// let mut out = Transmit::new();
/// assert!(connection.poll_transmit(now, &mut out));
/// let header: Vec<u8> = out.segments().flatten().copied().collect();
/// assert_eq!(header, b"AMQP\x00\x00\x09\x01");
/// # Ok::<_, amqp_core::ApiMisuse>(())
/// ```
pub type Connection = crate::connection::Connection<Client>;

/// The client side of a connection, and its state.
#[derive(Debug)]
pub struct Client {
    handshake: Handshake,
    checks: Checks,
    /// The server properties of `start`.
    server_properties: FieldTable,
    /// The chosen SASL mechanism; empty before `start`.
    mechanism: ShortStr,
    /// The server is short of a resource and has blocked publishing.
    blocked: bool,
    /// The pending requests of the connection itself: `connection.update-secret`.
    pending: VecDeque<Pending>,
    spare_pending: SparePending,
    /// The confirm deadlines of all channels.
    confirm_deadlines: ConfirmDeadlines,
    /// Whether the numbers of ended channels are kept.
    resumable: bool,
    ended: Ended,
}

impl Side for Client {}

impl Connection {
    /// Creates a connection on a new transport. The protocol header is ready to be sent (section
    /// 4.2.2 of the specification).
    ///
    /// # Errors
    /// [`ApiMisuse::Config`] for a setting that no server would accept.
    pub fn new(config: Config, now: Instant) -> Result<Self, ApiMisuse> {
        config.check()?;
        let (limits, timeouts) = (config.limits.clone(), config.timeouts.clone());
        let confirm_deadlines = ConfirmDeadlines::new(timeouts.confirm);
        let (checks, resumable) = (config.checks, config.resumable);
        let frame_log = config.frame_log;
        let role = Client {
            handshake: Handshake::new(config),
            checks,
            server_properties: FieldTable::default(),
            mechanism: ShortStr::default(),
            blocked: false,
            pending: VecDeque::new(),
            spare_pending: SparePending::default(),
            confirm_deadlines,
            resumable,
            ended: Ended::default(),
        };
        let mut machine = Machine::new(role, limits, timeouts, now);
        machine.log_frames(frame_log);
        machine.put_raw(&crate::frame::PROTOCOL_HEADER);
        Ok(Self(machine))
    }

    /// Returns the next event. The last one is [`Event::Closed`].
    #[must_use]
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.0.poll_event()
    }

    // Commands.

    /// Opens a channel. The request's reply is `channel.open-ok`, after which the channel can be
    /// used. Numbers are assigned in turn, from 1, to delay the reuse of a number.
    ///
    /// # Errors
    /// When the connection is not open, no number is free, or
    /// [too many requests](crate::Limits::unsent_requests) wait to be sent.
    pub fn open_channel(&mut self) -> Result<(ChannelId, RequestId), ApiMisuse> {
        self.begin_channel(None)
    }

    /// Opens the channel with that number, 1 to the negotiated `channel_max`.
    ///
    /// # Errors
    /// When the connection is not open, the number is not free, or
    /// [too many requests](crate::Limits::unsent_requests) wait to be sent.
    pub fn open_channel_at(&mut self, number: u16) -> Result<(ChannelId, RequestId), ApiMisuse> {
        self.begin_channel(Some(number))
    }

    /// As [`open_channel`](Self::open_channel), under a number that is not `taken`.
    pub(crate) fn open_channel_except(
        &mut self,
        taken: impl Fn(u16) -> bool,
    ) -> Result<(ChannelId, RequestId), ApiMisuse> {
        self.0.check_open()?;
        let number = self.0.free_channel(taken)?;
        self.begin_channel(Some(number))
    }

    pub(crate) fn has_channel(&self, id: ChannelId) -> bool {
        self.0.channel(id).is_some()
    }

    /// Ends the connection as that of a silent peer: it answers no request.
    pub(crate) fn end_unanswered(&mut self) {
        if self.0.is_open() {
            let unanswered = CloseCause::TimedOut(TimeoutReason::Request);
            self.0.finish(unanswered.into());
            self.0.drop_output();
        }
    }

    fn begin_channel(&mut self, number: Option<u16>) -> Result<(ChannelId, RequestId), ApiMisuse> {
        self.0.check_open()?;
        self.0.check_requests(None)?;
        let request = self.0.next_request();
        let id = self.0.add_channel(number, ChannelLife::Opening(request))?;
        self.0.put_request_anyway(id, &channel_class::Open);
        self.0.add_deadline(request, Some(id));
        Ok((id, request))
    }

    /// Returns the commands of a channel. `None` if the channel has ended.
    #[inline]
    #[must_use]
    pub fn channel(&mut self, id: ChannelId) -> Option<ChannelMut<'_>> {
        self.0.channel(id)?;
        Some(ChannelMut::new(&mut self.0, id))
    }

    /// Abandons a request of a channel: no event follows for it. When the reply arrives, its effect
    /// is undone: a fetched message is requeued, a channel closed, a consumer cancelled. Until then
    /// the deliveries of the consumer are requeued, and its tag stays in use. Messages that need no
    /// acknowledgement are lost instead of requeued. Does nothing for a settled request.
    pub fn abandon(&mut self, channel: ChannelId, request: RequestId) {
        self.0.abandon(Some(channel), request);
    }

    /// Returns the method of a request. `Some` while the server has not answered it.
    #[must_use]
    pub fn request_method(
        &self,
        channel: Option<ChannelId>,
        request: RequestId,
    ) -> Option<MethodId> {
        self.0.request_method(channel, request)
    }

    /// Sends the server a new secret, such as an OAuth 2 token, before the old one expires. The
    /// request's reply is `connection.update-secret-ok`. RabbitMQ's extension.
    ///
    /// # Errors
    /// When the connection is not open, or the secret does not fit into a frame.
    pub fn update_secret(
        &mut self,
        secret: Secret,
        reason: impl IntoShortStr,
    ) -> Result<RequestId, ApiMisuse> {
        self.0.check_open()?;
        self.0.put_urgent(&connection::UpdateSecret {
            new_secret: secret,
            reason: reason.into_short_str(),
        })?;
        let request = self.0.next_request();
        let pending = Pending::new(request, connection::UpdateSecret::ID);
        self.0.role.pending.push_back(pending);
        self.0.add_deadline(request, None);
        Ok(request)
    }

    /// Sets the delay from now until [`Event::SecretDue`] requests a new secret, for example after
    /// four fifths of a token's lifetime. The event is reported once. `None` removes the deadline.
    /// Does nothing on a connection that is not open.
    pub fn set_secret_deadline(&mut self, after: Option<Duration>) {
        self.0.set_secret_deadline(after);
    }

    /// Requests [`Event::Writable`], reported once there is [room](Self::output_room) to publish.
    /// If there is room already, the event follows the next [`poll_transmit`](Self::poll_transmit).
    pub const fn want_writable(&mut self) {
        self.0.want_ready_room();
    }

    /// Requests [`Event::BacklogWritable`], reported once there is [room](Self::backlog_room) for
    /// messages larger than a frame. If there is room already, the event follows the next
    /// [`poll_transmit`](Self::poll_transmit).
    pub const fn want_backlog_writable(&mut self) {
        self.0.want_backlog_room();
    }

    /// Closes the connection. Everything accepted before is sent first, then the close. The final
    /// event follows the server's reply, at the latest when the [close
    /// timeout](crate::Timeouts::close) has passed without progress of the output. No further
    /// command is accepted. Does nothing on a connection that is closing.
    ///
    /// The final reason is [`CloseCause::Requested`](crate::CloseCause::Requested) only if the
    /// server has replied. Otherwise it is the event that ended the connection instead, such as a
    /// crossing close of the server, or the end of the transport.
    pub fn close(&mut self, code: ReplyCode, text: &str) {
        self.0.close(code, text);
    }

    // Getters.

    /// The server properties: product, version, capabilities.
    #[must_use]
    pub const fn server_properties(&self) -> &FieldTable {
        &self.0.role.server_properties
    }

    /// Whether the server announced a capability, such as `publisher_confirms`.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        has_capability(self.server_properties(), name)
    }

    /// The SASL mechanism of the login: the first configured one that the server offered. `Some`
    /// once it is chosen.
    #[must_use]
    pub fn mechanism(&self) -> Option<&ShortStr> {
        let mechanism = &self.0.role.mechanism;
        (!mechanism.is_empty()).then_some(mechanism)
    }

    /// The last frames, in words. `Some` if [`Config::frame_log`] is not 0. Also after the end of
    /// the connection.
    #[must_use]
    pub fn frame_log(&self) -> Option<&FrameLog> {
        self.0.frame_log()
    }

    /// Whether the server has blocked publishing with `connection.blocked`
    /// (<https://www.rabbitmq.com/docs/connection-blocked>).
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.0.role.blocked
    }

    /// The number of bytes, of publishes that fit into a frame, that are accepted before
    /// [`Hold::OutputFull`](crate::Hold::OutputFull): the rest up to
    /// [`output_high`](crate::Limits::output_high). The last publish may exceed it.
    #[must_use]
    pub fn output_room(&self) -> usize {
        self.0.output_room()
    }

    /// The number of bytes, of larger publishes and those behind them, that are accepted before
    /// [`Hold::BacklogFull`](crate::Hold::BacklogFull): the rest up to
    /// [`output_backlog`](crate::Limits::output_backlog). The last publish may exceed it.
    #[must_use]
    pub const fn backlog_room(&self) -> usize {
        self.0.backlog_room()
    }
}

/// Whether the properties announce a capability.
fn has_capability(properties: &FieldTable, name: &str) -> bool {
    properties
        .get("capabilities")
        .and_then(|capabilities| capabilities.as_table()?.get(name)?.as_bool())
        .unwrap_or(false)
}

impl Client {
    /// Whether the server refuses credentials with `connection.close`: both peers announce
    /// `authentication_failure_close`. Otherwise it hangs up.
    fn is_told_of_refusals(&self) -> bool {
        let name = "authentication_failure_close";
        has_capability(&self.server_properties, name)
            && has_capability(&self.handshake.properties(), name)
    }
}

impl Machine<Client> {
    fn request_method(&self, channel: Option<ChannelId>, request: RequestId) -> Option<MethodId> {
        let found = match channel {
            None => self.role.pending.iter().find(|it| it.id == request),
            Some(id) => {
                let channel = self.channel(id)?;
                if channel.life == ChannelLife::Opening(request) {
                    return Some(channel_class::Open::ID);
                }
                channel.role.pending.get(request)
            }
        };
        found.map(|pending| pending.method)
    }

    fn abandon(&mut self, channel: Option<ChannelId>, request: RequestId) {
        if self.forget(channel, request) {
            self.request_settled();
        }
    }

    /// Marks a request as abandoned. Returns `false` if its reply was not awaited.
    fn forget(&mut self, channel: Option<ChannelId>, request: RequestId) -> bool {
        let Some(id) = channel else {
            let mut pending = self.role.pending.iter_mut();
            return pending
                .find(|pending| pending.id == request)
                .is_some_and(|pending| !core::mem::replace(&mut pending.abandoned, true));
        };
        let Some(channel) = self.channel_mut(id) else {
            return false;
        };
        if channel.life == ChannelLife::Opening(request) {
            return !core::mem::replace(&mut channel.role.abandoned_open, true);
        }
        let Some(consumes) = channel.role.abandon(request) else {
            return false;
        };
        if let Some((tag, consumer)) = consumes {
            self.abandon_consumer(id, &tag, consumer);
        }
        true
    }
}
