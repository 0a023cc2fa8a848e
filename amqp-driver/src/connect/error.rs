//! The error of a connect.

use std::{io, sync::Arc};

use amqp_core::{
    ApiMisuse, CloseCause, CloseReason, FrameLog,
    dial::{Address, Failures},
    protocol::ReplyCode,
    recovery::ConnectFailure,
    uri::UriError,
};

use super::credentials::CredentialsError;
use crate::{error::Error, report::Report, tls::TlsError};

/// The reason for which no connection was opened.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URI is invalid.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The configuration has a setting that no server would accept.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The system provides no facility to wait for sockets.
    #[error("cannot wait for sockets: {0}")]
    System(#[source] Arc<io::Error>),
    /// No address could be reached, with the failure of each.
    #[error("could not reach {0}")]
    Unreachable(Failures),
    /// A host was reached, but the TLS handshake with it failed.
    #[error("no TLS with {address}: {error}")]
    Tls {
        /// The address of the host.
        address: Address,
        /// The failure.
        #[source]
        error: TlsError,
    },
    /// The provider has no credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// A host was reached, but did not open the connection.
    #[error("no connection with {address}: {error}")]
    NotOpened {
        /// The address of the host.
        address: Address,
        /// The failure.
        #[source]
        error: Error,
    },
    /// Several addresses failed, and some of them were reached.
    #[error("no connection was opened: {failures}")]
    Refused {
        /// The failure of each.
        failures: Failures,
        /// The last failure of an address that was reached.
        last: Box<Self>,
    },
    /// The caller's time limit passed first.
    #[error("no connection was made in time")]
    TimedOut,
}

impl ConnectError {
    /// Whether another host would fail in the same way.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::NotOpened {
                error: Error::ConnectionClosed(reason),
                ..
            } => {
                matches!(reason.cause(), CloseCause::AuthenticationFailed { .. })
            }
            Self::NotOpened {
                error: Error::Misuse(_) | Error::Recovering,
                ..
            }
            | Self::Misuse(_)
            | Self::Credentials(_) => true,
            #[cfg(feature = "tls")]
            Self::Tls {
                error: TlsError::Setup(error),
                ..
            } => error.is_final(),
            _ => false,
        }
    }

    /// The kind of the failure, for the policy of a recovery.
    pub(crate) fn kind(&self) -> ConnectFailure {
        match self {
            Self::Credentials(_) => ConnectFailure::NoCredentials,
            Self::NotOpened {
                error: Error::ConnectionClosed(reason),
                ..
            } => ConnectFailure::of(reason),
            Self::Unreachable(_)
            | Self::TimedOut
            | Self::Tls {
                error: TlsError::TimedOut(_),
                ..
            } => ConnectFailure::Unreachable,
            Self::Refused { last, .. } => last.kind(),
            _ => ConnectFailure::Other,
        }
    }

    /// The text of the error, for use beside the address.
    pub(super) fn without_address(&self) -> String {
        match self {
            Self::Tls { error, .. } => format!("no TLS: {error}"),
            Self::NotOpened { error, .. } => error.to_string(),
            other => other.to_string(),
        }
    }
}

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

    /// The frames of the handshake that failed. `Some` if there was one, and
    /// [`Config::frame_log`](crate::Config::frame_log) is not 0.
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
