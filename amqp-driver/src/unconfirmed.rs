//! The error of a confirm.

use amqp_core::{CloseReason, text::Escaped};

use crate::returned_message::ReturnedMessage;

/// The reason for which a publish was not confirmed.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Unconfirmed {
    /// The message was mandatory and no queue accepted it; contains the message. Also reported if
    /// it was returned, but not confirmed, before the channel or the connection ended.
    #[error("the message was returned: {} {}", .0.code, Escaped(&.0.text))]
    Returned(Box<ReturnedMessage>),
    /// The server has taken responsibility for the message, but a returned message may be this one:
    /// the return matches several published messages, which differ only in parts that it does not
    /// show. RabbitMQ removes the header `BCC` (<https://www.rabbitmq.com/docs/sender-selected>),
    /// and may be configured to add headers. `Some` if the returned message could be read.
    #[error("a message was returned that may be this one")]
    PossiblyReturned(Option<Box<ReturnedMessage>>),
    /// The server could not take responsibility for the message (`basic.nack`): it may be lost.
    #[error("the server refused the message")]
    Nacked,
    /// The channel or the connection ended before any of the message was sent.
    #[error("the message was not sent: {0}")]
    NotSent(CloseReason),
    /// The channel or the connection ended before the confirm, or the confirm did not arrive within
    /// [`Timeouts::confirm`](crate::core::Timeouts::confirm): the server may have the message or
    /// not.
    #[error("it is not known whether the server has the message: {0}")]
    Unknown(CloseReason),
}
