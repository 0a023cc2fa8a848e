//! The commands of a client's channel.

use alloc::string::String;

use super::{
    Client, Event,
    channel_state::{Mode, Pending},
    checks::{self, REPLY_TO},
    confirms::Confirms,
    consumers::Cancelling,
};
use crate::{
    body::{Body, PropertyList},
    close::{Close, RequestError},
    error::{ApiMisuse, Hold, PublishError},
    ids::{ChannelId, ConsumerId, DeliveryTag, PublishSeq, RequestId, Requeue, Tags},
    machine::{ChannelLife, Machine},
    method::{ClientSent, MethodDef, NoWait, Request},
    protocol::{Method, ReplyCode, basic, channel, confirm, tx},
    wire::ShortStr,
};

/// The commands of one channel, borrowed from its connection.
///
/// Each returns at once. An error means that the command was refused and nothing has changed.
#[derive(Debug)]
pub struct ChannelMut<'a> {
    machine: &'a mut Machine<Client>,
    id: ChannelId,
}

impl<'a> ChannelMut<'a> {
    pub(crate) const fn new(machine: &'a mut Machine<Client>, id: ChannelId) -> Self {
        Self { machine, id }
    }

    /// Which channel this is.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// Whether commands can be given: the server has opened it, and nobody has closed it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.machine.is_open()
            && self
                .machine
                .channel(self.id)
                .is_some_and(|channel| channel.life == ChannelLife::Open)
    }

    /// Whether a consumer of this channel has the tag that is not being cancelled.
    #[must_use]
    pub fn has_consumer(&self, tag: &ShortStr) -> bool {
        self.machine
            .channel(self.id)
            .is_some_and(|channel| channel.role.consumers.is_active(tag))
    }

    /// The consumer that gets the deliveries of a tag now.
    #[must_use]
    pub fn consumer(&self, tag: &ShortStr) -> Option<ConsumerId> {
        let channel = self.machine.channel(self.id)?;
        channel.role.consumers.owner(tag).map(|owner| owner.id)
    }

    /// What holds a publish with a body of that many bytes back on this channel now; none when it
    /// would be accepted. To hear of the end of a full output, ask for the event with
    /// [`Connection::want_writable`](super::Connection::want_writable),
    /// [`Connection::want_backlog_writable`](super::Connection::want_backlog_writable) or
    /// [`want_writable`](Self::want_writable); a refused publish asks by itself.
    #[must_use]
    pub fn hold(&self, body_len: usize) -> Option<Hold> {
        self.machine.hold(self.id, body_len)
    }

    /// Asks for [`Event::ChannelWritable`](super::Event::ChannelWritable), which comes once the
    /// channel's backlog has room; at the next
    /// [`poll_transmit`](super::Connection::poll_transmit) if it has already. A channel that ends
    /// before does not tell.
    pub fn want_writable(&mut self) {
        self.machine.want_channel_room(self.id);
    }

    /// How many more publishes may wait for their confirm; `usize::MAX` when the channel is not in
    /// confirm mode.
    #[must_use]
    pub fn unconfirmed_room(&self) -> usize {
        match self.machine.channel(self.id).map(|it| &it.role.mode) {
            Some(Mode::Confirm(confirms)) => {
                let limit = self.machine.limits().unconfirmed;
                limit.saturating_sub(confirms.len())
            }
            Some(Mode::Plain | Mode::Transaction { .. }) | None => usize::MAX,
        }
    }

    /// Whether the channel is transactional: acknowledgements take effect with the commit.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        let mode = self.machine.channel(self.id).map(|it| &it.role.mode);
        matches!(mode, Some(Mode::Transaction { .. }))
    }

    /// Sends a request and waits for its answer, which comes as [`Event::Reply`] or
    /// [`Event::Failed`] with the number that is returned. Several may be under way.
    ///
    /// `basic.consume`, `basic.get` and closing have commands of their own.
    ///
    /// [`Event::Reply`]: super::Event::Reply
    /// [`Event::Failed`]: super::Event::Failed
    ///
    /// # Errors
    /// When the channel is not open, the request is one that RabbitMQ would close the connection
    /// for, it does not fit into a frame, it asks for no answer, or
    /// [too many requests](crate::Limits::unsent_requests) wait to be sent.
    pub fn call<R: Request + ClientSent>(&mut self, request: &R) -> Result<RequestId, ApiMisuse> {
        if request.no_wait() {
            return Err(ApiMisuse::NoWaitHasNoReply { method: R::NAME });
        }
        checks::check_called::<R>()?;
        self.check(request)?;
        self.machine.put_request(self.id, request)?;
        Ok(self.after_request(request))
    }

    /// Sends a request that is not answered: `no_wait` is set. Should it go wrong, the server
    /// closes the channel.
    ///
    /// # Errors
    /// As [`call`](Self::call); also when the answer would have brought a name that is not given.
    pub fn send<R: NoWait + ClientSent>(&mut self, request: &R) -> Result<(), ApiMisuse> {
        checks::check_called::<R>()?;
        let mut request = request.clone();
        request.set_no_wait(true);
        self.check(&request)?;
        checks::check_named(&request.clone().into())?;
        self.machine.put_request(self.id, &request)?;
        self.apply(&request.into());
        Ok(())
    }

    /// Starts a consumer, and gives back its number and its tag. Without a tag it gets one that is
    /// free on this channel. The request's
    /// reply is `basic.consume-ok`, which deliveries follow; with `no_wait` it is given
    /// at once, and the server's refusal would be the end of the channel.
    ///
    /// A tag can be used again as soon as its consumer was cancelled, here or by the server; that of
    /// a consumer which was [given up](Self::abandon_consumer), or whose request has timed out, when
    /// its consume-ok has come. What
    /// the server still delivers to the consumer before is not given to the new one, unless both
    /// the cancel and the new consumer ask for no answer.
    ///
    /// # Errors
    /// As [`call`](Self::call); also when the tag is in use on this channel.
    pub fn consume(
        &mut self,
        mut consume: basic::Consume,
    ) -> Result<(ConsumerId, ShortStr, RequestId), ApiMisuse> {
        self.check(&consume)?;
        self.machine.check_requests(Some(self.id))?;
        let (channel, output) = self.machine.open_channel_and_output(self.id)?;
        if consume.consumer_tag.is_empty() {
            consume.consumer_tag = channel.role.consumers.free_tag();
        }
        let tag = consume.consumer_tag.clone();
        if channel.role.consumers.is_active(&tag) {
            return Err(ApiMisuse::DuplicateConsumerTag(tag));
        }
        output.put_request(&mut channel.backlog, self.id.number(), &consume)?;
        let consumer = channel.role.consumers.add(
            &tag,
            consume.no_ack,
            consume.queue.as_str() == REPLY_TO,
            !consume.no_wait,
        );
        let request = self.machine.next_request();
        if consume.no_wait {
            // Nothing else will say that it has begun.
            let consumer_tag = tag.clone();
            self.machine.push(Event::Reply {
                channel: Some(self.id),
                request,
                reply: basic::ConsumeOk { consumer_tag }.into(),
            });
        } else {
            self.add_pending(Pending {
                tag: Some(tag.clone()),
                consumer: Some(consumer),
                ..Pending::new(request, basic::Consume::ID)
            });
        }
        Ok((consumer, tag, request))
    }

    /// Gives a consumer up: no event comes for it from now on. It is cancelled, and what is still
    /// delivered to it is put back, unless it needs no acknowledgement, in which case it is lost.
    /// It does nothing for a consumer that has ended.
    ///
    /// A consumer that is confirmed is cancelled at once, and its tag is free. One whose consume-ok
    /// has not come is cancelled when that comes, also if its request has timed out, and its tag is
    /// in use until then: RabbitMQ 3.10 closes the connection with 541 for an earlier cancel.
    pub fn abandon_consumer(&mut self, tag: &ShortStr, consumer: ConsumerId) {
        let Some(channel) = self.machine.channel(self.id) else {
            return;
        };
        let consume = channel.role.pending.iter().rev().find(|pending| {
            pending.method == basic::Consume::ID && pending.consumer == Some(consumer)
        });
        if let Some(request) = consume.map(|pending| pending.id) {
            // Its request is given up with it.
            self.machine.abandon(Some(self.id), request);
        }
        self.machine.abandon_consumer(self.id, tag, consumer);
    }

    /// Fetches one message. The answer comes as [`Event::Got`] or [`Event::Failed`].
    ///
    /// [`Event::Got`]: super::Event::Got
    /// [`Event::Failed`]: super::Event::Failed
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub fn get(&mut self, get: &basic::Get) -> Result<RequestId, ApiMisuse> {
        self.check(get)?;
        self.machine.put_request(self.id, get)?;
        let request = self.machine.next_request();
        self.add_pending(Pending {
            no_ack: get.no_ack,
            ..Pending::new(request, basic::Get::ID)
        });
        Ok(request)
    }

    /// Publishes a message. On a channel in confirm mode it gives back the publish's number, and
    /// [`Event::Settled`] tells later what became of it.
    ///
    /// The method, the content header and the body are queued together and in order with
    /// everything else on the channel. A body of a few kilobytes is copied, a larger one is kept
    /// by reference until it is sent.
    ///
    /// [`Event::Settled`]: super::Event::Settled
    ///
    /// # Errors
    /// [`PublishError::HeldBack`] with the body when there is no room or the server wants none
    /// now; [`PublishError::Misuse`] when the channel is not open, or the message is too large, has
    /// encoded properties that cannot be read, or is one that RabbitMQ would close the connection
    /// for.
    #[inline]
    pub fn publish<P: PropertyList>(
        &mut self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Option<PublishSeq>, PublishError> {
        let mut body = body.into();
        let published = self.publish_from(publish, properties, &mut body);
        published.map_err(|error| match error {
            PublishError::HeldBack { hold, .. } => PublishError::HeldBack { hold, body },
            misuse @ PublishError::Misuse(_) => misuse,
        })
    }

    /// Publishes a message as [`publish`](Self::publish) does, and drops no body: it is taken if the
    /// message is accepted and kept by reference, and otherwise stays in `body`. So its destructor
    /// runs where the caller wants it to, such as outside of a lock.
    ///
    /// # Errors
    /// As [`publish`](Self::publish), with an empty body in [`PublishError::HeldBack`].
    #[inline]
    pub fn publish_from<P: PropertyList>(
        &mut self,
        publish: &basic::Publish,
        properties: &P,
        body: &mut Body,
    ) -> Result<Option<PublishSeq>, PublishError> {
        self.machine.publish(self.id, publish, properties, body)
    }

    /// Whether a message with a body of so many bytes would wait behind others of its channel, or
    /// for turns of its own, instead of leaving with the next output.
    #[must_use]
    pub fn is_backlogged(&self, body_len: usize) -> bool {
        self.machine.is_backlogged(self.id, body_len)
    }

    /// Withholds an outstanding delivery: no acknowledgement but
    /// [`requeue_withheld`](Self::requeue_withheld) reaches it, neither one for all up to a later
    /// delivery. For a delivery that the application has no room for at the moment.
    ///
    /// # Errors
    /// When the channel is not open, or the delivery is not outstanding on it.
    pub fn withhold(&mut self, tag: DeliveryTag) -> Result<(), ApiMisuse> {
        let (channel, _) = self.machine.open_channel_and_output(self.id)?;
        let role = &mut channel.role;
        if !role.unacked.settle(Tags::One(tag)) {
            return Err(ApiMisuse::UnknownDeliveryTag(tag.get()));
        }
        if let Mode::Transaction { outstanding } = &mut role.mode {
            outstanding.settle(Tags::One(tag));
        }
        role.withheld.add(tag);
        Ok(())
    }

    /// Requeues a delivery that was withheld: the server delivers it again.
    ///
    /// # Errors
    /// When the channel is not open, or the delivery is not withheld.
    pub fn requeue_withheld(&mut self, tag: DeliveryTag) -> Result<(), ApiMisuse> {
        let (channel, output) = self.machine.open_channel_and_output(self.id)?;
        if !channel.role.withheld.settle(Tags::One(tag)) {
            return Err(ApiMisuse::UnknownDeliveryTag(tag.get()));
        }
        // A nack does not count towards a queue's delivery limit since RabbitMQ 4.3, a reject does.
        let nack = basic::Nack {
            delivery_tag: tag.get(),
            multiple: false,
            requeue: true,
        };
        output.put_method(&mut channel.backlog, self.id.number(), &nack)?;
        Ok(())
    }

    /// Acknowledges deliveries.
    ///
    /// # Errors
    /// When the channel is not open, or the delivery is not outstanding on it.
    #[inline]
    pub fn ack(&mut self, tags: Tags) -> Result<(), ApiMisuse> {
        self.settle_all(tags, |(delivery_tag, multiple)| basic::Ack {
            delivery_tag,
            multiple,
        })
    }

    /// Refuses deliveries. RabbitMQ's extension.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(&mut self, tags: Tags, requeue: Requeue) -> Result<(), ApiMisuse> {
        self.settle_all(tags, |(delivery_tag, multiple)| basic::Nack {
            delivery_tag,
            multiple,
            requeue: requeue.into(),
        })
    }

    /// Refuses one delivery.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(&mut self, tag: DeliveryTag, requeue: Requeue) -> Result<(), ApiMisuse> {
        self.settle(
            Tags::One(tag),
            &basic::Reject {
                delivery_tag: tag.get(),
                requeue: requeue.into(),
            },
        )
    }

    /// Asks the server to deliver again what is outstanding, without an answer. Deprecated by the
    /// standard in favour of `basic.recover`, which is [called](Self::call).
    ///
    /// # Errors
    /// When the channel is not open, without `requeue`, which RabbitMQ does not implement, or when
    /// [too many requests](crate::Limits::unsent_requests) wait to be sent.
    pub fn recover_async(&mut self, requeue: bool) -> Result<(), ApiMisuse> {
        let recover = basic::RecoverAsync { requeue };
        self.check(&recover)?;
        self.machine.put_request(self.id, &recover)?;
        if let Some(channel) = self.machine.channel_mut(self.id) {
            channel.role.recovered();
        }
        Ok(())
    }

    /// Closes the channel. What was accepted before is sent first. The request's reply is
    /// `channel.close-ok`; until then nothing else comes from the channel. Its other requests and
    /// unconfirmed publishes are settled at once, for want of anybody who would.
    ///
    /// The request fails with [`RequestError::ChannelClosed`] if the server has closed the channel
    /// before it saw this close, for the reason that it gives;
    /// [`Event::ChannelClosed`](super::Event::ChannelClosed) follows.
    ///
    /// # Errors
    /// When the channel is not open.
    pub fn close(&mut self, code: ReplyCode, text: &str) -> Result<RequestId, ApiMisuse> {
        let close = Close {
            code,
            text: String::from(text),
            method: None,
        };
        self.machine.close_requested(self.id, close)
    }

    /// All means all up to the last that has come; none if nothing is outstanding. To the server it
    /// would also mean what is still on its way, which nobody has seen.
    #[inline]
    fn seen(&mut self, tags: Tags) -> Result<Option<Tags>, ApiMisuse> {
        if tags != Tags::All {
            return Ok(Some(tags));
        }
        let (channel, _) = self.machine.open_channel_and_output(self.id)?;
        Ok(channel.role.unacked.last().map(Tags::UpTo))
    }

    /// Settles what is named, in one method unless some of it is withheld.
    #[inline]
    fn settle_all<M: ClientSent>(
        &mut self,
        tags: Tags,
        method: impl Fn((u64, bool)) -> M,
    ) -> Result<(), ApiMisuse> {
        let Some(tags) = self.seen(tags)? else {
            return Ok(());
        };
        if let Tags::UpTo(last) = tags
            && let Some(first) = self.first_withheld()
            && first < last
        {
            return self.settle_around(first, last, method);
        }
        self.settle(tags, &method(tags.to_wire()))
    }

    fn first_withheld(&self) -> Option<DeliveryTag> {
        self.machine.channel(self.id)?.role.withheld.first()
    }

    /// Settles what is outstanding up to a delivery, some of which is withheld: in one method what
    /// comes before, and the rest one by one.
    fn settle_around<M: ClientSent>(
        &mut self,
        withheld: DeliveryTag,
        last: DeliveryTag,
        method: impl Fn((u64, bool)) -> M,
    ) -> Result<(), ApiMisuse> {
        let (channel, _) = self.machine.open_channel_and_output(self.id)?;
        let unacked = &channel.role.unacked;
        if !unacked.contains(last) {
            return Err(ApiMisuse::UnknownDeliveryTag(last.get()));
        }
        let (before, behind) = unacked.split_at(withheld, last);
        if let Some(before) = before {
            let tags = Tags::UpTo(before);
            self.settle(tags, &method(tags.to_wire()))?;
        }
        for tag in behind {
            let tags = Tags::One(tag);
            self.settle(tags, &method(tags.to_wire()))?;
        }
        Ok(())
    }

    fn settle<M: ClientSent>(&mut self, tags: Tags, method: &M) -> Result<(), ApiMisuse> {
        let (channel, output) = self.machine.open_channel_and_output(self.id)?;
        if !channel.role.unacked.settle(tags) {
            return Err(ApiMisuse::UnknownDeliveryTag(tags.to_wire().0));
        }
        output.put_method(&mut channel.backlog, self.id.number(), method)?;
        Ok(())
    }

    fn check<M: ClientSent>(&self, method: &M) -> Result<(), ApiMisuse> {
        let Some(channel) = self.machine.channel(self.id) else {
            return Err(ApiMisuse::ChannelNotOpen);
        };
        let method: Method = method.clone().into();
        checks::check_mode(&method, &channel.role.mode)?;
        match self.machine.role.checks {
            super::Checks::RabbitMq => checks::check_rabbitmq(&method),
            super::Checks::Standard => Ok(()),
        }
    }

    fn add_pending(&mut self, pending: Pending) {
        let request = pending.id;
        if let Some(channel) = self.machine.channel_mut(self.id) {
            channel.role.pending.push_back(pending);
        }
        self.machine.add_deadline(request, Some(self.id));
    }

    fn after_request<R: Request + ClientSent>(&mut self, request: &R) -> RequestId {
        let id = self.machine.next_request();
        let method: Method = request.clone().into();
        let mut pending = Pending::new(id, R::ID);
        if let Method::BasicCancel(cancel) = &method
            && let Some(channel) = self.machine.channel_mut(self.id)
        {
            let (tag, consumers) = (&cancel.consumer_tag, &mut channel.role.consumers);
            pending.consumer = consumers.cancel(tag, Cancelling::Answered);
            pending.tag = Some(tag.clone());
        }
        self.add_pending(pending);
        self.apply(&method);
        id
    }

    /// What a request changes as soon as it is queued, because what follows it on the channel is
    /// already under its effect.
    fn apply(&mut self, method: &Method) {
        let Some(channel) = self.machine.channel_mut(self.id) else {
            return;
        };
        let role = &mut channel.role;
        let id = method.id();
        if id == confirm::Select::ID {
            if !matches!(role.mode, Mode::Confirm(_)) {
                role.mode = Mode::Confirm(Confirms::new());
            }
        } else if id == tx::Select::ID && matches!(role.mode, Mode::Transaction { .. }) {
            // The transaction that there is goes on.
        } else if id == tx::Select::ID || id == tx::Commit::ID {
            role.mode = Mode::Transaction {
                outstanding: role.unacked.clone(),
            };
        } else if id == tx::Rollback::ID
            && let Mode::Transaction { outstanding } = &role.mode
        {
            role.unacked = outstanding.clone();
        } else if id == basic::Recover::ID {
            role.recovered();
            role.recover_asked();
        } else if let Method::BasicCancel(cancel) = method
            && cancel.no_wait
        {
            let tag = &cancel.consumer_tag;
            role.consumers.cancel(tag, Cancelling::Unanswered);
        }
        if id == tx::Commit::ID {
            // RabbitMQ takes anything that comes before the commit is done for a fault.
            self.machine.hold_channel(self.id);
        }
    }
}

impl Machine<Client> {
    fn close_requested(&mut self, id: ChannelId, close: Close) -> Result<RequestId, ApiMisuse> {
        self.open_channel_and_output(id)?;
        let request = self.next_request();
        self.close_channel(id, &close, Some(request))?;
        let reason = crate::close::CloseCause::Requested(close).into();
        self.fail_waiting(id, &reason, &RequestError::ChannelClosed(reason.clone()));
        if let Some(channel) = self.channel_mut(id) {
            let pending = Pending::new(request, channel::Close::ID);
            channel.role.pending.push_back(pending);
        }
        self.add_deadline(request, Some(id));
        Ok(request)
    }
}
