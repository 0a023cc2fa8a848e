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
mod messages;
mod publish;
mod receive;
mod reply_to;
mod returns;
pub(crate) mod unacked;

use alloc::{collections::VecDeque, vec::Vec};
use core::time::Duration;

use bytes::{Bytes, BytesMut};

pub use self::{
    channel::ChannelMut,
    config::{Checks, Config, Prefetch},
    event::{Delivery, Event, GetMessage, Outcome, Returned},
};
use self::{channel_state::Pending, confirm_deadlines::ConfirmDeadlines, handshake::Handshake};
use crate::{
    close::{CloseReason, Stage, TimeoutReason},
    endpoint::Endpoint,
    error::ApiMisuse,
    ids::{ChannelId, RequestId},
    limits::{Limits, Tuning},
    machine::{ChannelLife, FlushMark, Machine},
    method::MethodDef as _,
    protocol::{ReplyCode, channel as channel_class, connection},
    time::Instant,
    transmit::Transmit,
    wire::{FieldTable, Secret, ShortStr},
};

/// A client's connection: bytes in, events and bytes out.
///
/// There are four kinds of methods, which may be called in any order:
///
/// - `handle_*` report input: bytes, the end of the transport, the time;
/// - `poll_*` return the work for the caller;
/// - commands act on behalf of the application. They return at once, with an error only for a
///   misuse, after which nothing has changed;
/// - getters are bare nouns.
///
/// After any `handle_*` or command, write the output of [`poll_transmit`](Self::poll_transmit),
/// process every event of [`poll_event`](Self::poll_event), and arrange for
/// [`handle_timeout`](Self::handle_timeout) at the time returned by
/// [`poll_timeout`](Self::poll_timeout). Polling more often does no harm.
///
/// A fault of the peer is not an error of any method: it results in a close and one final
/// [`Event::Closed`].
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
#[derive(Debug)]
pub struct Connection(Machine<Client>);

