//! The handle of a channel without confirms or transactions.

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicU32},
};

use amqp_core::{
    ApiMisuse, Body, ChannelId, PropertyList,
    client::PreparedPublish,
    protocol::{basic, confirm, tx},
};

use crate::{
    base_channel::BaseChannel,
    confirm::ConfirmChannel,
    connection::Connection,
    error::{Error, TryPublishError},
    tx::TxChannel,
};

/// A channel without publisher confirms or transactions. Everything but publishing is on
/// [`BaseChannel`], to which it dereferences.
///
/// Clones share the channel. [`confirm_select`](Self::confirm_select) and
/// [`tx_select`](Self::tx_select) change the meaning of a publish: they require the only clone and
/// return another type.
///
/// ```no_run
/// use amqp_driver::{arguments::Queue, protocol::basic};
///
/// # async fn example(connection: amqp_driver::Connection) -> Result<(), amqp_driver::Error> {
/// let channel = connection.open_channel().await?;
/// channel.queue_declare(Queue::quorum("tasks")).await?;
/// let to_tasks = basic::Publish::default().routing_key("tasks");
/// let persistent = basic::Properties::default().persistent();
/// channel.publish(&to_tasks, &persistent, "one").await?;
/// channel.close().await?; // the server has read it
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Channel {
    base: BaseChannel,
    /// Its reference count is the number of clones.
    clones: Arc<()>,
}

impl Channel {
    pub(crate) fn new(connection: Connection, id: ChannelId, stale: Arc<AtomicU32>) -> Self {
        Self {
            base: BaseChannel::new(connection, id, stale),
            clones: Arc::new(()),
        }
    }

    /// Publishes a message. Returns when the message is accepted into the connection's output
    /// buffer, which is bounded, not when the server has received it: see
    /// [`confirm_select`](Self::confirm_select) for that.
    ///
    /// A body of up to a few kilobytes is copied; a larger one is kept by reference until it is
    /// sent: pass `Bytes` to share it, and a slice that is borrowed as [`Body::copy_from_slice`].
    ///
    /// ```no_run
    /// use amqp_driver::protocol::basic;
    ///
    /// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
    /// let to_hello = basic::Publish::default().routing_key("hello");
    /// let persistent = basic::Properties::default().persistent();
    /// channel.publish(&to_hello, &persistent, "Hello World!").await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// The message is accepted whole or not at all; if the future is dropped before it is ready,
    /// not at all.
    ///
    /// # Errors
    /// [`Error::Misuse`] for a message that is too large, or for which RabbitMQ would close the
    /// connection; [`Error::ChannelClosed`] and [`Error::ConnectionClosed`] when it can no longer
    /// be sent; [`Error::TimedOut`] when there was no room for it within
    /// [`Timeouts::publish`](amqp_core::Timeouts), because the server does not read or has paused
    /// publishing ([`connection.blocked`](https://www.rabbitmq.com/docs/connection-blocked),
    /// `channel.flow`): nothing of it was sent.
    #[doc(alias("basic_publish", "send"))]
    pub async fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        let publisher = self.base.inner().publisher();
        let published = publisher.publish((publish, properties), body.into(), false);
        published.await?;
        Ok(())
    }

    /// Publishes a message like [`publish`](Self::publish), with a method and properties that were
    /// encoded before: faster, for many messages to the same place. They may be published on any
    /// channel of any connection.
    ///
    /// ```no_run
    /// use amqp_driver::{PreparedPublish, protocol::basic};
    ///
    /// # async fn example(channel: amqp_driver::Channel) -> Result<(), amqp_driver::Error> {
    /// let to_prices = basic::Publish::default().exchange("amq.topic").routing_key("stock.ibm");
    /// let text = basic::Properties::default().content_type("text/plain");
    /// let publish = PreparedPublish::new(to_prices, &text)?;
    /// for price in ["239.41", "239.43", "239.40"] {
    ///     channel.publish_prepared(&publish, price).await?;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Cancel safety
    /// As [`publish`](Self::publish).
    ///
    /// # Errors
    /// As [`publish`](Self::publish).
    pub async fn publish_prepared(
        &self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        let publisher = self.base.inner().publisher();
        publisher.publish(prepared, body.into(), false).await?;
        Ok(())
    }

    /// Publishes a message if there is room for it now.
    ///
    /// # Errors
    /// [`TryPublishError::HeldBack`] with the body when the server or a bound holds publishing
    /// back, or other publishers wait for room; otherwise as [`publish`](Self::publish).
    pub fn try_publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), TryPublishError> {
        let publisher = self.base.inner().publisher();
        publisher.try_publish((publish, properties), body.into(), false)?;
        Ok(())
    }

    /// Publishes a message like [`publish_prepared`](Self::publish_prepared), if there is room for
    /// it now.
    ///
    /// # Errors
    /// As [`try_publish`](Self::try_publish).
    pub fn try_publish_prepared(
        &self,
        prepared: &PreparedPublish,
        body: impl Into<Body>,
    ) -> Result<(), TryPublishError> {
        let publisher = self.base.inner().publisher();
        publisher.try_publish(prepared, body.into(), false)?;
        Ok(())
    }

    /// Puts the channel into confirm mode: the server then acknowledges or rejects each publish
    /// ([RabbitMQ's extension](https://www.rabbitmq.com/docs/confirms)).
    ///
    /// # Cancel safety
    /// Dropping it closes the channel.
    ///
    /// # Errors
    /// As [`call`](BaseChannel::call); [`ApiMisuse::ChannelShared`] when there is another clone:
    /// its publishes would have no [`Confirm`](crate::Confirm).
    #[doc(alias("publisher_confirms", "confirm_delivery"))]
    pub async fn confirm_select(self) -> Result<ConfirmChannel, Error> {
        let base = self.into_sole()?;
        base.call(confirm::Select::default()).await?;
        Ok(ConfirmChannel::new(base))
    }

    /// Makes the channel transactional: publishes and acknowledgements take effect on commit
    /// (section 1.9 of the protocol reference).
    ///
    /// # Cancel safety
    /// Dropping it closes the channel.
    ///
    /// # Errors
    /// As [`confirm_select`](Self::confirm_select).
    pub async fn tx_select(self) -> Result<TxChannel, Error> {
        let base = self.into_sole()?;
        base.call(tx::Select).await?;
        Ok(TxChannel::new(base))
    }

    fn into_sole(self) -> Result<BaseChannel, Error> {
        match Arc::into_inner(self.clones) {
            Some(()) => Ok(self.base),
            None => Err(ApiMisuse::ChannelShared.into()),
        }
    }
}

impl Deref for Channel {
    type Target = BaseChannel;

    fn deref(&self) -> &BaseChannel {
        &self.base
    }
}
