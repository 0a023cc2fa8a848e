//! What can go wrong with a call.

use amqp_core::{
    ApiMisuse, CloseReason, Fault, RequestError, TimeoutReason,
    protocol::ReplyCode,
    text::Quoted,
    wire::{ShortStr, ShortStrError},
};

/// Why a call failed.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The call was wrong in itself: the caller's fault. Nothing was sent, and nothing has changed.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The channel is closed, and why. The reason's method tells which call the server did not
    /// like; the connection is unharmed.
    #[error("the channel is closed: {0}")]
    ChannelClosed(CloseReason),
    /// The connection is closed, and why.
    #[error("the connection is closed: {0}")]
    ConnectionClosed(CloseReason),
    /// The time for it is over: a late answer of the server is undone, and a message that waited to
    /// be published was not sent.
    #[error("{0}")]
    TimedOut(TimeoutReason),
    /// The server cancelled the consumer: its queue was deleted, or moved, or may no longer be
    /// read.
    #[error("the server cancelled the consumer {}", Quoted(.tag))]
    ConsumerCancelled {
        /// The consumer's tag.
        tag: ShortStr,
    },
    /// Messages that the server does not take back, because they need no acknowledgement or were
    /// returned, came faster than they were taken. Those that were kept are yielded before this;
    /// others are lost.
    #[error("messages came faster than they were taken, more than {limit} bytes wait")]
    Overflow {
        /// The bound that was reached, in bytes: [`Limits::undelivered`](amqp_core::Limits).
        limit: usize,
    },
    /// A fault of this library.
    #[error("a fault of this library: {0}")]
    Internal(&'static str),
    /// The message that was fetched is over a limit of this side, such as
    /// [`Limits::header`](amqp_core::Limits::header). It was rejected without requeue, unless it
    /// needed no acknowledgement.
    #[error("the message cannot be read: {0}")]
    Unreadable(Fault),
}

impl Error {
    /// The reply code that the channel or the connection was closed with, if it was.
    #[must_use]
    pub fn code(&self) -> Option<ReplyCode> {
        match self {
            Self::ChannelClosed(reason) | Self::ConnectionClosed(reason) => reason.code(),
            _ => None,
        }
    }
}

impl From<ShortStrError> for Error {
    fn from(error: ShortStrError) -> Self {
        Self::Misuse(error.into())
    }
}

impl From<RequestError> for Error {
    fn from(error: RequestError) -> Self {
        match error {
            RequestError::ChannelClosed(reason) => Self::ChannelClosed(reason),
            RequestError::ConnectionClosed(reason) => Self::ConnectionClosed(reason),
            RequestError::Cancelled { tag } => Self::ConsumerCancelled { tag },
            RequestError::Unreadable(fault) => Self::Unreadable(fault),
            RequestError::TimedOut => Self::TimedOut(TimeoutReason::Request),
            _ => Self::Internal("an unknown cause"),
        }
    }
}
