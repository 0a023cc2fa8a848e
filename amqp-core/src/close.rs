//! The reasons for the end of a connection or a channel.

use alloc::{string::String, sync::Arc};
use core::fmt;

use crate::{
    fault::ProtocolError,
    frame_log::FrameLog,
    method_id::MethodId,
    protocol::ReplyCode,
    text::{Escaped, Quoted},
    wire::ShortStr,
};

/// The reason for the end of a connection or a channel: the side that ended it, the cause, the
/// method, the channel, and the request that failed with it.
///
/// Cheap to clone. Everything pending on the connection or channel ends with the same one: reasons
/// are equal if their causes are, whichever request they are handed to.
///
/// ```
/// use amqp_core::{Close, CloseCause, CloseReason, MethodId, Origin, protocol::ReplyCode};
///
/// let declare = MethodId::new(50, 10);
/// let cause = CloseCause::ByPeer(Close {
///     code: ReplyCode::NOT_FOUND,
///     text: "no queue 'q' in vhost '/'".into(),
///     method: Some(declare),
/// });
/// let reason = CloseReason::from(cause).on_channel(3);
/// assert!(reason.is_not_found());
/// assert_eq!(reason.origin(), Origin::Remote);
/// assert_eq!(
///     reason.to_string(),
///     "closed by the peer: 404 (not-found): no queue 'q' in vhost '/' (after queue.declare), \
///      on channel 3"
/// );
/// ```
#[derive(Clone)]
pub struct CloseReason(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    cause: Arc<CloseCause>,
    /// The number of the channel that ended. `None` for a connection.
    channel: Option<u16>,
    /// `Some` if the reason is that of a failed request.
    request: Option<MethodId>,
    /// `Some` if frames are logged.
    frame_log: Option<Arc<FrameLog>>,
}

/// The side that ended a connection or a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Origin {
    /// This side: on request, for a violation by the peer, or at a deadline.
    Local,
    /// The peer: by a close, or by the end of its output.
    Remote,
    /// Neither: the transport failed.
    Transport,
}

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
        &self.0.cause
    }

    /// Returns the number of the channel that ended. `Some` for the end of a channel, also if it
    /// ended with its connection.
    #[must_use]
    pub fn channel(&self) -> Option<u16> {
        self.0.channel
    }

    /// Returns the request that failed with this reason, or `basic.publish` for a publish. It need
    /// not be the cause, which is [`Close::method`]. `Some` if the reason is that of a request or a
    /// publish.
    #[must_use]
    pub fn request(&self) -> Option<MethodId> {
        self.0.request
    }

    /// Returns the last frames before the end. `Some` if [frames are
    /// logged](crate::client::Config::frame_log).
    #[must_use]
    pub fn frame_log(&self) -> Option<&FrameLog> {
        self.0.frame_log.as_deref()
    }

    /// Sets the number of the channel that ended.
    #[must_use]
    pub fn on_channel(mut self, number: u16) -> Self {
        Arc::make_mut(&mut self.0).channel = Some(number);
        self
    }

    /// Returns this reason as that of a request.
    #[must_use]
    pub fn for_request(&self, request: MethodId) -> Self {
        let mut reason = self.clone();
        Arc::make_mut(&mut reason.0).request = Some(request);
        reason
    }

    pub(crate) fn with_frame_log(mut self, frame_log: &FrameLog) -> Self {
        Arc::make_mut(&mut self.0).frame_log = Some(Arc::new(frame_log.clone()));
        self
    }

    /// Returns the side that ended the connection or the channel. For a channel that ended with its
    /// connection, the side that ended the connection.
    #[must_use]
    pub fn origin(&self) -> Origin {
        match self.cause() {
            CloseCause::Requested(_)
            | CloseCause::ProtocolError(_)
            | CloseCause::LimitExceeded(_)
            | CloseCause::NotAmqp(_)
            | CloseCause::NoCommonMechanism { .. }
            | CloseCause::NoCommonLocale { .. }
            | CloseCause::StartOkTooLarge { .. }
            | CloseCause::NotRecovered { .. }
            | CloseCause::TimedOut(_) => Origin::Local,
            CloseCause::ByPeer(_)
            | CloseCause::AuthenticationFailed { .. }
            | CloseCause::Eof { .. } => Origin::Remote,
            CloseCause::Transport { .. } => Origin::Transport,
            CloseCause::Connection(reason) => reason.origin(),
        }
    }

    /// Whether a deadline of this side ended it.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        match self.cause() {
            CloseCause::Connection(reason) => reason.is_timed_out(),
            cause => matches!(cause, CloseCause::TimedOut(_)),
        }
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
        Self(Arc::new(Inner {
            cause: Arc::new(cause),
            channel: None,
            request: None,
            frame_log: None,
        }))
    }
}

