//! The state of a broker, as values.

use alloc::{string::String, vec::Vec};

use amqp_core::{
    ConnectionStats, Tuning,
    wire::{FieldTable, ShortStr},
};
use bytes::Bytes;

use crate::{
    admin::VhostLimits,
    broker::Broker,
    keys::ConnectionKey,
    listing::MessageCounts,
    model::{
        channel::Mode,
        conn_state::ConnState,
        exchange::{Binding, Destination},
        queue::Queue,
        vhost::Vhost,
    },
    policy::{AppliedPolicies, Policy},
    user_info::UserInfo,
};

/// The state of a broker at one moment, as a management API would return it.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Inspection {
    /// The virtual hosts, by name.
    pub vhosts: Vec<VhostInfo>,
    /// The users, by name.
    pub users: Vec<UserInfo>,
    /// The connections, in the order in which they were accepted.
    pub connections: Vec<ConnectionInfo>,
    /// The memory that messages occupy, in bytes.
    pub memory: usize,
    /// Whether the memory alarm is raised, which blocks connections that publish.
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
    /// Its limits.
    pub limits: VhostLimits,
    /// Its policies, by name.
    pub policies: Vec<Policy>,
    /// Its operator policies, by name.
    pub operator_policies: Vec<Policy>,
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
    /// Whether it outlives a [stop](Broker::stop) of the broker.
    pub durable: bool,
    /// Whether it is deleted with its last binding.
    pub auto_delete: bool,
    /// Whether it accepts messages only from other exchanges.
    pub internal: bool,
    /// The arguments of its declaration.
    pub arguments: FieldTable,
    /// The policies that apply to it.
    pub policies: AppliedPolicies,
}

/// A queue.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct QueueInfo {
    /// Its name.
    pub name: ShortStr,
    /// Whether it outlives a [stop](Broker::stop) of the broker.
    pub durable: bool,
    /// Whether it is deleted with its last consumer.
    pub auto_delete: bool,
    /// `Some` for an exclusive queue: the connection that it belongs to.
    pub owner: Option<ConnectionKey>,
    /// The arguments of its declaration.
    pub arguments: FieldTable,
    /// The policies that apply to it.
    pub policies: AppliedPolicies,
    /// The number of ready messages, or of those in a stream.
    pub ready: usize,
    /// The number of unacknowledged messages.
    pub unacked: u64,
    /// Its messages since it was declared.
    pub messages: MessageCounts,
    /// Its consumers, in the order in which they were added.
    pub consumers: Vec<ConsumerInfo>,
}

/// A consumer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConsumerInfo {
    /// Its tag.
    pub tag: ShortStr,
    /// Its connection.
    pub connection: ConnectionKey,
    /// The number of its channel.
    pub channel: u16,
    /// Whether its deliveries need no acknowledgement.
    pub no_ack: bool,
    /// Whether it has exclusive access to the queue.
    pub exclusive: bool,
    /// The maximum number of unacknowledged deliveries; 0 for no limit.
    pub prefetch: u16,
    /// Its priority.
    pub priority: i64,
    /// Whether it receives messages. `false` while another one is the single active consumer.
    pub active: bool,
    /// The offset of the next message that it reads: `Some` for a consumer of a stream.
    pub next_offset: Option<u64>,
    /// Its arguments.
    pub arguments: FieldTable,
}

/// The destination of a binding.
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
    /// The source exchange.
    pub source: ShortStr,
    /// The destination.
    pub destination: BindingTarget,
    /// The routing key or pattern.
    pub routing_key: ShortStr,
    /// The arguments.
    pub arguments: FieldTable,
}

/// A connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// Its key.
    pub key: ConnectionKey,
    /// The authenticated user; empty before the login.
    pub user: String,
    /// The virtual host; empty before it is open.
    pub vhost: String,
    /// The client properties.
    pub client_properties: FieldTable,
    /// The certificate of the client, in DER: `Some` if the transport has received one.
    pub certificate: Option<Bytes>,
    /// The negotiated limits.
    pub tuning: Tuning,
    /// Whether it is blocked and not read from, because it published during a memory alarm.
    pub blocked: bool,
    /// Its channels, by number.
    pub channels: Vec<ChannelInfo>,
    /// Its bytes, frames and messages.
    pub stats: ConnectionStats,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ChannelInfo {
    /// Its number.
    pub number: u16,
    /// The number of its consumers.
    pub consumers: usize,
    /// The number of its unacknowledged deliveries.
    pub unacked: usize,
    /// The prefetch limit of a new consumer; 0 for no limit.
    pub prefetch: u16,
    /// The prefetch limit of all consumers together; 0 for no limit.
    pub global_prefetch: u16,
    /// Whether it is in confirm mode.
    pub confirms: bool,
    /// Whether it is transactional.
    pub transactional: bool,
}

impl Inspection {
    /// Returns the virtual host of that name.
    #[must_use]
    pub fn vhost(&self, name: &str) -> Option<&VhostInfo> {
        self.vhosts.iter().find(|vhost| vhost.name == name)
    }

