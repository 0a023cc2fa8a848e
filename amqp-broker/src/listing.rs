//! The state of a broker in bounded pieces, for a monitor of a broker that serves clients.
//!
//! [`Broker::inspect`] copies everything in one call. These calls copy at most `limit` entities, and
//! continue after the last one of the previous call.

use alloc::{string::String, vec::Vec};
use core::ops::Bound;

use amqp_core::{EncodedProperties, wire::ShortStr};

use crate::{
    broker::Broker,
    inspect::{BindingInfo, ConnectionInfo},
    keys::ConnectionKey,
    model::{message::Message, queue::Queue, vhost::Vhost},
};

/// Counts of messages. They only grow: a rate is the difference of two copies over the time between
/// them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageCounts {
    /// Of a queue, the messages that were added to it, dead letters included. Of a broker, the
    /// messages that it has received, routed or not.
    pub published: u64,
    /// Deliveries to consumers and results of `basic.get`, redeliveries included.
    pub delivered: u64,
    /// Deliveries that were acknowledged with `basic.ack`.
    pub acked: u64,
}

/// The sums of a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Totals {
    /// The messages since the broker was created.
    pub messages: MessageCounts,
    /// The number of connections.
    pub connections: usize,
    /// The number of queues.
    pub queues: usize,
    /// The number of exchanges, predeclared ones included.
    pub exchanges: usize,
    /// The memory that messages occupy, in bytes.
    pub memory: usize,
    /// The memory above which the alarm is raised, in bytes.
    pub memory_limit: usize,
    /// Whether the memory alarm is raised, which blocks connections that publish.
    pub memory_alarm: bool,
}

/// A queue, without its consumers and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct QueueSummary {
    /// Its virtual host.
    pub vhost: String,
    /// Its name.
    pub name: ShortStr,
    /// Whether it was declared durable.
    pub durable: bool,
    /// Whether it is deleted with its last consumer.
    pub auto_delete: bool,
    /// `Some` for an exclusive queue: the connection that it belongs to.
    pub owner: Option<ConnectionKey>,
    /// The number of ready messages, or of those in a stream.
    pub ready: usize,
    /// The number of unacknowledged messages.
    pub unacked: u64,
    /// The number of consumers.
    pub consumers: usize,
    /// Its messages since it was declared.
    pub messages: MessageCounts,
}

/// An exchange, without its bindings and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ExchangeSummary {
    /// Its virtual host.
    pub vhost: String,
    /// Its name; empty for the default exchange.
    pub name: ShortStr,
    /// Its type, such as `topic`.
    pub kind: &'static str,
    /// Whether it was declared durable.
    pub durable: bool,
    /// Whether it is deleted with its last binding.
    pub auto_delete: bool,
    /// Whether it accepts messages only from other exchanges.
    pub internal: bool,
    /// The number of bindings from it.
    pub bindings: usize,
}

/// A message in a queue.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct PeekedMessage {
    /// The exchange that it was published to.
    pub exchange: ShortStr,
    /// The routing key that it was published with.
    pub routing_key: ShortStr,
    /// Whether it has been delivered before.
    pub redelivered: bool,
    /// The properties.
    pub properties: EncodedProperties,
    /// The size of the body, in bytes.
    pub size: usize,
    /// The beginning of the body.
    pub body: Vec<u8>,
}

