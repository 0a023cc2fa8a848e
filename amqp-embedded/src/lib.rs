//! Hosts an AMQP 0-9-1 [broker] in a process: to connect to without a socket, and to serve to others.
//!
//! This crate knows no runtime. An adapter has it under its feature `broker`, as `LocalBroker`, `serve`
//! and `serve_tls`; on a runtime of one's own a [`LocalBroker`] needs a [`Runtime`] and [`serve`] a
//! [`Listener`], and without one a [`SharedBroker`] gives out the [`BrokerDriver`] of each connection.
//!
//! [`Runtime`]: amqp_driver::io::Runtime

mod faulty;
#[cfg(feature = "futures-rustls")]
mod futures_tls;
mod hub;
mod identity;
mod local;
mod pending_transport;
mod serve;
#[cfg(feature = "tls")]
mod tls;

pub use amqp_broker as broker;

#[cfg(feature = "futures-rustls")]
pub use self::futures_tls::FuturesTlsListener;
#[cfg(feature = "tls")]
pub use self::tls::login::{LoginFrom, NameFunction, ServerTls};
pub use self::{
    hub::{BrokerDriver, BrokerEndpoint, SharedBroker, Timekeeper},
    identity::{Identified, Peer},
    local::LocalBroker,
    pending_transport::PendingTransport,
    serve::{Listener, Server, serve},
};
