//! The side that answers.

use std::{
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use amqp_core::{Requeue, client::Prefetch, protocol::basic};
use futures_core::Stream as _;

use super::{
    error::HandlerError,
    reply::{Address, Reply},
    running::Running,
};
use crate::{
    acker::Acker,
    base_channel::BaseChannel,
    channel::Channel,
    consumer::{ConsumeOptions, Consumer, Delivery, ManualAck, Message},
    error::Error,
};

/// Consumes requests, runs a handler for each, and publishes the replies.
///
/// A request is acknowledged after its reply was accepted into the output buffer, on the same
/// channel: the broker has the reply before the acknowledgement. If the server is lost before that,
/// the request comes again, to another one perhaps, and is [redelivered](basic::Deliver): handlers run
/// at least once.
///
/// A request without `reply-to` gets no reply. If its handler fails, it is rejected, and dead-lettered
/// if its queue has a dead-letter exchange.
#[derive(Debug)]
pub struct Server {
    channel: Channel,
    consumer: Consumer<ManualAck>,
    limit: usize,
}

impl Server {
    /// Starts a consumer of requests, of which at most `limit` are handled at a time. It is its
    /// prefetch too, so that no request waits here while another server is idle; 0 counts as 1.
    ///
    /// # Cancel safety
    /// Dropping it cancels the consumer.
    ///
    /// # Errors
    /// As [`BaseChannel::consume`].
    pub async fn open(
        channel: Channel,
        consume: basic::Consume,
        limit: u16,
    ) -> Result<Self, Error> {
        let limit = limit.max(1);
        let options = ConsumeOptions::default().prefetch(Prefetch::Count(limit));
        let consumer = channel.consume_with(consume, options).await?;
        Ok(Self {
            channel,
            consumer,
            limit: limit.into(),
        })
    }

    /// Runs `handler` for each request, until the consumer ends.
    ///
    /// A [`HandlerError`] is sent to the caller, and so is a panic of the handler, as
    /// [`HandlerError::INTERNAL`]; the server goes on.
    ///
    /// # Cancel safety
    /// Dropping it drops the handlers that run. Their requests come again.
    ///
    /// # Errors
    /// The reason for the end of the consumer: the server has cancelled it, or the channel or the
    /// connection has ended.
    pub async fn serve<H, F>(self, handler: H) -> Result<(), Error>
    where
        H: FnMut(Message) -> F,
        F: Future<Output = Result<Reply, HandlerError>>,
    {
        self.serve_until(pending(), handler).await
    }

    /// As [`serve`](Self::serve), until `stop` is ready. Then the consumer is cancelled, and the
    /// requests that were delivered are answered.
    ///
    /// # Cancel safety
    /// As [`serve`](Self::serve).
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub async fn serve_until<H, F>(
        self,
        stop: impl Future<Output = ()>,
        mut handler: H,
    ) -> Result<(), Error>
    where
        H: FnMut(Message) -> F,
        F: Future<Output = Result<Reply, HandlerError>>,
    {
        let Self {
            channel,
            mut consumer,
            limit,
        } = self;
        let mut running = Running::new();
        let mut handle = |delivery| {
            let Delivery { message, acker } = delivery;
            // Without properties that can be read there is no address.
            let address = message.properties().ok().and_then(Address::of);
            // Unwind safe: a call that panics leaves nothing, and its caller gets an error.
            let handling = catch_unwind(AssertUnwindSafe(|| handler(message)));
            respond(channel.clone(), acker, address, handling.ok())
        };
        let mut stop = pin!(stop);
        let stopped = poll_fn(|cx| {
            if stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            poll_requests(&mut consumer, &mut running, limit, &mut handle, cx).map(Some)
        });
        if let Some(ended) = stopped.await {
            return ended;
        }
        {
            let mut cancelling = pin!(consumer.cancel());
            poll_fn(|cx| {
                let _all = running.poll(cx);
                cancelling.as_mut().poll(cx)
            })
            .await?;
        }
        poll_fn(|cx| poll_requests(&mut consumer, &mut running, limit, &mut handle, cx)).await
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &BaseChannel {
        &self.channel
    }
}

/// Runs handlers, and begins those of further requests. Ready when the consumer and all handlers
/// have ended.
fn poll_requests<F: Future<Output = ()>>(
    consumer: &mut Consumer<ManualAck>,
    running: &mut Running<F>,
    limit: usize,
    handle: &mut impl FnMut(Delivery) -> F,
    cx: &mut Context<'_>,
) -> Poll<Result<(), Error>> {
    loop {
        let idle = running.poll(cx);
        if running.len() >= limit {
            return Poll::Pending;
        }
        match Pin::new(&mut *consumer).poll_next(cx) {
            Poll::Ready(Some(Ok(delivery))) => running.add(handle(delivery)),
            // The handlers that run cannot reply.
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
            Poll::Ready(None) => return idle.map(Ok),
            Poll::Pending => return Poll::Pending,
        }
    }
}

/// Handles a request, replies and acknowledges.
///
/// A reply that the channel does not take ends the consumer too, which says why; the broker then has
/// the request again.
async fn respond<F: Future<Output = Result<Reply, HandlerError>>>(
    channel: Channel,
    acker: Acker,
    address: Option<Address>,
    handling: Option<F>,
) {
    let result = match handling {
        Some(future) => catch_panic(future).await,
        None => Err(panicked()),
    };
    let Some(address) = address else {
        let _closed = match result {
            Ok(_) => acker.ack(),
            Err(_) => acker.reject(Requeue::No),
        };
        return;
    };
    let reply = result.unwrap_or_else(Reply::from);
    let mut sent = send(&channel, &address, reply).await;
    if let Err(Error::Misuse(misuse)) = sent {
        let error = HandlerError::new(
            HandlerError::INTERNAL,
            format!("the reply is invalid: {misuse}"),
        );
        sent = send(&channel, &address, error.into()).await;
    }
    settle(acker, sent.is_ok());
}

async fn send(channel: &Channel, address: &Address, reply: Reply) -> Result<(), Error> {
    let properties = address.stamp(reply.properties);
    let publish = address.publish();
    channel.publish(publish, &properties, reply.body).await
}

fn settle(acker: Acker, is_answered: bool) {
    // Fails only on a channel that has ended: the broker has the request again.
    let _closed = match is_answered {
        true => acker.ack(),
        false => acker.nack(Requeue::Yes),
    };
}

/// The result of a handler, or an error if it panics. The panic hook has reported it.
async fn catch_panic<F: Future<Output = Result<Reply, HandlerError>>>(
    future: F,
) -> Result<Reply, HandlerError> {
    let mut future = pin!(future);
    poll_fn(|cx| {
        // Unwind safe: the future is not polled again.
        let polled = catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx)));
        polled.unwrap_or_else(|_panic| Poll::Ready(Err(panicked())))
    })
    .await
}

fn panicked() -> HandlerError {
    HandlerError::new(HandlerError::INTERNAL, "the handler panicked")
}
