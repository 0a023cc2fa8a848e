//! AMQP 0-9-1 for tokio.
//!
//! [`connect`] gives a [`Connection`]; what can be done with it is described in [`amqp_client`],
//! whose types are the same for every runtime. This crate adds tokio's sockets and clock.
//!
//! ```no_run
//! use amqp_tokio::protocol::{basic, queue};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = amqp_tokio::connect("amqp://127.0.0.1").await?;
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

#![forbid(unsafe_code)]

mod clock;
mod connect;
mod runtime;
#[cfg(feature = "broker")]
mod serve;
mod stream;

pub use amqp_client::{self, *};

#[cfg(all(feature = "broker", feature = "tls"))]
pub use self::serve::serve_tls;
#[cfg(feature = "broker")]
pub use self::serve::{LocalBroker, Server, serve};
pub use self::{
    clock::TokioClock,
    connect::{connect, connect_with, from_stream},
    runtime::{Socket, Tokio},
    stream::TokioStream,
};
