//! The client for an event loop of one's own: without a thread, without `async`.
//!
//! A [`Client`] is one connection, and the loop is whatever the program has: `select`, `poll`,
//! `epoll`, a GUI's. No call of it blocks but the few that say so, and a turn in which the name of a
//! host is resolved. Each command returns a [`Promise`] at once, a number under which its result
//! comes; any number of them may be under way.
//!
//! | the loop, in this order | calls |
//! |---|---|
//! | writes, if [`Client::needs_write`] | [`Client::on_writable`] |
//! | sleeps until the descriptor ([`AsFd`](std::os::fd::AsFd)) is readable, no longer than | [`Client::next_timeout`] |
//! | reads | [`Client::on_readable`] |
//! | takes results | [`Client::poll`], [`Client::take`], or [`Client::run_callbacks`] |
//!
//! Each of these does nothing where there is nothing to do. Commands can be given at any point.
//!
//! A program without such a loop has [`Client::wait`] and [`Client::run`], which bring a small one.
//! All of these can be mixed: each result is handed out once, to who asks first.
//!
//! ```no_run
//! use amqp_blocking::{protocol::{basic, queue}, select};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut client, connected) = select::connect("amqp://127.0.0.1")?;
//! client.wait(connected, None)?;
//! let declared = client.call(queue::Declare::default().queue("hello")?)?;
//! client.wait(declared, None)?;
//! let to_hello = basic::Publish::default().routing_key("hello")?;
//! let published = client.publish(to_hello, basic::Properties::default(), "Hello World!")?;
//! client.wait(published, None)?; // the server has it
//! # Ok(()) }
//! ```
//!
//! # The descriptor
//!
//! It is the same for the life of the client, whatever sockets that has meanwhile: while connecting
//! there may be several. It is readable when one of them is ready for what is waited for, reading or
//! writing, and is never to be watched for writing. Watch it level-triggered.
//!
//! # Channels
//!
//! They are hidden. A request has one for itself until it is answered, a consumer until it has
//! ended, and both until the last of their messages is settled. So an error that costs the channel is
//! the error of that one promise, and nothing is in order between two promises but publishes, which
//! share a channel. When that is closed by the server, the publishes under way are told what is known
//! of them, and later ones go over a new one.
//!
//! # Bounds
//!
//! Each promise has exactly one final result, at the latest when the connection ends. It waits until
//! it is taken, or not at all after [`Client::ignore`]. Deliveries that nobody takes are bounded as
//! those of a [`Consumer`](amqp_driver::Consumer) are: give consumers a prefetch. Publishes that wait for
//! their confirm are bounded by [`Limits`](amqp_driver::core::Limits): see [`PublishError::Full`].

mod client;
mod commands;
mod connect;
mod consuming;
mod link;
mod local_runtime;
mod results;
mod tasks;
mod waiting;

use std::{fmt, sync::Arc};

use amqp_core::{
    Hold, Requeue,
    protocol::{Method, basic::Properties},
    wire::{DecodeError, ShortStr},
};
use amqp_driver::{Acker, Body, ConnectError, EncodedProperties, Fetched, Unconfirmed};
use bytes::Bytes;

pub use self::{
    client::Client,
    connect::{connect, connect_with, from_stream},
};
use self::{
    link::{Kept, Lent},
    tasks::next_number,
};

/// What was begun and is not over: the number under which its result comes. No two of a process are
/// the same.
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

/// What came of a promise. All but two are its last: see [`is_final`](Self::is_final).
#[derive(Debug)]
#[non_exhaustive]
pub enum Answer {
    /// The connection is open.
    Connected,
    /// A request was answered.
    Reply(Method),
    /// A fetched message; none when the queue was empty.
    Got(Option<Message>),
    /// The server has confirmed a publish.
    Published,
    /// The server has begun to deliver, from all the queues. More is to come.
    Consuming,
    /// A message for a consumer. More is to come.
    Delivered(Message),
    /// A consumer was cancelled by [`Client::cancel`]. Both promises are told.
    Cancelled {
        /// Its consumer tags, one for each queue.
        tags: Vec<ShortStr>,
    },
    /// The connection was closed in good order.
    Closed,
}

impl Answer {
    /// Whether nothing more will come under its promise.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        !matches!(self, Self::Consuming | Self::Delivered(_))
    }

    /// The server's answer to a request, if it is of that type.
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

    /// The message, fetched or delivered.
    #[must_use]
    pub fn message(self) -> Option<Message> {
        match self {
            Self::Got(message) => message,
            Self::Delivered(message) => Some(message),
            _ => None,
        }
    }
}

