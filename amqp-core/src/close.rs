//! How a connection or a channel ended.

use alloc::{string::String, sync::Arc};
use core::fmt;

use crate::{
    fault::{Fault, ProtocolError},
    method::MethodId,
    protocol::ReplyCode,
    text::{Escaped, Quoted},
    wire::ShortStr,
};

/// How a connection or a channel ended: who ended it, why, and with which method.
///
/// It is cheap to clone, and everyone who waited gets the same one.
#[derive(Clone, PartialEq, Eq)]
pub struct CloseReason(Arc<CloseCause>);

/// What ended a connection or a channel.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CloseCause {
    /// This side closed it, as it was told to.
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
    /// The other side speaks another version of the protocol, or another protocol.
    #[error(transparent)]
    NotAmqp(#[from] NotAmqp),
    /// The peers share no SASL mechanism.
    #[error("no common SASL mechanism: the server offers {}", Quoted(.offered))]
    NoCommonMechanism {
        /// What the server offers, separated by spaces.
        offered: String,
    },
    /// The server does not offer the message locale asked for.
    #[error("the server does not offer the locale {}, only {}", Quoted(.wanted), Quoted(.offered))]
    NoCommonLocale {
        /// What was asked for.
        wanted: String,
        /// What the server offers, separated by spaces.
        offered: String,
    },
    /// The credentials were refused, or could not be made. A server that hangs up where it should
    /// go on is taken to mean this, too, unless it is one that would say so: both sides have
    /// announced the capability `authentication_failure_close`, as RabbitMQ and this library do.
    #[error("authentication failed: {}", Escaped(.why))]
    AuthenticationFailed {
        /// Why, for people.
        why: String,
        /// What the server said when it closed for it; none if it just hung up.
        close: Option<Close>,
    },
    /// The credentials and client properties do not fit into the frame that the protocol allows
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
        /// How far the connection had come.
        stage: Stage,
    },
    /// The transport failed.
    #[error("the transport failed {stage}: {}", Escaped(.message))]
    Transport {
        /// How far the connection had come.
        stage: Stage,
        /// What the transport said.
        message: String,
    },
    /// The peer did not answer in time.
    #[error("timed out: {0}")]
    TimedOut(TimeoutReason),
    /// The channel ended because its connection did.
    #[error("the connection ended: {0}")]
    Connection(CloseReason),
}

impl CloseReason {
    /// What happened.
    #[must_use]
    pub fn cause(&self) -> &CloseCause {
        &self.0
    }

    /// The reply code that went over the wire, when one did: the peer's or this side's. For a
    /// channel that ended with its connection, the connection's.
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
            | CloseCause::TimedOut(_) => None,
        }
    }

    /// What the peer said, when the peer closed it: for a channel that ended with its connection,
    /// what it said of the connection.
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
            | CloseCause::TimedOut(_) => None,
        }
    }

    /// Whether this side ended it on purpose with a success code: nothing went wrong.
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

/// What a close method says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// The reply code.
    pub code: ReplyCode,
    /// The reply text, for people.
    pub text: String,
    /// The method that caused it, when one did.
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

/// What a peer turned out to be that does not speak this protocol.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum NotAmqp {
    /// It answered with a protocol header: it speaks another version.
    #[error("the peer does not speak AMQP 0-9-1, it offers AMQP {}.{}.{} (id {})", .0[1], .0[2], .0[3], .0[0])]
    OtherVersion(
        /// The four octets behind `AMQP`: an identifier, then major, minor and revision (in the
        /// order that AMQP 0-9-1 and 1.0 share).
        [u8; 4],
    ),
    /// It speaks TLS: the port expects TLS, or a TLS client called a plain port.
    #[error("the peer speaks TLS on this port")]
    Tls,
    /// It speaks HTTP: the port is that of the management interface, or a proxy's.
    #[error("the peer speaks HTTP on this port")]
    Http,
    /// Something else.
    #[error("the peer does not speak AMQP: it began with {0:02x?}")]
    Unknown(
        /// Its first octets.
        [u8; 8],
    ),
    /// It speaks AMQP 0-9-1 but offers another minor protocol version in `start`.
    #[error("the server speaks AMQP {major}-{minor} instead of 0-9")]
    StartVersion {
        /// The major version it offers.
        major: u8,
        /// The minor version it offers.
        minor: u8,
    },
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stage {
    /// Waiting for the first answer to the protocol header, or for the header itself.
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

/// Why the machine wants to be called at a certain time.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum TimeoutReason {
    /// A command was given since the machine last learned the time: it wants to know the time, to
    /// set the command's deadline.
    #[error("a deadline is to be set")]
    SetDeadline,
    /// Nothing was handed out for half the heartbeat interval.
    #[error("a heartbeat is due")]
    HeartbeatDue,
    /// Nothing was heard for two heartbeat intervals: the peer is taken for dead.
    #[error("nothing was heard from the peer for two heartbeat intervals")]
    PeerSilent,
    /// The handshake takes too long.
    #[error("the handshake did not finish in time")]
    Handshake,
    /// The peer does not answer the close.
    #[error("the peer did not answer the close in time")]
    Close,
    /// A call took longer than the limit that was set for it.
    #[error("the call took longer than its limit")]
    Call,
    /// The secret is about to expire.
    #[error("a new secret is wanted")]
    Secret,
    /// A request was not answered.
    #[error("a request was not answered in time")]
    Request,
    /// Something waits to be sent, and the transport took nothing for two heartbeat intervals: the
    /// peer is taken for dead. Not while the server blocks publishing, when RabbitMQ does not read.
    #[error("the peer read nothing for two heartbeat intervals")]
    PeerNotReading,
    /// A publish was not confirmed.
    #[error("the publish was not confirmed in time")]
    Confirm,
    /// A publish was held back for too long. Of the layers above the machine.
    #[error("there was no room to publish in time")]
    Publish,
    /// The transport did not take what was accepted. Of the layers above the machine.
    #[error("the output was not flushed in time")]
    Flush,
    /// All channels of a pool were in use for too long. Of the layers above the machine.
    #[error("no channel became free in time")]
    Checkout,
}

/// Why a request has no answer.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// The channel ended before the answer came; the reason's method tells whether this very
    /// request was the cause.
    #[error("the channel was closed: {0}")]
    ChannelClosed(CloseReason),
    /// The connection ended before the answer came.
    #[error("the connection was closed: {0}")]
    ConnectionClosed(CloseReason),
    /// No answer came in time. Should it come later, it is taken back: a consumer is cancelled, a
    /// message is put back, a channel is closed.
    #[error("no answer came in time")]
    TimedOut,
    /// The message that was fetched is over a limit of this side. It was rejected without requeue,
    /// unless it needed no acknowledgement.
    #[error("the message cannot be read: {0}")]
    Unreadable(Fault),
    /// The server cancelled the consumer before it was confirmed.
    #[error("the server cancelled the consumer {}", Quoted(.tag))]
    Cancelled {
        /// The consumer's tag.
        tag: ShortStr,
    },
}
