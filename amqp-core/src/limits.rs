//! What bounds the machine's memory, and what two peers agree on.

use core::time::Duration;

use crate::protocol::FRAME_MIN_SIZE;

/// The bytes of a frame beside its payload: type, channel, size and end.
pub const FRAME_OVERHEAD: usize = 8;

/// The largest frame before the peers have agreed on one, in bytes. RabbitMQ takes 8192 since 4.1
/// (4096 before); a larger `start-ok` is not understood.
pub const FRAME_MAX_BEFORE_TUNE: u32 = 8192;

/// Bounds of one connection. The defaults suit a client of RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest message body that is accepted or published, in bytes. A larger one that comes in
    /// closes its channel, with 311 from a client and, as RabbitMQ does it, with 406 from a server.
    /// Default 64 MiB, as the Java and .NET clients have.
    pub body: u64,
    /// The largest content header frame that a client accepts, in bytes, where that is more than
    /// the negotiated frame limit. RabbitMQ keeps to no limit there: a message's header grows with
    /// each time that it is dead-lettered. Default 1 MiB: thousands of deaths, and no more than a
    /// connection may hold while it waits for the end of one frame.
    ///
    /// Of a message with a larger one nothing is kept. A delivery is rejected without requeue, so
    /// that it is dead-lettered or dropped instead of being delivered again and again, and told as
    /// [`Event::Unreadable`](crate::client::Event::Unreadable).
    pub header: u32,
    /// How much the unfinished messages of all channels may hold together, in bytes: headers and
    /// the pieces of bodies that have come so far. A piece beyond that closes its channel, with
    /// 311 from a client and with 406 from a server. At least [`body`](Self::body) holds. Default
    /// 128 MiB: two of the largest messages at a time.
    pub assembly: u64,
    /// The largest frame that is accepted when the peers agreed on no limit, in bytes, and the
    /// highest limit that is agreed to when the configuration names none. Default 16 MiB: a peer
    /// without a limit may send a whole message in one frame.
    pub unlimited_frame: u32,
    /// The largest body frame that is sent when the peers agreed on no limit, in bytes. Default
    /// 128 KiB, RabbitMQ's own frame size: other channels wait for one frame at most.
    pub unlimited_chunk: u32,
    /// Publishes are held back while this much output waits, in bytes, at least 4096: those that fit
    /// into a frame while so much is ready to be sent, larger ones and those behind them while so
    /// much waits on their channel. Default 256 KiB: it fills a socket buffer, and still fits into a
    /// processor's cache.
    pub output_high: usize,
    /// Publishes go on when this little output is left, in bytes. Default 64 KiB.
    pub output_low: usize,
    /// Publishes that do not fit into a frame, and those behind them, are held back while so much of
    /// the kind waits on all channels together, in bytes, at least 1; they go on at half of it. One
    /// message is accepted beyond it. Default 16 MiB: large messages of many channels can leave side
    /// by side.
    pub output_backlog: usize,
    /// Requests are refused while more of them wait to be sent, in bytes: on their channel if it has
    /// a backlog, otherwise on the connection. Default 1 MiB: some ten thousand requests.
    /// Acknowledgements do not count: what is outstanding bounds them.
    pub unsent_requests: usize,
    /// How many publishes of a channel may wait for their confirm. Default 1000, beyond which
    /// RabbitMQ confirms no faster.
    pub unconfirmed: usize,
    /// How many body frames without a byte in them a message may have. Default 16: RabbitMQ
    /// sends none, and each costs the receiver work and the sender nothing.
    pub empty_frames: u32,
    /// How many bytes of messages the client's handles keep that the application has not taken:
    /// deliveries and returned messages of a connection, with all that they occupy. Default 16 MiB.
    /// The machine hands out each message at once and keeps none.
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

    /// How much the unfinished messages of all channels may hold: a single message always fits.
    pub(crate) const fn assembly(&self) -> u64 {
        if self.assembly > self.body {
            self.assembly
        } else {
            self.body
        }
    }
}

/// How long is waited for the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// For the whole handshake. Default 10 s.
    pub handshake: Duration,
    /// For the answer to a close of the connection, from the last time that output accepted before
    /// it, or the close itself, moved. Default 10 s. RabbitMQ does not answer while a memory alarm
    /// holds it from reading.
    pub close: Duration,
    /// For the answer to a request, none to wait for as long as the connection lives. Default 30 s.
    pub request: Option<Duration>,
    /// For the confirm of a publish, none to wait for as long as the channel lives. It may be told
    /// up to an eighth later. Default 60 s: a quorum queue that elects a leader takes seconds.
    pub confirm: Option<Duration>,
    /// For room to publish, none to wait for as long as the channel lives. The machine does not wait
    /// by itself: this is for the layers above it. Default 60 s.
    pub publish: Option<Duration>,
    /// For the transport to take what was accepted, none to wait for as long as the connection
    /// lives. For the layers above the machine. Default 30 s.
    pub flush: Option<Duration>,
    /// For a channel of a pool to become free, none to wait for as long as the connection lives. For
    /// the layers above the machine. Default 30 s.
    pub checkout: Option<Duration>,
    /// For the application to take a message while reading is paused because too many wait that the
    /// server does not take back; after that what they wait for ends with an overflow. Default 10 s.
    /// Only the client's handles pause reading.
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

/// What two peers agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tuning {
    /// The highest channel number, 1 to 65,535.
    pub channel_max: u16,
    /// The largest frame, in bytes; `u32::MAX` when there is no limit.
    pub frame_max: u32,
    /// The heartbeat interval in seconds; 0 when there are no heartbeats.
    pub heartbeat: u16,
}

impl Tuning {
    /// Before anything was agreed on.
    pub(crate) const BEFORE: Self = Self {
        channel_max: 0,
        frame_max: FRAME_MAX_BEFORE_TUNE,
        heartbeat: 0,
    };

    /// Whether the peers agreed on no frame limit.
    #[must_use]
    pub const fn is_frame_unlimited(&self) -> bool {
        self.frame_max == u32::MAX
    }

    /// The heartbeat interval, none when there are no heartbeats.
    #[must_use]
    pub fn heartbeat_interval(&self) -> Option<Duration> {
        (self.heartbeat > 0).then(|| Duration::from_secs(u64::from(self.heartbeat)))
    }

    /// How many body bytes go into one frame.
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

/// Brings two limits together of which 0 means none: the smaller one wins, and 0 only if both are.
pub(crate) fn lesser_limit<T: Ord + Default + Copy>(ours: T, theirs: T) -> T {
    let none = T::default();
    if ours == none || (theirs != none && theirs < ours) {
        theirs
    } else {
        ours
    }
}
