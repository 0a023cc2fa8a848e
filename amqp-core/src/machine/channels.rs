//! The channels of a connection, by channel number.

use alloc::{boxed::Box, collections::BTreeMap, vec::Vec};

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
    /// Whether an event was requested when there is room for publishes in the backlog again.
    pub(crate) wants_room: bool,
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

impl<C: Default> Slot<C> {
    fn live(incarnation: u32, life: ChannelLife) -> Self {
        let channel = Box::new(Channel {
            life,
            assembly: Assembly::default(),
            backlog: Backlog::default(),
            paused: false,
            wants_room: false,
            role: C::default(),
        });
        Self::Live {
            incarnation,
            channel,
        }
    }
}

/// The state of a channel number.
#[derive(Debug)]
pub(crate) enum Lookup<'a, C> {
    Unused,
    Free,
    Live(ChannelId, &'a mut Channel<C>),
}

/// The highest channel number in the table that is indexed by number: the usual `channel_max`, as a
/// search in a map costs a publish half as much again. Higher ones are in a map, so that the memory
/// depends on the number of channels, not on their numbers.
const INDEXED: u16 = 2047;

#[derive(Debug)]
pub(crate) struct Channels<C> {
    /// The numbers up to `INDEXED`. Channel number 1 is at index 0.
    slots: Vec<Slot<C>>,
    /// The numbers above `INDEXED`.
    high: BTreeMap<u16, Slot<C>>,
    /// Whether a number above `INDEXED` stays in the table when its channel ends. If not, it is
    /// unused again.
    keeps_ended: bool,
    /// The incarnation of the next channel on an unused number above `INDEXED`. It grows with each
    /// number that is removed, so that no [`ChannelId`] is used twice.
    high_incarnation: u32,
    /// The number of live channels.
    live: usize,
    /// The number assigned last. The search for a free number begins after it, so that a number is
    /// reused as late as possible.
    last: u16,
}

/// The index of a number in the table. That of 0 is beyond the end of any table.
#[inline]
const fn index(number: u16) -> usize {
    number.wrapping_sub(1) as usize
}

/// The slot of a number that is not in the table.
#[cold]
fn high_slot_mut<C>(high: &mut BTreeMap<u16, Slot<C>>, number: u16) -> Option<&mut Slot<C>> {
    high.get_mut(&number)
}

impl<C: Default> Channels<C> {
    /// Creates an empty table. `keeps_ended` is whether an ended channel must be distinguished from
    /// one that was never open.
    pub(crate) const fn new(keeps_ended: bool) -> Self {
        Self {
            slots: Vec::new(),
            high: BTreeMap::new(),
            keeps_ended,
            high_incarnation: 0,
            live: 0,
            last: 0,
        }
    }

    /// The number of live channels.
    pub(crate) const fn len(&self) -> usize {
        self.live
    }

    /// The next free channel number that is not `taken`. `None` if all numbers up to `max` are in
    /// use or taken.
    pub(crate) fn next_free(&self, max: u16, taken: impl Fn(u16) -> bool) -> Option<u16> {
        if self.live >= usize::from(max) {
            return None;
        }
        (self.last..max)
            .map(|before| before + 1)
            .chain(1..=self.last.min(max))
            .find(|&number| self.is_free(number) && !taken(number))
    }

    #[inline]
    fn slot(&self, number: u16) -> Option<&Slot<C>> {
        match self.slots.get(index(number)) {
            Some(slot) => Some(slot),
            None => self.high_slot(number),
        }
    }

    /// The slot of a number that is not in the table.
    #[cold]
    fn high_slot(&self, number: u16) -> Option<&Slot<C>> {
        self.high.get(&number)
    }

    #[inline]
    fn slot_mut(&mut self, number: u16) -> Option<&mut Slot<C>> {
        match self.slots.get_mut(index(number)) {
            Some(slot) => Some(slot),
            None => high_slot_mut(&mut self.high, number),
        }
    }

    pub(crate) fn is_free(&self, number: u16) -> bool {
        match self.slot(number) {
            Some(Slot::Live { .. }) => false,
            Some(Slot::Unused | Slot::Free { .. }) | None => number != 0,
        }
    }

    /// The table of the connection that follows one with this table: no channel lives, and no
    /// identifier is used twice.
    pub(crate) fn after(mut ended: Self) -> Self {
        for id in ended.ids() {
            ended.remove(id);
        }
        ended
    }

    /// Inserts a new channel. Returns `None` if the number is not free.
    pub(crate) fn insert(&mut self, number: u16, life: ChannelLife) -> Option<ChannelId> {
        let high_incarnation = self.high_incarnation;
        let slot = self.slot_for(number)?;
        let incarnation = match slot {
            Slot::Unused if number > INDEXED => high_incarnation,
            Slot::Unused => 0,
            Slot::Free { incarnation } => incarnation.wrapping_add(1),
            Slot::Live { .. } => return None,
        };
        *slot = Slot::live(incarnation, life);
        self.live += 1;
        self.last = number;
        Some(ChannelId::new(number, incarnation))
    }

    /// Inserts a channel under the identifier of one that has ended. Returns `false` if the number
    /// is not free, or a later channel has used it.
    pub(crate) fn reinsert(&mut self, id: ChannelId, life: ChannelLife) -> bool {
        let Some(slot) = self.slot_for(id.number()) else {
            return false;
        };
        match slot {
            Slot::Unused => {}
            Slot::Free { incarnation } if *incarnation == id.incarnation() => {}
            Slot::Free { .. } | Slot::Live { .. } => return false,
        }
        *slot = Slot::live(id.incarnation(), life);
        self.live += 1;
        true
    }

    /// The slot of a number, in a table that has room for it. `None` for 0.
    fn slot_for(&mut self, number: u16) -> Option<&mut Slot<C>> {
        if number > INDEXED {
            return Some(self.high.entry(number).or_insert(Slot::Unused));
        }
        if number == 0 {
            return None;
        }
        let index = index(number);
        while self.slots.len() <= index {
            self.slots.push(Slot::Unused);
        }
        self.slots.get_mut(index)
    }

    /// Returns the state of a channel number of an incoming frame.
    #[inline]
    pub(crate) fn lookup(&mut self, number: u16) -> Lookup<'_, C> {
        match self.slot_mut(number) {
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
    #[inline]
    pub(crate) fn get(&self, id: ChannelId) -> Option<&Channel<C>> {
        match self.slot(id.number()) {
            Some(Slot::Live {
                incarnation,
                channel,
            }) if *incarnation == id.incarnation() => Some(channel),
            Some(Slot::Live { .. } | Slot::Unused | Slot::Free { .. }) | None => None,
        }
    }

    /// The live channel with this number.
    pub(crate) fn get_live(&self, number: u16) -> Option<(ChannelId, &Channel<C>)> {
        match self.slot(number)? {
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
        let number = id.number();
        let ended = if number > INDEXED && !self.keeps_ended {
            self.high_incarnation = self.high_incarnation.wrapping_add(1);
            self.high.remove(&number)?
        } else {
            let free = Slot::Free {
                incarnation: id.incarnation(),
            };
            core::mem::replace(self.slot_mut(number)?, free)
        };
        match ended {
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
            .chain(self.high.iter().map(|(number, slot)| (*number, slot)))
            .filter_map(|(number, slot)| match slot {
                Slot::Live { incarnation, .. } => Some(ChannelId::new(number, *incarnation)),
                Slot::Unused | Slot::Free { .. } => None,
            })
            .collect()
    }
}
