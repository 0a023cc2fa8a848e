//! The consumers of a channel.

use alloc::{
    collections::{BTreeMap, VecDeque},
    format,
};

use crate::{ids::ConsumerId, wire::ShortStr};

/// The consumers of a channel, by tag.
///
/// A tag can be reused, so a consumer is identified by its number. The server handles the methods
/// of a channel in order, so a tag is free for the next consumer as soon as the cancel of the
/// previous one is queued. Until the server is known to have handled that cancel, its methods for
/// the tag belong to the previous consumer: deliveries may arrive up to the cancel-ok (section
/// 1.8.3.5 of the protocol reference, basic.cancel).
///
/// ```text
///          consume            cancel queued               cancel-ok, server's cancel,
///  (free) ─────────> active ────────────────> cancelling ───────────────────────────> (remembered)
///                                                         consume-ok of the next one
/// ```
///
/// A consumer is remembered at once if its cancel asks for no reply and no other consumer follows.
///
/// A consumer that is abandoned before its consume-ok stays active until the consume-ok arrives and
/// its cancel is queued. Its deliveries are requeued.
#[derive(Debug, Default)]
pub(crate) struct Consumers {
    by_tag: BTreeMap<ShortStr, Line>,
    /// The owner of the tag of the delivery in progress, as found when the delivery began. `None`
    /// after a change.
    receiving: Option<Consumer>,
    /// Counts the changes of consumers.
    version: u32,
    /// The number of the next consumer.
    next: u32,
    /// The consumers that ended last, oldest first, each tag once. Deliveries in flight during the
    /// cancel may still arrive.
    ended: VecDeque<Ended>,
}

/// The consumers that share a tag, in the order of their requests.
#[derive(Debug)]
struct Line {
    /// The consumer that the server's methods for the tag belong to.
    owner: Consumer,
    /// Become owner when the ones before them have ended. All but the last are cancelling.
    next: VecDeque<Consumer>,
}

/// A consumer that has ended.
#[derive(Debug)]
struct Ended {
    tag: ShortStr,
    no_ack: bool,
    /// It is unknown whether the server has handled the cancel.
    unanswered: bool,
    /// The number of further deliveries that are accepted as late ones.
    late: u16,
}

/// The maximum number of ended consumers to remember.
const REMEMBERED: usize = 256;

/// The number of late deliveries accepted after a cancel without a reply: as many as the largest
/// prefetch allows in flight.
const LATE: u16 = u16::MAX;

