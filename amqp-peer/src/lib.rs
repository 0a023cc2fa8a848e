//! Peers without a broker between them, over AMQP 0-9-1.
//!
//! Every program is a peer with a name. Some listen, some dial; once connected there is no
//! difference. Messages to a peer wait in its outbox while there is no link, survive the process if
//! they are persistent, arrive in order, and are given to the application once.
//!
//! [`machine::Machine`] is the peer as a pure state machine: no I/O, no clock, no threads.
#![forbid(unsafe_code)]
#![deny(
    missing_docs,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::unreachable,
    clippy::unwrap_used
)]

// Reports to `tracing`, or none.
#[cfg_attr(not(feature = "tracing"), path = "untraced.rs")]
mod trace;

// The machine.
mod cause;
mod config;
mod event;
mod limits;
pub mod machine;
mod message;
mod name;

// Storage.
pub mod storage;

// Drivers and runtimes.
#[cfg(feature = "async-std")]
pub mod async_std;
#[cfg(feature = "blocking")]
pub mod blocking;
mod driver;
#[cfg(feature = "smol")]
pub mod smol;
#[cfg(feature = "tokio")]
pub mod tokio;

// RPC.
pub mod rpc;

/// The state machines of AMQP. Their types occur in the interface.
pub use amqp_core as core;

pub use self::{
    cause::{DownCause, DropReason, LinkError, SendError},
    config::{
        CertificateRule, Clients, Config, ConfigError, Keepalive, Receipts, Throttle, TtlClock,
    },
    event::{Down, Dropped, LinkKey, Refused, Sender, Up},
    limits::Limits,
    machine::{LinkInfo, OutboxInfo, StoreInfo},
    message::{Message, MessageId, MessageIdError, MessageProperties},
    name::{PeerName, PeerNameError},
};

// Storage.

// Drivers and runtimes.
pub use amqp_driver;
pub use amqp_embedded::{self, ServerRuntime, broker};

pub use self::driver::{
    Connect, ConnectorId, ConnectorInfo, ConnectorState, Event, Events, Listen, ListenAddress,
    ListenError, ListenerId, Listening, NotAccepted, NotAcceptedError, Peer, PeerBroker, Received,
    Setup, StartError, Undelivered, Unreachable, UnreachableError, start_on,
};

// RPC.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
