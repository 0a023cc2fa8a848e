//! AMQP 0-9-1 for async-std.
//!
//! [`connect`] gives a [`Connection`]; what can be done with it is described in [`amqp_client`],
//! whose types are the same for every runtime. This crate adds async-std's sockets and clock.
//!
//! ```no_run
//! use amqp_async_std::protocol::{basic, queue};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = amqp_async_std::connect("amqp://127.0.0.1").await?;
//! let channel = connection.open_channel().await?.confirm_select().await?;
//! channel.call(queue::Declare::default().queue("hello")?).await?;
//!
//! let to_hello = basic::Publish::default().routing_key("hello")?;
//! let confirm = channel
//!     .publish(&to_hello, &basic::Properties::default(), "Hello World!")
//!     .await?;
//! confirm.await?;
//!
//! let mut consumer = channel
//!     .consume(basic::Consume::default().queue("hello")?)
//!     .await?;
//! while let Some(delivery) = consumer.next().await {
//!     let delivery = delivery?;
//!     println!("{:?}", delivery.body);
//!     delivery.ack()?;
//! }
//! # Ok(()) }
//! ```
//!
//! A connection is driven by a task that is spawned with [`async_std::task::spawn`].
//!
//! async-std is discontinued upstream in favour of smol. To move there, take the crate `amqp-smol`
//! instead and change the crate's name where it is used: the functions have the same names, and the
//! handles are the same types.

#![forbid(unsafe_code)]

mod connect;
mod runtime;
#[cfg(feature = "broker")]
mod serve;

pub use amqp_client::{self, *};

#[cfg(all(feature = "broker", feature = "tls"))]
pub use self::serve::serve_tls;
#[cfg(feature = "broker")]
pub use self::serve::{LocalBroker, Server, serve};
pub use self::{
    connect::{connect, connect_with, from_stream},
    runtime::{AsyncStd, AsyncStdClock, AsyncStdStream},
};
