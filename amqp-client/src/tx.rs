//! Transactions.

use std::ops::Deref;

use amqp_core::protocol::tx;

use crate::{channel::Channel, error::Error};

/// A transactional channel: publishes and acknowledgements take effect when they are committed.
///
/// Everything that a [`Channel`] can do, it can do. While a commit is under way, what is given to
/// the channel waits here, because RabbitMQ would take it for a fault.
#[derive(Debug)]
pub struct TxChannel(Channel);

impl TxChannel {
    pub(crate) const fn new(channel: Channel) -> Self {
        Self(channel)
    }

    /// Makes everything since the last commit or rollback take effect.
    ///
    /// # Cancel safety
    /// Once polled, the commit is sent, and dropping it only drops the wait.
    ///
    /// # Errors
    /// When the channel or connection ends before the server has answered: whether it took effect
    /// is not known then.
    pub async fn commit(&self) -> Result<(), Error> {
        self.0.call(tx::Commit).await?;
        Ok(())
    }

    /// Takes back everything since the last commit or rollback: publishes are dropped,
    /// acknowledged deliveries are outstanding again.
    ///
    /// # Cancel safety
    /// Once polled, the rollback is sent, and dropping it only drops the wait.
    ///
    /// # Errors
    /// When the channel or connection is or gets closed, which rolls back as well.
    pub async fn rollback(&self) -> Result<(), Error> {
        self.0.call(tx::Rollback).await?;
        Ok(())
    }
}

impl Deref for TxChannel {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        &self.0
    }
}
