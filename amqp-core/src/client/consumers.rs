//! The consumers of a channel.

use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    format,
};

use super::last_delivery::LastDelivery;
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
    /// `Some` once the channel has had a consumer.
    known: Option<Box<Known>>,
    /// The number of the next consumer.
    next: u32,
}

/// The consumers that the server may send methods for.
#[derive(Debug, Default)]
struct Known {
    by_tag: ByTag,
    /// The owner of the tag of the delivery in progress, as found when the delivery began. `None`
    /// after a change.
    receiving: Option<Consumer>,
    /// `Some` once a delivery arrived in one piece. `None` after a change.
    last: Option<Box<LastDelivery>>,
    /// The consumers that ended last, oldest first, each tag once. Deliveries in flight during the
    /// cancel may still arrive.
    ended: VecDeque<Ended>,
}

/// The consumers that have not ended.
#[derive(Debug, Default)]
pub(super) struct ByTag(BTreeMap<ShortStr, Line>);

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
        let is_taken = |tag: &ShortStr| {
            let known = self.known.as_deref();
            known.is_some_and(|known| known.by_tag.0.contains_key(tag))
        };
        (self.next..)
            .filter_map(|number| ShortStr::try_from(format!("ctag-{number}")).ok())
            .find(|tag| !is_taken(tag))
            .unwrap_or_default()
    }

    /// The last consumers of each tag: those that a cancel would be for.
    fn newest(&self) -> impl Iterator<Item = &Consumer> {
        let known = self.known.as_deref().into_iter();
        known.flat_map(|known| known.by_tag.0.values().map(Line::last))
    }

    /// Whether a consumer has the tag and is not being cancelled.
    pub(crate) fn is_active(&self, tag: &ShortStr) -> bool {
        let line = self.known.as_deref().and_then(|it| it.by_tag.0.get(tag));
        line.is_some_and(|line| line.last().cancelling == Cancelling::No)
    }

    /// The number of consumers that are neither being cancelled nor abandoned.
    pub(crate) fn count(&self) -> u64 {
        let active = |it: &&Consumer| it.cancelling == Cancelling::No && !it.abandoned;
        self.newest().filter(active).count() as u64
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
        self.known.get_or_insert_default().add(consumer, tag);
    }

    /// Returns the consumer that deliveries with the tag belong to.
    #[inline]
    pub(crate) fn owner(&self, tag: &ShortStr) -> Option<Consumer> {
        self.known.as_deref()?.by_tag.owner(tag)
    }

    /// The last delivery that arrived in one piece.
    #[inline]
    pub(super) fn last_delivery(&self) -> Option<&LastDelivery> {
        self.known.as_deref()?.last.as_deref()
    }

    /// Makes a delivery with these arguments the last one, and returns it. `None` if they do not
    /// decode, or the tag has no consumer.
    #[inline]
    pub(super) fn receive_whole(&mut self, encoded: &[u8]) -> Option<&LastDelivery> {
        let known = self.known.as_deref_mut()?;
        LastDelivery::of(&mut known.last, encoded, &known.by_tag)
    }

    /// Records the start of a delivery with the tag, and returns its consumer.
    #[inline]
    pub(crate) fn begin_delivery(&mut self, tag: &ShortStr) -> Option<Consumer> {
        let known = self.known.as_deref_mut()?;
        known.receiving = known.by_tag.owner(tag);
        known.receiving
    }

    /// Records the end of the delivery in progress, and returns its consumer.
    #[inline]
    pub(crate) fn end_delivery(&mut self, tag: &ShortStr) -> Option<Consumer> {
        let known = self.known.as_deref_mut()?;
        known.receiving.take().or_else(|| known.by_tag.owner(tag))
    }

    /// Counts a delivery for a tag without a consumer. Returns `Some` if the delivery may have
    /// crossed the end of a consumer, with the `no_ack` of that consumer.
    pub(crate) fn take_late(&mut self, tag: &ShortStr) -> Option<bool> {
        let mut ended = self.known.as_deref_mut()?.ended.iter_mut();
        let ended = ended.find(|ended| ended.tag == *tag)?;
        ended.late = ended.late.checked_sub(1)?;
        Some(ended.no_ack)
    }

    /// Whether the last consumer that ended under the tag acknowledged its messages.
    pub(crate) fn acknowledged(&self, tag: &ShortStr) -> bool {
        let mut ended = self.known.iter().flat_map(|known| &known.ended);
        ended
            .find(|ended| ended.tag == *tag)
            .is_some_and(|ended| !ended.no_ack)
    }

    /// Records that a cancel is queued for the tag. Returns the consumer that it ends, if any.
    pub(crate) fn cancel(&mut self, tag: &ShortStr, cancelling: Cancelling) -> Option<ConsumerId> {
        self.known.as_deref_mut()?.cancel(tag, cancelling)
    }

    /// Requeues the consumer's deliveries from now on. Returns whether the consumer must be
    /// cancelled.
    pub(crate) fn abandon(&mut self, tag: &ShortStr, id: ConsumerId) -> bool {
        let known = self.known.as_deref_mut();
        known.is_some_and(|known| known.abandon(tag, id))
    }

    /// Handles the consume-ok of a consumer: the consumers before it have ended.
    pub(crate) fn confirmed(&mut self, tag: &ShortStr, id: ConsumerId) {
        let precedes =
            |line: &Line| line.owner.id != id && line.next.iter().any(|next| next.id == id);
        let Some(known) = self.known.as_deref_mut() else {
            return;
        };
        while known.by_tag.0.get(tag).is_some_and(precedes) {
            known.end_owner(tag);
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
            let mut ended = self.known.iter_mut().flat_map(|known| &mut known.ended);
            if let Some(ended) = ended.find(|ended| ended.tag == *tag) {
                ended.unanswered = false;
                ended.late = ended.late.min(LATE_ENDED);
            }
        }
        ended
    }

    /// Whether an active consumer receives direct replies.
    pub(crate) fn any_for_replies(&self) -> bool {
        self.newest()
            .any(|last| last.replies && last.cancelling == Cancelling::No)
    }

    fn end_owner(&mut self, tag: &ShortStr) -> Option<Consumer> {
        self.known.as_deref_mut()?.end_owner(tag)
    }
}

