//! The unacknowledged deliveries of a channel.

use alloc::{collections::BTreeMap, vec::Vec};

use crate::ids::{DeliveryTag, Tags};

/// Delivery tags in runs of consecutive numbers, so that the memory is bounded by the number
/// outstanding.
///
/// The newest run grows with each delivery and is the only one while acknowledgements are sent in
/// order, so it is stored separately. The others are in a search tree: an acknowledgement takes
/// logarithmic time in the number of runs, in any order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unacked {
    /// The older runs: last number to first number. Runs do not overlap.
    older: BTreeMap<u64, u64>,
    /// First and last number of the newest run, above all others. `None` if it is settled.
    newest: Option<(u64, u64)>,
    /// The number of deliveries.
    len: u64,
}

impl Unacked {
    /// Adds a delivery. Tags only ever grow.
    #[inline]
    pub(crate) fn add(&mut self, tag: DeliveryTag) {
        let tag = tag.get();
        match &mut self.newest {
            Some((_, last)) if last.checked_add(1) == Some(tag) => *last = tag,
            Some((_, last)) if tag <= *last => return,
            newest => {
                if newest.is_none() && self.older.last_key_value().is_some_and(|it| tag <= *it.0) {
                    return;
                }
                if let Some((first, last)) = newest.replace((tag, tag)) {
                    self.older.insert(last, first);
                }
            }
        }
        self.len += 1;
    }

    /// Adds a delivery, in any order of the tags. Apart from [`add`](Self::add), which is faster.
    pub(crate) fn insert(&mut self, tag: DeliveryTag) {
        if self.contains(tag) {
            return;
        }
        if self.last().is_none_or(|last| last < tag) {
            self.add(tag);
            return;
        }
        let tag = tag.get();
        let next = self
            .older
            .range(tag..)
            .next()
            .map(|(&last, &first)| (first, last));
        let before = self.older.remove(&(tag - 1));
        let first = before.unwrap_or(tag);
        match (next, &mut self.newest) {
            (Some((next, last)), _) if next == tag + 1 => {
                self.older.insert(last, first);
            }
            (None, Some((next, _))) if *next == tag + 1 => *next = first,
            _ => {
                self.older.insert(tag, first);
            }
        }
        self.len += 1;
    }

    /// The number of outstanding deliveries.
    pub(crate) const fn len(&self) -> u64 {
        self.len
    }

    /// The last outstanding delivery.
    pub(crate) fn last(&self) -> Option<DeliveryTag> {
        let older = || self.older.last_key_value().map(|(&last, _)| last);
        let last = self.newest.map(|(_, last)| last).or_else(older)?;
        DeliveryTag::new(last)
    }

    /// The first outstanding delivery.
    pub(crate) fn first(&self) -> Option<DeliveryTag> {
        let newest = || self.newest.map(|(first, _)| first);
        let first = self.older.first_key_value().map(|(_, &first)| first);
        DeliveryTag::new(first.or_else(newest)?)
    }

    pub(crate) fn contains(&self, tag: DeliveryTag) -> bool {
        let tag = tag.get();
        match self.newest {
            Some((first, last)) if first <= tag => tag <= last,
            _ => self
                .older
                .range(tag..)
                .next()
                .is_some_and(|(_, &first)| first <= tag),
        }
    }

    /// Returns the last outstanding delivery before `split`, and all outstanding ones from `split`
    /// to `end`, inclusive.
    pub(crate) fn split_at(
        &self,
        split: DeliveryTag,
        end: DeliveryTag,
    ) -> (Option<DeliveryTag>, Vec<DeliveryTag>) {
        let (split, end) = (split.get(), end.get());
        let runs = self.older.iter().map(|(&last, &first)| (first, last));
        let (mut before, mut behind) = (None, Vec::new());
        for (first, last) in runs.chain(self.newest) {
            if first < split {
                before = DeliveryTag::new(last.min(split - 1));
            }
            let rest = first.max(split)..=last.min(end);
            behind.extend(rest.filter_map(DeliveryTag::new));
        }
        (before, behind)
    }

    /// Returns the last of the deliveries in `tags`, which ascend, that no other outstanding delivery
    /// precedes. Tags that are not outstanding are skipped.
    pub(crate) fn last_of_front(
        &self,
        tags: impl IntoIterator<Item = DeliveryTag>,
    ) -> Option<DeliveryTag> {
        let mut tags = tags.into_iter().map(DeliveryTag::get).peekable();
        let runs = self.older.iter().map(|(&last, &first)| (first, last));
        let mut front = None;
        // Each step takes a tag, or is the last one.
        for number in runs
            .chain(self.newest)
            .flat_map(|(first, last)| first..=last)
        {
            while tags.next_if(|&tag| tag < number).is_some() {}
            if tags.next_if_eq(&number).is_none() {
                break;
            }
            front = Some(number);
        }
        front.and_then(DeliveryTag::new)
    }

    /// Settles the given deliveries. Returns `false`, with nothing changed, if they are not
    /// outstanding.
    #[inline]
    pub(crate) fn settle(&mut self, tags: Tags) -> bool {
        match tags {
            Tags::All => {
                self.clear();
                true
            }
            Tags::One(tag) => self.settle_run(tag.get(), tag.get()),
            Tags::UpTo(tag) => self.settle_up_to(tag.get()),
        }
    }

    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Settles the deliveries of another set, all of which are outstanding.
    pub(crate) fn remove(&mut self, settled: &Self) {
        let older = settled.older.iter().map(|(&last, &first)| (first, last));
        for (first, last) in older.chain(settled.newest) {
            self.settle_run(first, last);
        }
    }

    /// Settles a part of a run. Returns `false` if its first number is not outstanding.
    #[inline]
    fn settle_run(&mut self, from: u64, to: u64) -> bool {
        let settled = match self.newest {
            Some((first, last)) if first <= from => {
                if from > last {
                    return false;
                }
                if first < from {
                    self.older.insert(from - 1, first);
                }
                self.newest = (to < last).then(|| (to + 1, last));
                true
            }
            _ => self.settle_older(from, to),
        };
        if settled {
            self.len = self.len.saturating_sub(to - from + 1);
        }
        settled
    }

    fn settle_older(&mut self, from: u64, to: u64) -> bool {
        let Some((&last, first)) = self.older.range_mut(from..).next() else {
            return false;
        };
        let before = *first;
        if before > from {
            return false;
        }
        if to < last {
            *first = to + 1;
        } else {
            self.older.remove(&last);
        }
        if before < from {
            self.older.insert(from - 1, before);
        }
        true
    }

    fn settle_up_to(&mut self, tag: u64) -> bool {
        if let Some((first, last)) = self.newest
            && first <= tag
        {
            if tag > last {
                return false;
            }
            self.older.clear();
            self.newest = (tag < last).then(|| (tag + 1, last));
            self.len = last - tag;
            return true;
        }
        let Some((&last, &first)) = self.older.range(tag..).next() else {
            return false;
        };
        if first > tag {
            return false;
        }
        while let Some(entry) = self.older.first_entry()
            && *entry.key() < last
        {
            self.len = self.len.saturating_sub(entry.key() - entry.get() + 1);
            entry.remove();
        }
        self.len = self.len.saturating_sub(tag - first + 1);
        if tag < last {
            self.older.insert(last, tag + 1);
        } else {
            self.older.remove(&last);
        }
        true
    }
}
