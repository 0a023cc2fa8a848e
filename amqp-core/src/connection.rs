//! A connection as seen by its driver: the contract that both sides share.

use alloc::vec::Vec;

use bytes::{Bytes, BytesMut};

use crate::{
    close::{CloseReason, Stage, TimeoutReason},
    endpoint::Endpoint,
    limits::{Limits, Tuning},
    machine::{FlushMark, Machine, Role},
    stats::{ConnectionStats, HeartbeatStats},
    time::Instant,
    transmit::Transmit,
};

/// A side of a connection: [`Client`](crate::client::Client) or [`Server`](crate::server::Server).
/// Sealed.
#[expect(private_bounds, reason = "the bound seals the trait")]
pub trait Side: Role {}

/// A connection, seen from one side: bytes in, events and bytes out.
///
/// There are four kinds of methods, which may be called in any order:
///
/// - `handle_*` report input: bytes, the end of the transport, the time;
/// - `poll_*` return the work for the caller;
/// - commands act on behalf of the application. They return at once, with an error only for a
///   misuse, after which nothing has changed. They differ between
///   [`client::Connection`](crate::client::Connection) and
///   [`server::Connection`](crate::server::Connection);
/// - getters are bare nouns.
///
/// After any `handle_*` or command, write the output of [`poll_transmit`](Self::poll_transmit),
/// process every event of `poll_event`, and arrange for [`handle_timeout`](Self::handle_timeout) at
/// the time returned by [`poll_timeout`](Self::poll_timeout). Polling more often does no harm.
///
/// The times come from a monotonic clock. An earlier time than that of a call before counts as that
/// one.
///
/// A fault of the peer is not an error of any method: it results in a close and one final event
/// with the reason.
#[derive(Debug)]
pub struct Connection<S: Side>(pub(crate) Machine<S>);

impl<S: Side> Connection<S> {
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

    /// As [`poll_transmit`](Self::poll_transmit), but takes at most `turns` turns of messages that
    /// do not fit into a frame, of one frame each: for output that is paced. With 0, only methods,
    /// heartbeats and messages that fit into a frame leave.
    pub fn poll_transmit_turns(&mut self, now: Instant, out: &mut Transmit, turns: usize) -> bool {
        self.0.poll_transmit_turns(now, out, turns)
    }

    /// Returns the deadline for the next call of [`handle_timeout`](Self::handle_timeout), and its
    /// reason. A time in the past means now. Any other call may change it.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, TimeoutReason)> {
        self.0.poll_timeout()
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

    /// The number of channels in use: opening, open or closing.
    #[must_use]
    pub const fn channel_count(&self) -> usize {
        self.0.channel_count()
    }

    /// The statistics of the connection, as of the last call with a time.
    #[must_use]
    pub fn stats(&self) -> ConnectionStats {
        self.0.stats(Instant::ORIGIN)
    }

    /// The statistics of the connection at that time: a [block](ConnectionStats::blocked) goes on
    /// until then.
    #[must_use]
    pub fn stats_at(&self, now: Instant) -> ConnectionStats {
        self.0.stats(now)
    }

    /// The numbers and times of heartbeats.
    #[must_use]
    pub fn heartbeats(&self) -> HeartbeatStats {
        self.0.heartbeats()
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

    /// Whether [`poll_transmit_turns`](Self::poll_transmit_turns) would return bytes now without any
    /// turns.
    #[must_use]
    pub fn has_ready_transmit(&self) -> bool {
        self.0.has_ready_transmit()
    }

    /// The minimum number of bytes missing from the frame in progress; 0 if there is none.
    #[must_use]
    pub const fn read_hint(&self) -> usize {
        self.0.read_hint()
    }

    /// The expected size of the next frames, in bytes, in the middle of a body of several large
    /// ones; otherwise 0. The body keeps the read buffers alive that its frames come in: buffers
    /// that hold a whole number of such frames, and nothing else, save memory and copies.
    #[must_use]
    pub const fn frame_hint(&self) -> usize {
        self.0.frame_hint()
    }
}

impl<S: Side> Endpoint for Connection<S> {
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

    fn frame_hint(&self) -> usize {
        self.0.frame_hint()
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}
