//! What the users of other libraries rely on, and what once broke a mature client: each scenario on
//! RabbitMQ and on the embedded broker.

use std::process::ExitCode;

use amqp_tests::{
    harness,
    scenarios::{self, RUNTIMES, on},
};

fn main() -> ExitCode {
    harness::run(on(&RUNTIMES, &scenarios::all()))
}
