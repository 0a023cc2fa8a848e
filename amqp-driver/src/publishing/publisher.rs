//! The handles of a publisher.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use super::{
    engine::{self, Engine, Publishing, Settled},
    many::PublishMany,
    message::OutgoingMessage,
    options::{Acknowledgements, PublisherOptions},
    outcome::{NotPublished, Outcome},
    target::Mode,
};
use crate::{base_channel::BaseChannel, channel::Channel, confirm::ConfirmChannel, error::Error};

/// The capability of a server that confirms publishes (<https://www.rabbitmq.com/docs/confirms>).
const CONFIRMS: &str = "publisher_confirms";

/// Publishes messages within a window, and reports the outcome of each.
///
/// Clones share the window and the channel. Messages settle, and are published again with
/// [`Republish`](crate::publishing::Republish), whichever of its futures are polled, as long as a
/// clone or a [`Receipt`] exists. When the last is dropped, messages without an outcome stay as they
/// are.
///
/// A channel of RabbitMQ 3.10 may refuse all publishes to a quorum queue, with
/// [`Outcome::Nacked`], after the leader of the queue has died, though the queue has another one. A
/// publisher on a new channel is not affected.
///
/// ```no_run
/// use amqp_driver::{
///     Channel,
///     protocol::basic,
///     publishing::{Acknowledgements, OutgoingMessage, Publisher, PublisherOptions},
/// };
///
/// # async fn example(channel: Channel) -> Result<(), Box<dyn std::error::Error>> {
/// let options = PublisherOptions::default();
/// let publisher = Publisher::open(channel, Acknowledgements::On, options).await?;
/// let to_tasks = basic::Publish::default().routing_key("tasks").mandatory(true);
/// let receipt = publisher.publish(OutgoingMessage::new(to_tasks, "sweep the yard")).await;
/// receipt.await.acked()?; // a queue has it
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Publisher(Arc<Engine<Mode>>);

impl Publisher {
    /// Creates a publisher on a channel in confirm mode, which may be used otherwise too.
    #[must_use]
    pub fn new(channel: ConfirmChannel, options: PublisherOptions) -> Self {
        Self(Engine::new(Mode::Confirming(channel), options))
    }

    /// Creates a publisher on a channel, and puts it into confirm mode as `acknowledgements` says.
    ///
    /// # Cancel safety
    /// Dropping it closes the channel.
    ///
    /// # Errors
    /// As [`Channel::confirm_select`], where that is called.
    pub async fn open(
        channel: Channel,
        acknowledgements: Acknowledgements,
        options: PublisherOptions,
    ) -> Result<Self, Error> {
        let confirms = match acknowledgements {
            Acknowledgements::On => true,
            Acknowledgements::Off => false,
            Acknowledgements::IfSupported => channel.connection().has_capability(CONFIRMS),
        };
        let mode = if confirms {
            Mode::Confirming(channel.confirm_select().await?)
        } else {
            Mode::Plain(channel)
        };
        Ok(Self(Engine::new(mode, options)))
    }

    /// Publishes a message, and returns the [`Receipt`] for its outcome. Returns when the message is
    /// accepted into the output buffer; it waits for room there and in the window. For throughput,
    /// keep many receipts.
    ///
    /// A message that could not be accepted has its outcome at once: [`Outcome::NotSent`], with the
    /// errors of [`ConfirmChannel::publish`].
    ///
    /// # Cancel safety
    /// The message is accepted whole or not at all; if the future is dropped before it is ready,
    /// not at all.
    pub async fn publish(&self, message: OutgoingMessage) -> Receipt {
        Receipt(self.begin(message).await)
    }

    /// Publishes a message if there is room for it now, and returns the [`Receipt`] for its outcome.
    ///
    /// # Errors
    /// [`NotPublished`] with the message and the reason.
    pub fn try_publish(&self, message: OutgoingMessage) -> Result<Receipt, NotPublished> {
        self.0.try_publish(message).map(Receipt)
    }

    /// Publishes messages, as many at a time as the window allows, and returns the stream of their
    /// outcomes, in order. They are published as the stream is polled.
    ///
    /// The stream keeps at most [`Window::messages`](crate::publishing::Window) outcomes that are
    /// not taken.
    pub fn publish_many<I>(&self, messages: I) -> PublishMany<I::IntoIter>
    where
        I: IntoIterator<Item = OutgoingMessage>,
    {
        PublishMany::new(self.clone(), messages.into_iter())
    }

    /// Waits for the outcomes of messages, and returns them in the order of their receipts.
    ///
    /// # Cancel safety
    /// Dropping it discards the outcomes. The messages stay as they are.
    pub async fn wait_all(&self, receipts: impl IntoIterator<Item = Receipt>) -> Vec<Outcome> {
        let receipts: Vec<Receipt> = receipts.into_iter().collect();
        let mut outcomes = Vec::with_capacity(receipts.len());
        for receipt in receipts {
            outcomes.push(receipt.await);
        }
        outcomes
    }

    /// Waits until no accepted message of this publisher and its clones is without an outcome. One
    /// that still waits in [`publish`](Self::publish) or in a stream of
    /// [`publish_many`](Self::publish_many) is not awaited.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn settled(&self) {
        let engine = &self.0;
        let place = None;
        Settled { engine, place }.await;
    }

    /// The number of messages in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight().0
    }

    /// The memory of the messages in flight, in bytes.
    #[must_use]
    pub fn bytes_in_flight(&self) -> usize {
        self.0.in_flight().1
    }

    /// Whether the server acknowledges the messages.
    #[must_use]
    pub fn has_confirms(&self) -> bool {
        matches!(self.0.target(), Mode::Confirming(_))
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &BaseChannel {
        self.0.target().channel()
    }

    /// The options, [`republish`](PublisherOptions::republish) excepted.
    pub(super) fn options(&self) -> &PublisherOptions {
        self.0.options()
    }

    pub(super) fn begin(&self, message: OutgoingMessage) -> Publishing<Mode> {
        Publishing::new(&self.0, message)
    }
}

impl fmt::Debug for Publisher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher")
            .field("channel", self.channel())
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

/// The wait for the [`Outcome`] of a message.
///
/// Ends with the server's answer, with the channel or the connection, or after the time for the
/// confirm. Dropping it leaves the message as it is.
#[must_use = "the outcome of a message is known only from its receipt"]
pub struct Receipt(engine::Receipt<Mode>);

impl Receipt {
    pub(super) const fn new(receipt: engine::Receipt<Mode>) -> Self {
        Self(receipt)
    }
}

impl Future for Receipt {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipt").finish_non_exhaustive()
    }
}
