//! Messages to consumers, and back.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    vec::Vec,
};

use amqp_core::{Instant, protocol::basic};

use super::{Broker, dead_letter::Reason};
use crate::{
    keys::{ChannelKey, ConnectionKey, ConsumerKey, QueueKey},
    model::{
        arguments::{Overflow, QueueKind},
        channel::{Settle, Subscription, Unacked},
        link::Link,
        message::Message,
        queue::{Consumer, Entry, Queue},
    },
};

impl Broker {
    /// Puts a message into a queue; false if the queue does not take it.
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
        queue.push(message.clone(), self.now);
        self.schedule(key);
        true
    }

    /// Looks at a queue after something about it has changed: gives out what can be given out, and
    /// drops what has no time or no room left.
    pub(super) fn look_at(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(&key) else {
            return;
        };
        queue.scheduled = false;
        if queue.expires_at().is_some_and(|at| at <= self.now) {
            self.delete_queue(key);
            return;
        }
        // A message that has no time to wait can still be delivered now, if nobody need wait.
        let before = Instant::from_nanos(self.now.as_nanos().saturating_sub(1));
        self.expire_messages(key, before);
        while self.deliver_next(key) {
            self.expire_messages(key, self.now);
        }
        self.expire_messages(key, self.now);
        self.drop_surplus(key);
        self.set_deadline(key);
    }

    /// Drops what has no room.
    fn drop_surplus(&mut self, key: QueueKey) {
        while let Some(entry) = self
            .queues
            .get_mut(&key)
            .and_then(|queue| queue.take_surplus())
        {
            self.dead_letter(key, &entry.message, Reason::MaxLength);
        }
    }

    /// Drops the messages that have waited too long.
    pub(crate) fn expire_messages(&mut self, key: QueueKey, now: Instant) {
        if let Some(queue) = self.queues.get_mut(&key) {
            for entry in queue.take_expired(now) {
                self.dead_letter(key, &entry.message, Reason::Expired);
            }
        }
    }

    /// Gives one message to the consumer whose turn it is; false if there is none of either.
    fn deliver_next(&mut self, key: QueueKey) -> bool {
        let Some(queue) = self.queues.get_mut(&key) else {
            return false;
        };
        if queue.is_empty() {
            return false;
        }
        let links = &mut self.links;
        let Some(taker) = queue.next_consumer(|_, consumer| can_take(links, consumer)) else {
            return false;
        };
        let Some(entry) = queue.pop() else {
            return false;
        };
        let Some(consumer) = queue.consumers.get(&taker) else {
            return false;
        };
        let (to, no_ack) = (consumer.channel, consumer.no_ack);
        let consumer_tag = consumer.tag.clone();
        let returned = returns_told(queue, &entry);
        let Some(link) = self.links.get_mut(&to.connection) else {
            return false;
        };
        let Some(channel) = link.channel(to.id) else {
            return false;
        };
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
                consumer: Some(taker),
                consumer_tag: Some(method.consumer_tag.clone()),
                entry: entry.clone(),
            });
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.unacked += 1;
                if let Some(consumer) = queue.consumers.get_mut(&taker) {
                    consumer.unacked += 1;
                }
            }
        }
        send_message(link, to, &method, &entry.message, returned);
        self.wake(to.connection);
        true
    }

    /// What held the consumers of a channel back may be over. They join in the order in which they
    /// were found to be held back.
    pub(crate) fn release(&mut self, key: ChannelKey) {
        let Ok(channel) = self.channel(key) else {
            return;
        };
        if !core::mem::take(&mut channel.held_back) {
            return;
        }
        let subscriptions: Vec<Subscription> = channel.consumers.values().copied().collect();
        let mut held: Vec<(QueueKey, Option<u64>, ConsumerKey)> = Vec::new();
        for subscription in subscriptions {
            if let Subscription::Queue { queue, key } = subscription
                && let Some(found) = self.queues.get(&queue)
                && let Some(consumer) = found.consumers.get(&key)
            {
                held.push((queue, consumer.held_back, key));
            }
        }
        held.sort_unstable();
        for (queue, _, consumer) in held {
            if let Some(found) = self.queues.get_mut(&queue) {
                found.join_turn(consumer);
            }
            self.schedule(queue);
        }
    }

    /// Deliveries are not outstanding any more: they stop counting towards the limits. This is
    /// where a channel learns of it, `settle` is what is done with the messages.
    pub(crate) fn discount(&mut self, key: ChannelKey, deliveries: &[Unacked]) {
        let counted = deliveries.iter().filter(|one| one.consumer.is_some());
        let counted = counted.count() as u64;
        if let Ok(channel) = self.channel(key) {
            channel.counted = channel.counted.saturating_sub(counted);
        }
        for delivery in deliveries {
            if let Some(queue) = self.queues.get_mut(&delivery.queue) {
                queue.unacked = queue.unacked.saturating_sub(1);
                let consumer = delivery
                    .consumer
                    .and_then(|key| queue.consumers.get_mut(&key));
                if let Some(consumer) = consumer {
                    consumer.unacked = consumer.unacked.saturating_sub(1);
                }
            }
        }
    }

    /// Does with deliveries what is to be done with them. What comes back to a queue together takes
    /// its room before any of it is given out again.
    pub(crate) fn settle(&mut self, kind: Settle, deliveries: Vec<Unacked>) {
        let mut queues = BTreeSet::new();
        for delivery in deliveries {
            if kind != Settle::Ack && queues.insert(delivery.queue) {
                self.rejoin(&delivery);
            }
            match kind {
                Settle::Ack => {}
                Settle::Requeue => self.put_back(delivery, true),
                Settle::Abandon => self.put_back(delivery, false),
                Settle::Reject => {
                    self.dead_letter(delivery.queue, &delivery.entry.message, Reason::Rejected);
                }
            }
        }
        for queue in queues {
            if kind != Settle::Reject {
                self.drop_surplus(queue);
            }
            self.look_at(queue);
        }
    }

    /// What held the consumer of a delivery back may be over, if that was its own limit: that of its
    /// channel is looked at when all is settled.
    fn rejoin(&mut self, delivery: &Unacked) {
        if let Some(consumer) = delivery.consumer
            && let Some(queue) = self.queues.get_mut(&delivery.queue)
            && queue
                .consumers
                .get(&consumer)
                .is_some_and(|consumer| consumer.prefetch > 0)
        {
            queue.join_turn(consumer);
        }
    }

    fn put_back(&mut self, delivery: Unacked, refused: bool) {
        let Some(queue) = self.queues.get_mut(&delivery.queue) else {
            return;
        };
        let mut entry = delivery.entry;
        entry.returned += 1;
        if queue.may_return(&entry) {
            queue.put_back(entry, refused);
            self.schedule(delivery.queue);
        } else {
            self.dead_letter(delivery.queue, &entry.message, Reason::DeliveryLimit);
        }
    }

    /// Takes a consumer out of its queue, which goes with its last one if it was declared so.
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
        // Another one may be the active one now.
        self.schedule(queue);
    }
}

