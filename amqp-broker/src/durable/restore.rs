//! A broker from a sequence of changes.

use alloc::{
    collections::BTreeMap,
    string::{String, ToString as _},
    vec::Vec,
};

use amqp_core::{
    Instant,
    text::Quoted,
    wire::{FieldValue, ShortStr},
};

use super::{
    change::{Change, DurableBinding, DurableExchange, DurableMessage, DurableQueue, MessageState},
    record::Place,
};
use crate::{
    broker::Broker,
    config::{Config, ConfigError},
    inspect::BindingTarget,
    keys::QueueKey,
    model::{
        arguments::{QueueArguments, QueueKind},
        exchange::{Binding, Destination, Exchange, ExchangeFlags, ExchangeKind},
        message::{Envelope, Message},
        queue::{Declared, Entry, RequeueCause},
        stream,
        vhost::Vhost,
    },
    refusal::{Refusal, Resource},
};

/// The reason for which a broker cannot be restored.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RestoreError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A change concerns an entity or a message that the changes before it do not have.
    #[error("a change is about {0}, which no change before it has made")]
    Missing(String),
    /// A declaration or a binding has invalid arguments.
    #[error("a declaration is not valid: {0}")]
    Invalid(String),
}

impl From<Refusal> for RestoreError {
    fn from(refusal: Refusal) -> Self {
        Self::Invalid(refusal.text)
    }
}

/// The messages by the numbers of their queue and of themselves.
type Messages = BTreeMap<u64, BTreeMap<u64, (Entry, MessageState)>>;

/// The messages that the changes so far have left.
#[derive(Default)]
pub(super) struct Contents {
    messages: Messages,
    /// Those of streams, by the number of the queue.
    pub(super) streams: BTreeMap<u64, stream::Contents>,
}

impl Broker {
    /// Creates a broker with the state that a sequence of changes leads to, at the time `now`: a
    /// [snapshot](Self::snapshot), the [changes](Self::poll_change) of a broker from its beginning,
    /// or a snapshot and the changes since.
    ///
    /// If the last change is not [`Change::Stopped`], the broker that made them has crashed. Then
    /// all messages of classic queues are marked as redelivered, and the delivered ones of quorum
    /// queues are requeued, as after a crash of RabbitMQ. With
    /// [`Config::journal`](crate::Config::journal), this makes the first changes of the new broker;
    /// they continue the sequence.
    ///
    /// Users and virtual hosts that were changed at run time are as they were, and not as in the
    /// configuration: as the database of RabbitMQ precedes its default user. Those that only the
    /// configuration has are added, even if they were deleted, and a virtual host that only
    /// exchanges and queues have is created. TTLs go on by the time of day:
    /// [`Config::epoch`](crate::Config::epoch) must be right on both sides.
    ///
    /// # Errors
    /// If the configuration is invalid, or the changes are no possible sequence.
    ///
    /// ```
    /// use amqp_broker::{Broker, Config};
    /// use amqp_core::Instant;
    ///
    /// let broker = Broker::new(Config::default())?;
    /// let restored = Broker::restore(Config::default(), Instant::ORIGIN, broker.snapshot())?;
    /// assert_eq!(restored.inspect(), broker.inspect());
    /// # Ok::<_, amqp_broker::RestoreError>(())
    /// ```
    pub fn restore(
        config: Config,
        now: Instant,
        changes: impl IntoIterator<Item = Change>,
    ) -> Result<Self, RestoreError> {
        let mut broker = Self::new(config)?;
        let journal = core::mem::take(&mut broker.journal.enabled);
        broker.now = now;
        let mut contents = Contents::default();
        let mut changes = changes.into_iter().peekable();
        // Nothing to recover is no crash.
        let mut stopped = changes.peek().is_none();
        for change in changes {
            stopped = change == Change::Stopped;
            broker.apply_change(change, &mut contents)?;
        }
        broker.end_administration();
        broker.restore_streams(contents.streams)?;
        let unacked = broker.insert_messages(contents.messages);
        broker.journal.enabled = journal;
        broker.journal.push(Change::Started);
        if !stopped {
            broker.mark_redelivered();
        }
        for (key, entry) in unacked {
            broker.requeue(key, entry, RequeueCause::ChannelEnded);
        }
        broker.begin_service();
        Ok(broker)
    }

