//! Changes of the durable state.

use alloc::{string::String, vec::Vec};

use amqp_core::{
    Body, EncodedProperties,
    wire::{FieldTable, FieldValue, ShortStr},
};

use crate::{
    admin::VhostLimits,
    config::User,
    inspect::BindingTarget,
    policy::{Policy, PolicyKind},
};

/// A change of the durable state of a broker: of durable exchanges, durable queues, the bindings
/// between them, and the persistent messages in these queues. Quorum queues and streams keep
/// transient messages too (<https://www.rabbitmq.com/docs/quorum-queues>). Users, virtual hosts,
/// policies and parameters belong to it as far as they were changed at run time: the others are in
/// the [configuration](crate::Config).
///
/// A sequence of changes is the state that they lead to: see
/// [`Broker::restore`](crate::Broker::restore). A change has a stable form of [bytes](Self::encode).
///
/// The enum is exhaustive: a host that stores each kind in its own way does not compile with a new
/// one, and so loses none.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::exhaustive_enums, reason = "see above")]
pub enum Change {
    /// An exchange is declared.
    ExchangeDeclared(DurableExchange),
    /// An exchange is deleted, with all bindings from it and to it.
    ExchangeDeleted {
        /// The virtual host.
        vhost: String,
        /// The name.
        name: ShortStr,
    },
    /// A queue is declared.
    QueueDeclared(DurableQueue),
    /// A queue is deleted, with its messages and all bindings to it.
    QueueDeleted {
        /// The number of the queue.
        queue: u64,
    },
    /// A binding is added.
    Bound(DurableBinding),
    /// A binding is removed.
    Unbound(DurableBinding),
    /// A message is added to a queue.
    Enqueued(DurableMessage),
    /// A message of a quorum queue is delivered, and is not acknowledged yet. Deliveries of classic
    /// queues are no changes.
    Delivered {
        /// The number of the queue.
        queue: u64,
        /// The number of the message in it.
        message: u64,
    },
    /// A delivered message is ready again.
    Requeued {
        /// The number of the queue.
        queue: u64,
        /// The number of the message in it.
        message: u64,
        /// Its new state.
        state: MessageState,
    },
    /// A message has left its queue: it is acknowledged, dropped or dead-lettered.
    Removed {
        /// The number of the queue.
        queue: u64,
        /// The number of the message in it.
        message: u64,
    },
    /// A segment of a stream begins after the one before
    /// (<https://www.rabbitmq.com/docs/streams#retention>).
    SegmentBegun {
        /// The number of the queue.
        queue: u64,
        /// The offset of its first message.
        first: u64,
    },
    /// A message is appended to a stream.
    Appended(StreamMessage),
    /// The oldest segments of a stream are dropped.
    SegmentsDropped {
        /// The number of the queue.
        queue: u64,
        /// The first offset of the segments that remain.
        first: u64,
    },
    /// A user is added or changed at run time. It replaces the one of that name.
    UserSet(User),
    /// A user is deleted.
    UserDeleted {
        /// The name.
        name: String,
    },
    /// A virtual host is added or changed at run time.
    VhostSet(DurableVhost),
    /// A virtual host is deleted, with its policies and parameters. Its queues and exchanges are
    /// deleted by changes of their own, and the users with permissions in it are changed.
    VhostDeleted {
        /// The name.
        name: String,
    },
    /// A policy is set, in place of one of that kind and name.
    PolicySet {
        /// The virtual host.
        vhost: String,
        /// Its kind.
        kind: PolicyKind,
        /// The policy.
        policy: Policy,
    },
    /// A policy is cleared.
    PolicyCleared {
        /// The virtual host.
        vhost: String,
        /// Its kind.
        kind: PolicyKind,
        /// Its name.
        name: String,
    },
    /// A runtime parameter is set (<https://www.rabbitmq.com/docs/parameters>).
    ParameterSet {
        /// The virtual host.
        vhost: String,
        /// The component.
        component: String,
        /// The name.
        name: String,
        /// The value.
        value: FieldValue,
    },
    /// A global runtime parameter is set.
    GlobalParameterSet {
        /// The name.
        name: String,
        /// The value.
        value: FieldValue,
    },
    /// The broker has stopped in order. A sequence that does not end with it is that of a crash.
    Stopped,
    /// The broker has started again, or is restored.
    Started,
}

