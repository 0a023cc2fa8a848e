//! Remote procedure calls over a broker.
//!
//! A [`Client`] publishes requests and matches the replies to them, by direct reply-to or over a
//! queue. A [`Server`] consumes requests, runs a handler for each, and publishes the replies.
//!
//! ```no_run
//! use amqp_driver::{
//!     Connection,
//!     protocol::{basic, queue},
//!     publishing::OutgoingMessage,
//!     rpc::{Client, ClientOptions, HandlerError, Reply, Server},
//! };
//! use std::time::Duration;
//!
//! # async fn example(connection: Connection) -> Result<(), Box<dyn std::error::Error>> {
//! # let spawn = |_| ();
//! let channel = connection.open_channel().await?;
//! channel.call(queue::Declare::default().queue("upper")).await?;
//! let server = Server::open(channel, basic::Consume::default().queue("upper"), 8).await?;
//! spawn(server.serve(async |request| match String::from_utf8(request.body.to_vec()) {
//!     Ok(text) => Ok(Reply::new(text.to_uppercase())),
//!     Err(error) => Err(HandlerError::new(400, error.to_string())),
//! }));
//!
//! let client = Client::direct(connection.open_channel().await?, ClientOptions::default()).await?;
//! let to_upper = basic::Publish::default().routing_key("upper");
//! let request = OutgoingMessage::new(to_upper, "hello");
//! let reply = client.call(request, Duration::from_secs(5)).await?;
//! assert_eq!(reply.body, "HELLO");
//! # Ok(()) }
//! ```
//!
//! # On the wire
//!
//! A request is mandatory, and has the properties `reply-to`, `correlation-id` and, unless it is set,
//! `expiration`: the time that the caller waits. A reply has the `correlation-id` of its request. The
//! reply of a handler that has failed has an empty body and the headers `rpc-error-code`, an integer,
//! and `rpc-error-text`. Either side works with other programs that follow [RabbitMQ's
//! page](https://www.rabbitmq.com/docs/direct-reply-to).

mod calls;
mod client;
mod error;
mod reply;
mod server;

pub use self::{
    client::{Client, ClientOptions},
    error::{HandlerError, RpcError},
    reply::Reply,
    server::Server,
};
