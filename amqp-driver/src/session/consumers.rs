//! The consumers of a channel.

use std::collections::BTreeMap;

use amqp_core::ConsumerId;

use super::untaken::ConsumerState;

/// The consumers of a channel, by number. They take memory only while there are any: each has its
/// own block, so that one alone does not take the room of several.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "a channel has one pointer while it has none"
)]
pub(crate) struct Consumers(Option<Box<BTreeMap<ConsumerId, Box<ConsumerState>>>>);

impl Consumers {
    pub(super) fn insert(&mut self, id: ConsumerId, consumer: ConsumerState) {
        let consumers = self.0.get_or_insert_default();
        consumers.insert(id, Box::new(consumer));
    }

    pub(super) fn remove(&mut self, id: ConsumerId) -> Option<ConsumerState> {
        let removed = self.0.as_mut()?.remove(&id)?;
        self.0.take_if(|consumers| consumers.is_empty());
        Some(*removed)
    }

    #[inline]
    pub(super) fn get_mut(&mut self, id: ConsumerId) -> Option<&mut ConsumerState> {
        self.0
            .as_mut()?
            .get_mut(&id)
            .map(|consumer| &mut **consumer)
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &ConsumerState> {
        let consumers = self.0.iter().flat_map(|consumers| consumers.values());
        consumers.map(|consumer| &**consumer)
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut ConsumerState> {
        self.iter_mut().map(|(_, consumer)| consumer)
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (ConsumerId, &mut ConsumerState)> {
        let consumers = self.0.iter_mut().flat_map(|consumers| consumers.iter_mut());
        consumers.map(|(id, consumer)| (*id, &mut **consumer))
    }
}
