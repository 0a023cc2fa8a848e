//! The task that handles the events of calls.

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_driver::io::Timer;

use super::shared::Shared;

/// The events that are handled before other tasks get their turn.
const BUDGET: usize = 64;

/// Handles the messages of calls, and keeps their deadlines. Ends when the peer stops; dropping it ends
/// all calls.
#[derive(Debug)]
#[must_use = "it does nothing unless it is spawned"]
pub(crate) struct Task<C> {
    pub(super) shared: Arc<Shared>,
    pub(super) clock: C,
}

impl<C: Timer + Unpin> Future for Task<C> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        for _ in 0..BUDGET {
            match this.shared.port.poll_event(cx) {
                Poll::Ready(Some(event)) => {
                    this.shared.handle_event(event);
                    continue;
                }
                Poll::Ready(None) => {
                    this.shared.stop();
                    return Poll::Ready(());
                }
                Poll::Pending => {}
            }
            let due = this.shared.register_task(cx.waker());
            if this.clock.poll_deadline(cx, due).is_pending() {
                return Poll::Pending;
            }
            this.shared.handle_timeout(this.clock.now());
        }
        this.clock.yield_now(cx);
        Poll::Pending
    }
}

impl<C> Drop for Task<C> {
    fn drop(&mut self) {
        self.shared.stop();
    }
}
