//! The first block of code of each README of a client, run as it stands: on the embedded broker by
//! the rules of RabbitMQ 3.10 and by those of 4.3, and on RabbitMQ.

use std::{
    error::Error,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use amqp_tests::{
    Embedded,
    harness::{self, Failure, Outcome, Scenario},
};
use amqp_tokio::{broker::Rules, protocol::queue};

/// A block, as a function of the address of its broker.
type Block = fn(&str) -> Result<(), Box<dyn Error>>;

/// Declares a module with the block of each README, and lists them.
macro_rules! blocks {
    ($($readme:ident),*) => {
        $(mod $readme {
            include!(concat!(env!("OUT_DIR"), "/", stringify!($readme), ".rs"));
        })*

        const BLOCKS: &[(&str, Block)] = &[$((stringify!($readme), $readme::hello)),*];
    };
}

blocks!(
    readme,
    readme_tokio,
    readme_smol,
    readme_async_std,
    readme_blocking
);

/// The queue of all blocks.
const QUEUE: &str = "hello";

fn main() -> ExitCode {
    let mut scenarios = Vec::new();
    for &(readme, block) in BLOCKS {
        let rules = [("3_10", Rules::default()), ("4_3", Rules::rabbitmq_4())];
        for (name, rules) in rules {
            let name = format!("{readme}::runs_by_the_rules_of_{name}");
            scenarios.push(Scenario::local(name, move || {
                let broker = Embedded::start_with(|config| config.rules = rules)?;
                run(block, &broker.uri())
            }));
        }
        let name = format!("{readme}::runs_on_rabbitmq");
        scenarios.push(Scenario::shared(name, move |broker| {
            run(block, &broker.uri)
        }));
    }
    harness::run(scenarios)
}

/// How long RabbitMQ may count a consumer after the close of its connection.
const GONE: Duration = Duration::from_secs(10);

/// Runs a block, and looks at its queue after it.
///
/// A quorum queue of RabbitMQ learns of the end of a channel from a monitor, which close-ok does
/// not wait for; what the consumer had not acknowledged is ready again once it is counted no more.
fn run(block: Block, url: &str) -> Outcome {
    block(url).map_err(|error| Failure::from(error.to_string()))?;
    let connection = amqp_blocking::connect(url)?;
    let channel = connection.open_channel()?;
    let looked = queue::Declare::default().queue(QUEUE).passive(true);
    let closed = Instant::now();
    let mut hello = channel.call(looked.clone())?;
    while hello.consumer_count > 0 && closed.elapsed() < GONE {
        thread::sleep(Duration::from_millis(10));
        hello = channel.call(looked.clone())?;
    }
    assert_eq!((hello.message_count, hello.consumer_count), (0, 0));
    connection.close()?;
    Ok(())
}
