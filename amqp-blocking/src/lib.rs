#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod connect;
mod reactor;
mod runtime;
pub mod select;
#[cfg(feature = "broker")]
mod serve;
mod stream;

pub use amqp_driver::blocking::{
    BaseChannel, Channel, ChannelPool, Confirm, ConfirmChannel, ConfirmError, Connection, Consumer,
    PooledChannel, Returns, TxChannel, block_on, within,
};
pub use amqp_driver::{self, *};

#[cfg(all(feature = "broker", feature = "tls"))]
pub use self::serve::serve_tls;
#[cfg(feature = "broker")]
pub use self::serve::{LocalBroker, Server, serve};
pub use self::{
    connect::{connect, connect_with, from_stream},
    runtime::{Blocking, BlockingClock},
    stream::{BlockingSocket, BlockingStream},
};
