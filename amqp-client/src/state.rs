//! Everything about a connection that its handles share: the machine, and who waits for what.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use amqp_core::{
    ChannelId, CloseReason, ConsumerId, PublishSeq, RequestError, RequestId, Tags,
    client::{self, Event, GetMessage, Outcome},
    protocol::Method,
    wire::ShortStr,
};

use crate::{
    channel_table::ChannelTable,
    confirm::{Confirms, Unconfirmed},
    error::Error,
    publishers::Publishers,
    returns::ReturnedMessage,
    waiters::{Waiters, Wakes, keep},
};

/// Reading stops while this much was delivered and not yet taken, in bytes; it goes on at half of
/// it. A consumer's prefetch is the better bound.
pub(crate) const UNDELIVERED_MAX: usize = 16 << 20;

/// As [`UNDELIVERED_MAX`], while somebody waits for an answer or a confirm: it may stand behind what
/// was delivered, and whoever is to take that may be the one who waits.
const UNDELIVERED_AWAITED_MAX: usize = 8 * UNDELIVERED_MAX;

/// Reading stops while this much output waits beyond what publishing is held back at, in bytes; it
/// goes on at half of it. A server that asks without end, and does not read the answers, is not
/// listened to any more.
const ANSWERS_MAX: usize = 16 << 20;

/// What a message in a queue counts beside its body, in bytes.
pub(crate) const MESSAGE_OVERHEAD: usize = 256;

/// Behind the one lock of a connection.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) machine: client::Connection,
    /// The driver's waker, while it sleeps.
    pub(crate) driver: Option<Waker>,
    /// The requests that a future waits for.
    requests: BTreeMap<RequestId, Slot>,
    channels: ChannelTable<ChannelState>,
    /// How many channels the machine had when it was last looked at.
    channel_count: usize,
    /// Who waits for the connection to open or to end, or for a channel number.
    pub(crate) life: Waiters,
    pub(crate) opened: bool,
    /// Why the connection ended, once it has.
    pub(crate) closed: Option<CloseReason>,
    /// A new secret is wanted.
    pub(crate) secret_due: bool,
    /// What the server has shown.
    pub(crate) certificates: Arc<[Vec<u8>]>,
    /// What the machine has handed out, and the transport maybe not yet taken.
    pub(crate) in_transit: bool,
    /// Who waits until something has left.
    pub(crate) flushers: Waiters,
    /// Who waits to publish.
    pub(crate) publishers: Publishers,
    /// What was delivered and not yet taken, in bytes.
    undelivered: usize,
    /// How many confirms somebody waits for.
    awaited: usize,
    /// Nobody reads, because too much is undelivered, or unsent.
    pub(crate) reading_paused: bool,
}

/// A request's outcome, until its future takes it.
#[derive(Debug, Default)]
struct Slot {
    waker: Option<Waker>,
    answer: Option<Answer>,
    /// The consumer that ends with the answer: this request cancels it.
    cancels: Option<(ChannelId, ConsumerId)>,
    /// Its future was dropped; only the consumer waits for the answer.
    abandoned: bool,
}

/// What came of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    Reply(Method),
    Got(Option<GetMessage>),
    Failed(RequestError),
}

/// What is known of a channel whose handle is alive.
#[derive(Debug, Default)]
pub(crate) struct ChannelState {
    /// Why it ended, once it has.
    pub(crate) closed: Option<CloseReason>,
    consumers: BTreeMap<ConsumerId, ConsumerState>,
    confirms: Confirms,
    pub(crate) returns: Option<ReturnsState>,
}

/// A consumer's messages, until its handle takes them.
#[derive(Debug, Default)]
pub(crate) struct ConsumerState {
    pub(crate) queue: VecDeque<client::Delivery>,
    pub(crate) waker: Option<Waker>,
    pub(crate) end: Option<ConsumerEnd>,
    /// What is in the queue, and in the batch that the handle works through, in bytes: what of
    /// these counts as undelivered.
    queued: usize,
    taken: usize,
    /// It is being cancelled or has ended: what it still gets does not count. Its handle may wait
    /// for an answer that comes behind it, as long as that is waited for.
    uncounted: bool,
}

/// Why a consumer gets nothing more.
#[derive(Clone, Debug)]
pub(crate) enum ConsumerEnd {
    /// Its handle has cancelled it.
    Cancelled,
    /// Its handle has cancelled it, and the server has not answered in time: more may come.
    CancelTimedOut,
    Error(Error),
}

