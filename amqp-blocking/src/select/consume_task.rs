//! The consumers of one promise.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use amqp_core::{Requeue, protocol::basic, wire::ShortStr};
use futures_core::Stream as _;

use super::{
    Acknowledging, Answer, Error, Message,
    checks::check_queue,
    consumer_group::ConsumerGroup,
    results::ResultSender,
    shared::Shared,
    waiting::{SetOnce, all, either},
};
use amqp_driver::{Channel, Consumer, NoAck};

/// The task of the consumers of one promise.
pub(super) struct ConsumeTask {
    pub(super) shared: Rc<Shared>,
    pub(super) sender: ResultSender,
    pub(super) group: Rc<ConsumerGroup>,
    pub(super) consumes: Vec<basic::Consume>,
    /// 0 for no bound.
    pub(super) prefetch: u16,
}

impl ConsumeTask {
    /// Consumes until one consumer ends, which ends all.
    pub(super) async fn run(mut self) -> Result<Answer, Error> {
        let result = self.consume().await;
        drop(self.group.ending.take());
        self.shared.notify_released();
        let tags = self.group.tags.take();
        self.group.ended.set(match &result {
            // A cancellation by the server also fulfils `Client::cancel`.
            Ok(()) | Err(Error::Call(amqp_driver::Error::ConsumerCancelled { .. })) => {
                Ok(tags.clone())
            }
            Err(error) => Err(error.clone()),
        });
        result.map(|()| Answer::Cancelled { tags })
    }

    async fn consume(&mut self) -> Result<(), Error> {
        let group = Rc::clone(&self.group);
        let cancelled = &group.cancelled;
        self.consumes.iter().try_for_each(check_queue)?;
        let Some(channel) = unless(cancelled, self.shared.channel()).await.transpose()? else {
            return Ok(());
        };
        let channel = channel.into_channel();
        let mut consumes = mem::take(&mut self.consumes);
        for (number, consume) in consumes.iter_mut().enumerate() {
            let tag = format!("{}.{number}.{}", self.sender.promise, consume.consumer_tag);
            consume.consumer_tag = ShortStr::try_from(tag).map_err(amqp_driver::Error::from)?;
            let tag = consume.consumer_tag.clone();
            group.tags.borrow_mut().push(tag);
        }
        let mut sources = Sources::start(&channel, consumes, self.prefetch).await?;
        if cancelled.peek().is_none() && !sources.is_empty() {
            group.prefetch.replace(Some(sources.group.prefetch()));
            self.sender.send(Ok(Answer::Consuming));
        }
        let mut end = Ok(());
        while !sources.is_empty() {
            match unless(cancelled, self.next(&mut sources)).await {
                Some(Ok(Some(message))) => self.sender.send(Ok(Answer::Delivered(message))),
                Some(ended) => {
                    end = ended.map(drop);
                    break;
                }
                None => break,
            }
        }
        group.prefetch.take();
        end = end.and(sources.cancel().await);
        // Deliveries from before the server processed `basic.cancel` (section 1.8.3.5 of the
        // protocol reference).
        while !sources.is_empty() {
            match self.take(&mut sources).await {
                Ok(Some(message)) => self.sender.send(Ok(Answer::Delivered(message))),
                ended => end = end.and_then(|()| ended.map(drop)),
            }
        }
        if end.is_ok() && cancelled.peek().is_none() && !group.tags.borrow().is_empty() {
            // Without an error or a cancellation, only a close by this side ends the consumers.
            return Err(self.shared.end().await);
        }
        Ok(end?)
    }

    /// Waits for room, then returns the next message of any consumer. `None` at the end of one.
    async fn next(&self, sources: &mut Sources) -> Result<Option<Message>, amqp_driver::Error> {
        poll_fn(|cx| self.sender.poll_room(cx)).await;
        self.take(sources).await
    }

    /// As [`next`](Self::next), without waiting for room.
    async fn take(&self, sources: &mut Sources) -> Result<Option<Message>, amqp_driver::Error> {
        poll_fn(|cx| {
            let (number, next) = ready!(sources.poll_next(cx));
            let promise = self.sender.promise;
            let message = next.transpose().map(|next| {
                next.map(|(message, acknowledging)| {
                    Message::delivered(promise, number, message, acknowledging)
                })
            });
            Poll::Ready(message)
        })
        .await
    }
}

/// Returns the output of `future`, or `None` if `other` is set first.
async fn unless<T>(other: &SetOnce<()>, future: impl Future<Output = T>) -> Option<T> {
    let other = async {
        other.get().await;
        None
    };
    either(async { Some(future.await) }, other).await
}

