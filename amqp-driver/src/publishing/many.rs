//! The outcomes of many messages, in order.

use std::{
    collections::VecDeque,
    fmt,
    future::{Future as _, poll_fn},
    iter::Fuse,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;

use super::{
    engine::Publishing,
    message::OutgoingMessage,
    outcome::Outcome,
    publisher::{Publisher, Receipt},
    target::Mode,
};

/// Publishes the messages of an iterator, and yields their outcomes, in order. A [`Stream`], from
/// [`Publisher::publish_many`].
///
/// Dropped, it publishes no more; the messages that it has published stay as they are.
#[must_use = "messages are published as the outcomes are taken"]
pub struct PublishMany<I> {
    publisher: Publisher,
    messages: Fuse<I>,
    /// The next message, while it waits to be accepted.
    publishing: Option<Publishing<Mode>>,
    receipts: VecDeque<Receipt>,
}

// The iterator is never pinned.
impl<I> Unpin for PublishMany<I> {}

impl<I: Iterator<Item = OutgoingMessage>> PublishMany<I> {
    pub(super) fn new(publisher: Publisher, messages: I) -> Self {
        Self {
            publisher,
            messages: messages.fuse(),
            publishing: None,
            receipts: VecDeque::new(),
        }
    }

    /// Returns the outcome of the next message, or `None` after the last.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<Outcome> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Publishes all messages, and returns their outcomes, in order.
    ///
    /// # Cancel safety
    /// Dropping it publishes no more messages, and discards the outcomes.
    pub async fn wait_all(mut self) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        while let Some(outcome) = self.next().await {
            outcomes.push(outcome);
        }
        outcomes
    }
}

impl<I: Iterator<Item = OutgoingMessage>> Stream for PublishMany<I> {
    type Item = Outcome;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let this = self.get_mut();
        loop {
            if let Some(first) = this.receipts.front_mut()
                && let Poll::Ready(outcome) = Pin::new(first).poll(cx)
            {
                this.receipts.pop_front();
                return Poll::Ready(Some(outcome));
            }
            let is_full = this.receipts.len() >= this.publisher.options().window.messages.max(1);
            if this.publishing.is_none() && !is_full {
                let message = this.messages.next();
                this.publishing = message.map(|message| this.publisher.begin(message));
            }
            let Some(publishing) = &mut this.publishing else {
                let is_over = this.receipts.is_empty();
                return if is_over {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                };
            };
            match Pin::new(publishing).poll(cx) {
                Poll::Ready(receipt) => {
                    this.publishing = None;
                    this.receipts.push_back(Receipt::new(receipt));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<I> fmt::Debug for PublishMany<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PublishMany")
            .field("publisher", &self.publisher)
            .field("untaken", &self.receipts.len())
            .finish_non_exhaustive()
    }
}