    /// Returns the queue of that name in the virtual host `/`.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&QueueInfo> {
        self.vhost("/")?.queue(name)
    }
}

impl VhostInfo {
    /// Returns the queue of that name.
    #[must_use]
    pub fn queue(&self, name: &str) -> Option<&QueueInfo> {
        self.queues.iter().find(|queue| queue.name == *name)
    }

    /// Returns the exchange of that name.
    #[must_use]
    pub fn exchange(&self, name: &str) -> Option<&ExchangeInfo> {
        self.exchanges
            .iter()
            .find(|exchange| exchange.name == *name)
    }
}

impl Broker {
    /// Returns the current state.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        let connections = self.connections.iter();
        let connections = connections.map(|(key, conn)| inspect_conn(*key, conn));
        Inspection {
            vhosts: self
                .vhosts
                .values()
                .map(|vhost| self.inspect_vhost(vhost))
                .collect(),
            users: self.list_users(),
            connections: connections.collect(),
            memory: self.memory.get(),
            memory_alarm: self.alarm,
        }
    }

    /// Returns the current state of one queue, at less cost than that of [all](Self::inspect).
    ///
    /// ```
    /// use amqp_broker::{Broker, Config};
    ///
    /// let broker = Broker::new(Config::default())?;
    /// assert!(broker.queue("/", "tasks").is_none());
    /// # Ok::<_, amqp_broker::ConfigError>(())
    /// ```
    #[must_use]
    pub fn queue(&self, vhost: &str, name: &str) -> Option<QueueInfo> {
        let key = self.vhosts.get(vhost)?.queues.get(name)?;
        let queue = self.queues.get(key)?;
        Some(inspect_queue(queue, self.message_count(*key)))
    }

    fn inspect_vhost(&self, vhost: &Vhost) -> VhostInfo {
        let exchanges = vhost.exchanges.iter().map(|(name, exchange)| ExchangeInfo {
            name: name.clone(),
            kind: exchange.kind.name(),
            durable: exchange.durable,
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            arguments: exchange.arguments.clone(),
            policies: exchange.policies.clone(),
        });
        let queues = vhost.queues.values().filter_map(|key| {
            let queue = self.queues.get(key)?;
            Some(inspect_queue(queue, self.message_count(*key)))
        });
        let bindings = vhost.exchanges.iter().flat_map(|(source, exchange)| {
            let bindings = exchange.bindings().iter();
            bindings.filter_map(|binding| self.inspect_binding(source, binding))
        });
        VhostInfo {
            name: vhost.name.clone(),
            exchanges: exchanges.collect(),
            queues: queues.collect(),
            bindings: bindings.collect(),
            limits: vhost.limits,
            policies: vhost.policies.values().cloned().collect(),
            operator_policies: vhost.operator_policies.values().cloned().collect(),
        }
    }

    pub(crate) fn inspect_binding(
        &self,
        source: &ShortStr,
        binding: &Binding,
    ) -> Option<BindingInfo> {
        let destination = match &binding.destination {
            Destination::Queue(key) => BindingTarget::Queue(self.queues.get(key)?.name.clone()),
            Destination::Exchange(name) => BindingTarget::Exchange(name.clone()),
        };
        Some(BindingInfo {
            source: source.clone(),
            destination,
            routing_key: binding.routing_key.clone(),
            arguments: binding.arguments.clone(),
        })
    }
}

pub(crate) fn inspect_conn(key: ConnectionKey, conn: &ConnState) -> ConnectionInfo {
    let channels = conn.channels.values().map(|channel| ChannelInfo {
        number: channel.id.number(),
        consumers: channel.consumers.len(),
        unacked: channel.unacked.len(),
        prefetch: channel.prefetch,
        global_prefetch: channel.global_prefetch,
        confirms: matches!(channel.mode, Mode::Confirm(_)),
        transactional: matches!(channel.mode, Mode::Transaction(_)),
    });
    ConnectionInfo {
        key,
        user: conn.user.clone(),
        vhost: conn.vhost.clone(),
        client_properties: conn.machine.client_properties().clone(),
        certificate: conn.certificate.clone(),
        tuning: *conn.machine.tuning(),
        blocked: conn.blocked,
        channels: channels.collect(),
        stats: conn.machine.stats(),
    }
}

fn inspect_queue(queue: &Queue, ready: usize) -> QueueInfo {
    let consumers = queue.consumers.iter().map(|(key, consumer)| ConsumerInfo {
        tag: consumer.tag.clone(),
        connection: consumer.channel.connection,
        channel: consumer.channel.id.number(),
        no_ack: consumer.no_ack,
        exclusive: consumer.exclusive,
        prefetch: consumer.prefetch,
        priority: consumer.priority,
        active: queue.is_active(*key),
        next_offset: consumer.next_offset,
        arguments: consumer.arguments.clone(),
    });
    QueueInfo {
        name: queue.name.clone(),
        durable: queue.durable,
        auto_delete: queue.auto_delete,
        owner: queue.owner,
        arguments: queue.table.clone(),
        policies: queue.policies.clone(),
        ready,
        unacked: queue.unacked,
        messages: queue.messages,
        consumers: consumers.collect(),
    }
}
