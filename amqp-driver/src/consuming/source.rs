//! The origin of the deliveries of a loop.

use std::{
    future::Future,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, ready},
};

use futures_core::Stream as _;

use super::{claim::Claim, credit::GroupCredit, group::ConsumerGroup};
use crate::{
    base_channel::{BaseChannel, Inner},
    consumer::{Consumer, Delivery, ManualAck, Message},
    error::Error,
};

/// One consumer, or a group of them, on one channel.
pub(super) trait Source {
    /// Ready with the next delivery, with the reason for the end, once, or with `None` afterwards.
    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arrival, Error>>>;

    /// Sends the cancel: the source ends when it is answered.
    fn begin_cancel(&mut self, cx: &mut Context<'_>);

    fn channel(&self) -> BaseChannel;
}

/// A delivery that no body has got yet.
pub(super) struct Arrival {
    pub(super) message: Message,
    pub(super) claim: Claim,
}

impl Arrival {
    pub(super) fn new(delivery: Delivery, credit: Option<GroupCredit>) -> Self {
        Self {
            message: delivery.message,
            claim: Claim::new(delivery.acker, credit),
        }
    }
}

impl Source for Consumer<ManualAck> {
    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arrival, Error>>> {
        let next = ready!(poll_uninterrupted(self, cx));
        Poll::Ready(next.map(|next| next.map(|delivery| Arrival::new(delivery, None))))
    }

    fn begin_cancel(&mut self, cx: &mut Context<'_>) {
        begin_cancel(self, cx);
    }

    fn channel(&self) -> BaseChannel {
        channel_of(Self::channel(self))
    }
}

impl Source for ConsumerGroup {
    fn poll_delivery(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Arrival, Error>>> {
        let next = ready!(Pin::new(self).poll_next(cx));
        Poll::Ready(next.map(|next| {
            next.map(|delivery| {
                let (delivery, credit) = delivery.into_parts();
                Arrival::new(delivery, Some(credit))
            })
        }))
    }

    fn begin_cancel(&mut self, cx: &mut Context<'_>) {
        Self::begin_cancel(self, cx);
    }

    fn channel(&self) -> BaseChannel {
        Self::channel(self).clone()
    }
}

/// Ready with the next delivery or the end of a consumer. Skips interruptions, which do not end it.
pub(super) fn poll_uninterrupted(
    consumer: &mut Consumer<ManualAck>,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Delivery, Error>>> {
    loop {
        match ready!(Pin::new(&mut *consumer).poll_next(cx)) {
            Some(Err(Error::Interrupted(_))) => {}
            next => return Poll::Ready(next),
        }
    }
}

/// Polls a consumer's cancel once, which sends it. The stream then ends with the answer, or the
/// reason why there is none.
pub(super) fn begin_cancel(consumer: &mut Consumer<ManualAck>, cx: &mut Context<'_>) {
    let _sent = pin!(consumer.cancel()).poll(cx);
}

fn channel_of(inner: &Arc<Inner>) -> BaseChannel {
    BaseChannel::from_inner(Arc::clone(inner))
}
