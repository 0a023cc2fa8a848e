//! A returned message.

use amqp_core::{Body, EncodedProperties, client::Returned, protocol::ReplyCode, wire::ShortStr};

/// A mandatory message that no queue accepted (section 1.8.3.8 of the protocol reference).
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReturnedMessage {
    /// The number of the channel that it was published on.
    pub channel: u16,
    /// The reply code: 312 (no-route) when no queue is bound for it.
    pub code: ReplyCode,
    /// The reply text.
    pub text: ShortStr,
    /// The exchange it was published to.
    pub exchange: ShortStr,
    /// The routing key it was published with.
    pub routing_key: ShortStr,
    /// The properties, as encoded on the wire.
    pub encoded_properties: EncodedProperties,
    /// The body. Empty if [`body_omitted`](Self::body_omitted).
    pub body: Body,
    /// Whether the body was dropped, because more than [`Limits::undelivered`](amqp_core::Limits)
    /// bytes of returned messages are not taken.
    pub body_omitted: bool,
}

impl ReturnedMessage {
    /// The memory that the message occupies, in bytes.
    pub(crate) fn memory(&self) -> usize {
        size_of::<Self>()
            + self.text.len()
            + self.exchange.len()
            + self.routing_key.len()
            + self.encoded_properties.as_bytes().len()
            + self.body.len()
    }

    pub(crate) fn omit_body(&mut self) {
        self.body = Body::new();
        self.body_omitted = true;
    }
}

impl From<Returned> for ReturnedMessage {
    fn from(returned: Returned) -> Self {
        let Returned {
            channel,
            method,
            content,
            ..
        } = returned;
        Self {
            channel: channel.number(),
            code: method.reply_code,
            text: method.reply_text,
            exchange: method.exchange,
            routing_key: method.routing_key,
            encoded_properties: content.properties,
            body: content.body,
            body_omitted: false,
        }
    }
}
