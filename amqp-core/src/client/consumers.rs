//! The consumers of a channel.

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
};

use crate::{ids::ConsumerId, wire::ShortStr};

/// The consumers of a channel, by tag.
///
/// A tag can be used again, so that a consumer is known by its number. What this side sends on a
/// channel is dealt with in order, and so a tag is free for the next consumer as soon as the cancel
/// of the last one is queued. Until the server is known to have dealt with that cancel, what it says
/// of the tag is about the consumer before.
///
/// ```text
///          consume            cancel queued               cancel-ok, server's cancel,
///  (free) ─────────> active ────────────────> cancelling ───────────────────────────> (remembered)
///                                                         consume-ok of the next one
/// ```
///
/// A consumer whose cancel asks for no answer, and that no other follows, is remembered at once.
///
/// A consumer that is given up before its consume-ok has come stays active, with its deliveries put
/// back, until that comes and its cancel is queued.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    by_tag: BTreeMap<ShortStr, Line>,
    /// The owner of the tag of the delivery in progress, as found when that began. None after a change.
    receiving: Option<Consumer>,
    /// The number of the next one.
    next: u32,
    /// The last ones that ended, oldest first, each tag once: deliveries that crossed the cancel
    /// may still come.
    ended: VecDeque<Ended>,
}

/// The consumers that share a tag, in the order in which they were asked for.
#[derive(Debug)]
struct Line {
    /// What the server says of the tag is about this one.
    owner: Consumer,
    /// These wait until the ones before them have ended. All but the last one are cancelling.
    next: VecDeque<Consumer>,
}

/// A consumer that has ended.
#[derive(Debug)]
struct Ended {
    tag: ShortStr,
    no_ack: bool,
    /// Nothing tells whether the server has dealt with its cancel.
    unanswered: bool,
    /// How many deliveries are still taken for late ones.
    late: u16,
}

/// How many consumers that ended are remembered.
const REMEMBERED: usize = 256;

/// How many late deliveries are taken after a cancel without an answer: as many as the largest
/// prefetch lets be on their way.
const LATE: u16 = u16::MAX;

/// How many late deliveries are taken when the server is known to have dealt with the cancel, which
/// should be none. More of them are put back and delivered in a circle.
const LATE_ENDED: u16 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) id: ConsumerId,
    pub(crate) no_ack: bool,
    /// It consumes the pseudo-queue of direct reply-to.
    pub(crate) replies: bool,
    /// Its deliveries are put back.
    pub(crate) abandoned: bool,
    /// Its consume-ok tells that those before it have ended. False for a consume without an answer.
    pub(crate) announced: bool,
    /// Its cancel is queued.
    pub(crate) cancelling: Cancelling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelling {
    No,
    /// A cancel-ok will come.
    Answered,
    Unanswered,
}

impl Consumers {
    /// A tag that no consumer of the channel has.
    pub(crate) fn free_tag(&self) -> ShortStr {
        (self.next..)
            .filter_map(|number| ShortStr::try_from(format!("ctag-{number}")).ok())
            .find(|tag| !self.by_tag.contains_key(tag))
            .unwrap_or_default()
    }

    /// Whether a consumer has the tag that is not being cancelled.
    pub(crate) fn is_active(&self, tag: &ShortStr) -> bool {
        self.by_tag
            .get(tag)
            .is_some_and(|line| line.last().cancelling == Cancelling::No)
    }

    /// Adds a consumer of a tag that none is active with. It is announced by a consume-ok, or not.
    pub(crate) fn add(
        &mut self,
        tag: &ShortStr,
        no_ack: bool,
        replies: bool,
        announced: bool,
    ) -> ConsumerId {
        let id = ConsumerId(self.next);
        self.next = self.next.wrapping_add(1);
        let consumer = Consumer {
            id,
            no_ack,
            replies,
            abandoned: false,
            announced,
            cancelling: Cancelling::No,
        };
        self.receiving = None;
        if let Some(line) = self.by_tag.get_mut(tag) {
            line.next.push_back(consumer);
            self.settle_line(tag);
            return id;
        }
        let unanswered = |ended: &Ended| ended.unanswered && ended.tag == *tag;
        let before = self.ended.iter().position(unanswered);
        let before = before.filter(|_| consumer.announced);
        let line = match before.and_then(|at| self.ended.remove(at)) {
            // What comes before consume-ok is for the one before.
            Some(before) => Line {
                owner: Consumer {
                    no_ack: before.no_ack,
                    ..Consumer::OVER
                },
                next: VecDeque::from([consumer]),
            },
            None => Line {
                owner: consumer,
                next: VecDeque::new(),
            },
        };
        self.by_tag.insert(tag.clone(), line);
        id
    }

    /// The one that a delivery with that tag is for.
    #[inline]
    pub(crate) fn owner(&self, tag: &ShortStr) -> Option<Consumer> {
        self.by_tag.get(tag).map(|line| line.owner)
    }

    /// A delivery with that tag has begun: the one that it is for.
    #[inline]
    pub(crate) fn begin_delivery(&mut self, tag: &ShortStr) -> Option<Consumer> {
        self.receiving = self.owner(tag);
        self.receiving
    }

    /// The delivery that has begun is whole: the one that it is for.
    #[inline]
    pub(crate) fn end_delivery(&mut self, tag: &ShortStr) -> Option<Consumer> {
        self.receiving.take().or_else(|| self.owner(tag))
    }

