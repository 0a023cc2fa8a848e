//! The topology of a connection, as data.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};
use core::mem;

use super::{
    Binding, Entity,
    bindings::Bindings,
    channel::{Channel, ChannelMode, Consumer},
};
use crate::{
    ids::ConsumerId,
    protocol::{basic, exchange, queue},
    wire::ShortStr,
};

/// The topology of a connection: its exchanges, queues and bindings, and the state of its channels.
///
/// It follows the rules of the server. A deleted entity takes its bindings with it, and a queue its
/// consumers. An auto-delete queue goes with its last consumer, if it had one, an auto-delete
/// exchange with the last binding of which it is the source. Only the consumers and bindings of this
/// connection count for that: the server keeps such an entity longer if other connections use it.
///
/// With the feature `serde` it is serialised as lists of its parts, without loss. In a format for
/// humans, parts with a default may be missing.
///
/// Predeclared exchanges, the default one and `amq.*`, are not part of it; bindings to them are.
///
/// ```
/// use amqp_core::{protocol::{exchange, queue}, recovery::{Binding, Entity, Topology}};
///
/// let mut topology = Topology::default();
/// topology.declare_queue(queue::Declare::default().queue("jobs"));
/// topology.declare_exchange(exchange::Declare::default().exchange("work").kind("topic"));
/// let mut binding = Binding::new(Entity::Queue("jobs".try_into()?), "work".try_into()?);
/// binding.routing_key = "a.*".try_into()?;
/// topology.bind(binding);
/// assert_eq!(topology.bindings().count(), 1);
/// topology.delete_exchange(&"work".try_into()?);
/// assert_eq!(topology.bindings().count(), 0);
/// # Ok::<_, amqp_core::wire::ShortStrError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Topology {
    exchanges: BTreeMap<ShortStr, exchange::Declare>,
    queues: BTreeMap<ShortStr, Queue>,
    bindings: Bindings,
    channels: BTreeMap<u16, Channel>,
    /// The consumers of each queue that has any.
    consumers: BTreeMap<ShortStr, BTreeSet<(u16, ConsumerId)>>,
}

/// A queue of a [`Topology`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Queue {
    /// The declaration, with the name of the queue.
    pub declare: queue::Declare,
    /// Whether the server has generated the name. Such a queue gets a new name when it is declared
    /// again.
    pub server_named: bool,
}

impl Queue {
    /// Whether the queue goes with the connection or with the broker: it is exclusive, auto-delete,
    /// not durable, or named by the server.
    #[must_use]
    pub const fn is_transient(&self) -> bool {
        let declare = &self.declare;
        declare.exclusive || declare.auto_delete || !declare.durable || self.server_named
    }
}

/// Whether an exchange exists without being declared: the default exchange, and those of the server
/// (section 3.1.3 of the specification).
fn is_predeclared(exchange: &ShortStr) -> bool {
    exchange.is_empty() || exchange.starts_with("amq.")
}

