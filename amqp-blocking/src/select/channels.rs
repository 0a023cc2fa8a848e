//! What the machine tells, and the hidden channels: who has one, and who gets the next.

use amqp_client::{
    CloseReason, Requeue,
    core::{
        ApiMisuse, ChannelId, RequestId, Tags,
        client::{ChannelMut, Delivery, Event, GetMessage},
        protocol::{Method, ReplyCode, basic},
    },
    wire::ShortStr,
};

use super::{Answer, Client, Error, Message, Promise};

/// A promise whose final result is still to come.
pub(super) enum Task {
    /// Nothing is to be given back for it: connecting, and what is about another promise.
    Plain,
    Close,
    Publish,
    /// A request, and its channel when it has one.
    Request(Option<ChannelId>),
    Consume(Box<Consume>),
}

/// Consumers that share a channel, and begin and end together.
#[derive(Default)]
pub(super) struct Consume {
    /// None until it has one.
    pub(super) channel: Option<ChannelId>,
    tags: Vec<ShortStr>,
    /// How many are not yet confirmed.
    starting: usize,
    /// Those that are, until they are to end.
    begun: Vec<ShortStr>,
    /// They share a prefetch.
    pub(super) shared: bool,
    pub(super) ending: Option<Ending>,
}

/// How consumers end.
pub(super) struct Ending {
    /// How many are being cancelled.
    left: usize,
    result: Result<Answer, Error>,
    /// Why they could not be cancelled.
    failure: Option<Error>,
    /// Who else wants to know.
    pub(super) told: Vec<Promise>,
}

/// A channel that is, or was, used for a promise.
pub(super) struct Slot {
    /// The last that used it.
    pub(super) holder: Promise,
    /// What is to be done when it is open.
    job: Option<Job>,
    opening: bool,
    /// It has, or had, consumers: their prefetch is of no use to anybody else.
    consumed: bool,
    /// How many of its messages are unsettled.
    pub(super) unacked: usize,
}