/// The client's state of a connection.
#[derive(Debug)]
pub(crate) struct Client {
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
    /// The confirm deadlines of all channels.
    confirm_deadlines: ConfirmDeadlines,
}

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
        let checks = config.checks;
        let role = Client {
            handshake: Handshake::new(config),
            checks,
            server_properties: FieldTable::default(),
            mechanism: ShortStr::default(),
            blocked: false,
            pending: VecDeque::new(),
            confirm_deadlines,
        };
        let mut machine = Machine::new(role, limits, timeouts, now);
        machine.put_raw(&crate::frame::PROTOCOL_HEADER);
        Ok(Self(machine))
    }

    // Inputs.

    /// Handles received bytes. Removes the complete frames from the front of `input` and leaves a
    /// partial one there; append further bytes behind it. The split into pieces makes no
    /// difference.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        self.0.handle_input(now, input);
    }

    /// Handles the end of the transport: no more input will follow.
    pub fn handle_eof(&mut self, now: Instant) {
        self.0.handle_eof(now);
    }

    /// Handles a transport failure caused by the peer hanging up, with its message. In the standard
    /// library these are `ConnectionReset`, `ConnectionAborted` and `BrokenPipe`.
    ///
    /// During authentication a reset is a refusal of the credentials if the server or this client
    /// does not announce the capability `authentication_failure_close`
    /// (<https://www.rabbitmq.com/docs/auth-notification>), and so is
    /// [`handle_eof`](Self::handle_eof): RabbitMQ resets over TCP, and ends the stream over TLS.
    /// Otherwise it is the same as [`handle_transport_error`](Self::handle_transport_error).
    pub fn handle_reset(&mut self, now: Instant, message: &str) {
        self.0.handle_reset(now, message);
    }

    /// Handles a transport failure, with its message. If the peer has hung up, call
    /// [`handle_reset`](Self::handle_reset) instead.
    pub fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.0.handle_transport_error(now, message);
    }

    /// Handles the time of [`poll_timeout`](Self::poll_timeout). An early or unnecessary call has
    /// no effect.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    /// Sets whether the driver reads from the transport; initially `true`. While reading is paused
    /// for back-pressure, silence of the peer does not time out; the timeout for a peer that does
    /// not read stays in force.
    pub fn set_reading(&mut self, now: Instant, reading: bool) {
        self.0.set_reading(now, reading);
    }

    /// Handles a partial write of the output of [`poll_transmit`](Self::poll_transmit): proof that
    /// a slow peer reads, and progress of a close.
    pub fn handle_written(&mut self, now: Instant) {
        self.0.handle_written(now);
    }

    // Outputs.

    /// Moves bytes to send into `out`, behind its contents. Returns `false` if there are none. To
    /// keep back-pressure accurate, call it only when the contents of `out` have been written: the
    /// machine infers from the call that the peer reads. Call it also before
    /// [`handle_timeout`](Self::handle_timeout) when `out` is empty.
    ///
    /// Methods and messages that fit into a frame leave first, then at least as many bytes of
    /// larger messages, round-robin by one frame per channel: 256 KiB in all, or twice the ready
    /// bytes if that is more.
    ///
    /// With heartbeats (<https://www.rabbitmq.com/docs/heartbeats>), a peer that accepts no bytes
    /// for two intervals while output is queued is considered dead: the connection ends with
    /// [`TimeoutReason::PeerNotReading`], unless the peer has sent `connection.blocked`.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.0.poll_transmit(now, out)
    }

    /// Returns the deadline for the next call of [`handle_timeout`](Self::handle_timeout), and its
    /// reason. A time in the past means now. Any other call may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.0.poll_timeout()
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
        self.open(None)
    }

    /// Opens the channel with that number, 1 to the negotiated `channel_max`.
    ///
    /// # Errors
    /// When the connection is not open, the number is not free, or
    /// [too many requests](crate::Limits::unsent_requests) wait to be sent.
    pub fn open_channel_at(&mut self, number: u16) -> Result<(ChannelId, RequestId), ApiMisuse> {
        self.open(Some(number))
    }

    fn open(&mut self, number: Option<u16>) -> Result<(ChannelId, RequestId), ApiMisuse> {
        self.0.check_open()?;
        self.0.check_requests(None)?;
        let request = self.0.next_request();
        let id = self.0.add_channel(number, ChannelLife::Opening(request))?;
        self.0.put_request_anyway(id, &channel_class::Open);
        self.0.add_deadline(request, Some(id));
        Ok((id, request))
    }

    /// Returns the commands of a channel. `None` if the channel has ended.
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

    /// Sends the server a new secret, such as an OAuth 2 token, before the old one expires. The
    /// request's reply is `connection.update-secret-ok`. RabbitMQ's extension.
    ///
    /// # Errors
    /// When the connection is not open, or the secret does not fit into a frame.
    pub fn update_secret(
        &mut self,
        secret: Secret,
        reason: ShortStr,
    ) -> Result<RequestId, ApiMisuse> {
        self.0.check_open()?;
        self.0.put_urgent(&connection::UpdateSecret {
            new_secret: secret,
            reason,
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

    /// Whether channels can be opened.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.0.is_open()
    }

    /// Whether the connection has ended, with no more input or output.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.is_finished()
    }

    /// The stage of the connection.
    #[must_use]
    pub const fn stage(&self) -> Stage {
        self.0.stage()
    }

    /// The close reason. `Some` while the connection is closing, and once it is closed.
    #[must_use]
    pub const fn close_reason(&self) -> Option<&CloseReason> {
        self.0.close_reason()
    }

    /// The negotiated limits; meaningful once the connection is open.
    #[must_use]
    pub const fn tuning(&self) -> &Tuning {
        self.0.tuning()
    }

    /// The configured limits.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        self.0.limits()
    }

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

    /// Whether the server has blocked publishing with `connection.blocked`
    /// (<https://www.rabbitmq.com/docs/connection-blocked>).
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.0.role.blocked
    }

    /// The number of channels in use: opening, open or closing.
    #[must_use]
    pub const fn channel_count(&self) -> usize {
        self.0.channel_count()
    }

    /// Takes the bodies that were copied or will not be sent. Their destructors belong to the
    /// application: take and drop them outside of a lock, after each call. The next
    /// [`poll_transmit`](Self::poll_transmit) drops the rest.
    pub fn take_discarded(&mut self) -> Vec<Bytes> {
        self.0.take_discarded()
    }

    /// Marks everything accepted so far: publishes, acknowledgements and requests.
    #[must_use]
    pub fn flush_mark(&self) -> FlushMark {
        self.0.flush_mark()
    }

    /// Whether everything accepted before the mark was returned by
    /// [`poll_transmit`](Self::poll_transmit), or dropped because its channel ended. Methods that
    /// wait for a `tx.commit-ok` are not flushed.
    #[must_use]
    pub fn is_flushed(&self, mark: &FlushMark) -> bool {
        self.0.is_flushed(mark)
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

    /// The number of bytes queued for [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.0.buffered()
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would return bytes now.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        self.0.has_transmit()
    }

    /// The minimum number of bytes missing from the frame in progress; 0 if there is none.
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

    fn handle_reset(&mut self, now: Instant, message: &str) {
        self.0.handle_reset(now, message);
    }

    fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.0.handle_transport_error(now, message);
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    fn handle_written(&mut self, now: Instant) {
        self.0.handle_written(now);
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
