//! Recovery on a real RabbitMQ: publishers and consumers go on through random faults, and each
//! message is accounted for; in a long run, memory, descriptors and threads too.
//!
//! ```text
//! cargo run --release -p amqp-tests --example recovery -- --faults 300 --seed 1
//! cargo run --release -p amqp-tests --example recovery -- --minutes 60 --plot soak.svg
//! ```

mod cluster;
mod consumer;
mod events;
mod faults;
mod ledger;
mod load;
mod options;
mod plot;
mod publisher;
mod report;
mod run;
mod samples;
mod storm;
mod topology;

use std::process::ExitCode;

use self::options::{HELP, Mode, Options};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let outcome = options::parse().and_then(|options| match options {
        Some(options) => show(&options),
        None => {
            print!("{HELP}");
            Ok(true)
        }
    });
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("recovery: a check has failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("recovery: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Shows the wanted thing. Returns whether all checks hold.
fn show(options: &Options) -> Result<bool> {
    match options.mode {
        Mode::Faults(length) => faults::run(options, length),
        Mode::Cluster(count) => cluster::run(options, count),
        Mode::Topology(count) => topology::run(options, count),
        Mode::Storm(count) => storm::run(options, count),
        Mode::Events => events::run(options),
    }
}
