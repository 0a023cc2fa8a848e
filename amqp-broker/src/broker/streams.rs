//! Appending to streams, and delivery from them (<https://www.rabbitmq.com/docs/streams>).

use alloc::sync::Arc;

use super::{
    Broker,
    dispatch::{AddedHeader, can_take},
};
use crate::{
    keys::QueueKey,
    model::{
        message::Message,
        stream::{StartAt, to_stored},
    },
};

impl Broker {
    /// Appends a message to a stream. Returns `false` if the queue is not one.
    pub(super) fn append_to_stream(&mut self, key: QueueKey, message: &Arc<Message>) -> bool {
        let now = self.unix_millis();
        let Some(stream) = self.streams.get_mut(&key) else {
            return false;
        };
        let before = stream.bounds();
        let stored = to_stored(message, &self.memory);
        let offset = stream.append(stored.clone(), now);
        self.journal.segments_changed(key, before, stream.bounds());
        self.journal.appended(key, offset, now, &stored);
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.messages.published += 1;
            // Those that had reached the end have a message to read.
            queue.join_all();
        }
        self.schedule(key);
        true
    }

    /// Delivers the next message of a stream to the next consumer that can take one and has not
    /// reached the end. Returns the size of its body, in bytes: `Some` unless there is no such
    /// consumer.
    pub(super) fn deliver_from_stream(&mut self, key: QueueKey) -> Option<usize> {
        let stream = self.streams.get(&key)?;
        let queue = self.queues.get_mut(&key)?;
        let connections = &mut self.connections;
        let mut found = None;
        let consumer_key = queue.next_consumer(|_, consumer| {
            found = consumer.next_offset.and_then(|from| stream.read(from));
            found.is_some() && can_take(connections, consumer)
        })?;
        let (offset, message) = found?;
        let message = message.clone();
        queue.consumers.get_mut(&consumer_key)?.next_offset = Some(offset + 1);
        let added = AddedHeader {
            name: StartAt::ARGUMENT,
            value: offset,
        };
        self.deliver(key, consumer_key, &message, None, Some(added))
    }

    /// Returns the number of messages of a queue that are ready, or that a stream has.
    pub(crate) fn message_count(&self, key: QueueKey) -> usize {
        match (self.streams.get(&key), self.queues.get(&key)) {
            (Some(stream), _) => stream.len(),
            (None, Some(queue)) => queue.len(),
            (None, None) => 0,
        }
    }
}
