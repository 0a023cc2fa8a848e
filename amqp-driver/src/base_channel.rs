//! The handle of a channel in any mode.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use amqp_core::{
    ApiMisuse, Body, ChannelId, ChannelStats, ClientSent, Close, CloseCause, CloseReason,
    MethodDef as _, NoWait, Request, RequestId, Requeue, Tags,
    client::{self, Prefetch},
    protocol::{Method, ReplyCode, basic, channel, tx},
};

use crate::{
    acker::Acker,
    connection::Connection,
    consume_options::{ConsumeOptions, OnDrop},
    consumer::{Acks, Consumer, ManualAck, NoAck},
    error::Error,
    returns::Returns,
    session::{
        budget::Budget,
        publish::Publisher,
        shared::{Shared, Wait},
        state::State,
    },
    states::ChannelStates,
};

/// The operations of a channel in every mode: requests, consuming, fetching, acknowledging.
///
/// Publishing is on the types of the three modes, which dereference to this one:
/// [`Channel`](crate::Channel), [`ConfirmChannel`](crate::ConfirmChannel) and
/// [`TxChannel`](crate::TxChannel). A function that takes a `&BaseChannel` accepts each of them,
/// and one that takes a `&Channel` cannot lose the confirm of a message.
///
/// Clones share the channel, and can be used from any number of tasks at once. The channel is
/// closed when the last clone is dropped, its consumers and the [`Acker`]s of its deliveries
/// included.
///
/// A channel error ends the channel and is returned by the call that caused it; the connection
/// stays open (section 4.8.1 of the specification).
#[derive(Clone, Debug)]
pub struct BaseChannel(Arc<Inner>);

/// The state shared by a channel's handles. Dropping it closes the channel.
#[derive(Debug)]
pub(crate) struct Inner {
    connection: Connection,
    pub(crate) id: ChannelId,
    pub(crate) budget: Budget,
    /// Counts the `basic.recover` methods sent and the recoveries of the channel. Each makes the
    /// earlier deliveries stale.
    stale: Arc<AtomicU32>,
}

impl Inner {
    pub(crate) fn shared(&self) -> &Shared {
        self.connection.shared()
    }

