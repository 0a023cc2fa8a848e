//! What the machine shows of itself, and hands out.

use amqp_core::server;
use bytes::Bytes;

use crate::{event::LinkKey, name::PeerName};

/// A plain AMQP client, and the state of its connection: it has sent its credentials, and waits for
/// the decision.
#[derive(Debug)]
#[non_exhaustive]
pub struct Client {
    /// The server's side of the connection, after its
    /// [`Authenticate`](amqp_core::server::Event::Authenticate).
    pub machine: server::Connection,
    /// That event: the credentials and properties of the client.
    pub request: server::AuthRequest,
    /// The certificates of the client, in DER, its own one first.
    pub certificates: Vec<Bytes>,
}

/// The state of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LinkInfo {
    /// The key of the link.
    pub key: LinkKey,
    /// The name of the peer. `Some` if it is known.
    pub name: Option<PeerName>,
    /// Whether this side is the listener.
    pub is_listener: bool,
    /// Whether the link is up.
    pub is_up: bool,
    /// The number of messages sent over it that are not acknowledged.
    pub unacknowledged: usize,
    /// The number of messages received over it that are not accepted.
    pub unaccepted: usize,
}

/// The state of what is to be stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct StoreInfo {
    /// The size of the changes that are not stored, in bytes. Beyond
    /// [`Limits::unstored`](crate::Limits::unstored) no persistent message is taken.
    pub unstored: usize,
    /// The error of the storage. `Some` until it works again.
    pub error: Option<String>,
}

/// The state of the outbox of a receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OutboxInfo {
    /// The number of messages that are not acknowledged.
    pub messages: usize,
    /// Their size, in bytes by [`Message::memory`](crate::Message::memory).
    pub bytes: usize,
    /// The number of those that were sent over the present link.
    pub in_flight: usize,
}
