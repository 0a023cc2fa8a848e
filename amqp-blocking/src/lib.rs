#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod connect;
mod consuming;
mod executor;
mod handles;
mod linger;
#[cfg(feature = "broker")]
mod listener;
#[cfg(feature = "broker")]
mod local;
mod pair;
pub mod publishing;
mod reactor;
mod requests;
pub mod rpc;
mod runtime;
pub mod select;
#[cfg(feature = "broker")]
mod serve;
mod sleep;
mod stream;
mod streams;
mod thread;
mod wait;

pub use amqp_driver::{self, *};
#[cfg(feature = "broker")]
pub use amqp_embedded::{self, *};

pub use self::{
    connect::{connect, connect_with, from_stream},
    consuming::{ConsumerGroup, ForEach, Stopper},
    executor::block_on,
    handles::{
        BaseChannel, Channel, ChannelPool, ConfirmChannel, Connection, PooledChannel, TxChannel,
    },
    pair::{ConnectionPair, connect_pair},
    runtime::{Blocking, BlockingClock},
    stream::{BlockingSocket, BlockingStream},
    streams::{Confirm, ConfirmError, Consumer, Returns},
    thread::in_thread,
    wait::{wait, within},
};
#[cfg(feature = "broker")]
pub use self::{
    listener::SocketListener,
    local::{LocalBroker, Server},
    serve::serve,
};
#[cfg(all(feature = "broker", feature = "tls"))]
pub use self::{listener::TlsListener, serve::serve_tls};
