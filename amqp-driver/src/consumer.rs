//! Consumers and their deliveries.

use std::{
    collections::VecDeque,
    future::poll_fn,
    marker::PhantomData,
    ops::Deref,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll, ready},
};

use amqp_core::{
    ApiMisuse, Body, ConsumerId, DeliveryTag, EncodedProperties, Requeue, Tags, TimeoutReason,
    client::{self, Prefetch},
    protocol::{basic, basic::Properties},
    wire::{DecodeError, ShortStr},
};
use futures_core::Stream;

use crate::{
    base_channel::{Inner, command_on},
    error::Error,
    session::{budget::Budget, deliveries::ConsumerEnd, later::register, shared::Wait},
};

/// How many messages give their room back together, so that the lock is taken once for them.
const TOGETHER: u32 = 32;

/// How a consumer is started, beside the arguments of `basic.consume`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConsumeOptions {
    /// How many messages may be unacknowledged at a time. Default none: that of
    /// [`Config::prefetch`](crate::Config), or the last `basic.qos` of the channel.
    pub prefetch: Option<Prefetch>,
    /// What becomes of a delivery that is dropped without an acknowledgement. Default
    /// [`OnDrop::Leave`].
    pub on_drop: OnDrop,
}

impl ConsumeOptions {
    /// Sets [`prefetch`](Self::prefetch).
    #[must_use]
    pub const fn prefetch(mut self, prefetch: Prefetch) -> Self {
        self.prefetch = Some(prefetch);
        self
    }

    /// Sets [`on_drop`](Self::on_drop).
    #[must_use]
    pub const fn on_drop(mut self, on_drop: OnDrop) -> Self {
        self.on_drop = on_drop;
        self
    }
}

/// What becomes of a delivery that is dropped without an acknowledgement, as on an error path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnDrop {
    /// It stays unacknowledged until the channel ends, and counts towards the prefetch.
    #[default]
    Leave,
    /// It is requeued, and delivered again.
    Requeue,
    /// It is rejected: dead-lettered where the queue says so, otherwise dropped by the server.
    Reject,
}

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
/// Dropping it cancels the consumer and puts back what it has not yielded, which a quorum queue may
/// count towards the delivery limit of each message: see [`consume`](crate::BaseChannel::consume).
#[derive(Debug)]
pub struct Consumer<A: Acks> {
    channel: Arc<Inner>,
    id: ConsumerId,
    tag: ShortStr,
    /// Messages that were taken from under the lock, to be yielded one by one.
    batch: VecDeque<client::Delivery>,
    /// Bytes that were yielded and not yet given back.
    yielded: usize,
    budget: Budget,
    /// Counts the messages that were yielded.
    progress: Arc<AtomicU32>,
    /// What `Inner::recovered` was when the batch was taken.
    recovered: u32,
    on_drop: OnDrop,
    /// The cancel was sent: the tag may be another consumer's.
    cancelling: bool,
    /// The end was told.
    done: bool,
    acks: PhantomData<A>,
}

impl<A: Acks> Consumer<A> {
    pub(crate) fn new(
        channel: Arc<Inner>,
        id: ConsumerId,
        tag: ShortStr,
        on_drop: OnDrop,
        progress: Arc<AtomicU32>,
    ) -> Self {
        Self {
            recovered: channel.recovered(),
            channel,
            id,
            tag,
            batch: VecDeque::new(),
            yielded: 0,
            budget: Budget::default(),
            progress,
            on_drop,
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

    /// The number of messages that this consumer did not get, because they were over a limit of this
    /// side: [`Limits::header`](amqp_core::Limits). They were rejected without requeue, so that they
    /// are dead-lettered where the queue says so; without acknowledgements they are lost.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        let mut state = self.channel.shared().lock();
        let consumer = state.consumer_mut(self.channel.id, self.id);
        consumer.map_or(0, |consumer| consumer.unreadable)
    }

    /// Cancels the consumer. What was delivered before the server took notice is still yielded,
    /// then the stream ends. When the server does not answer in time the stream ends as well, and
    /// what is delivered after that is requeued. The tag
    /// is free for another consumer at once.
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
        let waker = cx.waker().clone();
        self.channel.shared().with(|state, later| {
            let Some(consumer) = state.consumer_mut(self.channel.id, self.id) else {
                later.drop_waker(Some(waker));
                return Poll::Ready(Ok(()));
            };
            let Some(end) = &consumer.end else {
                register(&mut consumer.waker, waker, later);
                return Poll::Pending;
            };
            later.drop_waker(Some(waker));
            Poll::Ready(match end {
                ConsumerEnd::Cancelled | ConsumerEnd::Error(Error::ConsumerCancelled { .. }) => {
                    Ok(())
                }
                ConsumerEnd::CancelTimedOut => Err(Error::TimedOut(TimeoutReason::Request)),
                ConsumerEnd::Error(error) => Err(error.clone()),
            })
        })
    }

