//! What a server's connection tells.

use crate::{
    body::Content,
    close::CloseReason,
    ids::{ChannelId, PublishSeq},
    protocol::{ClientMethod, basic},
    wire::{FieldTable, Secret, ShortStr},
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The client wants to log in: answer with `accept`, `challenge` or `refuse`.
    Authenticate(AuthRequest),
    /// The client wants to use a virtual host: answer with `open`, or close with 530.
    Open {
        /// The virtual host.
        virtual_host: ShortStr,
    },
    /// The handshake is over.
    Opened,
    /// The client opened a channel; it was told so already.
    ChannelOpened {
        /// The channel.
        channel: ChannelId,
    },
    /// The client wants something. A synchronous method is answered with `send` or
    /// `send_content`, unless it asks for no answer; others need none.
    Request {
        /// The channel.
        channel: ChannelId,
        /// What it wants.
        method: ClientMethod,
    },
    /// The client published a message.
    Published(Published),
    /// The client pauses or resumes deliveries on a channel. It is answered with `send` and
    /// [`channel::FlowOk`](crate::protocol::channel::FlowOk).
    Flow {
        /// The channel.
        channel: ChannelId,
        /// Whether deliveries are allowed.
        active: bool,
    },
    /// The client renewed its credentials; it was answered already. RabbitMQ's extension.
    SecretUpdated {
        /// The new secret.
        secret: Secret,
        /// Why, in the client's words.
        reason: ShortStr,
    },
    /// A channel ended: closed by the client, or for a fault of it.
    ChannelClosed {
        /// The channel.
        channel: ChannelId,
        /// Why.
        reason: CloseReason,
    },
    /// Output was held back because much of it waited, and now there is room.
    Writable,
    /// The connection ended, and with it all channels. This is the last event.
    Closed(CloseReason),
}

/// A client's wish to log in.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AuthRequest {
    /// The SASL mechanism it chose.
    pub mechanism: ShortStr,
    /// Its response: the first one, or to the last challenge.
    pub response: Secret,
    /// The language it wants messages in.
    pub locale: ShortStr,
    /// What it says of itself.
    pub client_properties: FieldTable,
}

/// A message that a client published.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The channel.
    pub channel: ChannelId,
    /// Its number, to confirm it by; none when the channel is not in confirm mode.
    pub seq: Option<PublishSeq>,
    /// The method that carried it: exchange, routing key, flags.
    pub method: basic::Publish,
    /// The message.
    pub content: Content,
}
