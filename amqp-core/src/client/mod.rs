//! The client's side of a connection.
//!
//! [`Connection`] is the machine, [`Config`] what it begins with, [`Event`] what comes out of it,
//! and [`ChannelMut`] the commands of one channel.

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

/// A connection, as its client sees it: bytes in, events and bytes out.
///
/// There are four kinds of methods, which may be called in any order:
///
/// - what happened in the world is told with `handle_*`;
/// - what the world is to do comes out of `poll_*`;
/// - commands do something of the client's own. They return at once, and an error only for a
///   misuse, after which nothing has changed;
/// - getters are bare nouns.
///
/// After any of the first and third kind, write what [`poll_transmit`](Self::poll_transmit) hands
/// out, look at every event that [`poll_event`](Self::poll_event) gives, and arrange for
/// [`handle_timeout`](Self::handle_timeout) at the time that
/// [`poll_timeout`](Self::poll_timeout) names. Polling more often does no harm.
///
/// A fault of the peer is no error of any method: it becomes a close, and one final
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

/// What only a client knows of its connection.
#[derive(Debug)]
pub(crate) struct Client {
    handshake: Handshake,
    checks: Checks,
    /// What the server said of itself in `start`.
    server_properties: FieldTable,
    /// The SASL mechanism that was chosen; empty before.
    mechanism: ShortStr,
    /// The server is short of a resource and wants no publishes.
    blocked: bool,
    /// Requests of the connection itself that wait for their answer: `connection.update-secret`.
    pending: VecDeque<Pending>,
    /// When publishes are to be confirmed.
    confirm_deadlines: ConfirmDeadlines,
}

impl Connection {
    /// A connection that has just been made on the transport. The protocol header is ready to be
    /// sent.
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

    // What happened in the world.

    /// Bytes came in. Takes the whole frames off the front of `input` and leaves a partial one
    /// there; append what comes next behind it. How the bytes were cut up makes no difference.
    pub fn handle_input(&mut self, now: Instant, input: &mut BytesMut) {
        self.0.handle_input(now, input);
    }

    /// The transport ended: nothing will come in any more.
    pub fn handle_eof(&mut self, now: Instant) {
        self.0.handle_eof(now);
    }

    /// The transport failed because the peer has hung up, with that message: what the standard
    /// library calls `ConnectionReset`, `ConnectionAborted` and `BrokenPipe`.
    ///
    /// During authentication this is how a server refuses the credentials that does not announce
    /// the capability `authentication_failure_close`, or to which this client does not, as much as
    /// the end that [`handle_eof`](Self::handle_eof) tells of: RabbitMQ does the one over TCP and
    /// the other over TLS. Otherwise it is the same as
    /// [`handle_transport_error`](Self::handle_transport_error).
    pub fn handle_reset(&mut self, now: Instant, message: &str) {
        self.0.handle_reset(now, message);
    }

    /// The transport failed, with that message. If that is because the peer has hung up, call
    /// [`handle_reset`](Self::handle_reset) instead.
    pub fn handle_transport_error(&mut self, now: Instant, message: &str) {
        self.0.handle_transport_error(now, message);
    }

