//! Scenarios that the users of other libraries rely on, and that once broke a mature client: each
//! on RabbitMQ and on the embedded broker.

use std::process::ExitCode;

use amqp_tests::{
    harness,
    scenarios::{self, RUNTIMES, on},
};

fn main() -> ExitCode {
    harness::run(on(&RUNTIMES, &scenarios::all()))
}
