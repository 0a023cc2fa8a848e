//! Limits on memory, timeouts, and the limits negotiated with the peer.

use core::time::Duration;

use crate::protocol::FRAME_MIN_SIZE;

/// The size of a frame without its payload, in bytes: type, channel, size and frame-end octet
/// (section 4.2.3 of the specification).
pub const FRAME_OVERHEAD: usize = 8;

/// The frame limit before negotiation, in bytes. RabbitMQ accepts 8192 since 4.1 (4096 before), and
/// rejects a larger `start-ok`.
pub const FRAME_MAX_BEFORE_TUNE: u32 = 8192;

/// The limits of one connection. The defaults suit a client of RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message body that is accepted or published, in bytes. A larger incoming one
    /// closes its channel, with 311 from a client and, as in RabbitMQ, with 406 from a server.
    /// Default 64 MiB, as in the Java and .NET clients.
    pub body: u64,
    /// The largest content header frame that a client accepts, in bytes, if that is more than the
    /// negotiated frame limit. RabbitMQ does not apply the frame limit there: the header of a
    /// message grows with each queue that dead-letters it (<https://www.rabbitmq.com/docs/dlx>).
    /// Default 1 MiB: thousands of queues, and no more than a connection should hold for one
    /// incomplete frame.
    ///
    /// A message with a larger header is discarded. A delivery is rejected without requeue, so that
    /// it is dead-lettered or dropped instead of being redelivered again and again, and reported as
    /// [`Event::Unreadable`](crate::client::Event::Unreadable).
    pub header: u32,
    /// The memory for the unfinished messages of all channels, in bytes: headers and the pieces of
    /// bodies received so far. A piece that exceeds it closes its channel, with 311 from a client
    /// and 406 from a server. Never less than [`body`](Self::body). Default 128 MiB: two of the
    /// largest messages at a time.
    pub assembly: u64,
    /// The largest frame that is accepted if no frame limit was negotiated, in bytes, and the
    /// highest limit that is agreed to if the configuration has none. Default 16 MiB: a peer
    /// without a limit may send a whole message in one frame.
    pub unlimited_frame: u32,
    /// The largest body frame that is sent if no frame limit was negotiated, in bytes. Default 128
    /// KiB, the default of RabbitMQ: other channels wait for one frame at most.
    pub unlimited_chunk: u32,
    /// The high watermark of the output, in bytes, at least 4096. A publish that fits into one
    /// frame is held back while this much is ready to be sent. A larger one, or one behind it, is
    /// held back while this much is queued on its channel. Default 256 KiB: fills a socket buffer,
    /// and still fits into a processor's cache.
    pub output_high: usize,
    /// The low watermark of the output, in bytes: publishing resumes at this level. Default 64 KiB.
    pub output_low: usize,
    /// The limit on the backlogs of all channels together, in bytes, at least 1. Publishes that do
    /// not fit into one frame, and those behind them, are held back at this level, and resume at
    /// half of it. One message may exceed it. Default 16 MiB: large messages of many channels can
    /// be sent side by side.
    pub output_backlog: usize,
    /// The limit on unsent requests, in bytes, beyond which further ones are refused: per channel
    /// if that has a backlog, else for the connection. Default 1 MiB: some ten thousand requests.
    /// Acknowledgements do not count: they are bounded by the number of outstanding deliveries.
    pub unsent_requests: usize,
    /// The maximum number of unconfirmed publishes of a channel. Default 1000: RabbitMQ confirms no
    /// faster beyond that.
    pub unconfirmed: usize,
    /// The maximum number of empty body frames in a message. Default 16: RabbitMQ sends none, and
    /// each costs the receiver work and the sender nothing.
    pub empty_frames: u32,
    /// The budget for messages in the client's handles that the application has not taken, in
    /// bytes: deliveries and returned messages of a connection, with all the memory they occupy.
    /// Those that cannot be given back to the server, returned messages and deliveries with no-ack,
    /// may take up to eight times as much while a call waits for the server: its reply may be queued
    /// behind them. Default 16 MiB. The state machine hands out each message at once and keeps none.
    pub undelivered: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: 64 << 20,
            header: 1 << 20,
            assembly: 128 << 20,
            unlimited_frame: 16 << 20,
            unlimited_chunk: 128 << 10,
            output_high: 256 << 10,
            output_low: 64 << 10,
            output_backlog: 16 << 20,
            unsent_requests: 1 << 20,
            unconfirmed: 1000,
            empty_frames: 16,
            undelivered: 16 << 20,
        }
    }
}

