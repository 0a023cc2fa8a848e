//! What can go wrong with a call.

use amqp_core::{
    ApiMisuse, CloseReason, RequestError,
    protocol::ReplyCode,
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
    /// The server did not answer in time. A late answer is taken back.
    #[error("the server did not answer in time")]
    TimedOut,
    /// The server cancelled the consumer: its queue was deleted, or moved, or may no longer be
    /// read.
    #[error("the server cancelled the consumer `{tag}`")]
    ConsumerCancelled {
        /// The consumer's tag.
        tag: ShortStr,
    },
}

impl Error {
    /// The reply code that the channel or the connection was closed with, if it was.
    #[must_use]
    pub fn code(&self) -> Option<ReplyCode> {
        match self {
            Self::ChannelClosed(reason) | Self::ConnectionClosed(reason) => reason.code(),
            Self::Misuse(_) | Self::TimedOut | Self::ConsumerCancelled { .. } => None,
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
            _ => Self::TimedOut,
        }
    }
}
