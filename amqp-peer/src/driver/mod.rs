//! The peer on a runtime: one lock around the machine, the tasks that drive it, and the handles.

mod backoff;
mod broker;
mod connector;
mod deliver;
mod endpoint;
mod events;
mod inbox;
mod keeper;
mod listener;
mod peer;
mod queue;
mod received;
mod rpc_port;
mod runner;
mod send;
mod setup;
mod shared;
mod state;
mod storing;
mod waiters;

pub use self::{
    broker::PeerBroker,
    connector::{Connect, ConnectorId, ConnectorInfo, ConnectorState},
    deliver::Undelivered,
    events::{Event, Events, NotAccepted, NotAcceptedError, Unreachable, UnreachableError},
    listener::{Listen, ListenAddress, ListenError, ListenerId, Listening},
    peer::Peer,
    received::Received,
    runner::start_on,
    setup::{Setup, StartError},
};
