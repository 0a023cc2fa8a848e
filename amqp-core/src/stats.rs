//! Statistics of connections and channels.

use core::time::Duration;

use crate::time::Instant;

/// The bytes and frames of one direction of a connection. All are counts since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WireStats {
    /// Bytes, the protocol header included. Those sent were handed out by `poll_transmit`: the
    /// transport may not have taken all of them yet.
    pub bytes: u64,
    /// Complete frames, heartbeats included. Those sent were handed out with their bytes.
    pub frames: u64,
    /// Heartbeat frames (section 4.2.7 of the specification). Those sent count once they are
    /// queued.
    pub heartbeats: u64,
}

/// Statistics of a connection, as a copy. Those up to `rejected` are counts since its start, and
/// only grow; `unconfirmed`, `unacked`, `buffered` and `untaken` are values of now.
///
/// Both sides count the same messages: `published` is the publishes that the client sends and the
/// server receives, `delivered` the deliveries in the other direction. The counts that take the
/// resolution of `multiple` are a client's only, as a server leaves that to its broker.
///
/// A rate is the difference of two copies over the time between them.
///
/// ```
/// use amqp_core::{Instant, Transmit, client::{Config, Connection}};
///
/// let now = Instant::ORIGIN;
/// let mut connection = Connection::new(Config::default(), now)?;
/// let before = connection.stats();
/// connection.poll_transmit(now, &mut Transmit::new());
/// let sent = connection.stats().sent;
/// assert_eq!(sent.bytes - before.sent.bytes, 8); // the protocol header
/// assert_eq!(sent.frames, 0); // which is not a frame
/// # Ok::<_, amqp_core::ApiMisuse>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// The output.
    pub sent: WireStats,
    /// The input.
    pub received: WireStats,
    /// Messages published: accepted for sending by a client, complete at a server.
    pub published: u64,
    /// Publishes that the server confirmed with `basic.ack`
    /// (<https://www.rabbitmq.com/docs/confirms>). 0 at a server.
    pub confirmed: u64,
    /// Publishes that the server refused with `basic.nack`. 0 at a server.
    pub nacked: u64,
    /// Messages returned with `basic.return`. One may be confirmed as well.
    pub returned: u64,
    /// Messages delivered to consumers with `basic.deliver`. A client leaves out those that it
    /// requeues or rejects by itself, as the deliveries of an abandoned consumer.
    pub delivered: u64,
    /// Messages fetched with `basic.get`. A client leaves out those that it requeues or rejects by
    /// itself.
    pub fetched: u64,
    /// Deliveries and fetched messages acknowledged with `basic.ack`. 0 at a server.
    pub acknowledged: u64,
    /// Deliveries and fetched messages rejected with `basic.nack` or `basic.reject`, to be requeued
    /// or not. 0 at a server.
    pub rejected: u64,
    /// Publishes that occupy the windows of all channels, as in [`ChannelStats`]. 0 at a server.
    pub unconfirmed: u64,
    /// Deliveries and fetched messages of all channels that are not acknowledged. 0 at a server.
    pub unacked: u64,
    /// Bytes of output that are accepted and not handed out.
    pub buffered: u64,
    /// Bytes of deliveries and returned messages that the handles above the machine keep until they
    /// are taken. 0 in the machine's own statistics.
    pub untaken: u64,
    /// The time for which the server has blocked publishing, in all, the present one included
    /// (<https://www.rabbitmq.com/docs/connection-blocked>). Zero at a server.
    pub blocked: Duration,
}

/// The heartbeats of a connection, as a copy (section 4.2.7 of the specification). Any other frame
/// is as good a sign of life, so none is sent while there is other output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct HeartbeatStats {
    /// The negotiated interval: one is due after half of it without output. `Some` if heartbeats
    /// were negotiated.
    pub interval: Option<Duration>,
    /// Those queued to be sent.
    pub sent: Heartbeats,
    /// Those received.
    pub received: Heartbeats,
}

/// The heartbeats of one direction of a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heartbeats {
    /// Their number since the start of the connection.
    pub count: u64,
    /// The time of the last one. `Some` once there was one.
    pub last: Option<Instant>,
    /// The time of the one before it.
    pub previous: Option<Instant>,
}

impl HeartbeatStats {
    pub(crate) const fn new() -> Self {
        Self {
            interval: None,
            sent: Heartbeats::new(),
            received: Heartbeats::new(),
        }
    }
}

impl Heartbeats {
    const fn new() -> Self {
        Self {
            count: 0,
            last: None,
            previous: None,
        }
    }

    /// Records the time of a heartbeat.
    pub(crate) const fn note(&mut self, now: Instant) {
        self.previous = self.last;
        self.last = Some(now);
    }
}

/// Statistics of a client's channel, as a copy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelStats {
    /// Messages published since the channel was opened.
    pub published: u64,
    /// Publishes that occupy the window of [`Limits::unconfirmed`](crate::Limits) now: the
    /// unconfirmed ones and, while a mandatory one is among them, those confirmed after it. 0 without
    /// confirm mode.
    pub unconfirmed: u64,
    /// Messages delivered to consumers since the channel was opened, as in [`ConnectionStats`].
    pub delivered: u64,
    /// Deliveries and fetched messages that are not acknowledged now, withheld ones included.
    pub unacked: u64,
    /// Consumers that are neither being cancelled nor abandoned now.
    pub consumers: u64,
    /// The prefetch count of the last `basic.qos`, in messages; 0 for no limit. It applies to each
    /// later consumer, or with `global` to the channel
    /// (<https://www.rabbitmq.com/docs/consumer-prefetch>).
    pub prefetch: u16,
}