    pub(crate) fn publisher(&self) -> Publisher<'_> {
        Publisher {
            shared: self.shared(),
            channel: self.id,
            budget: &self.budget,
        }
    }

    pub(crate) fn stale(&self) -> u32 {
        self.stale.load(Ordering::Relaxed)
    }

    /// Settles deliveries. Those of a channel that is lost are stale.
    pub(crate) fn settle<E>(
        &self,
        command: impl FnOnce(&mut client::ChannelMut<'_>) -> Result<(), E>,
    ) -> Result<(), Error>
    where
        Error: From<E>,
    {
        self.shared().command(|state| {
            if state.recovery.is_none() {
                return Ok(command(&mut state.commands(self.id)?)?);
            }
            if let Some(error) = state.channel_error(self.id) {
                return Err(error);
            }
            let open = |channel: &client::ChannelMut<'_>| channel.is_open();
            match state.machine.channel(self.id).filter(open) {
                Some(mut channel) => Ok(command(&mut channel)?),
                None => Err(match state.machine.close_reason() {
                    Some(reason) if !state.is_held(None) => Error::ConnectionClosed(reason.clone()),
                    _ => Error::Stale,
                }),
            }
        })
    }

    /// Records the effect of a request on the handles' state, before its reply can arrive.
    fn note_called<R: ClientSent>(&self, state: &mut State, id: RequestId, request: &R) {
        state.record(self.id, Some(id), || request.clone().into());
        if R::ID == basic::Recover::ID {
            state.drop_stale(self.id);
        } else if let Some(channel) = state.channels.get_mut(self.id) {
            if R::ID == basic::Qos::ID {
                channel.qos_by_user = true;
            } else if R::ID == tx::Rollback::ID {
                channel.transaction_lost = false;
            }
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let id = self.id;
        self.shared().command_and_process(|state, later| {
            state.forget_recorded(id);
            state.remove_channel(id, later);
            if let Some(mut channel) = state.machine.channel(id) {
                // A channel that is not open is closing already, or is closed once it opens.
                let _closing = channel.close(ReplyCode::SUCCESS, "");
            }
        });
    }
}

impl BaseChannel {
    pub(crate) fn new(connection: Connection, id: ChannelId, stale: Arc<AtomicU32>) -> Self {
        Self(Arc::new(Inner {
            connection,
            id,
            budget: Budget::default(),
            stale,
        }))
    }

    /// The error of a call. `Some` once the channel or its connection has ended.
    pub(crate) fn end(&self) -> Option<Error> {
        self.shared().lock().channel_error(self.id())
    }

    pub(crate) const fn from_inner(inner: Arc<Inner>) -> Self {
        Self(inner)
    }

    pub(crate) const fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    pub(crate) fn shared(&self) -> &Shared {
        self.0.shared()
    }

    /// The channel's number on the wire.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.0.id.number()
    }

    /// The channel's identity, which a later channel of the same number does not share.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.0.id
    }

    /// The connection of the channel.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Whether the channel accepts commands.
    #[must_use]
    pub fn is_open(&self) -> bool {
        let mut state = self.shared().lock();
        let commands = state.commands(self.id());
        commands.is_ok_and(|channel| channel.is_open())
    }

    /// Whether the channel is open, or is being recovered.
    pub(crate) fn is_usable(&self) -> bool {
        let held = {
            let state = self.shared().lock();
            state.is_held(Some(self.id())) && state.channel_error(self.id()).is_none()
        };
        held || self.is_open()
    }

    /// The reason for which the channel or its connection ended. `Some` once either has.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        let state = self.shared().lock();
        let of_channel = state
            .channels
            .get(self.id())
            .and_then(|channel| channel.closed.clone());
        of_channel.or_else(|| state.closed.clone())
    }

    /// The statistics of the channel: publishes, deliveries, consumers, prefetch. `Some` until the
    /// channel has ended. Takes the connection's lock and copies them.
    ///
    /// Deliveries count when they arrive, before a consumer yields them. One that is requeued for
    /// want of room counts again when it is redelivered.
    #[must_use]
    pub fn stats(&self) -> Option<ChannelStats> {
        let mut state = self.shared().lock();
        let channel = state.machine.channel(self.id());
        channel.map(|channel| channel.stats())
    }

    /// Sends a request and waits for its reply: `queue.declare`, `exchange.bind`, `basic.qos` and
    /// every other synchronous method of a channel. Several requests can be outstanding at once.
    ///
    /// ```no_run
    /// use amqp_driver::protocol::{basic, queue};
    ///
    /// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
    /// let declared = channel
    ///     .call(queue::Declare::default().queue("tasks"))
    ///     .await?;
    /// println!("{} messages in {}", declared.message_count, declared.queue);
    /// channel.call(basic::Qos::default().prefetch_count(100)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Dropped before the first poll, it sends nothing; afterwards the request is sent and its
    /// reply ignored.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a request for which RabbitMQ would close the connection, a request
    /// with no-wait, or a `basic.cancel` of a [`Consumer`] of this channel, for which
    /// [`Consumer::cancel`] is used. [`Error::ChannelClosed`] when the server refuses the request.
    pub async fn call<R: Request + ClientSent>(&self, request: R) -> Result<R::Reply, Error> {
        let (shared, id) = (self.shared(), self.id());
        let called = shared.command_when_ready(Some(id), |state, _| {
            let channel = state.commands(id)?;
            check_called(&channel, &request)?;
            if R::ID == tx::Select::ID {
                state.begin_transactions(id);
            } else if R::ID == tx::Commit::ID && state.is_transaction_lost(id) {
                return Err(Error::TransactionLost);
            }
            let number = state.commands(id)?.call(&request)?;
            self.0.note_called(state, number, &request);
            Ok(Wait::new(shared, state, Some(id), number))
        });
        called.await?.reply().await
    }

    /// Sends a request with no-wait. If the server refuses it, it closes the channel, and a later
    /// call returns the reason.
    ///
    /// # Errors
    /// As [`call`](Self::call); also when the request leaves a name to the server, which only a
    /// reply would contain.
    pub fn send<R: NoWait + ClientSent>(&self, request: &R) -> Result<(), Error> {
        self.shared().command(|state| {
            let mut channel = state.commands(self.id())?;
            check_called(&channel, request)?;
            channel.send(request)?;
            state.record(self.id(), None, || request.clone().into());
            Ok(())
        })
    }

    /// Starts a consumer with acknowledgements. The server requeues the deliveries that are
    /// unacknowledged when the channel ends ([RabbitMQ's page][confirms]). The request's `no_ack`
    /// and `no_wait` are ignored.
    ///
    /// The prefetch is that of [`Config::prefetch`](crate::Config), 1000 messages by default,
    /// unless `basic.qos` was called on this channel: the server sends no more unacknowledged
    /// messages than that ([RabbitMQ's page][prefetch]). In addition, the handles buffer at most
    /// [`Limits::undelivered`](amqp_core::Limits) bytes of deliveries that are not taken, over all
    /// consumers of a connection; deliveries beyond that are requeued, and redelivered once there
    /// is room.
    ///
    /// # Delivery limit
    /// A quorum queue counts the failed deliveries of a message. Above its `x-delivery-limit`, 20
    /// by default since RabbitMQ 4.0, it dead-letters the message, or drops it without a
    /// dead-letter exchange ([RabbitMQ's page][limit]). Dropping a consumer requeues the deliveries
    /// that it has not yielded, up to the whole prefetch. Until RabbitMQ 4.2 each requeue counts,
    /// so that a program which starts a consumer per message loses messages that it has never seen:
    /// keep one consumer, set a prefetch of 1, or use [`get`](Self::get). Since 4.3 `basic.reject`
    /// counts and [`basic.nack`][nack], which a dropped consumer sends, does not.
    ///
    /// [confirms]: https://www.rabbitmq.com/docs/confirms
    /// [prefetch]: https://www.rabbitmq.com/docs/consumer-prefetch
    /// [limit]: https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
    /// [nack]: https://github.com/rabbitmq/rabbitmq-server/pull/15387
    ///
    /// # Cancel safety
    /// Dropping it cancels the consumer and requeues its deliveries. So does a timeout. The cancel
    /// is sent after the server's reply, and the tag is in use until then
    /// ([`ApiMisuse::DuplicateConsumerTag`](amqp_core::ApiMisuse)): leave the tag empty, so that
    /// each consumer gets its own.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn consume(&self, consume: basic::Consume) -> Result<Consumer<ManualAck>, Error> {
        self.consume_with(consume, ConsumeOptions::default()).await
    }

    /// Starts a consumer as [`consume`](Self::consume) does, with its own prefetch and a policy for
    /// deliveries that are dropped without an acknowledgement.
    ///
    /// ```no_run
    /// use amqp_driver::{ConsumeOptions, OnDrop, Prefetch, protocol::basic};
    ///
    /// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
    /// let options = ConsumeOptions::default()
    ///     .prefetch(Prefetch::Count(16))
    ///     .on_drop(OnDrop::Requeue);
    /// let jobs = basic::Consume::default().queue("jobs");
    /// let mut consumer = channel.consume_with(jobs, options).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// As [`consume`](Self::consume).
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub async fn consume_with(
        &self,
        consume: basic::Consume,
        options: ConsumeOptions,
    ) -> Result<Consumer<ManualAck>, Error> {
        self.start_consumer(consume, options).await
    }

    /// Starts a consumer without acknowledgements: the server counts a message as acknowledged when
    /// it is sent, and a message lost in flight is lost ([RabbitMQ's
    /// page](https://www.rabbitmq.com/docs/confirms)). No prefetch applies: the server sends as
    /// fast as the connection reads. The request's `no_wait` is ignored.
    ///
    /// Reading pauses while [`Limits::undelivered`](amqp_core::Limits) bytes of such messages are
    /// not taken. A consumer ends with [`Error::Overflow`] when it takes none of them for
    /// [`Timeouts::unread`](amqp_core::Timeouts), or when eight times as many bytes accumulate
    /// while a reply of the server is awaited.
    ///
    /// # Cancel safety
    /// As [`consume`](Self::consume), but the deliveries are lost.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub async fn consume_no_ack(&self, consume: basic::Consume) -> Result<Consumer<NoAck>, Error> {
        self.consume_no_ack_with(consume, ConsumeOptions::default())
            .await
    }

    /// Starts a consumer as [`consume_no_ack`](Self::consume_no_ack) does, with options. Of these
    /// [`report_interruptions`](ConsumeOptions::report_interruptions) applies: messages in flight at
    /// a loss of the connection are lost.
    ///
    /// # Cancel safety
    /// As [`consume_no_ack`](Self::consume_no_ack).
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub async fn consume_no_ack_with(
        &self,
        consume: basic::Consume,
        options: ConsumeOptions,
    ) -> Result<Consumer<NoAck>, Error> {
        self.start_consumer(consume.no_ack(true), options).await
    }

    pub(crate) async fn start_consumer<A: Acks>(
        &self,
        mut consume: basic::Consume,
        options: ConsumeOptions,
    ) -> Result<Consumer<A>, Error> {
        consume.no_ack = A::NO_ACK;
        consume.no_wait = false;
        let shared = self.shared();
        let started = shared.command_when_ready(Some(self.id()), |state, _| {
            if !A::NO_ACK {
                self.set_prefetch(state, options.prefetch)?;
            }
            let mut channel = state.commands(self.id())?;
            let (id, tag, request) = channel.consume(consume.clone())?;
            let progress = Arc::default();
            let notices = options.report_interruptions;
            let counter = Arc::clone(&progress);
            state.add_consumer(self.id(), id, tag.clone(), A::NO_ACK, notices, counter);
            state.record_consumer(self.id(), id, request, &tag, &consume);
            let wait = Wait::new(shared, state, Some(self.id()), request);
            // The handle exists before the reply, so that dropping the wait cancels the consumer.
            let consumer =
                Consumer::<A>::new(Arc::clone(&self.0), id, tag, options.on_drop, progress);
            Ok((consumer, wait))
        });
        let (consumer, wait) = started.await?;
        wait.reply::<basic::ConsumeOk>().await?;
        Ok(consumer)
    }

    /// Sets the prefetch of the consumer to be started, unless `own` is `None` and the application
    /// has called `basic.qos`. RabbitMQ applies it to consumers started afterwards
    /// (<https://www.rabbitmq.com/docs/consumer-prefetch>).
    fn set_prefetch(&self, state: &mut State, own: Option<Prefetch>) -> Result<(), Error> {
        let default = self.connection().prefetch();
        let (by_user, current) = match state.channels.get_mut(self.id()) {
            Some(channel) => (channel.qos_by_user, channel.prefetch),
            None => return Ok(()),
        };
        let wanted = match own {
            None if by_user => return Ok(()),
            own => own.unwrap_or(default).count(),
        };
        if wanted == current && !by_user {
            return Ok(());
        }
        let qos = basic::Qos::default().prefetch_count(wanted);
        let request = state.commands(self.id())?.call(&qos)?;
        state.record(self.id(), None, || qos.into());
        // The reply is not awaited: RabbitMQ answers in order, or closes the channel.
        state.machine.abandon(self.id(), request);
        if let Some(channel) = state.channels.get_mut(self.id()) {
            (channel.prefetch, channel.qos_by_user) = (wanted, false);
        }
        Ok(())
    }

    /// Fetches one message. Returns `None` if the queue is empty. For many messages, a consumer is
    /// more efficient.
    ///
    /// # Cancel safety
    /// Dropping it requeues the message; a message fetched with `no_ack` is lost.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn get(&self, get: basic::Get) -> Result<Option<Fetched>, Error> {
        let shared = self.shared();
        let fetching = shared.command_when_ready(Some(self.id()), |state, _| {
            let request = state.commands(self.id())?.get(&get)?;
            Ok(Wait::new(shared, state, Some(self.id()), request))
        });
        let message = fetching.await?.message().await?;
        Ok(message.map(|message| Fetched {
            acker: message
                .tag
                .map(|tag| Acker::new(Arc::clone(&self.0), tag, OnDrop::Leave)),
            method: message.method,
            properties: message.content.properties,
            body: message.content.body,
        }))
    }

    /// Acknowledges deliveries by their tags, such as all of them at once. To acknowledge one
    /// delivery, use its [`Acker`], which cannot name another.
    ///
    /// # Errors
    /// [`Error::Misuse`] when a tag is not outstanding on this channel, for which RabbitMQ would
    /// close the channel (<https://www.rabbitmq.com/docs/confirms>); otherwise the channel is
    /// closed, and the server has requeued the deliveries.
    pub fn ack(&self, tags: Tags) -> Result<(), Error> {
        self.0.settle(|channel| channel.ack(tags))
    }

    /// Rejects deliveries by their tags with [`basic.nack`](https://www.rabbitmq.com/docs/nack),
    /// RabbitMQ's extension.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(&self, tags: Tags, requeue: Requeue) -> Result<(), Error> {
        self.0.settle(|channel| channel.nack(tags, requeue))
    }

    /// Asks the server to redeliver the outstanding deliveries, without a reply. The standard
    /// deprecates it in favour of `basic.recover`, for which [`call`](Self::call) is used.
    ///
    /// # Errors
    /// When the channel is closed, or without `requeue`, which RabbitMQ does not implement.
    pub fn recover_async(&self, requeue: bool) -> Result<(), Error> {
        self.shared().command(|state| {
            state.commands(self.id())?.recover_async(requeue)?;
            state.drop_stale(self.id());
            Ok(())
        })
    }

    /// Returns the stream of mandatory messages that no queue accepted. Without such a stream they
    /// are dropped. On a [`ConfirmChannel`](crate::ConfirmChannel), the [`Confirm`](crate::Confirm)
    /// of each publish reports its return instead.
    #[must_use]
    pub fn returns(&self) -> Returns {
        Returns::new(Arc::clone(&self.0))
    }

    /// Returns the stream of the channel's states: open, paused by the server (`channel.flow`),
    /// closed.
    #[must_use]
    pub fn states(&self) -> ChannelStates {
        ChannelStates::new(Arc::clone(self.connection().shared()), self.id())
    }

    /// Closes the channel. Everything accepted before is sent first; its consumers end, and the
    /// server requeues their unacknowledged deliveries.
    ///
    /// # Cancel safety
    /// Once polled, the channel is closing, and dropping it only drops the wait.
    ///
    /// # Errors
    /// [`Error::ChannelClosed`] when the server has closed the channel, or closes it before it
    /// reads this close: the messages published last may be lost, for the returned reason.
    /// [`Error::Unanswered`] when the server does not answer.
    pub async fn close(&self) -> Result<(), Error> {
        let shared = self.shared();
        let id = self.id();
        let wait = shared.command_and_process(|state, later| {
            let close = Close {
                code: ReplyCode::SUCCESS,
                text: "goodbye".into(),
                method: None,
            };
            if let Some(error) = state.channel_error(id) {
                return Err(error);
            }
            let wait = if state.forget_recorded(id) {
                // The server has no such channel, or it is closed when the recovery ends.
                None
            } else {
                let request = state.commands(id)?.close(close.code, &close.text)?;
                Some(Wait::new(shared, state, Some(id), request))
            };
            let reason = CloseReason::from(CloseCause::Requested(close)).on_channel(id.number());
            state.on_channel_closed(id, &reason, later);
            Ok::<_, Error>(wait)
        })?;
        if let Some(wait) = wait {
            wait.reply::<channel::CloseOk>().await?;
        }
        Ok(())
    }
}

