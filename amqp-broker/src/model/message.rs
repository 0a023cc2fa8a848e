//! Messages, and the memory that they occupy together.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering};

use amqp_core::{Body, EncodedProperties, protocol::basic::Properties, wire::ShortStr};

/// A counter of occupied memory, in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds `bytes` until the returned share is dropped.
    pub(crate) fn take(&self, bytes: usize) -> Share {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Share {
            gauge: self.clone(),
            bytes,
        }
    }
}

/// A share of a [`Gauge`], which is subtracted when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    gauge: Gauge,
    bytes: usize,
}

impl Share {
    /// Adds `bytes` to the share.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.gauge.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.gauge.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The approximate cost of a message in addition to its body and properties, in bytes: its fields,
/// and its entry in a queue.
const OVERHEAD: usize = 256;

/// A message, shared by its queues.
#[derive(Debug)]
pub(crate) struct Message {
    /// The exchange that it was published to.
    pub(crate) exchange: ShortStr,
    /// The routing key that it was published with.
    pub(crate) routing_key: ShortStr,
    /// The additional routing keys of its headers `CC` and `BCC`.
    pub(crate) more_keys: Vec<ShortStr>,
    /// The properties, as they are delivered.
    pub(crate) properties: EncodedProperties,
    pub(crate) body: Body,
    pub(crate) priority: u8,
    /// The TTL of the message, in milliseconds.
    pub(crate) expiration: Option<u64>,
    /// The memory that it occupies.
    _share: Share,
}

/// The metadata of a message, beside its content.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    pub(crate) more_keys: Vec<ShortStr>,
    pub(crate) priority: u8,
    pub(crate) expiration: Option<u64>,
}

impl Message {
    pub(crate) fn new(
        envelope: Envelope,
        properties: EncodedProperties,
        body: Body,
        gauge: &Gauge,
    ) -> Arc<Self> {
        let share = gauge.take(OVERHEAD + properties.as_bytes().len() + body.len());
        Arc::new(Self {
            exchange: envelope.exchange,
            routing_key: envelope.routing_key,
            more_keys: envelope.more_keys,
            properties,
            body,
            priority: envelope.priority,
            expiration: envelope.expiration,
            _share: share,
        })
    }

    /// Decodes the properties. Does not fail: they were decoded when the message was published.
    pub(crate) fn decode_properties(&self) -> Properties {
        self.properties.decode().unwrap_or_default()
    }
}
