//! The statistics of connections as metrics of the crate [`metrics`](::metrics).
//!
//! Nothing is recorded per message: [`ConnectionMetrics::record`] takes the difference between the
//! [statistics](Connection::stats) and those of its last call. It is cheap enough to be called each
//! second.

use std::{fmt, time::Duration};

use amqp_core::ConnectionStats;
use metrics::{
    Counter, Gauge, Label, SharedString, Unit, counter, describe_counter, describe_gauge, gauge,
};

use crate::connection::Connection;

/// The metrics of a connection, labelled `connection` with its name.
///
/// | metric | kind |
/// |---|---|
/// | `amqp_client_sent_bytes_total`, `amqp_client_received_bytes_total` | counters, bytes |
/// | `amqp_client_sent_frames_total`, `amqp_client_received_frames_total` | counters |
/// | `amqp_client_sent_heartbeats_total`, `amqp_client_received_heartbeats_total` | counters |
/// | `amqp_client_published_total`, `amqp_client_confirmed_total`, `amqp_client_nacked_total`, `amqp_client_returned_total` | counters, messages |
/// | `amqp_client_delivered_total`, `amqp_client_fetched_total`, `amqp_client_acknowledged_total`, `amqp_client_rejected_total` | counters, messages |
/// | `amqp_client_blocked_milliseconds_total` | counter |
/// | `amqp_client_unconfirmed`, `amqp_client_unacked` | gauges, messages |
/// | `amqp_client_buffered_bytes`, `amqp_client_untaken_bytes` | gauges, bytes |
/// | `amqp_client_channels` | gauge |
/// | `amqp_client_connection_open` | gauge: 1 while the connection is open, else 0 |
///
/// ```no_run
/// use amqp_driver::{Connection, metrics::ConnectionMetrics};
/// use std::time::Duration;
///
/// # async fn sleep(_: Duration) {}
/// async fn report(connection: Connection) {
///     let mut metrics = ConnectionMetrics::new("orders");
///     while connection.is_open() {
///         metrics.record(&connection);
///         sleep(Duration::from_secs(5)).await; // of the runtime
///     }
///     metrics.record(&connection);
/// }
/// ```
pub struct ConnectionMetrics {
    counters: Vec<(Counter, Value)>,
    gauges: Vec<(Gauge, Value)>,
    channels: Gauge,
    open: Gauge,
    last: ConnectionStats,
}

/// The value of a metric.
type Value = fn(&ConnectionStats) -> u64;

/// A metric: its name, its unit, its description, and its value.
type Row = (&'static str, Unit, &'static str, Value);

const COUNTERS: [Row; 15] = [
    (
        "amqp_client_sent_bytes_total",
        Unit::Bytes,
        "Bytes handed to the transport",
        |stats| stats.sent.bytes,
    ),
    (
        "amqp_client_received_bytes_total",
        Unit::Bytes,
        "Bytes received",
        |stats| stats.received.bytes,
    ),
    (
        "amqp_client_sent_frames_total",
        Unit::Count,
        "Frames handed to the transport",
        |stats| stats.sent.frames,
    ),
    (
        "amqp_client_received_frames_total",
        Unit::Count,
        "Frames received",
        |stats| stats.received.frames,
    ),
    (
        "amqp_client_sent_heartbeats_total",
        Unit::Count,
        "Heartbeats sent",
        |stats| stats.sent.heartbeats,
    ),
    (
        "amqp_client_received_heartbeats_total",
        Unit::Count,
        "Heartbeats received",
        |stats| stats.received.heartbeats,
    ),
    (
        "amqp_client_published_total",
        Unit::Count,
        "Messages published",
        |stats| stats.published,
    ),
    (
        "amqp_client_confirmed_total",
        Unit::Count,
        "Publishes confirmed with basic.ack",
        |stats| stats.confirmed,
    ),
    (
        "amqp_client_nacked_total",
        Unit::Count,
        "Publishes refused with basic.nack",
        |stats| stats.nacked,
    ),
    (
        "amqp_client_returned_total",
        Unit::Count,
        "Messages returned with basic.return",
        |stats| stats.returned,
    ),
    (
        "amqp_client_delivered_total",
        Unit::Count,
        "Messages delivered to consumers",
        |stats| stats.delivered,
    ),
    (
        "amqp_client_fetched_total",
        Unit::Count,
        "Messages fetched with basic.get",
        |stats| stats.fetched,
    ),
    (
        "amqp_client_acknowledged_total",
        Unit::Count,
        "Deliveries acknowledged",
        |stats| stats.acknowledged,
    ),
    (
        "amqp_client_rejected_total",
        Unit::Count,
        "Deliveries rejected",
        |stats| stats.rejected,
    ),
    (
        "amqp_client_blocked_milliseconds_total",
        Unit::Milliseconds,
        "Time for which the server has blocked publishing",
        |stats| milliseconds(stats.blocked),
    ),
];

const GAUGES: [Row; 4] = [
    (
        "amqp_client_unconfirmed",
        Unit::Count,
        "Publishes without a confirm yet",
        |stats| stats.unconfirmed,
    ),
    (
        "amqp_client_unacked",
        Unit::Count,
        "Deliveries without an acknowledgement yet",
        |stats| stats.unacked,
    ),
    (
        "amqp_client_buffered_bytes",
        Unit::Bytes,
        "Output not handed to the transport yet",
        |stats| stats.buffered,
    ),
    (
        "amqp_client_untaken_bytes",
        Unit::Bytes,
        "Messages received and not taken yet",
        |stats| stats.untaken,
    ),
];

const CHANNELS: &str = "amqp_client_channels";
const OPEN: &str = "amqp_client_connection_open";

impl ConnectionMetrics {
    /// Registers the metrics of a connection of that name with the current recorder. The name is
    /// most useful if it is the `connection_name` of the client properties, which RabbitMQ shows.
    pub fn new(name: impl Into<SharedString>) -> Self {
        let labels = [Label::new("connection", name)];
        let counters = COUNTERS.map(|(name, unit, text, value)| {
            describe_counter!(name, unit, text);
            (counter!(name, labels.iter()), value)
        });
        let gauges = GAUGES.map(|(name, unit, text, value)| {
            describe_gauge!(name, unit, text);
            (gauge!(name, labels.iter()), value)
        });
        describe_gauge!(CHANNELS, Unit::Count, "Channels opening, open or closing");
        describe_gauge!(OPEN, Unit::Count, "1 while the connection is open");
        Self {
            counters: counters.into(),
            gauges: gauges.into(),
            channels: gauge!(CHANNELS, labels.iter()),
            open: gauge!(OPEN, labels.iter()),
            last: ConnectionStats::default(),
        }
    }

    /// Records the progress since the last call, and the present values.
    ///
    /// The counters go on over connections that are recorded one after the other, as those of a
    /// program that connects anew: statistics that have become smaller are those of another
    /// connection.
    pub fn record(&mut self, connection: &Connection) {
        let stats = connection.stats();
        let another = stats.sent.bytes < self.last.sent.bytes
            || stats.received.bytes < self.last.received.bytes;
        let last = if another {
            ConnectionStats::default()
        } else {
            self.last
        };
        for (counter, value) in &self.counters {
            counter.increment(value(&stats).saturating_sub(value(&last)));
        }
        for (gauge, value) in &self.gauges {
            gauge.set(value(&stats) as f64);
        }
        self.channels.set(connection.channel_count() as f64);
        self.open.set(f64::from(u8::from(connection.is_open())));
        self.last = stats;
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for ConnectionMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectionMetrics")
            .field("last", &self.last)
            .finish_non_exhaustive()
    }
}
