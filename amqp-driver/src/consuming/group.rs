//! Several queues as one stream.

use std::{
    fmt,
    future::{Future, poll_fn},
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use amqp_core::{Requeue, protocol::basic};
use futures_core::Stream;

use super::{
    credit::{Credits, GroupCredit},
    end::Ended,
    for_each::{ForEach, for_each},
    member::Member,
    options::ForEachOptions,
};
use crate::{
    base_channel::BaseChannel,
    consumer::{Delivery, Message},
    error::Error,
    states::ChannelStates,
};

/// Consumers of several queues, as one [`Stream`] that yields from each in turn.
///
/// Its prefetch bounds the deliveries of all its queues that were yielded and are not settled, and
/// can be changed at any time, up and down: it is counted on this side, as RabbitMQ 4 has no prefetch
/// that consumers share or that can be changed ([RabbitMQ's
/// page](https://www.rabbitmq.com/docs/consumer-prefetch)). It is also the prefetch of each consumer
/// at the server, so that at most that many deliveries of each queue wait on this side.
///
/// The consumers end together: an error of one cancels the others, and is yielded when all that was
/// delivered has been, within the prefetch.
///
/// ```no_run
/// use amqp_driver::{ConsumerGroup, protocol::basic};
///
/// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
/// let consume = |queue| basic::Consume::default().queue(queue);
/// let queues = [consume("urgent"), consume("mail")];
/// let mut group = ConsumerGroup::start(&channel, queues, 10).await?;
/// let prefetch = group.prefetch();
/// while let Some(delivery) = group.next().await.transpose()? {
///     println!("{} from queue {}", delivery.method.routing_key, delivery.index());
///     delivery.ack()?;
///     prefetch.set(20);
/// }
/// # Ok(()) }
/// ```
pub struct ConsumerGroup {
    channel: BaseChannel,
    members: Vec<Member>,
    /// The index of the member to be polled first next time.
    first: usize,
    credits: Arc<Credits>,
    /// Watched while there is no credit.
    states: ChannelStates,
    /// The consumers were cancelled for good.
    cancelled: bool,
    /// The error that ended the group, to be yielded last.
    error: Option<Error>,
}

/// The prefetch of a [`ConsumerGroup`]. Clones belong to the same group.
#[derive(Clone, Debug)]
pub struct GroupPrefetch(Arc<Credits>);

impl GroupPrefetch {
    /// The number of deliveries that may be yielded and not settled. 0 for no bound.
    #[must_use]
    pub fn get(&self) -> u16 {
        self.0.prefetch()
    }

    /// The number of deliveries that are yielded and neither settled nor dropped.
    #[must_use]
    pub fn used(&self) -> usize {
        self.0.used()
    }

    /// Changes the number of deliveries that may be yielded and not settled, 0 for no bound. It holds
    /// at once for the next delivery; those that exceed it are not recalled.
    ///
    /// The consumers at the server adopt it as the group is polled: each is cancelled, and started
    /// again, its tag with a number behind it, when the deliveries that it has sent are yielded. One
    /// that is the [single active
    /// consumer](https://www.rabbitmq.com/docs/consumers#single-active-consumer) of its queue may
    /// lose that role.
    pub fn set(&self, prefetch: u16) {
        self.0.set_prefetch(prefetch);
    }
}

impl ConsumerGroup {
    /// Starts a consumer for each request, one after the other. Their `no_ack` and `no_wait` are
    /// ignored.
    ///
    /// # Cancel safety
    /// Dropping it cancels the consumers started so far, and requeues their deliveries.
    ///
    /// # Errors
    /// As [`BaseChannel::consume`].
    pub async fn start(
        channel: &BaseChannel,
        consumes: impl IntoIterator<Item = basic::Consume>,
        prefetch: u16,
    ) -> Result<Self, Error> {
        let mut members = Vec::new();
        for consume in consumes {
            members.push(Member::start(channel, consume, prefetch).await?);
        }
        Ok(Self {
            channel: channel.clone(),
            members,
            first: 0,
            credits: Credits::new(prefetch),
            states: channel.states(),
            cancelled: false,
            error: None,
        })
    }

    /// Returns the handle that changes the prefetch.
    #[must_use]
    pub fn prefetch(&self) -> GroupPrefetch {
        GroupPrefetch(Arc::clone(&self.credits))
    }

    /// Returns the next delivery, or `None` after the group's end.
    ///
    /// # Cancel safety
    /// Dropping it loses nothing.
    ///
    /// # Errors
    /// The reason for the group's end, once; `None` follows.
    pub async fn next(&mut self) -> Option<Result<GroupDelivery, Error>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Cancels the consumers, without a wait: the deliveries that have arrived or still arrive are
    /// yielded, whatever the prefetch, then the group ends.
    ///
    /// # Cancel safety
    /// Once polled, the consumers are being cancelled.
    pub async fn cancel(&mut self) {
        poll_fn(|cx| {
            self.begin_cancel(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Calls `body` for each delivery, as
    /// [`Consumer::for_each_concurrent`](crate::Consumer::for_each_concurrent) does. The prefetch of
    /// the group bounds the bodies, too, until it is cancelled.
    pub fn for_each_concurrent<B, F, E>(
        self,
        limit: usize,
        options: ForEachOptions<E>,
        body: B,
    ) -> ForEach<impl Future<Output = Ended<E>>>
    where
        B: FnMut(Message) -> F,
        F: Future<Output = Result<(), E>>,
    {
        for_each(self, limit, options, body)
    }

    /// The channel of the consumers.
    #[must_use]
    pub const fn channel(&self) -> &BaseChannel {
        &self.channel
    }

    pub(super) fn begin_cancel(&mut self, cx: &mut Context<'_>) {
        self.cancelled = true;
        for member in &mut self.members {
            member.begin_cancel(cx);
        }
    }

    /// Ready when the channel has ended.
    fn poll_closed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while ready!(Pin::new(&mut self.states).poll_next(cx)).is_some() {
            if self.channel.close_reason().is_some() {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl Stream for ConsumerGroup {
    type Item = Result<GroupDelivery, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let (prefetch, free) = this.credits.look(cx);
        // A delivery of a channel that has ended is stale, and needs no credit. After a cancel nothing
        // more is requested.
        let credit = free || this.cancelled || this.poll_closed(cx).is_ready();
        if !this.cancelled {
            for member in &mut this.members {
                member.adopt(prefetch, cx);
            }
        }
        let count = this.members.len();
        let mut ended = 0;
        for index in (this.first..count).chain(0..this.first) {
            let Some(member) = this.members.get_mut(index) else {
                continue;
            };
            match member.poll_next(&this.channel, (prefetch, credit), cx) {
                Poll::Pending => {}
                Poll::Ready(Some(Ok(delivery))) => {
                    this.first = (index + 1) % count;
                    return Poll::Ready(Some(Ok(GroupDelivery {
                        index,
                        delivery,
                        credit: this.credits.take(),
                    })));
                }
                Poll::Ready(Some(Err(error))) => {
                    ended += 1;
                    this.error.get_or_insert(error);
                }
                Poll::Ready(None) => ended += 1,
            }
        }
        if ended == count {
            return Poll::Ready(this.error.take().map(Err));
        }
        if this.error.is_some() && !this.cancelled {
            this.begin_cancel(cx);
            // Members that were polled before the error have to be polled again.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

impl fmt::Debug for ConsumerGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsumerGroup")
            .field("consumers", &self.members.len())
            .field("credits", &self.credits)
            .finish_non_exhaustive()
    }
}

/// A delivery of a [`ConsumerGroup`]. Dereferences to its [`Message`].
///
/// It takes a part of the group's prefetch until it is settled or dropped. Dropped without an
/// acknowledgement, it stays outstanding until the channel ends.
#[derive(Debug)]
#[must_use = "dropped without an acknowledgement, it stays outstanding until the channel ends"]
pub struct GroupDelivery {
    index: usize,
    delivery: Delivery,
    credit: GroupCredit,
}

impl GroupDelivery {
    /// The index of its queue among those that the group was started with.
    #[must_use]
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Acknowledges the message.
    ///
    /// # Errors
    /// As [`Acker::ack`](crate::Acker::ack).
    pub fn ack(self) -> Result<(), Error> {
        self.delivery.ack()
    }

    /// Rejects the message with `basic.nack`.
    ///
    /// # Errors
    /// As [`Acker::ack`](crate::Acker::ack).
    pub fn nack(self, requeue: Requeue) -> Result<(), Error> {
        self.delivery.nack(requeue)
    }

    /// Rejects the message with `basic.reject`.
    ///
    /// # Errors
    /// As [`Acker::ack`](crate::Acker::ack).
    pub fn reject(self, requeue: Requeue) -> Result<(), Error> {
        self.delivery.reject(requeue)
    }

    /// Takes it apart, for acknowledgements from other places. Its part of the prefetch is in use until
    /// the [`GroupCredit`] is dropped.
    pub fn into_parts(self) -> (Delivery, GroupCredit) {
        (self.delivery, self.credit)
    }
}

impl Deref for GroupDelivery {
    type Target = Message;

    fn deref(&self) -> &Message {
        &self.delivery
    }
}