/// Entities.
impl Topology {
    /// Whether it has neither entities nor channels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exchanges.is_empty()
            && self.queues.is_empty()
            && self.bindings.is_empty()
            && self.channels.is_empty()
    }

    /// The exchanges, by name.
    pub fn exchanges(&self) -> impl Iterator<Item = &exchange::Declare> {
        self.exchanges.values()
    }

    /// The queues, by name.
    pub fn queues(&self) -> impl Iterator<Item = &Queue> {
        self.queues.values()
    }

    /// The bindings, by destination.
    pub fn bindings(&self) -> impl Iterator<Item = &Binding> {
        self.bindings.iter()
    }

    /// The bindings to a queue or an exchange.
    pub fn bindings_to(&self, destination: &Entity) -> impl Iterator<Item = &Binding> {
        self.bindings.to(destination)
    }

    /// An exchange.
    #[must_use]
    pub fn exchange(&self, name: &ShortStr) -> Option<&exchange::Declare> {
        self.exchanges.get(name)
    }

    /// A queue.
    #[must_use]
    pub fn queue(&self, name: &ShortStr) -> Option<&Queue> {
        self.queues.get(name)
    }

    /// Takes over the exchanges, queues and bindings of another topology in place of its own, and keeps
    /// its channels and consumers. Returns the old ones.
    pub fn replace_entities(&mut self, by: Self) -> Self {
        Self {
            exchanges: mem::replace(&mut self.exchanges, by.exchanges),
            queues: mem::replace(&mut self.queues, by.queues),
            bindings: mem::replace(&mut self.bindings, by.bindings),
            ..Self::default()
        }
    }

    /// Adds an exchange, or replaces its declaration. Ignores a passive declaration and a
    /// predeclared exchange.
    pub fn declare_exchange(&mut self, mut declare: exchange::Declare) {
        if !declare.passive && !is_predeclared(&declare.exchange) {
            declare.no_wait = false;
            self.exchanges.insert(declare.exchange.clone(), declare);
        }
    }

    /// Adds a queue, or replaces its declaration. Ignores a passive declaration, and one without a
    /// name.
    pub fn declare_queue(&mut self, declare: queue::Declare) {
        let server_named = self.queues.get(&declare.queue);
        let server_named = server_named.is_some_and(|queue| queue.server_named);
        self.add_queue(declare, server_named);
    }

    /// Adds a queue with a name that the server has generated, and that replaces the one of the
    /// declaration.
    pub fn declare_server_named(&mut self, mut declare: queue::Declare, name: ShortStr) {
        declare.queue = name;
        self.add_queue(declare, true);
    }

    fn add_queue(&mut self, mut declare: queue::Declare, server_named: bool) {
        if declare.passive || declare.queue.is_empty() {
            return;
        }
        declare.no_wait = false;
        let queue = Queue {
            declare,
            server_named,
        };
        self.queues.insert(queue.declare.queue.clone(), queue);
    }

    /// Removes an exchange with its bindings, and the auto-delete exchanges that thereby lose their
    /// last one.
    pub fn delete_exchange(&mut self, name: &ShortStr) {
        let sources = self.remove_exchange(name);
        self.forget_unbound(sources);
    }

    /// Removes a queue with its bindings and consumers, and the auto-delete exchanges that thereby
    /// lose their last binding.
    pub fn delete_queue(&mut self, name: &ShortStr) {
        for (number, consumer) in self.consumers.remove(name).unwrap_or_default() {
            if let Some(channel) = self.channels.get_mut(&number) {
                channel.remove(consumer);
            }
        }
        self.queues.remove(name);
        let bindings = self.bindings.take_to(&Entity::Queue(name.clone()));
        self.forget_unbound(bindings.into_iter().map(|it| it.source).collect());
    }

    /// Adds a binding.
    pub fn bind(&mut self, binding: Binding) {
        self.bindings.insert(binding);
    }

    /// Removes a binding, and its source if that is an auto-delete exchange without another one.
    pub fn unbind(&mut self, binding: &Binding) {
        if self.bindings.remove(binding) {
            self.forget_unbound([binding.source.clone()].into());
        }
    }

    /// Removes an exchange with its bindings. Returns the sources of the bindings to it.
    fn remove_exchange(&mut self, name: &ShortStr) -> Vec<ShortStr> {
        self.exchanges.remove(name);
        self.bindings.remove_from(name);
        let bindings = self.bindings.take_to(&Entity::Exchange(name.clone()));
        bindings.into_iter().map(|it| it.source).collect()
    }

    /// Removes those of the exchanges that are auto-delete and have lost their last binding, and
    /// then those bound to them likewise.
    fn forget_unbound(&mut self, mut sources: Vec<ShortStr>) {
        while let Some(source) = sources.pop() {
            let exchange = self.exchanges.get(&source);
            if exchange.is_some_and(|it| it.auto_delete) && !self.bindings.has_source(&source) {
                sources.append(&mut self.remove_exchange(&source));
            }
        }
    }

    /// Gives a queue another name, also in its bindings and consumers. A routing key that equals the
    /// old name of a queue that the server has named becomes the new name.
    pub fn rename_queue(&mut self, from: &ShortStr, to: &ShortStr) {
        if from == to {
            return;
        }
        let mut server_named = false;
        if let Some(mut queue) = self.queues.remove(from) {
            server_named = queue.server_named;
            queue.declare.queue = to.clone();
            self.queues.insert(to.clone(), queue);
        }
        for mut binding in self.bindings.take_to(&Entity::Queue(from.clone())) {
            binding.destination = Entity::Queue(to.clone());
            if server_named && binding.routing_key == *from {
                binding.routing_key = to.clone();
            }
            self.bindings.insert(binding);
        }
        for channel in self.channels.values_mut() {
            if channel.last_queue == *from {
                channel.last_queue = to.clone();
            }
        }
        let consumers = self.consumers.remove(from).unwrap_or_default();
        for (number, consumer) in &consumers {
            let channel = self.channels.get_mut(number);
            if let Some(consumer) = channel.and_then(|it| it.consumer_mut(*consumer)) {
                consumer.consume.queue = to.clone();
            }
        }
        if !consumers.is_empty() {
            self.consumers
                .entry(to.clone())
                .or_default()
                .extend(consumers);
        }
    }

    /// Whether a binding goes with the connection or with the broker, since its source or its
    /// destination does.
    pub(super) fn is_transient(&self, binding: &Binding) -> bool {
        self.is_transient_exchange(&binding.source)
            || match &binding.destination {
                Entity::Queue(name) => self.queue(name).is_some_and(Queue::is_transient),
                Entity::Exchange(name) => self.is_transient_exchange(name),
            }
    }

    fn is_transient_exchange(&self, name: &ShortStr) -> bool {
        self.exchange(name)
            .is_some_and(|it| it.auto_delete || !it.durable)
    }
}

