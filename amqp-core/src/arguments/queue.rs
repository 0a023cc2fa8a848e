//! Presets of queues, with the settings that each type has.

use core::{fmt, marker::PhantomData, time::Duration};

use super::{
    ArgumentError, FirstError, TIME_MAX, bound, interval, millis, number, required, set, short,
};
use crate::{
    protocol::queue,
    wire::{FieldValue, IntoShortStr, ShortStr},
};

/// A declaration of a queue of a type `K`, which [`declare`](Self::declare) returns, or the error of
/// a setting that RabbitMQ refuses.
///
/// | preset | queue | shared | replicated |
/// |---|---|---|---|
/// | [`Queue::classic`] | durable, on one node | yes | no |
/// | [`Queue::exclusive`], [`Queue::server_named`] | transient, of one connection | no | no |
/// | [`Queue::quorum`] | durable, with a delivery limit | yes | yes |
/// | [`Queue::stream`] | durable, a log that consumers do not empty | yes | yes |
///
/// No preset is transient and shared, which RabbitMQ 4.3 refuses
/// (<https://www.rabbitmq.com/docs/queues#durability>).
///
/// The type is always in the arguments, because a virtual host may have another default
/// (<https://www.rabbitmq.com/docs/vhosts#default-queue-type>).
///
/// ```
/// use amqp_core::arguments::{ClassicOverflow, Queue};
///
/// let latest = Queue::classic("latest")
///     .max_length(1000)
///     .overflow(ClassicOverflow::DropHead)
///     .declare()?;
/// let replies = Queue::server_named().declare()?;
/// assert!(latest.durable && !replies.durable && replies.exclusive);
/// # Ok::<(), amqp_core::arguments::ArgumentError>(())
/// ```
///
/// A setting of another type does not compile:
///
/// ```compile_fail,E0599
/// # use amqp_core::arguments::Queue;
/// let log = Queue::stream("log").max_length(1000);
/// ```
/// ```compile_fail,E0599
/// # use amqp_core::arguments::Queue;
/// let orders = Queue::quorum("orders").max_priority(5);
/// ```
/// ```compile_fail,E0599
/// # use amqp_core::arguments::{DeadLetter, QuorumOverflow, Queue};
/// let orders = Queue::quorum("orders").dead_letter_at_least_once(DeadLetter::to("failed"));
/// let orders = orders.overflow(QuorumOverflow::DropHead);
/// ```
#[must_use = "a preset does nothing until its declaration is sent"]
pub struct Queue<K> {
    declare: queue::Declare,
    error: FirstError,
    kind: PhantomData<K>,
}

/// A durable classic queue (<https://www.rabbitmq.com/docs/classic-queues>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Classic {}

/// A transient classic queue of one connection, which is deleted with it
/// (<https://www.rabbitmq.com/docs/queues#exclusive-queues>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exclusive {}

/// A quorum queue (<https://www.rabbitmq.com/docs/quorum-queues>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quorum {}

/// A quorum queue that dead-letters at least once, see [`Queue::dead_letter_at_least_once`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AtLeastOnce {}

/// A stream (<https://www.rabbitmq.com/docs/streams>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {}

/// A type of queue.
pub trait QueueKind: sealed::Sealed {}

/// A type of queue that messages leave when they are consumed: all but streams.
pub trait Consuming: QueueKind {}

/// A classic queue.
pub trait ClassicKind: Consuming {}

/// A quorum queue.
pub trait QuorumKind: Consuming {}

/// A type of queue with a leader that can be placed on a node.
pub trait Located: QueueKind {}

macro_rules! kinds {
    ($($kind:ident: $($property:ident),*;)*) => {$(
        impl sealed::Sealed for $kind {}
        $(impl $property for $kind {})*
    )*};
}

kinds! {
    Classic: QueueKind, Consuming, ClassicKind, Located;
    Exclusive: QueueKind, Consuming, ClassicKind;
    Quorum: QueueKind, Consuming, QuorumKind, Located;
    AtLeastOnce: QueueKind, Consuming, QuorumKind, Located;
    Stream: QueueKind, Located;
}

