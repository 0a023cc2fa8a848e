//! The commands of a client's channel.

use alloc::{boxed::Box, string::String};

use super::{
    Client, Event, channel_state::Mode, checks, consumers::Cancelling, pending::Pending,
    reply_to::REPLY_TO,
};
use crate::{
    close::{Close, RequestError},
    error::{ApiMisuse, Hold},
    ids::{ChannelId, ConsumerId, DeliveryTag, RequestId, Requeue, Tags},
    machine::{ChannelLife, Machine},
    method::{ClientSent, MethodDef, NoWait, Request},
    protocol::{Method, ReplyCode, basic, channel, confirm, tx},
    stats::ChannelStats,
    wire::ShortStr,
};

/// The commands of one channel, borrowed from its connection.
///
/// Each command returns at once. After an error the command was refused and nothing has changed.
#[derive(Debug)]
pub struct ChannelMut<'a> {
    pub(super) machine: &'a mut Machine<Client>,
    pub(super) id: ChannelId,
}

impl<'a> ChannelMut<'a> {
    pub(crate) const fn new(machine: &'a mut Machine<Client>, id: ChannelId) -> Self {
        Self { machine, id }
    }

    /// The identifier of the channel.
    #[must_use]
    pub const fn id(&self) -> ChannelId {
        self.id
    }

