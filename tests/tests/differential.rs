//! Random programs, on RabbitMQ and on the embedded broker.
//!
//! For more of them: `cargo run --release -p amqp-tests --example differential -- --help`.

use std::{future::Future, process::ExitCode};

use amqp_tests::{
    differential::{
        compare::{Options, Pair, compare},
        kept::kept,
    },
    harness::{self, Broker, Outcome, Scenario},
};
use amqp_tokio::{LocalBroker, Server, serve};
use tokio::net::TcpListener;

/// How many random programs run here.
const PROGRAMS: u64 = 200;

/// How many of them RabbitMQ alone runs, twice.
const OF_RABBITMQ: u64 = 40;

fn main() -> ExitCode {
    harness::run(vec![
        Scenario::shared("rabbitmq_agrees_with_itself", rabbitmq_agrees_with_itself),
        Scenario::shared("brokers_agree", brokers_agree),
        Scenario::shared(
            "brokers_agree_where_they_did_not",
            brokers_agree_where_they_did_not,
        ),
    ])
}

/// The generator keeps to what RabbitMQ determines, and the traces leave out the rest: otherwise a
/// difference would mean nothing.
fn rabbitmq_agrees_with_itself(broker: Broker) -> Outcome {
    let mut options = Options::new(broker.uri.clone(), broker.uri);
    options.programs = OF_RABBITMQ;
    wait_for(async move { agreed(&options).await })
}

fn brokers_agree(broker: Broker) -> Outcome {
    wait_for(async move {
        let embedded = embedded().await?;
        let mut options = Options::new(broker.uri, uri(&embedded));
        options.programs = PROGRAMS;
        agreed(&options).await
    })
}

fn brokers_agree_where_they_did_not(broker: Broker) -> Outcome {
    wait_for(async move {
        let embedded = embedded().await?;
        let mut pair = Pair::new(&broker.uri, &uri(&embedded), "kept");
        for (name, program) in kept() {
            if let Some(difference) = pair.run(&program).await? {
                return Err(format!("{name}: {difference}").into());
            }
        }
        Ok(())
    })
}

async fn agreed(options: &Options) -> Outcome {
    let report = compare(options, |_| ()).await?;
    if report.differences.is_empty() {
        // A race within RabbitMQ that the generator does not avoid is no fault of anybody's.
        println!("{report}");
        return Ok(());
    }
    Err(report.to_string().into())
}

/// The embedded broker, for who comes over TCP as to any other.
async fn embedded() -> std::io::Result<Server> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    serve(listener, LocalBroker::default())
}

fn uri(embedded: &Server) -> String {
    format!("amqp://{}", embedded.local_addr())
}

fn wait_for(work: impl Future<Output = Outcome>) -> Outcome {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(work)
}