mod sealed {
    pub trait Sealed {}
}

/// The handling of a message that exceeds the length of a classic queue
/// (<https://www.rabbitmq.com/docs/maxlength#overflow-behaviour>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClassicOverflow {
    /// Drops or dead-letters the oldest message. The server's default.
    DropHead,
    /// Rejects the new message: its publish is nacked.
    RejectPublish,
    /// Rejects the new message, and dead-letters it.
    RejectPublishDlx,
}

/// The handling of a message that exceeds the length of a quorum queue, which has no
/// `reject-publish-dlx` (<https://www.rabbitmq.com/docs/quorum-queues#feature-matrix>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuorumOverflow {
    /// Drops or dead-letters the oldest message. The server's default.
    DropHead,
    /// Rejects the new message: its publish is nacked.
    RejectPublish,
}

/// The node of the leader of a new queue (<https://www.rabbitmq.com/docs/clustering#replica-placement>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaderLocator {
    /// The node that the declaring client is connected to. The server's default.
    ClientLocal,
    /// The node with the fewest leaders, or a random one if there are many queues.
    Balanced,
}

/// The target of dead letters (<https://www.rabbitmq.com/docs/dlx>): messages that are rejected
/// without requeue, expire, or exceed a length or the delivery limit. A name of more than 255 bytes
/// is an error of the [`declare`](Queue::declare) of the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    exchange: ShortStr,
    routing_key: Option<ShortStr>,
    error: FirstError,
}

impl DeadLetter {
    /// Creates a target: an exchange, where `""` is the default exchange. The messages keep their
    /// routing keys.
    pub fn to(exchange: impl IntoShortStr) -> Self {
        let mut error = FirstError::default();
        let exchange = error.keep(short(DEAD_LETTER_EXCHANGE, exchange));
        Self {
            exchange: exchange.unwrap_or_default(),
            routing_key: None,
            error,
        }
    }

    /// Creates a target: that queue, by the default exchange. Its name must not be empty.
    pub fn to_queue(queue: impl IntoShortStr) -> Self {
        let mut error = FirstError::default();
        let routing_key = error.keep(required("the queue of dead letters", queue));
        Self {
            exchange: ShortStr::new(),
            routing_key,
            error,
        }
    }

    /// Replaces the routing keys of the messages.
    #[must_use]
    pub fn routing_key(mut self, routing_key: impl IntoShortStr) -> Self {
        let routing_key = self.error.keep(short(DEAD_LETTER_ROUTING_KEY, routing_key));
        self.routing_key = routing_key;
        self
    }
}

impl Queue<Classic> {
    /// Creates a preset of a durable classic queue.
    pub fn classic(name: impl IntoShortStr) -> Self {
        Self::named(required("a classic queue", name), "classic")
    }
}

impl Queue<Exclusive> {
    /// Creates a preset of a queue of this connection alone, which is deleted when it ends.
    pub fn exclusive(name: impl IntoShortStr) -> Self {
        Self::of_connection(short("an exclusive queue", name))
    }

    /// Creates a preset of such a queue with a name that the server gives, which is in
    /// `queue.declare-ok` (<https://www.rabbitmq.com/docs/queues#server-named-queues>).
    pub fn server_named() -> Self {
        Self::of_connection(Ok(ShortStr::new()))
    }

    fn of_connection(name: Result<ShortStr, ArgumentError>) -> Self {
        let mut queue = Self::named(name, "classic");
        queue.declare.durable = false;
        queue.declare.exclusive = true;
        queue
    }
}

impl Queue<Quorum> {
    /// Creates a preset of a quorum queue.
    pub fn quorum(name: impl IntoShortStr) -> Self {
        Self::named(required("a quorum queue", name), "quorum")
    }

