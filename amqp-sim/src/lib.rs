#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod actions;
mod alarms;
mod cancellation;
mod check;
mod clock;
mod disk;
mod executor;
mod fault;
mod faults;
mod flow;
mod network;
mod node;
pub mod oracle;
mod outcome;
mod panics;
mod random;
mod runtime;
mod sim;
mod stream;
mod trace;
mod turns;
mod world;

pub use amqp_driver::{self, Connector, Options};
pub use amqp_embedded::{self, broker};

pub use self::{
    cancellation::Cancellation,
    check::{Check, Failure, Summary, check},
    clock::SimClock,
    fault::{Direction, Fault, Link, Step},
    faults::{FaultKind, Faults},
    node::Node,
    outcome::Outcome,
    random::Random,
    runtime::SimRuntime,
    sim::Sim,
    stream::SimStream,
    trace::Trace,
};
