//! The handles, with blocking calls.

use std::{future::Future, ops::Deref};

use amqp_core::{ClientSent, PropertyList, Request};
use amqp_driver::{
    Body, CloseReason, ConsumeOptions, Error, Fetched, ManualAck, NoAck, PreparedPublish,
    TryPublishError,
    protocol::basic,
    wire::{IntoShortStr, Secret},
};
use ref_cast::RefCast;

use crate::{
    streams::{Confirm, Consumer, Returns},
    wait::{wait, wait_unless_ready},
};

/// A connection to a server. Clones share it, and can be used from any number of threads.
///
/// Wraps [`amqp_driver::Connection`].
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct Connection(amqp_driver::Connection);

impl Connection {
    /// Waits for the end of the handshake.
    ///
    /// # Errors
    /// As [`amqp_driver::Connection::opened`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn opened(&self) -> Result<(), Error> {
        wait(self.0.opened())?
    }

    /// Opens a channel.
    ///
    /// # Errors
    /// As [`amqp_driver::Connection::open_channel`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias("create_channel", "channel"))]
    pub fn open_channel(&self) -> Result<Channel, Error> {
        Ok(wait(self.0.open_channel())??.into())
    }

    /// Creates a pool of `size` channels, all opened at once.
    ///
    /// # Errors
    /// As [`amqp_driver::Connection::channel_pool`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn channel_pool(&self, size: usize) -> Result<ChannelPool, Error> {
        Ok(wait(self.0.channel_pool(size))??.into())
    }

    /// Runs an asynchronous `body` on this thread, and drops it if the connection ends first.
    ///
    /// # Errors
    /// As [`amqp_driver::Connection::scope`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn scope<T>(&self, body: impl Future<Output = T>) -> Result<T, Error> {
        wait(self.0.scope(body))?
    }

    /// Sends the server a new secret, such as an OAuth 2 token, before the old one expires
    /// ([RabbitMQ's page](https://www.rabbitmq.com/docs/oauth2)).
    ///
    /// # Errors
    /// As [`amqp_driver::Connection::update_secret`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn update_secret(&self, secret: Secret, reason: impl IntoShortStr) -> Result<(), Error> {
        wait(self.0.update_secret(secret, reason))?
    }

    /// Waits until everything accepted before was handed to the system.
    ///
    /// # Errors
    /// As [`amqp_driver::Connection::flush`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn flush(&self) -> Result<(), Error> {
        wait(self.0.flush())?
    }

    /// Closes the connection. Everything accepted before is sent first.
    ///
    /// # Errors
    /// As [`amqp_driver::Connection::close`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn close(&self) -> Result<(), Error> {
        wait(self.0.close())?
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::Connection {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::Connection {
        self.0
    }
}

impl From<amqp_driver::Connection> for Connection {
    fn from(handle: amqp_driver::Connection) -> Self {
        Self(handle)
    }
}

impl Connection {
    /// Waits for the end of the connection, and returns the reason.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](crate::within).
    pub fn closed(&self) -> Result<CloseReason, Error> {
        wait(self.0.closed())
    }
}

/// The operations of a channel in every mode: requests, consuming, fetching, acknowledging. Clones
/// share the channel, and can be used from any number of threads.
///
/// Wraps [`amqp_driver::BaseChannel`].
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct BaseChannel(amqp_driver::BaseChannel);

impl BaseChannel {
    /// Sends a request and waits for the reply.
    ///
    /// # Errors
    /// As [`amqp_driver::BaseChannel::call`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn call<R: Request + ClientSent>(&self, request: R) -> Result<R::Reply, Error> {
        wait(self.0.call(request))?
    }

    /// Starts a consumer with [manual
    /// acknowledgement](https://www.rabbitmq.com/docs/confirms#acknowledgement-modes).
    ///
    /// # Errors
    /// As [`amqp_driver::BaseChannel::consume`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias("basic_consume", "subscribe"))]
    pub fn consume(&self, consume: basic::Consume) -> Result<Consumer<ManualAck>, Error> {
        Ok(wait(self.0.consume(consume))??.into())
    }

    /// Starts a consumer with its own [prefetch](https://www.rabbitmq.com/docs/consumer-prefetch)
    /// and drop policy.
    ///
    /// # Errors
    /// As [`amqp_driver::BaseChannel::consume_with`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn consume_with(
        &self,
        consume: basic::Consume,
        options: ConsumeOptions,
    ) -> Result<Consumer<ManualAck>, Error> {
        Ok(wait(self.0.consume_with(consume, options))??.into())
    }

    /// Starts a consumer with `no-ack`: the server counts a message as acknowledged once it is sent
    /// (section 1.1 of the protocol reference, `no-ack`).
    ///
    /// # Errors
    /// As [`amqp_driver::BaseChannel::consume_no_ack`]; [`Error::TimedOut`] also beyond the limit
    /// of [`within`](crate::within).
    pub fn consume_no_ack(&self, consume: basic::Consume) -> Result<Consumer<NoAck>, Error> {
        Ok(wait(self.0.consume_no_ack(consume))??.into())
    }

    /// Starts a consumer as [`consume_no_ack`](Self::consume_no_ack) does, with options.
    ///
    /// # Errors
    /// As [`amqp_driver::BaseChannel::consume_no_ack_with`]; [`Error::TimedOut`] also beyond the
    /// limit of [`within`](crate::within).
    pub fn consume_no_ack_with(
        &self,
        consume: basic::Consume,
        options: ConsumeOptions,
    ) -> Result<Consumer<NoAck>, Error> {
        Ok(wait(self.0.consume_no_ack_with(consume, options))??.into())
    }

    /// Fetches one message. `None` if the queue is empty.
    ///
    /// # Errors
    /// As [`amqp_driver::BaseChannel::get`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias = "basic_get")]
    pub fn get(&self, get: basic::Get) -> Result<Option<Fetched>, Error> {
        wait(self.0.get(get))?
    }

    /// Closes the channel. Everything accepted before is sent first.
    ///
    /// # Errors
    /// As [`amqp_driver::BaseChannel::close`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn close(&self) -> Result<(), Error> {
        wait(self.0.close())?
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::BaseChannel {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::BaseChannel {
        self.0
    }
}

