//! The handle of a channel.

use std::{future::poll_fn, sync::Arc, task::Poll};

use amqp_core::{
    Body, ChannelId, ClientSent, Close, CloseCause, CloseReason, MethodDef as _, NoWait,
    PropertyList, PublishSeq, Request, Requeue, Tags, client,
    protocol::{Method, ReplyCode, basic, channel, confirm, tx},
};

use crate::{
    confirm::ConfirmChannel,
    connection::Connection,
    consumer::{Acker, Acks, Consumer, ManualAck, NoAck},
    error::Error,
    publishers::Place,
    returns::Returns,
    shared::{Shared, Wait},
    state::State,
    tx::TxChannel,
    waiters::Wakes,
};

/// A channel: requests, publishing, consuming and fetching, all in strict order.
///
/// It is used by reference from any number of tasks at once. It is not cloned, because putting it
/// into confirm or transaction mode changes what publishing means, for everybody on the channel:
/// that takes the channel and gives another type. Dropping it closes the channel, once its
/// consumers and the acknowledgers of its deliveries are dropped too.
///
/// An error of the channel is told to the call that caused it and ends the channel; the connection
/// goes on.
#[derive(Debug)]
pub struct Channel(Arc<Inner>);

/// What keeps a channel open.
#[derive(Debug)]
pub(crate) struct Inner {
    connection: Connection,
    pub(crate) id: ChannelId,
}

impl Inner {
    pub(crate) fn shared(&self) -> &Shared {
        self.connection.shared()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let id = self.id;
        self.shared().command_and_pump(|state, _| {
            state.remove_channel(id);
            if let Some(mut channel) = state.machine.channel(id) {
                // One that is not open is being closed already, or will be when it opens.
                let _closing = channel.close(ReplyCode::SUCCESS, "");
            }
        });
    }
}

impl Channel {
    pub(crate) fn new(connection: Connection, id: ChannelId) -> Self {
        Self(Arc::new(Inner { connection, id }))
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
    /// use amqp_client::protocol::{basic, queue};
    ///
    /// # async fn example(channel: amqp_client::Channel) -> Result<(), amqp_client::Error> {
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
        self.wait_for(|channel| {
            check_called(channel, &request)?;
            channel.call(&request)
        })?
        .reply()
        .await
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

    /// Publishes a message. It returns when the message is accepted into the connection's output
    /// buffer, which is bounded, not when it has reached the server: see
    /// [`confirm_select`](Self::confirm_select) for that.
    ///
    /// A body of up to a few kilobytes is copied, a larger one kept by reference until it is sent:
    /// pass `Bytes` to share it.
    ///
    /// ```no_run
    /// use amqp_client::protocol::basic;
    ///
    /// # async fn example(channel: amqp_client::Channel) -> Result<(), amqp_client::Error> {
    /// let to_hello = basic::Publish::default().routing_key("hello")?;
    /// let persistent = basic::Properties::default().delivery_mode(2);
    /// channel.publish(&to_hello, &persistent, "Hello World!").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// The message is accepted whole or not at all; if the future is dropped before it is ready,
    /// not at all.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a message that is too large, or one that RabbitMQ would close the
    /// connection for; [`Error::ChannelClosed`] and [`Error::ConnectionClosed`] when it can no
    /// longer be sent. It waits as long as the server holds publishing back.
    pub async fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        publish_on(&self.0, publish, properties, body.into(), false).await?;
        Ok(())
    }

    /// Starts a consumer. Each of its messages is to be acknowledged, and goes back to the queue if
    /// the channel ends before it was. Set a prefetch with `basic.qos` first: without one, the
    /// server sends the whole queue at once. While more than 16 MiB of messages are not taken, or
    /// 128 MiB if an answer or a confirm is waited for, nothing more is read from the connection.
    ///
    /// # Cancel safety
    /// Dropping it cancels the consumer, and puts back what was delivered to it.
    ///
    /// # Errors
    /// As [`call`](Self::call); [`Error::Misuse`] when the request says `no_ack` or `no_wait`.
    pub async fn consume(&self, consume: basic::Consume) -> Result<Consumer<ManualAck>, Error> {
        self.start_consumer(consume).await
    }

    /// Starts a consumer whose messages count as acknowledged when they are sent: what is lost on
    /// the way is lost. The server sends as fast as the connection takes it.
    ///
    /// # Cancel safety
    /// Dropping it cancels the consumer; what was delivered to it is lost.
    ///
    /// # Errors
    /// As [`consume`](Self::consume).
    pub async fn consume_no_ack(&self, consume: basic::Consume) -> Result<Consumer<NoAck>, Error> {
        self.start_consumer(consume.no_ack(true)).await
    }

