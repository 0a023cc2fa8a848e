//! What a client's connection tells.

use alloc::vec::Vec;

use crate::{
    body::Content,
    close::{CloseReason, RequestError},
    fault::Fault,
    ids::{ChannelId, ConsumerId, DeliveryTag, PublishSeq, RequestId},
    protocol::{Method, basic},
    wire::ShortStr,
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is over: channels can be opened. See `tuning` for what was negotiated.
    Opened,
    /// A request was answered.
    Reply {
        /// The channel; none for a request of the connection itself.
        channel: Option<ChannelId>,
        /// Which request.
        request: RequestId,
        /// The answer: of the type that the request's method names.
        reply: Method,
    },
    /// `basic.get` was answered.
    Got {
        /// The channel.
        channel: ChannelId,
        /// Which request.
        request: RequestId,
        /// The message; none when the queue was empty.
        message: Option<GetMessage>,
    },
    /// A request will have no answer.
    Failed {
        /// Which request.
        request: RequestId,
        /// Why.
        cause: RequestError,
    },
    /// A message was delivered to a consumer.
    Delivered(Delivery),
    /// A message came in of which nothing is kept, because it is over a limit of this side such as
    /// [`Limits::header`](crate::Limits::header). Of a fetched one [`Failed`](Self::Failed) tells.
    Unreadable {
        /// The channel.
        channel: ChannelId,
        /// The consumer that it was delivered to. `None` for a message that was returned.
        consumer: Option<ConsumerId>,
        /// The delivery, which was rejected without requeue: it is dead-lettered or dropped. `None`
        /// if it needed no acknowledgement.
        tag: Option<DeliveryTag>,
        /// Why.
        fault: Fault,
    },
    /// A mandatory message came back: no queue took it. Its confirm follows.
    Returned(Returned),
    /// The fate of publishes of a channel in confirm mode is known. Each number comes once.
    Settled {
        /// The channel.
        channel: ChannelId,
        /// The first of them.
        first: PublishSeq,
        /// The last of them.
        last: PublishSeq,
        /// What became of all of them.
        outcome: Outcome,
    },
    /// The server cancelled a consumer: its queue is gone, or moved, or may no longer be read.
    ConsumerCancelled {
        /// The channel.
        channel: ChannelId,
        /// Which consumer.
        consumer: ConsumerId,
        /// Its tag.
        tag: ShortStr,
    },
    /// The server paused or resumed publishing on a channel.
    Flow {
        /// The channel.
        channel: ChannelId,
        /// Whether publishing is allowed.
        active: bool,
    },
    /// The server is short of a resource and holds back publishing on the connection. It may not
    /// even read until [`Unblocked`](Self::Unblocked).
    Blocked {
        /// Why, in the server's words.
        reason: ShortStr,
    },
    /// Publishing may go on.
    Unblocked,
    /// There is room in the output buffer: [`Hold::OutputFull`](crate::Hold::OutputFull) is over.
    /// Comes once after a publish was held back for it, or after
    /// [`want_writable`](super::Connection::want_writable).
    Writable,
    /// There is room in the backlogs of all channels together:
    /// [`Hold::BacklogFull`](crate::Hold::BacklogFull) is over. Comes once after a publish was held
    /// back for it, or after
    /// [`want_backlog_writable`](super::Connection::want_backlog_writable).
    BacklogWritable,
    /// There is room in the backlog of a channel:
    /// [`Hold::ChannelBacklogFull`](crate::Hold::ChannelBacklogFull) is over. Comes once after a
    /// publish was held back for it, or after
    /// [`want_writable`](super::ChannelMut::want_writable).
    ChannelWritable {
        /// The channel.
        channel: ChannelId,
    },
    /// The [deadline](super::Connection::set_secret_deadline) has come at which a new secret is
    /// wanted.
    SecretDue,
    /// A channel ended otherwise than by its own request: also when the request to close it has
    /// crossed a close of the server's. Its requests and publishes have been settled before, its
    /// consumers have ended.
    ChannelClosed {
        /// The channel.
        channel: ChannelId,
        /// Why.
        reason: CloseReason,
    },
    /// The connection ended, and with it all channels, requests and publishes: these have been
    /// settled before. This is the last event.
    Closed(CloseReason),
}

/// A message for a consumer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Delivery {
    /// The channel.
    pub channel: ChannelId,
    /// The consumer.
    pub consumer: ConsumerId,
    /// What to acknowledge it by; none when the consumer does not acknowledge.
    pub tag: Option<DeliveryTag>,
    /// The method that carried it: consumer tag, exchange, routing key, whether redelivered.
    pub method: basic::Deliver,
    /// The message.
    pub content: Content,
}

/// A message that was fetched.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GetMessage {
    /// What to acknowledge it by; none when it was fetched without acknowledgement.
    pub tag: Option<DeliveryTag>,
    /// The method that carried it: exchange, routing key, how many are left.
    pub method: basic::GetOk,
    /// The message.
    pub content: Content,
}

impl Delivery {
    /// How much memory it takes, in bytes: that of its [content](Content::memory), and the strings
    /// of its method.
    #[must_use]
    pub fn memory(&self) -> usize {
        let method = &self.method;
        self.content.memory()
            + method.consumer_tag.len()
            + method.exchange.len()
            + method.routing_key.len()
    }
}

impl GetMessage {
    /// How much memory it takes, in bytes: that of its [content](Content::memory), and the strings
    /// of its method.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.content.memory() + self.method.exchange.len() + self.method.routing_key.len()
    }
}

impl Returned {
    /// How much memory it takes, in bytes: that of its [content](Content::memory), the strings of
    /// its method, and the list of publishes that it may be.
    #[must_use]
    pub fn memory(&self) -> usize {
        let method = &self.method;
        self.content.memory()
            + method.reply_text.len()
            + method.exchange.len()
            + method.routing_key.len()
            + self.candidates.len() * size_of::<PublishSeq>()
    }
}

/// A mandatory message that no queue took.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Returned {
    /// The channel.
    pub channel: ChannelId,
    /// Which publish of a channel in confirm mode it was. `None` on other channels, and where that
    /// is not certain.
    ///
    /// Publishes that are equal in address, properties and body are taken to come back in the order
    /// in which they were made.
    pub seq: Option<PublishSeq>,
    /// Which publishes it may have been, where that is not certain: they differ, but not in what
    /// came back. RabbitMQ removes the header `BCC`, and may be configured to add headers. Their
    /// outcome is [`Outcome::PossiblyReturned`] instead of [`Outcome::Acked`].
    pub candidates: Vec<PublishSeq>,
    /// The method that carried it: why, exchange, routing key.
    pub method: basic::Return,
    /// The message.
    pub content: Content,
}

/// What became of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has taken responsibility for it. A mandatory one that no queue took is also
    /// acknowledged, after it was returned.
    Acked,
    /// As [`Acked`](Self::Acked), but a message was returned that may have been this one: see
    /// [`Returned::candidates`]. Whether a queue has it is not known.
    PossiblyReturned,
    /// The server could not take responsibility for it.
    Nacked,
    /// The channel or connection ended before any of it left the machine.
    NotSent(CloseReason),
    /// The channel or connection ended before the server told, or the server did not tell in
    /// [time](crate::Timeouts::confirm): then the channel lives on, and what the server tells later
    /// is ignored.
    Unknown(CloseReason),
}
