//! What the tests of the AMQP crates share: a RabbitMQ of their own, [`rabbitmq`], what runs scenarios
//! on it, [`harness`], and the [`scenarios`] themselves, which are written once and run on every
//! [`Runtime`].
//!
//! The tests are meant for `cargo test`, which runs all scenarios of a file in one process, so that
//! they share one broker. A runner that starts a process per test would start a broker per test.

mod context;
pub mod differential;
pub mod harness;
pub mod rabbitmq;
mod relay;
mod runtime;
pub mod scenarios;
mod task;

pub use self::{
    context::Ctx,
    relay::{Relay, Traffic},
    runtime::{Boxed, Configure, Runtime, Tokio},
    task::{Panicked, Task},
};
