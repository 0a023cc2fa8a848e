//! The teardown of channels, connections and queues.

use alloc::{collections::BTreeSet, vec::Vec};

use amqp_core::{
    MethodId,
    protocol::{Severity, basic},
};
use bytes::BytesMut;

use super::Broker;
use crate::{
    keys::{ChannelKey, ConnectionKey, QueueKey},
    model::channel::{Channel, Mode, Settle, Subscription, Unacked},
    refusal::Refusal,
};

impl Broker {
    /// Refuses a request: closes its channel or its connection, depending on the class of the reply
    /// code (section 4.8.1 of the specification).
    pub(crate) fn refuse(&mut self, key: ChannelKey, refusal: &Refusal, method: MethodId) {
        if refusal.code.severity() == Some(Severity::Hard) {
            self.close_connection(key.connection, refusal, method);
            return;
        }
        self.close_channel(key, refusal, Some(method));
    }

    /// Closes a channel. `method` is `Some` if a method of the client is the cause.
    pub(crate) fn close_channel(
        &mut self,
        key: ChannelKey,
        refusal: &Refusal,
        method: Option<MethodId>,
    ) {
        self.send_confirms(key.connection);
        if let Some(conn) = self.connections.get_mut(&key.connection)
            && let Some(mut channel) = conn.machine.channel(key.id)
        {
            // Fails only on a channel that the client has closed since.
            let _closed = channel.close(refusal.code, &refusal.text, method);
            self.wake(key.connection);
        }
        self.end_channel(key);
    }

    /// Ends a channel: removes its consumers, and requeues its unacknowledged deliveries
    /// (<https://www.rabbitmq.com/docs/confirms>).
    pub(crate) fn end_channel(&mut self, key: ChannelKey) {
        let Some(conn) = self.connections.get_mut(&key.connection) else {
            return;
        };
        conn.confirming.remove(&key.id);
        if conn.channel(key.id).is_none() {
            return;
        }
        let Some(channel) = conn.channels.remove(&key.id.number()) else {
            return;
        };
        self.teardown_channel(key.connection, *channel);
    }

    /// Releases everything that a removed channel holds.
    fn teardown_channel(&mut self, connection: ConnectionKey, mut channel: Channel) {
        let id = channel.id;
        self.unwatch_acks(ChannelKey { connection, id }, &mut channel);
        if let Some(address) = channel.reply_address.take() {
            self.reply_addresses.remove(&address);
        }
        let mut unsettled: Vec<Unacked> = channel.unacked.drain(..).collect();
        if let Mode::Transaction(transaction) = &mut channel.mode {
            let settlements = transaction.settlements.drain(..);
            unsettled.extend(settlements.flat_map(|settlement| settlement.deliveries));
        }
        for subscription in channel.consumers.values() {
            if let Subscription::Queue { queue, key } = *subscription {
                self.remove_consumer(queue, key);
            }
        }
        for delivery in &unsettled {
            if let Some(queue) = self.queues.get_mut(&delivery.queue) {
                queue.uncount(delivery.consumer);
            }
        }
        // A quorum queue requeues by consumer, in the order of the tags; in a classic one each message
        // has its place.
        unsettled.sort_by_cached_key(|one| (one.consumer_tag.clone(), one.tag));
        self.settle(Settle::ChannelEnded, unsettled);
    }

    /// Ends a connection: its channels, and its exclusive queues
    /// (<https://www.rabbitmq.com/docs/queues>).
    pub(crate) fn end_connection(&mut self, key: ConnectionKey) {
        let Some(conn) = self.connections.get_mut(&key) else {
            return;
        };
        conn.pending = BytesMut::new();
        conn.blocked = false;
        conn.output_full = false;
        conn.journal_full = false;
        conn.committing = false;
        conn.confirming = BTreeSet::new();
        let channels = core::mem::take(&mut conn.channels);
        let queues = core::mem::take(&mut conn.exclusive);
        for channel in channels.into_values() {
            self.teardown_channel(key, *channel);
        }
        for queue in queues {
            self.delete_queue(queue);
        }
        self.wake(key);
    }

    /// Deletes a queue with its messages, and notifies the consumers of clients with the capability
    /// `consumer_cancel_notify` (<https://www.rabbitmq.com/docs/consumer-cancel>). Returns the
    /// number of messages that were ready.
    pub(crate) fn delete_queue(&mut self, key: QueueKey) -> usize {
        let Some(mut queue) = self.queues.remove(&key) else {
            return 0;
        };
        self.streams.remove(&key);
        if let Some(at) = queue.deadline {
            self.deadlines.remove(&(at, key));
        }
        self.record_queue_deleted(key, &queue);
        if let Some(vhost) = self.vhosts.get_mut(&queue.vhost) {
            let exchanges = vhost.delete_queue(&queue.name);
            self.record_exchanges_deleted(&queue.vhost, exchanges);
        }
        if let Some(owner) = queue
            .owner
            .and_then(|owner| self.connections.get_mut(&owner))
        {
            owner.exclusive.remove(&key);
        }
        for consumer in core::mem::take(&mut queue.consumers).into_values() {
            let Some(conn) = self.connections.get_mut(&consumer.channel.connection) else {
                continue;
            };
            let Some(channel) = conn.channel(consumer.channel.id) else {
                continue;
            };
            channel.consumers.remove(&consumer.tag);
            if conn.machine.client_has_capability("consumer_cancel_notify") {
                let cancel = basic::Cancel {
                    consumer_tag: consumer.tag,
                    no_wait: true,
                };
                self.send(consumer.channel, &cancel);
            }
        }
        queue.len()
    }
}
