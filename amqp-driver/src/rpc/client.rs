//! The side that calls.

use std::{
    fmt,
    future::{Future as _, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use amqp_core::{
    CloseCause, TimeoutReason,
    protocol::{basic, queue},
    recovery::RecoveryEvent,
    wire::ShortStr,
};
use futures_core::Stream as _;

use super::{calls::Calls, error::RpcError};
use crate::{
    background::Background,
    base_channel::BaseChannel,
    channel::Channel,
    confirm::{Confirm, ConfirmChannel},
    consume_options::ConsumeOptions,
    consumer::{Consumer, Message, NoAck},
    error::Error,
    publishing::{OutgoingMessage, Window},
    unconfirmed::Unconfirmed,
};

/// The pseudo-queue of direct reply-to (<https://www.rabbitmq.com/docs/direct-reply-to>).
const DIRECT: ShortStr = ShortStr::from_static("amq.rabbitmq.reply-to").unwrap();

/// The longest expiration of a request. RabbitMQ refuses one beyond ten years
/// (<https://www.rabbitmq.com/docs/ttl>).
const EXPIRATION_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The options of a [`Client`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClientOptions {
    /// The calls in flight. Others wait, within their timeout.
    pub window: Window,
    /// The beginning of each `correlation-id`, before a number. Default empty. Clients that share a
    /// reply queue, one after the other over restarts too, need one of their own.
    pub prefix: ShortStr,
}

impl ClientOptions {
    /// Sets [`window`](Self::window).
    #[must_use]
    pub const fn window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// Sets [`prefix`](Self::prefix). The id has room for 235 bytes of it.
    #[must_use]
    pub fn prefix(mut self, prefix: ShortStr) -> Self {
        self.prefix = prefix;
        self
    }
}

/// Publishes requests, and matches the replies to them by their `correlation-id`. One consumer
/// receives the replies of all calls.
///
/// Clones share the channel, the consumer and the window. Dropping the last cancels the consumer.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    channel: ConfirmChannel,
    calls: Arc<Calls>,
    /// Takes the replies.
    _replies: Background,
}

impl Client {
    /// Creates a client that gets its replies by [direct
    /// reply-to](https://www.rabbitmq.com/docs/direct-reply-to): there is no reply queue, and a
    /// reply that arrives after the end of the channel is lost.
    ///
    /// # Cancel safety
    /// Dropping it closes the channel.
    ///
    /// # Errors
    /// As [`Channel::confirm_select`] and [`BaseChannel::consume_no_ack`].
    pub async fn direct(channel: Channel, options: ClientOptions) -> Result<Self, Error> {
        let channel = channel.confirm_select().await?;
        Self::open(channel, DIRECT, options).await
    }

    /// Creates a client that gets its replies over a queue, which is declared. An exclusive queue with a
    /// name from the server follows its new name when the connection recovers.
    ///
    /// # Cancel safety
    /// Dropping it closes the channel.
    ///
    /// # Errors
    /// As [`Channel::confirm_select`], [`BaseChannel::call`] and [`BaseChannel::consume_no_ack`].
    pub async fn over_queue(
        channel: Channel,
        queue: queue::Declare,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let channel = channel.confirm_select().await?;
        let declared = channel.call(queue).await?;
        Self::open(channel, declared.queue, options).await
    }

    async fn open(
        channel: ConfirmChannel,
        reply_to: ShortStr,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let longest = format!("{}{}", options.prefix, u64::MAX);
        ShortStr::try_from(longest)?;
        let consume = basic::Consume::default().queue(&reply_to);
        let reporting = ConsumeOptions::default().report_interruptions(true);
        let consumer = channel.start_consumer(consume, reporting).await?;
        let calls = Arc::new(Calls::new(options.window, options.prefix, reply_to));
        let replies = take_replies(consumer, channel.clone(), Arc::clone(&calls));
        Ok(Self(Arc::new(Inner {
            channel,
            calls,
            _replies: Background::start(replies),
        })))
    }

    /// Publishes a request, and waits for its reply.
    ///
    /// The request is made mandatory, and gets a `correlation-id`, `reply-to` and, unless it has one,
    /// the timeout as its `expiration`: a request that is not delivered by then is dropped.
    ///
    /// # Cancel safety
    /// Dropped before the request is accepted into the output buffer, it publishes nothing;
    /// afterwards the request is sent, and its reply counts as late.
    ///
    /// # Errors
    /// [`RpcError::NoServer`] at once if no queue accepts the request, [`RpcError::TimedOut`] after
    /// `timeout`, or [`RpcError::NotSent`] if there was no room for the request by then;
    /// [`RpcError::Remote`] with the error of the handler; [`RpcError::Lost`] and
    /// [`RpcError::NotSent`] when the channel or the connection ends.
    pub async fn call(
        &self,
        request: OutgoingMessage,
        timeout: Duration,
    ) -> Result<Message, RpcError> {
        let mut is_sent = false;
        let connection = self.0.channel.connection();
        let called = connection.within(timeout, self.run(request, timeout, &mut is_sent));
        let called = called.await;
        called.unwrap_or_else(|| Err(self.late(is_sent)))
    }

    /// The error of a call after its timeout. The clock of a connection stops with it.
    fn late(&self, is_sent: bool) -> RpcError {
        let ended = self.0.channel.close_reason().map(Error::of_channel);
        match (ended, is_sent) {
            (Some(error), true) => RpcError::Lost(error),
            (Some(error), false) => RpcError::NotSent(error),
            (None, true) => RpcError::TimedOut,
            (None, false) => RpcError::NotSent(Error::publish_timed_out(self.0.channel.number())),
        }
    }

    async fn run(
        &self,
        request: OutgoingMessage,
        timeout: Duration,
        is_sent: &mut bool,
    ) -> Result<Message, RpcError> {
        let inner = &*self.0;
        let mut entering = inner.calls.enter(request.memory());
        let call = poll_fn(|cx| entering.poll(cx.waker())).await;
        let call = call.map_err(RpcError::NotSent)?;
        let OutgoingMessage {
            publish,
            mut properties,
            body,
            ..
        } = request;
        properties.correlation_id = call.id();
        if properties.expiration.is_none() {
            let expiring = properties.expire_after(timeout.min(EXPIRATION_MAX));
            properties = expiring.map_err(|error| RpcError::NotSent(error.into()))?;
        }
        let publish = publish.mandatory(true);
        let confirm = loop {
            let reply_to = inner.calls.reply_to();
            properties.reply_to = Some(reply_to.clone());
            let mut publishing = pin!(inner.channel.publish(&publish, &properties, body.clone()));
            let published = poll_fn(|cx| {
                // A recovery renames a reply queue before publishing goes on.
                if !inner.calls.is_reply_to(&reply_to) {
                    return Poll::Ready(None);
                }
                publishing.as_mut().poll(cx).map(Some)
            });
            if let Some(published) = published.await {
                break published.map_err(RpcError::NotSent)?;
            }
        };
        *is_sent = true;
        call.set_sent();
        let mut confirm = Some(confirm);
        poll_fn(|cx| {
            // A reply says more than a failed publish, and that more than the end of the consumer.
            let ended = call.poll(cx.waker());
            if ended.is_ready() && !matches!(ended, Poll::Ready(Err(RpcError::Lost(_)))) {
                return ended;
            }
            match poll_failure(&mut confirm, cx) {
                Some(failure) => Poll::Ready(Err(failure)),
                None => ended,
            }
        })
        .await
    }

    /// The number of replies that no call was waiting for, because its time was over or it was
    /// dropped.
    #[must_use]
    pub fn late_replies(&self) -> u64 {
        self.0.calls.late()
    }

    /// The number of calls in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.calls.in_flight()
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &BaseChannel {
        &self.0.channel
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("channel", self.channel())
            .field("reply_to", &self.0.calls.reply_to())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// The reason for which a published request has no reply. A confirm that does not come in time is
/// none: the reply may come.
fn poll_failure(confirm: &mut Option<Confirm>, cx: &mut Context<'_>) -> Option<RpcError> {
    let Poll::Ready(outcome) = Pin::new(confirm.as_mut()?).poll(cx) else {
        return None;
    };
    *confirm = None;
    match outcome {
        Ok(()) | Err(Unconfirmed::PossiblyReturned(_)) => None,
        Err(Unconfirmed::Returned(returned)) => Some(RpcError::NoServer(returned)),
        Err(Unconfirmed::Nacked { .. }) => Some(RpcError::Refused),
        Err(Unconfirmed::NotSent(reason)) => Some(RpcError::NotSent(Error::of_channel(reason))),
        Err(Unconfirmed::Unknown(reason)) => match reason.cause() {
            CloseCause::TimedOut(TimeoutReason::Confirm) => None,
            _ => Some(RpcError::Lost(Error::of_channel(reason))),
        },
    }
}

/// Gives the replies to their calls, until the consumer ends.
async fn take_replies(mut consumer: Consumer<NoAck>, channel: ConfirmChannel, calls: Arc<Calls>) {
    let mut events = channel.connection().recovery_events();
    let mut has_events = true;
    let error = loop {
        let next = poll_fn(|cx| {
            // A new name of the queue precedes the requests that need it.
            while has_events {
                match Pin::new(&mut events).poll_next(cx) {
                    Poll::Ready(Some(change)) => {
                        if let RecoveryEvent::QueueRenamed { from, to } = change.event {
                            calls.rename(&from, to);
                        }
                    }
                    Poll::Ready(None) => has_events = false,
                    Poll::Pending => break,
                }
            }
            Pin::new(&mut consumer).poll_next(cx)
        });
        match next.await {
            Some(Ok(reply)) => calls.on_reply(reply),
            Some(Err(error @ Error::Interrupted(_))) => calls.interrupt(&error),
            Some(Err(error)) => break error,
            // This side has closed the channel or the connection.
            None => {
                let reason = channel.close_reason().map(Error::of_channel);
                break reason.unwrap_or(Error::Internal("the consumer of replies has ended"));
            }
        }
    };
    calls.end(error);
}