impl PartialEq for CloseReason {
    fn eq(&self, other: &Self) -> bool {
        self.cause() == other.cause()
    }
}

impl Eq for CloseReason {}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cause().fmt(f)?;
        let (named_channel, named_method) = match self.cause() {
            CloseCause::ProtocolError(error) | CloseCause::LimitExceeded(error) => {
                (error.channel, error.method)
            }
            CloseCause::ByPeer(close) | CloseCause::Requested(close) => (None, close.method),
            _ => (None, None),
        };
        if let Some(channel) = self.0.channel
            && named_channel != Some(channel)
        {
            write!(f, ", on channel {channel}")?;
        }
        match self.0.request {
            Some(request) if named_method != Some(request) => write!(f, ", during {request}"),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.cause(), f)
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
    /// The memory for a burst of events or messages is to be released, unless there was another one.
    #[error("the connection is idle")]
    Idle,
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
    #[error("no answer to {request} came in time{}", OnChannel(*.channel))]
    TimedOut {
        /// The request.
        request: MethodId,
        /// The number of its channel. `None` for a request of the connection.
        channel: Option<u16>,
    },
    /// The fetched message exceeds a limit of this side. It was rejected without requeue, unless it
    /// needed no acknowledgement.
    #[error("the message cannot be read: {0}")]
    Unreadable(ProtocolError),
    /// The server cancelled the consumer before consume-ok
    /// (<https://www.rabbitmq.com/docs/consumer-cancel>).
    #[error("the server cancelled the consumer {} on channel {channel}", Quoted(.tag))]
    Cancelled {
        /// The consumer tag.
        tag: ShortStr,
        /// The number of the channel.
        channel: u16,
    },
}

impl RequestError {
    /// Returns the reason for the end of the channel or the connection. `Some` if either ended.
    #[must_use]
    pub fn reason(&self) -> Option<&CloseReason> {
        match self {
            Self::ChannelClosed(reason) | Self::ConnectionClosed(reason) => Some(reason),
            Self::TimedOut { .. } | Self::Unreadable(_) | Self::Cancelled { .. } => None,
        }
    }

    /// Returns the reply code with which the channel or the connection was closed. `Some` if it was
    /// closed with one.
    #[must_use]
    pub fn code(&self) -> Option<ReplyCode> {
        self.reason()?.code()
    }

    /// Whether a deadline passed.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        match self {
            Self::TimedOut { .. } => true,
            other => other.reason().is_some_and(CloseReason::is_timed_out),
        }
    }

    /// Returns this error as that of a request.
    pub(crate) fn for_request(&self, request: MethodId) -> Self {
        match self {
            Self::ChannelClosed(reason) => Self::ChannelClosed(reason.for_request(request)),
            Self::ConnectionClosed(reason) => Self::ConnectionClosed(reason.for_request(request)),
            other => other.clone(),
        }
    }
}

crate::reply_code_predicates!(CloseReason, RequestError);

/// The place of an error, after its text: nothing for the connection itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OnChannel(pub(crate) Option<u16>);

impl fmt::Display for OnChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(channel) => write!(f, ", on channel {channel}"),
            None => Ok(()),
        }
    }
}
