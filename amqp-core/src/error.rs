//! Errors of the caller.

use crate::{
    body::Body,
    text::Quoted,
    wire::{DecodeError, ShortStr, ShortStrError},
};

/// A command that the machine refuses. Nothing has changed and no byte will leave.
///
/// Several of these are requests that RabbitMQ answers by closing the whole connection, with all
/// its channels. They are refused here, where only the one call fails.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// The connection is not open yet, or no longer.
    #[error("the connection is not open")]
    ConnectionNotOpen,
    /// The channel is not open yet, or no longer.
    #[error("the channel is not open")]
    ChannelNotOpen,
    /// All channel numbers that were negotiated are taken.
    #[error("all {channel_max} channels are in use")]
    NoFreeChannel {
        /// How many channels the connection may have.
        channel_max: u16,
    },
    /// The channel number asked for is taken, or beyond what was negotiated.
    #[error("channel number {number} is not free (at most {channel_max})")]
    ChannelNumber {
        /// The number asked for.
        number: u16,
        /// How many channels the connection may have.
        channel_max: u16,
    },
    /// The method has a command of its own, or is not this side's to send here.
    #[error("{method} cannot be sent this way")]
    NotSentThisWay {
        /// The method's name.
        method: &'static str,
    },
    /// A request that asks for no answer cannot be called, only sent.
    #[error("{method} with no-wait has no answer to wait for: send it instead")]
    NoWaitHasNoReply {
        /// The method's name.
        method: &'static str,
    },
    /// A queue without a name, declared without an answer, could never be addressed.
    #[error("{method} with no-wait needs a name")]
    NameRequired {
        /// The method's name.
        method: &'static str,
    },
    /// A method or a property list larger than a frame may be.
    #[error("{method} takes {len} bytes, the frame limit is {frame_max}")]
    FrameTooLarge {
        /// The method's name.
        method: &'static str,
        /// The size of the frame it needs, in bytes.
        len: usize,
        /// The size that was negotiated, in bytes.
        frame_max: u32,
    },
    /// A body over the limit that the configuration sets.
    #[error("the body has {len} bytes, the limit is {limit}")]
    BodyTooLarge {
        /// The body's size in bytes.
        len: usize,
        /// The limit in bytes.
        limit: u64,
    },
    /// RabbitMQ closes the connection with 530.
    #[error("the consumer tag {} is in use on this channel", Quoted(.0))]
    DuplicateConsumerTag(ShortStr),
    /// The delivery is not outstanding on this channel: settled already, delivered without
    /// acknowledgement, or never made. RabbitMQ closes the channel with 406.
    #[error("delivery tag {0} is not outstanding on this channel")]
    UnknownDeliveryTag(u64),
    /// RabbitMQ closes the connection with 540.
    #[error("RabbitMQ does not implement `{feature}`")]
    NotImplementedByRabbitMq {
        /// The argument that it refuses, such as `basic.publish immediate`.
        feature: &'static str,
    },
    /// The default exchange cannot be declared, bound or deleted (403).
    #[error("{method} is not allowed on the default exchange")]
    DefaultExchange {
        /// The method's name.
        method: &'static str,
    },
    /// An exchange is declared with a type, unless it is only asked for whether it exists. RabbitMQ
    /// closes the connection with 503.
    #[error("exchange.declare needs a type, such as `direct`")]
    ExchangeTypeRequired,
    /// Queue names that begin with `amq.` are the server's own (403).
    #[error("the name {} is reserved: names that begin with `amq.` are the server's", Quoted(.0))]
    ReservedName(ShortStr),
    /// A channel confirms publishes or is transactional, never both (406).
    #[error("a channel cannot both confirm publishes and be transactional")]
    ConfirmAndTransaction,
    /// A channel with other handles cannot change its mode: what these publish would be confirmed to
    /// none, or be part of a transaction unawares.
    #[error("the channel has other handles, so that its mode cannot be changed")]
    ChannelShared,
    /// Commit and rollback need `tx.select` first (406).
    #[error("the channel is not transactional")]
    NotTransactional,
    /// Consuming `amq.rabbitmq.reply-to` works only without acknowledgements (406).
    #[error("amq.rabbitmq.reply-to must be consumed with no-ack")]
    ReplyToNeedsNoAck,
    /// A request with `reply-to` set to the direct reply address needs a consumer of it on the
    /// same channel (406).
    #[error("consume amq.rabbitmq.reply-to on this channel before publishing requests")]
    ReplyToWithoutConsumer,
    /// A server answered something that was not asked.
    #[error("{method} answers nothing that was asked on this channel")]
    NothingToAnswer {
        /// The method's name.
        method: &'static str,
    },
    /// Too many requests wait to be sent: the transport does not take them as fast as they are made.
    /// [`Limits::unsent_requests`](crate::Limits::unsent_requests).
    #[error("{buffered} bytes of requests wait to be sent, the limit is {limit}")]
    TooManyUnsent {
        /// How many bytes of requests wait.
        buffered: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// Encoded properties that cannot be read, which were received like that. A server may close the
    /// connection for them (501, 502).
    #[error("the properties are malformed: {0}")]
    MalformedProperties(DecodeError),
    /// A text longer than a short string can be.
    #[error(transparent)]
    ShortStr(#[from] ShortStrError),
    /// A value of the configuration that RabbitMQ would refuse.
    #[error("{setting}: {problem}")]
    Config {
        /// Which setting.
        setting: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// Why a publish was not accepted.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no room now, or the server asked for a pause. The body is handed back; an event
    /// tells when to try again.
    #[error("publishing is held back: {hold}")]
    HeldBack {
        /// What holds it back.
        hold: Hold,
        /// The body, as it was given.
        body: Body,
    },
    /// The publish is wrong in itself.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
}

impl PublishError {
    /// The body to publish later, as it was given.
    ///
    /// # Errors
    /// The misuse, for which no later moment is better.
    pub fn into_body(self) -> Result<Body, ApiMisuse> {
        match self {
            Self::HeldBack { body, .. } => Ok(body),
            Self::Misuse(misuse) => Err(misuse),
        }
    }
}

/// What holds publishes back. Nothing else is ever held back: acknowledgements, requests,
/// heartbeats and closing go on.
///
/// A message that fits into one frame goes to the output buffer of the connection. A larger one, and
/// each message behind it on the same channel, goes to the channel's backlog.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// The output buffer of the connection is full; `Writable` follows when it has drained.
    #[error("the output buffer is full")]
    OutputFull,
    /// The backlogs of all channels together are full; `BacklogWritable` follows when they have
    /// drained.
    #[error("the backlogs of all channels are full")]
    BacklogFull,
    /// The backlog of this channel is full; `ChannelWritable` follows when it has drained.
    #[error("the backlog of this channel is full")]
    ChannelBacklogFull,
    /// As many publishes wait for their confirm as the limits allow; `Settled` events make room.
    #[error("too many publishes wait for their confirm")]
    TooManyUnconfirmed,
    /// The server is short of memory or disk (`connection.blocked`).
    #[error("the server has blocked publishing on this connection")]
    ConnectionBlocked,
    /// The server paused this channel (`channel.flow`).
    #[error("the server has paused publishing on this channel")]
    ChannelFlow,
}