impl Known {
    fn changed(&mut self) {
        self.receiving = None;
        self.last = None;
    }

    fn add(&mut self, consumer: Consumer, tag: &ShortStr) {
        self.changed();
        if let Some(line) = self.by_tag.0.get_mut(tag) {
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
        self.by_tag.0.insert(tag.clone(), line);
    }

    fn cancel(&mut self, tag: &ShortStr, cancelling: Cancelling) -> Option<ConsumerId> {
        self.changed();
        let last = self.by_tag.0.get_mut(tag)?.last_mut();
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

    fn abandon(&mut self, tag: &ShortStr, id: ConsumerId) -> bool {
        self.changed();
        let line = self.by_tag.0.get_mut(tag);
        let Some(consumer) = line.and_then(|line| line.find(id)) else {
            return false;
        };
        consumer.abandoned = true;
        consumer.cancelling == Cancelling::No
    }

    fn end_owner(&mut self, tag: &ShortStr) -> Option<Consumer> {
        self.changed();
        let ended = self.by_tag.pop_owner(tag)?;
        self.remember(tag, ended.no_ack, false);
        self.settle_line(tag);
        Some(ended)
    }

    /// Ends the owner if no method of the server will mark its end.
    fn settle_line(&mut self, tag: &ShortStr) {
        while let Some(line) = self.by_tag.0.get(tag)
            && line.owner.cancelling == Cancelling::Unanswered
            && line.next.front().is_none_or(|next| !next.announced)
            && let Some(ended) = self.by_tag.pop_owner(tag)
        {
            self.remember(tag, ended.no_ack, true);
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

impl ByTag {
    /// Returns the consumer that deliveries with the tag belong to.
    #[inline]
    pub(super) fn owner(&self, tag: &ShortStr) -> Option<Consumer> {
        self.0.get(tag).map(|line| line.owner)
    }

    /// Removes the owner of the tag. The next consumer of the tag takes its place.
    fn pop_owner(&mut self, tag: &ShortStr) -> Option<Consumer> {
        let line = self.0.get_mut(tag)?;
        let ended = line.owner;
        match line.next.pop_front() {
            Some(next) => line.owner = next,
            None => drop(self.0.remove(tag)),
        }
        if self.0.is_empty() {
            // An empty map keeps memory for its next entries.
            self.0 = BTreeMap::new();
        }
        Some(ended)
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
