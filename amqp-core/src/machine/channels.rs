//! The channels of a connection, by channel number.

use alloc::{boxed::Box, vec::Vec};

use super::{assembly::Assembly, output::Backlog};
use crate::ids::{ChannelId, RequestId};

/// A live channel.
#[derive(Debug)]
pub(crate) struct Channel<C> {
    pub(crate) life: ChannelLife,
    /// The message being received.
    pub(crate) assembly: Assembly,
    /// The output queued behind a large message.
    pub(crate) backlog: Backlog,
    /// Whether the peer has paused content on this channel with `channel.flow` (section 1.5.2.3 of
    /// the protocol reference).
    pub(crate) paused: bool,
    /// The state that the role adds to each channel.
    pub(crate) role: C,
}

/// The state of a channel.
///
/// ```text
///            open sent            open-ok            close queued
///  (unused) ──────────> Opening ──────────> Open ────────────────> Closing ── close-ok ──> (free)
///     │                    │                 │                      │  ^
///     │ open received      │ close received  │ close received       │  │ close received, own close
///     └────────────────────┼──────> Open     │                      │  └ sent: answered; close-ok
///                          └────────┬────────┘                      │    still to come
///                                   v                               │ close received, own close
///                               ClosingRemote <─────────────────────────┘ unsent: own close dropped
///                                   │
///                                   └── close-ok and the begun message sent ──> (free)
/// ```
///
/// A number is free for another channel only at the end of these paths. A close received in
/// `Closing` is the reason why the channel ended: the request of the own close fails with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ChannelLife {
    /// This side has sent `channel.open` for this request.
    Opening(RequestId),
    Open,
    /// This side has closed the channel, and discards all input but close and close-ok (section
    /// 1.5.2.5 of the protocol reference). `Some` while a request waits for close-ok.
    Closing(Option<RequestId>),
    /// The peer has closed the channel; the begun message is being finished.
    ClosingRemote,
}

#[derive(Debug)]
enum Slot<C> {
    /// Never used: anything but `channel.open` is a fault of the peer.
    Unused,
    /// Used before. Input is ignored if [`Role::FORGIVES_ENDED`](super::Role::FORGIVES_ENDED) is
    /// set: the peer may have sent it before it processed the close.
    Free { incarnation: u32 },
    Live {
        incarnation: u32,
        channel: Box<Channel<C>>,
    },
}

/// The state of a channel number.
#[derive(Debug)]
pub(crate) enum Lookup<'a, C> {
    Unused,
    Free,
    Live(ChannelId, &'a mut Channel<C>),
}

#[derive(Debug)]
pub(crate) struct Channels<C> {
    /// Channel number 1 is at index 0.
    slots: Vec<Slot<C>>,
    /// The number of live channels.
    live: usize,
    /// The number assigned last. The search for a free number begins after it, so that a number is
    /// reused as late as possible.
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

    /// The number of live channels.
    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// The next free channel number. `None` if all numbers up to `max` are in use.
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

    /// Inserts a new channel. Returns `None` if the number is not free.
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

    /// Returns the state of a channel number of an incoming frame.
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

    /// The channel. `None` if it has ended.
    #[inline]
    pub(crate) fn get_mut(&mut self, id: ChannelId) -> Option<&mut Channel<C>> {
        match self.lookup(id.number()) {
            Lookup::Live(live, channel) if live == id => Some(channel),
            Lookup::Live(..) | Lookup::Unused | Lookup::Free => None,
        }
    }

    /// The channel. `None` if it has ended.
    pub(crate) fn get(&self, id: ChannelId) -> Option<&Channel<C>> {
        match index(id.number()).and_then(|index| self.slots.get(index)) {
            Some(Slot::Live {
                incarnation,
                channel,
            }) if *incarnation == id.incarnation() => Some(channel),
            Some(Slot::Live { .. } | Slot::Unused | Slot::Free { .. }) | None => None,
        }
    }

    /// The live channel with this number.
    pub(crate) fn get_live(&self, number: u16) -> Option<(ChannelId, &Channel<C>)> {
        match self.slots.get(index(number)?)? {
            Slot::Live {
                incarnation,
                channel,
            } => Some((ChannelId::new(number, *incarnation), channel)),
            Slot::Unused | Slot::Free { .. } => None,
        }
    }

    /// Removes the channel and frees its number.
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

    /// The live channels, in ascending order of their numbers.
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
