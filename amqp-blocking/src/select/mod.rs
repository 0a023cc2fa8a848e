//! A client for the program's own event loop: without threads, without `async`.
//!
//! A [`Client`] is one connection, driven by a loop of the program: `select`, `poll`, `epoll`, a
//! GUI's. Its calls do not block, except the few documented to, and a turn that resolves the name
//! of a host. Each command returns a [`Promise`] at once, the number under which its result
//! arrives. Any number of promises may be outstanding.
//!
//! | the loop, in this order | calls |
//! |---|---|
//! | writes, if [`Client::needs_write`] | [`Client::on_writable`] |
//! | sleeps until the descriptor ([`AsFd`](std::os::fd::AsFd)) is readable, no longer than | [`Client::next_timeout`] |
//! | reads | [`Client::on_readable`] |
//! | takes results | [`Client::poll`], [`Client::take`], or [`Client::run_callbacks`] |
//!
//! Each of these calls returns at once if it has nothing to do. Commands can be given at any point.
//!
//! For a program without such a loop, [`Client::wait`] and [`Client::run`] contain a small one. All
//! of these can be mixed: each result is returned once, by the first call that takes it.
//!
//! ```no_run
//! use amqp_blocking::{protocol::{basic, queue}, select};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut client, connected) = select::connect("amqp://127.0.0.1")?;
//! client.wait(connected, None)?;
//! let declared = client.call(queue::Declare::default().queue("hello"))?;
//! client.wait(declared, None)?;
//! let to_hello = basic::Publish::default().routing_key("hello");
//! let published = client.publish(to_hello, basic::Properties::default(), "Hello World!")?;
//! client.wait(published, None)?; // the server has it
//! # Ok(()) }
//! ```
//!
//! # The descriptor
//!
//! It stays the same for the life of the client, though the sockets change: there may be several
//! while connecting. It is readable when one of them is ready for the awaited operation, reading or
//! writing. Watch it for reading only, level-triggered.
//!
//! # Channels
//!
//! They are hidden. A request has a channel for itself until its reply, a consumer until its end,
//! and both until the last of their messages is acknowledged or rejected. So a [channel
//! exception](https://www.rabbitmq.com/docs/channels#error-handling) fails only that one promise.
//! Between two promises there is no ordering (section 4.7 of the specification guarantees it within
//! a channel), except between publishes, which share a channel. If the server closes that channel,
//! each publish in flight ends with its known outcome, and later publishes use a new channel.
//!
//! # Recovery
//!
//! With [`Options::recovery`](amqp_driver::Options::recovery), a connection that is lost is opened
//! again in the turns of the client, with its consumers, queues, exchanges and bindings. The loop
//! goes on as it is: the descriptor stays the same, and [`Client::next_timeout`] has the time of the
//! next attempt.
//!
//! | promise, call | while the connection is lost, and afterwards |
//! |---|---|
//! | of a consumer | goes on; the server redelivers the messages that were not acknowledged |
//! | [`Message::ack`] of before | fails with [`Stale`](amqp_driver::Error::Stale): the message comes again |
//! | a command that is given meanwhile | waits, and is executed afterwards; publishes in their order |
//! | a request in flight | fails with [`ConnectionClosed`](amqp_driver::Error::ConnectionClosed); its effect is unknown |
//! | a publish in flight | ends with [`Unconfirmed`], which says whether it was sent |
//! | [`Client::close`] | ends the client at once |
//! | [`Client::closed`] | is the final end: on request, or given up by the [policy](amqp_driver::recovery::Policy) |
//!
//! [`Client::connection`] has the [events](amqp_driver::Connection::recovery_events), to take with
//! `try_next` after a turn.
//!
//! # Bounds
//!
//! Each promise has exactly one final result, at the latest when the connection ends. It is kept
//! until it is taken, or dropped after [`Client::ignore`]. Deliveries that are not taken are
//! bounded as those of a [`Consumer`](amqp_driver::Consumer) are: give consumers a
//! [prefetch](https://www.rabbitmq.com/docs/consumer-prefetch). Unconfirmed publishes are bounded
//! by [`Limits`](amqp_driver::core::Limits): see [`PublishError::Full`].

