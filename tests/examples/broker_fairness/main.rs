//! Prints how fairly a broker serves queues and connections that compete, for the embedded broker
//! and for RabbitMQ on the same machine. Ends with 1 where the embedded broker is the less fair.
//!
//! ```text
//! cargo run --release -p amqp-tests --example broker_fairness -- [--seconds 5]
//! ```

mod cases;
mod processes;
mod wire;

use std::{env, fmt, process::ExitCode, time::Duration};

use amqp_tests::{harness::Failure, rabbitmq::Node};

use self::{
    cases::{busy_and_quiet, flooded, longest_run, shares},
    processes::Broker,
};

const HELP: &str = "\
How fairly the embedded broker and RabbitMQ serve queues and connections that compete.

  --seconds S     how long a quiet connection is measured beside publishers that flood (5)
  --no-rabbitmq   the embedded broker alone
  --help          print this
";

/// The unit of times.
const MILLISECONDS: &str = "ms";

/// The numbers of publishers that flood a broker.
const PUBLISHERS: [usize; 3] = [0, 1, 4];

fn main() -> Result<ExitCode, Failure> {
    let mut arguments = env::args().skip(1);
    let (mut seconds, mut with_rabbitmq) = (5.0, true);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            processes::SERVE => return processes::serve(),
            processes::FLOOD => {
                let address = arguments.next().ok_or("the address is missing")?;
                return processes::flood(address.parse()?);
            }
            "--seconds" => seconds = arguments.next().ok_or("the seconds are missing")?.parse()?,
            "--no-rabbitmq" => with_rabbitmq = false,
            "--help" => {
                print!("{HELP}");
                return Ok(ExitCode::SUCCESS);
            }
            other => return Err(format!("unknown option {other}; see --help").into()),
        }
    }
    let time = Duration::from_secs_f64(seconds);

    let broker = Broker::start()?;
    println!("the embedded broker");
    let ours = measure(&broker, time)?;
    drop(broker);
    if !with_rabbitmq {
        return Ok(ExitCode::SUCCESS);
    }
    let node = Node::start()?;
    println!("RabbitMQ");
    let theirs = measure(&Broker::at(node.address()), time)?;
    println!("the embedded broker is");
    let mut good = true;
    for (ours, theirs) in ours.iter().zip(&theirs) {
        let excess = ours.cost - theirs.cost;
        let worse = excess > theirs.noise();
        let verdict = match worse {
            true => "WORSE",
            false if excess > 0.0 => "alike, within the noise",
            false => "as fair or fairer",
        };
        println!(
            "  {:42} {:>12} {:>12}  {verdict}",
            ours.name,
            ours.to_string(),
            theirs.to_string()
        );
        good &= !worse;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// A cost of unfairness: the less, the fairer.
struct Figure {
    name: String,
    cost: f64,
    unit: &'static str,
}

impl Figure {
    /// The difference that one measurement does not show: of a time, a slice of the scheduler, or a
    /// quarter, by which it varies from one measurement to the next.
    fn noise(&self) -> f64 {
        match self.unit {
            MILLISECONDS => (self.cost / 4.0).max(1.0),
            _ => 0.0,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} {}", self.cost, self.unit)
    }
}

/// Measures everything, and prints each figure as soon as it is known.
fn measure(broker: &Broker, time: Duration) -> Result<Vec<Figure>, Failure> {
    let mut figures = Vec::new();
    let mut put = |name: String, cost: f64, unit: &'static str, detail: String| {
        println!("  {name:42} {cost:>10.1} {unit:9} {detail}");
        figures.push(Figure { name, cost, unit });
    };

    let shares = shares(broker.address())?;
    let (least, most) = (shares.iter().min(), shares.iter().max());
    let ratio = match (least, most) {
        (Some(&least), Some(&most)) => most as f64 / (least as f64).max(1.0),
        _ => 0.0,
    };
    let name = "three queues, global prefetch of 1".to_owned();
    put(name, ratio, "ratio", format!("{shares:?}"));

    for (name, channels) in [("one channel", 1), ("a channel each", 3)] {
        let run = longest_run(broker.address(), channels)?;
        let name = format!("three queues, slow reader, {name}");
        put(name, run as f64, "in a row", String::new());
    }

    let before = busy_and_quiet(broker.address())?;
    let name = "one message beside a busy queue".to_owned();
    put(name, before as f64, "before it", String::new());

    for publishers in PUBLISHERS {
        let flooded = flooded(broker.address(), publishers, time)?;
        let detail = format!("{:.0} messages/s meanwhile", flooded.rate);
        let name = format!("a round trip beside {publishers} publishers, p50");
        put(name, millis(flooded.p50), MILLISECONDS, detail);
        let name = format!("a round trip beside {publishers} publishers, p99");
        put(name, millis(flooded.p99), MILLISECONDS, String::new());
    }
    Ok(figures)
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
