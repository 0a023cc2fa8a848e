//! The events of a server's connection.

use crate::{
    body::Content,
    close::CloseReason,
    ids::{ChannelId, PublishSeq},
    protocol::{ClientMethod, basic},
    wire::{FieldTable, Secret, ShortStr},
};

/// An event of a server's connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The client has sent credentials. The application calls `accept`, `challenge` or `refuse`.
    Authenticate(AuthRequest),
    /// The client requests a virtual host with `connection.open`. The application calls `open`, or
    /// `close` with 530 (section 1.4.2.7 of the protocol reference).
    Open {
        /// The name of the virtual host.
        virtual_host: ShortStr,
    },
    /// The handshake is complete.
    Opened,
    /// The client has opened a channel; `open-ok` is already queued.
    ChannelOpened {
        /// The channel.
        channel: ChannelId,
    },
    /// The client has sent a method on a channel. The application answers a synchronous method with
    /// `send` or `send_content`, unless its `no-wait` bit is set; other methods need no reply.
    Request {
        /// The channel.
        channel: ChannelId,
        /// The method.
        method: ClientMethod,
    },
    /// The client has published a message.
    Published(Published),
    /// The client pauses or resumes deliveries on a channel (section 1.5.2.3 of the protocol
    /// reference). The application answers with `send` and
    /// [`channel::FlowOk`](crate::protocol::channel::FlowOk).
    Flow {
        /// The channel.
        channel: ChannelId,
        /// Whether deliveries are allowed.
        active: bool,
    },
    /// The client has renewed its credentials with `connection.update-secret`, an extension of
    /// RabbitMQ; `update-secret-ok` is already queued.
    SecretUpdated {
        /// The new secret.
        secret: Secret,
        /// The reason, as given by the client.
        reason: ShortStr,
    },
    /// A channel has ended: the client has closed it, or it was closed for a fault of the client.
    ChannelClosed {
        /// The channel.
        channel: ChannelId,
        /// The reason.
        reason: CloseReason,
    },
    /// The output was full, and has drained.
    Writable,
    /// The connection has ended, and with it all channels. This is the last event.
    Closed(CloseReason),
}

/// A SASL response of the client, to be checked by the application.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct AuthRequest {
    /// The SASL mechanism that the client has chosen.
    pub mechanism: ShortStr,
    /// The initial response, or the response to the last challenge.
    pub response: Secret,
    /// The locale for messages, chosen by the client.
    pub locale: ShortStr,
    /// The client's properties: product, version, capabilities.
    pub client_properties: FieldTable,
}

/// A message that a client published.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Published {
    /// The channel.
    pub channel: ChannelId,
    /// The sequence number for its confirm. `Some` if the channel is in confirm mode.
    pub seq: Option<PublishSeq>,
    /// The method `basic.publish`: exchange, routing key, flags.
    pub method: basic::Publish,
    /// The message.
    pub content: Content,
}
