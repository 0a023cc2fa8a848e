//! The consumers of one promise.

use std::{
    cell::RefCell,
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
    commands::check_queue,
    link::{Counted, Link},
    results::Outbox,
    waiting::{Once, all, either},
};
use amqp_driver::{Acker, Channel, Consumer, ManualAck, NoAck};

/// What other promises do with it.
#[derive(Default)]
pub(super) struct Consuming {
    /// Its prefetch is one for all, and can be changed.
    pub(super) shared: bool,
    /// It is to end.
    cancelled: Once<()>,
    /// As long as it is ending, its channel is one that will be free.
    ending: RefCell<Option<Counted>>,
    /// It has ended: its consumer tags, or why it was not cancelled.
    pub(super) ended: Once<Result<Vec<ShortStr>, Error>>,
    /// Its channel, while all its consumers run.
    pub(super) channel: RefCell<Option<Rc<Channel>>>,
    /// Those of its consumers.
    pub(super) tags: RefCell<Vec<ShortStr>>,
}

impl Consuming {
    pub(super) fn new(shared: bool) -> Self {
        Self {
            shared,
            ..Self::default()
        }
    }

    /// It is to end.
    pub(super) fn cancel(&self, link: &Rc<Link>) {
        if self.cancelled.peek().is_none() && self.ended.peek().is_none() {
            self.ending.replace(Some(link.will_be_free()));
            self.cancelled.set(());
        }
    }
}

/// What is to be consumed, and who is told.
pub(super) struct Consume {
    pub(super) link: Rc<Link>,
    pub(super) outbox: Outbox,
    pub(super) consuming: Rc<Consuming>,
    pub(super) consumes: Vec<basic::Consume>,
    pub(super) qos: Option<basic::Qos>,
}

impl Consume {
    /// Consumes, until the end of one consumer is the end of all.
    pub(super) async fn run(mut self) -> Result<Answer, Error> {
        let result = self.consume().await;
        drop(self.consuming.ending.take());
        self.link.changed();
        let tags = self.consuming.tags.take();
        self.consuming.ended.set(match &result {
            // Whoever wanted it cancelled has it so, whoever did it.
            Ok(()) | Err(Error::Call(amqp_driver::Error::ConsumerCancelled { .. })) => {
                Ok(tags.clone())
            }
            Err(error) => Err(error.clone()),
        });
        result.map(|()| Answer::Cancelled { tags })
    }

    async fn consume(&mut self) -> Result<(), Error> {
        let consuming = Rc::clone(&self.consuming);
        let cancelled = &consuming.cancelled;
        self.consumes.iter().try_for_each(check_queue)?;
        let Some(channel) = unless(cancelled, self.link.channel()).await.transpose()? else {
            return Ok(());
        };
        let channel = Rc::new(channel.keep());
        if let Some(qos) = self.qos.take() {
            channel.call(qos).await?;
        }
        let mut sources = Sources::default();
        for (number, mut consume) in mem::take(&mut self.consumes).into_iter().enumerate() {
            let tag = format!("{}.{number}.{}", self.outbox.promise, consume.consumer_tag);
            consume.consumer_tag = ShortStr::try_from(tag).map_err(amqp_driver::Error::from)?;
            let tag = consume.consumer_tag.clone();
            consuming.tags.borrow_mut().push(tag);
            sources.start(&channel, consume).await?;
        }
        if cancelled.peek().is_none() && !sources.is_empty() {
            consuming.channel.replace(Some(channel));
            self.outbox.tell(Ok(Answer::Consuming));
        }
        let mut end = Ok(());
        while !sources.is_empty() {
            match unless(cancelled, self.next(&mut sources)).await {
                Some(Ok(Some(message))) => self.outbox.tell(Ok(Answer::Delivered(message))),
                Some(ended) => {
                    end = ended.map(drop);
                    break;
                }
                None => break,
            }
        }
        consuming.channel.take();
        let running = sources.running.iter_mut().flatten();
        for cancelled in all(running.map(Source::cancel)).await {
            end = end.and(cancelled);
        }
        // What was delivered before the server took notice.
        while !sources.is_empty() {
            match self.take(&mut sources).await {
                Ok(Some(message)) => self.outbox.tell(Ok(Answer::Delivered(message))),
                ended => end = end.and_then(|()| ended.map(drop)),
            }
        }
        if end.is_ok() && cancelled.peek().is_none() && !consuming.tags.borrow().is_empty() {
            // Nobody has ended it but the client's own close.
            return Err(self.link.end().await);
        }
        Ok(end?)
    }

    /// The next message of any of them; none at the end of one.
    async fn next(&self, sources: &mut Sources) -> Result<Option<Message>, amqp_driver::Error> {
        poll_fn(|cx| self.outbox.poll_room(cx)).await;
        self.take(sources).await
    }

    /// As that, whether or not there is room.
    async fn take(&self, sources: &mut Sources) -> Result<Option<Message>, amqp_driver::Error> {
        poll_fn(|cx| {
            let (number, next) = ready!(sources.poll_next(cx));
            let promise = self.outbox.promise;
            let message = next.transpose().map(|next| {
                next.map(|(message, acker)| Message::delivered(promise, number, message, acker))
            });
            Poll::Ready(message)
        })
        .await
    }
}

/// What comes of a future, unless something else has come.
async fn unless<T>(other: &Once<()>, future: impl Future<Output = T>) -> Option<T> {
    let other = async {
        other.get().await;
        None
    };
    either(async { Some(future.await) }, other).await
}

/// The consumers, by number. Each has its turn.
#[derive(Default)]
struct Sources {
    /// None where one has ended.
    running: Vec<Option<Source>>,
    /// The first one to ask next.
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

    /// What comes next, and of which; none at its end.
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