    fn apply_change(
        &mut self,
        change: Change,
        contents: &mut Contents,
    ) -> Result<(), RestoreError> {
        let messages = &mut contents.messages;
        match change {
            Change::ExchangeDeclared(exchange) => self.apply_exchange(exchange)?,
            Change::ExchangeDeleted { vhost, name } => {
                if let Some(vhost) = self.vhosts.get_mut(&vhost) {
                    vhost.remove_exchange(&name);
                }
            }
            Change::QueueDeclared(queue) => self.apply_queue(queue)?,
            Change::QueueDeleted { queue } => {
                messages.remove(&queue);
                contents.streams.remove(&queue);
                self.streams.remove(&QueueKey(queue));
                if let Some(gone) = self.queues.remove(&QueueKey(queue))
                    && let Some(vhost) = self.vhosts.get_mut(&gone.vhost)
                {
                    vhost.remove_queue(&gone.name);
                }
            }
            Change::Bound(binding) => {
                let (vhost, source, binding) = self.binding(binding)?;
                if let Some(exchange) = vhost.exchanges.get_mut(&source)
                    && exchange.bind(binding)?
                {
                    vhost.bindings += 1;
                }
            }
            Change::Unbound(binding) => {
                let (vhost, source, binding) = self.binding(binding)?;
                if let Some(exchange) = vhost.exchanges.get_mut(&source)
                    && exchange.unbind(&binding)
                {
                    vhost.bindings -= 1;
                }
            }
            Change::Enqueued(message) => self.apply_message(message, messages)?,
            Change::Delivered { queue, message } => {
                find(messages, queue, message)?.1.unacked = true;
            }
            Change::Requeued {
                queue,
                message,
                state,
            } => find(messages, queue, message)?.1 = state,
            Change::Removed { queue, message } => {
                let of_queue = messages.get_mut(&queue);
                let gone = of_queue.and_then(|messages| messages.remove(&message));
                gone.ok_or_else(|| missing_message(queue, message))?;
            }
            Change::SegmentBegun { queue, first } => {
                self.stream_contents(contents, queue)?
                    .segments
                    .insert(first);
            }
            Change::Appended(message) => self.apply_append(message, contents)?,
            Change::SegmentsDropped { queue, first } => {
                let stream = self.stream_contents(contents, queue)?;
                stream.segments = stream.segments.split_off(&first);
                stream.records = stream.records.split_off(&first);
            }
            Change::UserSet(user) => {
                self.users.insert(user.name.clone(), user);
            }
            Change::UserDeleted { name } => {
                self.users.remove(&name);
            }
            Change::VhostSet(vhost) => self.apply_vhost(vhost),
            Change::VhostDeleted { name } => {
                self.vhosts.remove(&name);
            }
            Change::PolicySet {
                vhost,
                kind,
                policy,
            } => {
                let policies = self.vhost_named(vhost).policies_of(kind);
                policies.insert(policy.name.clone(), policy);
            }
            Change::PolicyCleared { vhost, kind, name } => {
                self.vhost_named(vhost).policies_of(kind).remove(&name);
            }
            Change::ParameterSet {
                vhost,
                component,
                name,
                value,
            } => {
                let parameters = &mut self.vhost_named(vhost).parameters;
                parameters.insert((component, name), value);
            }
            Change::GlobalParameterSet { name, value } => {
                self.global_parameters.insert(name, value);
            }
            Change::Stopped | Change::Started => {}
        }
        Ok(())
    }

    pub(super) fn vhost_named(&mut self, name: String) -> &mut Vhost {
        let vhost = self.vhosts.entry(name.clone());
        vhost.or_insert_with(|| Vhost::new(name))
    }

    fn apply_exchange(&mut self, exchange: DurableExchange) -> Result<(), RestoreError> {
        let kind = ExchangeKind::from_name(&exchange.kind).ok_or_else(|| {
            let kind = Quoted(&exchange.kind).to_string();
            RestoreError::Invalid(alloc::format!("unknown exchange type {kind}"))
        })?;
        let flags = ExchangeFlags {
            durable: true,
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
        };
        let alternate = exchange.arguments.get("alternate-exchange");
        let alternate = alternate.and_then(FieldValue::as_str);
        let alternate = alternate.and_then(|name| ShortStr::try_from(name).ok());
        let made = Exchange::new(kind, flags, exchange.arguments, alternate);
        self.vhost_named(exchange.vhost.clone());
        self.insert_exchange(&exchange.vhost, exchange.name, made);
        Ok(())
    }

    fn apply_queue(&mut self, queue: DurableQueue) -> Result<(), RestoreError> {
        let resource = Resource::queue(&queue.name, &queue.vhost);
        let arguments = QueueArguments::read(&queue.arguments, &resource)?;
        let key = QueueKey(queue.number);
        self.last_key = self.last_key.max(queue.number);
        self.vhost_named(queue.vhost.clone());
        let declared = Declared {
            name: queue.name,
            vhost: queue.vhost,
            durable: true,
            owner: None,
            auto_delete: queue.auto_delete,
            table: queue.arguments,
            declared_arguments: arguments,
        };
        self.insert_queue_at(key, declared);
        Ok(())
    }