    /// The time named by [`poll_timeout`](Self::poll_timeout) has come. A call too early, or for
    /// no reason, does nothing.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.0.handle_timeout(now);
    }

    /// Whether anybody reads from the transport. While nobody does, because the application is
    /// behind, the peer's silence is not held against it; that it takes nothing is. Reading is
    /// assumed at first.
    pub fn set_reading(&mut self, now: Instant, reading: bool) {
        self.0.set_reading(now, reading);
    }

    /// The transport has taken some of what [`poll_transmit`](Self::poll_transmit) handed out, but
    /// not all: a sign of life of a peer that reads slowly, and progress of a close.
    pub fn handle_written(&mut self, now: Instant) {
        self.0.handle_written(now);
    }

    // What the world is to do.

    /// Moves bytes to send into `out`, behind what is in it; false if there are none. Call it when
    /// what was in `out` has been written, and not before, to keep back-pressure honest: this is how
    /// the machine learns that the peer reads. Call it also before
    /// [`handle_timeout`](Self::handle_timeout) when `out` is empty.
    ///
    /// All that fits into frames leaves first, then at least as many bytes of larger messages, by
    /// turns of a frame per channel: 256 KiB in all, or twice what was ready if that is more.
    ///
    /// With heartbeats, a peer that takes nothing for two intervals while something waits is given
    /// up with [`TimeoutReason::PeerNotReading`], unless it has sent `connection.blocked`.
    pub fn poll_transmit(&mut self, now: Instant, out: &mut Transmit) -> bool {
        self.0.poll_transmit(now, out)
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called at the latest, and what for.
    /// A time in the past means now. Any other call may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.0.poll_timeout()
    }

    /// The next thing that happened. The last event is [`Event::Closed`].
    #[must_use]
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event> {
        self.0.poll_event()
    }

    // Commands.

    /// Opens a channel. The request's reply is `channel.open-ok`, and the channel can be used when
    /// it has come. Numbers are given out in turn, from 1, so that one rests before it is used
    /// again.
    ///
    /// # Errors
    /// When the connection is not open, no number is free, or
    /// [too many requests](crate::Limits::unsent_requests) wait to be sent.
    pub fn open_channel(&mut self) -> Result<(ChannelId, RequestId), ApiMisuse> {
        self.open(None)
    }

    /// Opens the channel of that number, 1 to the negotiated `channel_max`.
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

    /// The commands of a channel; none if it has ended.
    #[must_use]
    pub fn channel(&mut self, id: ChannelId) -> Option<ChannelMut<'_>> {
        self.0.channel(id)?;
        Some(ChannelMut::new(&mut self.0, id))
    }

    /// Gives up waiting for a request of a channel: no event will come for it. What it asked for is
    /// taken back: a message that was fetched is put back, a channel closed and a consumer cancelled
    /// when the answer comes. What a consumer gets until then is put back, and its tag stays in use.
    /// It does nothing for a request that is settled.
    pub fn abandon(&mut self, channel: ChannelId, request: RequestId) {
        self.0.abandon(Some(channel), request);
    }

    /// Gives the server a new secret, such as an OAuth 2 token, before the old one expires. The
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

    /// Sets when a new secret is wanted, from now, such as when four fifths of a token's life are
    /// over: [`Event::SecretDue`] comes once then. None unsets it. It does nothing on a connection
    /// that is not open.
    pub fn set_secret_deadline(&mut self, after: Option<Duration>) {
        self.0.set_secret_deadline(after);
    }

    /// Asks for [`Event::Writable`], which comes once there is [room](Self::output_room) to publish;
    /// at the next [`poll_transmit`](Self::poll_transmit) if there is already.
    pub const fn want_writable(&mut self) {
        self.0.want_ready_room();
    }

    /// Asks for [`Event::BacklogWritable`], which comes once there is [room](Self::backlog_room) for
    /// messages larger than a frame; at the next [`poll_transmit`](Self::poll_transmit) if there is
    /// already.
    pub const fn want_backlog_writable(&mut self) {
        self.0.want_backlog_room();
    }

    /// Closes the connection. What was accepted before is sent first, then the close; the final
    /// event comes with the server's answer, at the latest when the [close
    /// timeout](crate::Timeouts::close) has passed since the output moved. Nothing else can be begun
    /// from now on. It does nothing on a connection that is closing.
    ///
    /// The final reason is [`CloseCause::Requested`](crate::CloseCause::Requested) only if the
    /// server has answered: otherwise it is what ended the connection in place of the answer, such
    /// as a close of the server's that crossed this one, or the end of the transport.
    pub fn close(&mut self, code: ReplyCode, text: &str) {
        self.0.close(code, text);
    }

    // Getters.

    /// Whether channels can be opened.
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

    /// What the server said of itself: product, version, capabilities.
    #[must_use]
    pub const fn server_properties(&self) -> &FieldTable {
        &self.0.role.server_properties
    }

    /// Whether the server announced a capability, such as `publisher_confirms`.
    #[must_use]
    pub fn has_capability(&self, name: &str) -> bool {
        has_capability(self.server_properties(), name)
    }

    /// The SASL mechanism of the login, the first of the configured ones that the server offered;
    /// none before it was chosen.
    #[must_use]
    pub fn mechanism(&self) -> Option<&ShortStr> {
        let mechanism = &self.0.role.mechanism;
        (!mechanism.is_empty()).then_some(mechanism)
    }

    /// Whether the server has asked not to publish (`connection.blocked`).
    #[must_use]
    pub const fn is_blocked(&self) -> bool {
        self.0.role.blocked
    }

    /// How many channels are not free: opening, open or closing.
    #[must_use]
    pub const fn channel_count(&self) -> usize {
        self.0.channel_count()
    }

    /// Takes the bodies that were copied or will not be sent. Their destructors are the application's:
    /// take and drop them outside of a lock, after each call. What is left is dropped by the next
    /// [`poll_transmit`](Self::poll_transmit).
    pub fn take_discarded(&mut self) -> Vec<Bytes> {
        self.0.take_discarded()
    }

    /// Marks what was accepted up to now: publishes, acknowledgements and requests.
    #[must_use]
    pub fn flush_mark(&self) -> FlushMark {
        self.0.flush_mark()
    }

    /// Whether all that was accepted before the mark was handed out by
    /// [`poll_transmit`](Self::poll_transmit), or dropped because its channel ended. What a
    /// transaction holds back until it is committed is not.
    #[must_use]
    pub fn is_flushed(&self, mark: &FlushMark) -> bool {
        self.0.is_flushed(mark)
    }

    /// How many bytes of publishes that fit into a frame are accepted before
    /// [`Hold::OutputFull`](crate::Hold::OutputFull): the rest up to
    /// [`output_high`](crate::Limits::output_high). A last one may be larger than what is left.
    #[must_use]
    pub fn output_room(&self) -> usize {
        self.0.output_room()
    }

    /// How many bytes of larger publishes, and of those behind them, are accepted before
    /// [`Hold::BacklogFull`](crate::Hold::BacklogFull): the rest up to
    /// [`output_backlog`](crate::Limits::output_backlog). A last one may be larger than what is left.
    #[must_use]
    pub const fn backlog_room(&self) -> usize {
        self.0.backlog_room()
    }

    /// How many bytes wait for [`poll_transmit`](Self::poll_transmit).
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.0.buffered()
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would hand anything out now.
    #[must_use]
    pub fn has_transmit(&self) -> bool {
        self.0.has_transmit()
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

/// Whether a peer of these properties has announced a capability.
fn has_capability(properties: &FieldTable, name: &str) -> bool {
    properties
        .get("capabilities")
        .and_then(|capabilities| capabilities.as_table()?.get(name)?.as_bool())
        .unwrap_or(false)
}

impl Client {
    /// Whether the server says that it refuses the credentials: it can, and knows that this client
    /// understands. Otherwise it hangs up.
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

    /// Marks a request as one that nobody waits for; false if nobody did.
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
