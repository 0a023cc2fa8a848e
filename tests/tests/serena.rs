//! What Serena's users rely on, on RabbitMQ.

use std::process::ExitCode;

use amqp_tests::{
    harness,
    scenarios::{self, RUNTIMES, on},
};

fn main() -> ExitCode {
    harness::run(on(&RUNTIMES, &scenarios::serena()))
}
