//! The policy of a recovery: its extent, its delays, and the response to failures.

use core::{fmt, time::Duration};

use super::Backoff;
use crate::{
    close::{CloseCause, CloseReason},
    protocol::ReplyCode,
};

/// The policy of a recovery, as plain values.
///
/// ```
/// use amqp_core::recovery::{Mode, OnFailure, Policy};
/// use core::time::Duration;
///
/// let mut policy = Policy::new(42) // a seed, different for each client
///     .mode(Mode::TransientOnly)
///     .attempts(100)
///     .deadline(Duration::from_secs(3600));
/// policy.queues.precondition_failed = OnFailure::GiveUp;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// The part of the topology that is restored. Default [`Mode::Everything`].
    pub mode: Mode,
    /// The delays between attempts to connect. They begin anew with the first loss of a connection
    /// that has lived for [`Backoff::max`] since its recovery, and grow on otherwise.
    pub backoff: Backoff,
    /// The seed of the jitter: different for each client, from a source of randomness or from a
    /// test.
    pub seed: u64,
    /// The maximum number of attempts to connect, counted since the last complete recovery. Default
    /// `None`, unlimited.
    pub attempts: Option<u32>,
    /// The time from a loss to the end of the recovery, beyond which it is given up. Default
    /// `None`, unlimited.
    pub deadline: Option<Duration>,
    /// The response to a failure to connect.
    pub connect: OnConnectFailure,
    /// The response to the failure of an exchange.
    pub exchanges: OnStepFailure,
    /// The response to the failure of a queue.
    pub queues: OnStepFailure,
    /// The response to the failure of a binding.
    pub bindings: OnStepFailure,
    /// The response to the failure of a consumer. One that is skipped has ended.
    pub consumers: OnStepFailure,
    /// The response to the failure of a channel: its open, its prefetch or its mode, or a close for
    /// no step. One that is skipped has ended. Default a retry for 3 s, for a close for no step.
    pub channels: OnStepFailure,
    /// Whether a channel that the server closes while the connection lives is opened again with its
    /// consumers, and the auto-delete entities that went with them. Default `true`. The request
    /// that the server closed it for fails in any case.
    pub reopen_channels: bool,
    /// Whether the first connect is tried again, too, until the broker is there. Default `false`: a
    /// wrong address is an error at once. For the host to read: the machine treats the first connect
    /// as any other.
    pub first_connect: bool,
}

/// The default retry of a channel that was closed for no step.
const SHORT_RETRY: OnFailure = OnFailure::Retry {
    attempts: 6,
    delay: Duration::from_millis(500),
};

impl Policy {
    /// Creates the default policy, with a seed for the jitter.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            mode: Mode::default(),
            backoff: Backoff::default(),
            seed,
            attempts: None,
            deadline: None,
            connect: OnConnectFailure::default(),
            exchanges: OnStepFailure::default(),
            queues: OnStepFailure::default(),
            bindings: OnStepFailure::default(),
            consumers: OnStepFailure::default(),
            channels: OnStepFailure {
                precondition_failed: SHORT_RETRY,
                other: SHORT_RETRY,
                ..OnStepFailure::default()
            },
            reopen_channels: true,
            first_connect: false,
        }
    }

    /// Sets `mode`.
    #[must_use]
    pub fn mode(mut self, mode: Mode) -> Self {
        self.mode = mode;
        self
    }

    /// Sets `backoff`.
    #[must_use]
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets `attempts`.
    #[must_use]
    pub fn attempts(mut self, attempts: impl Into<Option<u32>>) -> Self {
        self.attempts = attempts.into();
        self
    }

    /// Sets `deadline`.
    #[must_use]
    pub fn deadline(mut self, deadline: impl Into<Option<Duration>>) -> Self {
        self.deadline = deadline.into();
        self
    }

    /// Sets `first_connect`.
    #[must_use]
    pub fn first_connect(mut self, first_connect: bool) -> Self {
        self.first_connect = first_connect;
        self
    }

    /// Sets `reopen_channels`.
    #[must_use]
    pub fn reopen_channels(mut self, reopen_channels: bool) -> Self {
        self.reopen_channels = reopen_channels;
        self
    }
}

/// The part of the topology that a recovery restores. Each mode includes those below it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Mode {
    /// The connection alone. Its channels end with the loss.
    Nothing,
    /// The connection, and its channels with their prefetch and their mode. Its consumers end with
    /// the loss.
    ConnectionOnly,
    /// The channels with their consumers. No entity is declared.
    ConsumersOnly,
    /// The entities that do not survive the connection or the broker: queues that are exclusive,
    /// auto-delete, not durable or named by the server, exchanges that are auto-delete or not
    /// durable, and their bindings.
    TransientOnly,
    /// All entities, channels and consumers.
    #[default]
    Everything,
}

/// The response to a failed step, by the reason of the failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnStepFailure {
    /// An entity is missing (404). Default [`OnFailure::Skip`].
    pub not_found: OnFailure,
    /// The user has no permission (403). Default [`OnFailure::Skip`].
    pub access_refused: OnFailure,
    /// The entity is exclusive to another connection (405), or its consumer is (403, "in exclusive
    /// use"). That may be the connection before, which the broker has not given up yet. Default a
    /// retry for 10 s.
    pub locked: OnFailure,
    /// The entity has changed meanwhile (406). Default [`OnFailure::Skip`].
    pub precondition_failed: OnFailure,
    /// Any other failure. Default [`OnFailure::Skip`].
    pub other: OnFailure,
}

