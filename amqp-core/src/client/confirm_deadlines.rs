//! The confirm deadlines of all channels.

use alloc::{
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};
use core::time::Duration;

use super::{Client, Event, channel_state::Mode, event::Outcome};
use crate::{
    close::{CloseCause, CloseReason, TimeoutReason},
    ids::ChannelId,
    machine::Machine,
    method::MethodDef as _,
    protocol::basic,
    time::Instant,
};

/// The number of parts of the confirm timeout. The publishes of one part share a deadline at its
/// end, so that a channel has few deadlines however many publishes are unconfirmed.
const PARTS: u32 = 16;

/// The number of deadlines per channel, plus a few, above which some must belong to channels that
/// have ended.
const SWEEP_FROM: usize = 2 * PARTS as usize;

/// The confirm deadlines of all channels.
#[derive(Debug)]
pub(super) struct ConfirmDeadlines {
    /// The confirm timeout. `None` if publishes have no deadline.
    after: Option<Duration>,
    /// The channels with publishes without a deadline.
    unmarked: Vec<ChannelId>,
    /// The deadlines of all channels, in order. Some are obsolete: their publishes are settled, or
    /// the channel has ended.
    queue: VecDeque<(Instant, ChannelId)>,
}

impl ConfirmDeadlines {
    pub(super) const fn new(after: Option<Duration>) -> Self {
        Self {
            after,
            unmarked: Vec::new(),
            queue: VecDeque::new(),
        }
    }

    /// Whether publishes have deadlines.
    pub(super) const fn are_set(&self) -> bool {
        self.after.is_some()
    }

    /// Adds a channel with its first publish without a deadline.
    pub(super) fn add(&mut self, id: ChannelId) {
        self.unmarked.push(id);
    }

    /// Removes all deadlines.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.after);
    }

    /// Returns the next deadline. Setting the deadlines of new publishes is not urgent: it may be
    /// late by one part.
    pub(super) fn next(&self, now: Instant) -> Option<(Instant, TimeoutReason)> {
        let part = self.after.filter(|_| !self.unmarked.is_empty());
        let unmarked = part.map(|after| (now + after / PARTS, TimeoutReason::SetDeadline));
        let first = self.queue.front();
        let confirm = first.map(|&(at, _)| (at, TimeoutReason::Confirm));
        [unmarked, confirm].into_iter().flatten().min()
    }
}

impl Machine<Client> {
    /// Sets the deadlines of new publishes at the current time, and removes obsolete ones.
    #[inline]
    pub(super) fn set_confirm_deadlines(&mut self) {
        let deadlines = &self.role.confirm_deadlines;
        if !deadlines.unmarked.is_empty() {
            self.mark_publishes();
        }
        while let Some(&(at, id)) = self.role.confirm_deadlines.queue.front()
            && !self.awaits_confirm(id, at)
        {
            self.role.confirm_deadlines.queue.pop_front();
        }
    }

    fn mark_publishes(&mut self) {
        let Some(after) = self.role.confirm_deadlines.after else {
            return;
        };
        let at = self.now() + after;
        while let Some(id) = self.role.confirm_deadlines.unmarked.pop() {
            if let Some(channel) = self.channel_mut(id)
                && let Mode::Confirm(confirms) = &mut channel.role.mode
                && let Some(at) = confirms.mark(at, after / PARTS)
            {
                self.role.confirm_deadlines.queue.push_back((at, id));
            }
        }
        let most = SWEEP_FROM * (self.channel_count() + 1);
        if self.role.confirm_deadlines.queue.len() > most {
            let live: BTreeSet<ChannelId> = self.channel_ids().into_iter().collect();
            let queue = &mut self.role.confirm_deadlines.queue;
            queue.retain(|(_, id)| live.contains(id));
        }
    }

    /// Whether `at` is the deadline of an unconfirmed publish of the channel.
    fn awaits_confirm(&mut self, id: ChannelId, at: Instant) -> bool {
        let Some(channel) = self.channel_mut(id) else {
            return false;
        };
        match &mut channel.role.mode {
            Mode::Confirm(confirms) => confirms.has_deadline(at),
            Mode::Plain | Mode::Transaction { .. } => false,
        }
    }

    /// Settles publishes as [`Outcome::Unknown`] once their deadline has passed. Queued ones stay
    /// in the output: the server counts the publishes it receives, so removing one would shift the
    /// numbers of those behind it.
    pub(super) fn expire_confirms(&mut self) {
        let now = self.now();
        while let Some(&(at, id)) = self.role.confirm_deadlines.queue.front()
            && at <= now
        {
            self.role.confirm_deadlines.queue.pop_front();
            let Some((channel, events)) = self.channel_and_events(id) else {
                continue;
            };
            let Mode::Confirm(confirms) = &mut channel.role.mode else {
                continue;
            };
            let reason = CloseReason::from(CloseCause::TimedOut(TimeoutReason::Confirm))
                .on_channel(id.number())
                .for_request(basic::Publish::ID);
            confirms.expire(at, |first, last| {
                events.push(Event::Settled {
                    channel: id,
                    first,
                    last,
                    outcome: Outcome::Unknown(reason.clone()),
                });
            });
        }
    }
}
