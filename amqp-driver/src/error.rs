//! The error of a call.

use amqp_core::{
    ApiMisuse, Body, CloseCause, CloseReason, FrameLog, Hold, MethodId, ProtocolError,
    RequestError, TimeoutReason,
    arguments::ArgumentError,
    protocol::ReplyCode,
    text::Quoted,
    wire::{ShortStr, ShortStrError},
};

use crate::report::Report;

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
    /// ([`ConsumeOptions::report_interruptions`](crate::ConsumeOptions)). Losses in a row, without a
    /// message of the consumer in between, are one interruption, with the reason of the first.
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
    /// The server has not answered a request within
    /// [`Timeouts::request`](amqp_core::Timeouts). The effect of a late answer is undone.
    #[error("no answer to {request} came in time{}", on_channel(*.channel))]
    Unanswered {
        /// The request.
        request: MethodId,
        /// The number of its channel. `None` for a request of the connection.
        channel: Option<u16>,
    },
    /// The timeout of a call other than a request has passed: a message waiting to be published was
    /// not sent.
    #[error("{reason}{}", on_channel(*.channel))]
    TimedOut {
        /// The timeout.
        reason: TimeoutReason,
        /// The number of the channel. `Some` for a publish; the others are of the connection, or of
        /// a pool that has no channel to give out.
        channel: Option<u16>,
    },
    /// The server cancelled the consumer: its queue was deleted or moved, or read access to it was
    /// revoked ([RabbitMQ's page](https://www.rabbitmq.com/docs/consumer-cancel)).
    #[error("the server cancelled the consumer {} on channel {channel}", Quoted(.tag))]
    ConsumerCancelled {
        /// The consumer's tag.
        tag: ShortStr,
        /// The number of its channel.
        channel: u16,
    },
    /// Messages that cannot be requeued, because they need no acknowledgement or were returned,
    /// arrived faster than they were taken. Those in the buffer are yielded before this error; the
    /// others are lost.
    #[error(
        "messages came faster than they were taken, more than {limit} bytes wait, on channel \
         {channel}"
    )]
    Overflow {
        /// The bound that was exceeded, in bytes: [`Limits::undelivered`](amqp_core::Limits).
        limit: usize,
        /// The number of the channel.
        channel: u16,
    },
    /// A defect of this library.
    #[error("a fault of this library: {0}")]
    Internal(&'static str),
    /// The fetched message exceeds a limit of this side, such as
    /// [`Limits::header`](amqp_core::Limits::header). It was rejected without requeue, unless it
    /// needed no acknowledgement.
    #[error("the message cannot be read: {0}")]
    Unreadable(ProtocolError),
}

impl Error {
    /// The timeout of a publish on the channel of that number.
    pub(crate) const fn publish_timed_out(channel: u16) -> Self {
        Self::TimedOut {
            reason: TimeoutReason::Publish,
            channel: Some(channel),
        }
    }

    /// The error for the end of a channel.
    pub(crate) fn of_channel(reason: CloseReason) -> Self {
        match reason.cause() {
            CloseCause::Connection(connection) => Self::ConnectionClosed(connection.clone()),
            _ => Self::ChannelClosed(reason),
        }
    }

    /// The reply code with which the channel or the connection was closed. `Some` if it was closed
    /// with one.
    #[must_use]
    pub fn code(&self) -> Option<ReplyCode> {
        self.reason()?.code()
    }

    /// The reason for the end of the channel or the connection: the side that ended it, the reply
    /// code and text, the method, the channel, and the request that failed with it. `Some` if
    /// either ended.
    #[must_use]
    pub fn reason(&self) -> Option<&CloseReason> {
        match self {
            Self::ChannelClosed(reason) | Self::ConnectionClosed(reason) => Some(reason),
            _ => None,
        }
    }

    /// The number of the channel. `Some` if the error is that of a channel.
    #[must_use]
    pub fn channel(&self) -> Option<u16> {
        match self {
            Self::Unanswered { channel, .. } | Self::TimedOut { channel, .. } => *channel,
            Self::ConsumerCancelled { channel, .. } | Self::Overflow { channel, .. } => {
                Some(*channel)
            }
            Self::Unreadable(error) => error.channel,
            other => other.reason()?.channel(),
        }
    }

    /// The request that failed. `Some` if it was sent.
    #[must_use]
    pub fn request(&self) -> Option<MethodId> {
        match self {
            Self::Unanswered { request, .. } => Some(*request),
            Self::Unreadable(error) => error.method,
            other => other.reason()?.request(),
        }
    }

    /// Whether a deadline has passed, of this call or of the connection.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        match self {
            Self::Unanswered { .. } | Self::TimedOut { .. } => true,
            other => other.reason().is_some_and(CloseReason::is_timed_out),
        }
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

/// The place of an error, after its text.
fn on_channel(channel: Option<u16>) -> String {
    channel.map_or_else(String::new, |channel| format!(", on channel {channel}"))
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
            RequestError::Cancelled { tag, channel } => Self::ConsumerCancelled { tag, channel },
            RequestError::Unreadable(error) => Self::Unreadable(error),
            RequestError::TimedOut { request, channel } => Self::Unanswered { request, channel },
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

amqp_core::reply_code_predicates!(Error);
