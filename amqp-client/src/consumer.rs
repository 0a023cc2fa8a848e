//! Consumers and their deliveries.

use std::{
    collections::VecDeque,
    future::poll_fn,
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_core::{
    Body, ConsumerId, DeliveryTag, EncodedProperties, Requeue, Tags, client,
    protocol::{basic, basic::Properties},
    wire::ShortStr,
};
use futures_core::Stream;

use crate::{
    channel::{Inner, command_on},
    error::Error,
    shared::Wait,
    state::ConsumerEnd,
    waiters::keep,
};

/// How a consumer's messages are acknowledged.
pub trait Acks: sealed::Sealed + Unpin {
    /// The `no-ack` argument of `basic.consume`.
    const NO_ACK: bool;
}

/// Each message is acknowledged: the consumer yields [`Delivery`]s.
#[derive(Debug)]
pub enum ManualAck {}

/// Messages count as acknowledged when they are sent: the consumer yields [`Message`]s.
#[derive(Debug)]
pub enum NoAck {}

impl Acks for ManualAck {
    const NO_ACK: bool = false;
}

impl Acks for NoAck {
    const NO_ACK: bool = true;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::ManualAck {}
    impl Sealed for super::NoAck {}
}

/// The messages of a queue, as they are delivered.
///
/// It is a [`Stream`], and has [`next`](Self::next) for those who need no more. It ends after an
/// error that tells why: the server cancelled it, or the channel or the connection ended. It ends
/// without an error after [`cancel`](Self::cancel), or when the connection was closed by its own
/// handle.
///
/// Dropping it cancels the consumer and puts back what it has not yielded.
#[derive(Debug)]
pub struct Consumer<A: Acks> {
    channel: Arc<Inner>,
    id: ConsumerId,
    tag: ShortStr,
    /// A batch that was taken from under the lock, to be yielded one by one.
    batch: VecDeque<client::Delivery>,
    /// Its cancel was sent: its tag may be another consumer's by now.
    cancelling: bool,
    /// Its end was told.
    done: bool,
    acks: PhantomData<A>,
}

impl<A: Acks> Consumer<A> {
    pub(crate) fn new(channel: Arc<Inner>, id: ConsumerId, tag: ShortStr) -> Self {
        Self {
            channel,
            id,
            tag,
            batch: VecDeque::new(),
            cancelling: false,
            done: false,
            acks: PhantomData,
        }
    }

    /// The consumer tag.
    #[must_use]
    pub const fn tag(&self) -> &ShortStr {
        &self.tag
    }

    /// Cancels the consumer. What was delivered before the server took notice is still yielded,
    /// then the stream ends. When the server does not answer in time the stream ends as well, and
    /// what is delivered after that is put back. The tag is free for another consumer at once.
    ///
    /// # Cancel safety
    /// Once polled, the consumer is being cancelled, and dropping it only drops the wait. Called
    /// again, it waits on.
    ///
    /// # Errors
    /// When the channel or the connection is or gets closed. A consumer that has ended already is
    /// no error.
    pub async fn cancel(&mut self) -> Result<(), Error> {
        if self.cancelling {
            return poll_fn(|cx| self.poll_cancelled(cx)).await;
        }
        let shared = self.channel.shared();
        let wait = shared.command(|state| {
            let ended = state
                .consumer_mut(self.channel.id, self.id)
                .is_none_or(|consumer| consumer.end.is_some());
            if ended {
                return Ok(None);
            }
            let cancel = basic::Cancel {
                consumer_tag: self.tag.clone(),
                no_wait: false,
            };
            let request = state.commands(self.channel.id)?.call(&cancel)?;
            let wait = Wait::new(shared, state, Some(self.channel.id), request);
            state.expect_cancel(request, self.channel.id, self.id);
            self.cancelling = true;
            Ok::<_, Error>(Some(wait))
        })?;
        if let Some(wait) = wait {
            wait.reply::<basic::CancelOk>().await?;
        }
        Ok(())
    }

    /// Ready when a cancel that was sent before has its outcome.
    fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.channel.shared().command(|state| {
            let Some(consumer) = state.consumer_mut(self.channel.id, self.id) else {
                return Poll::Ready(Ok(()));
            };
            match &consumer.end {
                None => {
                    keep(&mut consumer.waker, cx);
                    Poll::Pending
                }
                Some(
                    ConsumerEnd::Cancelled | ConsumerEnd::Error(Error::ConsumerCancelled { .. }),
                ) => Poll::Ready(Ok(())),
                Some(ConsumerEnd::CancelTimedOut) => Poll::Ready(Err(Error::TimedOut)),
                Some(ConsumerEnd::Error(error)) => Poll::Ready(Err(error.clone())),
            }
        })
    }

    fn poll_message(&mut self, cx: &Context<'_>) -> Poll<Option<Result<client::Delivery, Error>>> {
        if let Some(message) = self.batch.pop_front() {
            if self.batch.is_empty() {
                let (channel, id) = (self.channel.id, self.id);
                let shared = self.channel.shared();
                shared.take(|state| state.finish_batch(channel, id));
            }
            return Poll::Ready(Some(Ok(message)));
        }
        if self.done {
            return Poll::Ready(None);
        }
        let end = self.channel.shared().take(|state| {
            state.take_batch(self.channel.id, self.id, &mut self.batch);
            let Some(consumer) = state.consumer_mut(self.channel.id, self.id) else {
                return Poll::Ready(None);
            };
            match &consumer.end {
                _ if !self.batch.is_empty() => Poll::Ready(None),
                Some(end) => Poll::Ready(Some(end.clone())),
                None => {
                    keep(&mut consumer.waker, cx);
                    Poll::Pending
                }
            }
        });
        if let Some(message) = self.batch.pop_front() {
            return Poll::Ready(Some(Ok(message)));
        }
        match end {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(ConsumerEnd::Error(error))) if !is_clean(&error) => {
                self.done = true;
                Poll::Ready(Some(Err(error)))
            }
            Poll::Ready(end) => {
                self.done = true;
                if let Some(ConsumerEnd::CancelTimedOut) = end {
                    let shared = self.channel.shared();
                    shared.command(|state| {
                        state.desert_consumer(self.channel.id, self.id, &self.tag)
                    });
                }
                Poll::Ready(None)
            }
        }
    }
}

