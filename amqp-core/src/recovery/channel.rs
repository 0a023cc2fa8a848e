//! The state of a channel, as data.

use alloc::collections::BTreeMap;

use crate::{ids::ConsumerId, protocol::basic, wire::ShortStr};

/// The state of a channel of a [`Topology`](super::Topology).
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Channel {
    /// The prefetch of consumers that are started from now on. `Some` if it was set.
    pub qos: Option<basic::Qos>,
    /// The prefetch that all consumers of the channel share. `Some` if it was set.
    pub global_qos: Option<basic::Qos>,
    /// The mode of its publishes.
    pub mode: ChannelMode,
    consumers: BTreeMap<ConsumerId, Consumer>,
    /// The consumers by tag.
    tags: BTreeMap<ShortStr, ConsumerId>,
    /// The queue that was declared last, for which the empty name stands (section 1.7.2.3 of the
    /// protocol reference).
    pub(super) last_queue: ShortStr,
}

/// A consumer of a [`Channel`].
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Consumer {
    /// The consume, with its tag.
    pub consume: basic::Consume,
    /// The prefetch that was set when it was started: a later one does not apply to it
    /// (<https://www.rabbitmq.com/docs/consumer-prefetch>).
    pub qos: Option<basic::Qos>,
}

/// The mode of a channel's publishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChannelMode {
    /// Neither confirmed nor in a transaction.
    #[default]
    Plain,
    /// Confirmed: `confirm.select`.
    Confirm,
    /// In transactions: `tx.select`.
    Transaction,
}

impl Channel {
    /// The consumers, in the order in which they were started first.
    pub fn consumers(&self) -> impl Iterator<Item = (ConsumerId, &Consumer)> {
        self.consumers.iter().map(|(&id, consumer)| (id, consumer))
    }

    /// A consumer.
    #[must_use]
    pub fn consumer(&self, id: ConsumerId) -> Option<&Consumer> {
        self.consumers.get(&id)
    }

    /// The consumer with that tag.
    pub(super) fn tagged(&self, tag: &ShortStr) -> Option<ConsumerId> {
        self.tags.get(tag).copied()
    }

    pub(super) fn consumer_mut(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        self.consumers.get_mut(&id)
    }

    pub(super) fn add(&mut self, id: ConsumerId, consumer: Consumer) {
        self.tags.insert(consumer.consume.consumer_tag.clone(), id);
        self.consumers.insert(id, consumer);
    }

    pub(super) fn remove(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.consumers.remove(&id)?;
        let tag = &consumer.consume.consumer_tag;
        if self.tagged(tag) == Some(id) {
            self.tags.remove(tag);
        }
        Some(consumer)
    }

    pub(super) fn into_consumers(self) -> impl Iterator<Item = (ConsumerId, Consumer)> {
        self.consumers.into_iter()
    }
}