    /// Sets `x-overflow`.
    pub fn overflow(self, overflow: QuorumOverflow) -> Self {
        self.with(OVERFLOW, overflow.name())
    }

    /// Sets `x-dead-letter-exchange` and `x-dead-letter-routing-key`. A dead letter is lost if the
    /// target does not take it.
    pub fn dead_letter(self, target: DeadLetter) -> Self {
        self.dead_letter_to(target)
    }

    /// Sets the same with `x-dead-letter-strategy` `at-least-once`: a dead letter stays until all
    /// queues of the target have confirmed it. The conditions of that strategy are met: a
    /// dead-letter exchange, and `x-overflow` `reject-publish`, which replaces an earlier overflow
    /// (<https://www.rabbitmq.com/docs/quorum-queues#activating-at-least-once-dead-lettering>).
    ///
    /// While the target does not take them, dead letters count towards the queue's length and
    /// occupy memory: RabbitMQ advises a maximum length.
    pub fn dead_letter_at_least_once(self, target: DeadLetter) -> Queue<AtLeastOnce> {
        let Self { declare, error, .. } = self
            .overflow(QuorumOverflow::RejectPublish)
            .dead_letter_to(target)
            .with("x-dead-letter-strategy", "at-least-once");
        Queue {
            declare,
            error,
            kind: PhantomData,
        }
    }
}

impl Queue<Stream> {
    /// Creates a preset of a stream.
    pub fn stream(name: impl IntoShortStr) -> Self {
        Self::named(required("a stream", name), "stream")
    }

    /// Sets `x-max-age`, rounded up to seconds. Whole segments are dropped, when all of their
    /// messages are older (<https://www.rabbitmq.com/docs/streams#retention>).
    /// An error of [`declare`](Self::declare) if it is zero or longer than ten years.
    pub fn max_age(self, age: Duration) -> Self {
        self.with_checked(MAX_AGE, interval(MAX_AGE, age))
    }

    /// Sets `x-stream-max-segment-size-bytes`. The server's default is 500,000,000 bytes
    /// (<https://www.rabbitmq.com/docs/streams#declaring>).
    /// An error of [`declare`](Self::declare) if it is zero or more than 3,000,000,000 bytes, which RabbitMQ refuses.
    pub fn max_segment_size_bytes(self, bytes: u64) -> Self {
        let size = number(SEGMENT_SIZE, bytes, 1, 3_000_000_000);
        self.with_checked(SEGMENT_SIZE, size)
    }

    /// Sets `x-initial-cluster-size`, the number of nodes with a replica. The server's default is
    /// all nodes (<https://www.rabbitmq.com/docs/streams#replication-factor>).
    /// An error of [`declare`](Self::declare) if it is zero.
    pub fn initial_cluster_size(self, nodes: u32) -> Self {
        let nodes = number(CLUSTER_SIZE, nodes, 1, u32::MAX.into());
        self.with_checked(CLUSTER_SIZE, nodes)
    }
}

impl<K: QuorumKind> Queue<K> {
    /// Sets `x-delivery-limit`, the number of failed deliveries after which a message is
    /// dead-lettered, or dropped without a dead-letter exchange. RabbitMQ 4.0 and later have a
    /// limit of 20 by default
    /// (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
    pub fn delivery_limit(self, deliveries: u32) -> Self {
        self.with(DELIVERY_LIMIT, i64::from(deliveries))
    }

    /// Sets `x-delivery-limit` to -1: RabbitMQ 4.0 and later then have no limit. Earlier versions
    /// have none by default, and take the number for one.
    pub fn no_delivery_limit(self) -> Self {
        self.with(DELIVERY_LIMIT, -1_i64)
    }

    /// Sets `x-quorum-initial-group-size`, the number of nodes with a replica. The server's default
    /// is 3, or all nodes of a smaller cluster
    /// (<https://www.rabbitmq.com/docs/quorum-queues#replication-factor>).
    /// An error of [`declare`](Self::declare) if it is zero.
    pub fn initial_group_size(self, nodes: u32) -> Self {
        let nodes = number(GROUP_SIZE, nodes, 1, u32::MAX.into());
        self.with_checked(GROUP_SIZE, nodes)
    }

