//! Messages, and the memory that they occupy together.

use alloc::{string::String, sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering};

use amqp_core::{Body, EncodedProperties, protocol::basic::Properties, wire::ShortStr};

/// A counter of occupied memory, in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryMeter(Arc<AtomicUsize>);

impl MemoryMeter {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Adds `bytes` until the returned reservation is dropped.
    pub(crate) fn reserve(&self, bytes: usize) -> Reservation {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Reservation {
            meter: self.clone(),
            bytes,
        }
    }
}

/// A part of a [`MemoryMeter`], which is subtracted when it is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    meter: MemoryMeter,
    bytes: usize,
}

impl Reservation {
    /// Adds `bytes` to the reservation.
    pub(crate) fn grow(&mut self, bytes: usize) {
        self.meter.0.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.meter.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// The cost of a message in addition to its body, properties and names, in bytes: its fields, and its
/// entry in a queue that has just doubled its capacity.
const OVERHEAD: usize = 384;

/// A message, shared by its queues.
#[derive(Debug)]
pub(crate) struct Message {
    /// The exchange that it was published to.
    pub(crate) exchange: ShortStr,
    /// The routing key that it was published with.
    pub(crate) routing_key: ShortStr,
    /// The additional routing keys of its headers `CC` and `BCC`, of any length.
    pub(crate) more_keys: Vec<String>,
    /// The properties, as they are delivered.
    pub(crate) properties: EncodedProperties,
    pub(crate) body: Body,
    pub(crate) priority: u8,
    /// The TTL of the message, in milliseconds.
    pub(crate) expiration: Option<u64>,
    /// Whether its `delivery_mode` is 2 (section 3.1.7 of the specification).
    pub(crate) persistent: bool,
    /// The memory that it occupies.
    _reservation: Reservation,
}

/// The metadata of a message, beside its content.
#[derive(Debug)]
pub(crate) struct Envelope {
    pub(crate) exchange: ShortStr,
    pub(crate) routing_key: ShortStr,
    pub(crate) more_keys: Vec<String>,
    pub(crate) priority: u8,
    pub(crate) expiration: Option<u64>,
    pub(crate) persistent: bool,
}

impl Envelope {
    /// Returns the length of the names, in bytes.
    fn len(&self) -> usize {
        let more_keys: usize = self.more_keys.iter().map(String::len).sum();
        self.exchange.len() + self.routing_key.len() + more_keys
    }
}

impl Message {
    pub(crate) fn new(
        envelope: Envelope,
        properties: EncodedProperties,
        body: Body,
        memory: &MemoryMeter,
    ) -> Arc<Self> {
        let content = properties.as_bytes().len() + body.len();
        let reservation = memory.reserve(OVERHEAD + content + envelope.len());
        Arc::new(Self {
            exchange: envelope.exchange,
            routing_key: envelope.routing_key,
            more_keys: envelope.more_keys,
            properties,
            body,
            priority: envelope.priority,
            expiration: envelope.expiration,
            persistent: envelope.persistent,
            _reservation: reservation,
        })
    }

    /// Decodes the properties. Does not fail: they were decoded when the message was published.
    pub(crate) fn decode_properties(&self) -> Properties {
        self.properties.decode().unwrap_or_default()
    }
}