/// Whether a consumer can be given a message now. If not, its channel notes that it was held back.
fn can_take(links: &mut BTreeMap<ConnectionKey, Link>, consumer: &Consumer) -> bool {
    let Some(link) = links.get_mut(&consumer.channel.connection) else {
        return false;
    };
    let Some(mut machine) = link.machine.channel(consumer.channel.id) else {
        return false;
    };
    let writable = machine.is_open() && machine.hold().is_none();
    let Some(channel) = link.channel(consumer.channel.id) else {
        return false;
    };
    let full = |limit: u16, value: u64| limit > 0 && value >= u64::from(limit);
    let own = !consumer.no_ack && full(consumer.prefetch, consumer.unacked);
    let shared = full(channel.global_prefetch, channel.counted);
    let can = writable && !own && !shared;
    channel.held_back |= !can;
    can
}

/// How often a message came back, where consumers are told.
pub(crate) fn returns_told(queue: &Queue, entry: &Entry) -> Option<u64> {
    (queue.arguments.kind == QueueKind::Quorum).then_some(entry.returned)
}

/// Sends a message on a channel, whatever the size of its properties: they may have grown on their
/// way, and be larger than the frames of the consumer.
pub(crate) fn send_message<M: amqp_core::ServerSent>(
    link: &mut Link,
    to: ChannelKey,
    method: &M,
    message: &Message,
    returned: Option<u64>,
) {
    let Some(mut machine) = link.machine.channel(to.id) else {
        return;
    };
    let body = message.body.clone();
    // Refused only on a channel that is not open. It ends with its channel then, and everything
    // outstanding goes back.
    let _sent = match returned {
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
