//! Errors of the caller.

use core::convert::Infallible;

use crate::{
    arguments::ArgumentError,
    body::Body,
    text::Quoted,
    wire::{DecodeError, ShortStr, ShortStrError},
};

/// A command that the state machine refuses. Nothing has changed, and no byte is sent.
///
/// RabbitMQ answers several of these by closing the whole connection, with all its channels. Here,
/// only the call fails.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ApiMisuse {
    /// The connection is not open yet, or has ended.
    #[error("the connection is not open")]
    ConnectionNotOpen,
    /// The channel is not open yet, or has ended.
    #[error("the channel is not open")]
    ChannelNotOpen,
    /// All negotiated channel numbers are in use.
    #[error("all {channel_max} channels are in use")]
    NoFreeChannel {
        /// The maximum number of channels of the connection.
        channel_max: u16,
    },
    /// The requested channel number is in use, or above the negotiated maximum.
    #[error("channel number {number} is not free (at most {channel_max})")]
    ChannelNumber {
        /// The requested channel number.
        number: u16,
        /// The maximum number of channels of the connection.
        channel_max: u16,
    },
    /// The method has a command of its own, or this side may not send it here.
    #[error("{method} cannot be sent this way{}", own_command(.method))]
    NotSentThisWay {
        /// The name of the method.
        method: &'static str,
    },
    /// The method needs the name of a queue here: an empty one means the queue last declared on the
    /// channel, which may be that of another request.
    #[error("{method} needs the name of a queue")]
    QueueRequired {
        /// The name of the method.
        method: &'static str,
    },
    /// A request with no-wait cannot be called, only sent.
    #[error("{method} with no-wait has no answer to wait for: send it instead")]
    NoWaitHasNoReply {
        /// The name of the method.
        method: &'static str,
    },
    /// A queue declared without a name and with no-wait could never be addressed: the server's name
    /// for it is in the reply.
    #[error("{method} with no-wait needs a name")]
    NameRequired {
        /// The name of the method.
        method: &'static str,
    },
    /// The method or its properties do not fit into a frame.
    #[error("{method} takes {len} bytes, the frame limit is {frame_max}")]
    FrameTooLarge {
        /// The name of the method.
        method: &'static str,
        /// The size of the required frame, in bytes.
        len: usize,
        /// The negotiated frame limit, in bytes.
        frame_max: u32,
    },
    /// A text does not fit into a short string (section 4.2.5.3 of the specification).
    #[error("{field} of {method} has {len} bytes, a short string has at most {max}", max = ShortStr::MAX_LEN)]
    TextTooLong {
        /// The name of the method, such as `queue.declare`.
        method: &'static str,
        /// The name of the field, such as `queue`. For the name of an argument or a header, the
        /// field that has the table.
        field: &'static str,
        /// The length of the text, in bytes.
        len: usize,
    },
    /// The body exceeds [`Limits::body`](crate::Limits::body).
    #[error("the body has {len} bytes, the limit is {limit}")]
    BodyTooLarge {
        /// The size of the body, in bytes.
        len: usize,
        /// The limit, in bytes.
        limit: u64,
    },
    /// The consumer tag is in use on the channel (section 1.8.3.3 of the protocol reference).
    /// RabbitMQ closes the connection with 530.
    #[error("the consumer tag {} is in use on this channel", Quoted(.0))]
    DuplicateConsumerTag(ShortStr),
    /// The delivery is not outstanding on this channel: already settled, delivered with no-ack, or
    /// never made. RabbitMQ closes the channel with 406 (<https://www.rabbitmq.com/docs/confirms>).
    #[error("delivery tag {0} is not outstanding on this channel")]
    UnknownDeliveryTag(u64),
    /// The delivery precedes the last opening of its channel: the server has requeued it
    /// (<https://www.rabbitmq.com/docs/confirms>).
    #[error("delivery tag {0} is from before the channel was reopened, and was requeued")]
    StaleDeliveryTag(u64),
    /// RabbitMQ does not implement the feature, and closes the connection with 540
    /// (<https://www.rabbitmq.com/docs/specification>).
    #[error("RabbitMQ does not implement `{feature}`")]
    NotImplementedByRabbitMq {
        /// The refused argument, such as `basic.publish immediate`.
        feature: &'static str,
    },
    /// The default exchange cannot be declared, bound or deleted (403).
    #[error("{method} is not allowed on the default exchange")]
    DefaultExchange {
        /// The name of the method.
        method: &'static str,
    },
    /// `exchange.declare` needs a type unless it is passive. RabbitMQ closes the connection with
    /// 503.
    #[error("exchange.declare needs a type, such as `direct`")]
    ExchangeTypeRequired,
    /// Queue names that begin with `amq.` are reserved for the server (403, section 1.7.2.1 of the
    /// protocol reference).
    #[error("the name {} is reserved: names that begin with `amq.` are the server's", Quoted(.0))]
    ReservedName(ShortStr),
    /// A channel is either in confirm mode or transactional, never both (406,
    /// <https://www.rabbitmq.com/docs/confirms>).
    #[error("a channel cannot both confirm publishes and be transactional")]
    ConfirmAndTransaction,
    /// The mode of a channel cannot be changed while it has other handles: their publishes would be
    /// confirmed to no caller, or become part of a transaction unintentionally.
    #[error("the channel has other handles, so that its mode cannot be changed")]
    ChannelShared,
    /// Commit and rollback require `tx.select` (406).
    #[error("the channel is not transactional")]
    NotTransactional,
    /// Consuming from `amq.rabbitmq.reply-to` requires no-ack (406,
    /// <https://www.rabbitmq.com/docs/direct-reply-to>).
    #[error("amq.rabbitmq.reply-to must be consumed with no-ack")]
    ReplyToNeedsNoAck,
    /// A request with `reply-to` set to `amq.rabbitmq.reply-to` requires a consumer of it on the
    /// same channel (406, <https://www.rabbitmq.com/docs/direct-reply-to>).
    #[error("consume amq.rabbitmq.reply-to on this channel before publishing requests")]
    ReplyToWithoutConsumer,
    /// A server sends an answer for which there is no request.
    #[error("{method} answers nothing that was asked on this channel")]
    NothingToAnswer {
        /// The name of the method.
        method: &'static str,
    },
    /// Too many requests are unsent: the transport is slower than the caller. See
    /// [`Limits::unsent_requests`](crate::Limits::unsent_requests).
    #[error("{buffered} bytes of requests wait to be sent, the limit is {limit}")]
    TooManyUnsent {
        /// The size of the unsent requests, in bytes.
        buffered: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The encoded properties, received like that, do not decode. A server may close the connection
    /// for them (501, 502).
    #[error("the properties are malformed: {0}")]
    MalformedProperties(DecodeError),
    /// The text is too long for a short string (section 4.2.5.3 of the specification).
    #[error(transparent)]
    ShortStr(#[from] ShortStrError),
    /// A setting is one that RabbitMQ refuses.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// A value of the configuration is invalid.
    #[error("{setting}: {problem}")]
    Config {
        /// The name of the setting.
        setting: &'static str,
        /// The problem with its value.
        problem: &'static str,
    },
}

/// Lets a function with an `impl TryInto` argument accept a value that needs no conversion.
impl From<Infallible> for ApiMisuse {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

/// The command that sends a method in place of `call` and `send`, as the end of a sentence.
fn own_command(method: &str) -> &'static str {
    match method {
        "channel.open" => ": `open_channel` sends it",
        "channel.close" | "connection.close" => ": `close` sends it",
        "basic.consume" => ": `consume` sends it",
        "basic.cancel" => ": `cancel` of its consumer sends it",
        "basic.get" => ": `get` sends it",
        "basic.publish" => ": `publish` sends it",
        _ => "",
    }
}

/// The reason why a publish was not accepted.
#[derive(thiserror::Error, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no room, or the server has paused publishing. The body is returned; an event
    /// announces when to retry.
    #[error("publishing is held back: {hold}")]
    HeldBack {
        /// The cause.
        hold: Hold,
        /// The unchanged body.
        body: Body,
    },
    /// The publish is invalid.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
}

