//! Stopping and starting in place.

use alloc::{collections::BTreeSet, vec::Vec};

use amqp_core::{Instant, protocol::ReplyCode};

use super::change::Change;
use crate::{
    broker::Broker,
    keys::{ConnectionKey, QueueKey},
};

/// The reply text for the connections of a broker that stops, as RabbitMQ sends it.
const SHUTDOWN: &str =
    "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";

impl Broker {
    /// Stops the broker as RabbitMQ stops in order. Connections are closed with 320
    /// (connection-forced), and their unacknowledged messages are requeued. Then only the durable
    /// state is kept: durable exchanges, durable queues, the bindings between them, and in these
    /// queues the persistent messages; in quorum queues all messages
    /// (<https://www.rabbitmq.com/docs/queues>). A durable `auto-delete` queue that has a consumer
    /// loses it, and is deleted.
    ///
    /// Connections are [refused](Self::accept) until [`start`](Self::start). The clock of TTLs goes
    /// on meanwhile. Without effect on a stopped broker.
    ///
    /// ```
    /// use amqp_broker::{AcceptError, Broker, Config};
    /// use amqp_core::Instant;
    ///
    /// let mut broker = Broker::new(Config::default())?;
    /// broker.stop(Instant::ORIGIN);
    /// assert_eq!(broker.accept(Instant::ORIGIN), Err(AcceptError::Stopped));
    /// broker.start(Instant::ORIGIN);
    /// assert!(broker.accept(Instant::ORIGIN).is_ok());
    /// # Ok::<_, amqp_broker::ConfigError>(())
    /// ```
    pub fn stop(&mut self, now: Instant) {
        if self.stopped {
            return;
        }
        self.advance_clock(now);
        let connections: Vec<ConnectionKey> = self.connections.keys().copied().collect();
        for key in connections {
            if let Some(conn) = self.connections.get_mut(&key) {
                conn.machine.close(ReplyCode::CONNECTION_FORCED, SHUTDOWN);
            }
            self.end_connection(key);
        }
        self.finish();
        self.drop_transient();
        self.stopped = true;
        self.journal.push(Change::Stopped);
    }

    /// Starts a stopped broker: expired messages are dropped or dead-lettered, unused queues expire
    /// from now on (`x-expires`), and connections are accepted again. Without effect on a running
    /// broker.
    pub fn start(&mut self, now: Instant) {
        if !core::mem::take(&mut self.stopped) {
            return;
        }
        self.journal.push(Change::Started);
        self.advance_clock(now);
        self.begin_service();
    }

    /// Returns whether the broker is stopped.
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Processes all queues, unused from now on.
    pub(super) fn begin_service(&mut self) {
        let queues: Vec<QueueKey> = self.queues.keys().copied().collect();
        for key in queues {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.used = self.now;
            }
            self.schedule(key);
        }
        self.finish();
    }

    /// Drops all entities and messages that are not durable. Unlike at a deletion, durable
    /// exchanges with `auto-delete` stay without their bindings, as in RabbitMQ
    /// (`tests/broker/restarts.rs`).
    fn drop_transient(&mut self) {
        self.clear_deadlines();
        let gone = self.queues.iter().filter(|(_, queue)| !queue.durable);
        let gone: BTreeSet<QueueKey> = gone.map(|(key, _)| *key).collect();
        self.queues.retain(|_, queue| queue.durable);
        for queue in self.queues.values_mut() {
            queue.drop_transient();
        }
        for vhost in self.vhosts.values_mut() {
            vhost.drop_transient(&gone);
        }
    }
}
