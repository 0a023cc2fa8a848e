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
    Body, ConsumerId, EncodedProperties, MethodDef as _, Requeue, client,
    protocol::{basic, basic::Properties},
    wire::{DecodeError, FieldValue, ShortStr},
};
use futures_core::Stream;

use crate::{
    acker::Acker,
    base_channel::{Fetched, Inner},
    consume_options::OnDrop,
    error::Error,
    session::{
        budget::Budget,
        later::register,
        shared::Wait,
        untaken::{ConsumerEnd, Taken},
    },
};

/// The number of yielded messages that release their buffer space together, so that the lock is
/// taken once for them.
const TOGETHER: u32 = 32;

/// The acknowledgement mode of a consumer.
pub trait Acks: sealed::Sealed + Unpin {
    /// The `no-ack` argument of `basic.consume`.
    const NO_ACK: bool;
}

/// Each message is to be acknowledged: the consumer yields [`Delivery`]s.
#[derive(Debug)]
pub enum ManualAck {}

/// The server counts messages as acknowledged when they are sent: the consumer yields [`Message`]s.
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
/// A [`Stream`], with [`next`](Self::next) for use without the stream traits. It ends after an
/// error with the reason: the server [cancelled it](https://www.rabbitmq.com/docs/consumer-cancel),
/// or the channel or the connection ended. It ends without an error after [`cancel`](Self::cancel),
/// or when this side closed the channel or the connection.
///
/// Dropping it cancels the consumer and requeues the deliveries that it has not yielded, which a
/// quorum queue may count towards the delivery limit of each message: see
/// [`consume`](crate::BaseChannel::consume).
///
/// ```no_run
/// use amqp_driver::protocol::basic;
///
/// # async fn example(channel: amqp_driver::Channel) -> Result<(), Box<dyn std::error::Error>> {
/// let mut consumer = channel.consume(basic::Consume::default().queue("tasks")).await?;
/// while let Some(delivery) = consumer.next().await {
///     let delivery = delivery?; // the reason for which the consumer has ended
///     println!("{}: {}", delivery.routing_key(), delivery.body.text()?);
///     delivery.ack()?;
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Consumer<A: Acks> {
    channel: Arc<Inner>,
    id: ConsumerId,
    tag: ShortStr,
    /// Deliveries taken together under one lock, to be yielded one by one.
    batch: VecDeque<client::Delivery>,
    /// Bytes that were yielded and not yet released from the buffer.
    yielded: usize,
    budget: Budget,
    /// The number of messages yielded, wrapping.
    progress: Arc<AtomicU32>,
    /// The value of `Inner::stale` when the batch was taken.
    stale: u32,
    on_drop: OnDrop,
    /// Whether the cancel was sent: the tag may then be another consumer's.
    cancelling: bool,
    /// Whether the end was yielded.
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
            stale: channel.stale(),
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

    pub(crate) const fn channel(&self) -> &Arc<Inner> {
        &self.channel
    }

    /// The consumer tag.
    #[must_use]
    pub const fn tag(&self) -> &ShortStr {
        &self.tag
    }

    /// Whether [`next`](Consumer::next) has a message at hand, taken from the connection with others
    /// before. Without one, the connection may still have some.
    #[must_use]
    pub fn has_next(&self) -> bool {
        !self.batch.is_empty()
    }

    /// The number of messages not delivered to this consumer because they exceeded a limit of this
    /// side: [`Limits::header`](amqp_core::Limits). They were rejected without requeue, and
    /// dead-lettered if the queue has a dead-letter exchange; without acknowledgements they are
    /// lost.
    #[must_use]
    pub fn unreadable(&self) -> u64 {
        let mut state = self.channel.shared().lock();
        let consumer = state.channels.consumer_mut(self.channel.id, self.id);
        consumer.map_or(0, |consumer| consumer.unreadable)
    }

    /// Cancels the consumer. Deliveries that arrive before the server's answer (section 1.8.3.5 of
    /// the protocol reference) are still yielded, then the stream ends. It also ends when the
    /// server does not answer in time; later deliveries are requeued. The tag is free for another
    /// consumer at once.
    ///
    /// # Cancel safety
    /// Once polled, the consumer is being cancelled, and dropping it only drops the wait. Calling
    /// it again resumes the wait.
    ///
    /// # Errors
    /// When the channel or the connection is closed or closes before the answer. A consumer that
    /// has already ended is no error.
    pub async fn cancel(&mut self) -> Result<(), Error> {
        if self.cancelling {
            return poll_fn(|cx| self.poll_cancelled(cx)).await;
        }
        let shared = self.channel.shared();
        let wait = shared.with(|state, later| {
            let ended = state
                .channels
                .consumer_mut(self.channel.id, self.id)
                .is_none_or(|consumer| consumer.end.is_some());
            if ended {
                return Ok(None);
            }
            later.commanded = true;
            state.record_cancel(self.channel.id, &self.tag);
            if state.is_held(Some(self.channel.id)) {
                state.end_held_consumer(self.channel.id, self.id, &self.tag);
                state.end_consumer(self.channel.id, self.id, ConsumerEnd::Cancelled, later);
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

    /// Ready with the outcome of a cancel that was sent before.
    fn poll_cancelled(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let waker = cx.waker().clone();
        self.channel.shared().with(|state, later| {
            let Some(consumer) = state.channels.consumer_mut(self.channel.id, self.id) else {
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
                ConsumerEnd::CancelTimedOut => Err(Error::Unanswered {
                    request: basic::Cancel::ID,
                    channel: Some(self.channel.id.number()),
                }),
                ConsumerEnd::Error(error) => Err(error.clone()),
            })
        })
    }

    /// Ready with `None` when a message is in the batch, and with `Some` at the consumer's end.
    #[inline]
    fn poll_message(&mut self, cx: &Context<'_>) -> Poll<Option<Result<(), Error>>> {
        if self.stale != self.channel.stale() {
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

    /// Removes a message from the batch.
    #[inline]
    fn pop(&mut self) -> Option<client::Delivery> {
        let message = self.batch.pop_front()?;
        // Only this handle writes the counter.
        let count = self.progress.load(Ordering::Relaxed).wrapping_add(1);
        self.progress.store(count, Ordering::Relaxed);
        self.yielded += message.memory();
        if self.batch.is_empty() || count.is_multiple_of(TOGETHER) {
            self.give_back();
        }
        Some(message)
    }

    /// Fills the empty batch. Ready with `Some` at the consumer's end, and at an interruption.
    fn poll_more(&mut self, cx: &Context<'_>) -> Poll<Option<Result<(), Error>>> {
        if self.done {
            return Poll::Ready(Some(Ok(())));
        }
        let mut taken = self.poll_batch(None);
        if taken.is_pending() {
            taken = self.poll_batch(Some(cx.waker().clone()));
        }
        let end = match ready!(taken) {
            Taken::Messages => return Poll::Ready(None),
            Taken::Interrupted(reason) => {
                return Poll::Ready(Some(Err(Error::Interrupted(reason))));
            }
            Taken::Ended(end) => end,
        };
        self.done = true;
        Poll::Ready(Some(match end {
            Some(ConsumerEnd::Error(error)) if !is_clean(&error) => Err(error),
            end => {
                if let Some(ConsumerEnd::CancelTimedOut) = end {
                    let shared = self.channel.shared();
                    shared.command(|state| state.cancel_silently(self.channel.id, self.id));
                }
                Ok(())
            }
        }))
    }

    /// Ready with the consumer's end, if no delivery is to be yielded before it. Skips interruptions.
    pub(crate) fn poll_end(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        if self.stale != self.channel.stale() {
            self.drop_stale();
        }
        while self.batch.is_empty() {
            match ready!(self.poll_more(cx)) {
                None | Some(Err(Error::Interrupted(_))) => {}
                Some(end) => return Poll::Ready(end),
            }
        }
        Poll::Pending
    }

    /// Takes the next batch: ready with it, an interruption or the consumer's end. Pending, with the
    /// waker registered, while there is none of them.
    fn poll_batch(&mut self, waker: Option<std::task::Waker>) -> Poll<Taken> {
        let (channel, id) = (self.channel.id, self.id);
        let (batch, yielded) = (&mut self.batch, std::mem::take(&mut self.yielded));
        let (inner, stale) = (&self.channel, &mut self.stale);
        let polled = self.channel.shared().with(|state, later| {
            if yielded > 0 {
                state.release_taken(channel, id, yielded, later);
            }
            *stale = inner.stale();
            let Some(consumer) = state.channels.consumer_mut(channel, id) else {
                return Poll::Ready(Taken::Ended(None));
            };
            if let Some(reason) = consumer.take_batch(batch) {
                return Poll::Ready(Taken::Interrupted(reason));
            }
            match &consumer.end {
                _ if !batch.is_empty() => Poll::Ready(Taken::Messages),
                Some(end) => Poll::Ready(Taken::Ended(Some(end.clone()))),
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

    /// Releases the buffer space of the yielded messages.
    fn give_back(&mut self) {
        let yielded = std::mem::take(&mut self.yielded);
        if yielded > 0 {
            let (channel, id) = (self.channel.id, self.id);
            self.channel
                .shared()
                .with(|state, later| state.release_taken(channel, id, yielded, later));
        }
    }

    /// Drops the deliveries that `basic.recover` made stale: the server redelivers them
    /// (section 1.8.3.16 of the protocol reference).
    fn drop_stale(&mut self) {
        self.stale = self.channel.stale();
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

/// Whether a consumer ended because this side closed the channel or the connection.
pub(crate) fn is_clean(error: &Error) -> bool {
    match error {
        Error::ChannelClosed(reason) | Error::ConnectionClosed(reason) => reason.is_clean(),
        _ => false,
    }
}

impl Consumer<ManualAck> {
    /// Returns the next delivery, or `None` after the consumer's end.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    ///
    /// # Errors
    /// The reason for the consumer's end, once; `None` follows.
    pub async fn next(&mut self) -> Option<Result<Delivery, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Consumer<NoAck> {
    /// Returns the next message, or `None` after the consumer's end.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    ///
    /// # Errors
    /// The reason for the consumer's end, once; `None` follows.
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
        if self.stale != self.channel.stale() {
            self.drop_stale();
        }
        let batch = self.batch.drain(..);
        self.channel.shared().with(|state, later| {
            state.release_consumer(self.channel.id, self.id, batch, later);
        });
    }
}

/// A delivered message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Message {
    /// The arguments of `basic.deliver`: exchange, routing key, consumer tag, the redelivered flag.
    pub method: basic::Deliver,
    /// The properties, as encoded on the wire.
    pub encoded_properties: EncodedProperties,
    /// The body.
    pub body: Body,
}

impl Message {
    /// Returns the message's properties, decoded on each call.
    ///
    /// # Errors
    /// When they cannot be decoded: a server forwards a publisher's properties without checking all
    /// of them. The message can be acknowledged or rejected as any other.
    pub fn properties(&self) -> Result<Properties, DecodeError> {
        self.encoded_properties.decode()
    }
}

/// Getters that received messages of every kind have.
macro_rules! getters {
    ($($message:ty, $properties:ident;)*) => {$(
        impl $message {
            /// Returns the exchange that the message was published to. Empty for the default
            /// exchange.
            #[must_use]
            pub const fn exchange(&self) -> &ShortStr {
                &self.method.exchange
            }

            /// Returns the routing key that the message was published with.
            #[must_use]
            pub const fn routing_key(&self) -> &ShortStr {
                &self.method.routing_key
            }

            /// Whether the server may have delivered the message before, to any consumer.
            #[must_use]
            #[doc(alias = "redelivered")]
            pub const fn is_redelivered(&self) -> bool {
                self.method.redelivered
            }

            /// Returns the value of a header, decoded on each call. `Some` if there is one of that
            /// name and the properties can be decoded.
            #[must_use]
            pub fn header(&self, name: &str) -> Option<FieldValue> {
                let headers = self.$properties.decode().ok()?.headers?;
                headers.get(name).cloned()
            }
        }
    )*};
}

getters! {
    Message, encoded_properties;
    Fetched, properties;
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

/// A message that is to be acknowledged. Dereferences to its [`Message`].
///
/// Dropped without an acknowledgement, it is treated as the consumer's [`OnDrop`] says: by default
/// it stays outstanding until the channel ends.
#[derive(Debug)]
#[must_use = "dropped without an acknowledgement, it stays outstanding until the channel ends"]
#[non_exhaustive]
pub struct Delivery {
    /// The message.
    pub message: Message,
    /// The right to acknowledge it.
    pub acker: Acker,
}

impl Delivery {
    /// Acknowledges the message; see [`Acker::ack`].
    ///
    /// # Errors
    /// When the channel is closed: the server has requeued the message.
    pub fn ack(self) -> Result<(), Error> {
        self.acker.ack()
    }

    /// Acknowledges the message and all earlier outstanding ones of the channel; see
    /// [`Acker::ack_up_to`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn ack_up_to(self) -> Result<(), Error> {
        self.acker.ack_up_to()
    }

    /// Rejects the message with `basic.nack`; see [`Acker::nack`].
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(self, requeue: Requeue) -> Result<(), Error> {
        self.acker.nack(requeue)
    }

    /// Rejects the message with `basic.reject`; see [`Acker::reject`].
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
