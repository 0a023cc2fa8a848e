//! Messages, and how much memory they take together.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicUsize, Ordering};

use amqp_core::{Body, EncodedProperties, protocol::basic::Properties, wire::ShortStr};

/// How much memory is taken, in bytes.
#[derive(Clone, Debug, Default)]
pub(crate) struct Gauge(Arc<AtomicUsize>);

impl Gauge {
    pub(crate) fn get(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Takes that many bytes, until the share is dropped.
    pub(crate) fn take(&self, bytes: usize) -> Share {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Share {
            gauge: self.clone(),
            bytes,
        }
    }
}

/// Part of what a [`Gauge`] measures: gives it back when it is dropped.
#[derive(Debug)]
pub(crate) struct Share {
    gauge: Gauge,
    bytes: usize,
}

impl Share {
    /// Takes more.
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

/// About what a message costs beside its body and properties, in bytes: its fields, and its place
/// in a queue.
const OVERHEAD: usize = 256;

/// A message, as the queues share it.
#[derive(Debug)]
pub(crate) struct Message {
    /// The exchange it was published to.
    pub(crate) exchange: ShortStr,
    /// The key it was published with.
    pub(crate) routing_key: ShortStr,
    /// The keys that its headers `CC` and `BCC` added.
    pub(crate) more_keys: Vec<ShortStr>,
    /// As they are delivered.
    pub(crate) properties: EncodedProperties,
    pub(crate) body: Body,
    pub(crate) priority: u8,
    /// How long it may wait in a queue, in milliseconds.
    pub(crate) expiration: Option<u64>,
    /// What it takes.
    _share: Share,
}

/// What a message is made of, beside its content.
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

    /// The properties. They were decoded once when the message was published.
    pub(crate) fn decode_properties(&self) -> Properties {
        self.properties.decode().unwrap_or_default()
    }
}
