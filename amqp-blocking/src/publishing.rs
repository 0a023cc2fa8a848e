//! A publisher that reports the outcome of each message, with blocking calls; see
//! [`amqp_driver::publishing`].

use std::{fmt, future::poll_fn, ops::Deref, pin::Pin};

use amqp_driver::Error;
pub use amqp_driver::publishing::{
    Acknowledgements, NotAcked, NotPublished, NotPublishedReason, Outcome, OutgoingMessage,
    PublisherOptions, Republish, Window,
};
use futures_core::Stream as _;
use ref_cast::RefCast;

use crate::{
    handles::{BaseChannel, Channel, ConfirmChannel},
    wait::{wait, wait_unless_ready},
};

/// Publishes messages within a window, and reports the outcome of each. Clones share it, and can be
/// used from any number of threads.
///
/// Wraps [`amqp_driver::publishing::Publisher`].
///
/// ```no_run
/// use amqp_blocking::{
///     Channel,
///     protocol::basic,
///     publishing::{Acknowledgements, OutgoingMessage, Publisher, PublisherOptions},
/// };
///
/// # fn example(channel: Channel) -> Result<(), Box<dyn std::error::Error>> {
/// let publisher = Publisher::open(channel, Acknowledgements::On, PublisherOptions::default())?;
/// let to_tasks = basic::Publish::default().routing_key("tasks").mandatory(true);
/// let receipt = publisher.publish(OutgoingMessage::new(to_tasks, "sweep the yard"))?;
/// receipt.wait()?.acked()?; // a queue has it
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct Publisher(amqp_driver::publishing::Publisher);

impl Publisher {
    /// Creates a publisher on a channel in confirm mode.
    #[must_use]
    pub fn new(channel: ConfirmChannel, options: PublisherOptions) -> Self {
        amqp_driver::publishing::Publisher::new(channel.into_async(), options).into()
    }

    /// Creates a publisher on a channel, and puts it into confirm mode as `acknowledgements` says.
    ///
    /// # Errors
    /// As [`amqp_driver::publishing::Publisher::open`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn open(
        channel: Channel,
        acknowledgements: Acknowledgements,
        options: PublisherOptions,
    ) -> Result<Self, Error> {
        let channel = channel.into_async();
        let opening = amqp_driver::publishing::Publisher::open(channel, acknowledgements, options);
        Ok(wait(opening)??.into())
    }

    /// Publishes a message, and returns the [`Receipt`] for its outcome. Blocks while there is no
    /// room in the window or the output buffer.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](crate::within): the message was not
    /// published.
    pub fn publish(&self, message: OutgoingMessage) -> Result<Receipt, Error> {
        Ok(Receipt(wait_unless_ready(self.0.publish(message))?))
    }

    /// Publishes a message if there is room for it now, and returns the [`Receipt`] for its outcome.
    /// Does not block.
    ///
    /// # Errors
    /// As [`amqp_driver::publishing::Publisher::try_publish`].
    pub fn try_publish(&self, message: OutgoingMessage) -> Result<Receipt, NotPublished> {
        self.0.try_publish(message).map(Receipt)
    }

    /// Publishes messages, as many at a time as the window allows, and returns an iterator of their
    /// outcomes, in order.
    pub fn publish_many<I>(&self, messages: I) -> PublishMany<I::IntoIter>
    where
        I: IntoIterator<Item = OutgoingMessage>,
    {
        PublishMany(self.0.publish_many(messages))
    }

    /// Waits for the outcomes of messages, and returns them in the order of their receipts.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](crate::within): the outcomes are
    /// discarded.
    pub fn wait_all(
        &self,
        receipts: impl IntoIterator<Item = Receipt>,
    ) -> Result<Vec<Outcome>, Error> {
        let receipts = receipts.into_iter().map(Receipt::into_async);
        wait(self.0.wait_all(receipts))
    }

    /// Waits until no message of this publisher and its clones is without an outcome.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](crate::within).
    #[doc(alias = "wait_for_confirms")]
    pub fn settled(&self) -> Result<(), Error> {
        wait(self.0.settled())
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &BaseChannel {
        BaseChannel::ref_cast(self.0.channel())
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::publishing::Publisher {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::publishing::Publisher {
        self.0
    }
}

impl From<amqp_driver::publishing::Publisher> for Publisher {
    fn from(handle: amqp_driver::publishing::Publisher) -> Self {
        Self(handle)
    }
}

impl Deref for Publisher {
    type Target = amqp_driver::publishing::Publisher;

    fn deref(&self) -> &amqp_driver::publishing::Publisher {
        &self.0
    }
}

/// The wait for the [`Outcome`] of a message.
///
/// Wraps [`amqp_driver::publishing::Receipt`].
#[must_use = "the outcome of a message is known only from its receipt"]
#[derive(Debug)]
pub struct Receipt(amqp_driver::publishing::Receipt);

impl Receipt {
    /// Waits for the outcome.
    ///
    /// # Errors
    /// Beyond the limit of [`within`](crate::within), the receipt, to be waited for again.
    pub fn wait(mut self) -> Result<Outcome, ReceiptTimeout> {
        wait_unless_ready(&mut self.0).map_err(|_| ReceiptTimeout(self))
    }

    /// The asynchronous handle.
    pub fn into_async(self) -> amqp_driver::publishing::Receipt {
        self.0
    }
}

/// The error of [`Receipt::wait`]: the outcome is still outstanding.
#[derive(thiserror::Error, Debug)]
#[error("the outcome of the message was not known in time")]
pub struct ReceiptTimeout(pub Receipt);

/// Publishes the messages of an iterator, and iterates over their outcomes, in order. Beyond the
/// limit of [`within`](crate::within) `next` returns `None`, which does not end the iterator.
///
/// Wraps [`amqp_driver::publishing::PublishMany`].
#[must_use = "messages are published as the outcomes are taken"]
pub struct PublishMany<I>(amqp_driver::publishing::PublishMany<I>);

impl<I: Iterator<Item = OutgoingMessage>> PublishMany<I> {
    /// Publishes all messages, and returns their outcomes, in order.
    ///
    /// # Errors
    /// [`Error::TimedOut`] beyond the limit of [`within`](crate::within): no more messages are
    /// published, and the outcomes are discarded.
    pub fn wait_all(self) -> Result<Vec<Outcome>, Error> {
        wait(self.0.wait_all())
    }
}

impl<I: Iterator<Item = OutgoingMessage>> Iterator for PublishMany<I> {
    type Item = Outcome;

    fn next(&mut self) -> Option<Outcome> {
        let outcome = poll_fn(|cx| Pin::new(&mut self.0).poll_next(cx));
        wait(outcome).ok().flatten()
    }
}

impl<I> fmt::Debug for PublishMany<I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
