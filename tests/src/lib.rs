//! What the tests of the AMQP crates share: a RabbitMQ of their own, [`rabbitmq`], and what runs
//! scenarios on it, [`harness`].
//!
//! The tests are meant for `cargo test`, which runs all scenarios of a file in one process, so that
//! they share one broker. A runner that starts a process per test would start a broker per test.

pub mod harness;
pub mod rabbitmq;
