#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod connect;
mod runtime;
#[cfg(feature = "broker")]
mod serve;

pub use amqp_driver::{self, *};
#[cfg(feature = "broker")]
pub use amqp_embedded::{self, *};

#[cfg(all(feature = "broker", feature = "tls"))]
pub use self::serve::serve_tls;
#[cfg(feature = "broker")]
pub use self::serve::{LocalBroker, Server, serve};
pub use self::{
    connect::{connect, connect_pair, connect_with, connector, from_stream},
    runtime::{Smol, SmolClock, SmolStream},
};
