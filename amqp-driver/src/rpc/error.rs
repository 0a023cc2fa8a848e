//! The errors of calls and of handlers.

use amqp_core::text::Escaped;

use crate::{error::Error, returned_message::ReturnedMessage};

/// The reason for which a call has no reply. [`may_have_run`](Self::may_have_run) says whether the
/// server may have handled the request.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RpcError {
    /// No queue accepted the request: there is no server. Contains the returned request.
    #[error("there is no server: {} {}", .0.code, Escaped(&.0.text))]
    NoServer(Box<ReturnedMessage>),
    /// The broker could not take responsibility for the request (`basic.nack`).
    #[error("the broker refused the request")]
    Refused,
    /// Nothing of the request was sent.
    #[error("the request was not sent: {0}")]
    NotSent(Error),
    /// The reply did not arrive in time. A late one is dropped.
    #[error("no reply came in time")]
    TimedOut,
    /// The channel, the connection or the consumer of the replies ended before the reply.
    #[error("the reply was lost: {0}")]
    Lost(Error),
    /// The server reported a [`HandlerError`].
    #[error("the server reported {code}: {}", Escaped(.text))]
    Remote {
        /// The code of the error.
        code: i32,
        /// The text of the error.
        text: String,
    },
}

impl RpcError {
    /// Whether the server may have handled the request.
    #[must_use]
    pub const fn may_have_run(&self) -> bool {
        match self {
            Self::NoServer(_) | Self::NotSent(_) => false,
            Self::Refused | Self::TimedOut | Self::Lost(_) | Self::Remote { .. } => true,
        }
    }
}

/// The error of a handler, which its caller gets as [`RpcError::Remote`].
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[error("{code}: {text}")]
#[non_exhaustive]
pub struct HandlerError {
    /// The code. Its meaning is the application's, but for [`INTERNAL`](Self::INTERNAL).
    pub code: i32,
    /// The text, human-readable. A reply has at most [`TEXT_MAX`](Self::TEXT_MAX) bytes of it.
    pub text: String,
}

impl HandlerError {
    /// The code for a handler that has panicked, or has returned an invalid reply: that of
    /// `internal-error` (section 1.2 of the protocol reference).
    pub const INTERNAL: i32 = 541;

    /// The longest text of a reply, in bytes.
    pub const TEXT_MAX: usize = 4096;

    /// Creates an error.
    #[must_use]
    pub fn new(code: i32, text: impl Into<String>) -> Self {
        let text = text.into();
        Self { code, text }
    }
}
