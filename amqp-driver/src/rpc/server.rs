//! The side that answers.

use std::{
    future::{Future, pending, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::{Pin, pin},
    task::{Context, Poll, ready},
};

use amqp_core::{client::Prefetch, protocol::basic};
use futures_core::Stream as _;

use super::{
    error::HandlerError,
    reply::{Address, Reply},
};
use crate::{
    base_channel::BaseChannel,
    channel::Channel,
    consume_options::ConsumeOptions,
    consumer::{Consumer, Delivery, ManualAck, Message},
    consuming::{claim::Claim, running::Running},
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
    /// Dropping it cancels the consumer, drops the handlers that run, and requeues their requests.
    ///
    /// # Errors
    /// The reason for the end of the consumer: the server has cancelled it, or the channel or the
    /// connection has ended. As long as the channel is open, the handlers that run are waited for.
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
            consumer,
            limit,
        } = self;
        let mut requests = Requests {
            channel: &channel,
            consumer,
            running: Running::new(),
            limit,
            ended: None,
        };
        let mut handle = |delivery| {
            let Delivery { message, acker } = delivery;
            let claim = Claim::new(acker, None);
            // Without properties that can be read there is no address.
            let address = message.properties().ok().and_then(Address::of);
            // Unwind safe: a call that panics leaves nothing, and its caller gets an error.
            let handling = catch_unwind(AssertUnwindSafe(|| handler(message)));
            respond(channel.clone(), claim, address, handling.ok())
        };
        let mut stop = pin!(stop);
        let stopped = poll_fn(|cx| {
            if stop.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            requests.poll(&mut handle, cx).map(Some)
        });
        if let Some(ended) = stopped.await {
            return ended;
        }
        let cancelled = requests.cancel().await;
        if cancelled.is_err() && channel.end().is_some() {
            return cancelled;
        }
        let ended = poll_fn(|cx| requests.poll(&mut handle, cx)).await;
        cancelled.and(ended)
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &BaseChannel {
        &self.channel
    }
}

/// The requests of a server, and the handlers that run.
struct Requests<'a, F> {
    channel: &'a Channel,
    /// Dropped first: the requests of the handlers, which are dropped then, are for other consumers.
    consumer: Consumer<ManualAck>,
    running: Running<F>,
    limit: usize,
    /// The end of the consumer. `Some` once there are no more requests.
    ended: Option<Result<(), Error>>,
}

impl<F: Future<Output = ()>> Requests<'_, F> {
    /// Runs handlers, and begins those of further requests. Ready when the consumer and all handlers
    /// have ended, or no reply can be sent any more.
    fn poll(
        &mut self,
        handle: &mut impl FnMut(Delivery) -> F,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Error>> {
        loop {
            while self.running.poll_next(cx).is_ready() {}
            if let Some(ended) = &self.ended {
                let is_over = ended.is_err() && self.channel.end().is_some();
                return if is_over || self.running.len() == 0 {
                    Poll::Ready(ended.clone())
                } else {
                    Poll::Pending
                };
            }
            if self.running.len() >= self.limit {
                return Poll::Pending;
            }
            match ready!(Pin::new(&mut self.consumer).poll_next(cx)) {
                Some(Ok(delivery)) => self.running.push(handle(delivery)),
                Some(Err(error)) => self.ended = Some(Err(error)),
                None => self.ended = Some(Ok(())),
            }
        }
    }

    /// Cancels the consumer, while the handlers run.
    async fn cancel(&mut self) -> Result<(), Error> {
        let Self {
            consumer, running, ..
        } = self;
        let mut cancelling = pin!(consumer.cancel());
        poll_fn(|cx| {
            while running.poll_next(cx).is_ready() {}
            cancelling.as_mut().poll(cx)
        })
        .await
    }
}

/// Handles a request, replies and acknowledges.
///
/// A reply that the channel does not take ends the consumer too, which says why; the broker then has
/// the request again.
async fn respond<F: Future<Output = Result<Reply, HandlerError>>>(
    channel: Channel,
    claim: Claim,
    address: Option<Address>,
    handling: Option<F>,
) {
    let result = match handling {
        Some(future) => catch_panic(future).await,
        None => Err(panicked()),
    };
    let Some(address) = address else {
        let _settled = match result {
            Ok(_) => claim.ack(None),
            Err(_) => claim.reject(),
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
    let _settled = match sent {
        Ok(()) => claim.ack(None),
        Err(_) => claim.requeue(),
    };
}

async fn send(channel: &Channel, address: &Address, reply: Reply) -> Result<(), Error> {
    let properties = address.stamp(reply.properties);
    let publish = address.publish();
    channel.publish(publish, &properties, reply.body).await
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
