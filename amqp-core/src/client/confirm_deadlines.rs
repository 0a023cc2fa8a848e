//! When publishes are to be confirmed, on all channels.

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
    time::Instant,
};

/// Into how many parts the time is divided. Publishes of one part share a deadline, at its end; so a
/// channel has few deadlines however many publishes wait.
const PARTS: u32 = 16;

/// More deadlines than these per channel, and a few, are of channels that have ended.
const SWEEP_FROM: usize = 2 * PARTS as usize;

/// When publishes are to be confirmed, on all channels.
#[derive(Debug)]
pub(super) struct ConfirmDeadlines {
    /// How long each publish waits; none for ever.
    after: Option<Duration>,
    /// The channels with publishes that have no deadline yet.
    unmarked: Vec<ChannelId>,
    /// The deadlines of all channels, in order. Some are over: their publishes are settled, or the
    /// channel has ended.
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

    /// The channel has a publish without a deadline, and had none before.
    pub(super) fn add(&mut self, id: ChannelId) {
        self.unmarked.push(id);
    }

    /// No publish waits any more.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.after);
    }

    /// The next deadline. To set one is not urgent: it may be late by a part.
    pub(super) fn next(&self, now: Instant) -> Option<(Instant, TimeoutReason)> {
        let part = self.after.filter(|_| !self.unmarked.is_empty());
        let unmarked = part.map(|after| (now + after / PARTS, TimeoutReason::SetDeadline));
        let first = self.queue.front();
        let confirm = first.map(|&(at, _)| (at, TimeoutReason::Confirm));
        [unmarked, confirm].into_iter().flatten().min()
    }
}

impl Machine<Client> {
    /// Sets the deadlines that wait for the time, and drops the first ones that are over.
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

    /// Whether a publish of the channel waits whose deadline is that one.
    fn awaits_confirm(&mut self, id: ChannelId, at: Instant) -> bool {
        let Some(channel) = self.channel_mut(id) else {
            return false;
        };
        match &mut channel.role.mode {
            Mode::Confirm(confirms) => confirms.has_deadline(at),
            Mode::Plain | Mode::Transaction { .. } => false,
        }
    }

    /// Tells of the publishes whose time is over. Those that wait in the output are not taken out of
    /// it: the server counts what it gets, so that the numbers behind them would be others.
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
            let reason = CloseReason::from(CloseCause::TimedOut(TimeoutReason::Confirm));
            confirms.expire(at, |first, last| {
                events.push_back(Event::Settled {
                    channel: id,
                    first,
                    last,
                    outcome: Outcome::Unknown(reason.clone()),
                });
            });
        }
    }
}