impl Limits {
    /// Sets `body`.
    #[must_use]
    pub fn body(mut self, body: u64) -> Self {
        self.body = body;
        self
    }

    /// Sets `unlimited_frame`.
    #[must_use]
    pub fn unlimited_frame(mut self, unlimited_frame: u32) -> Self {
        self.unlimited_frame = unlimited_frame;
        self
    }

    /// Sets `unlimited_chunk`.
    #[must_use]
    pub fn unlimited_chunk(mut self, unlimited_chunk: u32) -> Self {
        self.unlimited_chunk = unlimited_chunk;
        self
    }

    /// Sets `output_high`.
    #[must_use]
    pub fn output_high(mut self, output_high: usize) -> Self {
        self.output_high = output_high;
        self
    }

    /// Sets `output_low`.
    #[must_use]
    pub fn output_low(mut self, output_low: usize) -> Self {
        self.output_low = output_low;
        self
    }

    /// Sets `output_backlog`.
    #[must_use]
    pub fn output_backlog(mut self, output_backlog: usize) -> Self {
        self.output_backlog = output_backlog;
        self
    }

    /// Sets `unsent_requests`.
    #[must_use]
    pub fn unsent_requests(mut self, unsent_requests: usize) -> Self {
        self.unsent_requests = unsent_requests;
        self
    }

    /// Sets `unconfirmed`.
    #[must_use]
    pub fn unconfirmed(mut self, unconfirmed: usize) -> Self {
        self.unconfirmed = unconfirmed;
        self
    }

    /// Sets `undelivered`.
    #[must_use]
    pub fn undelivered(mut self, undelivered: usize) -> Self {
        self.undelivered = undelivered;
        self
    }

    /// Sets `empty_frames`.
    #[must_use]
    pub fn empty_frames(mut self, empty_frames: u32) -> Self {
        self.empty_frames = empty_frames;
        self
    }

    /// The memory for the unfinished messages of all channels: never less than the largest body.
    pub(crate) const fn assembly(&self) -> u64 {
        if self.assembly > self.body {
            self.assembly
        } else {
            self.body
        }
    }
}

/// The timeouts of one connection, by the awaited event.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// The whole handshake. Default 10 s.
    pub handshake: Duration,
    /// The close handshake of the connection, since the output before the close, or the close
    /// itself, last made progress. Default 10 s. RabbitMQ does not answer while a memory alarm
    /// keeps it from reading (<https://www.rabbitmq.com/docs/alarms>).
    pub close: Duration,
    /// The answer to a request. `None` waits as long as the connection lives. Default 30 s.
    pub request: Option<Duration>,
    /// The confirm of a publish. `None` waits as long as the channel lives. It may be reported up
    /// to an eighth later. Default 60 s: leader election of a quorum queue takes seconds.
    pub confirm: Option<Duration>,
    /// Room to publish. `None` waits as long as the channel lives. Used by the layers above the
    /// state machine, which does not wait itself. Default 60 s.
    pub publish: Option<Duration>,
    /// Flushing the accepted output to the transport. `None` waits as long as the connection lives.
    /// Used by the layers above the state machine. Default 30 s.
    pub flush: Option<Duration>,
    /// A free channel of a pool. `None` waits as long as the connection lives. Used by the layers
    /// above the state machine. Default 30 s.
    pub checkout: Option<Duration>,
    /// The progress of the application while reading is paused because of messages that cannot be
    /// returned to the server: deliveries with no-ack, and returned messages. Consumers and streams
    /// of returned messages without progress then end with an overflow. Default 10 s. Only the
    /// client's handles pause reading.
    pub unread: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            handshake: Duration::from_secs(10),
            close: Duration::from_secs(10),
            request: Some(Duration::from_secs(30)),
            confirm: Some(Duration::from_secs(60)),
            publish: Some(Duration::from_secs(60)),
            flush: Some(Duration::from_secs(30)),
            checkout: Some(Duration::from_secs(30)),
            unread: Duration::from_secs(10),
        }
    }
}

