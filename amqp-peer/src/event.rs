//! The events of a peer.

use std::fmt;

use amqp_core::{CloseReason, text::Escaped};
use bytes::Bytes;

use crate::{
    cause::{DownCause, DropReason},
    message::{Message, MessageId},
    name::PeerName,
};

/// The key of a link: of one transport to another peer, whichever side has connected. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkKey(pub(crate) u64);

impl LinkKey {
    /// Returns the number: links are counted from 1 in the order in which they were begun.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// An event of a peer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A link to a peer is up: messages flow in both directions.
    Up(Up),
    /// The link to a peer has ended.
    Down(Down),
    /// A link ended before it was up.
    Refused(Refused),
    /// A message has arrived, to be [accepted](crate::machine::Machine::settle).
    Received(Received),
    /// A message was handed to the transport for the first time. With
    /// [`Receipts::All`](crate::Receipts::All).
    Written {
        /// The receiver.
        to: PeerName,
        /// The message.
        id: MessageId,
    },
    /// The receiver's application has accepted a message. With
    /// [`Receipts::Delivered`](crate::Receipts::Delivered).
    Delivered {
        /// The receiver.
        to: PeerName,
        /// The message.
        id: MessageId,
    },
    /// A message will not be delivered.
    Dropped(Dropped),
}

/// A link that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Up {
    /// The name of the peer.
    pub name: PeerName,
    /// The number that the peer has drawn at its start: another one after a restart.
    pub instance: u64,
    /// The link.
    pub link: LinkKey,
    /// Whether this side is the listener: the peer has connected.
    pub is_listener: bool,
    /// The certificates of the peer, in DER, its own one first. Empty without TLS, or if it has
    /// shown none.
    pub certificates: Vec<Bytes>,
}

/// A link that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Down {
    /// The name of the peer.
    pub name: PeerName,
    /// The link.
    pub link: LinkKey,
    /// The cause.
    pub cause: DownCause,
    /// The end of the connection, as AMQP sees it.
    pub reason: CloseReason,
}

/// A link that ended before it was up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refused {
    /// The name of the peer. `Some` if the link came that far.
    pub name: Option<PeerName>,
    /// The link.
    pub link: LinkKey,
    /// Whether this side is the listener.
    pub is_listener: bool,
    /// The cause.
    pub cause: DownCause,
    /// The end of the connection, as AMQP sees it.
    pub reason: CloseReason,
}

/// The sender of a received message.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sender {
    /// A peer.
    Peer(PeerName),
    /// A plain AMQP client, which has published to the peer's inbox.
    Client {
        /// The user of the embedded broker that it has logged in as; empty if it did not name
        /// itself in the message.
        user: String,
    },
}

impl fmt::Display for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Peer(name) => name.fmt(f),
            Self::Client { user } if user.is_empty() => f.write_str("a client"),
            Self::Client { user } => write!(f, "client {}", Escaped(user)),
        }
    }
}

/// A received message.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Received {
    /// The sender.
    pub from: Sender,
    /// The identifier of the message.
    pub id: MessageId,
    /// The message. Its time to live is what remained when it was sent.
    pub message: Message,
    /// The claim with which the message is accepted.
    pub token: Token,
    /// Whether an application may have been given the message before: this process has given it
    /// back, or an earlier process of this peer may have got it. It was not accepted then.
    pub is_repeated: bool,
}

/// The claim of a received message, until it is accepted or requeued. It outlives the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The number of the sender.
    pub(crate) sender: u64,
    /// The number of the message among those of the sender.
    pub(crate) number: u64,
}

/// A message that will not be delivered.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Dropped {
    /// The receiver.
    pub to: PeerName,
    /// The identifier of the message.
    pub id: MessageId,
    /// The message.
    pub message: Message,
    /// The reason.
    pub reason: DropReason,
    /// Whether the message was sent at least once: the receiver may have it nevertheless.
    pub was_sent: bool,
}
