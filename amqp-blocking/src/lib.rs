//! AMQP 0-9-1 without an async runtime: calls that block, on plain threads.
//!
//! [`connect`] gives a [`Connection`]. The handles are those of [`amqp_client::blocking`]: what is
//! asynchronous in [`amqp_client`] blocks here, under the same name and with the same arguments. What
//! is not is found by dereferencing, such as [`Channel::ack`](amqp_client::Channel::ack).
//!
//! ```no_run
//! use amqp_blocking::protocol::{basic, queue};
//!
//! # fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = amqp_blocking::connect("amqp://127.0.0.1")?;
//! let channel = connection.open_channel()?.confirm_select()?;
//! channel.call(queue::Declare::default().queue("hello")?)?;
//!
//! let to_hello = basic::Publish::default().routing_key("hello")?;
//! let confirm = channel.publish(&to_hello, &basic::Properties::default(), "Hello World!")?;
//! confirm.wait()?;
//!
//! let consumer = channel.consume(basic::Consume::default().queue("hello")?)?;
//! for delivery in consumer {
//!     let delivery = delivery?;
//!     println!("{:?}", delivery.body);
//!     delivery.ack()?;
//! }
//! # Ok(()) }
//! ```
//!
//! # Threads
//!
//! Each connection has one thread, called `amqp`, which writes, reads and keeps the time: whatever the
//! callers do meanwhile, heartbeats are sent, and two peers that both write do not wait for each
//! other. It ends when the connection has, and takes four file descriptors: the socket, and three to
//! wait for it and for commands.
//!
//! # Time
//!
//! A request that is not answered fails after [`Timeouts::request`](amqp_client::core::Timeouts).
//! [`within`] sets a limit to whatever calls: a request, a confirm, the next delivery, connecting.
//!
//! # No threads at all
//!
//! [`select`] has a client for programs with a `select` or `poll` loop of their own, which has no
//! threads and does not block.

#![forbid(unsafe_code)]

mod connect;
mod reactor;
mod runtime;
pub mod select;
#[cfg(feature = "broker")]
mod serve;
mod stream;

pub use amqp_client::blocking::{
    Channel, ChannelPool, Confirm, ConfirmChannel, ConfirmError, Connection, Consumer,
    PooledChannel, Returns, TxChannel, block_on, within,
};
pub use amqp_client::{self, *};

#[cfg(all(feature = "broker", feature = "tls"))]
pub use self::serve::serve_tls;
#[cfg(feature = "broker")]
pub use self::serve::{LocalBroker, Server, serve};
pub use self::{
    connect::{connect, connect_with, from_stream},
    runtime::{Blocking, BlockingClock},
    stream::{BlockingSocket, BlockingStream},
};
