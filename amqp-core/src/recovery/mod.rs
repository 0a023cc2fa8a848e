//! Recovery of a client's connection.

mod backoff;
mod bindings;
mod channel;
mod plan;
mod policy;
mod record;
mod topology;

pub use self::{
    backoff::Backoff,
    bindings::{Binding, Entity},
    channel::{Channel, ChannelMode, Consumer},
    plan::{Plan, PlanStep},
    policy::{ConnectFailure, Mode, OnConnectFailure, OnFailure, OnStepFailure, Policy, Reconnect},
    topology::{Queue, Topology},
};