mod checks;
mod client;
mod commands;
mod connect;
mod consume_task;
mod consumer_group;
mod local_runtime;
mod publishing;
mod results;
mod shared;
mod tasks;
mod waiting;

use std::{fmt, sync::Arc};

use amqp_core::{
    Hold, Requeue,
    protocol::{Method, basic::Properties},
    wire::{DecodeError, ShortStr},
};
use amqp_driver::{
    Acker, Body, ConnectError, EncodedProperties, Fetched, GroupCredit, Unconfirmed,
};
use bytes::Bytes;

pub use self::{
    client::Client,
    connect::{connect, connect_with, from_stream},
};
use self::{
    shared::{BorrowedChannel, RetainedChannel},
    tasks::next_number,
};

/// The number under which the result of a command arrives. Unique within the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promise(u64);

impl Promise {
    fn next() -> Self {
        Self(next_number())
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A result of a promise. All but two variants are final: see [`is_final`](Self::is_final).
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The connection is open.
    Connected,
    /// The reply to a request.
    Reply(Method),
    /// A fetched message. `None` if the queue was empty.
    Got(Option<Message>),
    /// The server has confirmed a publish, or handled it: see
    /// [`Client::set_publisher_acknowledgements`].
    Published,
    /// The consumers of all the queues have started. More results follow.
    Consuming,
    /// A message for a consumer. More results follow.
    Delivered(Message),
    /// The consumers were cancelled by [`Client::cancel`]. The result of both promises.
    Cancelled {
        /// The consumer tags, one for each queue.
        tags: Vec<ShortStr>,
    },
    /// The connection was closed gracefully.
    Closed,
}

impl Answer {
    /// Whether no more results follow under its promise.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Consuming | Self::Delivered(_))
    }

    /// The reply to a request. `Some` if it has that type.
    ///
    /// ```
    /// use amqp_blocking::{protocol::queue, select::Answer};
    ///
    /// let answer = Answer::Reply(queue::PurgeOk { message_count: 3 }.into());
    /// let purged: Option<queue::PurgeOk> = answer.reply();
    /// assert_eq!(purged.map(|purged| purged.message_count), Some(3));
    /// ```
    #[must_use]
    pub fn reply<R: TryFrom<Method>>(self) -> Option<R> {
        match self {
            Self::Reply(method) => R::try_from(method).ok(),
            _ => None,
        }
    }

    /// The fetched or delivered message. `Some` if there is one.
    #[must_use]
    pub fn message(self) -> Option<Message> {
        match self {
            Self::Got(message) => message,
            Self::Delivered(message) => Some(message),
            _ => None,
        }
    }
}

/// A message. Call [`ack`](Self::ack) or [`reject`](Self::reject), unless it needs no
/// acknowledgement; a channel is kept for it until then.
///
/// Dropping it unacknowledged leaves it to the server, which [requeues it when the channel
/// closes](https://www.rabbitmq.com/docs/confirms#automatic-requeueing): a fetched message at once,
/// a delivered one after the end of its consumers.
#[non_exhaustive]
#[must_use = "dropped without an acknowledgement, it goes back to its queue sooner or later"]
pub struct Message {
    /// The promise of the consumers or the fetch.
    pub promise: Promise,
    /// The index of its queue among those of [`Client::consume_multi`], from 0; otherwise 0.
    pub source: usize,
    /// The tag of its consumer: `<promise>.<source>.<requested tag>`, with a number behind it after a
    /// change of the prefetch; empty for a fetched message.
    pub consumer_tag: ShortStr,
    /// The exchange it was published to.
    pub exchange: ShortStr,
    /// The routing key it was published with.
    pub routing_key: ShortStr,
    /// Whether this is a redelivery, as far as the server knows.
    pub redelivered: bool,
    /// The number of messages remaining in the queue. `Some` for a fetched message.
    pub remaining: Option<u32>,
    /// The properties, as encoded on the wire.
    pub encoded_properties: EncodedProperties,
    /// The body.
    pub body: Body,
    acknowledging: Acknowledging,
    /// `Some` for a fetched message that needs an acknowledgement: its channel, to be reused after
    /// that.
    channel: Option<RetainedChannel>,
}