/// A virtual host.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DurableVhost {
    /// The name.
    pub name: String,
    /// The limits.
    pub limits: VhostLimits,
    /// The description, the tags, and other data without an effect here.
    pub metadata: FieldTable,
}

/// A durable exchange.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DurableExchange {
    /// The virtual host.
    pub vhost: String,
    /// The name.
    pub name: ShortStr,
    /// The type, such as `topic`.
    pub kind: ShortStr,
    /// Whether it is deleted with its last binding.
    pub auto_delete: bool,
    /// Whether it accepts messages only from other exchanges.
    pub internal: bool,
    /// The arguments of its declaration.
    pub arguments: FieldTable,
}

/// A durable queue.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DurableQueue {
    /// The number of the queue, which no other queue has had. Queues have ascending numbers in the
    /// order of their declaration.
    pub number: u64,
    /// The virtual host.
    pub vhost: String,
    /// The name.
    pub name: ShortStr,
    /// Whether it is deleted with its last consumer.
    pub auto_delete: bool,
    /// The arguments of its declaration.
    pub arguments: FieldTable,
}

/// A binding between a durable exchange and a durable queue or exchange.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DurableBinding {
    /// The virtual host.
    pub vhost: String,
    /// The source exchange.
    pub source: ShortStr,
    /// The destination.
    pub destination: BindingTarget,
    /// The routing key or pattern.
    pub routing_key: ShortStr,
    /// The arguments.
    pub arguments: FieldTable,
}

/// A message in a durable queue. A message in several queues occurs once for each.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DurableMessage {
    /// The number of the queue.
    pub queue: u64,
    /// The number of the message, which no other message in this queue has had. Messages have
    /// ascending numbers in the order in which they were added.
    pub number: u64,
    /// Its state.
    pub state: MessageState,
    /// The time at which it expires, in milliseconds since the Unix epoch. `Some` if the queue or
    /// the message has a TTL (<https://www.rabbitmq.com/docs/ttl>).
    pub expires: Option<u64>,
    /// The exchange that it was published to.
    pub exchange: ShortStr,
    /// The routing key that it was published with.
    pub routing_key: ShortStr,
    /// The additional routing keys of its headers `CC` and `BCC`, of any length.
    pub more_keys: Vec<String>,
    /// The properties.
    pub properties: EncodedProperties,
    /// The body.
    pub body: Body,
}

impl PartialEq for DurableMessage {
    fn eq(&self, other: &Self) -> bool {
        let place = |message: &Self| (message.queue, message.number, message.state);
        place(self) == place(other)
            && self.expires == other.expires
            && self.exchange == other.exchange
            && self.routing_key == other.routing_key
            && self.more_keys == other.more_keys
            && self.properties.as_bytes() == other.properties.as_bytes()
            && self.body.clone().into_bytes() == other.body.clone().into_bytes()
    }
}

/// A message in a stream.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StreamMessage {
    /// The number of the queue.
    pub queue: u64,
    /// Its offset. Offsets ascend, without gaps within a segment.
    pub offset: u64,
    /// The time of its arrival, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// The exchange that it was published to.
    pub exchange: ShortStr,
    /// The routing key that it was published with.
    pub routing_key: ShortStr,
    /// The properties.
    pub properties: EncodedProperties,
    /// The body.
    pub body: Body,
}

impl PartialEq for StreamMessage {
    fn eq(&self, other: &Self) -> bool {
        let place = |message: &Self| (message.queue, message.offset, message.timestamp);
        place(self) == place(other)
            && self.exchange == other.exchange
            && self.routing_key == other.routing_key
            && self.properties.as_bytes() == other.properties.as_bytes()
            && self.body.clone().into_bytes() == other.body.clone().into_bytes()
    }
}

/// The state of a message in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MessageState {
    /// The place in the queue: messages of one priority are in the order of their positions.
    pub position: u64,
    /// Whether it was delivered before.
    pub redelivered: bool,
    /// The number of requeues.
    pub requeues: u64,
    /// Whether it precedes all messages of a quorum queue that were never delivered.
    pub returned: bool,
    /// Whether it is delivered and not acknowledged.
    pub unacked: bool,
}