    /// Ready, with nothing, when a message is in the batch; otherwise with the end.
    #[inline]
    fn poll_message(&mut self, cx: &Context<'_>) -> Poll<Option<Result<(), Error>>> {
        if self.recovered != self.channel.recovered() {
            self.drop_stale();
        }
        let shared = self.channel.shared();
        if self.budget.poll_proceed(shared, cx).is_pending() {
            self.give_back();
            return Poll::Pending;
        }
        if self.batch.is_empty() {
            return self.poll_more(cx);
        }
        Poll::Ready(None)
    }

    /// Takes a message out of the batch.
    #[inline]
    fn pop(&mut self) -> Option<client::Delivery> {
        let message = self.batch.pop_front()?;
        // Only this handle writes it.
        let count = self.progress.load(Ordering::Relaxed).wrapping_add(1);
        self.progress.store(count, Ordering::Relaxed);
        self.yielded += message.memory();
        if self.batch.is_empty() || count.is_multiple_of(TOGETHER) {
            self.give_back();
        }
        Some(message)
    }

    /// Fills the empty batch, or says how the consumer has ended.
    fn poll_more(&mut self, cx: &Context<'_>) -> Poll<Option<Result<(), Error>>> {
        if self.done {
            return Poll::Ready(Some(Ok(())));
        }
        let mut end = self.poll_batch(None);
        if end.is_pending() {
            end = self.poll_batch(Some(cx.waker().clone()));
        }
        let end = ready!(end);
        if !self.batch.is_empty() {
            return Poll::Ready(None);
        }
        self.done = true;
        Poll::Ready(Some(match end {
            Some(ConsumerEnd::Error(error)) if !is_clean(&error) => Err(error),
            end => {
                if let Some(ConsumerEnd::CancelTimedOut) = end {
                    let shared = self.channel.shared();
                    shared.command(|state| state.desert_consumer(self.channel.id, self.id));
                }
                Ok(())
            }
        }))
    }

    /// Takes the next batch, or says why there will be none. Pending, with the waker stored, if there
    /// is none yet.
    fn poll_batch(&mut self, waker: Option<std::task::Waker>) -> Poll<Option<ConsumerEnd>> {
        let (channel, id) = (self.channel.id, self.id);
        let (batch, yielded) = (&mut self.batch, std::mem::take(&mut self.yielded));
        let (inner, recovered) = (&self.channel, &mut self.recovered);
        let polled = self.channel.shared().with(|state, later| {
            if yielded > 0 {
                state.release_taken(channel, id, yielded, later);
            }
            state.take_batch(channel, id, batch);
            *recovered = inner.recovered();
            let Some(consumer) = state.consumer_mut(channel, id) else {
                return Poll::Ready(None);
            };
            match &consumer.end {
                _ if !batch.is_empty() => Poll::Ready(None),
                Some(end) => Poll::Ready(Some(end.clone())),
                None => {
                    if let Some(waker) = waker {
                        register(&mut consumer.waker, waker, later);
                    }
                    Poll::Pending
                }
            }
        });
        if polled.is_pending() {
            self.budget.renew();
        }
        polled
    }

    /// Gives back the room of what was yielded.
    fn give_back(&mut self) {
        let yielded = std::mem::take(&mut self.yielded);
        if yielded > 0 {
            let (channel, id) = (self.channel.id, self.id);
            self.channel
                .shared()
                .with(|state, later| state.release_taken(channel, id, yielded, later));
        }
    }

