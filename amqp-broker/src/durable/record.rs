//! The changes of each operation.

use amqp_core::wire::ShortStr;

use super::{
    change::{Change, DurableBinding, DurableExchange, DurableMessage, DurableQueue, MessageState},
    journal::Journal,
};
use crate::{
    broker::Broker,
    inspect::BindingTarget,
    keys::QueueKey,
    model::{
        arguments::QueueKind,
        exchange::{Binding, Destination},
        queue::{Entry, Queue},
        vhost::{Vhost, is_predeclared},
    },
};

impl Journal {
    fn records(&self, queue: &Queue, entry: &Entry) -> bool {
        self.enabled && queue.keeps(&entry.message)
    }

    /// Records that a message is added. `epoch` is the time of day at the origin of the clock, in
    /// seconds since the Unix epoch.
    pub(crate) fn enqueued(&mut self, key: QueueKey, queue: &Queue, entry: &Entry, epoch: u64) {
        if self.records(queue, entry) {
            let state = message_state(entry, Place::Ordinary, Progress::Ready);
            self.push(Change::Enqueued(message(key, entry, state, epoch)));
        }
    }

    /// Records that a message is delivered, if it is to be acknowledged and in a quorum queue.
    pub(crate) fn delivered(&mut self, key: QueueKey, queue: &Queue, entry: &Entry) {
        if self.records(queue, entry) && queue.arguments.kind != QueueKind::Classic {
            self.push(Change::Delivered {
                queue: key.0,
                message: entry.number,
            });
        }
    }

    /// Records that a message is ready again, at that place.
    pub(crate) fn requeued(&mut self, key: QueueKey, queue: &Queue, entry: &Entry, place: Place) {
        if self.records(queue, entry) {
            self.push(Change::Requeued {
                queue: key.0,
                message: entry.number,
                state: message_state(entry, place, Progress::Ready),
            });
        }
    }

    /// Records that a message has left its queue.
    pub(crate) fn removed(&mut self, key: QueueKey, queue: &Queue, entry: &Entry) {
        if self.records(queue, entry) {
            self.push(Change::Removed {
                queue: key.0,
                message: entry.number,
            });
        }
    }
}

/// The place of a message in its queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// By priority and position.
    Ordinary,
    /// Before the messages of a quorum queue that were never delivered.
    Returned,
}

/// Whether a message waits in its queue or for its acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    Ready,
    Unacked,
}

pub(super) fn message_state(entry: &Entry, place: Place, progress: Progress) -> MessageState {
    MessageState {
        position: entry.seq,
        redelivered: entry.redelivered,
        requeues: entry.delivery_count,
        returned: place == Place::Returned,
        unacked: progress == Progress::Unacked,
    }
}

pub(super) fn message(
    key: QueueKey,
    entry: &Entry,
    state: MessageState,
    epoch: u64,
) -> DurableMessage {
    let message = &entry.message;
    let since_epoch = |nanos: u64| epoch.saturating_mul(1000).saturating_add(nanos / 1_000_000);
    DurableMessage {
        queue: key.0,
        number: entry.number,
        state,
        expires: entry.expires.map(|at| since_epoch(at.as_nanos())),
        exchange: message.exchange.clone(),
        routing_key: message.routing_key.clone(),
        more_keys: message.more_keys.clone(),
        properties: message.properties.clone(),
        body: message.body.clone(),
    }
}

impl Broker {
    pub(crate) fn record_exchange(&mut self, vhost: &str, name: &ShortStr) {
        if self.journal.enabled
            && let Some(change) = self
                .vhosts
                .get(vhost)
                .and_then(|vhost| exchange(vhost, name))
        {
            self.journal.push(change);
        }
    }

    /// Records that exchanges are deleted. Those that were transient are none of the durable state.
    pub(crate) fn record_exchanges_deleted(
        &mut self,
        vhost: &str,
        gone: impl IntoIterator<Item = ShortStr>,
    ) {
        if self.journal.enabled {
            for name in gone {
                let vhost = vhost.into();
                self.journal.push(Change::ExchangeDeleted { vhost, name });
            }
        }
    }

