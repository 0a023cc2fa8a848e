//! The error of a call.

use amqp_core::{
    ApiMisuse, Body, CloseReason, Fault, Hold, RequestError, TimeoutReason,
    arguments::ArgumentError,
    protocol::ReplyCode,
    text::Quoted,
    wire::{ShortStr, ShortStrError},
};

/// The reason for which a call failed.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The call is invalid: the caller's fault. Nothing was sent or changed.
    #[error(transparent)]
    Misuse(ApiMisuse),
    /// The delivery precedes a recovery of its channel: the server has requeued the message
    /// (<https://www.rabbitmq.com/docs/confirms>). Nothing was sent.
    #[error("the message was requeued when the channel was lost")]
    Stale,
    /// The consumer was interrupted by the loss of its channel or connection, with the reason. It
    /// goes on: reported only to consumers that ask for it
    /// ([`ConsumeOptions::report_interruptions`](crate::ConsumeOptions)).
    #[error("the consumer was interrupted: {0}")]
    Interrupted(CloseReason),
    /// The connection or the channel is being recovered, and the call does not wait. Nothing was
    /// sent.
    #[error("the connection is being recovered")]
    Recovering,
    /// The recovery of the connection has not restored the consumer.
    #[error("not recovered: {why}")]
    NotRecovered {
        /// The explanation, human-readable.
        why: String,
    },
    /// A recovery of the channel has ended the transaction: nothing of it before the recovery takes
    /// effect. A rollback discards the rest and begins another.
    #[error("the transaction was lost with the connection")]
    TransactionLost,
    /// The channel is closed, with the reason. The reason's method names the call that the server
    /// refused; the connection stays open (section 4.8.1 of the specification).
    #[error("the channel is closed: {0}")]
    ChannelClosed(CloseReason),
    /// The connection is closed, with the reason.
    #[error("the connection is closed: {0}")]
    ConnectionClosed(CloseReason),
    /// The timeout has passed: the effect of a late answer is undone, and a message waiting to be
    /// published was not sent.
    #[error("{0}")]
    TimedOut(TimeoutReason),
    /// The server cancelled the consumer: its queue was deleted or moved, or read access to it was
    /// revoked ([RabbitMQ's page](https://www.rabbitmq.com/docs/consumer-cancel)).
    #[error("the server cancelled the consumer {}", Quoted(.tag))]
    ConsumerCancelled {
        /// The consumer's tag.
        tag: ShortStr,
    },
    /// Messages that cannot be requeued, because they need no acknowledgement or were returned,
    /// arrived faster than they were taken. Those in the buffer are yielded before this error; the
    /// others are lost.
    #[error("messages came faster than they were taken, more than {limit} bytes wait")]
    Overflow {
        /// The bound that was exceeded, in bytes: [`Limits::undelivered`](amqp_core::Limits).
        limit: usize,
    },
    /// A defect of this library.
    #[error("a fault of this library: {0}")]
    Internal(&'static str),
    /// The fetched message exceeds a limit of this side, such as
    /// [`Limits::header`](amqp_core::Limits::header). It was rejected without requeue, unless it
    /// needed no acknowledgement.
    #[error("the message cannot be read: {0}")]
    Unreadable(Fault),
}

impl Error {
    /// The reply code with which the channel or the connection was closed. `Some` if it was closed
    /// with one.
    #[must_use]
    pub fn code(&self) -> Option<ReplyCode> {
        match self {
            Self::ChannelClosed(reason) | Self::ConnectionClosed(reason) => reason.code(),
            _ => None,
        }
    }
}

impl From<ApiMisuse> for Error {
    fn from(misuse: ApiMisuse) -> Self {
        match misuse {
            ApiMisuse::StaleDeliveryTag(_) => Self::Stale,
            misuse => Self::Misuse(misuse),
        }
    }
}

impl From<ShortStrError> for Error {
    fn from(error: ShortStrError) -> Self {
        Self::Misuse(error.into())
    }
}

impl From<ArgumentError> for Error {
    fn from(error: ArgumentError) -> Self {
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

/// The reason for which a message was not published at once.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryPublishError {
    /// There is no room now, the server has paused publishing, or other publishers wait before it.
    #[error("publishing is held back: {hold}")]
    HeldBack {
        /// The awaited condition.
        hold: Hold,
        /// The body, unchanged.
        body: Body,
    },
    /// A failure that waiting does not resolve.
    #[error(transparent)]
    Failed(Error),
}