impl Timeouts {
    /// Sets `confirm`.
    #[must_use]
    pub fn confirm(mut self, confirm: impl Into<Option<Duration>>) -> Self {
        self.confirm = confirm.into();
        self
    }

    /// Sets `publish`.
    #[must_use]
    pub fn publish(mut self, publish: impl Into<Option<Duration>>) -> Self {
        self.publish = publish.into();
        self
    }

    /// Sets `flush`.
    #[must_use]
    pub fn flush(mut self, flush: impl Into<Option<Duration>>) -> Self {
        self.flush = flush.into();
        self
    }

    /// Sets `checkout`.
    #[must_use]
    pub fn checkout(mut self, checkout: impl Into<Option<Duration>>) -> Self {
        self.checkout = checkout.into();
        self
    }

    /// Sets `unread`.
    #[must_use]
    pub fn unread(mut self, unread: Duration) -> Self {
        self.unread = unread;
        self
    }

    /// Sets `handshake`.
    #[must_use]
    pub fn handshake(mut self, handshake: Duration) -> Self {
        self.handshake = handshake;
        self
    }

    /// Sets `close`.
    #[must_use]
    pub fn close(mut self, close: Duration) -> Self {
        self.close = close;
        self
    }

    /// Sets `request`.
    #[must_use]
    pub fn request(mut self, request: impl Into<Option<Duration>>) -> Self {
        self.request = request.into();
        self
    }
}

/// The limits negotiated with the peer (section 1.4.2.6 of the protocol reference).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tuning {
    /// The highest channel number, 1 to 65,535.
    pub channel_max: u16,
    /// The largest frame, in bytes. `u32::MAX` if there is no limit.
    pub frame_max: u32,
    /// The heartbeat interval, in seconds. 0 if there are no heartbeats.
    pub heartbeat: u16,
}

impl Tuning {
    /// The limits before negotiation.
    pub(crate) const BEFORE: Self = Self {
        channel_max: 0,
        frame_max: FRAME_MAX_BEFORE_TUNE,
        heartbeat: 0,
    };

    /// Whether no frame limit was negotiated.
    #[must_use]
    pub const fn is_frame_unlimited(&self) -> bool {
        self.frame_max == u32::MAX
    }

    /// The heartbeat interval. `Some` if heartbeats were negotiated.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        (self.heartbeat > 0).then(|| Duration::from_secs(u64::from(self.heartbeat)))
    }

    /// The number of body bytes per frame.
    pub(crate) fn chunk(&self, limits: &Limits) -> usize {
        let frame = if self.is_frame_unlimited() {
            limits.unlimited_chunk
        } else {
            self.frame_max
        };
        (frame.max(FRAME_MIN_SIZE.min(FRAME_MAX_BEFORE_TUNE)) as usize)
            .saturating_sub(FRAME_OVERHEAD)
    }
}

/// Combines two limits, of which 0 means no limit: the smaller one applies, and 0 only if both are
/// 0.
pub(crate) fn lesser_limit<T: Ord + Default + Copy>(ours: T, theirs: T) -> T {
    let none = T::default();
    if ours == none || (theirs != none && theirs < ours) {
        theirs
    } else {
        ours
    }
}
