//! Returned messages: mandatory ones that no queue accepted.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream;

use crate::{
    base_channel::Inner,
    error::Error,
    returned_message::ReturnedMessage,
    session::{budget::Budget, waiters::Place},
};

/// The returned messages of a channel without confirms, as a [`Stream`] that ends with the channel.
/// With several such streams, each message goes to one of them.
///
/// Reading pauses while [`Limits::undelivered`](amqp_core::Limits) bytes of returned messages are
/// not taken, or eight times as many if a call waits for the server. If none is taken for
/// [`Timeouts::unread`](amqp_core::Timeouts), or more come while a call waits, the stream ends, and
/// [`error`](Self::error) is [`Error::Overflow`].
///
/// ```no_run
/// use amqp_driver::protocol::basic;
///
/// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
/// let mut returns = channel.returns();
/// let to_nowhere = basic::Publish::default().routing_key("nowhere").mandatory(true);
/// channel.publish(&to_nowhere, &basic::Properties::default(), "lost").await?;
/// if let Some(message) = returns.next().await {
///     println!("{}: {:?}", message.text, message.body); // NO_ROUTE
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Returns {
    channel: Arc<Inner>,
    /// The place among the waiting streams of the channel.
    place: Place,
    budget: Budget,
}

impl Returns {
    pub(crate) fn new(channel: Arc<Inner>) -> Self {
        if let Some(state) = channel.shared().lock().channels.get_mut(channel.id) {
            let returns = state.need_extras().returns.get_or_insert_default();
            returns.listeners += 1;
        }
        Self {
            channel,
            place: None,
            budget: Budget::default(),
        }
    }

    /// Returns the next returned message, or `None` after the stream's end.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<ReturnedMessage> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// The reason for the stream's end. `Some` once it has ended.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        let state = self.channel.shared().lock();
        let returns = state
            .channels
            .get(self.channel.id)
            .and_then(|channel| channel.extras()?.returns.as_ref());
        let overflow = returns.and_then(|returns| returns.overflow.clone());
        overflow.or_else(|| state.channel_error(self.channel.id))
    }
}

impl Stream for Returns {
    type Item = ReturnedMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ReturnedMessage>> {
        let Self {
            channel,
            place,
            budget,
        } = &mut *self;
        ready!(budget.poll_proceed(channel.shared(), cx));
        let id = channel.id;
        let waker = cx.waker().clone();
        let next = channel.shared().with(|state, later| {
            let ended = state.channel_error(id).is_some();
            let channel = state.channels.get_mut(id);
            let returns = channel.and_then(|channel| channel.returns_mut());
            let Some(returns) = returns else {
                later.drop_waker(Some(waker));
                return Poll::Ready(None);
            };
            let ended = ended || returns.overflow.is_some();
            if returns.queue.is_empty() && !ended {
                returns.waiting.wait(place, waker, later);
                return Poll::Pending;
            }
            later.drop_waker(Some(waker));
            Poll::Ready(state.take_returned(id))
        });
        if next.is_pending() {
            budget.renew();
        }
        next
    }
}

impl Drop for Returns {
    fn drop(&mut self) {
        self.channel.shared().with(|state, later| {
            let id = self.channel.id;
            let channel = state.channels.get_mut(id);
            let returns = channel.and_then(|channel| channel.returns_mut());
            let Some(returns) = returns else {
                return;
            };
            returns.waiting.leave(&mut self.place, later);
            returns.listeners -= 1;
            if returns.listeners == 0 {
                state.release_returns(id);
            }
        });
    }
}
