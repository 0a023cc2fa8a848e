//! AMQP 0-9-1 for smol.
//!
//! [`connect`] gives a [`Connection`]; what can be done with it is described in [`amqp_client`],
//! whose types are the same for every runtime. This crate adds smol's sockets and clock.
//!
//! ```no_run
//! use amqp_smol::protocol::{basic, queue};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let connection = amqp_smol::connect("amqp://127.0.0.1").await?;
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
//! # Executors
//!
//! A connection is driven by a task. The functions of this crate spawn it with [`smol::spawn`], on
//! the global executor that comes with smol: one thread of its own, or `SMOL_THREADS` of them. So a
//! connection lives on while the program does something else, or blocks the thread that it is in.
//!
//! Whoever runs an executor of his own says with [`Smol::spawning`] where the tasks go, and gives that
//! to the functions of [`amqp_client`] that take a runtime. The connection is then driven only while
//! that executor runs.

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
    runtime::{Smol, SmolClock, SmolStream},
};
