//! The handles for who has no use for futures: every method that is asynchronous elsewhere blocks
//! here, under the same name and with the same arguments. What is not asynchronous is found by
//! dereferencing.
//!
//! They wrap the asynchronous handles, whatever runtime drives the connection, and can be had from
//! them and the reverse: so a thread can block on a connection that tasks use, too. `amqp-blocking`
//! makes connections that need no runtime at all.
//!
//! ```no_run
//! use amqp_driver::{blocking, protocol::queue};
//!
//! # fn example(connection: amqp_driver::Connection) -> Result<(), amqp_driver::Error> {
//! let connection = blocking::Connection::from(connection);
//! let channel = connection.open_channel()?;
//! channel.call(queue::Declare::default().queue("tasks")?)?;
//! # Ok(()) }
//! ```
//!
//! A thread that blocks runs no tasks: not in those of a runtime that are to drive the connection.

mod executor;
mod handles;
mod linger;
#[cfg(feature = "broker")]
mod local;
mod sleep;
mod thread;
mod wait;

#[cfg(feature = "broker")]
pub use self::local::{LocalBroker, Server};
pub(crate) use self::{executor::Intermittent, linger::linger};
pub use self::{
    executor::{Park, block_on, wake_after_park, with_park},
    handles::{
        BaseChannel, Channel, ChannelPool, Confirm, ConfirmChannel, ConfirmError, Connection,
        Consumer, PooledChannel, Returns, TxChannel,
    },
    sleep::Sleep,
    thread::in_thread,
    wait::{wait, within},
};
