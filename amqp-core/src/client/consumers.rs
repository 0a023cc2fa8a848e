//! The consumers of a channel, and the deliveries that wait for their acknowledgement.

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
};

use crate::{
    ids::{ConsumerId, DeliveryTag, Tags},
    wire::ShortStr,
};

/// The consumers of a channel, by tag.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    by_tag: BTreeMap<ShortStr, Consumer>,
    /// The number of the next one.
    next: u32,
    /// The tags of the last ones that were cancelled, each with whether it needed no
    /// acknowledgement: deliveries that crossed the cancel may still come.
    cancelled: VecDeque<(ShortStr, bool)>,
}

/// How many cancelled consumers are remembered.
const REMEMBERED: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) id: ConsumerId,
    pub(crate) no_ack: bool,
    /// It consumes the pseudo-queue of direct reply-to.
    pub(crate) replies: bool,
    /// Nobody waits for it any more: what it still gets is put back.
    pub(crate) abandoned: bool,
}

impl Consumers {
    /// A tag that no consumer of the channel has.
    pub(crate) fn free_tag(&self) -> ShortStr {
        (self.next..)
            .filter_map(|number| ShortStr::try_from(format!("ctag-{number}")).ok())
            .find(|tag| !self.by_tag.contains_key(tag))
            .unwrap_or_default()
    }

    pub(crate) fn contains(&self, tag: &ShortStr) -> bool {
        self.by_tag.contains_key(tag)
    }

    pub(crate) fn add(&mut self, tag: ShortStr, no_ack: bool, replies: bool) -> ConsumerId {
        let id = ConsumerId(self.next);
        self.next = self.next.wrapping_add(1);
        self.by_tag.insert(
            tag,
            Consumer {
                id,
                no_ack,
                replies,
                abandoned: false,
            },
        );
        id
    }

    #[inline]
    pub(crate) fn get(&self, tag: &ShortStr) -> Option<Consumer> {
        self.by_tag.get(tag).copied()
    }

    /// Nobody waits for it any more; false if that is known, or there is none.
    pub(crate) fn abandon(&mut self, tag: &ShortStr) -> bool {
        self.by_tag
            .get_mut(tag)
            .is_some_and(|consumer| !core::mem::replace(&mut consumer.abandoned, true))
    }

    pub(crate) fn remove(&mut self, tag: &ShortStr) -> Option<Consumer> {
        let removed = self.by_tag.remove(tag)?;
        if self.cancelled.len() == REMEMBERED {
            self.cancelled.pop_front();
        }
        self.cancelled.push_back((tag.clone(), removed.no_ack));
        Some(removed)
    }

    /// Whether one of them gets direct replies.
    pub(crate) fn any_for_replies(&self) -> bool {
        self.by_tag.values().any(|consumer| consumer.replies)
    }

    /// Whether one of that tag was cancelled before.
    pub(crate) fn was_cancelled(&self, tag: &ShortStr) -> bool {
        self.cancelled.iter().any(|(cancelled, _)| cancelled == tag)
    }

    /// Whether one was cancelled before.
    pub(crate) fn any_cancelled(&self) -> bool {
        !self.cancelled.is_empty()
    }

    /// Whether one of that tag was cancelled before that acknowledged what it got.
    pub(crate) fn acknowledged(&self, tag: &ShortStr) -> bool {
        let mut last = self.cancelled.iter().rev();
        last.find(|(cancelled, _)| cancelled == tag)
            .is_some_and(|(_, no_ack)| !no_ack)
    }
}

/// The delivery tags that wait for their acknowledgement: runs of numbers, so that the memory is
/// bounded by what is outstanding, and the usual ways to acknowledge cost little.
#[derive(Clone, Debug, Default)]
pub(crate) struct Unacked {
    /// First and last number of each run; ascending, with gaps between them.
    runs: VecDeque<(u64, u64)>,
}

impl Unacked {
    /// A delivery was made. Tags only ever grow.
    #[inline]
    pub(crate) fn add(&mut self, tag: DeliveryTag) {
        let tag = tag.get();
        match self.runs.back_mut() {
            Some((_, last)) if last.checked_add(1) == Some(tag) => *last = tag,
            Some((_, last)) if tag <= *last => {}
            Some(_) | None => self.runs.push_back((tag, tag)),
        }
    }

    /// The last that is outstanding.
    pub(crate) fn last(&self) -> Option<DeliveryTag> {
        self.runs
            .back()
            .and_then(|&(_, last)| DeliveryTag::new(last))
    }

    /// Settles what is named; false, with nothing changed, if it is not outstanding.
    #[inline]
    pub(crate) fn settle(&mut self, tags: Tags) -> bool {
        match tags {
            Tags::All => {
                self.runs.clear();
                true
            }
            Tags::One(tag) => self.settle_run(tag.get(), tag.get()),
            Tags::UpTo(tag) => self.settle_up_to(tag.get()),
        }
    }

    pub(crate) fn clear(&mut self) {
        self.runs.clear();
    }

    /// The run that holds a number.
    fn find(&self, tag: u64) -> Option<usize> {
        // What is acknowledged is usually the oldest.
        if let Some(&(first, last)) = self.runs.front()
            && (first..=last).contains(&tag)
        {
            return Some(0);
        }
        let at = self.runs.partition_point(|&(_, last)| last < tag);
        let &(first, _) = self.runs.get(at)?;
        (first <= tag).then_some(at)
    }

    /// Settles what another set holds, all of which is outstanding.
    pub(crate) fn remove(&mut self, settled: &Self) {
        for &(first, last) in &settled.runs {
            self.settle_run(first, last);
        }
    }

    /// Settles a part of a run; false if the run is not outstanding.
    fn settle_run(&mut self, from: u64, to: u64) -> bool {
        let Some(at) = self.find(from) else {
            return false;
        };
        let Some(run) = self.runs.get_mut(at) else {
            return false;
        };
        let (first, last) = *run;
        match (first == from, last == to) {
            (true, true) => {
                self.runs.remove(at);
            }
            (true, false) => run.0 = to + 1,
            (false, true) => run.1 = from - 1,
            (false, false) => {
                run.1 = from - 1;
                self.runs.insert(at + 1, (to + 1, last));
            }
        }
        true
    }

    fn settle_up_to(&mut self, tag: u64) -> bool {
        let Some(at) = self.find(tag) else {
            return false;
        };
        self.runs.drain(..at);
        if let Some(front) = self.runs.front_mut() {
            if front.1 == tag {
                self.runs.pop_front();
            } else {
                front.0 = tag + 1;
            }
        }
        true
    }
}
