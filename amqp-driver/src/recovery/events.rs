//! The events of a connection's recovery, as a stream.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_core::recovery::TimedEvent;
use futures_core::Stream;

use crate::session::{shared::Shared, waiters::Place};

/// The events of a connection's recovery, as a [`Stream`] that ends with the connection. It begins
/// with the events since the connection was opened.
///
/// Each stream gets all events; one that falls behind by more than some hundred skips the oldest. It
/// does not keep the connection open.
#[derive(Debug)]
pub struct RecoveryEvents {
    shared: Arc<Shared>,
    place: Place,
    /// The number of the next event.
    next: u64,
}

impl RecoveryEvents {
    pub(crate) const fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            place: None,
            next: 0,
        }
    }

    /// Returns the next event if there is one now.
    pub fn try_next(&mut self) -> Option<TimedEvent> {
        let state = self.shared.lock();
        let (number, change) = state.recovery.as_ref()?.event(self.next)?;
        self.next = number + 1;
        Some(change.clone())
    }

    /// Returns the next event, or `None` after the last one. Without recovery there are none.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<TimedEvent> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for RecoveryEvents {
    type Item = TimedEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<TimedEvent>> {
        let Self {
            shared,
            place,
            next,
        } = &mut *self;
        let waker = cx.waker().clone();
        shared.with(|state, later| {
            let ended = state.closed.is_some();
            let Some(recovering) = &mut state.recovery else {
                later.drop_waker(Some(waker));
                return Poll::Ready(None);
            };
            if let Some((number, change)) = recovering.event(*next) {
                *next = number + 1;
                later.drop_waker(Some(waker));
                return Poll::Ready(Some(change.clone()));
            }
            if ended {
                later.drop_waker(Some(waker));
                return Poll::Ready(None);
            }
            recovering.listeners.wait(place, waker, later);
            Poll::Pending
        })
    }
}

impl Drop for RecoveryEvents {
    fn drop(&mut self) {
        let place = &mut self.place;
        self.shared.with(|state, later| {
            if let Some(recovering) = &mut state.recovery {
                recovering.listeners.leave(place, later);
            }
        });
    }
}
