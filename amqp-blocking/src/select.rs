//! The client for an event loop of one's own: without a thread, without `async`.
//!
//! A [`Client`] is one socket, and the loop is whatever the program has: `select`, `poll`, `epoll`,
//! a GUI's. No call of it blocks but the few that say so. Each command returns a [`Promise`] at
//! once, a number under which its result comes; any number of them may be under way.
//!
//! | the loop | calls |
//! |---|---|
//! | watches the socket ([`AsFd`](std::os::fd::AsFd)) while | [`Client::needs_read`], [`Client::needs_write`] |
//! | says that the socket is ready | [`Client::on_readable`], [`Client::on_writable`] |
//! | sleeps no longer than | [`Client::next_timeout`], and calls [`Client::on_timeout`] then |
//! | takes results | [`Client::poll`], [`Client::take`], or [`Client::run_callbacks`] |
//!
//! A program without such a loop has [`Client::wait`] and [`Client::run`], which bring a small one.
//! All of these can be mixed: each result is handed out once, to who asks first.
//!
//! ```no_run
//! use amqp_blocking::{protocol::{basic, queue}, select::Client};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let (mut client, connected) = Client::connect("amqp://127.0.0.1")?;
//! client.wait(connected, None)?;
//! let declared = client.call(queue::Declare::default().queue("hello")?)?;
//! client.wait(declared, None)?;
//! let to_hello = basic::Publish::default().routing_key("hello")?;
//! let published = client.publish(to_hello, basic::Properties::default(), "Hello World!")?;
//! client.wait(published, None)?; // the server has it
//! # Ok(()) }
//! ```
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
//! it is taken, or not at all after [`Client::ignore`]. Beyond 16 MiB of deliveries that nobody takes
//! the client does not read: give consumers a prefetch. Publishes that wait for their confirm are
//! bounded by [`Limits`](crate::core::Limits): see [`PublishError::Full`].

mod channels;
mod commands;
mod publisher;
mod results;
mod turns;
mod wire;

use std::{collections::BTreeMap, collections::BTreeSet, collections::VecDeque, fmt};

use amqp_client::{
    Body, CloseReason, EncodedProperties, Unconfirmed,
    core::{
        ApiMisuse, ChannelId, DeliveryTag, Hold, RequestId, client::Connection, dial::Address,
        protocol::Method, uri::UriError,
    },
    wire::ShortStr,
};
use bytes::Bytes;

use self::{
    channels::{Job, Purpose, Slot, Task},
    publisher::Publisher,
    results::Results,
    wire::Wire,
};

/// A connection for an event loop of one's own. See the [module](self).
///
/// Dropping it cuts the connection: what has not been written is lost, and unacknowledged messages
/// go back to their queues. [`close`](Self::close) and wait to end in good order.
pub struct Client {
    wire: Wire,
    machine: Connection,
    /// The promise of the connection itself.
    connect: Promise,
    /// The promises whose final result is still to come.
    tasks: BTreeMap<Promise, Task>,
    requests: BTreeMap<RequestId, Purpose>,
    /// What waits for a channel, in order.
    waiting: VecDeque<(Promise, Job)>,
    /// The channels but that of the publisher.
    slots: BTreeMap<ChannelId, Slot>,
    /// Those of them that nobody uses.
    idle: BTreeSet<ChannelId>,
    publisher: Publisher,
    results: Results,
    /// The results of these are dropped when they come.
    ignored: BTreeSet<Promise>,
    /// None while it runs.
    callbacks: BTreeMap<Promise, Option<Callback>>,
    /// Whether there is room for what comes in, as the machine knows it.
    reading: bool,
    stopped: bool,
    /// Why the connection has ended, when everybody was told.
    closed: Option<CloseReason>,
}

type Callback = Box<dyn FnMut(&mut Client, Result<Answer, Error>)>;

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("socket", &self.wire.socket)
            .field("promises", &self.tasks.len())
            .field("closed", &self.closed)
            .finish_non_exhaustive()
    }
}

/// What was begun and is not over: the number under which its result comes. No two of a process are
/// the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Promise(u64);

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What came of a promise. All but two are its last: see [`is_final`](Self::is_final).
#[derive(Clone, Debug, PartialEq)]
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
    /// The server has begun to deliver, from all the queues; of several, the first may have done so
    /// before. More is to come.
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

/// A message. Unless it needs no acknowledgement, it is to be settled with [`Client::ack`] or
/// [`Client::reject`]; a channel is kept for it until then.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
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
    pub properties: EncodedProperties,
    /// Its body.
    pub body: Body,
    channel: ChannelId,
    /// None if it needs no acknowledgement.
    tag: Option<DeliveryTag>,
}

/// Why something failed.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Error {
    /// It was wrong in itself, or refused, or cut off with its channel or connection.
    #[error(transparent)]
    Call(#[from] amqp_client::Error),
    /// A publish was not confirmed.
    #[error(transparent)]
    Unconfirmed(#[from] Unconfirmed),
    /// Nothing more is to come under that promise: it has ended and its result was taken, or it is
    /// another client's.
    #[error("nothing more is to come under promise {0}")]
    NoSuchPromise(Promise),
    /// Nothing can come: the client does not read any more, because too many deliveries wait to be
    /// taken. Take some, and try again.
    #[error("too many deliveries wait to be taken")]
    Untaken,
}

impl From<ApiMisuse> for Error {
    fn from(misuse: ApiMisuse) -> Self {
        Self::Call(misuse.into())
    }
}

/// Why a publish was not accepted.
#[derive(thiserror::Error, Clone, Debug, PartialEq)]
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
    /// The connection is closed, and why.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
}

/// Why connecting could not even be begun.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URI is wrong.
    #[error(transparent)]
    Uri(#[from] UriError),
    /// The URI asks for TLS.
    #[error("amqps needs TLS, which this client does not speak")]
    NoTls,
    /// Something is asked for that no server would accept.
    #[error(transparent)]
    Misuse(#[from] ApiMisuse),
    /// The host could not be resolved.
    #[error("could not resolve {address}: {error}")]
    Resolve {
        /// Which.
        address: Address,
        /// Why, in the system's words.
        #[source]
        error: std::io::Error,
    },
    /// The system gave no socket, or will not have it used like this.
    #[error(transparent)]
    Socket(#[from] std::io::Error),
}
