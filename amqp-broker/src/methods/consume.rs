//! `basic.qos` (<https://www.rabbitmq.com/docs/consumer-prefetch>), `basic.consume`,
//! `basic.cancel`, `basic.get`

use amqp_core::{
    protocol::{ReplyCode, basic},
    wire::{FieldTable, FieldValue, ShortStr},
};

use super::queue::{REPLIES, count};
use crate::{
    broker::{
        Broker,
        dispatch::{delivery_count, send_message},
    },
    keys::{ChannelKey, ConsumerKey, QueueKey},
    model::{
        arguments::QueueKind,
        channel::{Subscription, Unacked},
        queue::Consumer,
        stream::StartAt,
    },
    permission::Access,
    refusal::{Outcome, Refusal, Resource, short, type_name},
};

impl Broker {
    pub(super) fn qos(&mut self, at: ChannelKey, qos: &basic::Qos) -> Outcome {
        if qos.prefetch_size != 0 {
            return Err(Refusal::not_implemented(format_args!(
                "prefetch_size!=0 ({})",
                qos.prefetch_size
            )));
        }
        let global = qos.global && self.config.rules.global_qos;
        let channel = self.channel(at)?;
        if global {
            channel.global_prefetch = qos.prefetch_count;
        } else {
            channel.prefetch = qos.prefetch_count;
        }
        self.send(at, &basic::QosOk);
        self.unblock_consumers(at);
        Ok(())
    }

    pub(super) fn consume(&mut self, at: ChannelKey, consume: basic::Consume) -> Outcome {
        let limit = self.config.limits.consumers;
        let channel = self.channel(at)?;
        if channel.consumers.contains_key(&consume.consumer_tag) {
            return Err(Refusal::not_allowed(format_args!(
                "attempt to reuse consumer tag '{}'",
                consume.consumer_tag
            )));
        }
        if channel.consumers.len() >= limit {
            return Err(Refusal::not_allowed(format_args!(
                "reached maximum ({limit}) of consumers per channel"
            )));
        }
        if consume.queue == REPLIES {
            return self.consume_replies(at, consume);
        }
        let key = at.connection;
        let name = self.queue_name(at, &consume.queue)?;
        self.check_queue(key, Access::Read, &name)?;
        let found = self.find_queue(key, &name)?;
        self.check_owner(key, found)?;
        let resource = self.vhost(key)?.queue_named(&name);
        let read = self.read_arguments(found, &consume.arguments, &resource)?;
        self.check_consumer(at, found, &consume, &resource)?;
        let tag = self.consumer_tag(consume.consumer_tag);
        let queue = self.queues.get_mut(&found);
        let cancelled = queue.and_then(|queue| queue.take_cancelled(at, &tag));
        let (consumer_key, unacked) = match cancelled {
            Some(cancelled) => cancelled,
            None => (ConsumerKey(self.next_key()), 0),
        };
        let channel = self.channel(at)?;
        let subscription = Subscription::Queue {
            queue: found,
            key: consumer_key,
        };
        channel.consumers.insert(tag.clone(), subscription);
        let prefetch = match channel.prefetch {
            0 => read.default_prefetch,
            prefetch => prefetch,
        };
        let mut consumer = Consumer::new(at, tag.clone(), prefetch, consume.arguments);
        consumer.no_ack = consume.no_ack;
        consumer.exclusive = consume.exclusive;
        consumer.priority = read.priority;
        consumer.unacked = unacked;
        consumer.next_offset = read.next_offset;
        let consumer_tag = tag;
        self.reply(at, consume.no_wait, &basic::ConsumeOk { consumer_tag });
        if let Some(queue) = self.queues.get_mut(&found) {
            queue.add_consumer(consumer_key, consumer);
        }
        self.schedule(found);
        Ok(())
    }

