//! Remote procedure calls over a broker, with blocking calls; see [`amqp_driver::rpc`].

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

pub use amqp_driver::rpc::{ClientOptions, HandlerError, Reply, RpcError};
use amqp_driver::{
    Error, Message,
    protocol::{basic, queue},
    publishing::OutgoingMessage,
};
use ref_cast::RefCast;

use crate::{
    handles::{BaseChannel, Channel},
    thread::in_thread,
    wait::wait,
};

/// Publishes requests, and matches the replies to them. Clones share it, and can be used from any
/// number of threads.
///
/// Wraps [`amqp_driver::rpc::Client`].
#[derive(Clone, Debug, RefCast)]
#[repr(transparent)]
pub struct Client(amqp_driver::rpc::Client);

impl Client {
    /// Creates a client that gets its replies by [direct
    /// reply-to](https://www.rabbitmq.com/docs/direct-reply-to).
    ///
    /// # Errors
    /// As [`amqp_driver::rpc::Client::direct`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn direct(channel: Channel, options: ClientOptions) -> Result<Self, Error> {
        let opening = amqp_driver::rpc::Client::direct(channel.into_async(), options);
        Ok(Self(wait(opening)??))
    }

    /// Creates a client that gets its replies over a queue, which is declared.
    ///
    /// # Errors
    /// As [`amqp_driver::rpc::Client::over_queue`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn over_queue(
        channel: Channel,
        queue: queue::Declare,
        options: ClientOptions,
    ) -> Result<Self, Error> {
        let opening = amqp_driver::rpc::Client::over_queue(channel.into_async(), queue, options);
        Ok(Self(wait(opening)??))
    }

    /// Publishes a request, and waits for its reply.
    ///
    /// # Errors
    /// As [`amqp_driver::rpc::Client::call`]; [`RpcError::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn call(&self, request: OutgoingMessage, timeout: Duration) -> Result<Message, RpcError> {
        wait(self.0.call(request, timeout)).unwrap_or(Err(RpcError::TimedOut))
    }

    /// The number of replies that no call was waiting for.
    #[must_use]
    pub fn late_replies(&self) -> u64 {
        self.0.late_replies()
    }

    /// The number of calls in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight()
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &BaseChannel {
        BaseChannel::ref_cast(self.0.channel())
    }

    /// The asynchronous handle.
    #[must_use]
    pub const fn as_async(&self) -> &amqp_driver::rpc::Client {
        &self.0
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::rpc::Client {
        self.0
    }
}

impl From<amqp_driver::rpc::Client> for Client {
    fn from(handle: amqp_driver::rpc::Client) -> Self {
        Self(handle)
    }
}

/// Consumes requests, runs a handler for each on a thread of its own, and publishes the replies.
///
/// Wraps [`amqp_driver::rpc::Server`].
///
/// ```no_run
/// use amqp_blocking::{
///     Channel,
///     protocol::basic,
///     rpc::{Reply, Server},
/// };
///
/// # fn example(channel: Channel) -> Result<(), Box<dyn std::error::Error>> {
/// let server = Server::open(channel, basic::Consume::default().queue("echo"), 4)?;
/// server.serve(|request| Ok(Reply::new(request.body)))?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Server(amqp_driver::rpc::Server);

impl Server {
    /// Starts a consumer of requests, of which at most `limit` are handled at a time.
    ///
    /// # Errors
    /// As [`amqp_driver::rpc::Server::open`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn open(channel: Channel, consume: basic::Consume, limit: u16) -> Result<Self, Error> {
        let opening = amqp_driver::rpc::Server::open(channel.into_async(), consume, limit);
        Ok(Self(wait(opening)??))
    }

    /// Runs `handler` for each request, until the consumer ends. This thread waits; each request has
    /// a thread of its own.
    ///
    /// # Errors
    /// As [`amqp_driver::rpc::Server::serve`]; [`Error::TimedOut`] also beyond the limit of
    /// [`within`](crate::within).
    pub fn serve<H>(self, handler: H) -> Result<(), Error>
    where
        H: Fn(Message) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    {
        wait(self.0.serve(on_threads(handler)))?
    }

    /// As [`serve`](Self::serve), until `stop` is ready, such as the future of
    /// [`in_thread`]. Then the consumer is cancelled, and the requests that were
    /// delivered are answered.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub fn serve_until<H>(self, stop: impl Future<Output = ()>, handler: H) -> Result<(), Error>
    where
        H: Fn(Message) -> Result<Reply, HandlerError> + Send + Sync + 'static,
    {
        wait(self.0.serve_until(stop, on_threads(handler)))?
    }

    /// The asynchronous handle.
    #[must_use]
    pub fn into_async(self) -> amqp_driver::rpc::Server {
        self.0
    }
}

impl From<amqp_driver::rpc::Server> for Server {
    fn from(handle: amqp_driver::rpc::Server) -> Self {
        Self(handle)
    }
}

type HandlerFuture = Pin<Box<dyn Future<Output = Result<Reply, HandlerError>>>>;

/// A handler that runs each request on a thread.
fn on_threads<H>(handler: H) -> impl FnMut(Message) -> HandlerFuture
where
    H: Fn(Message) -> Result<Reply, HandlerError> + Send + Sync + 'static,
{
    let handler = Arc::new(handler);
    move |request| {
        let handler = Arc::clone(&handler);
        let running = in_thread("amqp-rpc", move || handler(request));
        Box::pin(async move {
            match running {
                Ok(running) => running.await,
                Err(error) => Err(HandlerError::new(HandlerError::INTERNAL, error.to_string())),
            }
        })
    }
}
