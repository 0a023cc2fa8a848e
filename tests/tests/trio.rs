//! What trio_amqp's users rely on, and RabbitMQ's tutorials, on RabbitMQ.

use std::process::ExitCode;

use amqp_tests::{
    harness,
    scenarios::{self, RUNTIMES, on},
};

fn main() -> ExitCode {
    harness::run(on(&RUNTIMES, &scenarios::trio()))
}