    /// Sets `x-consumer-timeout`, the time in which a delivery is to be acknowledged, in
    /// milliseconds, rounded up. RabbitMQ 3.12 and later have it, since 4.3 for quorum queues only
    /// (<https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>).
    /// An error of [`declare`](Self::declare) if it is zero or longer than ten years.
    pub fn consumer_timeout(self, timeout: Duration) -> Self {
        let timeout = millis(CONSUMER_TIMEOUT, timeout, 1, TIME_MAX);
        self.with_checked(CONSUMER_TIMEOUT, timeout)
    }
}

impl<K: ClassicKind> Queue<K> {
    /// Sets `x-overflow`.
    pub fn overflow(self, overflow: ClassicOverflow) -> Self {
        self.with(OVERFLOW, overflow.name())
    }

    /// Sets `x-dead-letter-exchange` and `x-dead-letter-routing-key`.
    pub fn dead_letter(self, target: DeadLetter) -> Self {
        self.dead_letter_to(target)
    }

    /// Sets `x-max-priority`. RabbitMQ recommends 1 to 5, because each priority up to it costs
    /// memory and processor time (<https://www.rabbitmq.com/docs/priority>).
    /// An error of [`declare`](Self::declare) if it is zero.
    pub fn max_priority(self, priority: u8) -> Self {
        let priority = number(MAX_PRIORITY, priority, 1, u8::MAX.into());
        self.with_checked(MAX_PRIORITY, priority)
    }

    /// Sets `auto_delete`: the queue is deleted with its last consumer.
    pub fn auto_delete(mut self, auto_delete: bool) -> Self {
        self.declare.auto_delete = auto_delete;
        self
    }
}

impl<K: Consuming> Queue<K> {
    /// Sets `x-message-ttl`, the time to live of each message, in milliseconds, rounded up. With
    /// zero a message expires that no consumer takes at once
    /// (<https://www.rabbitmq.com/docs/ttl#message-ttl-using-x-args>).
    /// An error of [`declare`](Self::declare) if it is longer than ten years.
    pub fn message_ttl(self, ttl: Duration) -> Self {
        self.with_checked(MESSAGE_TTL, millis(MESSAGE_TTL, ttl, 0, TIME_MAX))
    }

    /// Sets `x-expires`, the time after which the queue is deleted if it is unused, in
    /// milliseconds, rounded up (<https://www.rabbitmq.com/docs/ttl#queue-ttl>).
    /// An error of [`declare`](Self::declare) if it is zero or longer than ten years.
    pub fn expires(self, unused: Duration) -> Self {
        self.with_checked(EXPIRES, millis(EXPIRES, unused, 1, TIME_MAX))
    }

    /// Sets `x-max-length`, the number of messages that are ready
    /// (<https://www.rabbitmq.com/docs/maxlength>).
    pub fn max_length(self, messages: u64) -> Self {
        self.with("x-max-length", bound(messages))
    }

    /// Sets `x-single-active-consumer`: one consumer gets all messages, and the next takes its
    /// place (<https://www.rabbitmq.com/docs/consumers#single-active-consumer>).
    pub fn single_active_consumer(self, single: bool) -> Self {
        self.with("x-single-active-consumer", single)
    }

    fn dead_letter_to(mut self, target: DeadLetter) -> Self {
        self.error.keep(target.error.finish(()));
        self.declare.arguments.remove(DEAD_LETTER_ROUTING_KEY);
        let queue = self.with(DEAD_LETTER_EXCHANGE, target.exchange);
        match target.routing_key {
            Some(key) => queue.with(DEAD_LETTER_ROUTING_KEY, key),
            None => queue,
        }
    }
}

