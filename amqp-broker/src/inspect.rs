//! What a broker holds, as values.

use alloc::{string::String, vec::Vec};

use amqp_core::{
    Tuning,
    wire::{FieldTable, ShortStr},
};

use crate::{
    broker::Broker,
    keys::ConnectionKey,
    model::{channel::Mode, exchange::Destination, queue::Queue, vhost::Vhost},
};

/// What a broker holds at one moment: what a management API would tell.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// The virtual hosts, by name.
    pub vhosts: Vec<VhostInfo>,
    /// The connections, in the order in which they were accepted.
    pub connections: Vec<ConnectionInfo>,
    /// What messages take, in bytes.
    pub memory: usize,
    /// Whether publishers are blocked because memory is short.
    pub memory_alarm: bool,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct VhostInfo {
    /// Its name.
    pub name: String,
    /// Its exchanges, by name.
    pub exchanges: Vec<ExchangeInfo>,
    /// Its queues, by name.
    pub queues: Vec<QueueInfo>,
    /// The bindings, without the implicit ones of the default exchange.
    pub bindings: Vec<BindingInfo>,
}

/// An exchange.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExchangeInfo {
    /// Its name; empty for the default exchange.
    pub name: ShortStr,
    /// Its type, such as `topic`.
    pub kind: &'static str,
    /// Whether it was declared to outlive the broker; it does not.
    pub durable: bool,
    /// Whether it goes with its last binding.
    pub auto_delete: bool,
    /// Whether only other exchanges publish to it.
    pub internal: bool,
    /// The arguments it was declared with.
    pub arguments: FieldTable,
}

/// A queue.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its name.
    pub name: ShortStr,
    /// Whether it was declared to outlive the broker; it does not.
    pub durable: bool,
    /// Whether it goes with its last consumer.
    pub auto_delete: bool,
    /// The connection that has it for itself.
    pub owner: Option<ConnectionKey>,
    /// The arguments it was declared with.
    pub arguments: FieldTable,
    /// How many messages wait to be delivered.
    pub ready: usize,
    /// How many were delivered and not acknowledged.
    pub unacked: u64,
    /// Its consumers, in the order in which they came.
    pub consumers: Vec<ConsumerInfo>,
}

/// A consumer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its tag.
    pub tag: ShortStr,
    /// The connection it is on.
    pub connection: ConnectionKey,
    /// The number of the channel it is on.
    pub channel: u16,
    /// Whether it does not acknowledge.
    pub no_ack: bool,
    /// Whether it has the queue for itself.
    pub exclusive: bool,
    /// How many deliveries it may have unacknowledged; 0 for no limit.
    pub prefetch: u16,
    /// Its priority.
    pub priority: i64,
    /// Whether it is given messages. It is not while another one is the single active consumer.
    pub active: bool,
    /// The arguments it came with.
    pub arguments: FieldTable,
}

/// What a binding leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BindingTarget {
    /// A queue.
    Queue(ShortStr),
    /// Another exchange.
    Exchange(ShortStr),
}

/// A binding.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct BindingInfo {
    /// The exchange that messages come from.
    pub source: ShortStr,
    /// Where they go.
    pub destination: BindingTarget,
    /// The key or pattern.
    pub routing_key: ShortStr,
    /// The arguments.
    pub arguments: FieldTable,
}

/// A connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Which connection.
    pub key: ConnectionKey,
    /// Who has logged in; empty before.
    pub user: String,
    /// The virtual host; empty before it is open.
    pub vhost: String,
    /// What the client said of itself.
    pub client_properties: FieldTable,
    /// What was negotiated.
    pub tuning: Tuning,
    /// Whether it is not read from because it published while memory was short.
    pub blocked: bool,
    /// Its channels, by number.
    pub channels: Vec<ChannelInfo>,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its number.
    pub number: u16,
    /// How many consumers it has.
    pub consumers: usize,
    /// How many deliveries it has not acknowledged.
    pub unacked: usize,
    /// How many deliveries a new consumer may have unacknowledged; 0 for no limit.
    pub prefetch: u16,
    /// How many all consumers together may; 0 for no limit.
    pub global_prefetch: u16,
    /// Whether its publishes are confirmed.
    pub confirms: bool,
    /// Whether it is transactional.
    pub transactional: bool,
}