/// Messages that no queue took, until the handle takes them.
#[derive(Debug, Default)]
pub(crate) struct ReturnsState {
    pub(crate) queue: VecDeque<ReturnedMessage>,
    /// What of it counts as undelivered, in bytes.
    pub(crate) queued: usize,
    /// How many handles there are.
    pub(crate) listeners: usize,
    /// Which of them wait.
    pub(crate) waiting: Waiters,
}

/// What a queued message counts, in bytes.
pub(crate) fn weight(body_len: usize) -> usize {
    body_len + MESSAGE_OVERHEAD
}

impl State {
    pub(crate) fn new(machine: client::Connection) -> Self {
        Self {
            machine,
            driver: None,
            requests: BTreeMap::new(),
            channels: ChannelTable::new(),
            channel_count: 0,
            life: Waiters::default(),
            opened: false,
            closed: None,
            secret_due: false,
            in_transit: false,
            flushers: Waiters::default(),
            certificates: Arc::default(),
            publishers: Publishers::default(),
            undelivered: 0,
            awaited: 0,
            reading_paused: false,
        }
    }

    // Requests.

    /// A future is going to wait for the request.
    pub(crate) fn expect(&mut self, request: RequestId) {
        self.requests.insert(request, Slot::default());
    }

    /// As [`expect`](Self::expect), for a request that cancels a consumer. Whether or not anybody
    /// waits for the answer, the consumer ends with it.
    pub(crate) fn expect_cancel(
        &mut self,
        request: RequestId,
        channel: ChannelId,
        consumer: ConsumerId,
    ) {
        let slot = self.requests.entry(request).or_default();
        slot.cancels = Some((channel, consumer));
        self.uncount(channel, consumer);
    }

    pub(crate) fn poll_answer(
        &mut self,
        request: RequestId,
        cx: &Context<'_>,
    ) -> Poll<Result<Answer, Error>> {
        let Some(slot) = self.requests.get_mut(&request) else {
            return Poll::Ready(Err(Error::TimedOut));
        };
        match slot.answer.take() {
            Some(answer) => {
                self.requests.remove(&request);
                Poll::Ready(match answer {
                    Answer::Failed(cause) => Err(cause.into()),
                    answer @ (Answer::Reply(_) | Answer::Got(_)) => Ok(answer),
                })
            }
            None => {
                keep(&mut slot.waker, cx);
                Poll::Pending
            }
        }
    }

    /// The future that waited was dropped.
    pub(crate) fn abandon(&mut self, channel: Option<ChannelId>, request: RequestId) {
        let Some(mut slot) = self.requests.remove(&request) else {
            return;
        };
        if slot.cancels.is_some() && slot.answer.is_none() {
            slot.abandoned = true;
            self.requests.insert(request, slot);
            return;
        }
        let Some(channel) = channel else { return };
        match slot.answer {
            None => self.machine.abandon(channel, request),
            // It was fetched for nobody.
            Some(Answer::Got(Some(message))) => {
                if let (Some(tag), Some(mut channel)) = (message.tag, self.machine.channel(channel))
                {
                    // A channel that is not open takes back what it delivered by itself.
                    let _closed = channel.reject(tag, amqp_core::Requeue::Yes);
                }
            }
            Some(Answer::Reply(_) | Answer::Got(None) | Answer::Failed(_)) => {}
        }
    }

    fn answer(&mut self, request: RequestId, answer: Answer, wakes: &mut Wakes) {
        let Some(slot) = self.requests.get_mut(&request) else {
            return;
        };
        let cancelled = slot.cancels.zip(match &answer {
            Answer::Reply(_) => Some(ConsumerEnd::Cancelled),
            Answer::Failed(RequestError::TimedOut) => Some(ConsumerEnd::CancelTimedOut),
            // It ends with its channel.
            Answer::Failed(_) | Answer::Got(_) => None,
        });
        if slot.abandoned {
            self.requests.remove(&request);
        } else {
            slot.answer = Some(answer);
            wakes.add(slot.waker.take());
        }
        if let Some(((channel, consumer), end)) = cancelled {
            self.end_consumer(channel, consumer, end, wakes);
        }
    }

    // Channels.

    pub(crate) fn add_channel(&mut self, id: ChannelId) {
        self.channels.insert(id, ChannelState::default());
    }

