//! The reasons for the end of a connection or a channel.

use alloc::{string::String, sync::Arc};
use core::fmt;

use crate::{
    fault::{Fault, ProtocolError},
    method_id::MethodId,
    protocol::ReplyCode,
    text::{Escaped, Quoted},
    wire::ShortStr,
};

/// The reason for the end of a connection or a channel: the side that ended it, the cause, and the
/// method.
///
/// Cheap to clone. Everything pending on the connection or channel ends with the same one.
#[derive(Clone, PartialEq, Eq)]
pub struct CloseReason(Arc<CloseCause>);

/// The cause of the end of a connection or a channel.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCause {
    /// This side closed it on request.
    #[error("closed by this side: {0}")]
    Requested(Close),
    /// The peer closed it.
    #[error("closed by the peer: {0}")]
    ByPeer(Close),
    /// The peer broke the protocol, and this side closed.
    #[error("closed because the peer broke the protocol: {0}")]
    ProtocolError(ProtocolError),
    /// The peer exceeded a limit that this side has set for itself, and this side closed. See
    /// [`Fault::is_own_limit`](crate::Fault::is_own_limit).
    #[error("closed because of a limit of this side: {0}")]
    LimitExceeded(ProtocolError),
    /// The peer uses another version of the protocol, or another protocol.
    #[error(transparent)]
    NotAmqp(#[from] NotAmqp),
    /// Client and server have no SASL mechanism in common.
    #[error("no common SASL mechanism: the server offers {}", Quoted(.offered))]
    NoCommonMechanism {
        /// The mechanisms that the server offers, separated by spaces.
        offered: String,
    },
    /// The server does not offer the requested message locale.
    #[error("the server does not offer the locale {}, only {}", Quoted(.wanted), Quoted(.offered))]
    NoCommonLocale {
        /// The requested locale.
        wanted: String,
        /// The locales that the server offers, separated by spaces.
        offered: String,
    },
    /// The credentials were refused, or could not be produced. Also the reason if the server hangs
    /// up during authentication, unless both sides have announced the capability
    /// `authentication_failure_close`, as RabbitMQ and this library do: then a refusal is a close
    /// (<https://www.rabbitmq.com/docs/auth-notification>).
    #[error("authentication failed: {}", Escaped(.why))]
    AuthenticationFailed {
        /// The explanation, human-readable.
        why: String,
        /// The server's close. `None` if it hung up without one.
        close: Option<Close>,
    },
    /// The credentials and client properties do not fit into a frame of the size that is allowed
    /// before the limits are negotiated.
    #[error("start-ok takes {len} bytes, a frame before negotiation holds {limit}")]
    StartOkTooLarge {
        /// The size of the frame, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The transport ended without a close.
    #[error("the transport ended {stage}")]
    Eof {
        /// The progress of the connection at that time.
        stage: Stage,
    },
    /// The transport failed.
    #[error("the transport failed {stage}: {}", Escaped(.message))]
    Transport {
        /// The progress of the connection at that time.
        stage: Stage,
        /// The error message of the transport.
        message: String,
    },
    /// A deadline passed.
    #[error("timed out: {0}")]
    TimedOut(TimeoutReason),
    /// The channel ended with its connection.
    #[error("the connection ended: {0}")]
    Connection(CloseReason),
    /// A [recovery](crate::recovery) has not restored the channel, or was given up. Used by the
    /// layers above the state machine.
    #[error("not recovered: {}", Escaped(.why))]
    NotRecovered {
        /// The explanation, human-readable.
        why: String,
    },
}

impl CloseReason {
    /// Returns the cause.
    #[must_use]
    pub fn cause(&self) -> &CloseCause {
        &self.0
    }

    /// Returns the reply code of the close. `Some` if a close was sent by this side or received
    /// from the peer. For a channel that ended with its connection, the connection's.
    #[must_use]
    pub fn code(&self) -> Option<ReplyCode> {
        match self.cause() {
            CloseCause::Requested(close) | CloseCause::ByPeer(close) => Some(close.code),
            CloseCause::ProtocolError(error) | CloseCause::LimitExceeded(error) => error.code,
            CloseCause::AuthenticationFailed { close, .. } => close.as_ref().map(|it| it.code),
            CloseCause::Connection(reason) => reason.code(),
            CloseCause::NotAmqp(_)
            | CloseCause::NoCommonMechanism { .. }
            | CloseCause::NoCommonLocale { .. }
            | CloseCause::StartOkTooLarge { .. }
            | CloseCause::Eof { .. }
            | CloseCause::Transport { .. }
            | CloseCause::NotRecovered { .. }
            | CloseCause::TimedOut(_) => None,
        }
    }

    /// Returns the peer's close. `Some` if the peer closed it. For a channel that ended with its
    /// connection, the close of the connection.
    #[must_use]
    pub fn by_peer(&self) -> Option<&Close> {
        match self.cause() {
            CloseCause::ByPeer(close) => Some(close),
            CloseCause::AuthenticationFailed { close, .. } => close.as_ref(),
            CloseCause::Connection(reason) => reason.by_peer(),
            CloseCause::Requested(_)
            | CloseCause::ProtocolError(_)
            | CloseCause::LimitExceeded(_)
            | CloseCause::NotAmqp(_)
            | CloseCause::NoCommonMechanism { .. }
            | CloseCause::NoCommonLocale { .. }
            | CloseCause::StartOkTooLarge { .. }
            | CloseCause::Eof { .. }
            | CloseCause::Transport { .. }
            | CloseCause::NotRecovered { .. }
            | CloseCause::TimedOut(_) => None,
        }
    }

    /// Whether this side closed it on request with the reply code for success.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self.cause() {
            CloseCause::Requested(close) => close.code == ReplyCode::SUCCESS,
            CloseCause::Connection(reason) => reason.is_clean(),
            CloseCause::ByPeer(_)
            | CloseCause::ProtocolError(_)
            | CloseCause::LimitExceeded(_)
            | CloseCause::NotAmqp(_)
            | CloseCause::NoCommonMechanism { .. }
            | CloseCause::NoCommonLocale { .. }
            | CloseCause::AuthenticationFailed { .. }
            | CloseCause::StartOkTooLarge { .. }
            | CloseCause::Eof { .. }
            | CloseCause::Transport { .. }
            | CloseCause::NotRecovered { .. }
            | CloseCause::TimedOut(_) => false,
        }
    }
}

