//! The wait for the confirms of a channel.

use std::{future::poll_fn, task::Poll};

use crate::{base_channel::BaseChannel, session::waiters::Place};

/// Waits until no publish of the channel is unconfirmed, or the channel has ended.
pub(super) async fn confirmed(channel: &BaseChannel) {
    let mut waiting = Waiting {
        channel,
        place: None,
    };
    poll_fn(|cx| {
        let waker = cx.waker().clone();
        channel.shared().with(|state, later| {
            let machine = state.machine.channel(channel.id());
            if machine.is_none_or(|channel| channel.stats().unconfirmed == 0) {
                later.drop_waker(Some(waker));
                return Poll::Ready(());
            }
            let Some(channel) = state.channels.get_mut(channel.id()) else {
                later.drop_waker(Some(waker));
                return Poll::Ready(());
            };
            let confirmed = &mut channel.need_extras().confirmed;
            confirmed.wait(&mut waiting.place, waker, later);
            Poll::Pending
        })
    })
    .await;
}

/// The number of unconfirmed publishes of a channel. 0 once it has ended.
pub(super) fn unconfirmed(channel: &BaseChannel) -> u64 {
    let mut state = channel.shared().lock();
    let machine = state.machine.channel(channel.id());
    machine.map_or(0, |channel| channel.unconfirmed() as u64)
}

/// A place among the waiters, left on drop.
struct Waiting<'a> {
    channel: &'a BaseChannel,
    place: Place,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.place.is_some() {
            self.channel.shared().with(|state, later| {
                let channel = state.channels.get_mut(self.channel.id());
                if let Some(extras) = channel.and_then(|channel| channel.extras_mut()) {
                    extras.confirmed.leave(&mut self.place, later);
                }
            });
        }
    }
}