    pub(crate) fn remove_channel(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.remove(id) {
            let consumed = channel.consumers.values().map(|it| it.queued + it.taken);
            let returned = channel.returns.iter().map(|it| it.queued);
            let total = consumed.chain(returned).sum();
            self.release(total);
        }
    }

    /// Whether the machine has channels without a handle.
    #[cfg(feature = "blocking")]
    pub(crate) fn has_closing_channels(&self) -> bool {
        self.machine.channel_count() > self.channels.len()
    }

    pub(crate) fn channel_mut(&mut self, id: ChannelId) -> Option<&mut ChannelState> {
        self.channels.get_mut(id)
    }

    /// Why the channel takes no commands; none if it does.
    pub(crate) fn channel_error(&self, id: ChannelId) -> Option<Error> {
        if let Some(reason) = &self.closed {
            return Some(Error::ConnectionClosed(reason.clone()));
        }
        let channel = self.channels.get(id)?;
        channel.closed.clone().map(Error::ChannelClosed)
    }

    /// The commands of a channel, or why there are none.
    pub(crate) fn commands(&mut self, id: ChannelId) -> Result<client::ChannelMut<'_>, Error> {
        if let Some(error) = self.channel_error(id) {
            return Err(error);
        }
        if let Some(reason) = self.machine.close_reason() {
            return Err(Error::ConnectionClosed(reason.clone()));
        }
        self.machine
            .channel(id)
            .ok_or(Error::Misuse(amqp_core::ApiMisuse::ChannelNotOpen))
    }

    // Publishing.

    /// Somebody has published on that channel, or does not want to any more: another one can.
    pub(crate) fn pass_on_room(&mut self, channel: ChannelId, wakes: &mut Wakes) {
        if !self.publishers.is_empty()
            && let Some(of_channel) = self.machine.channel(channel)
            && of_channel.hold(0).is_none()
        {
            self.publishers.wake(channel, 1, wakes);
        }
    }

    /// A publish was made that is to be confirmed; somebody waits for that, or nobody does.
    pub(crate) fn expect_confirm(&mut self, channel: ChannelId, awaited: bool) {
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.confirms.expect(awaited);
        }
    }

    pub(crate) fn poll_confirm(
        &mut self,
        channel: ChannelId,
        seq: PublishSeq,
        cx: &Context<'_>,
    ) -> Poll<Result<(), Unconfirmed>> {
        let Some(channel) = self.channels.get_mut(channel) else {
            return Poll::Pending;
        };
        channel.confirms.poll(seq.get(), &mut self.awaited, cx)
    }

    /// The future that waited was dropped.
    pub(crate) fn abandon_confirm(&mut self, channel: ChannelId, seq: PublishSeq) {
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.confirms.abandon(seq.get(), &mut self.awaited);
        }
    }

    // Consumers.

    pub(crate) fn add_consumer(&mut self, channel: ChannelId, consumer: ConsumerId) {
        if let Some(channel) = self.channels.get_mut(channel) {
            channel.consumers.insert(consumer, ConsumerState::default());
        }
    }

    pub(crate) fn consumer_mut(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
    ) -> Option<&mut ConsumerState> {
        self.channels.get_mut(channel)?.consumers.get_mut(&consumer)
    }

    /// The handle was dropped: cancels the consumer, and puts back what it has not taken.
    pub(crate) fn drop_consumer(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
        tag: &ShortStr,
        local: impl Iterator<Item = client::Delivery>,
    ) {
        let Some(state) = self
            .channels
            .get_mut(channel)
            .and_then(|channel| channel.consumers.remove(&consumer))
        else {
            return;
        };
        self.release(state.queued + state.taken);
        if let Some(mut commands) = self.machine.channel(channel) {
            if matches!(state.end, None | Some(ConsumerEnd::CancelTimedOut)) {
                commands.abandon_consumer(tag, consumer);
            }
            for message in local.chain(state.queue) {
                if let Some(tag) = message.tag {
                    // Refused only where the channel is closing, which puts it back as well.
                    let _closed = commands.nack(Tags::One(tag), amqp_core::Requeue::Yes);
                }
            }
        }
    }

    /// The handle takes what is queued.
    pub(crate) fn take_batch(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
        batch: &mut VecDeque<client::Delivery>,
    ) {
        let Some(state) = self.consumer_mut(channel, consumer) else {
            return;
        };
        mem::swap(batch, &mut state.queue);
        state.taken += mem::take(&mut state.queued);
        if batch.len() < 2 {
            self.finish_batch(channel, consumer);
        }
    }

    /// The handle has yielded all that it took.
    pub(crate) fn finish_batch(&mut self, channel: ChannelId, consumer: ConsumerId) {
        if let Some(consumer) = self.consumer_mut(channel, consumer) {
            let taken = mem::take(&mut consumer.taken);
            self.release(taken);
        }
    }

    fn end_consumer(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
        end: ConsumerEnd,
        wakes: &mut Wakes,
    ) {
        if let Some(consumer) = self.consumer_mut(channel, consumer) {
            let goes_on = matches!(end, ConsumerEnd::CancelTimedOut);
            let counted = consumer.finish(end, wakes);
            // Its handle does not wait any more.
            consumer.uncounted = !goes_on;
            self.release(counted);
        }
    }

    /// Its handle was told that the consumer has ended, and takes nothing more: what it still gets
    /// is put back.
    pub(crate) fn desert_consumer(
        &mut self,
        channel: ChannelId,
        consumer: ConsumerId,
        tag: &ShortStr,
    ) {
        if let Some(mut commands) = self.machine.channel(channel) {
            commands.abandon_consumer(tag, consumer);
        }
    }

    /// What the consumer has and gets does not count any more.
    fn uncount(&mut self, channel: ChannelId, consumer: ConsumerId) {
        if let Some(consumer) = self.consumer_mut(channel, consumer) {
            let counted = consumer.uncount();
            self.release(counted);
        }
    }

    /// So many bytes of messages were taken.
    pub(crate) fn release(&mut self, bytes: usize) {
        self.undelivered = self.undelivered.saturating_sub(bytes);
    }

    /// Whether there is room for deliveries.
    pub(crate) fn wants_input(&self) -> bool {
        if self.machine.close_reason().is_some() && !self.machine.has_transmit() {
            // Nothing is of interest now but the answer to the close.
            return true;
        }
        let part = if self.reading_paused { 2 } else { 1 };
        let undelivered_max = if self.is_awaited() {
            UNDELIVERED_AWAITED_MAX
        } else {
            UNDELIVERED_MAX
        };
        self.undelivered < undelivered_max / part && self.unpublished() < ANSWERS_MAX / part
    }

    /// Whether somebody waits for the server to say something.
    fn is_awaited(&self) -> bool {
        self.awaited > 0 || !self.requests.is_empty() || !self.publishers.is_empty()
    }

    /// How much output waits that cannot be publishes, in bytes: of these, one at most is accepted
    /// beyond each high water mark, and one of the two fits into a frame.
    fn unpublished(&self) -> usize {
        let limits = self.machine.limits();
        let body = usize::try_from(limits.body).unwrap_or(usize::MAX);
        let frame = usize::try_from(self.machine.tuning().frame_max).unwrap_or(usize::MAX);
        let published = [
            limits.output_high,
            frame.min(body),
            limits.output_backlog,
            body,
        ]
        .into_iter()
        .fold(0, usize::saturating_add);
        self.machine.buffered().saturating_sub(published)
    }

    // Events.

    /// Takes what happened to those who wait for it.
    pub(crate) fn pump(&mut self, wakes: &mut Wakes) {
        while let Some(event) = self.machine.poll_event() {
            match event {
                Event::Delivered(delivery) => self.on_delivered(delivery, wakes),
                Event::Settled {
                    channel,
                    first,
                    last,
                    outcome,
                } => self.on_settled(channel, first, last, &outcome, wakes),
                Event::Reply { request, reply, .. } => {
                    self.answer(request, Answer::Reply(reply), wakes);
                }
                Event::Got {
                    request, message, ..
                } => self.answer(request, Answer::Got(message), wakes),
                Event::Failed { request, cause } => {
                    self.answer(request, Answer::Failed(cause), wakes);
                }
                Event::Returned(returned) => self.on_returned(returned, wakes),
                Event::ConsumerCancelled {
                    channel,
                    consumer,
                    tag,
                } => {
                    let end = ConsumerEnd::Error(Error::ConsumerCancelled { tag });
                    self.end_consumer(channel, consumer, end, wakes);
                }
                Event::ChannelClosed { channel, reason } => {
                    self.on_channel_closed(channel, &reason, wakes);
                }
                Event::Opened => {
                    self.opened = true;
                    self.life.wake_all(wakes);
                }
                Event::SecretDue => {
                    self.secret_due = true;
                    self.life.wake_all(wakes);
                }
                Event::Closed(reason) => self.on_closed(&reason, wakes),
                Event::Writable
                | Event::BacklogWritable
                | Event::ChannelWritable { .. }
                | Event::Unblocked
                | Event::Flow { .. } => {
                    self.publishers.wake_all(wakes);
                }
                // What it holds back asks the machine itself.
                _ => {}
            }
        }
        let channel_count = self.machine.channel_count();
        if channel_count < mem::replace(&mut self.channel_count, channel_count) {
            self.life.wake_all(wakes);
        }
    }

    #[inline]
    fn on_delivered(&mut self, delivery: client::Delivery, wakes: &mut Wakes) {
        let weight = weight(delivery.content.body.len());
        if let Some(consumer) = self.consumer_mut(delivery.channel, delivery.consumer) {
            consumer.queue.push_back(delivery);
            wakes.add(consumer.waker.take());
            if !consumer.uncounted {
                consumer.queued += weight;
                self.undelivered += weight;
            }
        }
    }

    fn on_settled(
        &mut self,
        channel: ChannelId,
        first: PublishSeq,
        last: PublishSeq,
        outcome: &Outcome,
        wakes: &mut Wakes,
    ) {
        if let Some(channel) = self.channels.get_mut(channel) {
            let confirms = &mut channel.confirms;
            confirms.settle(first.get()..=last.get(), outcome, &mut self.awaited, wakes);
        }
        // There is room in the window of unconfirmed publishes.
        if !self.publishers.is_empty() {
            let room = last.get() - first.get() + 1;
            self.publishers.wake(channel, room, wakes);
        }
    }

    fn on_returned(&mut self, returned: client::Returned, wakes: &mut Wakes) {
        let (channel, seq) = (returned.channel, returned.seq);
        let message = ReturnedMessage::from(returned);
        let Some(channel) = self.channels.get_mut(channel) else {
            return;
        };
        let unclaimed = match seq {
            Some(seq) => channel.confirms.keep_returned(seq.get(), message),
            None => Some(message),
        };
        if let Some(message) = unclaimed
            && let Some(returns) = &mut channel.returns
        {
            let weight = weight(message.body.len());
            self.undelivered += weight;
            returns.queued += weight;
            returns.queue.push_back(message);
            returns.waiting.wake_all(wakes);
        }
    }

    /// A channel has ended, by whomever.
    pub(crate) fn on_channel_closed(
        &mut self,
        id: ChannelId,
        reason: &CloseReason,
        wakes: &mut Wakes,
    ) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.closed = Some(reason.clone());
            let counted = channel.finish(&Error::ChannelClosed(reason.clone()), wakes);
            self.release(counted);
        }
        self.publishers.wake_all(wakes);
        self.life.wake_all(wakes);
    }

    fn on_closed(&mut self, reason: &CloseReason, wakes: &mut Wakes) {
        self.closed = Some(reason.clone());
        let error = Error::ConnectionClosed(reason.clone());
        for channel in self.channels.values_mut() {
            let _all_over = channel.finish(&error, wakes);
        }
        self.publishers.wake_all(wakes);
        self.flushers.wake_all(wakes);
        self.life.wake_all(wakes);
    }
}

impl ChannelState {
    /// Nothing more comes for anybody who listens to the channel. Gives back how much counted as
    /// undelivered, and does not any more: it cannot grow.
    fn finish(&mut self, error: &Error, wakes: &mut Wakes) -> usize {
        let mut counted = 0;
        for consumer in self.consumers.values_mut() {
            counted += consumer.finish(ConsumerEnd::Error(error.clone()), wakes);
        }
        if let Some(returns) = &mut self.returns {
            returns.waiting.wake_all(wakes);
            counted += mem::take(&mut returns.queued);
        }
        counted
    }
}

impl ConsumerState {
    /// The first end is the one that counts. Gives back how much was undelivered.
    fn finish(&mut self, end: ConsumerEnd, wakes: &mut Wakes) -> usize {
        self.end.get_or_insert(end);
        wakes.add(self.waker.take());
        self.uncount()
    }

    fn uncount(&mut self) -> usize {
        self.uncounted = true;
        mem::take(&mut self.queued) + mem::take(&mut self.taken)
    }
}