/// The number of late deliveries accepted once the server is known to have handled the cancel. None
/// are expected; a limit breaks the loop of requeue and redelivery of a server that goes on.
const LATE_ENDED: u16 = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Consumer {
    pub(crate) id: ConsumerId,
    pub(crate) no_ack: bool,
    /// It consumes the pseudo-queue of direct reply-to.
    pub(crate) replies: bool,
    /// Its deliveries are requeued.
    pub(crate) abandoned: bool,
    /// Its consume-ok proves that the consumers before it have ended. `false` for a consume without
    /// a reply.
    pub(crate) announced: bool,
    /// Whether its cancel is queued.
    pub(crate) cancelling: Cancelling,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelling {
    No,
    /// A cancel-ok will follow.
    Answered,
    Unanswered,
}

impl Consumers {
    /// Returns a tag that is free on this channel.
    pub(crate) fn free_tag(&self) -> ShortStr {
        (self.next..)
            .filter_map(|number| ShortStr::try_from(format!("ctag-{number}")).ok())
            .find(|tag| !self.by_tag.contains_key(tag))
            .unwrap_or_default()
    }

    /// Whether a consumer has the tag and is not being cancelled.
    pub(crate) fn is_active(&self, tag: &ShortStr) -> bool {
        self.by_tag
            .get(tag)
            .is_some_and(|line| line.last().cancelling == Cancelling::No)
    }

    /// The number of consumers that are neither being cancelled nor abandoned.
    pub(crate) fn count(&self) -> u64 {
        let last = self.by_tag.values().map(Line::last);
        let active = last.filter(|it| it.cancelling == Cancelling::No && !it.abandoned);
        active.count() as u64
    }

    /// The number of the next consumer.
    pub(crate) const fn next(&self) -> u32 {
        self.next
    }

    /// Sets the number of the next consumer.
    pub(crate) const fn continue_from(&mut self, next: u32) {
        self.next = next;
    }

    /// Returns the number of the next consumer, and counts it.
    pub(crate) const fn take_id(&mut self) -> ConsumerId {
        let id = ConsumerId(self.next);
        self.next = self.next.wrapping_add(1);
        id
    }

    /// Adds a consumer to a tag without an active one. `announced` is `true` if a consume-ok will
    /// follow.
    pub(crate) fn add(
        &mut self,
        id: ConsumerId,
        tag: &ShortStr,
        no_ack: bool,
        replies: bool,
        announced: bool,
    ) {
        let consumer = Consumer {
            id,
            no_ack,
            replies,
            abandoned: false,
            announced,
            cancelling: Cancelling::No,
        };
        self.changed();
        if let Some(line) = self.by_tag.get_mut(tag) {
            line.next.push_back(consumer);
            self.settle_line(tag);
            return;
        }
        let unanswered = |ended: &Ended| ended.unanswered && ended.tag == *tag;
        let before = self.ended.iter().position(unanswered);
        let before = before.filter(|_| consumer.announced);
        let line = match before.and_then(|at| self.ended.remove(at)) {
            // Deliveries before the consume-ok belong to the previous consumer.
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
    }

    /// Returns the consumer that deliveries with the tag belong to.
    #[inline]
    pub(crate) fn owner(&self, tag: &ShortStr) -> Option<Consumer> {
        self.by_tag.get(tag).map(|line| line.owner)
    }

    /// Changes with each change of the consumers.
    #[inline]
    pub(crate) const fn version(&self) -> u32 {
        self.version
    }

    fn changed(&mut self) {
        self.receiving = None;
        self.version = self.version.wrapping_add(1);
    }

    /// Records the start of a delivery with the tag, and returns its consumer.
    #[inline]
    pub(crate) fn begin_delivery(&mut self, tag: &ShortStr) -> Option<Consumer> {
        self.receiving = self.owner(tag);
        self.receiving
    }

    /// Records the end of the delivery in progress, and returns its consumer.
    #[inline]
    pub(crate) fn end_delivery(&mut self, tag: &ShortStr) -> Option<Consumer> {
        self.receiving.take().or_else(|| self.owner(tag))
    }

    /// Counts a delivery for a tag without a consumer. Returns `Some` if the delivery may have
    /// crossed the end of a consumer, with the `no_ack` of that consumer.
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

    /// Records that a cancel is queued for the tag. Returns the consumer that it ends, if any.
    pub(crate) fn cancel(&mut self, tag: &ShortStr, cancelling: Cancelling) -> Option<ConsumerId> {
        self.changed();
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

    /// Requeues the consumer's deliveries from now on. Returns whether the consumer must be
    /// cancelled.
    pub(crate) fn abandon(&mut self, tag: &ShortStr, id: ConsumerId) -> bool {
        self.changed();
        let line = self.by_tag.get_mut(tag);
        let Some(consumer) = line.and_then(|line| line.find(id)) else {
            return false;
        };
        consumer.abandoned = true;
        consumer.cancelling == Cancelling::No
    }

    /// Handles the consume-ok of a consumer: the consumers before it have ended.
    pub(crate) fn confirmed(&mut self, tag: &ShortStr, id: ConsumerId) {
        while self
            .by_tag
            .get(tag)
            .is_some_and(|line| line.owner.id != id && line.next.iter().any(|next| next.id == id))
        {
            self.end_owner(tag);
        }
    }

    /// Handles the cancel-ok of a consumer.
    pub(crate) fn cancelled(&mut self, tag: &ShortStr, id: ConsumerId) {
        self.confirmed(tag, id);
        if self.owner(tag).is_some_and(|owner| owner.id == id) {
            self.end_owner(tag);
        }
    }

    /// Handles a `basic.cancel` of the server for the tag, and returns the consumer that it ends.
    /// <https://www.rabbitmq.com/docs/consumer-cancel>
    pub(crate) fn cancelled_by_server(&mut self, tag: &ShortStr) -> Option<Consumer> {
        let ended = self.end_owner(tag);
        if ended.is_none() {
            // The server's cancel has crossed one of this side.
            let ended = self.ended.iter_mut().find(|ended| ended.tag == *tag);
            if let Some(ended) = ended {
                ended.unanswered = false;
                ended.late = ended.late.min(LATE_ENDED);
            }
        }
        ended
    }

    /// Whether an active consumer receives direct replies.
    pub(crate) fn any_for_replies(&self) -> bool {
        let mut last = self.by_tag.values().map(Line::last);
        last.any(|last| last.replies && last.cancelling == Cancelling::No)
    }

    fn end_owner(&mut self, tag: &ShortStr) -> Option<Consumer> {
        self.changed();
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

    /// Ends the owner if no method of the server will mark its end.
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
    /// A consumer that has ended, possibly unknown to the server.
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