impl<K: Located> Queue<K> {
    /// Sets `x-queue-leader-locator`. For classic queues RabbitMQ 4.0 and later have it; earlier
    /// versions refuse it.
    pub fn leader_locator(self, locator: LeaderLocator) -> Self {
        let name = match locator {
            LeaderLocator::ClientLocal => "client-local",
            LeaderLocator::Balanced => "balanced",
        };
        self.with("x-queue-leader-locator", name)
    }
}

impl<K: QueueKind> Queue<K> {
    /// Sets `x-max-length-bytes`: of bodies that are ready
    /// (<https://www.rabbitmq.com/docs/maxlength>), or of all segments of a stream
    /// (<https://www.rabbitmq.com/docs/streams#retention>).
    pub fn max_length_bytes(self, bytes: u64) -> Self {
        self.with("x-max-length-bytes", bound(bytes))
    }

    /// Returns the declaration.
    ///
    /// # Errors
    /// The first error of the settings: a name that is empty or has more than 255 bytes, or a number
    /// that RabbitMQ refuses.
    pub fn declare(self) -> Result<queue::Declare, ArgumentError> {
        self.error.finish(self.declare)
    }

    fn named(name: Result<ShortStr, ArgumentError>, kind: &'static str) -> Self {
        let mut error = FirstError::default();
        let name = error.keep(name);
        let queue = Self {
            declare: queue::Declare {
                queue: name.unwrap_or_default(),
                durable: true,
                ..queue::Declare::default()
            },
            error,
            kind: PhantomData,
        };
        queue.with("x-queue-type", kind)
    }

    /// Sets an argument to a checked value, or keeps the error.
    fn with_checked(
        mut self,
        name: &'static str,
        value: Result<impl Into<FieldValue>, ArgumentError>,
    ) -> Self {
        match self.error.keep(value) {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    fn with(mut self, name: &'static str, value: impl Into<FieldValue>) -> Self {
        set(&mut self.declare.arguments, name, value);
        self
    }
}

impl<K: QueueKind> TryFrom<Queue<K>> for queue::Declare {
    type Error = ArgumentError;

    fn try_from(queue: Queue<K>) -> Result<Self, ArgumentError> {
        queue.declare()
    }
}

impl<K> Clone for Queue<K> {
    fn clone(&self) -> Self {
        Self {
            declare: self.declare.clone(),
            error: self.error.clone(),
            kind: PhantomData,
        }
    }
}

impl<K> PartialEq for Queue<K> {
    fn eq(&self, other: &Self) -> bool {
        self.declare == other.declare && self.error == other.error
    }
}

impl<K> fmt::Debug for Queue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut queue = f.debug_tuple("Queue");
        queue.field(&self.declare);
        if let Some(error) = &self.error.0 {
            queue.field(error);
        }
        queue.finish()
    }
}

impl ClassicOverflow {
    const fn name(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
            Self::RejectPublishDlx => "reject-publish-dlx",
        }
    }
}

impl QuorumOverflow {
    const fn name(self) -> &'static str {
        match self {
            Self::DropHead => "drop-head",
            Self::RejectPublish => "reject-publish",
        }
    }
}

const CLUSTER_SIZE: &str = "x-initial-cluster-size";
const CONSUMER_TIMEOUT: &str = "x-consumer-timeout";
const DEAD_LETTER_EXCHANGE: &str = "x-dead-letter-exchange";
const DEAD_LETTER_ROUTING_KEY: &str = "x-dead-letter-routing-key";
const DELIVERY_LIMIT: &str = "x-delivery-limit";
const EXPIRES: &str = "x-expires";
const GROUP_SIZE: &str = "x-quorum-initial-group-size";
const MAX_AGE: &str = "x-max-age";
const MAX_PRIORITY: &str = "x-max-priority";
const MESSAGE_TTL: &str = "x-message-ttl";
const OVERFLOW: &str = "x-overflow";
const SEGMENT_SIZE: &str = "x-stream-max-segment-size-bytes";
