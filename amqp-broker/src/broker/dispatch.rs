//! Delivery to consumers, and settlement of deliveries.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};

use amqp_core::{ChannelId, Instant, protocol::basic};

use super::{Broker, dead_letter::Reason};
use crate::{
    keys::{ChannelKey, ConnectionKey, ConsumerKey, QueueKey},
    model::{
        arguments::{Overflow, QueueKind},
        channel::{Settle, Subscription, Unacked},
        conn_state::ConnState,
        message::Message,
        queue::{Consumer, Entry, Queue, RequeueCause},
    },
};

/// The maximum number of messages that a queue delivers in one turn, while other queues wait.
const TURN_MESSAGES: usize = 16;

/// The size of the message bodies that ends the turn of a queue, in bytes.
const TURN_BYTES: usize = 16 << 10;

impl Broker {
    /// Enqueues a message. Returns `false` if the queue rejects it, because it is full and its
    /// overflow is `reject-publish` or `reject-publish-dlx`
    /// (<https://www.rabbitmq.com/docs/maxlength>).
    pub(crate) fn enqueue(&mut self, key: QueueKey, message: &Arc<Message>) -> bool {
        let Some(queue) = self.queues.get_mut(&key) else {
            return true;
        };
        if queue.rejects(message) {
            if queue.arguments.overflow == Overflow::RejectPublishDlx {
                self.dead_letter(key, message, Reason::MaxLength);
            }
            return false;
        }
        let entry = queue.new_entry(message.clone(), self.now);
        self.journal.enqueued(key, queue, &entry, self.config.epoch);
        queue.insert(entry);
        self.schedule(key);
        true
    }

    /// Processes a queue after a change, in one turn: delivers messages, drops those that have
    /// expired or exceed the maximum length, and deletes the queue if it has expired. Returns
    /// `true` if the turn was too short: nothing is dropped before the last turn, because it may
    /// still be delivered.
    pub(super) fn service_queue(&mut self, key: QueueKey) -> bool {
        let Some(queue) = self.queues.get_mut(&key) else {
            return false;
        };
        if queue.expires_at().is_some_and(|at| at <= self.now) {
            self.delete_queue(key);
            return false;
        }
        self.turn += 1;
        // A message with a TTL of 0 is still delivered if a consumer takes it at once
        // (<https://www.rabbitmq.com/docs/ttl>).
        let before = Instant::from_nanos(self.now.as_nanos().saturating_sub(1));
        self.expire_messages(key, before);
        let (mut messages, mut bytes) = (0, 0);
        while let Some(size) = self.deliver_next(key) {
            self.expire_messages(key, self.now);
            messages += 1;
            bytes += size;
            if messages >= TURN_MESSAGES || bytes >= TURN_BYTES {
                return true;
            }
        }
        self.expire_messages(key, self.now);
        self.drop_surplus(key);
        self.set_deadline(key);
        false
    }

    /// Drops messages from the front of a queue while it exceeds its maximum length, and
    /// dead-letters them. Only for the overflow `drop-head`.
    fn drop_surplus(&mut self, key: QueueKey) {
        while let Some(entry) = self
            .queues
            .get_mut(&key)
            .and_then(|queue| queue.take_surplus())
        {
            self.dead_letter(key, &entry.message, Reason::MaxLength);
            self.record_removed(key, &entry);
        }
    }

    /// Drops the expired messages at the front of a queue, and dead-letters them.
    pub(crate) fn expire_messages(&mut self, key: QueueKey, now: Instant) {
        if let Some(queue) = self.queues.get_mut(&key) {
            for entry in queue.take_expired(now) {
                self.dead_letter(key, &entry.message, Reason::Expired);
                self.record_removed(key, &entry);
            }
        }
    }

