//! The state of each channel, looked up for every message.

use amqp_core::ChannelId;

/// Values by channel, with lookup in constant time.
#[derive(Debug)]
pub(crate) struct ChannelTable<T> {
    /// By channel number. A number has more than one entry while a handle of an earlier channel of
    /// that number lives; the latest is last.
    by_number: Vec<Vec<(ChannelId, Box<T>)>>,
}

impl<T> ChannelTable<T> {
    pub(crate) const fn new() -> Self {
        Self {
            by_number: Vec::new(),
        }
    }

    /// Adds the value of a channel that has none.
    pub(crate) fn insert(&mut self, id: ChannelId, value: T) {
        let number = usize::from(id.number());
        if self.by_number.len() <= number {
            self.by_number.resize_with(number + 1, Vec::new);
        }
        // Exactly one: a second entry is rare.
        self.by_number[number].reserve_exact(1);
        self.by_number[number].push((id, Box::new(value)));
    }

    pub(crate) fn remove(&mut self, id: ChannelId) -> Option<Box<T>> {
        let same_number = self.by_number.get_mut(usize::from(id.number()))?;
        let at = same_number.iter().position(|(other, _)| *other == id)?;
        let (_, value) = same_number.remove(at);
        if same_number.is_empty() {
            *same_number = Vec::new();
        }
        Some(value)
    }

    #[inline]
    pub(crate) fn get(&self, id: ChannelId) -> Option<&T> {
        let same_number = self.by_number.get(usize::from(id.number()))?;
        let mut latest_first = same_number.iter().rev();
        latest_first.find_map(|(other, value)| (*other == id).then_some(&**value))
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ChannelId) -> Option<&mut T> {
        let same_number = self.by_number.get_mut(usize::from(id.number()))?;
        let mut latest_first = same_number.iter_mut().rev();
        latest_first.find_map(|(other, value)| (*other == id).then_some(&mut **value))
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.by_number.iter().map(Vec::len).sum()
    }

    /// All values, by channel number.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.iter_mut().map(|(_, value)| value)
    }

    /// All values with their channels, by channel number.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ChannelId, &mut T)> {
        let entries = self.by_number.iter_mut().flatten();
        entries.map(|(id, value)| (*id, &mut **value))
    }

    /// All channels, by number.
    pub(crate) fn ids(&self) -> Vec<ChannelId> {
        self.by_number.iter().flatten().map(|(id, _)| *id).collect()
    }
}