/// The consumers, by index, polled round-robin.
struct Sources {
    /// `None` once the consumer has ended.
    running: Vec<Option<Source>>,
    /// The index to poll first next time.
    first: usize,
    /// The consumers with acknowledgements, which share a prefetch.
    group: amqp_driver::ConsumerGroup,
    /// The indexes of the consumers of the group, in its order.
    grouped: Vec<usize>,
    /// The last prefetch, 0 for no bound. `Some` once they are cancelled.
    last_prefetch: Option<u16>,
}

enum Source {
    /// A consumer of the group.
    Grouped,
    NoAck(Consumer<NoAck>),
}

impl Sources {
    async fn start(
        channel: &Channel,
        consumes: Vec<basic::Consume>,
        prefetch: u16,
    ) -> Result<Self, amqp_driver::Error> {
        let (mut running, mut manual, mut grouped) = (Vec::new(), Vec::new(), Vec::new());
        for (index, consume) in consumes.into_iter().enumerate() {
            running.push(Some(if consume.no_ack {
                Source::NoAck(channel.consume_no_ack(consume).await?)
            } else {
                manual.push(consume);
                grouped.push(index);
                Source::Grouped
            }));
        }
        Ok(Self {
            running,
            first: 0,
            group: amqp_driver::ConsumerGroup::start(channel, manual, prefetch).await?,
            grouped,
            last_prefetch: None,
        })
    }

    fn is_empty(&self) -> bool {
        self.running.iter().all(Option::is_none)
    }

    /// The next item and the index of its consumer. The item is `None` at the end of that consumer.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<Item>)> {
        let count = self.running.len();
        for turn in (self.first..count).chain(0..self.first) {
            let next = match &mut self.running[turn] {
                Some(Source::NoAck(consumer)) => Pin::new(consumer).poll_next(cx).map(|next| {
                    let item = next.map(|message| Ok((message?, Acknowledging::default())));
                    (turn, item)
                }),
                Some(Source::Grouped) => self.poll_group(turn, cx),
                None => Poll::Pending,
            };
            if let Poll::Ready((index, item)) = next {
                self.first = (turn + 1) % count;
                if !matches!(item, Some(Ok(_))) {
                    self.running[index] = None;
                }
                return Poll::Ready((index, item));
            }
        }
        Poll::Pending
    }

    /// As [`poll_next`](Self::poll_next), of the group, in the turn of one of its consumers. They end
    /// together.
    fn poll_group(&mut self, turn: usize, cx: &mut Context<'_>) -> Poll<(usize, Option<Item>)> {
        loop {
            let next = ready!(Pin::new(&mut self.group).poll_next(cx));
            let ended = match next {
                Some(Ok(delivery)) if self.exceeds_prefetch() => {
                    // The server requeues it also if the channel is closed.
                    let _closed = delivery.nack(Requeue::Yes);
                    continue;
                }
                Some(Ok(delivery)) => {
                    let index = self.grouped[delivery.index()];
                    let (delivery, credit) = delivery.into_parts();
                    let acknowledging = Acknowledging {
                        acker: Some(delivery.acker),
                        _credit: Some(credit),
                    };
                    return Poll::Ready((index, Some(Ok((delivery.message, acknowledging)))));
                }
                Some(Err(error)) => Some(Err(error)),
                None => None,
            };
            for index in self.grouped.drain(..) {
                self.running[index] = None;
            }
            return Poll::Ready((turn, ended));
        }
    }

    /// Whether the last delivery exceeds the last prefetch of consumers that are cancelled.
    fn exceeds_prefetch(&self) -> bool {
        self.last_prefetch
            .is_some_and(|prefetch| prefetch > 0 && self.group.prefetch().used() > prefetch.into())
    }

    /// Cancels the consumers. What was delivered before is still yielded within the prefetch, and
    /// requeued beyond it, so that their end does not wait for acknowledgements.
    async fn cancel(&mut self) -> Result<(), amqp_driver::Error> {
        self.group.cancel().await;
        let prefetch = self.group.prefetch();
        self.last_prefetch = Some(prefetch.get());
        prefetch.set(0);
        let no_ack = self.running.iter_mut().filter_map(|source| match source {
            Some(Source::NoAck(consumer)) => Some(consumer.cancel()),
            Some(Source::Grouped) | None => None,
        });
        all(no_ack).await.into_iter().collect()
    }
}

type Item = Result<(amqp_driver::Message, Acknowledging), amqp_driver::Error>;