impl From<CloseCause> for CloseReason {
    fn from(cause: CloseCause) -> Self {
        Self(Arc::new(cause))
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl core::error::Error for CloseReason {}

/// The arguments of a close method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The reply code.
    pub code: ReplyCode,
    /// The reply text, human-readable.
    pub text: String,
    /// The method that caused the close. `Some` if there was one.
    pub method: Option<MethodId>,
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if !self.text.is_empty() {
            write!(f, ": {}", Escaped(&self.text))?;
        }
        match self.method {
            Some(method) => write!(f, " (after {method})"),
            None => Ok(()),
        }
    }
}

/// The protocol of a peer that does not speak AMQP 0-9-1.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotAmqp {
    /// It answered with a protocol header, so it supports another version only (section 4.2.2 of
    /// the specification).
    #[error("the peer does not speak AMQP 0-9-1, it offers AMQP {}.{}.{} (id {})", .0[1], .0[2], .0[3], .0[0])]
    OtherVersion(
        /// The four octets after `AMQP`: an identifier, then major, minor and revision (in the
        /// order that AMQP 0-9-1 and 1.0 share).
        [u8; 4],
    ),
    /// TLS: the port expects TLS, or a TLS client has connected to a plain port.
    #[error("the peer speaks TLS on this port")]
    Tls,
    /// HTTP: the port is that of the management interface, or of a proxy.
    #[error("the peer speaks HTTP on this port")]
    Http,
    /// An unknown protocol.
    #[error("the peer does not speak AMQP: it began with {0:02x?}")]
    Unknown(
        /// The first octets received.
        [u8; 8],
    ),
    /// AMQP with another version than 0-9 in `start` (section 1.4.2.1 of the protocol reference).
    #[error("the server speaks AMQP {major}-{minor} instead of 0-9")]
    StartVersion {
        /// The offered major version.
        major: u8,
        /// The offered minor version.
        minor: u8,
    },
}