type Ask = Box<dyn FnOnce(&mut ChannelMut<'_>) -> Result<RequestId, ApiMisuse>>;

/// What waits for a channel.
pub(super) enum Job {
    Request(Ask),
    Consume(Vec<basic::Consume>, Option<basic::Qos>),
}

/// What the answer to a request is for.
pub(super) enum Purpose {
    Open(ChannelId),
    OpenPublisher(ChannelId),
    /// It is what came of that promise.
    Answer(Promise),
    Begin(Promise),
    End(Promise),
    /// Only its failure would be of interest, and the channel's end tells that.
    Aside,
}

impl Consume {
    pub(super) fn new(shared: bool) -> Box<Self> {
        Box::new(Self {
            shared,
            ..Self::default()
        })
    }
}

impl Client {
    /// Takes what the machine tells.
    pub(super) fn settle(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            self.on_event(event);
        }
        // Not before all is known: a channel that looks idle may have ended.
        self.assign();
        self.update_reading();
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Opened => self.finish(self.connect, Ok(Answer::Connected)),
            Event::Reply { request, reply, .. } => self.on_answer(request, Ok(reply)),
            Event::Failed { request, cause } => {
                let error = amqp_client::Error::from(cause);
                self.on_answer(request, Err(error.into()));
            }
            Event::Got {
                channel,
                request,
                message,
            } => self.on_got(channel, request, message),
            Event::Delivered(delivery) => self.on_delivered(delivery),
            Event::Returned(returned) => self.publisher.on_returned(returned),
            Event::Settled {
                first,
                last,
                outcome,
                ..
            } => {
                for (promise, result) in self.publisher.on_settled(first, last, &outcome) {
                    self.finish(promise, result);
                }
            }
            Event::ConsumerCancelled { channel, tag, .. } => {
                if let Some(holder) = self.slots.get(&channel).map(|slot| slot.holder) {
                    let error = amqp_client::Error::ConsumerCancelled { tag };
                    self.end(holder, Err(error.into()));
                }
            }
            Event::ChannelClosed { channel, reason } => self.on_channel_closed(channel, reason),
            Event::Closed(reason) => self.on_closed(reason),
            _ => {}
        }
    }

    fn on_answer(&mut self, request: RequestId, answer: Result<Method, Error>) {
        match (self.requests.remove(&request), answer) {
            (Some(Purpose::Open(id)), Ok(_)) => {
                let Some(slot) = self.slots.get_mut(&id) else {
                    return;
                };
                slot.opening = false;
                let holder = slot.holder;
                match slot.job.take() {
                    Some(job) if self.tasks.contains_key(&holder) => self.begin(id, holder, job),
                    _ => self.release(id),
                }
            }
            (Some(Purpose::Open(id)), Err(error)) => {
                if let Some(slot) = self.slots.remove(&id) {
                    self.finish(slot.holder, Err(error));
                }
            }
            (Some(Purpose::OpenPublisher(id)), Ok(_)) => self.begin_publishing(id),
            (Some(Purpose::OpenPublisher(_)), Err(error)) => self.fail_queued(&error),
            (Some(Purpose::Answer(promise)), answer) => {
                self.finish(promise, answer.map(Answer::Reply));
            }
            (Some(Purpose::Begin(promise)), answer) => self.on_begun(promise, answer),
            (Some(Purpose::End(promise)), answer) => {
                if let Some(Task::Consume(consume)) = self.tasks.get_mut(&promise)
                    && let Some(ending) = &mut consume.ending
                {
                    ending.left -= 1;
                    ending.failure = answer.err().or_else(|| ending.failure.take());
                }
                self.go_on_ending(promise);
            }
            (Some(Purpose::Aside) | None, _) => {}
        }
    }

    fn on_begun(&mut self, promise: Promise, answer: Result<Method, Error>) {
        let Some(Task::Consume(consume)) = self.tasks.get_mut(&promise) else {
            return;
        };
        consume.starting -= 1;
        match answer {
            Ok(Method::BasicConsumeOk(begun)) => consume.begun.push(begun.consumer_tag),
            Ok(_) => {}
            Err(error) => return self.end(promise, Err(error)),
        }
        if consume.starting == 0 && consume.ending.is_none() {
            self.tell(promise, Ok(Answer::Consuming));
        }
        self.go_on_ending(promise);
    }

    fn on_got(&mut self, channel: ChannelId, request: RequestId, message: Option<GetMessage>) {
        let (Some(Purpose::Answer(promise)), Some(slot)) =
            (self.requests.remove(&request), self.slots.get_mut(&channel))
        else {
            return;
        };
        let message = message.map(|message| {
            slot.unacked += usize::from(message.tag.is_some());
            Message {
                promise,
                source: 0,
                consumer_tag: ShortStr::default(),
                exchange: message.method.exchange,
                routing_key: message.method.routing_key,
                redelivered: message.method.redelivered,
                remaining: Some(message.method.message_count),
                properties: message.content.properties,
                body: message.content.body,
                channel,
                tag: message.tag,
            }
        });
        self.finish(promise, Ok(Answer::Got(message)));
    }

    fn on_delivered(&mut self, delivery: Delivery) {
        let Some(slot) = self.slots.get_mut(&delivery.channel) else {
            return;
        };
        slot.unacked += usize::from(delivery.tag.is_some());
        let promise = slot.holder;
        let message = Message {
            promise,
            source: delivery.consumer.index(), // its channel had no others before
            consumer_tag: delivery.method.consumer_tag,
            exchange: delivery.method.exchange,
            routing_key: delivery.method.routing_key,
            redelivered: delivery.method.redelivered,
            remaining: None,
            properties: delivery.content.properties,
            body: delivery.content.body,
            channel: delivery.channel,
            tag: delivery.tag,
        };
        if self.tasks.contains_key(&promise) {
            self.tell(promise, Ok(Answer::Delivered(message)));
        } else {
            self.put_back(Ok(Answer::Delivered(message)));
        }
    }

    fn on_channel_closed(&mut self, id: ChannelId, reason: CloseReason) {
        if self.publisher.forget(id) {
            return;
        }
        self.idle.remove(&id);
        if let Some(slot) = self.slots.remove(&id) {
            let error = Error::from(amqp_client::Error::ChannelClosed(reason));
            self.end(slot.holder, Err(error.clone()));
            self.conclude(slot.holder);
            self.finish(slot.holder, Err(error));
        }
    }

    /// Ends all that has not ended.
    fn on_closed(&mut self, reason: CloseReason) {
        self.waiting.clear();
        self.slots.clear();
        self.idle.clear();
        self.requests.clear();
        self.publisher.clear();
        while let Some((&promise, task)) = self.tasks.first_key_value() {
            let result = match task {
                Task::Close if reason.is_clean() => Ok(Answer::Closed),
                Task::Publish => Err(amqp_client::Unconfirmed::NotSent(reason.clone()).into()),
                _ => Err(amqp_client::Error::ConnectionClosed(reason.clone()).into()),
            };
            self.finish(promise, result);
        }
        self.closed = Some(reason);
    }

    /// Gives channels to those who wait for one.
    pub(super) fn assign(&mut self) {
        if !self.machine.is_open() {
            return;
        }
        self.publish_queued();
        while let Some((promise, job)) = self.waiting.pop_front() {
            if let Some(id) = self.idle.pop_first() {
                if let Some(slot) = self.slots.get_mut(&id) {
                    slot.holder = promise;
                    self.begin(id, promise, job);
                }
                continue;
            }
            match self.machine.open_channel() {
                Ok((id, request)) => {
                    let slot = Slot {
                        holder: promise,
                        job: Some(job),
                        opening: true,
                        consumed: false,
                        unacked: 0,
                    };
                    self.slots.insert(id, slot);
                    self.requests.insert(request, Purpose::Open(id));
                }
                // One will be free, or there will be none to wait for.
                Err(_) if !self.requests.is_empty() => {
                    self.waiting.push_front((promise, job));
                    return;
                }
                Err(misuse) => self.finish(promise, Err(misuse.into())),
            }
        }
    }

    /// Does what waited for a channel.
    fn begin(&mut self, id: ChannelId, promise: Promise, job: Job) {
        match (job, self.tasks.get_mut(&promise)) {
            (Job::Request(ask), Some(Task::Request(on))) => {
                *on = Some(id);
                let mut channel = self.machine.channel(id);
                let closed = ApiMisuse::ChannelNotOpen;
                match channel.as_mut().ok_or(closed).and_then(ask) {
                    Ok(request) => {
                        self.requests.insert(request, Purpose::Answer(promise));
                    }
                    Err(misuse) => self.finish(promise, Err(misuse.into())),
                }
            }
            (Job::Consume(consumes, qos), Some(Task::Consume(consume))) => {
                consume.channel = Some(id);
                let none = consumes.is_empty();
                let begun = self.begin_consuming(id, promise, consumes, qos);
                let result = begun.map(|()| Answer::Cancelled { tags: Vec::new() });
                if none || result.is_err() {
                    self.end(promise, result.map_err(Error::from));
                }
            }
            _ => self.release(id),
        }
    }

    fn begin_consuming(
        &mut self,
        id: ChannelId,
        promise: Promise,
        consumes: Vec<basic::Consume>,
        qos: Option<basic::Qos>,
    ) -> Result<(), ApiMisuse> {
        let (Some(mut channel), Some(Task::Consume(consume)), Some(slot)) = (
            self.machine.channel(id),
            self.tasks.get_mut(&promise),
            self.slots.get_mut(&id),
        ) else {
            return Err(ApiMisuse::ChannelNotOpen);
        };
        slot.consumed = true;
        if let Some(qos) = qos {
            self.requests.insert(channel.call(&qos)?, Purpose::Aside);
        }
        for (source, mut begun) in consumes.into_iter().enumerate() {
            let tag = format!("{promise}.{source}.{}", begun.consumer_tag);
            begun.consumer_tag = ShortStr::try_from(tag)?;
            begun.no_wait = false;
            let (_, tag, request) = channel.consume(begun)?;
            self.requests.insert(request, Purpose::Begin(promise));
            consume.tags.push(tag);
            consume.starting += 1;
        }
        Ok(())
    }

    /// Ends consumers, if they are not ending already: those that are left are cancelled, and then
    /// that is their result.
    pub(super) fn end(&mut self, promise: Promise, result: Result<Answer, Error>) {
        if let Some(Task::Consume(consume)) = self.tasks.get_mut(&promise) {
            consume.ending.get_or_insert(Ending {
                left: 0,
                result,
                failure: None,
                told: Vec::new(),
            });
        }
        self.go_on_ending(promise);
    }

    /// Of consumers that are ending, cancels those that have begun, and tells when all have ended.
    fn go_on_ending(&mut self, promise: Promise) {
        let Some(Task::Consume(consume)) = self.tasks.get_mut(&promise) else {
            return;
        };
        let Some(ending) = &mut consume.ending else {
            return;
        };
        let mut channel = consume.channel.and_then(|id| self.machine.channel(id));
        // RabbitMQ 3.10 ends the connection if a cancel comes before it has confirmed the consumer.
        for consumer_tag in consume.begun.drain(..) {
            let left = channel.as_mut().filter(|it| it.has_consumer(&consumer_tag));
            let cancel = basic::Cancel {
                consumer_tag,
                no_wait: false,
            };
            if let Some(Ok(request)) = left.map(|channel| channel.call(&cancel)) {
                self.requests.insert(request, Purpose::End(promise));
                ending.left += 1;
            }
        }
        if ending.left == 0 && consume.starting == 0 {
            self.conclude(promise);
        }
    }

    /// Tells of the end of consumers that are ending.
    fn conclude(&mut self, promise: Promise) {
        let Some(Task::Consume(consume)) = self.tasks.get_mut(&promise) else {
            return;
        };
        let Some(ending) = consume.ending.take() else {
            return;
        };
        let tags = std::mem::take(&mut consume.tags);
        if let Some(mut channel) = consume.channel.and_then(|id| self.machine.channel(id)) {
            // Those whose cancel was not answered.
            tags.iter().for_each(|tag| channel.abandon_consumer(tag));
        }
        self.waiting.retain(|(waiting, _)| *waiting != promise);
        let cancelled = ending.failure.map_or(Ok(Answer::Cancelled { tags }), Err);
        let result = ending.result.and_then(|_| cancelled.clone());
        self.finish(promise, result);
        for told in ending.told {
            self.finish(told, cancelled.clone());
        }
    }

    /// The tags of consumers.
    pub(super) fn tags(&self, promise: Promise) -> Vec<ShortStr> {
        match self.tasks.get(&promise) {
            Some(Task::Consume(consume)) => consume.tags.clone(),
            _ => Vec::new(),
        }
    }

    /// Tells the final result of a promise that has none yet, and lets its channel go.
    pub(super) fn finish(&mut self, promise: Promise, result: Result<Answer, Error>) {
        let Some(task) = self.tasks.remove(&promise) else {
            return;
        };
        self.tell(promise, result);
        match task {
            Task::Request(Some(id)) => self.release(id),
            Task::Consume(consume) => consume.channel.into_iter().for_each(|id| self.release(id)),
            Task::Plain | Task::Close | Task::Publish | Task::Request(None) => {}
        }
    }

    fn tell(&mut self, promise: Promise, result: Result<Answer, Error>) {
        let over = !self.tasks.contains_key(&promise);
        if !self.ignored.contains(&promise) {
            let due = self.callbacks.contains_key(&promise);
            return self.results.push(promise, result, due);
        }
        if over {
            self.ignored.remove(&promise);
        }
        self.put_back(result);
    }

    /// Puts back the message that nobody wants.
    pub(super) fn put_back(&mut self, result: Result<Answer, Error>) {
        if let Some(message) = result.ok().and_then(Answer::message)
            && message.tag.is_some()
        {
            // If that is not possible, the server does it of its own accord.
            let _gone =
                self.settle_message(&message, |channel, tags| channel.nack(tags, Requeue::Yes));
        }
    }

    /// Settles a message, and lets its channel go if that was the last.
    pub(super) fn settle_message(
        &mut self,
        message: &Message,
        settle: impl FnOnce(&mut ChannelMut<'_>, Tags) -> Result<(), ApiMisuse>,
    ) -> Result<(), Error> {
        self.check_open()?;
        let unknown = ApiMisuse::UnknownDeliveryTag(message.tag.map_or(0, |tag| tag.get()));
        let (Some(tag), Some(slot)) = (message.tag, self.slots.get_mut(&message.channel)) else {
            return Err(unknown.into());
        };
        // It may be another client's.
        let (true, Some(mut channel)) = (
            slot.holder == message.promise,
            self.machine.channel(message.channel),
        ) else {
            return Err(unknown.into());
        };
        settle(&mut channel, Tags::One(tag))?;
        slot.unacked -= 1;
        self.release(message.channel);
        Ok(())
    }

    /// Lets a channel go that nobody uses any more.
    fn release(&mut self, id: ChannelId) {
        let Some(slot) = self.slots.get(&id) else {
            return;
        };
        if slot.opening || slot.unacked > 0 || self.tasks.contains_key(&slot.holder) {
            return;
        }
        if !slot.consumed {
            self.idle.insert(id);
            return;
        }
        self.slots.remove(&id);
        if let Some(mut channel) = self.machine.channel(id)
            && let Ok(request) = channel.close(ReplyCode::SUCCESS, "")
        {
            self.requests.insert(request, Purpose::Aside);
        }
    }
}