    /// Delivers the next ready message to the next eligible consumer. Returns the size of its
    /// body, in bytes: `Some` unless either is missing.
    fn deliver_next(&mut self, key: QueueKey) -> Option<usize> {
        let queue = self.queues.get_mut(&key)?;
        if queue.is_empty() {
            return None;
        }
        let connections = &mut self.connections;
        let consumer_key = queue.next_consumer(|_, consumer| can_take(connections, consumer))?;
        let entry = queue.pop()?;
        let consumer = queue.consumers.get_mut(&consumer_key)?;
        consumer.served = self.turn;
        let (to, no_ack) = (consumer.channel, consumer.no_ack);
        let consumer_tag = consumer.tag.clone();
        let delivery_count = delivery_count(queue, &entry);
        if no_ack {
            self.journal.removed(key, queue, &entry);
        } else {
            self.journal.delivered(key, queue, &entry);
        }
        queue.messages.delivered += 1;
        self.messages.delivered += 1;
        let conn = self.connections.get_mut(&to.connection)?;
        let channel = conn.channel(to.id)?;
        let delivery_tag = channel.next_delivery();
        let method = basic::Deliver {
            consumer_tag,
            delivery_tag,
            redelivered: entry.redelivered,
            exchange: entry.message.exchange.clone(),
            routing_key: entry.message.routing_key.clone(),
        };
        if !no_ack {
            channel.counted += 1;
            channel.unacked.push_back(Unacked {
                tag: delivery_tag,
                queue: key,
                consumer: Some(consumer_key),
                consumer_tag: Some(method.consumer_tag.clone()),
                entry: entry.clone(),
            });
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.unacked += 1;
                if let Some(consumer) = queue.consumers.get_mut(&consumer_key) {
                    consumer.unacked += 1;
                }
            }
        }
        send_message(conn, to, &method, &entry.message, delivery_count);
        self.wake(to.connection);
        Some(entry.message.body.len())
    }

    /// Returns the blocked consumers of a channel to the round-robin. Called when prefetch or flow
    /// control may not block them any more.
    pub(crate) fn unblock_consumers(&mut self, key: ChannelKey) {
        self.unblock_channels(key.connection, &[key.id]);
    }

    /// Returns the blocked consumers of a connection to the round-robin. Called when queued output
    /// does not block them any more.
    pub(super) fn unblock_connection(&mut self, key: ConnectionKey) {
        self.unblock_channels(key, &self.channel_ids(key));
    }

    /// Returns the blocked consumers of some channels to the round-robin of their queues, in the
    /// order in which they were blocked, and schedules the queues: the one that was served last by
    /// these consumers takes its turn last.
    fn unblock_channels(&mut self, connection: ConnectionKey, ids: &[ChannelId]) {
        let mut blocked: Vec<(QueueKey, Option<u64>, ConsumerKey, u64)> = Vec::new();
        for &id in ids {
            let Ok(channel) = self.channel(ChannelKey { connection, id }) else {
                continue;
            };
            if !core::mem::take(&mut channel.has_blocked_consumer) {
                continue;
            }
            let subscriptions: Vec<Subscription> = channel.consumers.values().copied().collect();
            for subscription in subscriptions {
                if let Subscription::Queue { queue, key } = subscription
                    && let Some(found) = self.queues.get(&queue)
                    && let Some(consumer) = found.consumers.get(&key)
                {
                    blocked.push((queue, consumer.blocked_since, key, consumer.served));
                }
            }
        }
        blocked.sort_unstable();
        let mut turns: Vec<(u64, QueueKey)> = Vec::new();
        for (queue, _, consumer, served) in blocked {
            if let Some(found) = self.queues.get_mut(&queue) {
                found.join_round_robin(consumer);
            }
            match turns.last_mut() {
                Some((last, key)) if *key == queue => *last = served.max(*last),
                _ => turns.push((served, queue)),
            }
        }
        turns.sort_unstable();
        for (_, queue) in turns {
            self.schedule(queue);
        }
    }

    /// Stops counting deliveries towards the prefetch limits, and as unacknowledged. Messages from
    /// `basic.get` do not count towards the limit of the channel. [`settle`](Self::settle) handles
    /// the messages.
    pub(crate) fn uncount_unacked(
        &mut self,
        key: ChannelKey,
        kind: Settle,
        deliveries: &[Unacked],
    ) {
        let acked = u64::from(kind == Settle::Ack);
        self.messages.acked += acked * deliveries.len() as u64;
        let counted = deliveries.iter().filter(|one| one.consumer.is_some());
        let counted = counted.count() as u64;
        if let Ok(channel) = self.channel(key) {
            channel.counted = channel.counted.saturating_sub(counted);
        }
        for delivery in deliveries {
            if let Some(queue) = self.queues.get_mut(&delivery.queue) {
                queue.unacked = queue.unacked.saturating_sub(1);
                queue.messages.acked += acked;
                let consumer = delivery
                    .consumer
                    .and_then(|key| queue.consumers.get_mut(&key));
                if let Some(consumer) = consumer {
                    consumer.unacked = consumer.unacked.saturating_sub(1);
                }
            }
        }
    }

    /// Settles deliveries: drops, requeues or dead-letters their messages. The messages that are
    /// requeued together all count towards the maximum length of a classic queue before any of them
    /// is redelivered; a quorum queue redelivers first.
    pub(crate) fn settle(&mut self, kind: Settle, deliveries: Vec<Unacked>) {
        let mut queues = BTreeSet::new();
        for delivery in deliveries {
            if kind != Settle::Ack && queues.insert(delivery.queue) {
                self.requeue_consumer(&delivery);
            }
            match kind {
                Settle::Ack => {}
                Settle::Requeue => self.requeue(delivery, RequeueCause::Client),
                Settle::ChannelEnded => self.requeue(delivery, RequeueCause::ChannelEnded),
                Settle::Reject => {
                    self.dead_letter(delivery.queue, &delivery.entry.message, Reason::Rejected);
                    self.record_removed(delivery.queue, &delivery.entry);
                }
            }
        }
        for queue in queues {
            let found = self.queues.get(&queue);
            let is_classic = found.is_some_and(|it| it.arguments.kind == QueueKind::Classic);
            if kind != Settle::Reject && is_classic {
                self.drop_surplus(queue);
            }
            while self.service_queue(queue) {}
        }
    }

    /// Returns the consumer of a delivery to the round-robin, if it has its own prefetch limit.
    /// Consumers that a limit of the channel blocks return in `unblock_consumers`, when all
    /// deliveries are settled.
    fn requeue_consumer(&mut self, delivery: &Unacked) {
        if let Some(consumer) = delivery.consumer
            && let Some(queue) = self.queues.get_mut(&delivery.queue)
            && queue
                .consumers
                .get(&consumer)
                .is_some_and(|consumer| consumer.prefetch > 0)
        {
            queue.join_round_robin(consumer);
        }
    }

    /// Requeues a message, or dead-letters it beyond the delivery limit of its queue.
    pub(crate) fn requeue(&mut self, delivery: Unacked, cause: RequeueCause) {
        let Some(queue) = self.queues.get_mut(&delivery.queue) else {
            return;
        };
        let mut entry = delivery.entry;
        entry.delivery_count += 1;
        if queue.is_within_delivery_limit(&entry) {
            let (entry, place) = queue.requeue(entry, cause);
            self.journal.requeued(delivery.queue, queue, &entry, place);
            self.schedule(delivery.queue);
        } else {
            self.dead_letter(delivery.queue, &entry.message, Reason::DeliveryLimit);
            self.record_removed(delivery.queue, &entry);
        }
    }

    /// Removes a consumer from its queue, and deletes an `auto-delete` queue with its last consumer
    /// (<https://www.rabbitmq.com/docs/queues>).
    pub(crate) fn remove_consumer(&mut self, queue: QueueKey, consumer: ConsumerKey) {
        let Some(found) = self.queues.get_mut(&queue) else {
            return;
        };
        if found.remove_consumer(consumer).is_none() {
            return;
        }
        if found.consumers.is_empty() && found.auto_delete {
            self.delete_queue(queue);
            return;
        }
        found.used = self.now;
        // Another consumer may be the single active one now.
        self.schedule(queue);
    }
}