impl Inspection {
    /// The virtual host of that name.
    #[must_use]
    pub fn vhost(&self, name: &str) -> Option<&VhostInfo> {
        self.vhosts.iter().find(|vhost| vhost.name == name)
    }

    /// The queue of that name in the virtual host `/`.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&QueueInfo> {
        self.vhost("/")?.queue(name)
    }
}

impl VhostInfo {
    /// The queue of that name.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&QueueInfo> {
        self.queues.iter().find(|queue| queue.name == *name)
    }

    /// The exchange of that name.
    #[must_use]
    pub fn exchange(&self, name: &str) -> Option<&ExchangeInfo> {
        self.exchanges
            .iter()
            .find(|exchange| exchange.name == *name)
    }
}

impl Broker {
    /// What it holds now.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        let connections = self.links.iter().map(|(key, link)| ConnectionInfo {
            key: *key,
            user: link.user.clone(),
            vhost: link.vhost.clone(),
            client_properties: link.machine.client_properties().clone(),
            tuning: *link.machine.tuning(),
            blocked: link.blocked,
            channels: link
                .channels
                .values()
                .map(|channel| ChannelInfo {
                    number: channel.id.number(),
                    consumers: channel.consumers.len(),
                    unacked: channel.unacked.len(),
                    prefetch: channel.prefetch,
                    global_prefetch: channel.global_prefetch,
                    confirms: matches!(channel.mode, Mode::Confirm(_)),
                    transactional: matches!(channel.mode, Mode::Transaction(_)),
                })
                .collect(),
        });
        Inspection {
            vhosts: self
                .vhosts
                .values()
                .map(|vhost| self.inspect_vhost(vhost))
                .collect(),
            connections: connections.collect(),
            memory: self.gauge.get(),
            memory_alarm: self.alarm,
        }
    }

    fn inspect_vhost(&self, vhost: &Vhost) -> VhostInfo {
        let exchanges = vhost.exchanges.iter().map(|(name, exchange)| ExchangeInfo {
            name: name.clone(),
            kind: exchange.kind.name(),
            durable: exchange.durable,
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            arguments: exchange.arguments.clone(),
        });
        let queues = vhost.queues.values().filter_map(|key| self.queues.get(key));
        let bindings = vhost.exchanges.iter().flat_map(|(source, exchange)| {
            exchange.bindings().iter().filter_map(|binding| {
                let destination = match &binding.destination {
                    Destination::Queue(key) => {
                        BindingTarget::Queue(self.queues.get(key)?.name.clone())
                    }
                    Destination::Exchange(name) => BindingTarget::Exchange(name.clone()),
                };
                Some(BindingInfo {
                    source: source.clone(),
                    destination,
                    routing_key: binding.routing_key.clone(),
                    arguments: binding.arguments.clone(),
                })
            })
        });
        VhostInfo {
            name: vhost.name.clone(),
            exchanges: exchanges.collect(),
            queues: queues.map(inspect_queue).collect(),
            bindings: bindings.collect(),
        }
    }
}

fn inspect_queue(queue: &Queue) -> QueueInfo {
    let consumers = queue.consumers.iter().map(|(key, consumer)| ConsumerInfo {
        tag: consumer.tag.clone(),
        connection: consumer.channel.connection,
        channel: consumer.channel.id.number(),
        no_ack: consumer.no_ack,
        exclusive: consumer.exclusive,
        prefetch: consumer.prefetch,
        priority: consumer.priority,
        active: queue.is_served(*key),
        arguments: consumer.arguments.clone(),
    });
    QueueInfo {
        name: queue.name.clone(),
        durable: queue.durable,
        auto_delete: queue.auto_delete,
        owner: queue.owner,
        arguments: queue.table.clone(),
        ready: queue.len(),
        unacked: queue.unacked,
        consumers: consumers.collect(),
    }
}
