//! The record of everything that the client did.

use amqp_driver::core::{
    CloseReason,
    protocol::{ClientMethod, ReplyCode},
    server::AuthRequest,
};
use bytes::Bytes;

use super::{Message, Peer};

/// Something that the client did.
#[expect(clippy::large_enum_variant, reason = "a test keeps a handful of them")]
#[derive(Clone, Debug)]
pub enum Saw {
    Authenticate(AuthRequest),
    Opened,
    ChannelOpened(u16),
    Request(u16, ClientMethod),
    Published(u16, Message),
    ChannelClosed(u16, CloseReason),
    Secret(Bytes),
    Closed(CloseReason),
}

impl Peer {
    /// The client's methods, in short: the channel, then the method's name.
    pub fn said(&self) -> Vec<String> {
        self.saw.iter().filter_map(Saw::line).collect()
    }

    /// The messages that were published, in order.
    pub fn messages(&self) -> Vec<Message> {
        self.saw
            .iter()
            .filter_map(|saw| match saw {
                Saw::Published(_, message) => Some(message.clone()),
                _ => None,
            })
            .collect()
    }

    /// How the connection ended, as it sees it.
    pub fn closed(&self) -> Option<&CloseReason> {
        self.saw.iter().find_map(|saw| match saw {
            Saw::Closed(reason) => Some(reason),
            _ => None,
        })
    }

    /// Whether the client ended the connection with a close of code 200.
    pub fn closed_in_good_order(&self) -> bool {
        self.closed()
            .and_then(|reason| reason.by_peer())
            .is_some_and(|close| close.code == ReplyCode::SUCCESS)
    }
}

impl Saw {
    fn line(&self) -> Option<String> {
        match self {
            Self::ChannelOpened(number) => Some(format!("{number} channel.open")),
            Self::Request(number, method) => Some(format!("{number} {}", method.name())),
            Self::Published(number, message) => {
                let body = String::from_utf8_lossy(&message.body[..message.body.len().min(20)]);
                Some(format!("{number} basic.publish {body}"))
            }
            Self::ChannelClosed(number, _) => Some(format!("{number} channel.close")),
            Self::Secret(_) => Some("0 connection.update-secret".to_owned()),
            Self::Closed(_) => Some("0 connection.close".to_owned()),
            Self::Authenticate(_) | Self::Opened => None,
        }
    }
}
