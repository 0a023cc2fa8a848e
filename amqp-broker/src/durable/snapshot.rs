//! The durable state as a sequence of changes.

use alloc::vec::Vec;

use super::{
    change::Change,
    record::{self, Place, Progress, message_state},
    streams,
};
use crate::{broker::Broker, keys::QueueKey, model::channel::Mode, model::queue::Entry};

impl Broker {
    /// Returns the durable state, as a sequence of changes for [`restore`](Self::restore) that ends
    /// with [`Change::Stopped`]: the restored broker is as after a [`stop`](Self::stop) at this
    /// moment, but that `auto-delete` queues with consumers stay. The bodies of messages are shared,
    /// not copied.
    #[must_use]
    pub fn snapshot(&self) -> Vec<Change> {
        let mut changes = Vec::new();
        self.snapshot_administration(&mut changes);
        for vhost in self.vhosts.values() {
            let names = vhost.exchanges.keys();
            changes.extend(names.filter_map(|name| record::exchange(vhost, name)));
        }
        let queues = self.queues.iter();
        changes.extend(queues.filter_map(|(key, queue)| record::queue(*key, queue)));
        for vhost in self.vhosts.values() {
            for (source, exchange) in &vhost.exchanges {
                let bindings = exchange.bindings().iter();
                let durable =
                    bindings.filter_map(|binding| self.durable_binding(vhost, source, binding));
                changes.extend(durable.map(Change::Bound));
            }
        }
        for (key, queue) in &self.queues {
            for (place, entry) in queue.entries() {
                changes.extend(self.snapshot_message(*key, entry, place, Progress::Ready));
            }
        }
        for (key, stream) in &self.streams {
            streams::snapshot(*key, stream, &mut changes);
        }
        let channels = self.connections.values();
        for channel in channels.flat_map(|conn| conn.channels.values()) {
            let settled = match &channel.mode {
                Mode::Transaction(transaction) => &transaction.settlements[..],
                Mode::Plain | Mode::Confirm(_) => &[],
            };
            let settled = settled.iter().flat_map(|one| &one.deliveries);
            for unacked in channel.unacked.iter().chain(settled) {
                if let Some(entry) = &unacked.entry {
                    let (key, progress) = (unacked.queue, Progress::Unacked);
                    changes.extend(self.snapshot_message(key, entry, Place::Ordinary, progress));
                }
            }
        }
        changes.push(Change::Stopped);
        changes
    }

    fn snapshot_message(
        &self,
        key: QueueKey,
        entry: &Entry,
        place: Place,
        progress: Progress,
    ) -> Option<Change> {
        let keeps = self.queues.get(&key)?.keeps(&entry.message);
        let state = message_state(entry, place, progress);
        keeps.then(|| Change::Enqueued(record::message(key, entry, state, self.epoch())))
    }
}
