//! The state of each channel, looked up for every message.

use amqp_core::ChannelId;

/// Values by channel, with lookup in constant time.
#[derive(Debug)]
pub(crate) struct ChannelTable<T> {
    /// The latest channel of each number.
    by_number: Vec<Option<Box<Entry<T>>>>,
    /// The channels before, in the order of their replacement: handles of them live while another
    /// channel has their number. There are few.
    earlier: Vec<Box<Entry<T>>>,
}

#[derive(Debug)]
struct Entry<T> {
    id: ChannelId,
    value: T,
}

impl<T> ChannelTable<T> {
    pub(crate) const fn new() -> Self {
        Self {
            by_number: Vec::new(),
            earlier: Vec::new(),
        }
    }

    /// Adds the value of a channel that has none.
    pub(crate) fn insert(&mut self, id: ChannelId, value: T) {
        let number = usize::from(id.number());
        if self.by_number.len() <= number {
            self.by_number.resize_with(number + 1, || None);
        }
        let entry = Box::new(Entry { id, value });
        self.earlier.extend(self.by_number[number].replace(entry));
    }

    pub(crate) fn remove(&mut self, id: ChannelId) -> Option<T> {
        let latest = self.by_number.get_mut(usize::from(id.number()))?;
        let entry = latest.take_if(|entry| entry.id == id).or_else(|| {
            let at = self.earlier.iter().position(|entry| entry.id == id)?;
            Some(self.earlier.remove(at))
        })?;
        if self.earlier.is_empty() {
            self.earlier = Vec::new();
        }
        Some(entry.value)
    }

    #[inline]
    pub(crate) fn get(&self, id: ChannelId) -> Option<&T> {
        let latest = self.by_number.get(usize::from(id.number()))?.as_deref();
        let entry = match latest {
            Some(latest) if latest.id == id => latest,
            _ => self.earlier.iter().find(|entry| entry.id == id)?,
        };
        Some(&entry.value)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, id: ChannelId) -> Option<&mut T> {
        let latest = self.by_number.get_mut(usize::from(id.number()))?;
        let entry = match latest.as_deref_mut() {
            Some(latest) if latest.id == id => latest,
            _ => self.earlier.iter_mut().find(|entry| entry.id == id)?,
        };
        Some(&mut entry.value)
    }

    /// The number of values.
    pub(crate) fn len(&self) -> usize {
        self.by_number.iter().flatten().count() + self.earlier.len()
    }

    /// All values: those of the earlier channels, then the others by number.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.iter_mut().map(|(_, value)| value)
    }

    /// All values with their channels: those of the earlier channels, then the others by number.
    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (ChannelId, &mut T)> {
        let entries = self.earlier.iter_mut();
        let entries = entries.chain(self.by_number.iter_mut().flatten());
        entries.map(|entry| (entry.id, &mut entry.value))
    }

    /// All channels: the earlier ones, then the others by number.
    pub(crate) fn ids(&self) -> Vec<ChannelId> {
        let entries = self.earlier.iter().chain(self.by_number.iter().flatten());
        entries.map(|entry| entry.id).collect()
    }
}