    /// Checks that a queue accepts another consumer. An exclusive one must be the only one (section
    /// 1.8.3.3 of the protocol reference). A stream demands a prefetch limit and acknowledgements
    /// (<https://www.rabbitmq.com/docs/streams#consuming>). It ignores `exclusive`, as a quorum
    /// queue does.
    fn check_consumer(
        &self,
        at: ChannelKey,
        found: QueueKey,
        consume: &basic::Consume,
        resource: &Resource<'_>,
    ) -> Outcome {
        let Some(queue) = self.queues.get(&found) else {
            return Ok(());
        };
        let kind = queue.arguments.kind;
        let conn = self.connections.get(&at.connection);
        let channel = conn.and_then(|conn| conn.channels.get(&at.id.number()));
        if kind == QueueKind::Stream {
            if channel.is_none_or(|channel| channel.prefetch == 0) {
                return Err(Refusal::precondition(format_args!(
                    "consumer prefetch count is not set for '{resource}'"
                )));
            }
            if consume.no_ack {
                return Err(Refusal::of_stream("automatic acknowledgement", resource));
            }
        }
        let global = channel.is_some_and(|channel| channel.global_prefetch > 0);
        if global && kind != QueueKind::Classic {
            return Err(Refusal::not_implemented(format_args!(
                "{resource} does not support global qos"
            )));
        }
        let taken = queue.has_exclusive_consumer()
            || consume.exclusive
                && (!queue.consumers.is_empty() || queue.arguments.single_active_consumer);
        if taken && kind == QueueKind::Classic {
            return Err(Refusal::access_refused(format_args!(
                "{resource} in exclusive use"
            )));
        }
        Ok(())
    }

    /// Validates the arguments of a consumer. Some are refused by the type of the queue.
    fn read_arguments(
        &self,
        found: QueueKey,
        arguments: &FieldTable,
        resource: &Resource<'_>,
    ) -> Outcome<ConsumerArguments> {
        let queue = self.queues.get(&found);
        let kind = queue.map_or(QueueKind::Classic, |queue| queue.arguments.kind);
        let mut read = ConsumerArguments::default();
        let foreign: &[&str] = match kind {
            QueueKind::Classic => {
                read.priority = read_priority(arguments, resource)?;
                check_failover(arguments, resource)?;
                &[StartAt::ARGUMENT]
            }
            QueueKind::Quorum => {
                read.default_prefetch = 2000;
                read.priority = read_priority(arguments, resource)?;
                &[FAILOVER, StartAt::ARGUMENT]
            }
            QueueKind::Stream => {
                let at = StartAt::read(arguments, resource, self.unix_millis())?;
                let stream = self.streams.get(&found);
                read.next_offset = stream.map(|stream| stream.start(at));
                &[FAILOVER, PRIORITY]
            }
        };
        let mut names = arguments.iter().map(|(name, _)| name);
        match names.find(|name| foreign.contains(&&***name)) {
            Some(name) => Err(kind.unsupported(name, resource)),
            None => Ok(read),
        }
    }

    fn consume_replies(&mut self, at: ChannelKey, consume: basic::Consume) -> Outcome {
        if !consume.no_ack {
            return Err(Refusal::precondition("reply consumer cannot acknowledge"));
        }
        if self.channel(at)?.reply_address.is_some() {
            return Err(Refusal::precondition("reply consumer already set"));
        }
        let tag = self.consumer_tag(consume.consumer_tag);
        let address = self.random.name("amq.rabbitmq.reply-to.");
        let address = short(&address);
        self.reply_addresses.insert(address.clone(), at);
        let channel = self.channel(at)?;
        channel.reply_address = Some(address);
        channel.consumers.insert(tag.clone(), Subscription::Replies);
        let consumer_tag = tag;
        self.reply(at, consume.no_wait, &basic::ConsumeOk { consumer_tag });
        Ok(())
    }

    /// Returns the consumer tag of the client, or generates one if it is empty (section 1.8.3.3 of
    /// the protocol reference).
    fn consumer_tag(&mut self, tag: ShortStr) -> ShortStr {
        if tag.is_empty() {
            short(&self.random.name("amq.ctag-"))
        } else {
            tag
        }
    }

    pub(super) fn cancel(&mut self, at: ChannelKey, cancel: basic::Cancel) -> Outcome {
        let channel = self.channel(at)?;
        let subscription = channel.consumers.remove(&cancel.consumer_tag);
        if let Some(Subscription::Replies) = subscription
            && let Some(address) = channel.reply_address.take()
        {
            self.reply_addresses.remove(&address);
        }
        // An unknown tag is no error: the broker may just have cancelled the consumer
        // (<https://www.rabbitmq.com/docs/consumer-cancel>).
        let cancelled = basic::CancelOk {
            consumer_tag: cancel.consumer_tag,
        };
        self.reply(at, cancel.no_wait, &cancelled);
        if let Some(Subscription::Queue { queue, key }) = subscription {
            self.remove_consumer(queue, key);
        }
        Ok(())
    }

