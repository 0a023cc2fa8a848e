//! The handle of a channel, whatever its mode.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use amqp_core::{
    ApiMisuse, Body, ChannelId, ClientSent, Close, CloseCause, CloseReason, MethodDef as _, NoWait,
    Request, Requeue, Tags,
    client::{self, Prefetch},
    protocol::{Method, ReplyCode, basic, channel, tx},
};

use crate::{
    connection::Connection,
    consumer::{Acker, Acks, ConsumeOptions, Consumer, ManualAck, NoAck, OnDrop},
    error::Error,
    returns::Returns,
    session::{
        budget::Budget,
        shared::{Shared, Wait},
        state::State,
    },
    states::ChannelStates,
};

/// What every channel can do, whatever its mode: requests, consuming, fetching, acknowledging.
///
/// Publishing is on the three types that stand for the modes and dereference to this one:
/// [`Channel`](crate::Channel), [`ConfirmChannel`](crate::ConfirmChannel) and
/// [`TxChannel`](crate::TxChannel). So a function that takes a `&BaseChannel` works
/// with each of them, and one that takes a `&Channel` cannot lose the confirm of a message.
///
/// It can be cloned, and used from any number of tasks at once. The channel is closed when the last
/// clone is dropped, its consumers and the acknowledgers of its deliveries included.
///
/// An error of the channel is told to the call that caused it and ends the channel; the connection
/// goes on.
#[derive(Clone, Debug)]
pub struct BaseChannel(Arc<Inner>);

/// What keeps a channel open.
#[derive(Debug)]
pub(crate) struct Inner {
    connection: Connection,
    pub(crate) id: ChannelId,
    pub(crate) publish_budget: Budget,
    pub(crate) confirm_budget: Budget,
    /// How many times `basic.recover` has made stale what was delivered before.
    recovered: AtomicU32,
}

impl Inner {
    pub(crate) fn shared(&self) -> &Shared {
        self.connection.shared()
    }

    pub(crate) fn recovered(&self) -> u32 {
        self.recovered.load(Ordering::Relaxed)
    }

    /// Notes the effect of a request on what the handles know, before its answer can come.
    fn note_called<R: ClientSent>(&self, state: &mut State) {
        if R::ID == basic::Recover::ID {
            self.note_recover(state);
        } else if R::ID == basic::Qos::ID
            && let Some(channel) = state.channel_mut(self.id)
        {
            channel.qos_by_user = true;
        }
    }

    /// What was delivered before, and was not taken, is stale.
    fn note_recover(&self, state: &mut State) {
        self.recovered.fetch_add(1, Ordering::Relaxed);
        state.on_recover(self.id);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let id = self.id;
        self.shared().command_and_process(|state, later| {
            state.remove_channel(id, later);
            if let Some(mut channel) = state.machine.channel(id) {
                // One that is not open is being closed already, or will be when it opens.
                let _closing = channel.close(ReplyCode::SUCCESS, "");
            }
        });
    }
}

impl BaseChannel {
    pub(crate) fn new(connection: Connection, id: ChannelId) -> Self {
        Self(Arc::new(Inner {
            connection,
            id,
            publish_budget: Budget::default(),
            confirm_budget: Budget::default(),
            recovered: AtomicU32::new(0),
        }))
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

    /// Which channel this is.
    #[must_use]
    pub fn id(&self) -> ChannelId {
        self.0.id
    }

    /// The connection that the channel belongs to.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.0.connection
    }

