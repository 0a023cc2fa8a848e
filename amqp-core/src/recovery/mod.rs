//! Recovery of a client's connection.
//!
//! [`Recovery`] is the state machine: it records the [`Topology`] of a connection while that lives,
//! says when to connect again, and restores the topology on the next connection by a [`Plan`]. The
//! [`Policy`] has its settings, [`RecoveryEvent`] is its output.

mod advance;
mod backoff;
mod bindings;
mod channel;
mod difference;
mod event;
mod failure;
mod machine;
mod plan;
mod policy;
mod reactions;
mod record;
mod replay;
#[cfg(feature = "serde")]
mod serial;
mod topology;
mod track;

pub use self::{
    backoff::Backoff,
    bindings::{Binding, Entity},
    channel::{Channel, ChannelMode, Consumer},
    difference::Difference,
    event::{Failure, FailureReason, GiveUp, RecoveryEvent, Report, TimedEvent},
    machine::{Recovery, Step},
    plan::{Plan, PlanStep},
    policy::{ConnectFailure, Mode, OnConnectFailure, OnFailure, OnStepFailure, Policy, Reconnect},
    topology::{Queue, Topology},
};