/// The progress of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Waiting for the server's first answer to the protocol header, or for the client's protocol
    /// header.
    Greeting,
    /// Exchanging credentials.
    Authenticating,
    /// Negotiating limits.
    Tuning,
    /// Opening the virtual host.
    Opening,
    /// Open.
    Open,
    /// Closing.
    Closing,
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Greeting => "before the peer had said anything",
            Self::Authenticating => "during authentication",
            Self::Tuning => "while the limits were negotiated",
            Self::Opening => "while the virtual host was opened",
            Self::Open => "while the connection was open",
            Self::Closing => "while the connection was closing",
        })
    }
}

/// The reason why the state machine is to be called at a certain time.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TimeoutReason {
    /// A command has set a deadline that is to be armed. It is due at once: commands have no time
    /// argument.
    #[error("a deadline is to be set")]
    SetDeadline,
    /// Nothing was handed out for half the heartbeat interval.
    #[error("a heartbeat is due")]
    HeartbeatDue,
    /// Nothing was received for two heartbeat intervals: the peer is considered dead (section 4.2.7
    /// of the specification).
    #[error("nothing was heard from the peer for two heartbeat intervals")]
    PeerSilent,
    /// The handshake timed out.
    #[error("the handshake did not finish in time")]
    Handshake,
    /// The close handshake timed out.
    #[error("the peer did not answer the close in time")]
    Close,
    /// A call exceeded its own timeout.
    #[error("the call took longer than its limit")]
    Call,
    /// The secret is about to expire.
    #[error("a new secret is wanted")]
    Secret,
    /// A request timed out.
    #[error("a request was not answered in time")]
    Request,
    /// Output is waiting, and the transport took none for two heartbeat intervals: the peer is
    /// considered dead. Suspended while the server has blocked publishing, as RabbitMQ does not
    /// read then (<https://www.rabbitmq.com/docs/alarms>).
    #[error("the peer read nothing for two heartbeat intervals")]
    PeerNotReading,
    /// A publish was not confirmed in time.
    #[error("the publish was not confirmed in time")]
    Confirm,
    /// A publish was held back for too long. Used by the layers above the state machine.
    #[error("there was no room to publish in time")]
    Publish,
    /// The transport did not take the accepted output in time. Used by the layers above the state
    /// machine.
    #[error("the output was not flushed in time")]
    Flush,
    /// All channels of a pool were in use for too long. Used by the layers above the state machine.
    #[error("no channel became free in time")]
    Checkout,
}

/// The reason why a request failed.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The channel ended before the answer was received. The request was the cause if
    /// [`Close::method`] of the reason is its method.
    #[error("the channel was closed: {0}")]
    ChannelClosed(CloseReason),
    /// The connection ended before the answer was received.
    #[error("the connection was closed: {0}")]
    ConnectionClosed(CloseReason),
    /// No answer was received in time. A late answer is undone: a consumer is cancelled, a message
    /// requeued, a channel closed.
    #[error("no answer came in time")]
    TimedOut,
    /// The fetched message exceeds a limit of this side. It was rejected without requeue, unless it
    /// needed no acknowledgement.
    #[error("the message cannot be read: {0}")]
    Unreadable(Fault),
    /// The server cancelled the consumer before consume-ok
    /// (<https://www.rabbitmq.com/docs/consumer-cancel>).
    #[error("the server cancelled the consumer {}", Quoted(.tag))]
    Cancelled {
        /// The consumer tag.
        tag: ShortStr,
    },
}