/// Refuses a `basic.cancel` of a consumer that has a handle: its stream would never end.
fn check_called<R: ClientSent>(
    channel: &client::ChannelMut<'_>,
    request: &R,
) -> Result<(), ApiMisuse> {
    if R::ID == basic::Cancel::ID
        && let Method::BasicCancel(cancel) = request.clone().into()
        && channel.has_consumer(&cancel.consumer_tag)
    {
        return Err(ApiMisuse::NotSentThisWay { method: R::NAME });
    }
    Ok(())
}

/// A fetched message.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "dropped without an acknowledgement, it stays outstanding until the channel ends"]
pub struct Fetched {
    /// The right to acknowledge it. `Some` unless it was fetched with `no_ack`.
    pub acker: Option<Acker>,
    /// The arguments of `basic.get-ok`, such as the routing key and the number of messages left in
    /// the queue.
    pub method: basic::GetOk,
    /// The properties, as encoded on the wire.
    pub properties: amqp_core::EncodedProperties,
    /// The body.
    pub body: Body,
}

impl Fetched {
    /// Acknowledges the message. Does nothing if it was fetched with `no_ack`.
    ///
    /// # Errors
    /// When the channel is closed: the server has requeued the message.
    pub fn ack(self) -> Result<(), Error> {
        self.acker.map_or(Ok(()), Acker::ack)
    }

    /// Rejects the message. Does nothing if it was fetched with `no_ack`.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: Requeue) -> Result<(), Error> {
        self.acker.map_or(Ok(()), |acker| acker.reject(requeue))
    }
}