/// Channels.
impl Topology {
    /// The channels, by number.
    pub fn channels(&self) -> impl Iterator<Item = (u16, &Channel)> {
        self.channels
            .iter()
            .map(|(&number, channel)| (number, channel))
    }

    /// A channel.
    #[must_use]
    pub fn channel(&self, number: u16) -> Option<&Channel> {
        self.channels.get(&number)
    }

    /// Adds a channel without state. Replaces one with the same number.
    pub fn open_channel(&mut self, number: u16) {
        self.close_channel(number);
        self.channels.insert(number, Channel::default());
    }

    /// Removes a channel with its consumers, and the auto-delete queues that thereby lose their last
    /// one.
    pub fn close_channel(&mut self, number: u16) {
        let channel = self.channels.remove(&number).unwrap_or_default();
        for (id, consumer) in channel.into_consumers() {
            self.forget_unused(number, id, &consumer.consume.queue);
        }
    }

    /// Sets the prefetch of a channel. Does nothing for an unknown channel.
    pub fn set_qos(&mut self, number: u16, qos: basic::Qos) {
        if let Some(channel) = self.channels.get_mut(&number) {
            let of = if qos.global {
                &mut channel.global_qos
            } else {
                &mut channel.qos
            };
            *of = Some(qos);
        }
    }

    /// Sets the mode of a channel. Does nothing for an unknown channel.
    pub fn set_mode(&mut self, number: u16, mode: ChannelMode) {
        if let Some(channel) = self.channels.get_mut(&number) {
            channel.mode = mode;
        }
    }

    /// Adds a consumer to a channel, with the prefetch that is set there. The consume has the tag
    /// and the name of the queue. Does nothing for an unknown channel.
    pub fn consume(&mut self, number: u16, consumer: ConsumerId, mut consume: basic::Consume) {
        self.remove_consumer(number, consumer);
        let Some(channel) = self.channels.get_mut(&number) else {
            return;
        };
        consume.no_wait = false;
        let of_queue = self.consumers.entry(consume.queue.clone()).or_default();
        of_queue.insert((number, consumer));
        let qos = channel.qos.clone();
        channel.add(consumer, Consumer { consume, qos });
    }

    /// The consumers of a queue, with the numbers of their channels.
    pub(super) fn consumers_of(
        &self,
        queue: &ShortStr,
    ) -> impl Iterator<Item = (u16, ConsumerId)> + '_ {
        self.consumers.get(queue).into_iter().flatten().copied()
    }

    /// Removes a consumer, and its queue if that is auto-delete and has no other consumer.
    pub fn cancel(&mut self, number: u16, consumer: ConsumerId) {
        let channel = self.channels.get_mut(&number);
        if let Some(removed) = channel.and_then(|it| it.remove(consumer)) {
            self.forget_unused(number, consumer, &removed.consume.queue);
        }
    }

    /// Removes a consumer, and not its queue: the server has not started it.
    pub(super) fn remove_consumer(&mut self, number: u16, consumer: ConsumerId) {
        let channel = self.channels.get_mut(&number);
        if let Some(removed) = channel.and_then(|it| it.remove(consumer)) {
            self.uncount(number, consumer, &removed.consume.queue);
        }
    }

    /// Removes the consumers of a channel, and not their queues.
    pub(super) fn forget_consumers(&mut self, number: u16) {
        let channel = self.channels.get_mut(&number);
        for (id, consumer) in channel.map(mem::take).unwrap_or_default().into_consumers() {
            self.uncount(number, id, &consumer.consume.queue);
        }
    }

    fn forget_unused(&mut self, number: u16, consumer: ConsumerId, queue: &ShortStr) {
        self.uncount(number, consumer, queue);
        let auto_delete = self.queue(queue).is_some_and(|it| it.declare.auto_delete);
        if auto_delete && !self.consumers.contains_key(queue) {
            self.delete_queue(queue);
        }
    }

    fn uncount(&mut self, number: u16, consumer: ConsumerId, queue: &ShortStr) {
        if let Some(of_queue) = self.consumers.get_mut(queue) {
            of_queue.remove(&(number, consumer));
            if of_queue.is_empty() {
                self.consumers.remove(queue);
            }
        }
    }

    pub(super) fn channel_mut(&mut self, number: u16) -> Option<&mut Channel> {
        self.channels.get_mut(&number)
    }
}
