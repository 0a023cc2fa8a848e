//! The error of a confirm.

use amqp_core::{CloseReason, FrameLog, protocol::ReplyCode, text::Escaped};

use crate::{report::Report, returned_message::ReturnedMessage};

/// The reason for which a publish was not confirmed.
///
/// ```
/// use amqp_driver::Unconfirmed;
///
/// /// Whether publishing the message again cannot make a second one.
/// fn is_safe_to_repeat(error: &Unconfirmed) -> bool {
///     matches!(error, Unconfirmed::NotSent(_) | Unconfirmed::Returned(_))
/// }
/// assert!(!is_safe_to_repeat(&Unconfirmed::PossiblyReturned(None)));
/// ```
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Unconfirmed {
    /// The message was mandatory and no queue accepted it; contains the message. Also reported if
    /// it was returned, but not confirmed, before the channel or the connection ended.
    #[error(
        "the message was returned by basic.return: {} {}, on channel {}",
        .0.code, Escaped(&.0.text), .0.channel
    )]
    Returned(Box<ReturnedMessage>),
    /// The server has taken responsibility for the message, but a returned message may be this one:
    /// the return matches several published messages, which differ only in parts that it does not
    /// show. RabbitMQ removes the header `BCC` (<https://www.rabbitmq.com/docs/sender-selected>),
    /// and may be configured to add headers. `Some` if the returned message could be read.
    #[error("a message was returned that may be this one")]
    PossiblyReturned(Option<Box<ReturnedMessage>>),
    /// The server could not take responsibility for the message (`basic.nack`): it may be lost.
    #[error("the server refused the message with basic.nack, on channel {channel}")]
    Nacked {
        /// The number of the channel.
        channel: u16,
    },
    /// The channel or the connection ended before any of the message was sent.
    #[error("the message was not sent: {0}")]
    NotSent(CloseReason),
    /// The channel or the connection ended before the confirm, or the confirm did not arrive within
    /// [`Timeouts::confirm`](crate::core::Timeouts::confirm): the server may have the message or
    /// not.
    #[error("it is not known whether the server has the message: {0}")]
    Unknown(CloseReason),
}

impl Unconfirmed {
    /// The reason for the end of the channel or the connection, or the timeout of the confirm. `Some`
    /// unless the server has answered.
    #[must_use]
    pub fn reason(&self) -> Option<&CloseReason> {
        match self {
            Self::NotSent(reason) | Self::Unknown(reason) => Some(reason),
            Self::Returned(_) | Self::PossiblyReturned(_) | Self::Nacked { .. } => None,
        }
    }

    /// The number of the channel. `None` only if a message was returned that could not be read, or if
    /// the reason is that of the connection.
    #[must_use]
    pub fn channel(&self) -> Option<u16> {
        match self {
            Self::Returned(message) | Self::PossiblyReturned(Some(message)) => {
                Some(message.channel)
            }
            Self::Nacked { channel } => Some(*channel),
            other => other.reason()?.channel(),
        }
    }

    /// The reply code of the return, or with which the channel or the connection was closed. `Some`
    /// if there is one.
    #[must_use]
    pub fn code(&self) -> Option<ReplyCode> {
        match self {
            Self::Returned(message) | Self::PossiblyReturned(Some(message)) => Some(message.code),
            other => other.reason()?.code(),
        }
    }

    /// Whether a deadline has passed, of the confirm or of the connection.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.reason().is_some_and(CloseReason::is_timed_out)
    }

    /// The last frames before the end of the channel or the connection. `Some` if either ended, and
    /// [`Config::frame_log`](crate::Config) is not 0.
    #[must_use]
    pub fn frame_log(&self) -> Option<&FrameLog> {
        self.reason()?.frame_log()
    }

    /// This error, to be printed with its [frames](Self::frame_log).
    #[must_use]
    pub fn report(&self) -> Report<'_> {
        Report::new(self, self.frame_log())
    }
}

amqp_core::reply_code_predicates!(Unconfirmed);