    /// Drops what the server has taken back with `basic.recover`, and delivers again.
    fn drop_stale(&mut self) {
        self.recovered = self.channel.recovered();
        self.batch.retain(|message| {
            let stale = message.tag.is_some();
            if stale {
                self.yielded += message.memory();
            }
            !stale
        });
        self.give_back();
    }
}

/// Whether a consumer ended because its own side closed what it is on.
fn is_clean(error: &Error) -> bool {
    match error {
        Error::ChannelClosed(reason) | Error::ConnectionClosed(reason) => reason.is_clean(),
        _ => false,
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
        if let Some(end) = ready!(self.poll_message(cx)) {
            return Poll::Ready(end.err().map(Err));
        }
        let Some(message) = self.pop() else {
            return Poll::Ready(None);
        };
        let Some(tag) = message.tag else {
            return Poll::Ready(Some(Err(Error::Internal("a delivery without a tag"))));
        };
        let acker = Acker::new(Arc::clone(&self.channel), tag, self.on_drop);
        Poll::Ready(Some(Ok(Delivery {
            message: message.into(),
            acker,
        })))
    }
}

impl Stream for Consumer<NoAck> {
    type Item = Result<Message, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(end) = ready!(self.poll_message(cx)) {
            return Poll::Ready(end.err().map(Err));
        }
        Poll::Ready(self.pop().map(|message| Ok(message.into())))
    }
}

impl<A: Acks> Drop for Consumer<A> {
    fn drop(&mut self) {
        if self.recovered != self.channel.recovered() {
            self.drop_stale();
        }
        let batch = self.batch.drain(..);
        self.channel.shared().with(|state, later| {
            state.release_consumer(self.channel.id, self.id, batch, later);
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
    ///
    /// # Errors
    /// When they cannot be read: a server passes on what a publisher sent without looking at all of
    /// it. The message can be acknowledged or rejected as any other.
    pub fn properties(&self) -> Result<Properties, DecodeError> {
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
/// Dropped without an acknowledgement, it is dealt with by the consumer's [`OnDrop`]: left outstanding
/// until the channel ends, unless told otherwise.
#[derive(Debug)]
#[must_use = "dropped without an acknowledgement, it stays outstanding until the channel ends"]
#[non_exhaustive]
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
    /// What a drop does: `Leave` once it was used.
    on_drop: OnDrop,
}

impl Acker {
    pub(crate) const fn new(channel: Arc<Inner>, tag: DeliveryTag, on_drop: OnDrop) -> Self {
        Self {
            channel,
            tag,
            on_drop,
        }
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
        self.settle(|channel, tag| channel.ack(Tags::One(tag)))
    }

    /// Acknowledges the delivery and all outstanding ones before it on the channel, of whatever
    /// consumer.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn ack_up_to(self) -> Result<(), Error> {
        self.settle(|channel, tag| channel.ack(Tags::UpTo(tag)))
    }

    /// Refuses the delivery. RabbitMQ's extension.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(self, requeue: Requeue) -> Result<(), Error> {
        self.settle(|channel, tag| channel.nack(Tags::One(tag), requeue))
    }

    /// Refuses the delivery.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: Requeue) -> Result<(), Error> {
        self.settle(|channel, tag| channel.reject(tag, requeue))
    }

    /// Leaves the delivery outstanding, whatever the consumer's [`OnDrop`] says: it is to be
    /// acknowledged by its tag, with [`BaseChannel::ack`](crate::BaseChannel::ack).
    pub fn leave(mut self) {
        self.on_drop = OnDrop::Leave;
    }

    fn settle(
        mut self,
        command: impl FnOnce(&mut client::ChannelMut<'_>, DeliveryTag) -> Result<(), ApiMisuse>,
    ) -> Result<(), Error> {
        self.on_drop = OnDrop::Leave;
        command_on(&self.channel, |channel| command(channel, self.tag))
    }
}

impl Drop for Acker {
    fn drop(&mut self) {
        let requeue = match self.on_drop {
            OnDrop::Leave => return,
            OnDrop::Requeue => Requeue::Yes,
            OnDrop::Reject => Requeue::No,
        };
        // Refused only on a channel that has ended, whose deliveries are requeued.
        let _closed = command_on(&self.channel, |channel| channel.reject(self.tag, requeue));
    }
}