/// The means to acknowledge a message.
#[derive(Default)]
struct Acknowledging {
    /// `Some` if it needs an acknowledgement.
    acker: Option<Acker>,
    /// Its part of a prefetch. `Some` for a delivered message that needs an acknowledgement.
    _credit: Option<GroupCredit>,
}

impl Message {
    fn delivered(
        promise: Promise,
        source: usize,
        message: amqp_driver::Message,
        acknowledging: Acknowledging,
    ) -> Self {
        Self {
            promise,
            source,
            consumer_tag: message.method.consumer_tag,
            exchange: message.method.exchange,
            routing_key: message.method.routing_key,
            redelivered: message.method.redelivered,
            remaining: None,
            encoded_properties: message.encoded_properties,
            body: message.body,
            acknowledging,
            channel: None,
        }
    }

    fn fetched(promise: Promise, fetched: Fetched, channel: BorrowedChannel) -> Self {
        let mut channel = Some(channel.retain());
        if fetched.acker.is_none() {
            channel
                .take()
                .into_iter()
                .for_each(RetainedChannel::release);
        }
        Self {
            promise,
            source: 0,
            consumer_tag: ShortStr::default(),
            exchange: fetched.method.exchange,
            routing_key: fetched.method.routing_key,
            redelivered: fetched.method.redelivered,
            remaining: Some(fetched.method.message_count),
            encoded_properties: fetched.properties,
            body: fetched.body,
            acknowledging: Acknowledging {
                acker: fetched.acker,
                _credit: None,
            },
            channel,
        }
    }

    /// Decodes the properties, at each call.
    ///
    /// # Errors
    /// If they are malformed: the server does not validate all that a publisher sends. The message
    /// can still be acknowledged or rejected.
    pub fn properties(&self) -> Result<Properties, DecodeError> {
        self.encoded_properties.decode()
    }

    /// Acknowledges the message, with the next write. Does nothing if it needs no acknowledgement.
    ///
    /// # Errors
    /// If its channel or the connection is closed, or was lost since: the server has requeued the
    /// message.
    pub fn ack(self) -> Result<(), Error> {
        self.settle(Acker::ack)
    }

    /// Rejects the message, with the next write. Does nothing if it needs no acknowledgement.
    ///
    /// # Errors
    /// As [`ack`](Self::ack).
    pub fn reject(self, requeue: Requeue) -> Result<(), Error> {
        self.settle(|acker| acker.reject(requeue))
    }

    fn settle(
        self,
        settle: impl FnOnce(Acker) -> Result<(), amqp_driver::Error>,
    ) -> Result<(), Error> {
        let settled = self.acknowledging.acker.map_or(Ok(()), settle);
        self.channel.into_iter().for_each(RetainedChannel::release);
        Ok(settled?)
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("promise", &self.promise)
            .field("source", &self.source)
            .field("exchange", &self.exchange)
            .field("routing_key", &self.routing_key)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// The error of a command or of a promise.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// The command is invalid, or was refused, or its channel or connection has ended.
    #[error(transparent)]
    Call(#[from] amqp_driver::Error),
    /// The connection could not be opened.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// A publish was not confirmed.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    /// The client is being closed.
    #[error("the client is being closed")]
    Closing,
    /// No more results follow under that promise: its final result was taken, or it belongs to
    /// another client.
    #[error("nothing more is to come under promise {0}")]
    NoSuchPromise(Promise),
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl Error {
    /// Whether the reason is a graceful close of the connection by this side, finished or not.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self {
            Self::Call(amqp_driver::Error::ConnectionClosed(reason)) => reason.is_clean(),
            Self::Closing => true,
            _ => false,
        }
    }
}

/// The error of a publish that was not accepted.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no room now, or the server has [blocked
    /// publishing](https://www.rabbitmq.com/docs/connection-blocked). Try again when
    /// [`Client::hold`] returns `None`.
    #[error("publishing is held back: {hold}")]
    Full {
        /// The reason.
        hold: Hold,
        /// The body of the publish.
        body: Bytes,
    },
    /// The connection is closed or could not be opened, with the reason.
    #[error(transparent)]
    Closed(Error),
}