    async fn start_consumer<A: Acks>(
        &self,
        mut consume: basic::Consume,
    ) -> Result<Consumer<A>, Error> {
        consume.no_ack = A::NO_ACK;
        consume.no_wait = false;
        let shared = self.shared();
        let (consumer, wait) = shared.command(|state| {
            let mut channel = state.commands(self.id())?;
            let (id, tag, request) = channel.consume(consume)?;
            state.add_consumer(self.id(), id);
            let wait = Wait::new(shared, state, Some(self.id()), request);
            // The handle is there from the start, so that the consumer is cancelled wherever the
            // wait for it is given up.
            Ok::<_, Error>((Consumer::<A>::new(Arc::clone(&self.0), id, tag), wait))
        })?;
        wait.reply::<basic::ConsumeOk>().await?;
        Ok(consumer)
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
            acker: message.tag.map(|tag| Acker::new(Arc::clone(&self.0), tag)),
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
        self.command(|channel| channel.recover_async(requeue))
    }

    /// Listens to mandatory messages that no queue takes. Those that come back while nobody
    /// listens are dropped. A [`ConfirmChannel`] tells of each message by itself.
    #[must_use]
    pub fn returns(&self) -> Returns {
        Returns::new(Arc::clone(&self.0))
    }

    /// Puts the channel into confirm mode: from now on the server tells of each publish whether it
    /// has taken it. RabbitMQ's extension.
    ///
    /// # Cancel safety
    /// Dropping it closes the channel.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn confirm_select(self) -> Result<ConfirmChannel, Error> {
        self.call(confirm::Select::default()).await?;
        Ok(ConfirmChannel::new(self))
    }

    /// Makes the channel transactional: publishes and acknowledgements take effect when they are
    /// committed.
    ///
    /// # Cancel safety
    /// Dropping it closes the channel.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn tx_select(self) -> Result<TxChannel, Error> {
        self.call(tx::Select).await?;
        Ok(TxChannel::new(self))
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
        let wait = shared.command_and_pump(|state, wakes| {
            let close = Close {
                code: ReplyCode::SUCCESS,
                text: "goodbye".into(),
                method: None,
            };
            let request = state.commands(id)?.close(close.code, &close.text)?;
            let wait = Wait::new(shared, state, Some(id), request);
            let reason = CloseReason::from(CloseCause::Requested(close));
            state.on_channel_closed(id, &reason, wakes);
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

/// A consumer that was cancelled behind its handle's back would leave whoever listens to it waiting
/// for ever.
fn check_called<R: ClientSent>(
    channel: &client::ChannelMut<'_>,
    request: &R,
) -> Result<(), amqp_core::ApiMisuse> {
    if R::ID == basic::Cancel::ID
        && let Method::BasicCancel(cancel) = request.clone().into()
        && channel.has_consumer(&cancel.consumer_tag)
    {
        return Err(amqp_core::ApiMisuse::NotSentThisWay { method: R::NAME });
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

/// Publishes as soon as there is room. Its confirm, if there is one, is `awaited` or ignored.
pub(crate) async fn publish_on<P: PropertyList>(
    inner: &Inner,
    publish: &basic::Publish,
    properties: &P,
    body: Body,
    awaited: bool,
) -> Result<Option<PublishSeq>, Error> {
    let mut body = Some(body);
    let mut room = Room { inner, place: None };
    poll_fn(|cx| {
        inner.shared().command(|state| {
            let Some(message) = body.take() else {
                return Poll::Pending;
            };
            match state.publish(inner.id, publish, properties, message) {
                Ok(seq) => {
                    if seq.is_some() {
                        state.expect_confirm(inner.id, awaited);
                    }
                    Poll::Ready(Ok(seq))
                }
                Err(Publishing::Failed(error)) => Poll::Ready(Err(error)),
                Err(Publishing::HeldBack(message)) => {
                    body = Some(message);
                    state.publishers.wait(inner.id, &mut room.place, cx);
                    Poll::Pending
                }
            }
        })
    })
    .await
}

/// Why a publish is not done.
pub(crate) enum Publishing {
    HeldBack(Body),
    Failed(Error),
}

impl State {
    #[inline]
    fn publish<P: PropertyList>(
        &mut self,
        id: ChannelId,
        publish: &basic::Publish,
        properties: &P,
        body: Body,
    ) -> Result<Option<PublishSeq>, Publishing> {
        let published = match self.machine.channel(id) {
            Some(mut channel) => channel.publish(publish, properties, body),
            None => Err(amqp_core::ApiMisuse::ChannelNotOpen.into()),
        };
        match published {
            Ok(seq) => Ok(seq),
            Err(refused) => Err(match refused.into_body() {
                Ok(body) => Publishing::HeldBack(body),
                // A channel that is gone has a reason, which says more.
                Err(misuse) => {
                    Publishing::Failed(self.commands(id).err().unwrap_or(Error::Misuse(misuse)))
                }
            }),
        }
    }
}

/// A place among those who wait to publish, given up on drop.
struct Room<'a> {
    inner: &'a Inner,
    place: Option<Place>,
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let mut wakes = Wakes::default();
        let mut state = self.inner.shared().lock();
        if state.publishers.leave(place) {
            state.pass_on_room(self.inner.id, &mut wakes);
        }
        drop(state);
        wakes.wake();
    }
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
