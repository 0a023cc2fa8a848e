//! The acknowledgement of a delivery.

use std::sync::Arc;

use amqp_core::{ApiMisuse, DeliveryTag, Requeue, Tags, client};

use crate::{base_channel::Inner, consume_options::OnDrop, error::Error};

/// The right to acknowledge one delivery, once.
///
/// It belongs to the delivery's channel. Once that has ended, the server has requeued the message
/// ([RabbitMQ's page](https://www.rabbitmq.com/docs/confirms)), and acknowledging it is an error
/// that affects no other channel.
///
/// ```no_run
/// use amqp_driver::{Delivery, Error, Requeue};
///
/// /// Keeps the body, and settles the message later.
/// fn handle(delivery: Delivery) -> Result<(), Error> {
///     let Delivery { message, acker, .. } = delivery;
///     match message.body.text() {
///         Err(_) => acker.reject(Requeue::No),
///         Ok(_) => acker.ack(),
///     }
/// }
/// ```
#[derive(Debug)]
#[must_use = "dropped unused, the delivery stays outstanding until the channel ends"]
pub struct Acker {
    channel: Arc<Inner>,
    tag: DeliveryTag,
    /// The action on drop: `Leave` once it was used.
    on_drop: OnDrop,
}

impl Acker {
    pub(crate) const fn new(channel: Arc<Inner>, tag: DeliveryTag, on_drop: OnDrop) -> Self {
        Self {
            channel,
            tag,
            on_drop,
        }
    }

    pub(crate) const fn channel(&self) -> &Arc<Inner> {
        &self.channel
    }

    /// The delivery tag, unique on its channel.
    #[must_use]
    pub const fn tag(&self) -> DeliveryTag {
        self.tag
    }

    /// Acknowledges the delivery. Returns when the acknowledgement is accepted into the output
    /// buffer.
    ///
    /// # Errors
    /// When the channel is closed: the server has requeued the message.
    #[doc(alias = "basic_ack")]
    pub fn ack(self) -> Result<(), Error> {
        self.settle(|channel, tag| channel.ack(Tags::One(tag)))
    }

    /// Acknowledges the delivery and all earlier outstanding ones of the channel, across its
    /// consumers (section 1.8.3.13 of the protocol reference, `multiple`).
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    #[doc(alias("multiple", "ack_multiple"))]
    pub fn ack_up_to(self) -> Result<(), Error> {
        self.settle(|channel, tag| channel.ack(Tags::UpTo(tag)))
    }

    /// Rejects the delivery with [`basic.nack`](https://www.rabbitmq.com/docs/nack), RabbitMQ's
    /// extension.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    #[doc(alias = "basic_nack")]
    pub fn nack(self, requeue: Requeue) -> Result<(), Error> {
        self.settle(|channel, tag| channel.nack(Tags::One(tag), requeue))
    }

    /// Rejects the delivery with `basic.reject`.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    #[doc(alias = "basic_reject")]
    pub fn reject(self, requeue: Requeue) -> Result<(), Error> {
        self.settle(|channel, tag| channel.reject(tag, requeue))
    }

    /// Leaves the delivery outstanding regardless of the consumer's [`OnDrop`], to be acknowledged
    /// by its tag with [`BaseChannel::ack`](crate::BaseChannel::ack).
    pub fn leave(mut self) {
        self.on_drop = OnDrop::Leave;
    }

    fn settle(
        mut self,
        command: impl FnOnce(&mut client::ChannelMut<'_>, DeliveryTag) -> Result<(), ApiMisuse>,
    ) -> Result<(), Error> {
        self.on_drop = OnDrop::Leave;
        self.channel.settle(|channel| command(channel, self.tag))
    }
}

impl Drop for Acker {
    fn drop(&mut self) {
        let requeue = match self.on_drop {
            OnDrop::Leave => return,
            OnDrop::Requeue => Requeue::Yes,
            OnDrop::Reject => Requeue::No,
        };
        // Fails only on a channel that has ended: its deliveries are requeued.
        let _closed = self
            .channel
            .settle(|channel| channel.reject(self.tag, requeue));
    }
}