impl From<amqp_driver::BaseChannel> for BaseChannel {
    fn from(handle: amqp_driver::BaseChannel) -> Self {
        Self(handle)
    }
}

impl BaseChannel {
    /// The connection that the channel belongs to.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        Connection::ref_cast(self.0.connection())
    }

    /// Returns an iterator of the mandatory messages that no queue accepts; see
    /// [`amqp_driver::BaseChannel::returns`].
    #[doc(alias("basic_return", "on_return"))]
    #[must_use]
    pub fn returns(&self) -> Returns {
        self.0.returns().into()
    }
}

/// A channel without publisher confirms or transactions. Clones share it.
///
/// Wraps [`amqp_driver::Channel`].
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct Channel(amqp_driver::Channel);

impl Channel {
    /// Publishes a message. Blocks only while the output buffer is full, or the server has paused
    /// publishing ([`connection.blocked`](https://www.rabbitmq.com/docs/connection-blocked),
    /// `channel.flow`).
    ///
    /// # Errors
    /// As [`amqp_driver::Channel::publish`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias = "basic_publish")]
    pub fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        wait_unless_ready(self.0.publish(publish, properties, body))?
    }

    /// Publishes a message like [`publish`](Self::publish), with a method and properties that were
    /// encoded before: faster, for many messages to the same place.
    ///
    /// # Errors
    /// As [`amqp_driver::Channel::publish_prepared`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn publish_prepared(
        &self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        wait_unless_ready(self.0.publish_prepared(prepared, body))?
    }

    /// Puts the channel into [confirm
    /// mode](https://www.rabbitmq.com/docs/confirms#publisher-confirms).
    ///
    /// # Errors
    /// As [`amqp_driver::Channel::confirm_select`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias("publisher_confirms", "confirm_delivery"))]
    pub fn confirm_select(self) -> Result<ConfirmChannel, Error> {
        Ok(wait(self.0.confirm_select())??.into())
    }

    /// Makes the channel transactional (section 1.9.2.1 of the protocol reference).
    ///
    /// # Errors
    /// As [`amqp_driver::Channel::tx_select`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn tx_select(self) -> Result<TxChannel, Error> {
        Ok(wait(self.0.tx_select())??.into())
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::Channel {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::Channel {
        self.0
    }
}

impl From<amqp_driver::Channel> for Channel {
    fn from(handle: amqp_driver::Channel) -> Self {
        Self(handle)
    }
}

/// A channel in confirm mode: the server acknowledges or rejects each publish ([RabbitMQ's
/// page](https://www.rabbitmq.com/docs/confirms)). Clones share it.
///
/// Wraps [`amqp_driver::ConfirmChannel`].
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct ConfirmChannel(amqp_driver::ConfirmChannel);

impl ConfirmChannel {
    /// Publishes a message and returns its [`Confirm`]. Blocks only while the output buffer is
    /// full, or the server has paused publishing.
    ///
    /// # Errors
    /// As [`amqp_driver::ConfirmChannel::publish`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias = "basic_publish")]
    pub fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Confirm, Error> {
        Ok(wait_unless_ready(self.0.publish(publish, properties, body))??.into())
    }

