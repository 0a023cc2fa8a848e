//! The consumers of one promise.

use std::{
    future::{Future, poll_fn},
    mem,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, ready},
};

use amqp_core::{protocol::basic, wire::ShortStr};
use futures_core::Stream as _;

use super::{
    Answer, Error, Message,
    checks::check_queue,
    consumer_group::ConsumerGroup,
    results::ResultSender,
    shared::Shared,
    waiting::{SetOnce, all, either},
};
use amqp_driver::{Acker, Channel, Consumer, ManualAck, NoAck};

/// The task of the consumers of one promise.
pub(super) struct ConsumeTask {
    pub(super) shared: Rc<Shared>,
    pub(super) sender: ResultSender,
    pub(super) group: Rc<ConsumerGroup>,
    pub(super) consumes: Vec<basic::Consume>,
    pub(super) qos: Option<basic::Qos>,
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
        let channel = Rc::new(channel.into_channel());
        if let Some(qos) = self.qos.take() {
            channel.call(qos).await?;
        }
        let mut sources = Sources::default();
        for (number, mut consume) in mem::take(&mut self.consumes).into_iter().enumerate() {
            let tag = format!("{}.{number}.{}", self.sender.promise, consume.consumer_tag);
            consume.consumer_tag = ShortStr::try_from(tag).map_err(amqp_driver::Error::from)?;
            let tag = consume.consumer_tag.clone();
            group.tags.borrow_mut().push(tag);
            sources.start(&channel, consume).await?;
        }
        if cancelled.peek().is_none() && !sources.is_empty() {
            group.channel.replace(Some(channel));
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
        group.channel.take();
        let running = sources.running.iter_mut().flatten();
        for cancelled in all(running.map(Source::cancel)).await {
            end = end.and(cancelled);
        }
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
                next.map(|(message, acker)| Message::delivered(promise, number, message, acker))
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
#[derive(Default)]
struct Sources {
    /// `Some` while the consumer runs.
    running: Vec<Option<Source>>,
    /// The index to poll first next time.
    first: usize,
}

enum Source {
    Manual(Consumer<ManualAck>),
    NoAck(Consumer<NoAck>),
}

impl Sources {
    async fn start(
        &mut self,
        channel: &Channel,
        consume: basic::Consume,
    ) -> Result<(), amqp_driver::Error> {
        let source = if consume.no_ack {
            Source::NoAck(channel.consume_no_ack(consume).await?)
        } else {
            Source::Manual(channel.consume(consume).await?)
        };
        self.running.push(Some(source));
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.running.iter().all(Option::is_none)
    }

    /// The next item and the index of its consumer. The item is `None` at the end of that consumer.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<(usize, Option<Item>)> {
        let count = self.running.len();
        for number in (self.first..count).chain(0..self.first) {
            let Some(source) = &mut self.running[number] else {
                continue;
            };
            if let Poll::Ready(next) = source.poll_next(cx) {
                self.first = (number + 1) % count;
                if !matches!(next, Some(Ok(_))) {
                    self.running[number] = None;
                }
                return Poll::Ready((number, next));
            }
        }
        Poll::Pending
    }
}

type Item = Result<(amqp_driver::Message, Option<Acker>), amqp_driver::Error>;

impl Source {
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        match self {
            Self::Manual(consumer) => {
                let next = ready!(Pin::new(consumer).poll_next(cx));
                Poll::Ready(next.map(|delivery| {
                    let delivery = delivery?;
                    Ok((delivery.message, Some(delivery.acker)))
                }))
            }
            Self::NoAck(consumer) => {
                let next = ready!(Pin::new(consumer).poll_next(cx));
                Poll::Ready(next.map(|message| Ok((message?, None))))
            }
        }
    }

    async fn cancel(&mut self) -> Result<(), amqp_driver::Error> {
        match self {
            Self::Manual(consumer) => consumer.cancel().await,
            Self::NoAck(consumer) => consumer.cancel().await,
        }
    }
}
