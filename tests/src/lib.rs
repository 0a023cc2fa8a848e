//! The common parts of the tests of the AMQP crates: a RabbitMQ of their own, [`rabbitmq`], an
//! [`Embedded`] broker, the runner of scenarios, [`harness`], and the [`scenarios`] themselves,
//! which are written once and run on each broker with every [`Runtime`].
//!
//! The tests are meant for `cargo test`, which runs all scenarios of a file in one process, so that
//! they share one broker. A runner that starts a process per test would start a broker per test.

mod certificates;
mod context;
pub mod differential;
pub mod documents;
mod embedded;
pub mod fairness;
pub mod harness;
mod lifecycle;
mod operator;
pub mod rabbitmq;
mod relay;
mod runtime;
pub mod scenarios;
mod table;
mod task;

/// The code of the README compiles.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;

pub use self::{
    certificates::{Certificates, Clients},
    context::Ctx,
    embedded::Embedded,
    operator::Operator,
    relay::{Relay, Traffic},
    runtime::{AsyncStd, Blocking, Boxed, Configure, Runtime, Smol, Tokio},
    task::{Panicked, Task},
};