    /// Takes note of a delivery for a tag that no consumer has. Some if it may have crossed the end
    /// of one, with whether that one needed no acknowledgements.
    pub(crate) fn take_late(&mut self, tag: &ShortStr) -> Option<bool> {
        let ended = self.ended.iter_mut().find(|ended| ended.tag == *tag)?;
        ended.late = ended.late.checked_sub(1)?;
        Some(ended.no_ack)
    }

    /// Whether the last consumer that ended under the tag acknowledged its messages.
    pub(crate) fn acknowledged(&self, tag: &ShortStr) -> bool {
        let mut ended = self.ended.iter();
        ended
            .find(|ended| ended.tag == *tag)
            .is_some_and(|ended| !ended.no_ack)
    }

    /// A cancel is queued for the tag: the consumer that it ends, if it ends one.
    pub(crate) fn cancel(&mut self, tag: &ShortStr, cancelling: Cancelling) -> Option<ConsumerId> {
        self.receiving = None;
        let last = self.by_tag.get_mut(tag)?.last_mut();
        if last.cancelling != Cancelling::No {
            return None;
        }
        last.cancelling = cancelling;
        let id = last.id;
        if cancelling == Cancelling::Unanswered {
            last.abandoned = true;
            self.settle_line(tag);
        }
        Some(id)
    }

    /// Its deliveries are put back from now on. Whether it is to be cancelled for that.
    pub(crate) fn abandon(&mut self, tag: &ShortStr, id: ConsumerId) -> bool {
        self.receiving = None;
        let line = self.by_tag.get_mut(tag);
        let Some(consumer) = line.and_then(|line| line.find(id)) else {
            return false;
        };
        consumer.abandoned = true;
        consumer.cancelling == Cancelling::No
    }

    /// The server has confirmed it: those before it have ended.
    pub(crate) fn confirmed(&mut self, tag: &ShortStr, id: ConsumerId) {
        while self
            .by_tag
            .get(tag)
            .is_some_and(|line| line.owner.id != id && line.next.iter().any(|next| next.id == id))
        {
            self.end_owner(tag);
        }
    }

    /// The server has dealt with its cancel.
    pub(crate) fn cancelled(&mut self, tag: &ShortStr, id: ConsumerId) {
        self.confirmed(tag, id);
        if self.owner(tag).is_some_and(|owner| owner.id == id) {
            self.end_owner(tag);
        }
    }

    /// The server has cancelled the consumer that it has under that tag.
    pub(crate) fn cancelled_by_server(&mut self, tag: &ShortStr) -> Option<Consumer> {
        let ended = self.end_owner(tag);
        if ended.is_none() {
            // Its cancel has crossed one of this side's.
            let ended = self.ended.iter_mut().find(|ended| ended.tag == *tag);
            if let Some(ended) = ended {
                ended.unanswered = false;
                ended.late = ended.late.min(LATE_ENDED);
            }
        }
        ended
    }

    /// Whether one of them gets direct replies.
    pub(crate) fn any_for_replies(&self) -> bool {
        let mut last = self.by_tag.values().map(Line::last);
        last.any(|last| last.replies && last.cancelling == Cancelling::No)
    }

    fn end_owner(&mut self, tag: &ShortStr) -> Option<Consumer> {
        self.receiving = None;
        let line = self.by_tag.get_mut(tag)?;
        let ended = line.owner;
        match line.next.pop_front() {
            Some(next) => line.owner = next,
            None => drop(self.by_tag.remove(tag)),
        }
        self.remember(tag, ended.no_ack, false);
        self.settle_line(tag);
        Some(ended)
    }

    /// Ends the owner if nothing will tell of its end.
    fn settle_line(&mut self, tag: &ShortStr) {
        while let Some(line) = self.by_tag.get_mut(tag)
            && line.owner.cancelling == Cancelling::Unanswered
            && line.next.front().is_none_or(|next| !next.announced)
        {
            let no_ack = line.owner.no_ack;
            match line.next.pop_front() {
                Some(next) => line.owner = next,
                None => drop(self.by_tag.remove(tag)),
            }
            self.remember(tag, no_ack, true);
        }
    }

    fn remember(&mut self, tag: &ShortStr, no_ack: bool, unanswered: bool) {
        self.ended.retain(|ended| ended.tag != *tag);
        if self.ended.len() == REMEMBERED {
            self.ended.pop_front();
        }
        self.ended.push_back(Ended {
            tag: tag.clone(),
            no_ack,
            unanswered,
            late: if unanswered { LATE } else { LATE_ENDED },
        });
    }
}

impl Consumer {
    /// One that has ended and that the server may not know to have.
    const OVER: Self = Self {
        id: ConsumerId(u32::MAX),
        no_ack: false,
        replies: false,
        abandoned: true,
        announced: false,
        cancelling: Cancelling::Unanswered,
    };
}

impl Line {
    fn last(&self) -> &Consumer {
        self.next.back().unwrap_or(&self.owner)
    }

    fn last_mut(&mut self) -> &mut Consumer {
        self.next.back_mut().unwrap_or(&mut self.owner)
    }

    fn find(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        let newest_first = self.next.iter_mut().rev().chain([&mut self.owner]);
        newest_first.into_iter().find(|consumer| consumer.id == id)
    }
}
