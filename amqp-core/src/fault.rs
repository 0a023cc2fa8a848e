//! Faults of the peer, limits that it exceeds, and the reply code that the standard has for each.

use core::fmt;

use crate::{
    method::MethodId,
    protocol::ReplyCode,
    text::Quoted,
    wire::{DecodeError, ShortStr},
};

/// What the peer did against the protocol or a limit of this side, and where.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtocolError {
    /// What it did.
    pub fault: Fault,
    /// On which channel number; 0 is the connection itself. None when it was found before the
    /// channel had come: a wrong frame type.
    pub channel: Option<u16>,
    /// With which method, when it was one.
    pub method: Option<MethodId>,
    /// The reply code that the connection or channel was closed with; none when the peer was hung
    /// up on instead.
    pub code: Option<ReplyCode>,
}

impl fmt::Display for ProtocolError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.fault)?;
        let named = matches!(self.fault, Fault::Decode(DecodeError::UnknownMethod(_)));
        if let Some(method) = self.method.filter(|_| !named) {
            write!(f, ", in {method}")?;
        }
        match self.channel {
            Some(channel) => write!(f, ", on channel {channel}"),
            None => Ok(()),
        }
    }
}

/// One rule of the protocol that a peer can break, or a limit of this side that it can exceed.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A frame that does not end with the frame-end octet.
    #[error("a frame ends with {0:#04x} instead of 0xce")]
    FrameEnd(u8),
    /// A frame type that the protocol does not have.
    #[error("frame type {0} does not exist")]
    FrameType(u8),
    /// A frame larger than was negotiated.
    #[error("a frame of {size} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// The whole frame, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u32,
    },
    /// A method frame too short for its class and method numbers, or a content header frame too
    /// short for its fixed part.
    #[error("a frame is too short for what it should hold")]
    FrameTooShort,
    /// A heartbeat frame on a channel, or one with a payload.
    #[error("a heartbeat must be empty and on channel 0")]
    Heartbeat,
    /// A content frame on channel 0.
    #[error("content on channel 0")]
    ContentOnChannelZero,
    /// A channel number beyond what was negotiated.
    #[error("the channel number is over the limit of {0}")]
    ChannelNumber(u16),
    /// The arguments of a method or the properties of a content header do not decode.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// A method that this peer must not send.
    #[error("the method is not the peer's to send")]
    WrongSender,
    /// A method of the connection on a channel, or of a channel on channel 0.
    #[error("the method belongs on another channel")]
    WrongChannel,
    /// A method that is not due in this stage of the connection.
    #[error("the method is not due now")]
    NotDue,
    /// A method or content for a channel that is not open.
    #[error("the channel is not open")]
    ChannelNotOpen,
    /// `channel.open` for a channel that is open already.
    #[error("the channel is open already")]
    ChannelAlreadyOpen,
    /// A method where a content header or a body was due.
    #[error("a method came in the middle of a message")]
    MethodInContent,
    /// A content header where none was due.
    #[error("a content header came without its method")]
    UnexpectedHeader,
    /// A body frame where none was due.
    #[error("a body frame came without its header")]
    UnexpectedBody,
    /// A content header of another class than its method.
    #[error("a content header of class {0} follows a method of another class")]
    HeaderClass(u16),
    /// A content header whose weight is not 0.
    #[error("the weight of a content header is {0} instead of 0")]
    HeaderWeight(u16),
    /// A body over [`Limits::body`](crate::Limits::body). No rule of the protocol is broken.
    #[error("a body of {size} bytes is over Limits::body ({limit})")]
    BodyTooLarge {
        /// What the header announced, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A content header over [`Limits::header`](crate::Limits::header). No rule of the protocol is
    /// broken as RabbitMQ speaks it.
    #[error("a content header of {size} bytes is over Limits::header ({limit})")]
    HeaderTooLarge {
        /// The whole frame, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u32,
    },
    /// The unfinished messages of all channels take more than
    /// [`Limits::assembly`](field@crate::Limits::assembly). No rule of the protocol is broken.
    #[error("the unfinished messages of all channels are over Limits::assembly ({limit} bytes)")]
    AssemblyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// More body bytes than the header announced.
    #[error("body frames hold {excess} bytes more than the header announced")]
    BodyOverrun {
        /// How many too many, in bytes.
        excess: u64,
    },
    /// Body frames without a byte in them, again and again.
    #[error("{0} empty body frames in one message")]
    TooManyEmptyFrames(u32),
    /// Requests without end, by a peer that does not read the answers.
    #[error("megabytes of answers wait, and the peer asks on")]
    UnreadAnswers,
    /// An answer to something that was not asked.
    #[error("the method answers nothing that was asked")]
    UnexpectedReply,
    /// A delivery for a consumer that the channel does not have, and that is not a late one for a
    /// consumer that it had.
    #[error("a delivery for the unknown consumer tag {}", Quoted(.0))]
    UnknownConsumer(ShortStr),
    /// A delivery without a number.
    #[error("a delivery tag of 0")]
    ZeroDeliveryTag,
    /// A confirm on a channel that does not confirm.
    #[error("a confirm for publish {0} on a channel that does not confirm")]
    UnknownPublish(u64),
    /// A limit in `tune` or `tune-ok` that cannot be agreed to.
    #[error("{setting} of {value} cannot be agreed to")]
    Tuning {
        /// Which limit.
        setting: &'static str,
        /// What the peer asked for.
        value: u32,
    },
}

