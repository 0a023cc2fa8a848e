//! The outcomes of messages.

use amqp_core::{CloseReason, Hold, text::Escaped};

use super::message::OutgoingMessage;
use crate::{error::Error, returned_message::ReturnedMessage};

/// The outcome of a message: each has exactly one.
///
/// With [`Republish`](crate::publishing::Republish) it is that of the last attempt. After an attempt
/// that ended as [`Unknown`](Self::Unknown), only [`Acked`](Self::Acked) is certain: every other end
/// leaves the message unknown, with the cause of the first such attempt.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// The server has taken responsibility for the message ([RabbitMQ's
    /// page](https://www.rabbitmq.com/docs/confirms)). If it was mandatory, a queue has it.
    Acked,
    /// The message was mandatory and no queue accepted it. Also reported if it was returned, but not
    /// confirmed, before the channel or the connection ended.
    Returned(Box<ReturnedMessage>),
    /// The server has taken responsibility for the message, but a returned message may be this one:
    /// see [`Unconfirmed::PossiblyReturned`](crate::Unconfirmed::PossiblyReturned). `Some` if the
    /// returned message could be read.
    PossiblyReturned(Option<Box<ReturnedMessage>>),
    /// The server could not take responsibility for the message (`basic.nack`): it may be lost.
    Nacked,
    /// Nothing of the message was sent: here it is.
    NotSent {
        /// The message, unchanged but for the message id that
        /// [`Republish`](crate::publishing::Republish) sets.
        message: Box<OutgoingMessage>,
        /// The reason.
        cause: Error,
    },
    /// The server may have the message or not: the channel or the connection ended before the
    /// confirm, or the confirm did not arrive in time.
    Unknown(CloseReason),
    /// The message was accepted into the output buffer of a channel without confirms: nothing more
    /// will be known. See [`Acknowledgements`](crate::publishing::Acknowledgements).
    Unacknowledged,
}

impl Outcome {
    /// Whether the server has taken responsibility for the message, and it was not returned.
    #[must_use]
    pub const fn is_acked(&self) -> bool {
        matches!(self, Self::Acked)
    }

    /// Succeeds for [`Acked`](Self::Acked).
    ///
    /// # Errors
    /// [`NotAcked`] with any other outcome.
    pub fn acked(self) -> Result<(), NotAcked> {
        match self {
            Self::Acked => Ok(()),
            other => Err(NotAcked(Box::new(other))),
        }
    }
}

/// An outcome other than [`Outcome::Acked`], as an error.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[error("{}", describe(.0))]
pub struct NotAcked(pub Box<Outcome>);

fn describe(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Acked => "the message was confirmed".into(),
        Outcome::Returned(returned) => {
            let text = Escaped(&returned.text);
            format!("the message was returned: {} {text}", returned.code)
        }
        Outcome::PossiblyReturned(_) => "a message was returned that may be this one".into(),
        Outcome::Nacked => "the server refused the message".into(),
        Outcome::NotSent { cause, .. } => format!("the message was not sent: {cause}"),
        Outcome::Unknown(cause) => {
            format!("it is not known whether the server has the message: {cause}")
        }
        Outcome::Unacknowledged => "the message was sent without confirms".into(),
    }
}

/// A message that was not published at once.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
#[error("the message was not published: {reason}")]
pub struct NotPublished {
    /// The message.
    pub message: Box<OutgoingMessage>,
    /// The reason.
    pub reason: NotPublishedReason,
}

/// The reason for which a message was not published at once.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotPublishedReason {
    /// The window of the publisher is full, or other messages wait for room in it.
    #[error("the window is full")]
    WindowFull,
    /// Earlier messages are being published again, and go first.
    #[error("earlier messages are published again")]
    Republishing,
    /// The server or a bound of the connection holds publishing back.
    #[error("publishing is held back: {0}")]
    HeldBack(Hold),
    /// A failure that waiting does not resolve.
    #[error(transparent)]
    Failed(Error),
}