    fn binding(
        &mut self,
        binding: DurableBinding,
    ) -> Result<(&mut Vhost, ShortStr, Binding), RestoreError> {
        let vhost = self.vhost_named(binding.vhost);
        let exchange_missing = |name: &ShortStr| {
            let name = Quoted(name).to_string();
            RestoreError::Missing(alloc::format!("the exchange {name}"))
        };
        let destination = match binding.destination {
            BindingTarget::Queue(name) => {
                let key = vhost.queues.get(&name).copied().ok_or_else(|| {
                    let name = Quoted(&name).to_string();
                    RestoreError::Missing(alloc::format!("the queue {name}"))
                })?;
                Destination::Queue(key)
            }
            BindingTarget::Exchange(name) if vhost.exchanges.contains_key(&name) => {
                Destination::Exchange(name)
            }
            BindingTarget::Exchange(name) => return Err(exchange_missing(&name)),
        };
        if !vhost.exchanges.contains_key(&binding.source) {
            return Err(exchange_missing(&binding.source));
        }
        let (key, arguments) = (binding.routing_key, binding.arguments);
        Ok((
            vhost,
            binding.source,
            Binding::new(destination, key, arguments),
        ))
    }

    fn apply_message(
        &self,
        message: DurableMessage,
        messages: &mut Messages,
    ) -> Result<(), RestoreError> {
        let queue = message.queue;
        if !self.queues.contains_key(&QueueKey(queue)) {
            return Err(missing_queue(queue));
        }
        let since_origin = |millis: u64| {
            let millis = millis.saturating_sub(self.epoch().saturating_mul(1000));
            Instant::from_nanos(millis.saturating_mul(1_000_000))
        };
        // Does not fail: `EncodedProperties` decode.
        let properties = message.properties.decode().unwrap_or_default();
        let envelope = Envelope {
            exchange: message.exchange,
            routing_key: message.routing_key,
            more_keys: message.more_keys,
            priority: properties.priority.unwrap_or(0),
            expiration: None,
            persistent: properties.delivery_mode == Some(2),
        };
        let entry = Entry {
            seq: message.state.position,
            number: message.number,
            message: Message::new(envelope, message.properties, message.body, &self.memory),
            redelivered: message.state.redelivered,
            delivery_count: message.state.requeues,
            expires: message.expires.map(since_origin),
        };
        let of_queue = messages.entry(queue).or_default();
        of_queue.insert(message.number, (entry, message.state));
        Ok(())
    }

    /// Adds the ready messages to their queues. Returns the unacknowledged ones.
    fn insert_messages(&mut self, messages: Messages) -> Vec<(QueueKey, Entry)> {
        let mut unacked = Vec::new();
        for (number, messages) in messages {
            let key = QueueKey(number);
            let Some(queue) = self.queues.get_mut(&key) else {
                continue;
            };
            let mut messages: Vec<(Entry, MessageState)> = messages.into_values().collect();
            // Each message is then the last of its level, and none is moved.
            messages.sort_unstable_by_key(|(_, state)| state.position);
            for (mut entry, state) in messages {
                entry.seq = state.position;
                entry.redelivered = state.redelivered;
                entry.delivery_count = state.requeues;
                if state.unacked {
                    queue.restore_seq(&entry);
                    unacked.push((key, entry));
                } else if state.returned {
                    queue.restore(entry, Place::Returned);
                } else {
                    queue.restore(entry, Place::Ordinary);
                }
            }
        }
        unacked
    }

    /// Marks all messages of classic queues as redelivered: their deliveries are not recorded.
    fn mark_redelivered(&mut self) {
        for (key, queue) in &mut self.queues {
            if queue.arguments.kind == QueueKind::Classic {
                queue.mark_redelivered();
                for (place, entry) in queue.entries() {
                    self.journal.requeued(*key, queue, entry, place);
                }
            }
        }
    }
}

pub(super) fn missing_queue(number: u64) -> RestoreError {
    RestoreError::Missing(alloc::format!("the queue with the number {number}"))
}

pub(super) fn missing_message(queue: u64, message: u64) -> RestoreError {
    RestoreError::Missing(alloc::format!(
        "the message {message} of the queue with the number {queue}"
    ))
}

fn find(
    messages: &mut Messages,
    queue: u64,
    message: u64,
) -> Result<&mut (Entry, MessageState), RestoreError> {
    let of_queue = messages.get_mut(&queue);
    let found = of_queue.and_then(|messages| messages.get_mut(&message));
    found.ok_or_else(|| missing_message(queue, message))
}
