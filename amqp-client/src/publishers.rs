//! Who waits for room to publish.

use std::{
    collections::BTreeMap,
    task::{Context, Waker},
};

use amqp_core::ChannelId;

use crate::waiters::Wakes;

/// Those who wait for room to publish, on each channel in the order in which they came.
///
/// As many are woken as there may be room for, so that it does not matter how many wait. Whoever
/// was woken and does not use it passes it on.
#[derive(Debug, Default)]
pub(crate) struct Publishers {
    asleep: BTreeMap<Place, Waker>,
    last: u64,
}

/// A place among those who wait on a channel.
pub(crate) type Place = (ChannelId, u64);

impl Publishers {
    /// Takes a place, or goes back to the one that was taken.
    pub(crate) fn wait(&mut self, channel: ChannelId, place: &mut Option<Place>, cx: &Context<'_>) {
        let place = *place.get_or_insert_with(|| {
            self.last += 1;
            (channel, self.last)
        });
        match self.asleep.get_mut(&place) {
            Some(waker) => waker.clone_from(cx.waker()),
            None => {
                self.asleep.insert(place, cx.waker().clone());
            }
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.asleep.is_empty()
    }

    /// Gives up a place. True if it was woken.
    pub(crate) fn leave(&mut self, place: Place) -> bool {
        self.asleep.remove(&place).is_none()
    }

    /// There is room for so many on that channel.
    pub(crate) fn wake(&mut self, channel: ChannelId, room: u64, wakes: &mut Wakes) {
        for _ in 0..room {
            let of_channel = (channel, 0)..=(channel, u64::MAX);
            let Some((&first, _)) = self.asleep.range(of_channel).next() else {
                return;
            };
            wakes.add(self.asleep.remove(&first));
        }
    }

    /// Everyone is to look again.
    pub(crate) fn wake_all(&mut self, wakes: &mut Wakes) {
        for waker in std::mem::take(&mut self.asleep).into_values() {
            wakes.add(Some(waker));
        }
    }
}