    pub(crate) fn record_queue(&mut self, key: QueueKey) {
        if self.journal.enabled
            && let Some(change) = self.queues.get(&key).and_then(|found| queue(key, found))
        {
            self.journal.push(change);
        }
    }

    /// Records that a queue is deleted.
    pub(crate) fn record_queue_deleted(&mut self, key: QueueKey, queue: &Queue) {
        if queue.durable {
            self.journal.push(Change::QueueDeleted { queue: key.0 });
        }
    }

    pub(crate) fn record_binding(&mut self, vhost: &str, source: &ShortStr, added: &Binding) {
        if self.journal.enabled
            && let Some(found) = self.vhosts.get(vhost)
            && let Some(binding) = self.durable_binding(found, source, added)
        {
            self.journal.push(Change::Bound(binding));
        }
    }

    pub(crate) fn record_unbinding(&mut self, vhost: &str, source: &ShortStr, gone: &Binding) {
        if self.journal.enabled
            && let Some(found) = self.vhosts.get(vhost)
            && let Some(binding) = self.durable_binding(found, source, gone)
        {
            self.journal.push(Change::Unbound(binding));
        }
    }

    /// Records that a message has left its queue.
    pub(crate) fn record_removed(&mut self, key: QueueKey, entry: &Entry) {
        if self.journal.enabled
            && let Some(queue) = self.queues.get(&key)
        {
            self.journal.removed(key, queue, entry);
        }
    }

    /// Records that all ready messages leave their queue.
    pub(crate) fn record_purge(&mut self, key: QueueKey) {
        if self.journal.enabled
            && let Some(queue) = self.queues.get(&key)
        {
            for (_, entry) in queue.entries() {
                self.journal.removed(key, queue, entry);
            }
        }
    }

    /// Returns a binding: `Some` if both of its ends are durable.
    pub(super) fn durable_binding(
        &self,
        vhost: &Vhost,
        source: &ShortStr,
        binding: &Binding,
    ) -> Option<DurableBinding> {
        let is_durable = |name: &ShortStr| {
            let exchange = vhost.exchanges.get(name);
            exchange.is_some_and(|exchange| exchange.durable)
        };
        let destination = match &binding.destination {
            Destination::Queue(key) => {
                let queue = self.queues.get(key)?;
                queue
                    .durable
                    .then(|| BindingTarget::Queue(queue.name.clone()))?
            }
            Destination::Exchange(name) => {
                is_durable(name).then(|| BindingTarget::Exchange(name.clone()))?
            }
        };
        is_durable(source).then(|| DurableBinding {
            vhost: vhost.name.clone(),
            source: source.clone(),
            destination,
            routing_key: binding.routing_key.clone(),
            arguments: binding.arguments.clone(),
        })
    }
}

/// Returns the declaration of an exchange: `Some` if it is durable and not predeclared.
pub(super) fn exchange(vhost: &Vhost, name: &ShortStr) -> Option<Change> {
    let exchange = vhost.exchanges.get(name)?;
    let recorded = exchange.durable && !is_predeclared(name);
    recorded.then(|| {
        Change::ExchangeDeclared(DurableExchange {
            vhost: vhost.name.clone(),
            name: name.clone(),
            kind: crate::refusal::short(exchange.kind.name()),
            auto_delete: exchange.auto_delete,
            internal: exchange.internal,
            arguments: exchange.arguments.clone(),
        })
    })
}

/// Returns the declaration of a queue: `Some` if it is durable.
pub(super) fn queue(key: QueueKey, queue: &Queue) -> Option<Change> {
    queue.durable.then(|| {
        Change::QueueDeclared(DurableQueue {
            number: key.0,
            vhost: queue.vhost.clone(),
            name: queue.name.clone(),
            auto_delete: queue.auto_delete,
            arguments: queue.table.clone(),
        })
    })
}
