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
/// A grant reserves room until the next round: another publisher does not take it in between. A
/// future that is not polled keeps its reservation for one round only, so that it holds up no other.
#[derive(Debug, Default)]
pub(crate) struct Line {
    waiting: BTreeMap<u64, Waiting>,
    /// The room that each grant reserves.
    granted: BTreeMap<u64, usize>,
    /// Invariant: the sum of `granted` and of the credits that grants of this round have left.
    reserved: usize,
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
    pub(crate) fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.reserved == 0
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The number of tickets that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) const fn reserved(&self) -> usize {
        self.reserved
    }

    /// The number of grants that are not used yet.
    pub(crate) fn granted(&self) -> usize {
        self.granted.len()
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

    /// Gives up a ticket.
    pub(crate) fn leave(&mut self, number: u64, later: &mut Later) {
        if let Some(waiting) = self.waiting.remove(&number) {
            later.drop_waker(Some(waiting.waker));
        }
        if let Some(room) = self.granted.remove(&number) {
            self.reserved -= room;
        }
    }

    /// Keeps room that a grant has left over for its channel.
    pub(crate) fn reserve(&mut self, room: usize) {
        self.reserved += room;
    }

    /// Gives back room that was kept.
    pub(crate) fn release(&mut self, room: usize) {
        self.reserved = self.reserved.saturating_sub(room);
    }

    /// Begins a round: the reservations of the one before are over.
    pub(crate) fn begin_round(&mut self) {
        self.granted.clear();
        self.reserved = 0;
    }

    /// Grants room to the first in line: what it needs, at least `share`. Returns how much.
    pub(crate) fn grant(&mut self, share: usize, later: &mut Later) -> Option<usize> {
        let (number, waiting) = self.waiting.pop_first()?;
        let room = share.max(waiting.cost);
        self.granted.insert(number, room);
        self.reserved += room;
        later.wake(Some(waiting.waker));
        Some(room)
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