    /// Publishes a message like [`publish`](Self::publish), with a method and properties that were
    /// encoded before: faster, for many messages to the same place.
    ///
    /// # Errors
    /// As [`amqp_driver::ConfirmChannel::publish_prepared`]; [`Error::TimedOut`] also beyond the
    /// limit of [`within`](crate::within).
    pub fn publish_prepared(
        &self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<Confirm, Error> {
        Ok(wait_unless_ready(self.0.publish_prepared(prepared, body))??.into())
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::ConfirmChannel {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::ConfirmChannel {
        self.0
    }
}

impl From<amqp_driver::ConfirmChannel> for ConfirmChannel {
    fn from(handle: amqp_driver::ConfirmChannel) -> Self {
        Self(handle)
    }
}

impl ConfirmChannel {
    /// Publishes a message if there is room for it now, and returns its [`Confirm`]. Does not
    /// block.
    ///
    /// # Errors
    /// As [`amqp_driver::ConfirmChannel::try_publish`].
    pub fn try_publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<Confirm, TryPublishError> {
        Ok(self.0.try_publish(publish, properties, body)?.into())
    }

    /// Publishes a message like [`publish_prepared`](Self::publish_prepared), if there is room for
    /// it now, and returns its [`Confirm`]. Does not block.
    ///
    /// # Errors
    /// As [`amqp_driver::ConfirmChannel::try_publish_prepared`].
    pub fn try_publish_prepared(
        &self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<Confirm, TryPublishError> {
        Ok(self.0.try_publish_prepared(prepared, body)?.into())
    }
}

/// A transactional channel (section 1.9 of the protocol reference). Clones share it.
///
/// Wraps [`amqp_driver::TxChannel`].
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct TxChannel(amqp_driver::TxChannel);

impl TxChannel {
    /// Publishes a message, which takes effect on commit. Blocks only while the output buffer is
    /// full, or the server has paused publishing.
    ///
    /// # Errors
    /// As [`amqp_driver::TxChannel::publish`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias = "basic_publish")]
    pub fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        wait_unless_ready(self.0.publish(publish, properties, body))?
    }

    /// Publishes a message like [`publish`](Self::publish), with a method and properties that were
    /// encoded before: faster, for many messages to the same place.
    ///
    /// # Errors
    /// As [`amqp_driver::TxChannel::publish_prepared`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn publish_prepared(
        &self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        wait_unless_ready(self.0.publish_prepared(prepared, body))?
    }

    /// Commits everything since the last commit or rollback ([RabbitMQ's
    /// guarantees](https://www.rabbitmq.com/docs/semantics)).
    ///
    /// # Errors
    /// As [`amqp_driver::TxChannel::commit`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias = "tx_commit")]
    pub fn commit(&self) -> Result<(), Error> {
        wait(self.0.commit())?
    }

    /// Undoes everything since the last commit or rollback: publishes are dropped, acknowledged
    /// deliveries are outstanding again.
    ///
    /// # Errors
    /// As [`amqp_driver::TxChannel::rollback`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias = "tx_rollback")]
    pub fn rollback(&self) -> Result<(), Error> {
        wait(self.0.rollback())?
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::TxChannel {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::TxChannel {
        self.0
    }
}

impl From<amqp_driver::TxChannel> for TxChannel {
    fn from(handle: amqp_driver::TxChannel) -> Self {
        Self(handle)
    }
}

/// A fixed number of channels in confirm mode, each used by one thread at a time.
///
/// Wraps [`amqp_driver::ChannelPool`].
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct ChannelPool(amqp_driver::ChannelPool);

impl ChannelPool {
    /// Checks a channel out, waiting for one if none is idle. Dropping the channel returns it.
    ///
    /// # Errors
    /// As [`amqp_driver::ChannelPool::checkout`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    #[doc(alias = "acquire")]
    pub fn checkout(&self) -> Result<PooledChannel, Error> {
        Ok(wait(self.0.checkout())??.into())
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::ChannelPool {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::ChannelPool {
        self.0
    }
}

impl From<amqp_driver::ChannelPool> for ChannelPool {
    fn from(handle: amqp_driver::ChannelPool) -> Self {
        Self(handle)
    }
}

/// A channel checked out of a [`ChannelPool`]. Dropping it returns the channel.
///
/// Wraps [`amqp_driver::PooledChannel`].
#[derive(Debug, RefCast)]
#[repr(transparent)]
pub struct PooledChannel(amqp_driver::PooledChannel);

impl PooledChannel {
    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::PooledChannel {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::PooledChannel {
        self.0
    }
}

impl From<amqp_driver::PooledChannel> for PooledChannel {
    fn from(handle: amqp_driver::PooledChannel) -> Self {
        Self(handle)
    }
}

impl Deref for Connection {
    type Target = amqp_driver::Connection;

    fn deref(&self) -> &amqp_driver::Connection {
        &self.0
    }
}

impl Deref for BaseChannel {
    type Target = amqp_driver::BaseChannel;

    fn deref(&self) -> &amqp_driver::BaseChannel {
        &self.0
    }
}

impl Deref for Channel {
    type Target = BaseChannel;

    fn deref(&self) -> &BaseChannel {
        BaseChannel::ref_cast(&self.0)
    }
}

impl Deref for ConfirmChannel {
    type Target = BaseChannel;

    fn deref(&self) -> &BaseChannel {
        BaseChannel::ref_cast(&self.0)
    }
}

impl Deref for TxChannel {
    type Target = BaseChannel;

    fn deref(&self) -> &BaseChannel {
        BaseChannel::ref_cast(&self.0)
    }
}

impl Deref for ChannelPool {
    type Target = amqp_driver::ChannelPool;

    fn deref(&self) -> &amqp_driver::ChannelPool {
        &self.0
    }
}

impl Deref for PooledChannel {
    type Target = ConfirmChannel;

    fn deref(&self) -> &ConfirmChannel {
        ConfirmChannel::ref_cast(&self.0)
    }
}
