//! The changes of streams: segments and messages.

use alloc::{collections::BTreeMap, sync::Arc, vec::Vec};

use super::{
    change::{Change, StreamMessage},
    journal::Journal,
    restore::{Contents, RestoreError, missing_message, missing_queue},
};
use crate::{
    broker::Broker,
    keys::QueueKey,
    model::{
        message::{Envelope, Message},
        stream::{self, Bounds, Record, Stream},
    },
};

impl Journal {
    /// Records the segments that have begun or are dropped since the bounds `before`.
    pub(crate) fn segments_changed(&mut self, key: QueueKey, before: Bounds, after: Bounds) {
        let queue = key.0;
        if after.last != before.last {
            let first = after.last;
            self.push(Change::SegmentBegun { queue, first });
        }
        if after.oldest != before.oldest {
            let first = after.oldest;
            self.push(Change::SegmentsDropped { queue, first });
        }
    }

    /// Records that a message is appended at a time in milliseconds since the Unix epoch.
    pub(crate) fn appended(
        &mut self,
        key: QueueKey,
        offset: u64,
        timestamp: u64,
        message: &Arc<Message>,
    ) {
        if self.enabled {
            self.push(appended(key, offset, timestamp, message));
        }
    }
}

/// Adds the segments and messages of a stream.
pub(super) fn snapshot(key: QueueKey, stream: &Stream, changes: &mut Vec<Change>) {
    for (first, records) in stream.segments() {
        if first > 0 {
            let queue = key.0;
            changes.push(Change::SegmentBegun { queue, first });
        }
        let records = (first..).zip(records);
        changes.extend(
            records
                .map(|(offset, record)| appended(key, offset, record.timestamp, &record.message)),
        );
    }
}

fn appended(key: QueueKey, offset: u64, timestamp: u64, message: &Message) -> Change {
    Change::Appended(StreamMessage {
        queue: key.0,
        offset,
        timestamp,
        exchange: message.exchange.clone(),
        routing_key: message.routing_key.clone(),
        properties: message.properties.clone(),
        body: message.body.clone(),
    })
}

impl Broker {
    /// Returns the contents of a stream so far.
    pub(super) fn stream_contents<'a>(
        &self,
        contents: &'a mut Contents,
        queue: u64,
    ) -> Result<&'a mut stream::Contents, RestoreError> {
        if !self.streams.contains_key(&QueueKey(queue)) {
            return Err(missing_queue(queue));
        }
        Ok(contents.streams.entry(queue).or_default())
    }

    pub(super) fn apply_append(
        &self,
        appended: StreamMessage,
        contents: &mut Contents,
    ) -> Result<(), RestoreError> {
        let stream = self.stream_contents(contents, appended.queue)?;
        // Does not fail: `EncodedProperties` decode.
        let properties = appended.properties.decode().unwrap_or_default();
        let envelope = Envelope {
            exchange: appended.exchange,
            routing_key: appended.routing_key,
            more_keys: Vec::new(),
            priority: properties.priority.unwrap_or(0),
            expiration: None,
            persistent: properties.delivery_mode == Some(2),
        };
        let (content, body) = (appended.properties, appended.body);
        let record = Record {
            timestamp: appended.timestamp,
            message: Message::new(envelope, content, body, &self.memory),
        };
        stream.records.insert(appended.offset, record);
        Ok(())
    }

    /// Fills the streams.
    pub(super) fn restore_streams(
        &mut self,
        contents: BTreeMap<u64, stream::Contents>,
    ) -> Result<(), RestoreError> {
        for (queue, contents) in contents {
            if let Some(stream) = self.streams.get_mut(&QueueKey(queue)) {
                let restored = stream.restore(contents);
                restored.map_err(|offset| missing_message(queue, offset))?;
            }
        }
        Ok(())
    }
}
