//! The end of a loop, by type.

use std::{any::Any, fmt};

use amqp_core::{CloseReason, protocol::ReplyCode, text::Quoted, wire::ShortStr};

use super::stopper::Drained;
use crate::error::Error;

/// The end of a loop over deliveries: the reason, and the number of messages by their end.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Ended<E> {
    /// The reason.
    pub reason: EndReason<E>,
    /// The number of messages by their end.
    pub counts: Counts,
}

/// The reason for the end of a loop over deliveries.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum EndReason<E> {
    /// The server cancelled the consumer: its queue was deleted or moved, or read access to it was
    /// revoked ([RabbitMQ's page](https://www.rabbitmq.com/docs/consumer-cancel)).
    CancelledByServer {
        /// The consumer's tag.
        tag: ShortStr,
    },
    /// This side had cancelled the consumer, and all that was delivered before has been handled.
    Cancelled,
    /// The server closed the channel because a delivery was not acknowledged in time, and has
    /// requeued all of them ([RabbitMQ's
    /// page](https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout)).
    AckTimedOut(CloseReason),
    /// The channel was closed, by this side if the reason [is clean](CloseReason::is_clean).
    ChannelClosed(CloseReason),
    /// The connection was closed, by this side if the reason [is clean](CloseReason::is_clean).
    ConnectionClosed(CloseReason),
    /// A body has failed, and the policy was [`OnFailure::End`](crate::OnFailure::End).
    Failed(Failure<E>),
    /// It was [drained](crate::Stopper::drain).
    Drained(Drained),
    /// Another error of the consumer.
    Error(Error),
}

/// For logs. The reason of a close names the side that closed.
impl<E: fmt::Display> fmt::Display for EndReason<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CancelledByServer { tag } => {
                write!(f, "the server cancelled the consumer {}", Quoted(tag))
            }
            Self::Cancelled => f.write_str("the consumer was cancelled"),
            Self::AckTimedOut(reason) => {
                write!(f, "a delivery was not acknowledged in time: {reason}")
            }
            Self::ChannelClosed(reason) => write!(f, "the channel is closed: {reason}"),
            Self::ConnectionClosed(reason) => write!(f, "the connection is closed: {reason}"),
            Self::Failed(failure) => write!(f, "a body has failed: {failure}"),
            Self::Drained(drained) => drained.fmt(f),
            Self::Error(error) => error.fmt(f),
        }
    }
}

impl<E> EndReason<E> {
    /// The reason for the end of a consumer: its error, or the end of its channel.
    pub(super) fn of(error: Option<Error>, closed: Option<Error>) -> Self {
        match error.or(closed) {
            Some(Error::ConsumerCancelled { tag, .. }) => Self::CancelledByServer { tag },
            Some(Error::ChannelClosed(reason)) if is_ack_timeout(&reason) => {
                Self::AckTimedOut(reason)
            }
            Some(Error::ChannelClosed(reason)) => Self::ChannelClosed(reason),
            Some(Error::ConnectionClosed(reason)) => Self::ConnectionClosed(reason),
            Some(error) => Self::Error(error),
            None => Self::Cancelled,
        }
    }
}

/// Whether the server closed a channel because a delivery was not acknowledged in time. RabbitMQ
/// distinguishes it from other faults with this code by its text alone:
/// <https://www.rabbitmq.com/docs/consumers#acknowledgement-timeout>.
fn is_ack_timeout(reason: &CloseReason) -> bool {
    reason.by_peer().is_some_and(|close| {
        close.code == ReplyCode::PRECONDITION_FAILED
            && close.text.contains("delivery acknowledgement")
            && close.text.contains("timed out")
    })
}

/// The number of messages by their end, and of bodies by theirs.
///
/// Messages that a body was called for are `succeeded`, `failed` or `panicked`, unless they were
/// interrupted. Messages that were settled are one of the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Bodies that returned `Ok`.
    pub succeeded: u64,
    /// Bodies that returned an error.
    pub failed: u64,
    /// Bodies that panicked.
    pub panicked: u64,
    /// Messages acknowledged because their body succeeded.
    pub acked: u64,
    /// Messages requeued: by the policy, because their body was interrupted, or because none was
    /// called.
    pub requeued: u64,
    /// Messages rejected without requeue, by the policy or after their last retry.
    pub rejected: u64,
    /// Messages published to a delay queue and then acknowledged.
    pub retried: u64,
    /// Messages that the server had requeued before they were settled, as their channel had ended.
    pub stale: u64,
}

impl Counts {
    /// The number of bodies that have run to their end.
    #[must_use]
    pub const fn handled(&self) -> u64 {
        self.succeeded + self.failed + self.panicked
    }
}

/// The failure of a body.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
pub enum Failure<E> {
    /// It returned an error.
    #[error(transparent)]
    Error(E),
    /// It panicked.
    #[error(transparent)]
    Panicked(Panicked),
}

/// A panic of a body.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("the body panicked: {message}")]
#[non_exhaustive]
pub struct Panicked {
    /// The message of the panic. Empty if its payload is no text.
    pub message: String,
}

impl Panicked {
    pub(super) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = match payload.downcast::<String>() {
            Ok(text) => *text,
            Err(payload) => payload
                .downcast::<&'static str>()
                .map(|text| (*text).to_owned())
                .unwrap_or_default(),
        };
        Self { message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(reason: EndReason<&'static str>) -> String {
        reason.to_string()
    }

    #[test]
    fn the_end_of_a_loop_is_said_in_words() {
        let tag = ShortStr::from_static("tag").unwrap_or_default();
        assert_eq!(
            shown(EndReason::CancelledByServer { tag }),
            "the server cancelled the consumer \"tag\""
        );
        let failure = Failure::Error("no number");
        assert_eq!(
            shown(EndReason::Failed(failure)),
            "a body has failed: no number"
        );
        assert_eq!(
            shown(EndReason::Error(Error::Stale)),
            Error::Stale.to_string()
        );
    }

    #[test]
    fn a_drain_says_what_was_left() {
        let good = Drained {
            handled: 3,
            acks_processed: true,
            ..Drained::default()
        };
        assert_eq!(
            shown(EndReason::Drained(good)),
            "drained: 3 handled, 0 requeued, 0 unfinished, 0 unconfirmed"
        );
        let lost = Drained {
            unfinished: 1,
            acks_processed: false,
            ..good
        };
        assert_eq!(
            lost.to_string(),
            "drained: 3 handled, 0 requeued, 1 unfinished, 0 unconfirmed, acknowledgements perhaps \
             not processed"
        );
    }
}