/// Returns whether a consumer can take a delivery now: its channel is open and not paused, and
/// neither of them is at its prefetch limit (<https://www.rabbitmq.com/docs/consumer-prefetch>). If
/// not, sets `has_blocked_consumer` on its channel.
fn can_take(connections: &mut BTreeMap<ConnectionKey, ConnState>, consumer: &Consumer) -> bool {
    let Some(conn) = connections.get_mut(&consumer.channel.connection) else {
        return false;
    };
    let Some(mut machine) = conn.machine.channel(consumer.channel.id) else {
        return false;
    };
    let writable = machine.is_open() && machine.hold().is_none();
    let Some(channel) = conn.channel(consumer.channel.id) else {
        return false;
    };
    let full = |limit: u16, value: u64| limit > 0 && value >= u64::from(limit);
    let own = !consumer.no_ack && full(consumer.prefetch, consumer.unacked);
    let shared = full(channel.global_prefetch, channel.counted);
    let can = writable && !own && !shared;
    channel.has_blocked_consumer |= !can;
    can
}

/// Returns the number of requeues of a message: `Some` for a quorum queue, which sends it as
/// `x-delivery-count` (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
pub(crate) fn delivery_count(queue: &Queue, entry: &Entry) -> Option<u64> {
    (queue.arguments.kind == QueueKind::Quorum).then_some(entry.delivery_count)
}

/// Sends a message on a channel, regardless of the size of its properties: dead-lettering may have
/// extended its headers beyond the `frame_max` of the consumer.
pub(crate) fn send_message<M: amqp_core::ServerSent>(
    conn: &mut ConnState,
    to: ChannelKey,
    method: &M,
    message: &Message,
    delivery_count: Option<u64>,
) {
    let Some(mut machine) = conn.machine.channel(to.id) else {
        return;
    };
    let body = message.body.clone();
    // Fails only on a channel that is not open. Its teardown requeues all unacknowledged
    // deliveries.
    let _sent = match delivery_count {
        None => machine.send_content(method, &message.properties, body),
        Some(count) => {
            let mut properties = message.decode_properties();
            let headers = properties.headers.get_or_insert_default();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            headers.insert(crate::refusal::short("x-delivery-count"), count);
            machine.send_content(method, &properties, body)
        }
    };
}
