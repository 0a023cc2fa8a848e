//! The channels of a connection, by their number.

use alloc::{boxed::Box, vec::Vec};

use super::{assembly::Assembly, output::Backlog};
use crate::ids::{ChannelId, RequestId};

/// One open channel.
#[derive(Debug)]
pub(crate) struct Channel<C> {
    pub(crate) life: ChannelLife,
    /// The message that is coming in.
    pub(crate) assembly: Assembly,
    /// What is going out behind a large message.
    pub(crate) backlog: Backlog,
    /// The peer wants no content on this channel now (`channel.flow`).
    pub(crate) paused: bool,
    /// What only this role knows of a channel.
    pub(crate) role: C,
}

/// Where a channel is in its life.
///
/// ```text
///            open sent            open-ok               close queued
///  (unused) ──────────> Opening ──────────> Open ───────────────────> Closing ── close-ok ──> (free)
///     │                    │                 │                         │  ^
///     │ open received      │ close received  │ close received          │  │ close received, the own has
///     └────────────────────┼──────> Open     │                         │  └ left: answered; its close-ok
///                          └────────┬────────┘                         │    still comes
///                                   v                                  │ close received, the own has not
///                               Finishing <────────────────────────────┘ left: that one is dropped
///                                   │
///                                   └── close-ok and the begun message sent ──> (free)
/// ```
///
/// A number is free for another channel only at the end of these paths. A close that is received in
/// `Closing` is why the channel ended: the request that the own close was for fails with its reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelLife {
    /// This side has asked for it.
    Opening(RequestId),
    Open,
    /// This side has closed it, and discards all input but a close and its answer. The request
    /// waits for close-ok; none for a close that was not requested, and when the request has failed.
    Closing(Option<RequestId>),
    /// The peer has closed it; what was begun is being finished.
    Finishing,
}

#[derive(Debug)]
enum Slot<C> {
    /// Never used: whatever the peer says of it is a fault.
    Unused,
    /// Used before: what the peer said before it learned of the end is ignored.
    Free { incarnation: u32 },
    Live {
        incarnation: u32,
        channel: Box<Channel<C>>,
    },
}

/// What a channel number stands for.
#[derive(Debug)]
pub(crate) enum Lookup<'a, C> {
    Unused,
    Free,
    Live(ChannelId, &'a mut Channel<C>),
}

#[derive(Debug)]
pub(crate) struct Channels<C> {
    /// Number 1 is at index 0.
    slots: Vec<Slot<C>>,
    /// How many are live.
    live: usize,
    /// The number given out last: the next one is looked for behind it, so that a number rests as
    /// long as it can before it is used again.
    last: u16,
}

const fn index(number: u16) -> Option<usize> {
    match number {
        0 => None,
        number => Some(number as usize - 1),
    }
}

impl<C: Default> Channels<C> {
    pub(crate) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            live: 0,
            last: 0,
        }
    }

    /// How many are live.
    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// The next number that is free, none when all up to `max` are taken.
    pub(crate) fn next_free(&self, max: u16) -> Option<u16> {
        if self.live >= usize::from(max) {
            return None;
        }
        (self.last..max)
            .map(|before| before + 1)
            .chain(1..=self.last.min(max))
            .find(|&number| self.is_free(number))
    }

    pub(crate) fn is_free(&self, number: u16) -> bool {
        match index(number).and_then(|index| self.slots.get(index)) {
            Some(Slot::Live { .. }) => false,
            Some(Slot::Unused | Slot::Free { .. }) | None => number != 0,
        }
    }

    /// Puts a new channel at a number that is free; none if it is not.
    pub(crate) fn insert(&mut self, number: u16, life: ChannelLife) -> Option<ChannelId> {
        let index = index(number)?;
        while self.slots.len() <= index {
            self.slots.push(Slot::Unused);
        }
        let slot = self.slots.get_mut(index)?;
        let incarnation = match slot {
            Slot::Unused => 0,
            Slot::Free { incarnation } => incarnation.wrapping_add(1),
            Slot::Live { .. } => return None,
        };
        *slot = Slot::Live {
            incarnation,
            channel: Box::new(Channel {
                life,
                assembly: Assembly::default(),
                backlog: Backlog::default(),
                paused: false,
                role: C::default(),
            }),
        };
        self.live += 1;
        self.last = number;
        Some(ChannelId::new(number, incarnation))
    }

    /// What stands at a number that the peer named.
    #[inline]
    pub(crate) fn lookup(&mut self, number: u16) -> Lookup<'_, C> {
        match index(number).and_then(|index| self.slots.get_mut(index)) {
            Some(Slot::Live {
                incarnation,
                channel,
            }) => Lookup::Live(ChannelId::new(number, *incarnation), channel),
            Some(Slot::Free { .. }) => Lookup::Free,
            Some(Slot::Unused) | None => Lookup::Unused,
        }
    }

    /// The channel, unless it has ended.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel<C>> {
        match self.lookup(id.number()) {
            Lookup::Live(live, channel) if live == id => Some(channel),
            Lookup::Live(..) | Lookup::Unused | Lookup::Free => None,
        }
    }

    /// The channel, unless it has ended.
    pub(crate) fn get(&self, id: ChannelId) -> Option<&Channel<C>> {
        match index(id.number()).and_then(|index| self.slots.get(index)) {
            Some(Slot::Live {
                incarnation,
                channel,
            }) if *incarnation == id.incarnation() => Some(channel),
            Some(Slot::Live { .. } | Slot::Unused | Slot::Free { .. }) | None => None,
        }
    }

    /// The live channel of that number.
    pub(crate) fn get_live(&self, number: u16) -> Option<(ChannelId, &Channel<C>)> {
        match self.slots.get(index(number)?)? {
            Slot::Live {
                incarnation,
                channel,
            } => Some((ChannelId::new(number, *incarnation), channel)),
            Slot::Unused | Slot::Free { .. } => None,
        }
    }

    /// Frees the number and hands the channel out.
    pub(crate) fn remove(&mut self, id: ChannelId) -> Option<Box<Channel<C>>> {
        self.get(id)?;
        let slot = index(id.number()).and_then(|index| self.slots.get_mut(index))?;
        let free = Slot::Free {
            incarnation: id.incarnation(),
        };
        match core::mem::replace(slot, free) {
            Slot::Live { channel, .. } => {
                self.live -= 1;
                Some(channel)
            }
            Slot::Unused | Slot::Free { .. } => None,
        }
    }

    /// The live channels, in the order of their numbers.
    pub(crate) fn ids(&self) -> Vec<ChannelId> {
        (1..)
            .zip(&self.slots)
            .filter_map(|(number, slot)| match slot {
                Slot::Live { incarnation, .. } => Some(ChannelId::new(number, *incarnation)),
                Slot::Unused | Slot::Free { .. } => None,
            })
            .collect()
    }
}
