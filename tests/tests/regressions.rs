//! What once broke a mature client, on RabbitMQ.

use std::process::ExitCode;

use amqp_tests::{
    harness,
    scenarios::{self, RUNTIMES, on},
};

fn main() -> ExitCode {
    harness::run(on(&RUNTIMES, &scenarios::regressions()))
}
