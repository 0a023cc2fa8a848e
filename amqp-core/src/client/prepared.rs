//! Publishes with a method and properties that are encoded once.

use super::{publish::Outgoing, reply_to::REPLY_TO};
use crate::{
    body::PropertyList,
    error::ApiMisuse,
    machine::{EncodedHeads, Head, Message},
    protocol::basic,
    wire::DecodeError,
};

/// A `basic.publish` and its properties, encoded once, for many messages to the same exchange with
/// the same routing key and the same properties:
/// [`ChannelMut::publish_prepared`](super::ChannelMut::publish_prepared).
///
/// It belongs to no connection. A clone shares the memory.
///
/// ```
/// use amqp_core::{client::PreparedPublish, protocol::basic};
///
/// let publish = basic::Publish::default().routing_key("orders");
/// let persistent = basic::Properties::default().delivery_mode(2);
/// let prepared = PreparedPublish::new(publish, &persistent)?;
/// assert_eq!(prepared.method().routing_key, "orders");
///
/// let publish = basic::Publish::default().routing_key("x".repeat(256));
/// assert!(PreparedPublish::new(publish, &persistent).is_err());
/// # Ok::<(), amqp_core::ApiMisuse>(())
/// ```
#[derive(Clone, Debug)]
pub struct PreparedPublish {
    method: basic::Publish,
    heads: EncodedHeads,
    asks_for_direct_reply: bool,
    is_plain: bool,
}

impl PreparedPublish {
    /// Encodes the method and the properties. Each publish checks the rest, as for other messages:
    /// the limits of frames, and the features that RabbitMQ refuses.
    ///
    /// # Errors
    /// When a text is too long, or encoded properties are unreadable.
    pub fn new<P: PropertyList>(method: basic::Publish, properties: &P) -> Result<Self, ApiMisuse> {
        let message = Message {
            method: &method,
            properties,
        };
        message
            .check_properties()
            .map_err(ApiMisuse::MalformedProperties)?;
        let heads = EncodedHeads::new(&message)?;
        let asks_for_direct_reply = properties.reply_to() == Some(REPLY_TO);
        let is_plain = message.is_plain();
        Ok(Self {
            method,
            heads,
            asks_for_direct_reply,
            is_plain,
        })
    }

    /// The method.
    #[must_use]
    pub const fn method(&self) -> &basic::Publish {
        &self.method
    }
}

impl Outgoing for PreparedPublish {
    #[inline]
    fn method(&self) -> &basic::Publish {
        &self.method
    }

    #[inline]
    fn head(&self) -> &impl Head {
        &self.heads
    }

    /// They did before.
    #[inline]
    fn check_properties(&self) -> Result<(), DecodeError> {
        Ok(())
    }

    #[inline]
    fn asks_for_direct_reply(&self) -> bool {
        self.asks_for_direct_reply
    }

    #[inline]
    fn is_plain(&self) -> bool {
        self.is_plain
    }
}
