//! Delivery to consumers, and settlement of deliveries.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};

use amqp_core::{ChannelId, Instant, protocol::basic, wire::FieldTable};

use super::{Broker, dead_letter::Reason};
use crate::{
    durable::Place,
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
        if self.append_to_stream(key, message) {
            return true;
        }
        let Some(queue) = self.queues.get_mut(&key) else {
            return true;
        };
        if queue.rejects(message) {
            if queue.arguments.overflow == Overflow::RejectPublishDlx {
                self.rejected.push_back((key, message.clone()));
            }
            return false;
        }
        self.store(key, message);
        true
    }

    /// Adds a message to a queue, even if it is full.
    pub(super) fn store(&mut self, key: QueueKey, message: &Arc<Message>) {
        let epoch = self.epoch();
        if let Some(queue) = self.queues.get_mut(&key) {
            let entry = queue.new_entry(message.clone(), self.now);
            self.journal.enqueued(key, queue, &entry, epoch);
            queue.insert(entry);
            self.schedule(key);
        }
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
        if self.streams.contains_key(&key) {
            return self.take_turn(|broker| broker.deliver_from_stream(key));
        }
        // A message with a TTL of 0 is still delivered if a consumer takes it at once
        // (<https://www.rabbitmq.com/docs/ttl>).
        let before = Instant::from_nanos(self.now.as_nanos().saturating_sub(1));
        if !self.expire_some(key, before) {
            return true;
        }
        let is_short = self.take_turn(|broker| {
            let size = broker.deliver_next(key)?;
            broker.expire_messages(key, broker.now);
            Some(size)
        });
        if is_short {
            return true;
        }
        if !self.expire_some(key, self.now) || !self.drop_surplus(key) {
            return true;
        }
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.update_rejecting();
        }
        self.set_deadline(key);
        false
    }

    /// Delivers for one turn. `deliver` delivers a message, and returns the size of its body:
    /// `Some` if there was one to deliver. Returns `true` if the turn was too short.
    fn take_turn(&mut self, mut deliver: impl FnMut(&mut Self) -> Option<usize>) -> bool {
        let (mut messages, mut bytes) = (0, 0);
        while let Some(size) = deliver(self) {
            messages += 1;
            bytes += size;
            if messages >= TURN_MESSAGES || bytes >= TURN_BYTES {
                return true;
            }
        }
        false
    }

    /// Drops messages from the front of a queue while it exceeds its maximum length, and
    /// dead-letters them. Only for the overflow `drop-head`. Returns `false` if there are more than
    /// a turn has.
    fn drop_surplus(&mut self, key: QueueKey) -> bool {
        for _ in 0..TURN_MESSAGES {
            let Some(entry) = self.take_surplus(key) else {
                return true;
            };
            self.dead_letter(key, &entry.message, Reason::MaxLength);
            self.record_removed(key, &entry);
        }
        false
    }

    fn take_surplus(&mut self, key: QueueKey) -> Option<Entry> {
        self.queues.get_mut(&key)?.take_surplus()
    }

    /// Drops the expired messages at the front of a queue, and dead-letters them.
    pub(crate) fn expire_messages(&mut self, key: QueueKey, now: Instant) {
        while !self.expire_some(key, now) {}
    }

    /// Drops expired messages as [`expire_messages`](Self::expire_messages) does. Returns `false` if
    /// there may be more than a turn has.
    fn expire_some(&mut self, key: QueueKey, now: Instant) -> bool {
        let Some(queue) = self.queues.get_mut(&key) else {
            return true;
        };
        let expired = queue.take_expired(now, TURN_MESSAGES);
        let are_all = expired.len() < TURN_MESSAGES;
        for entry in expired {
            self.dead_letter(key, &entry.message, Reason::Expired);
            self.record_removed(key, &entry);
        }
        are_all
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
        let added = delivery_count(queue, &entry).filter(|_| entry.redelivered);
        let message = entry.message.clone();
        self.deliver(key, consumer_key, &message, Some(entry), added)
    }

    /// Delivers a message to a consumer. `entry` is `Some` if the message was taken from the queue.
    /// Returns the size of its body, in bytes.
    pub(super) fn deliver(
        &mut self,
        key: QueueKey,
        consumer_key: ConsumerKey,
        message: &Message,
        entry: Option<Entry>,
        added: Option<AddedHeader>,
    ) -> Option<usize> {
        let queue = self.queues.get_mut(&key)?;
        let no_ack = queue.consumers.get(&consumer_key)?.no_ack;
        match &entry {
            Some(entry) if no_ack => self.journal.removed(key, queue, entry),
            Some(entry) => self.journal.delivered(key, queue, entry),
            None => {}
        }
        queue.messages.delivered += 1;
        self.messages.delivered += 1;
        self.work += 1;
        let consumer = queue.consumers.get_mut(&consumer_key)?;
        consumer.served = self.turn;
        let to = consumer.channel;
        let consumer_tag = consumer.tag.clone();
        let conn = self.connections.get_mut(&to.connection)?;
        let channel = conn.channel(to.id)?;
        let is_unwatched = !no_ack && channel.ack_deadline.is_none();
        let delivery_tag = channel.next_delivery();
        let method = basic::Deliver {
            consumer_tag,
            delivery_tag,
            redelivered: entry.as_ref().is_some_and(|entry| entry.redelivered),
            exchange: message.exchange.clone(),
            routing_key: message.routing_key.clone(),
        };
        if !no_ack {
            let unacked = Unacked {
                tag: delivery_tag,
                queue: key,
                consumer: Some(consumer_key),
                consumer_tag: Some(method.consumer_tag.clone()),
                entry,
                at: self.now,
            };
            channel.counted += u64::from(unacked.is_counted());
            channel.unacked.push_back(unacked);
            consumer.unacked += 1;
            queue.unacked += 1;
        }
        send_message(conn, to, &method, message, added);
        self.wake(to.connection);
        if is_unwatched {
            self.watch_acks(to);
        }
        Some(message.body.len())
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

    /// Stops counting deliveries towards the prefetch limits, and as unacknowledged. [`settle`](Self::settle) handles
    /// the messages.
    pub(crate) fn uncount_unacked(
        &mut self,
        key: ChannelKey,
        kind: Settle,
        deliveries: &[Unacked],
    ) {
        let acked = u64::from(kind == Settle::Ack);
        self.messages.acked += acked * deliveries.len() as u64;
        let counted = deliveries.iter().filter(|one| one.is_counted());
        let counted = counted.count() as u64;
        if let Ok(channel) = self.channel(key) {
            channel.counted = channel.counted.saturating_sub(counted);
        }
        for delivery in deliveries {
            if let Some(queue) = self.queues.get_mut(&delivery.queue) {
                queue.messages.acked += acked;
                queue.uncount(delivery.consumer);
            }
        }
    }

    /// Settles deliveries: drops, requeues or dead-letters their messages. The messages that are
    /// requeued together all count towards the maximum length of a classic queue before any of them
    /// is redelivered; a quorum queue redelivers first. All queues have redelivered before the first
    /// of these messages is dead-lettered to one of them.
    pub(crate) fn settle(&mut self, kind: Settle, deliveries: Vec<Unacked>) {
        let mut queues = BTreeSet::new();
        let mut in_place: BTreeMap<QueueKey, Vec<Entry>> = BTreeMap::new();
        for delivery in deliveries {
            if kind != Settle::Ack && queues.insert(delivery.queue) {
                self.requeue_consumer(&delivery);
            }
            let Some(entry) = delivery.entry else {
                continue;
            };
            match kind {
                Settle::Ack => {}
                Settle::Requeue | Settle::ChannelEnded
                    if self.requeues_in_place(delivery.queue) =>
                {
                    in_place.entry(delivery.queue).or_default().push(entry);
                }
                Settle::Requeue => self.requeue(delivery.queue, entry, RequeueCause::Client),
                Settle::ChannelEnded => {
                    self.requeue(delivery.queue, entry, RequeueCause::ChannelEnded);
                }
                Settle::Reject => {
                    self.dead_letter(delivery.queue, &entry.message, Reason::Rejected);
                    self.record_removed(delivery.queue, &entry);
                }
            }
        }
        for (queue, entries) in in_place {
            self.requeue_in_place(queue, entries);
        }
        let mut surplus = Vec::new();
        for &queue in &queues {
            let found = self.queues.get(&queue);
            let is_classic = found.is_some_and(|it| it.arguments.kind == QueueKind::Classic);
            if kind != Settle::Reject && is_classic {
                let taken = core::iter::from_fn(|| self.take_surplus(queue));
                surplus.extend(taken.map(|entry| (queue, entry)));
            }
        }
        for queue in queues {
            while self.service_queue(queue) {}
        }
        for (queue, entry) in surplus {
            self.dead_letter(queue, &entry.message, Reason::MaxLength);
            self.record_removed(queue, &entry);
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
    pub(crate) fn requeue(&mut self, key: QueueKey, mut entry: Entry, cause: RequeueCause) {
        let Some(queue) = self.queues.get_mut(&key) else {
            return;
        };
        entry.delivery_count += 1;
        if queue.is_within_delivery_limit(&entry) {
            let (entry, place) = queue.requeue(entry, cause);
            self.journal.requeued(key, queue, &entry, place);
            self.schedule(key);
        } else {
            self.dead_letter(key, &entry.message, Reason::DeliveryLimit);
            self.record_removed(key, &entry);
        }
    }

    /// Whether a queue requeues all messages to the places of before.
    fn requeues_in_place(&self, key: QueueKey) -> bool {
        let arguments = self.queues.get(&key).map(|queue| &queue.arguments);
        arguments.is_some_and(|it| it.kind == QueueKind::Classic && it.delivery_limit.is_none())
    }

    fn requeue_in_place(&mut self, key: QueueKey, mut entries: Vec<Entry>) {
        let Some(queue) = self.queues.get_mut(&key) else {
            return;
        };
        for entry in &mut entries {
            entry.delivery_count += 1;
            entry.redelivered = true;
            self.journal.requeued(key, queue, entry, Place::Ordinary);
        }
        queue.insert_all(entries);
        self.schedule(key);
    }

    /// Removes a consumer from its queue, and deletes an `auto-delete` queue with its last consumer
    /// (<https://www.rabbitmq.com/docs/queues>).
    pub(crate) fn remove_consumer(&mut self, queue: QueueKey, consumer: ConsumerKey) {
        let Some(found) = self.queues.get_mut(&queue) else {
            return;
        };
        if !found.remove_consumer(consumer) {
            return;
        }
        if found.consumers.is_empty() && found.auto_delete {
            self.delete_queue(queue);
            return;
        }
        found.used = self.now;
        // Another consumer may be the single active one now. A classic queue of RabbitMQ 3.10 lets it
        // wait for the next message after a cancel, and delivers that one before older ones.
        self.schedule(queue);
    }
}

/// Returns whether a consumer can take a delivery now: its channel is open and not paused, and
/// neither of them is at its prefetch limit (<https://www.rabbitmq.com/docs/consumer-prefetch>). If
/// not, sets `has_blocked_consumer` on its channel. A limit of the channel does not concern
/// consumers of streams.
pub(super) fn can_take(
    connections: &mut BTreeMap<ConnectionKey, Box<ConnState>>,
    consumer: &Consumer,
) -> bool {
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
    let shared = consumer.next_offset.is_none() && full(channel.global_prefetch, channel.counted);
    let can = writable && !own && !shared;
    channel.has_blocked_consumer |= !can;
    can
}

/// A header that the broker adds to a delivery.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AddedHeader {
    pub(crate) name: &'static str,
    pub(crate) value: u64,
}

/// Returns `x-delivery-count`, the number of requeues of a message: `Some` for a quorum queue.
/// Replies to `basic.get` always have it, deliveries to consumers from the second one
/// (<https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling>).
pub(crate) fn delivery_count(queue: &Queue, entry: &Entry) -> Option<AddedHeader> {
    (queue.arguments.kind == QueueKind::Quorum).then_some(AddedHeader {
        name: "x-delivery-count",
        value: entry.delivery_count,
    })
}

/// Sends a message on a channel, regardless of the size of its properties: dead-lettering may have
/// extended its headers beyond the `frame_max` of the consumer.
pub(crate) fn send_message<M: amqp_core::ServerSent>(
    conn: &mut ConnState,
    to: ChannelKey,
    method: &M,
    message: &Message,
    added: Option<AddedHeader>,
) {
    let Some(mut machine) = conn.machine.channel(to.id) else {
        return;
    };
    let body = message.body.clone();
    // Fails only on a channel that is not open. Its teardown requeues all unacknowledged
    // deliveries.
    let _sent = match added {
        None => machine.send_content(method, &message.properties, body),
        Some(added) => {
            let mut properties = message.decode_properties();
            let headers = properties.headers.get_or_insert_default();
            let value = i64::try_from(added.value).unwrap_or(i64::MAX);
            headers.insert(crate::refusal::short(added.name), value);
            *headers = sorted(headers);
            machine.send_content(method, &properties, body)
        }
    };
}

/// Sorts the fields by name, as RabbitMQ does.
pub(super) fn sorted(table: &FieldTable) -> FieldTable {
    let mut fields: Vec<_> = table.iter().collect();
    fields.sort_by_key(|(name, _)| *name);
    fields
        .into_iter()
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}