    /// Whether commands are accepted: the server has opened the channel, and neither side has
    /// closed it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.machine.is_open()
            && self
                .machine
                .channel(self.id)
                .is_some_and(|channel| channel.life == ChannelLife::Open)
    }

    /// Whether a consumer of this channel has the tag and is not being cancelled.
    #[must_use]
    pub fn has_consumer(&self, tag: &ShortStr) -> bool {
        self.machine
            .channel(self.id)
            .is_some_and(|channel| channel.role.consumers.is_active(tag))
    }

    /// The consumer that currently receives the deliveries of a tag.
    #[must_use]
    pub fn consumer(&self, tag: &ShortStr) -> Option<ConsumerId> {
        let channel = self.machine.channel(self.id)?;
        channel.role.consumers.owner(tag).map(|owner| owner.id)
    }

    /// The condition that holds back a publish with a body of that many bytes on this channel.
    /// `None` if the publish would be accepted. The end of a full output is reported as an event,
    /// after a call of [`Connection::want_writable`](super::Connection::want_writable),
    /// [`Connection::want_backlog_writable`](super::Connection::want_backlog_writable) or
    /// [`want_writable`](Self::want_writable); a publish that is held back requests the event by
    /// itself.
    #[must_use]
    pub fn hold(&self, body_len: usize) -> Option<Hold> {
        self.machine.hold(self.id, body_len)
    }

    /// Requests [`Event::ChannelWritable`](super::Event::ChannelWritable), reported once the
    /// channel's backlog has room. If it has room already, the event follows the next
    /// [`poll_transmit`](super::Connection::poll_transmit). A channel that ends before does not
    /// report it.
    pub fn want_writable(&mut self) {
        self.machine.want_channel_room(self.id);
    }

    /// The number of further publishes that may be unconfirmed; `usize::MAX` unless the channel is
    /// in confirm mode.
    #[must_use]
    pub fn unconfirmed_room(&self) -> usize {
        match self.machine.channel(self.id).map(|it| &it.role.mode) {
            Some(Mode::Confirm(confirms)) => {
                let limit = self.machine.limits().unconfirmed;
                limit.saturating_sub(confirms.window())
            }
            Some(Mode::Plain | Mode::Transaction { .. }) | None => usize::MAX,
        }
    }

    /// The number of publishes that are not confirmed, without those after the first of them that
    /// are. 0 without confirm mode.
    #[must_use]
    pub fn unconfirmed(&self) -> usize {
        match self.machine.channel(self.id).map(|it| &it.role.mode) {
            Some(Mode::Confirm(confirms)) => confirms.unsettled(),
            Some(Mode::Plain | Mode::Transaction { .. }) | None => 0,
        }
    }

    /// Whether the channel is transactional: acknowledgements take effect with the commit.
    #[must_use]
    pub fn is_transactional(&self) -> bool {
        let mode = self.machine.channel(self.id).map(|it| &it.role.mode);
        matches!(mode, Some(Mode::Transaction { .. }))
    }

    /// The statistics of the channel.
    #[must_use]
    pub fn stats(&self) -> ChannelStats {
        let channel = self.machine.channel(self.id);
        channel.map_or_else(ChannelStats::default, |channel| channel.role.stats())
    }

    /// Sends a request with a reply, which arrives as [`Event::Reply`] or [`Event::Failed`] with
    /// the returned number. Several requests may be in flight.
    ///
    /// `basic.consume`, `basic.get` and `channel.close` have commands of their own.
    ///
    /// [`Event::Reply`]: super::Event::Reply
    /// [`Event::Failed`]: super::Event::Failed
    ///
    /// # Errors
    /// When the channel is not open, RabbitMQ would close the channel or the connection for the
    /// request, it does not fit into a frame, it asks for no reply, or
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

    /// Sends a request without a reply: `no_wait` is set. The server closes the channel if the
    /// request fails.
    ///
    /// # Errors
    /// As [`call`](Self::call); also when the reply would have carried a generated name.
    pub fn send<R: NoWait + ClientSent>(&mut self, request: &R) -> Result<(), ApiMisuse> {
        checks::check_called::<R>()?;
        let mut request = request.clone();
        request.set_no_wait(true);
        self.check(&request)?;
        self.machine.put_request(self.id, &request)?;
        self.apply(&request.into());
        Ok(())
    }

    /// Starts a consumer, and returns its number and its tag. An empty tag is replaced by one that
    /// is free on this channel. The request's reply is `basic.consume-ok`, followed by deliveries;
    /// with `no_wait` the reply event is queued at once, and the server closes the channel if it
    /// refuses.
    ///
    /// A tag can be reused as soon as its consumer was cancelled, by this side or by the server. If
    /// a consumer was [abandoned](Self::abandon_consumer), or its request timed out, before the
    /// consume-ok, the tag can be reused after the consume-ok. Late deliveries of the previous
    /// consumer do not reach the new one, unless both the cancel and the new consumer ask for no
    /// reply.
    ///
    /// # Errors
    /// As [`call`](Self::call); also when the tag is in use on this channel.
    pub fn consume(
        &mut self,
        consume: basic::Consume,
    ) -> Result<(ConsumerId, ShortStr, RequestId), ApiMisuse> {
        self.start_consumer(None, consume)
    }

    /// Starts a consumer of an earlier opening of the channel again, under its number: see
    /// [`reopen_channel`](super::Connection::reopen_channel). The request's reply is
    /// `basic.consume-ok`. The tag is left to [`consume`](Self::consume) if it is empty.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub fn resume_consumer(
        &mut self,
        consumer: ConsumerId,
        consume: basic::Consume,
    ) -> Result<RequestId, ApiMisuse> {
        let (_, _, request) = self.start_consumer(Some(consumer), consume)?;
        Ok(request)
    }

    fn start_consumer(
        &mut self,
        resumed: Option<ConsumerId>,
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
        let consumers = &mut channel.role.consumers;
        let consumer = resumed.unwrap_or_else(|| consumers.take_id());
        consumers.add(
            consumer,
            &tag,
            consume.no_ack,
            consume.queue.as_str() == REPLY_TO,
            !consume.no_wait,
        );
        let request = self.machine.next_request();
        if consume.no_wait {
            // With `no_wait`, no reply of the server confirms the start.
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

    /// Abandons a consumer: no further event is reported for it. It is cancelled, and its remaining
    /// deliveries are requeued, or lost if they need no acknowledgement. Does nothing for a
    /// consumer that has ended.
    ///
    /// A confirmed consumer is cancelled at once, and its tag is free. Before the consume-ok, the
    /// cancel is deferred until that arrives, even if the request has timed out, and the tag is in
    /// use until then: RabbitMQ 3.10 closes the connection with 541 for an earlier cancel.
    pub fn abandon_consumer(&mut self, tag: &ShortStr, consumer: ConsumerId) {
        let Some(channel) = self.machine.channel(self.id) else {
            return;
        };
        if let Some(request) = channel.role.pending.consume_of(consumer) {
            // Its request is abandoned with it.
            self.machine.abandon(Some(self.id), request);
        }
        self.machine.abandon_consumer(self.id, tag, consumer);
    }

    /// Fetches one message. The reply arrives as [`Event::Got`] or [`Event::Failed`].
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

    /// Whether a message with a body of that many bytes would wait behind others of its channel, or
    /// for round-robin turns of its own, instead of leaving with the next output.
    #[must_use]
    pub fn is_backlogged(&self, body_len: usize) -> bool {
        self.machine.is_backlogged(self.id, body_len)
    }

    /// Withholds an outstanding delivery: only [`requeue_withheld`](Self::requeue_withheld) settles
    /// it, and an acknowledgement of a later delivery with `multiple` excludes it. For deliveries
    /// that the application has no room for.
    ///
    /// # Errors
    /// When the channel is not open, or the delivery is not outstanding on it.
    pub fn withhold(&mut self, tag: DeliveryTag) -> Result<(), ApiMisuse> {
        let (channel, _) = self.machine.open_channel_and_output(self.id)?;
        let role = &mut channel.role;
        if !role.unacked.settle(Tags::One(tag)) {
            return Err(role.not_outstanding(tag));
        }
        if let Mode::Transaction { outstanding } = &mut role.mode {
            outstanding.settle(Tags::One(tag));
        }
        role.withhold(tag);
        Ok(())
    }

    /// Requeues a withheld delivery: the server redelivers it.
    ///
    /// # Errors
    /// When the channel is not open, or the delivery is not withheld.
    pub fn requeue_withheld(&mut self, tag: DeliveryTag) -> Result<(), ApiMisuse> {
        let (channel, output) = self.machine.open_channel_and_output(self.id)?;
        if !channel.role.settle_withheld(tag) {
            return Err(channel.role.not_outstanding(tag));
        }
        // Since RabbitMQ 4.3 a reject counts towards the queue's delivery limit, and a nack does
        // not.
        let nack = basic::Nack {
            delivery_tag: channel.role.wire_tag(tag),
            multiple: false,
            requeue: true,
        };
        output.put_method(&mut channel.backlog, self.id.number(), &nack)?;
        self.machine.stats.rejected += 1;
        Ok(())
    }

    /// Acknowledges deliveries. RabbitMQ closes the channel with 406 for a tag that is not
    /// outstanding, so such a tag is refused here: <https://www.rabbitmq.com/docs/confirms>.
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

    /// Acknowledges those of the deliveries in `tags`, which ascend, that no other outstanding
    /// delivery of the channel precedes, withheld ones included, with a single method. Returns the
    /// last of them and their number, or `None` if there are none, with nothing sent.
    ///
    /// # Errors
    /// When the channel is not open.
    pub fn ack_front(
        &mut self,
        tags: impl IntoIterator<Item = DeliveryTag>,
    ) -> Result<Option<(DeliveryTag, u64)>, ApiMisuse> {
        let (channel, _) = self.machine.open_channel_and_output(self.id)?;
        let (unacked, withheld) = (&channel.role.unacked, channel.role.first_withheld());
        let before = |tag: &DeliveryTag| withheld.is_none_or(|withheld| *tag < withheld);
        let Some(last) = unacked.last_of_front(tags.into_iter().take_while(before)) else {
            return Ok(None);
        };
        let tags = match unacked.first() {
            Some(first) if first == last => Tags::One(last),
            _ => Tags::UpTo(last),
        };
        let before = unacked.len();
        self.ack(tags)?;
        let after = self
            .machine
            .channel(self.id)
            .map(|it| it.role.unacked.len());
        Ok(Some((last, before - after.unwrap_or_default())))
    }

    /// Rejects deliveries. RabbitMQ's extension, <https://www.rabbitmq.com/docs/nack>.
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

    /// Rejects one delivery.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(&mut self, tag: DeliveryTag, requeue: Requeue) -> Result<(), ApiMisuse> {
        self.settle(Tags::One(tag), |(delivery_tag, _)| basic::Reject {
            delivery_tag,
            requeue: requeue.into(),
        })
    }

    /// Asks the server to redeliver all outstanding deliveries, without a reply. Deprecated by the
    /// standard in favour of `basic.recover`, for which [`call`](Self::call) is used.
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

    /// Closes the channel. Everything accepted before is sent first. The request's reply is
    /// `channel.close-ok`; until then nothing else is reported for the channel. Its other requests
    /// and unconfirmed publishes are settled at once, because their replies would be discarded
    /// (section 1.5.2.5 of the protocol reference).
    ///
    /// The request fails with [`RequestError::ChannelClosed`] and the server's reason if the server
    /// closed the channel before it received this close;
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

    /// Resolves `All` to all up to the last delivery received; `None` if nothing is outstanding. On
    /// the wire, `All` (a tag of 0) would include deliveries in flight to this side.
    #[inline]
    fn seen(&mut self, tags: Tags) -> Result<Option<Tags>, ApiMisuse> {
        if tags != Tags::All {
            return Ok(Some(tags));
        }
        let (channel, _) = self.machine.open_channel_and_output(self.id)?;
        Ok(channel.role.unacked.last().map(Tags::UpTo))
    }

    /// Settles the given deliveries, in one method unless some of them are withheld.
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
        self.settle(tags, &method)
    }

    fn first_withheld(&self) -> Option<DeliveryTag> {
        self.machine.channel(self.id)?.role.first_withheld()
    }

    /// Settles the outstanding deliveries up to `last`, some of which are withheld: those before
    /// the first withheld one with a single method, the others one by one.
    fn settle_around<M: ClientSent>(
        &mut self,
        withheld: DeliveryTag,
        last: DeliveryTag,
        method: impl Fn((u64, bool)) -> M,
    ) -> Result<(), ApiMisuse> {
        let (channel, _) = self.machine.open_channel_and_output(self.id)?;
        let unacked = &channel.role.unacked;
        if !unacked.contains(last) {
            return Err(channel.role.not_outstanding(last));
        }
        let (before, behind) = unacked.split_at(withheld, last);
        if let Some(before) = before {
            self.settle(Tags::UpTo(before), &method)?;
        }
        for tag in behind {
            self.settle(Tags::One(tag), &method)?;
        }
        Ok(())
    }

    fn settle<M: ClientSent>(
        &mut self,
        tags: Tags,
        method: impl Fn((u64, bool)) -> M,
    ) -> Result<(), ApiMisuse> {
        let (channel, output) = self.machine.open_channel_and_output(self.id)?;
        let role = &mut channel.role;
        let before = role.unacked.len();
        if !role.unacked.settle(tags) {
            return Err(match tags {
                Tags::One(tag) | Tags::UpTo(tag) => role.not_outstanding(tag),
                Tags::All => ApiMisuse::UnknownDeliveryTag(0),
            });
        }
        let count = before - role.unacked.len();
        let method = method(role.to_wire(tags));
        output.put_method(&mut channel.backlog, self.id.number(), &method)?;
        let stats = &mut self.machine.stats;
        if M::ID == basic::Ack::ID {
            stats.acknowledged += count;
        } else {
            stats.rejected += count;
        }
        Ok(())
    }

    fn check<M: ClientSent>(&self, method: &M) -> Result<(), ApiMisuse> {
        let Some(channel) = self.machine.channel(self.id) else {
            return Err(ApiMisuse::ChannelNotOpen);
        };
        let (mode, checks) = (&channel.role.mode, self.machine.role.checks);
        checks::check(&method.clone().into(), mode, checks)
    }

    fn add_pending(&mut self, pending: Pending) {
        let request = pending.id;
        self.machine.push_pending(self.id, pending);
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

    /// Applies the effects of a request as soon as it is queued: they apply to all later methods of
    /// the channel.
    fn apply(&mut self, method: &Method) {
        let Some(channel) = self.machine.channel_mut(self.id) else {
            return;
        };
        let role = &mut channel.role;
        let id = method.id();
        if id == confirm::Select::ID {
            if !matches!(role.mode, Mode::Confirm(_)) {
                role.begin_confirms();
            }
        } else if id == tx::Select::ID && matches!(role.mode, Mode::Transaction { .. }) {
            // An open transaction continues.
        } else if id == tx::Select::ID || id == tx::Commit::ID {
            role.mode = Mode::Transaction {
                outstanding: Box::new(role.unacked.clone()),
            };
        } else if id == tx::Rollback::ID
            && let Mode::Transaction { outstanding } = &role.mode
        {
            role.unacked.clone_from(outstanding);
        } else if id == basic::Recover::ID {
            role.recovered();
            role.recover_asked();
        } else if let Method::BasicQos(qos) = method {
            role.prefetch = qos.prefetch_count;
        } else if let Method::BasicCancel(cancel) = method
            && cancel.no_wait
        {
            let tag = &cancel.consumer_tag;
            role.consumers.cancel(tag, Cancelling::Unanswered);
        }
        if id == tx::Commit::ID {
            // RabbitMQ fails the connection for any method on the channel before `tx.commit-ok`.
            self.machine.cork_channel(self.id);
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
        self.push_pending(id, Pending::new(request, channel::Close::ID));
        self.add_deadline(request, Some(id));
        Ok(request)
    }
}
