//! Messages that came back because no queue took them.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_core::{Body, EncodedProperties, client::Returned, protocol::ReplyCode, wire::ShortStr};
use futures_core::Stream;

use crate::{
    channel::Inner,
    error::Error,
    state::{ReturnsState, weight},
    waiters::Place,
};

/// A mandatory message that no queue took.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReturnedMessage {
    /// Why: 312 (no-route), when no queue is bound for it.
    pub code: ReplyCode,
    /// Why, for people.
    pub text: ShortStr,
    /// The exchange it was published to.
    pub exchange: ShortStr,
    /// The routing key it was published with.
    pub routing_key: ShortStr,
    /// Its properties, as they stand on the wire.
    pub encoded_properties: EncodedProperties,
    /// Its body.
    pub body: Body,
}

impl From<Returned> for ReturnedMessage {
    fn from(returned: Returned) -> Self {
        let Returned {
            method, content, ..
        } = returned;
        Self {
            code: method.reply_code,
            text: method.reply_text,
            exchange: method.exchange,
            routing_key: method.routing_key,
            encoded_properties: content.properties,
            body: content.body,
        }
    }
}

/// The messages that come back on a channel without confirms, as a [`Stream`] that ends with the
/// channel. When there are several, each message goes to one of them.
#[derive(Debug)]
pub struct Returns {
    channel: Arc<Inner>,
    /// Its place among those who listen.
    place: Place,
}

impl Returns {
    pub(crate) fn new(channel: Arc<Inner>) -> Self {
        if let Some(state) = channel.shared().lock().channel_mut(channel.id) {
            let returns = state.returns.get_or_insert_with(ReturnsState::default);
            returns.listeners += 1;
        }
        Self {
            channel,
            place: None,
        }
    }

    /// The next message that came back; none when the channel has ended.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    pub async fn next(&mut self) -> Option<ReturnedMessage> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Why it has ended; none while it has not.
    #[must_use]
    pub fn error(&self) -> Option<Error> {
        self.channel.shared().lock().channel_error(self.channel.id)
    }
}

impl Stream for Returns {
    type Item = ReturnedMessage;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<ReturnedMessage>> {
        let Self { channel, place } = &mut *self;
        let id = channel.id;
        channel.shared().take(|state| {
            let ended = state.channel_error(id).is_some();
            let returns = state.channel_mut(id).and_then(|it| it.returns.as_mut());
            let Some(returns) = returns else {
                return Poll::Ready(None);
            };
            match returns.queue.pop_front() {
                Some(message) => {
                    let counted = weight(message.body.len()).min(returns.queued);
                    returns.queued -= counted;
                    state.release(counted);
                    Poll::Ready(Some(message))
                }
                None if ended => Poll::Ready(None),
                None => {
                    returns.waiting.wait(place, cx);
                    Poll::Pending
                }
            }
        })
    }
}

impl Drop for Returns {
    fn drop(&mut self) {
        self.channel.shared().take(|state| {
            let Some(channel) = state.channel_mut(self.channel.id) else {
                return;
            };
            let Some(returns) = &mut channel.returns else {
                return;
            };
            returns.waiting.leave(&mut self.place);
            returns.listeners -= 1;
            if returns.listeners > 0 {
                return;
            }
            let counted = returns.queued;
            channel.returns = None;
            state.release(counted);
        });
    }
}