    pub(super) fn get(&mut self, at: ChannelKey, get: &basic::Get) -> Outcome {
        let key = at.connection;
        // RabbitMQ 3.10 drops the line breaks of names elsewhere, not here.
        let name = match get.queue.is_empty() {
            true => self.queue_name(at, &get.queue)?,
            false => get.queue.clone(),
        };
        self.check_queue(key, Access::Read, &name)?;
        let found = self.find_queue(key, &name)?;
        self.check_owner(key, found)?;
        if self.streams.contains_key(&found) {
            let resource = self.vhost(key)?.queue_named(&name);
            return Err(Refusal::of_stream("basic.get", &resource));
        }
        if let Some(queue) = self.queues.get(&found)
            && queue.arguments.kind == QueueKind::Quorum
            && queue.arguments.single_active_consumer
        {
            let resource = self.vhost(key)?.queue_named(&name);
            return Err(Refusal::new(
                ReplyCode::RESOURCE_LOCKED,
                format_args!(
                    "cannot obtain access to locked {resource}. basic.get operations are not \
                     supported by quorum queues with single active consumer"
                ),
            ));
        }
        self.expire_messages(found, self.now);
        self.schedule(found);
        let now = self.now;
        let Some(queue) = self.queues.get_mut(&found) else {
            return Ok(());
        };
        queue.used = now;
        let Some(entry) = queue.pop() else {
            self.send(at, &basic::GetEmpty);
            return Ok(());
        };
        let delivery_count = delivery_count(queue, &entry);
        if get.no_ack {
            self.journal.removed(found, queue, &entry);
        } else {
            queue.count_fetched();
            self.journal.delivered(found, queue, &entry);
        }
        queue.messages.delivered += 1;
        self.messages.delivered += 1;
        self.expire_messages(found, now);
        let remaining = self.queues.get(&found);
        let message_count = remaining.map_or(0, |queue| count(queue.len()));
        let conn = self.conn(key)?;
        let Some(channel) = conn.channel(at.id) else {
            return Ok(());
        };
        let delivery_tag = channel.next_delivery();
        let method = basic::GetOk {
            delivery_tag,
            redelivered: entry.redelivered,
            exchange: entry.message.exchange.clone(),
            routing_key: entry.message.routing_key.clone(),
            message_count,
        };
        if !get.no_ack {
            channel.unacked.push_back(Unacked {
                tag: delivery_tag,
                queue: found,
                consumer: None,
                consumer_tag: None,
                entry: Some(entry.clone()),
                at: now,
            });
        }
        send_message(conn, at, &method, &entry.message, delivery_count);
        self.wake(key);
        if !get.no_ack {
            self.watch_acks(at);
        }
        Ok(())
    }
}

/// The arguments of a consumer, as its queue uses them.
#[derive(Default)]
struct ConsumerArguments {
    /// The priority (<https://www.rabbitmq.com/docs/consumer-priority>).
    priority: i64,
    /// `Some` for a stream: the offset of the first message to read.
    next_offset: Option<u64>,
    /// The prefetch limit if the channel sets none; 0 for no limit.
    default_prefetch: u16,
}

const PRIORITY: &str = "x-priority";

const FAILOVER: &str = "x-cancel-on-ha-failover";

fn check_failover(arguments: &FieldTable, queue: &Resource<'_>) -> Outcome {
    match arguments.get(FAILOVER) {
        None | Some(FieldValue::Bool(_)) => Ok(()),
        Some(other) => Err(Refusal::argument(
            FAILOVER,
            queue,
            format_args!("{{unacceptable_type,{}}}", type_name(other)),
        )),
    }
}

fn read_priority(arguments: &FieldTable, queue: &Resource<'_>) -> Outcome<i64> {
    let Some(value) = arguments.get(PRIORITY) else {
        return Ok(0);
    };
    value.as_i64().ok_or_else(|| {
        Refusal::argument(
            PRIORITY,
            queue,
            format_args!("\"expected integer, got {}\"", type_name(value)),
        )
    })
}