impl Broker {
    /// Returns the sums, in a time that does not grow with queues, messages or connections.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals {
            messages: self.messages,
            connections: self.connections.len(),
            queues: self.queues.len(),
            exchanges: self.vhosts.values().map(|it| it.exchanges.len()).sum(),
            memory: self.memory.get(),
            memory_limit: self.config.limits.memory,
            memory_alarm: self.alarm,
        }
    }

    /// Returns at most `limit` queues by virtual host and name. With `after`, those behind that
    /// virtual host and name, which need not exist.
    ///
    /// ```
    /// use amqp_broker::{Broker, Config};
    ///
    /// let broker = Broker::new(Config::default())?;
    /// let mut queues = Vec::new();
    /// loop {
    ///     let last = queues.last();
    ///     let after = last.map(|it: &amqp_broker::QueueSummary| (&*it.vhost, &*it.name));
    ///     let more = broker.list_queues(after, 500);
    ///     if more.is_empty() {
    ///         break;
    ///     }
    ///     queues.extend(more);
    /// }
    /// assert!(queues.is_empty());
    /// # Ok::<_, amqp_broker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn list_queues(&self, after: Option<(&str, &str)>, limit: usize) -> Vec<QueueSummary> {
        let names = self.vhosts_from(after).flat_map(|(vhost, from)| {
            let queues = vhost.queues.range::<str, _>((from, Bound::Unbounded));
            queues.filter_map(|(_, key)| {
                let queue = self.queues.get(key)?;
                Some(summarize(queue, self.message_count(*key)))
            })
        });
        names.take(limit).collect()
    }

    /// Returns at most `limit` exchanges by virtual host and name, as
    /// [`list_queues`](Self::list_queues) does queues.
    #[must_use]
    pub fn list_exchanges(
        &self,
        after: Option<(&str, &str)>,
        limit: usize,
    ) -> Vec<ExchangeSummary> {
        let exchanges = self.vhosts_from(after).flat_map(|(vhost, from)| {
            let exchanges = vhost.exchanges.range::<str, _>((from, Bound::Unbounded));
            exchanges.map(|(name, exchange)| ExchangeSummary {
                vhost: vhost.name.clone(),
                name: name.clone(),
                kind: exchange.kind.name(),
                durable: exchange.durable,
                auto_delete: exchange.auto_delete,
                internal: exchange.internal,
                bindings: exchange.bindings().len(),
            })
        });
        exchanges.take(limit).collect()
    }

    /// Returns at most `limit` bindings from an exchange: `Some` if it exists. The default exchange
    /// has none.
    #[must_use]
    pub fn list_bindings(
        &self,
        vhost: &str,
        exchange: &str,
        limit: usize,
    ) -> Option<Vec<BindingInfo>> {
        let (name, exchange) = self.vhosts.get(vhost)?.exchanges.get_key_value(exchange)?;
        let bindings = exchange.bindings().iter();
        let bindings = bindings.filter_map(|binding| self.inspect_binding(name, binding));
        Some(bindings.take(limit).collect())
    }

    /// Returns at most `limit` connections with a [number](ConnectionKey::number) above `after`, in
    /// the order in which they were accepted.
    #[must_use]
    pub fn list_connections(&self, after: u64, limit: usize) -> Vec<ConnectionInfo> {
        let from = Bound::Excluded(ConnectionKey(after));
        let connections = self.connections.range((from, Bound::Unbounded));
        let connections = connections.map(|(key, conn)| crate::inspect::inspect_conn(*key, conn));
        connections.take(limit).collect()
    }

    /// Returns at most `limit` messages from the front of a queue, each with at most `body_limit`
    /// bytes of its body: `Some` if the queue exists. The messages stay as they are: unlike
    /// `basic.get` with a requeue, this does not mark them as redelivered.
    #[must_use]
    pub fn peek(
        &self,
        vhost: &str,
        queue: &str,
        limit: usize,
        body_limit: usize,
    ) -> Option<Vec<PeekedMessage>> {
        let key = self.vhosts.get(vhost)?.queues.get(queue)?;
        if let Some(stream) = self.streams.get(key) {
            let messages = stream.messages().take(limit);
            return Some(
                messages
                    .map(|message| peeked(message, false, body_limit))
                    .collect(),
            );
        }
        let entries = self.queues.get(key)?.entries().take(limit);
        let messages =
            entries.map(|(_, entry)| peeked(&entry.message, entry.redelivered, body_limit));
        Some(messages.collect())
    }

    /// Returns the virtual hosts from that of `after` on, each with the bound of the names to begin
    /// at.
    fn vhosts_from<'a>(
        &'a self,
        after: Option<(&'a str, &'a str)>,
    ) -> impl Iterator<Item = (&'a Vhost, Bound<&'a str>)> {
        let from = after.map_or(Bound::Unbounded, |(vhost, _)| Bound::Included(vhost));
        let vhosts = self.vhosts.range::<str, _>((from, Bound::Unbounded));
        vhosts.map(move |(name, vhost)| {
            let names = match after {
                Some((first, last)) if first == name => Bound::Excluded(last),
                Some(_) | None => Bound::Unbounded,
            };
            (vhost, names)
        })
    }
}

fn summarize(queue: &Queue, ready: usize) -> QueueSummary {
    QueueSummary {
        vhost: queue.vhost.clone(),
        name: queue.name.clone(),
        durable: queue.durable,
        auto_delete: queue.auto_delete,
        owner: queue.owner,
        ready,
        unacked: queue.unacked,
        consumers: queue.consumers.len(),
        messages: queue.messages,
    }
}

fn peeked(message: &Message, redelivered: bool, body_limit: usize) -> PeekedMessage {
    let mut body = Vec::new();
    for piece in message.body.pieces() {
        let room = body_limit - body.len();
        body.extend_from_slice(piece.get(..room).unwrap_or(piece));
    }
    PeekedMessage {
        exchange: message.exchange.clone(),
        routing_key: message.routing_key.clone(),
        redelivered,
        properties: message.properties.clone(),
        size: message.body.len(),
        body,
    }
}
