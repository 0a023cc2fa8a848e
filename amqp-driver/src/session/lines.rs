//! Publishers that wait for room: tickets, first in, first out.

use std::{collections::BTreeMap, task::Waker};

use amqp_core::ChannelId;

use super::later::Later;

/// The line that a ticket stands in: one for each kind of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineId {
    /// Room in the output for messages of one frame, which all channels share; and the end of
    /// `connection.blocked`.
    Output,
    /// Room for larger messages, which all channels share.
    Backlog,
    /// Room of one channel: its window of unconfirmed publishes, `channel.flow`, its own backlog.
    Channel(ChannelId),
}

impl LineId {
    /// The room that a publish takes, in the unit of the line: bytes of the output, or a place in the
    /// window.
    pub(crate) const fn cost(self, bytes: usize) -> usize {
        match self {
            Self::Output | Self::Backlog => bytes,
            Self::Channel(_) => 1,
        }
    }
}

/// A place in a line. Numbers are given out in order for all lines, so that a ticket that moves to
/// another line keeps its rank.
#[derive(Debug)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) line: LineId,
}

/// Publishers that wait for the same room.
///
/// ```text
///  join ──> waiting ── grant ──> granted ── the publish, or a drop ──> (gone)
///              ^                    │
///              │                    v  the next round of grants
///              └── refused ────── stale ── the publish, or a drop ──> (gone)
/// ```
///
/// Those that wait share the room that there is. A grant reserves its share until the next round, and
/// what a publish leaves of it is a credit of its channel: another publisher takes neither in between.
/// A future that is not polled keeps its reservation for one round only, so that it holds up no other.
///
/// The unit of room is the line's own: bytes in the output and the backlog, publishes in a window.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: BTreeMap<u64, Waiting>,
    /// The room that each grant reserves.
    granted: BTreeMap<u64, usize>,
    /// What is left of the grants of this round, by channel.
    credits: BTreeMap<ChannelId, usize>,
    /// Invariant: the sum of `granted` and `credits`.
    reserved: usize,
    /// A publish has been made since the driver looked last.
    used: bool,
}

#[derive(Debug)]
struct Waiting {
    channel: ChannelId,
    /// The room that the publish takes.
    cost: usize,
    waker: Waker,
}

/// The state of a ticket in its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Waiting,
    /// It may publish, and has so much room.
    Granted(usize),
    /// It may try.
    Stale,
}

impl Line {
    /// Whether room is reserved.
    #[inline]
    pub(crate) const fn is_shared(&self) -> bool {
        self.reserved > 0
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether a publish without a ticket passes no other: it has the credit of its channel, or no
    /// ticket waits and more is there than is reserved.
    pub(crate) fn is_open_to(&self, channel: ChannelId, cost: usize, room: usize) -> bool {
        self.credits.get(&channel).is_some_and(|it| *it >= cost)
            || (self.waiting.is_empty() && (self.reserved == 0 || room > self.reserved))
    }

    pub(crate) fn join(
        &mut self,
        number: u64,
        channel: ChannelId,
        cost: usize,
        waker: Waker,
        later: &mut Later,
    ) {
        let waiting = Waiting {
            channel,
            cost,
            waker,
        };
        let before = self.waiting.insert(number, waiting);
        later.drop_waker(before.map(|before| before.waker));
    }

    /// The ticket's standing. A grant is used up by asking.
    pub(crate) fn claim(&mut self, number: u64) -> Standing {
        if self.waiting.contains_key(&number) {
            return Standing::Waiting;
        }
        match self.granted.remove(&number) {
            Some(room) => {
                self.reserved -= room;
                Standing::Granted(room)
            }
            None => Standing::Stale,
        }
    }

    /// Accounts for a publish. What it leaves of its grant is for the next ones of its channel, from
    /// which one without a grant takes.
    pub(crate) fn settle(&mut self, channel: ChannelId, cost: usize, granted: Option<usize>) {
        self.used = true;
        if let Some(room) = granted {
            // Alone, it needs none.
            if self.reserved > 0 || self.has_waiting() {
                let rest = room.saturating_sub(cost);
                *self.credits.entry(channel).or_default() += rest;
                self.reserved += rest;
            }
        } else if let Some(credit) = self.credits.get_mut(&channel) {
            let used = cost.min(*credit);
            *credit -= used;
            self.reserved -= used;
        }
    }

    /// Gives up a ticket.
    pub(crate) fn leave(&mut self, number: u64, later: &mut Later) {
        if let Some(waiting) = self.waiting.remove(&number) {
            later.drop_waker(Some(waiting.waker));
        }
        if let Some(room) = self.granted.remove(&number) {
            self.reserved -= room;
        }
    }

    /// Whether a publish has been made since this was asked last.
    pub(crate) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.used)
    }

    /// Begins a round: the reservations of the one before are over.
    pub(crate) fn begin_round(&mut self) {
        self.granted.clear();
        self.credits.clear();
        self.reserved = 0;
    }

    /// Grants what is not reserved of the room, in equal shares, but each at least what its publish
    /// takes, and first in, first out as far as it goes.
    pub(crate) fn grant(&mut self, room: usize, later: &mut Later) {
        let free = room.saturating_sub(self.reserved);
        let count = self.waiting.len().max(1);
        let (share, mut left) = (free / count, free % count);
        while self.reserved < room
            && let Some((number, waiting)) = self.waiting.pop_first()
        {
            let one = usize::from(left > 0);
            left -= one;
            let room = (share + one).max(waiting.cost);
            self.granted.insert(number, room);
            self.reserved += room;
            later.wake(Some(waiting.waker));
        }
    }

    /// Lets the publishers of a channel look again, or all: their channel or connection has ended.
    pub(crate) fn dismiss(&mut self, channel: Option<ChannelId>, later: &mut Later) {
        self.waiting.retain(|_, waiting| {
            let stays = channel.is_some_and(|channel| waiting.channel != channel);
            if !stays {
                let waker = std::mem::replace(&mut waiting.waker, Waker::noop().clone());
                later.wake(Some(waker));
            }
            stays
        });
    }
}
