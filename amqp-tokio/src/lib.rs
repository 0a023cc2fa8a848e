#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod clock;
mod connect;
#[cfg(feature = "broker")]
mod listener;
mod runtime;
#[cfg(feature = "broker")]
mod serve;
mod stream;

pub use amqp_driver::{self, *};
#[cfg(feature = "broker")]
pub use amqp_embedded::{self, *};

pub use self::{
    clock::TokioClock,
    connect::{connect, connect_pair, connect_with, connector, from_stream},
    runtime::{Socket, Tokio},
    stream::TokioStream,
};
#[cfg(feature = "broker")]
pub use self::{
    listener::SocketListener,
    serve::{LocalBroker, Server, serve},
};
#[cfg(all(feature = "broker", feature = "tls"))]
pub use self::{listener::TlsListener, serve::serve_tls};
