//! Hosts an AMQP 0-9-1 [broker] in a process, for clients with and without a socket.
//!
//! The crate is independent of a runtime. An adapter exports it with the feature `broker`, as
//! `LocalBroker`, `serve` and `serve_tls`. On any other runtime, implement [`Runtime`] for a
//! [`LocalBroker`] and [`Listener`] for [`serve`]; without a runtime, a [`SharedBroker`] provides
//! the [`BrokerDriver`] of each connection.
//!
//! [`Runtime`]: amqp_driver::io::Runtime

mod faulty;
#[cfg(feature = "futures-rustls")]
mod futures_tls;
mod identity;
mod in_process;
mod local;
mod pending_transport;
mod serve;
mod server_runtime;
mod shared;
mod socket;
#[cfg(feature = "store")]
mod store;
mod timekeeper;
#[cfg(feature = "tls")]
mod tls;
mod watch;

pub use amqp_broker as broker;

#[cfg(feature = "futures-rustls")]
pub use self::futures_tls::{FuturesTlsListener, secure_accepted_futures};
#[cfg(feature = "store")]
pub use self::store::StoreError;
#[cfg(feature = "tls")]
pub use self::tls::login::{LoginFrom, NameFunction, ServerTls, certificate_names};
pub use self::{
    identity::{Identified, Peer},
    local::LocalBroker,
    pending_transport::PendingTransport,
    serve::{Listener, Server, serve},
    server_runtime::ServerRuntime,
    shared::{BrokerDriver, BrokerEndpoint, SharedBroker},
    socket::set_accepted_options,
    timekeeper::Timekeeper,
};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