impl PublishError {
    /// Returns the unchanged body, to publish it later.
    ///
    /// # Errors
    /// The misuse, if the publish is invalid. A retry would not help.
    pub fn into_body(self) -> Result<Body, ApiMisuse> {
        match self {
            Self::HeldBack { body, .. } => Ok(body),
            Self::Misuse(misuse) => Err(misuse),
        }
    }
}

/// The back-pressure on a publish. Only publishes are held back: acknowledgements, requests,
/// heartbeats and closes proceed.
///
/// A message that fits into one frame goes to the output buffer of the connection. A larger one,
/// and each later message on the same channel while that is queued, goes to the channel's backlog.
#[derive(thiserror::Error, Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Hold {
    /// The output buffer of the connection is full. `Writable` follows when it has drained.
    #[error("the output buffer is full")]
    OutputFull,
    /// The backlogs of all channels together are full. `BacklogWritable` follows when they have
    /// drained.
    #[error("the backlogs of all channels are full")]
    BacklogFull,
    /// The backlog of this channel is full. `ChannelWritable` follows when it has drained.
    #[error("the backlog of this channel is full")]
    ChannelBacklogFull,
    /// The number of unconfirmed publishes has reached
    /// [`Limits::unconfirmed`](crate::Limits::unconfirmed). `Settled` events make room.
    #[error("too many publishes wait for their confirm")]
    TooManyUnconfirmed,
    /// The server is short of memory or disk space and has sent `connection.blocked`
    /// (<https://www.rabbitmq.com/docs/connection-blocked>).
    #[error("the server has blocked publishing on this connection")]
    ConnectionBlocked,
    /// The server has paused this channel with `channel.flow` (section 1.5.2.3 of the protocol
    /// reference).
    #[error("the server has paused publishing on this channel")]
    ChannelFlow,
    /// The connection or the channel is being recovered. Used by the layers above the state
    /// machine.
    #[error("the connection is being recovered")]
    Recovering,
}
