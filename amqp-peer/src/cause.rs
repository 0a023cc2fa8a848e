//! The causes of ends and refusals.

use amqp_core::{ApiMisuse, protocol::ReplyCode};

use crate::name::PeerName;

/// The cause of the end of a link. The same at both ends, where the transport allows.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DownCause {
    /// This side has stopped, or has ended the link on request.
    #[error("ended by this side")]
    Requested,
    /// The peer has stopped, or has ended the link on request.
    #[error("ended by the peer")]
    ByPeer,
    /// Another link to the same peer is up: two peers that dial each other keep one.
    #[error("another link to the same peer is up")]
    Duplicate,
    /// Another process of that name has a link that is alive.
    #[error("the name is in use")]
    NameInUse,
    /// A peer has dialled itself, or another one of its own name.
    #[error("the peer has the name of this one")]
    OwnName,
    /// A newer link of the same peer has taken the place of one that was silent.
    #[error("replaced by a newer link")]
    Replaced,
    /// The peers speak different versions of the peers' protocol.
    #[error("the peers speak different versions")]
    Version,
    /// The peers have different secrets.
    #[error("the secret is wrong")]
    Secret,
    /// The name of the peer is not in its certificate.
    #[error("the certificate does not allow the name")]
    Certificate,
    /// The other side is not a peer: an AMQP client or server.
    #[error("the other side is not a peer")]
    NotAPeer,
    /// The maximum number of links is reached.
    #[error("there are too many links")]
    TooManyLinks,
    /// The peer was silent for too long.
    #[error("the peer is silent")]
    Silent,
    /// The link was not up in time.
    #[error("the handshake has not ended in time")]
    Handshake,
    /// One side broke the protocol, or exceeded a limit of the other one.
    #[error("the protocol was broken: {code}")]
    Protocol {
        /// The reply code.
        code: ReplyCode,
    },
    /// The transport ended or failed.
    #[error("the transport has ended")]
    Transport,
}

/// The reason why a message was dropped.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DropReason {
    /// Its time to live has passed.
    #[error("its time to live has passed")]
    Expired,
    /// Its receiver was [forgotten](crate::machine::Machine::forget).
    #[error("its receiver was removed")]
    Removed,
    /// The peer has stopped, and the message is not persistent.
    #[error("the peer has stopped")]
    Stopped,
    /// The receiver does not take it: it is larger than the receiver's limit.
    #[error("it is larger than the receiver allows")]
    TooLarge,
}

/// The reason why a message was not taken to be sent.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// The outbox of the receiver, or of all receivers together, has no room.
    /// [`poll_room`](crate::machine::Machine::poll_room) names the receiver when it has.
    #[error("the outbox of {to} is full: {messages} messages, {bytes} bytes")]
    Full {
        /// The receiver.
        to: PeerName,
        /// The number of messages that wait for it.
        messages: usize,
        /// Their size, in bytes.
        bytes: usize,
    },
    /// The message is larger than the limit of this side, or of the receiver.
    #[error("the message has {len} bytes, the limit is {limit}")]
    TooLarge {
        /// The size, in bytes: of the body, or of the properties.
        len: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The [kind](crate::MessageProperties::kind) of the message begins with `rpc.`: those are of
    /// [calls](crate::rpc).
    #[error("kinds that begin with rpc. are reserved")]
    ReservedKind,
    /// The properties contain a header of the reserved names, which begin with `x-peer-`.
    #[error("headers that begin with x-peer- are reserved")]
    ReservedHeader,
    /// The time to live is zero, and there is no link to the receiver.
    #[error("there is no link to {to}")]
    NotConnected {
        /// The receiver.
        to: PeerName,
    },
    /// The receiver is this peer.
    #[error("a peer does not send to itself")]
    OwnName,
    /// Messages wait for too many receivers.
    #[error("messages wait for {limit} receivers already")]
    TooManyReceivers {
        /// The maximum number of receivers.
        limit: usize,
    },
    /// The storage is behind: the changes that it has not stored, this message included, would
    /// exceed [`Limits::unstored`](crate::Limits::unstored).
    /// [`poll_room`](crate::machine::Machine::poll_room) names the receiver when they do not.
    #[error("{bytes} bytes are not stored yet, the limit is {limit}")]
    Unstored {
        /// The size of the changes that are not stored, in bytes.
        bytes: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The storage has failed: nothing persistent is taken until it works again.
    #[error("the storage has failed: {message}")]
    Storage {
        /// The error text of the storage.
        message: String,
    },
    /// The peer has stopped.
    #[error("the peer has stopped")]
    Stopped,
}

/// The reason why a link is not begun.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LinkError {
    /// The maximum number of links that are up is reached.
    #[error("there are {limit} links already")]
    TooManyLinks {
        /// The maximum number of links.
        limit: usize,
    },
    /// The maximum number of links that are not up yet is reached.
    #[error("{limit} links are not up yet")]
    TooManyPending {
        /// The maximum number of links.
        limit: usize,
    },
    /// Too many events of links are not taken.
    #[error("{limit} events of links are not taken")]
    TooManyEvents {
        /// The maximum number of events.
        limit: usize,
    },
    /// The peer has stopped.
    #[error("the peer has stopped")]
    Stopped,
    /// A setting does not fit.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
}
