//! What an application can ask of the error of a connect.

use amqp_core::{CloseReason, FrameLog, protocol::ReplyCode};

use super::ConnectError;
use crate::{report::Report, tls::TlsError};

impl ConnectError {
    /// The reason for which the server did not open the connection. `Some` if a server was reached,
    /// and answered or hung up; of several, the last.
    #[must_use]
    pub fn reason(&self) -> Option<&CloseReason> {
        match self {
            Self::NotOpened { error, .. } => error.reason(),
            Self::Refused { last, .. } => last.reason(),
            _ => None,
        }
    }

    /// The reply code with which the server closed the connection. `Some` if it did.
    #[must_use]
    pub fn code(&self) -> Option<ReplyCode> {
        self.reason()?.code()
    }

    /// Whether a deadline has passed: of the handshake, or of the call.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        match self {
            Self::TimedOut
            | Self::Tls {
                error: TlsError::TimedOut(_),
                ..
            } => true,
            Self::Refused { last, .. } => last.is_timed_out(),
            other => other.reason().is_some_and(CloseReason::is_timed_out),
        }
    }

    /// The frames of the handshake that failed. `Some` if there was one, and [`Config::frame_log`]
    /// is not 0.
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

amqp_core::reply_code_predicates!(ConnectError);