impl Fault {
    /// The reply code that the standard has for this fault, which a client answers with. A server
    /// answers with RabbitMQ's, see [`ProtocolError::code`].
    #[must_use]
    pub const fn code(&self) -> ReplyCode {
        match self {
            Self::FrameEnd(_)
            | Self::FrameType(_)
            | Self::FrameTooLarge { .. }
            | Self::FrameTooShort
            | Self::Heartbeat => ReplyCode::FRAME_ERROR,
            Self::Decode(DecodeError::UnknownClass(_) | DecodeError::UnknownMethod(_))
            | Self::WrongSender
            | Self::WrongChannel
            | Self::NotDue
            | Self::UnexpectedReply
            | Self::ZeroDeliveryTag => ReplyCode::COMMAND_INVALID,
            // Codes of the channel: nothing else is in doubt.
            Self::UnknownConsumer(_) | Self::UnknownPublish(_) => ReplyCode::PRECONDITION_FAILED,
            Self::Decode(_) => ReplyCode::SYNTAX_ERROR,
            Self::ChannelNumber(_) | Self::ChannelNotOpen | Self::ChannelAlreadyOpen => {
                ReplyCode::CHANNEL_ERROR
            }
            Self::ContentOnChannelZero
            | Self::MethodInContent
            | Self::UnexpectedHeader
            | Self::UnexpectedBody
            | Self::HeaderClass(_)
            | Self::HeaderWeight(_)
            | Self::BodyOverrun { .. }
            | Self::TooManyEmptyFrames(_) => ReplyCode::UNEXPECTED_FRAME,
            Self::BodyTooLarge { .. }
            | Self::HeaderTooLarge { .. }
            | Self::AssemblyTooLarge { .. } => ReplyCode::CONTENT_TOO_LARGE,
            Self::UnreadAnswers => ReplyCode::RESOURCE_ERROR,
            Self::Tuning { .. } => ReplyCode::NOT_ALLOWED,
        }
    }

    /// Whether it is a limit of this side that was exceeded, and no rule of the protocol.
    #[must_use]
    pub const fn is_own_limit(&self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge { .. } | Self::HeaderTooLarge { .. } | Self::AssemblyTooLarge { .. }
        )
    }

    /// This fault, on that channel, with that method.
    pub(crate) const fn at(self, channel: Option<u16>, method: Option<MethodId>) -> ProtocolError {
        ProtocolError {
            code: Some(self.code()),
            fault: self,
            channel,
            method,
        }
    }
}