/// Whether a consumer ended because its own side closed what it is on.
fn is_clean(error: &Error) -> bool {
    match error {
        Error::ChannelClosed(reason) | Error::ConnectionClosed(reason) => reason.is_clean(),
        Error::Misuse(_) | Error::TimedOut | Error::ConsumerCancelled { .. } => false,
    }
}

impl Consumer<ManualAck> {
    /// The next delivery; none when the consumer has ended.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    ///
    /// # Errors
    /// Why the consumer ended: this comes once, and none after it.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Consumer<NoAck> {
    /// The next message; none when the consumer has ended.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    ///
    /// # Errors
    /// Why the consumer ended: this comes once, and none after it.
    pub async fn next(&mut self) -> Option<Result<Message, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Consumer<ManualAck> {
    type Item = Result<Delivery, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = std::task::ready!(self.poll_message(cx));
        Poll::Ready(message.map(|message| {
            let message = message?;
            // What has no tag was not asked for by this consumer.
            let tag = message.tag.ok_or(Error::TimedOut)?;
            Ok(Delivery {
                message: message.into(),
                acker: Acker::new(Arc::clone(&self.channel), tag),
            })
        }))
    }
}

impl Stream for Consumer<NoAck> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let message = std::task::ready!(self.poll_message(cx));
        Poll::Ready(message.map(|message| message.map(Into::into)))
    }
}

impl<A: Acks> Drop for Consumer<A> {
    fn drop(&mut self) {
        let local = self.batch.drain(..);
        self.channel.shared().command(|state| {
            state.drop_consumer(self.channel.id, self.id, &self.tag, local);
        });
    }
}

/// A message that was delivered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// Where it comes from: exchange, routing key, consumer tag, whether it was delivered before.
    pub method: basic::Deliver,
    /// Its properties, as they stand on the wire.
    pub encoded_properties: EncodedProperties,
    /// Its body.
    pub body: Body,
}

impl Message {
    /// The message's properties. Decodes them each time.
    #[must_use]
    pub fn properties(&self) -> Properties {
        self.encoded_properties.decode()
    }
}

impl From<client::Delivery> for Message {
    fn from(delivery: client::Delivery) -> Self {
        Self {
            method: delivery.method,
            encoded_properties: delivery.content.properties,
            body: delivery.content.body,
        }
    }
}

/// A message that is to be acknowledged. It can be used as the [`Message`] that it holds.
///
/// Dropping it without an acknowledgement leaves it outstanding: the server keeps it, and delivers
/// it again when the channel ends.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "dropped without an acknowledgement, it stays outstanding until the channel ends"]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// What to acknowledge it with.
    pub acker: Acker,
}

impl Delivery {
    /// Acknowledges it; see [`Acker::ack`].
    ///
    /// # Errors
    /// When the channel is closed, so that the server has taken the message back.
    pub fn ack(self) -> Result<(), Error> {
        self.acker.ack()
    }

    /// Refuses it; see [`Acker::nack`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(self, requeue: Requeue) -> Result<(), Error> {
        self.acker.nack(requeue)
    }

    /// Refuses it; see [`Acker::reject`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: Requeue) -> Result<(), Error> {
        self.acker.reject(requeue)
    }
}

impl Deref for Delivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.message
    }
}

/// The right to acknowledge one delivery, once.
///
/// It belongs to the channel that the delivery came on. When that has ended, the server has taken
/// the message back, and acknowledging it is an error that reaches no other channel.
#[derive(Debug)]
#[must_use = "dropped unused, the delivery stays outstanding until the channel ends"]
pub struct Acker {
    channel: Arc<Inner>,
    tag: DeliveryTag,
}

impl Acker {
    pub(crate) const fn new(channel: Arc<Inner>, tag: DeliveryTag) -> Self {
        Self { channel, tag }
    }

    /// The delivery's number on its channel.
    #[must_use]
    pub const fn tag(&self) -> DeliveryTag {
        self.tag
    }

    /// Acknowledges the delivery. It returns when the acknowledgement is accepted into the output
    /// buffer.
    ///
    /// # Errors
    /// When the channel is closed, so that the server has taken the message back.
    pub fn ack(self) -> Result<(), Error> {
        command_on(&self.channel, |channel| channel.ack(Tags::One(self.tag)))
    }

    /// Acknowledges the delivery and all outstanding ones before it on the channel, of whatever
    /// consumer.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn ack_up_to(self) -> Result<(), Error> {
        command_on(&self.channel, |channel| channel.ack(Tags::UpTo(self.tag)))
    }

    /// Refuses the delivery. RabbitMQ's extension.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(self, requeue: Requeue) -> Result<(), Error> {
        command_on(&self.channel, |channel| {
            channel.nack(Tags::One(self.tag), requeue)
        })
    }

    /// Refuses the delivery.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: Requeue) -> Result<(), Error> {
        command_on(&self.channel, |channel| channel.reject(self.tag, requeue))
    }
}