/// A message. Unless it needs no acknowledgement, it is to be settled with [`ack`](Self::ack) or
/// [`reject`](Self::reject); a channel is kept for it until then.
///
/// Dropping it unsettled leaves it to the server: a fetched one goes back to its queue at once, a
/// delivered one when its consumer has ended.
#[non_exhaustive]
#[must_use = "dropped without an acknowledgement, it goes back to its queue sooner or later"]
pub struct Message {
    /// What it came under.
    pub promise: Promise,
    /// Which of the queues of [`Client::consume_multi`] it is from, counted from 0; 0 otherwise.
    pub source: usize,
    /// The consumer it was delivered to: `<promise>.<source>.<tag that was asked for>`; empty for a
    /// fetched one.
    pub consumer_tag: ShortStr,
    /// The exchange it was published to.
    pub exchange: ShortStr,
    /// The routing key it was published with.
    pub routing_key: ShortStr,
    /// Whether it may have been delivered before.
    pub redelivered: bool,
    /// How many messages were left in the queue, of a fetched one.
    pub remaining: Option<u32>,
    /// Its properties, as they stand on the wire.
    pub encoded_properties: EncodedProperties,
    /// Its body.
    pub body: Body,
    /// None if it needs no acknowledgement.
    acker: Option<Acker>,
    /// The channel of a fetched one, which is for others when it is settled.
    channel: Option<Kept>,
}

impl Message {
    fn delivered(
        promise: Promise,
        source: usize,
        message: amqp_driver::Message,
        acker: Option<Acker>,
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
            acker,
            channel: None,
        }
    }

    fn fetched(promise: Promise, fetched: Fetched, channel: Lent) -> Self {
        let mut channel = Some(channel.keep_for_now());
        if fetched.acker.is_none() {
            channel.take().into_iter().for_each(Kept::give_back);
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
            acker: fetched.acker,
            channel,
        }
    }

    /// Its properties. Decodes them each time.
    ///
    /// # Errors
    /// When they cannot be read: a server passes on what a publisher sent without looking at all of
    /// it. The message can be acknowledged or rejected as any other.
    pub fn properties(&self) -> Result<Properties, DecodeError> {
        self.encoded_properties.decode()
    }

    /// Acknowledges it. It is sent with what is written next. It does nothing for one that needs
    /// none.
    ///
    /// # Errors
    /// When its channel or the connection is closed, so that the server has taken it back.
    pub fn ack(self) -> Result<(), Error> {
        self.settle(Acker::ack)
    }

    /// Refuses it. It is sent with what is written next.
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
        self.acker.map_or(Ok(()), settle)?;
        self.channel.into_iter().for_each(Kept::give_back);
        Ok(())
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

/// Why something failed.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum Error {
    /// It was wrong in itself, or refused, or cut off with its channel or connection.
    #[error(transparent)]
    Call(#[from] amqp_driver::Error),
    /// There is no connection.
    #[error(transparent)]
    Connect(Arc<ConnectError>),
    /// A publish was not confirmed.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    /// The client is being closed.
    #[error("the client is being closed")]
    Closing,
    /// Nothing more is to come under that promise: it has ended and its result was taken, or it is
    /// another client's.
    #[error("nothing more is to come under promise {0}")]
    NoSuchPromise(Promise),
}

impl From<ConnectError> for Error {
    fn from(error: ConnectError) -> Self {
        Self::Connect(Arc::new(error))
    }
}

impl Error {
    /// Whether it is that the connection was or is closed by its own side, in good order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self {
            Self::Call(amqp_driver::Error::ConnectionClosed(reason)) => reason.is_clean(),
            Self::Closing => true,
            _ => false,
        }
    }
}

/// Why a publish was not accepted.
#[derive(thiserror::Error, Clone, Debug)]
#[non_exhaustive]
pub enum PublishError {
    /// There is no room now, or the server wants none. The body is handed back; try again when
    /// [`Client::hold`] gives none.
    #[error("publishing is held back: {hold}")]
    Full {
        /// What holds it back.
        hold: Hold,
        /// The body, as it was given.
        body: Bytes,
    },
    /// The connection is closed, or was not made, and why.
    #[error(transparent)]
    Closed(Error),
}
