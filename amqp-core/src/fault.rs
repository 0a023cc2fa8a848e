//! Faults of the peer: violations of the protocol and of limits, with their reply codes.

use core::fmt;

use crate::{
    method_id::MethodId,
    protocol::ReplyCode,
    text::Quoted,
    wire::{DecodeError, ShortStr},
};

/// A violation of the protocol or of a limit of this side, with its place.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProtocolError {
    /// The violation.
    pub fault: Fault,
    /// The channel number; 0 is the connection itself. `None` for an unknown frame type, which is
    /// detected before the channel number is received.
    pub channel: Option<u16>,
    /// The method. `Some` if the fault is in one.
    pub method: Option<MethodId>,
    /// The reply code that the connection or channel was closed with. `None` if this side hung up
    /// without a close.
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

/// A violation of a rule of the protocol, or of a limit of this side.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A frame does not end with the frame-end octet (section 4.2.3 of the specification).
    #[error("a frame ends with {0:#04x} instead of 0xce")]
    FrameEnd(u8),
    /// The frame type does not exist (section 4.2.3 of the specification).
    #[error("frame type {0} does not exist")]
    FrameType(u8),
    /// A frame exceeds the frame limit.
    #[error("a frame of {size} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// The whole frame, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u32,
    },
    /// A method frame is too short for its class and method ids, or a content header frame for its
    /// fixed part.
    #[error("a frame is too short for what it should hold")]
    FrameTooShort,
    /// A heartbeat frame has a channel number other than 0, or a payload (sections 4.2.1 and 4.2.7
    /// of the specification).
    #[error("a heartbeat must be empty and on channel 0")]
    Heartbeat,
    /// A content frame is on channel 0 (section 4.2.6.1 of the specification).
    #[error("content on channel 0")]
    ContentOnChannelZero,
    /// The channel number exceeds the negotiated maximum, or the number of channels has reached it.
    #[error("the channel number is over the limit of {0}")]
    ChannelNumber(u16),
    /// The arguments of a method or the properties of a content header do not decode.
    #[error("{0}")]
    Decode(#[from] DecodeError),
    /// The peer's role does not allow it to send the method.
    #[error("the method is not the peer's to send")]
    WrongSender,
    /// A method of the connection is on a channel, or a method of a channel on channel 0.
    #[error("the method belongs on another channel")]
    WrongChannel,
    /// The method is not legal in this stage of the connection.
    #[error("the method is not due now")]
    NotDue,
    /// A method or content is for a channel that is not open.
    #[error("the channel is not open")]
    ChannelNotOpen,
    /// `channel.open` is for a channel that is already open (section 1.5.2.1 of the protocol
    /// reference).
    #[error("the channel is open already")]
    ChannelAlreadyOpen,
    /// A method was received instead of a content header or a body frame (section 4.2.6 of the
    /// specification).
    #[error("a method came in the middle of a message")]
    MethodInContent,
    /// A content header was received without its method.
    #[error("a content header came without its method")]
    UnexpectedHeader,
    /// A body frame was received without its content header.
    #[error("a body frame came without its header")]
    UnexpectedBody,
    /// The class of a content header is not that of its method (section 4.2.6.1 of the
    /// specification).
    #[error("a content header of class {0} follows a method of another class")]
    HeaderClass(u16),
    /// The weight of a content header is not 0 (section 4.2.6.1 of the specification).
    #[error("the weight of a content header is {0} instead of 0")]
    HeaderWeight(u16),
    /// A body exceeds [`Limits::body`](crate::Limits::body). No violation of the protocol.
    #[error("a body of {size} bytes is over Limits::body ({limit})")]
    BodyTooLarge {
        /// The size announced by the content header, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
    },
    /// A content header exceeds [`Limits::header`](crate::Limits::header). No violation of the
    /// protocol as implemented by RabbitMQ.
    #[error("a content header of {size} bytes is over Limits::header ({limit})")]
    HeaderTooLarge {
        /// The whole frame, in bytes.
        size: u64,
        /// The limit, in bytes.
        limit: u32,
    },
    /// The unfinished messages of all channels exceed
    /// [`Limits::assembly`](field@crate::Limits::assembly). No violation of the protocol.
    #[error("the unfinished messages of all channels are over Limits::assembly ({limit} bytes)")]
    AssemblyTooLarge {
        /// The limit, in bytes.
        limit: u64,
    },
    /// There are more body bytes than the content header announced (section 4.2.6.1 of the
    /// specification).
    #[error("body frames hold {excess} bytes more than the header announced")]
    BodyOverrun {
        /// The excess, in bytes.
        excess: u64,
    },
    /// The empty body frames of a message exceed
    /// [`Limits::empty_frames`](field@crate::Limits::empty_frames).
    #[error("{0} empty body frames in one message")]
    TooManyEmptyFrames(u32),
    /// The peer keeps sending requests without reading the answers.
    #[error("megabytes of answers wait, and the peer asks on")]
    UnreadAnswers,
    /// There is no request that the method would answer.
    #[error("the method answers nothing that was asked")]
    UnexpectedReply,
    /// A delivery has an unknown consumer tag, and is not a late one for an ended consumer.
    #[error("a delivery for the unknown consumer tag {}", Quoted(.0))]
    UnknownConsumer(ShortStr),
    /// A delivery tag is 0 (domain `delivery-tag`,
    /// <https://www.rabbitmq.com/docs/specification>).
    #[error("a delivery tag of 0")]
    ZeroDeliveryTag,
    /// A confirm is on a channel that is not in confirm mode.
    #[error("a confirm for publish {0} on a channel that does not confirm")]
    UnknownPublish(u64),
    /// A limit in `tune` or `tune-ok` is not acceptable (sections 1.4.2.5 and 1.4.2.6 of the
    /// protocol reference).
    #[error("{setting} of {value} cannot be agreed to")]
    Tuning {
        /// The name of the limit.
        setting: &'static str,
        /// The value that the peer proposed.
        value: u32,
    },
}

impl Fault {
    /// Returns the reply code of this fault by the standard's definition of the codes. A server may
    /// have [another policy](crate::server::Policy), see [`ProtocolError::code`].
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
            // Codes that close only the channel: the rest of the connection is not affected.
            Self::UnknownConsumer(_) | Self::UnknownPublish(_) => ReplyCode::PRECONDITION_FAILED,
            Self::Decode(_) => ReplyCode::SYNTAX_ERROR,
            Self::ChannelNumber(_)
            | Self::ChannelNotOpen
            | Self::ChannelAlreadyOpen
            | Self::ContentOnChannelZero => ReplyCode::CHANNEL_ERROR,
            Self::MethodInContent
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

    /// Whether the fault is the violation of a limit of this side, not of the protocol.
    #[must_use]
    pub const fn is_own_limit(&self) -> bool {
        matches!(
            self,
            Self::BodyTooLarge { .. } | Self::HeaderTooLarge { .. } | Self::AssemblyTooLarge { .. }
        )
    }

    /// Adds the channel and the method to this fault.
    pub(crate) const fn at(self, channel: Option<u16>, method: Option<MethodId>) -> ProtocolError {
        ProtocolError {
            code: Some(self.code()),
            fault: self,
            channel,
            method,
        }
    }
}
