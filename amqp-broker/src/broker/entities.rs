//! Queues and exchanges that are created, with the policies that apply to them.

use alloc::vec::Vec;

use amqp_core::wire::ShortStr;

use super::Broker;
use crate::{
    keys::QueueKey,
    model::{
        exchange::Exchange,
        queue::{Declared, Queue},
        stream::Stream,
        vhost::Vhost,
    },
    policy::{AppliedPolicies, Policies},
};

/// Policies of both kinds.
fn policies(vhost: &Vhost) -> (&Policies, &Policies) {
    (&vhost.policies, &vhost.operator_policies)
}

impl Broker {
    /// Adds a queue to its virtual host.
    pub(crate) fn insert_queue(&mut self, declared: Declared) -> QueueKey {
        let key = QueueKey(self.next_key());
        self.insert_queue_at(key, declared);
        key
    }

    /// Adds a queue to its virtual host, with a key that no other has.
    pub(crate) fn insert_queue_at(&mut self, key: QueueKey, declared: Declared) {
        if let Some(owner) = declared.owner
            && let Some(conn) = self.connections.get_mut(&owner)
        {
            conn.exclusive.insert(key);
        }
        let mut queue = Queue::new(declared, self.now);
        if let Some(vhost) = self.vhosts.get_mut(&queue.vhost) {
            vhost.queues.insert(queue.name.clone(), key);
            let (policies, operator) = policies(vhost);
            let kind = queue.arguments.kind;
            queue.apply_policies(AppliedPolicies::to_queue(
                policies,
                operator,
                &queue.name,
                kind,
            ));
        }
        self.insert_stream(key, &queue);
        self.queues.insert(key, queue);
        self.record_queue(key);
    }

    /// Adds the log of a queue that is a stream.
    fn insert_stream(&mut self, key: QueueKey, queue: &Queue) {
        if let Some(retention) = queue.arguments.retention() {
            self.streams.insert(key, Stream::new(retention));
        }
    }

    /// Adds an exchange to a virtual host.
    pub(crate) fn insert_exchange(&mut self, vhost: &str, name: ShortStr, exchange: Exchange) {
        if let Some(found) = self.vhosts.get_mut(vhost) {
            found.exchanges.insert(name.clone(), exchange);
            found.apply_policies_to_exchange(&name);
            self.record_exchange(vhost, &name);
        }
    }

    /// Applies the policies of a virtual host to its queues and exchanges. The expiry of an unused
    /// queue begins anew if its policies have changed, as in RabbitMQ.
    pub(crate) fn apply_policies(&mut self, vhost: &str) {
        let Some(vhost) = self.vhosts.get_mut(vhost) else {
            return;
        };
        let names = vhost.exchanges.keys().cloned().collect::<Vec<_>>();
        for name in names {
            vhost.apply_policies_to_exchange(&name);
        }
        let keys: Vec<_> = vhost.queues.values().copied().collect();
        let (policies, operator) = policies(vhost);
        let mut changed = Vec::new();
        for key in keys {
            let Some(queue) = self.queues.get_mut(&key) else {
                continue;
            };
            let kind = queue.arguments.kind;
            if queue.apply_policies(AppliedPolicies::to_queue(
                policies,
                operator,
                &queue.name,
                kind,
            )) {
                queue.used = self.now;
                changed.push((key, queue.arguments.retention()));
            }
        }
        let now = self.unix_millis();
        for (key, retention) in changed {
            if let Some(retention) = retention
                && let Some(stream) = self.streams.get_mut(&key)
            {
                let before = stream.bounds();
                stream.set_retention(retention, now);
                self.journal.segments_changed(key, before, stream.bounds());
            }
            self.restarted.push(key);
            self.schedule(key);
        }
    }

    /// Restarts the expiry of the queues whose policies have changed since the time was last known.
    pub(super) fn restart_expiry(&mut self) {
        for key in core::mem::take(&mut self.restarted) {
            if let Some(queue) = self.queues.get_mut(&key) {
                queue.used = self.now;
                self.set_deadline(key);
            }
        }
    }
}

impl Vhost {
    fn apply_policies_to_exchange(&mut self, name: &ShortStr) {
        let applied = AppliedPolicies::to_exchange(&self.policies, &self.operator_policies, name);
        if let Some(exchange) = self.exchanges.get_mut(name) {
            exchange.apply_policies(applied);
        }
    }
}
