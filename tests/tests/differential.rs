//! Random programs, on RabbitMQ and on the embedded broker.
//!
//! For more of them: `cargo run --release -p amqp-tests --example differential -- --help`.

use std::{future::Future, process::ExitCode};

use amqp_tests::{
    Embedded,
    differential::{
        compare::{Options, Pair, compare},
        kept::kept,
        policies,
    },
    harness::{self, Broker, Outcome, Scenario},
};

/// How many random programs run here.
const PROGRAMS: u64 = 200;

/// How many of them RabbitMQ alone runs, twice.
const OF_RABBITMQ: u64 = 40;

/// How often a program of the past runs until the brokers agree. RabbitMQ has some effects in its own
/// time, on a busy machine later than the trace looks for them.
const ATTEMPTS: usize = 5;

fn main() -> ExitCode {
    harness::run(vec![
        Scenario::shared("rabbitmq_agrees_with_itself", rabbitmq_agrees_with_itself),
        Scenario::shared("brokers_agree", brokers_agree),
        Scenario::shared("brokers_agree_with_policies", brokers_agree_with_policies),
        Scenario::shared(
            "brokers_agree_where_they_did_not",
            brokers_agree_where_they_did_not,
        ),
    ])
}

/// The generator keeps to behaviour that RabbitMQ determines, and the traces leave out the rest:
/// otherwise a difference would mean nothing.
fn rabbitmq_agrees_with_itself(broker: Broker) -> Outcome {
    let mut options = Options::new(broker.uri.clone(), broker.uri);
    options.programs = OF_RABBITMQ;
    wait_for(async move { agreed(&options).await })
}

fn brokers_agree(broker: Broker) -> Outcome {
    let embedded = Embedded::start()?;
    wait_for(async move {
        let mut options = Options::new(broker.uri, embedded.uri());
        options.programs = PROGRAMS;
        agreed(&options).await
    })
}

/// The policies are written by the embedded broker's crate, and imported by both brokers.
fn brokers_agree_with_policies(broker: Broker) -> Outcome {
    let embedded = Embedded::start()?;
    policies::set_at_rabbitmq(&broker.node, &broker.vhost)?;
    policies::set_at_embedded(&embedded)?;
    wait_for(async move {
        let mut options = Options::new(broker.uri, embedded.uri());
        options.programs = PROGRAMS;
        options.policies = true;
        agreed(&options).await
    })
}

fn brokers_agree_where_they_did_not(broker: Broker) -> Outcome {
    let embedded = Embedded::start()?;
    wait_for(async move {
        let mut pair = Pair::new(&broker.uri, &embedded.uri(), "kept");
        for (name, program) in kept() {
            let mut attempts = 0;
            while let Some(difference) = pair.run(&program).await? {
                attempts += 1;
                if attempts == ATTEMPTS {
                    return Err(format!("{name}: {difference}").into());
                }
            }
        }
        Ok(())
    })
}

async fn agreed(options: &Options) -> Outcome {
    let report = compare(options, |_| ()).await?;
    if report.differences.is_empty() {
        // A race within RabbitMQ that the generator does not avoid is no fault of either broker.
        println!("{report}");
        return Ok(());
    }
    Err(report.to_string().into())
}

fn wait_for(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