impl Default for OnStepFailure {
    fn default() -> Self {
        Self {
            not_found: OnFailure::Skip,
            access_refused: OnFailure::Skip,
            locked: OnFailure::Retry {
                attempts: 20,
                delay: Duration::from_millis(500),
            },
            precondition_failed: OnFailure::Skip,
            other: OnFailure::Skip,
        }
    }
}

/// The response to a failed step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum OnFailure {
    /// Tries the step again, then skips it. The entities that do not depend on it go on meanwhile,
    /// and the channels follow when all entities are done. The failed step of a channel holds back
    /// the others of the same channel.
    Retry {
        /// The maximum number of further attempts.
        attempts: u32,
        /// The delay before each.
        delay: Duration,
    },
    /// Goes on without the step, and reports it.
    Skip,
    /// Ends the recovery, and closes the connection.
    GiveUp,
}

/// The reason of a failed step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FailureKind {
    NotFound,
    AccessRefused,
    Locked,
    PreconditionFailed,
    Other,
}

impl FailureKind {
    pub(super) fn of_close(reason: &CloseReason) -> Self {
        match (reason.code(), reason.by_peer()) {
            (Some(ReplyCode::NOT_FOUND), _) => Self::NotFound,
            (Some(ReplyCode::ACCESS_REFUSED), Some(close))
                if close.text.contains("in exclusive use") =>
            {
                Self::Locked
            }
            (Some(ReplyCode::ACCESS_REFUSED), _) => Self::AccessRefused,
            (Some(ReplyCode::RESOURCE_LOCKED), _) => Self::Locked,
            (Some(ReplyCode::PRECONDITION_FAILED), _) => Self::PreconditionFailed,
            _ => Self::Other,
        }
    }
}

impl OnStepFailure {
    pub(super) const fn response(&self, kind: FailureKind) -> OnFailure {
        match kind {
            FailureKind::NotFound => self.not_found,
            FailureKind::AccessRefused => self.access_refused,
            FailureKind::Locked => self.locked,
            FailureKind::PreconditionFailed => self.precondition_failed,
            FailureKind::Other => self.other,
        }
    }
}

/// The response to a failure to connect, by its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OnConnectFailure {
    /// Default [`Reconnect::Retry`].
    pub unreachable: Reconnect,
    /// Default [`Reconnect::GiveUp`].
    pub login_refused: Reconnect,
    /// Default [`Reconnect::Retry`].
    pub no_credentials: Reconnect,
    /// Default [`Reconnect::Retry`].
    pub other: Reconnect,
}

impl Default for OnConnectFailure {
    fn default() -> Self {
        Self {
            unreachable: Reconnect::Retry,
            login_refused: Reconnect::GiveUp,
            no_credentials: Reconnect::Retry,
            other: Reconnect::Retry,
        }
    }
}

impl OnConnectFailure {
    pub(super) const fn response(&self, kind: ConnectFailure) -> Reconnect {
        match kind {
            ConnectFailure::Unreachable => self.unreachable,
            ConnectFailure::LoginRefused => self.login_refused,
            ConnectFailure::NoCredentials => self.no_credentials,
            ConnectFailure::Other => self.other,
        }
    }
}

/// The response to a failure to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reconnect {
    /// Tries again after a delay.
    Retry,
    /// Ends the recovery.
    GiveUp,
}

/// The kind of a failure to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// No broker was reached: name resolution, TCP, a transport that ended during the handshake, or
    /// a timeout.
    Unreachable,
    /// The broker refused the credentials.
    LoginRefused,
    /// No credentials were there to log in with, as from a provider that fails or is late.
    NoCredentials,
    /// Any other failure, such as TLS, a refused virtual host, or another protocol.
    Other,
}

impl ConnectFailure {
    /// The kind of the failure of a connection that ended before it was open.
    #[must_use]
    pub fn of(reason: &CloseReason) -> Self {
        match reason.cause() {
            CloseCause::AuthenticationFailed { .. } => Self::LoginRefused,
            CloseCause::Eof { .. } | CloseCause::Transport { .. } | CloseCause::TimedOut(_) => {
                Self::Unreachable
            }
            CloseCause::Requested(_)
            | CloseCause::ByPeer(_)
            | CloseCause::ProtocolError(_)
            | CloseCause::LimitExceeded(_)
            | CloseCause::NotAmqp(_)
            | CloseCause::NoCommonMechanism { .. }
            | CloseCause::NoCommonLocale { .. }
            | CloseCause::StartOkTooLarge { .. }
            | CloseCause::NotRecovered { .. }
            | CloseCause::Connection(_) => Self::Other,
        }
    }
}

impl fmt::Display for ConnectFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unreachable => "the broker was not reached",
            Self::LoginRefused => "the login was refused",
            Self::NoCredentials => "there were no credentials",
            Self::Other => "the connection failed",
        })
    }
}
