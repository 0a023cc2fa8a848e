//! Transactions.

use std::ops::Deref;

use amqp_core::{
    Body, PropertyList,
    client::PreparedPublish,
    protocol::{basic, tx},
};

use crate::{
    base_channel::BaseChannel,
    error::{Error, TryPublishError},
};

/// A transactional channel: publishes and acknowledgements take effect on commit (section 1.9 of
/// the protocol reference).
///
/// Clones share the channel. Everything but publishing is on [`BaseChannel`], to which it
/// dereferences. While a commit is in flight, later commands of the channel are held back on this
/// side: RabbitMQ closes the connection for any method before `tx.commit-ok`.
#[derive(Clone, Debug)]
pub struct TxChannel(BaseChannel);

impl TxChannel {
    pub(crate) const fn new(channel: BaseChannel) -> Self {
        Self(channel)
    }

    /// Publishes a message, which takes effect on commit.
    ///
    /// # Cancel safety
    /// The message is accepted whole or not at all; if the future is dropped before it is ready,
    /// not at all.
    ///
    /// # Errors
    /// As [`Channel::publish`](crate::Channel::publish).
    #[doc(alias = "basic_publish")]
    pub async fn publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), Error> {
        let publisher = self.0.inner().publisher();
        let published = publisher.publish((publish, properties), body.into(), false);
        published.await?;
        Ok(())
    }

    /// Publishes a message like [`publish`](Self::publish), with a method and properties that were
    /// encoded before: see [`Channel::publish_prepared`](crate::Channel::publish_prepared).
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
        let publisher = self.0.inner().publisher();
        publisher.publish(prepared, body.into(), false).await?;
        Ok(())
    }

    /// Publishes a message if there is room for it now.
    ///
    /// # Errors
    /// As [`Channel::try_publish`](crate::Channel::try_publish).
    pub fn try_publish<P: PropertyList>(
        &self,
        publish: &basic::Publish,
        properties: &P,
        body: impl Into<Body>,
    ) -> Result<(), TryPublishError> {
        let publisher = self.0.inner().publisher();
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
        let publisher = self.0.inner().publisher();
        publisher.try_publish(prepared, body.into(), false)?;
        Ok(())
    }

    /// Commits everything since the last commit or rollback. [RabbitMQ's
    /// page](https://www.rabbitmq.com/docs/semantics) states its guarantees.
    ///
    /// # Cancel safety
    /// Once polled, the commit is sent, and dropping it only drops the wait.
    ///
    /// # Errors
    /// When the channel or the connection ends before the server has answered: it is then unknown
    /// whether the commit took effect.
    #[doc(alias = "tx_commit")]
    pub async fn commit(&self) -> Result<(), Error> {
        self.0.call(tx::Commit).await?;
        Ok(())
    }

    /// Undoes everything since the last commit or rollback: publishes are dropped, acknowledged
    /// deliveries are outstanding again.
    ///
    /// # Cancel safety
    /// Once polled, the rollback is sent, and dropping it only drops the wait.
    ///
    /// # Errors
    /// When the channel or the connection is closed or closes before the answer, which also rolls
    /// back.
    #[doc(alias = "tx_rollback")]
    pub async fn rollback(&self) -> Result<(), Error> {
        self.0.call(tx::Rollback).await?;
        Ok(())
    }
}

impl Deref for TxChannel {
    type Target = BaseChannel;

    fn deref(&self) -> &BaseChannel {
        &self.0
    }
}
