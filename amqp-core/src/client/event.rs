//! The events of a client's connection.

use alloc::vec::Vec;

use crate::{
    body::Content,
    close::{CloseReason, RequestError},
    fault::Fault,
    ids::{ChannelId, ConsumerId, DeliveryTag, PublishSeq, RequestId},
    protocol::{Method, basic},
    wire::ShortStr,
};

/// An event of the connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// The handshake is complete: channels can be opened. The negotiated limits are in
    /// [`tuning`](super::Connection::tuning).
    Opened,
    /// A reply to a request arrived.
    Reply {
        /// The channel. `None` for a request of the connection itself.
        channel: Option<ChannelId>,
        /// The request.
        request: RequestId,
        /// The reply, of the type that the request's method defines.
        reply: Method,
    },
    /// A reply to `basic.get` arrived.
    Got {
        /// The channel.
        channel: ChannelId,
        /// The request.
        request: RequestId,
        /// The message. `None` if the queue was empty.
        message: Option<GetMessage>,
    },
    /// A request failed: no reply will follow.
    Failed {
        /// The request.
        request: RequestId,
        /// The cause of the failure.
        cause: RequestError,
    },
    /// A message was delivered to a consumer.
    Delivered(Delivery),
    /// A message was discarded because it exceeds a limit of this side, such as
    /// [`Limits::header`](crate::Limits::header). For `basic.get`, [`Failed`](Self::Failed) is
    /// reported instead.
    Unreadable {
        /// The channel.
        channel: ChannelId,
        /// The consumer of the delivery. `None` for a returned message.
        consumer: Option<ConsumerId>,
        /// The delivery, which was rejected without requeue: it is dead-lettered or dropped. `Some`
        /// if it needed an acknowledgement.
        tag: Option<DeliveryTag>,
        /// The exceeded limit.
        fault: Fault,
    },
    /// A mandatory message was returned as unroutable. Its confirm follows
    /// (<https://www.rabbitmq.com/docs/confirms>).
    Returned(Returned),
    /// Publishes of a channel in confirm mode were settled. Each number is reported once.
    Settled {
        /// The channel.
        channel: ChannelId,
        /// The first publish of the range.
        first: PublishSeq,
        /// The last publish of the range.
        last: PublishSeq,
        /// The outcome of all publishes in the range.
        outcome: Outcome,
    },
    /// The server cancelled a consumer: its queue was deleted or moved, or the permission to read
    /// it was revoked. <https://www.rabbitmq.com/docs/consumer-cancel>
    ConsumerCancelled {
        /// The channel.
        channel: ChannelId,
        /// The consumer.
        consumer: ConsumerId,
        /// The consumer's tag.
        tag: ShortStr,
    },
    /// The server paused or resumed publishing on a channel (`channel.flow`).
    Flow {
        /// The channel.
        channel: ChannelId,
        /// Whether publishing is allowed.
        active: bool,
    },
    /// The server is short of a resource and has blocked publishing on the connection. It may stop
    /// reading until [`Unblocked`](Self::Unblocked).
    /// <https://www.rabbitmq.com/docs/connection-blocked>
    Blocked {
        /// The reason that the server gives.
        reason: ShortStr,
    },
    /// The server allows publishing again.
    Unblocked,
    /// The output buffer has room: [`Hold::OutputFull`](crate::Hold::OutputFull) has ended.
    /// Reported once after a publish was held back by it, or after
    /// [`want_writable`](super::Connection::want_writable).
    Writable,
    /// The backlogs of all channels together have room:
    /// [`Hold::BacklogFull`](crate::Hold::BacklogFull) has ended. Reported once after a publish was
    /// held back by it, or after
    /// [`want_backlog_writable`](super::Connection::want_backlog_writable).
    BacklogWritable,
    /// The backlog of a channel has room:
    /// [`Hold::ChannelBacklogFull`](crate::Hold::ChannelBacklogFull) has ended. Reported once after
    /// a publish was held back by it, or after [`want_writable`](super::ChannelMut::want_writable).
    ChannelWritable {
        /// The channel.
        channel: ChannelId,
    },
    /// The [deadline](super::Connection::set_secret_deadline) for a new secret has passed.
    SecretDue,
    /// A channel ended other than by its own close request, or that request crossed a close of the
    /// server. Its requests and publishes were settled before this event, and its consumers have
    /// ended.
    ChannelClosed {
        /// The channel.
        channel: ChannelId,
        /// The close reason.
        reason: CloseReason,
    },
    /// The connection ended, and with it all channels. Their requests and publishes were settled
    /// before. This is the last event.
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
    /// The tag to acknowledge. `Some` if the consumer acknowledges its deliveries.
    pub tag: Option<DeliveryTag>,
    /// The delivery method: consumer tag, exchange, routing key, redelivered flag.
    pub method: basic::Deliver,
    /// The message.
    pub content: Content,
}

/// A message fetched with `basic.get`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct GetMessage {
    /// The tag to acknowledge. `Some` if the message needs an acknowledgement.
    pub tag: Option<DeliveryTag>,
    /// The reply method: exchange, routing key, number of messages left in the queue.
    pub method: basic::GetOk,
    /// The message.
    pub content: Content,
}

impl Delivery {
    /// The memory it occupies, in bytes: that of its [content](Content::memory) and the strings of
    /// its method.
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
    /// The memory it occupies, in bytes: that of its [content](Content::memory) and the strings of
    /// its method.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.content.memory() + self.method.exchange.len() + self.method.routing_key.len()
    }
}

impl Returned {
    /// The memory it occupies, in bytes: that of its [content](Content::memory), the strings of its
    /// method, and the list of candidates.
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

/// A mandatory message that was routed to no queue.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Returned {
    /// The channel.
    pub channel: ChannelId,
    /// The publish, on a channel in confirm mode. `Some` if the match is certain.
    ///
    /// Publishes that are equal in address, properties and body are assumed to be returned in
    /// publish order.
    pub seq: Option<PublishSeq>,
    /// The publishes that it may be, if the match is ambiguous: they differ, but not in the parts
    /// that the return preserves. RabbitMQ removes the header `BCC`
    /// (<https://www.rabbitmq.com/docs/sender-selected>), and may be configured to add headers.
    /// Their outcome is [`Outcome::PossiblyReturned`] instead of [`Outcome::Acked`].
    pub candidates: Vec<PublishSeq>,
    /// The return method: reply code, exchange, routing key.
    pub method: basic::Return,
    /// The message.
    pub content: Content,
}

/// The outcome of a publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The server has taken responsibility for it. An unroutable mandatory publish is also
    /// acknowledged, after its return.
    Acked,
    /// Like [`Acked`](Self::Acked), but a return may have been for this publish: see
    /// [`Returned::candidates`]. Whether it reached a queue is unknown.
    PossiblyReturned,
    /// The server could not take responsibility for it.
    Nacked,
    /// The channel or connection ended before any byte of it left the machine.
    NotSent(CloseReason),
    /// The channel or connection ended before the confirm, or the [confirm
    /// timeout](crate::Timeouts::confirm) passed. After a timeout the channel stays open, and a
    /// late confirm is ignored.
    Unknown(CloseReason),
}