    /// Whether commands can be given.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.connection().is_channel_open(self.id())
    }

    /// Why the channel has ended, by itself or with its connection; none while it has not.
    #[must_use]
    pub fn close_reason(&self) -> Option<CloseReason> {
        let mut state = self.shared().lock();
        let of_channel = state
            .channel_mut(self.id())
            .and_then(|channel| channel.closed.clone());
        of_channel.or_else(|| state.closed.clone())
    }

    /// Sends a request and waits for its answer: `queue.declare`, `exchange.bind`, `basic.qos` and
    /// every other synchronous method of a channel. Several may be under way at once.
    ///
    /// ```no_run
    /// use amqp_driver::protocol::{basic, queue};
    ///
    /// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
    /// let declared = channel
    ///     .call(queue::Declare::default().queue("tasks")?)
    ///     .await?;
    /// println!("{} messages in {}", declared.message_count, declared.queue);
    /// channel.call(basic::Qos::default().prefetch_count(100)).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// Dropped before the first poll it sends nothing; afterwards the request is sent and its
    /// answer ignored.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a request that RabbitMQ would close the connection for, one that asks
    /// for no answer, or a `basic.cancel` of a [`Consumer`] of this channel, which is
    /// [`Consumer::cancel`]. [`Error::ChannelClosed`] when the server does not like it.
    pub async fn call<R: Request + ClientSent>(&self, request: R) -> Result<R::Reply, Error> {
        let (shared, id) = (self.shared(), self.id());
        let wait = shared.command(|state| {
            let channel = state.commands(id)?;
            check_called(&channel, &request)?;
            if R::ID == tx::Select::ID {
                state.begin_transactions(id);
            }
            let request = state.commands(id)?.call(&request)?;
            self.0.note_called::<R>(state);
            Ok::<_, Error>(Wait::new(shared, state, Some(id), request))
        })?;
        wait.reply().await
    }

    /// Sends a request that asks for no answer. Should it go wrong, the server closes the channel,
    /// which a later call will tell.
    ///
    /// # Errors
    /// As [`call`](Self::call); also when the answer would have brought a name that is not given.
    pub fn send<R: NoWait + ClientSent>(&self, request: &R) -> Result<(), Error> {
        self.command(|channel| {
            check_called(channel, request)?;
            channel.send(request)
        })
    }

    /// Starts a consumer. Each of its messages is to be acknowledged, and is requeued if the channel
    /// ends before.
    ///
    /// The consumer gets the prefetch of [`Config::prefetch`](crate::Config), 1000 messages by
    /// default, unless `basic.qos` was called on this channel: the server sends no more messages than
    /// that before some are acknowledged. Beside it the handles keep at most
    /// [`Limits::undelivered`](amqp_core::Limits) bytes of messages that are not taken, of all
    /// consumers of a connection together; what is delivered beyond that is requeued, and comes again
    /// when there is room.
    ///
    /// # Delivery limit
    /// A quorum queue counts the failed deliveries of a message. Beyond its `x-delivery-limit`, 20 by
    /// default since RabbitMQ 4.0, it dead-letters the message, or drops it where no dead-letter
    /// exchange is set ([RabbitMQ's page][limit]). Dropping a consumer requeues what it has not
    /// yielded, up to the whole prefetch. Until RabbitMQ 4.2 each requeue counts, so that a program
    /// which starts a consumer per message loses messages that it has never seen: keep one consumer,
    /// set a prefetch of 1, or use [`get`](Self::get). Since 4.3 `basic.reject` counts and
    /// [`basic.nack`][nack], which a dropped consumer sends, does not.
    ///
    /// [limit]: https://www.rabbitmq.com/docs/quorum-queues#poison-message-handling
    /// [nack]: https://github.com/rabbitmq/rabbitmq-server/pull/15387
    ///
    /// # Cancel safety
    /// Dropping it cancels the consumer, and requeues what was delivered to it. So does a timeout. The
    /// consumer is cancelled when the server has answered, and its tag is in use until then
    /// ([`ApiMisuse::DuplicateConsumerTag`](amqp_core::ApiMisuse)): leave the tag empty, so that each
    /// consumer gets one of its own.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::Misuse`] when the request says `no_ack` or `no_wait`.
    pub async fn consume(&self, consume: basic::Consume) -> Result<Consumer<ManualAck>, Error> {
        self.consume_with(consume, ConsumeOptions::default()).await
    }

    /// Starts a consumer as [`consume`](Self::consume) does, with a prefetch of its own and a policy
    /// for deliveries that are dropped without an acknowledgement.
    ///
    /// ```no_run
    /// use amqp_driver::{ConsumeOptions, OnDrop, Prefetch, protocol::basic};
    ///
    /// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
    /// let options = ConsumeOptions::default()
    ///     .prefetch(Prefetch::Count(16))
    ///     .on_drop(OnDrop::Requeue);
    /// let jobs = basic::Consume::default().queue("jobs")?;
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

    /// Starts a consumer whose messages count as acknowledged when they are sent: what is lost on
    /// the way is lost. The server sends as fast as the connection takes it.
    ///
    /// While [`Limits::undelivered`](amqp_core::Limits) bytes of such messages are not taken, reading
    /// pauses. A consumer that takes none of them for [`Timeouts::unread`](amqp_core::Timeouts), or
    /// lets eight times as much pile up while an answer of the server is awaited, ends with
    /// [`Error::Overflow`].
    ///
    /// # Cancel safety
    /// As [`consume`](Self::consume), but what was delivered to the consumer is lost.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub async fn consume_no_ack(&self, consume: basic::Consume) -> Result<Consumer<NoAck>, Error> {
        self.start_consumer(consume.no_ack(true), ConsumeOptions::default())
            .await
    }

    async fn start_consumer<A: Acks>(
        &self,
        mut consume: basic::Consume,
        options: ConsumeOptions,
    ) -> Result<Consumer<A>, Error> {
        consume.no_ack = A::NO_ACK;
        consume.no_wait = false;
        let shared = self.shared();
        let (consumer, wait) = shared.with(|state, later| {
            later.commanded = true;
            if !A::NO_ACK {
                self.set_prefetch(state, options.prefetch)?;
            }
            let mut channel = state.commands(self.id())?;
            let (id, tag, request) = channel.consume(consume)?;
            let progress = Arc::default();
            state.add_consumer(self.id(), id, tag.clone(), A::NO_ACK, Arc::clone(&progress));
            let wait = Wait::new(shared, state, Some(self.id()), request);
            // The handle is there from the start, so that the consumer is cancelled wherever the
            // wait for it is given up.
            let consumer =
                Consumer::<A>::new(Arc::clone(&self.0), id, tag, options.on_drop, progress);
            Ok::<_, Error>((consumer, wait))
        })?;
        wait.reply::<basic::ConsumeOk>().await?;
        Ok(consumer)
    }

    /// Sets the prefetch of the consumer that is to begin, where the application has not.
    fn set_prefetch(&self, state: &mut State, own: Option<Prefetch>) -> Result<(), Error> {
        let default = self.connection().prefetch();
        let (by_user, current) = match state.channel_mut(self.id()) {
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
        let mut commands = state.commands(self.id())?;
        let request = commands.call(&basic::Qos::default().prefetch_count(wanted))?;
        // RabbitMQ answers it in order, or closes the channel.
        state.machine.abandon(self.id(), request);
        if let Some(channel) = state.channel_mut(self.id()) {
            (channel.prefetch, channel.qos_by_user) = (wanted, false);
        }
        Ok(())
    }

    /// Fetches one message; none if the queue is empty. A consumer is the better way to get many.
    ///
    /// # Cancel safety
    /// Dropping it puts the message back, unless it is fetched with `no_ack`, in which case it is
    /// lost.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn get(&self, get: basic::Get) -> Result<Option<Fetched>, Error> {
        let message = self
            .wait_for(|channel| channel.get(&get))?
            .message()
            .await?;
        Ok(message.map(|message| Fetched {
            acker: message
                .tag
                .map(|tag| Acker::new(Arc::clone(&self.0), tag, OnDrop::Leave)),
            method: message.method,
            properties: message.content.properties,
            body: message.content.body,
        }))
    }

    /// Acknowledges deliveries by their tags. Each delivery brings an [`Acker`], which cannot be
    /// used for another; this is for all at once.
    ///
    /// # Errors
    /// [`Error::Misuse`] when a delivery named is not outstanding on this channel, otherwise when
    /// the channel is closed, so that the server has taken the deliveries back.
    pub fn ack(&self, tags: Tags) -> Result<(), Error> {
        self.command(|channel| channel.ack(tags))
    }

    /// Refuses deliveries by their tags. RabbitMQ's extension.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn nack(&self, tags: Tags, requeue: Requeue) -> Result<(), Error> {
        self.command(|channel| channel.nack(tags, requeue))
    }

    /// Asks the server to deliver again what is outstanding, without an answer. Deprecated by the
    /// standard in favour of `basic.recover`, which can be [called](Self::call).
    ///
    /// # Errors
    /// When the channel is closed, or without `requeue`, which RabbitMQ does not implement.
    pub fn recover_async(&self, requeue: bool) -> Result<(), Error> {
        self.shared().command(|state| {
            state.commands(self.id())?.recover_async(requeue)?;
            self.0.note_recover(state);
            Ok(())
        })
    }

    /// Listens to mandatory messages that no queue takes. Without a listener, they are dropped. A [`ConfirmChannel`](crate::ConfirmChannel) tells of each message by itself.
    #[must_use]
    pub fn returns(&self) -> Returns {
        Returns::new(Arc::clone(&self.0))
    }

    /// The states of the channel, as they change: open, paused by the server (`channel.flow`),
    /// closed.
    #[must_use]
    pub fn states(&self) -> ChannelStates {
        ChannelStates::new(self.connection().shared_arc(), self.id())
    }

    /// Closes the channel. What was accepted before is sent first; consumers end, and what they
    /// have not acknowledged goes back to its queue.
    ///
    /// # Cancel safety
    /// Once polled, the channel is closing, and dropping it only drops the wait.
    ///
    /// # Errors
    /// [`Error::ChannelClosed`] when the server has closed the channel, also when it did so before
    /// it saw this close: what was published last may be lost, for the reason that is told.
    /// [`Error::TimedOut`] when the server does not answer.
    pub async fn close(&self) -> Result<(), Error> {
        let shared = self.shared();
        let id = self.id();
        let wait = shared.command_and_process(|state, later| {
            let close = Close {
                code: ReplyCode::SUCCESS,
                text: "goodbye".into(),
                method: None,
            };
            let request = state.commands(id)?.close(close.code, &close.text)?;
            let wait = Wait::new(shared, state, Some(id), request);
            let reason = CloseReason::from(CloseCause::Requested(close));
            state.on_channel_closed(id, &reason, later);
            Ok::<_, Error>(wait)
        })?;
        wait.reply::<channel::CloseOk>().await?;
        Ok(())
    }

    fn command<T, E>(
        &self,
        command: impl FnOnce(&mut client::ChannelMut<'_>) -> Result<T, E>,
    ) -> Result<T, Error>
    where
        Error: From<E>,
    {
        command_on(&self.0, command)
    }

    fn wait_for<E>(
        &self,
        request: impl FnOnce(&mut client::ChannelMut<'_>) -> Result<amqp_core::RequestId, E>,
    ) -> Result<Wait<'_>, Error>
    where
        Error: From<E>,
    {
        let shared = self.shared();
        shared.command(|state| {
            let request = request(&mut state.commands(self.id())?)?;
            Ok(Wait::new(shared, state, Some(self.id()), request))
        })
    }
}

/// Refuses a cancel of a consumer that has a handle, whose stream would never end.
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

/// Gives a channel a command.
pub(crate) fn command_on<T, E>(
    inner: &Inner,
    command: impl FnOnce(&mut client::ChannelMut<'_>) -> Result<T, E>,
) -> Result<T, Error>
where
    Error: From<E>,
{
    inner.shared().command(|state| {
        let mut channel = state.commands(inner.id)?;
        Ok(command(&mut channel)?)
    })
}

/// A message that was fetched.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "dropped without an acknowledgement, it stays outstanding until the channel ends"]
pub struct Fetched {
    /// What to acknowledge it by; none when it was fetched with `no_ack`.
    pub acker: Option<Acker>,
    /// Where it comes from, and how many are left in the queue.
    pub method: basic::GetOk,
    /// Its properties.
    pub properties: amqp_core::EncodedProperties,
    /// Its body.
    pub body: Body,
}

impl Fetched {
    /// Acknowledges it. It does nothing for one that was fetched with `no_ack`.
    ///
    /// # Errors
    /// When the channel is closed, so that the server has taken the message back.
    pub fn ack(self) -> Result<(), Error> {
        self.acker.map_or(Ok(()), Acker::ack)
    }

    /// Refuses it.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: Requeue) -> Result<(), Error> {
        self.acker.map_or(Ok(()), |acker| acker.reject(requeue))
    }
}
