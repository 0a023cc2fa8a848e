//! Publishers that wait for room: tickets, first in, first out.

use std::{collections::BTreeMap, task::Waker};

use amqp_core::ChannelId;

use super::later::Later;

/// The line of a ticket: one for each kind of room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineId {
    /// Room in the output for messages of one frame, shared by all channels. Publishers also wait
    /// here for `connection.unblocked`, see <https://www.rabbitmq.com/docs/connection-blocked>.
    Output,
    /// Room for larger messages, shared by all channels.
    Backlog,
    /// Room of one channel: its window of unconfirmed publishes, `channel.flow` (section 1.5.2.3 of
    /// the protocol reference), its own backlog.
    Channel(ChannelId),
}

impl LineId {
    /// The room that a publish takes, in the unit of the line: bytes of the output, or one place in
    /// the window.
    pub(crate) const fn cost(self, bytes: usize) -> usize {
        match self {
            Self::Output | Self::Backlog => bytes,
            Self::Channel(_) => 1,
        }
    }
}

/// A place in a line. Numbers ascend over all lines, so that a ticket that moves to another line
/// keeps its rank.
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
/// The waiting publishers share the available room. A grant reserves its share until the next
/// round, and the part that a publish leaves unused becomes a credit of its channel: other
/// publishers can use neither in between. A future that is not polled keeps its reservation for one
/// round only, so that it blocks no other.
///
/// The unit of room is that of the line: bytes in the output and the backlog, publishes in a
/// window.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: BTreeMap<u64, Waiting>,
    /// The room that each grant reserves, by ticket.
    granted: BTreeMap<u64, usize>,
    /// The unused rest of this round's grants, by channel.
    credits: BTreeMap<ChannelId, usize>,
    /// Invariant: the sum of `granted` and `credits`.
    reserved: usize,
    /// A publish has been made since the driver last checked.
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
    /// The ticket may publish, with this much room.
    Granted(usize),
    /// The ticket may try to publish, without reserved room.
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

    /// Whether a publish without a ticket overtakes no other: its channel has enough credit, or no
    /// ticket waits and there is more room than is reserved.
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

    /// Returns the ticket's standing, and consumes its grant.
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

    /// Accounts for a publish. The unused rest of its grant becomes a credit of its channel; a
    /// publish without a grant uses that credit.
    pub(crate) fn settle(&mut self, channel: ChannelId, cost: usize, granted: Option<usize>) {
        self.used = true;
        if let Some(room) = granted {
            // A lone publisher needs no credit.
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

    /// Removes a ticket and its grant.
    pub(crate) fn leave(&mut self, number: u64, later: &mut Later) {
        if let Some(waiting) = self.waiting.remove(&number) {
            later.drop_waker(Some(waiting.waker));
        }
        if let Some(room) = self.granted.remove(&number) {
            self.reserved -= room;
        }
    }

    /// Whether a publish has been made since the last call.
    pub(crate) fn take_used(&mut self) -> bool {
        std::mem::take(&mut self.used)
    }

    /// Begins a round: drops the reservations of the previous one.
    pub(crate) fn begin_round(&mut self) {
        self.granted.clear();
        self.credits.clear();
        self.reserved = 0;
    }

    /// Grants the unreserved part of `room`, first in, first out, in equal shares, but to each
    /// publish at least its cost.
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

    /// Wakes and removes the tickets of a channel, or all: the channel or the connection has ended.
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
