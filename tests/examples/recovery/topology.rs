//! The recovery of a large topology.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use amqp_tests::{Relay, rabbitmq::Node};
use amqp_tokio::{
    BaseChannel, Channel, Connection, connect_with,
    core::dial::Address,
    protocol::{basic, exchange, queue},
    recovery::{RecoveryEvent, Report},
};
use tokio::{runtime::Runtime, time};

use crate::{
    Result,
    load::{Settings, options as recovering},
    options::Options,
    report::seconds,
};

/// The number of channels that the consumers are on.
const CHANNELS: usize = 10;

/// The number of requests between two replies.
const BATCH: usize = 200;

/// The longest time of a recovery, and of the declarations before it.
const PATIENCE: Duration = Duration::from_secs(300);

const EXCHANGE: &str = "recovery";

/// Recovers durable queues, and then queues that the broker deletes with the connection. Returns
/// whether all checks hold.
pub(crate) fn run(options: &Options, count: usize) -> Result<bool> {
    eprintln!("starting a RabbitMQ");
    let node = Node::start()?;
    let relay = Relay::start(node.address())?;
    let settings = Settings {
        addresses: vec![Address::tcp("127.0.0.1", relay.address().port())],
        queue_type: "classic",
        seed: options.seed,
        interval: Duration::ZERO,
    };
    println!(
        "{count} queues, {count} bindings and {} consumers on {CHANNELS} channels",
        count / 10
    );
    let mut good = true;
    for (name, exclusive) in [("durable queues", false), ("exclusive queues", true)] {
        let case = async {
            let connection = connect_with(&recovering(&settings, 0)).await?;
            let recovered = recover(&connection, &relay, count, exclusive).await;
            connection.close().await?;
            recovered
        };
        let recovered = async { time::timeout(PATIENCE, case).await };
        let recovered = Runtime::new()?.block_on(recovered);
        let recovered = recovered.map_err(|_| format!("{name}: not done in {PATIENCE:?}"))??;
        println!("{name}: {recovered}");
        good &= recovered.holds();
    }
    Ok(good)
}

/// The measurements of a recovery.
struct Recovered {
    declared_in: Duration,
    /// The time from the cut until each consumer had a message.
    worked_after: Duration,
    report: Report,
    /// Whether the topology is recorded as before.
    is_same: bool,
}

impl Recovered {
    fn holds(&self) -> bool {
        self.report.failures.is_empty() && self.is_same
    }
}

impl std::fmt::Display for Recovered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            declared_in,
            worked_after,
            report,
            is_same,
        } = self;
        let rate = report.steps as f64 / report.took.as_secs_f64();
        write!(
            f,
            "declared in {}; recovered {report}, {rate:.0} steps/s; each consumer had a message {} \
             after the cut",
            seconds(*declared_in),
            seconds(*worked_after)
        )?;
        if !is_same {
            write!(f, "; THE TOPOLOGY DIFFERS")?;
        }
        Ok(())
    }
}

async fn recover(
    connection: &Connection,
    relay: &Relay,
    count: usize,
    exclusive: bool,
) -> Result<Recovered> {
    let begun = Instant::now();
    let publishing = connection.open_channel().await?;
    declare(&publishing, count, exclusive).await?;
    let received = Arc::new(AtomicUsize::new(0));
    let channels = consume(connection, count / 10, exclusive, &received).await?;
    let declared_in = begun.elapsed();
    let before = connection.topology();

    let mut events = connection.recovery_events();
    let cut_at = Instant::now();
    relay.cut();
    let (mut is_lost, mut shown) = (false, 0);
    let report = loop {
        match events.next().await.map(|change| change.event) {
            Some(RecoveryEvent::Lost(_)) => is_lost = true,
            Some(RecoveryEvent::Recovered(report)) if is_lost => break report,
            Some(RecoveryEvent::Recovering { done, of }) if done >= shown => {
                eprintln!("{done} of {of} steps");
                shown = done + of / 10;
            }
            Some(_) => {}
            None => return Err("the connection has ended".into()),
        }
    };
    for number in 0..count / 10 {
        let publish = basic::Publish::default().exchange(EXCHANGE);
        let publish = publish.routing_key(name(number, exclusive));
        let properties = basic::Properties::default();
        publishing.publish(&publish, &properties, "work").await?;
    }
    while received.load(SeqCst) < count / 10 {
        time::sleep(Duration::from_millis(1)).await;
    }
    let worked_after = cut_at.elapsed();
    let is_same = connection.topology() == before;
    drop(channels);
    Ok(Recovered {
        declared_in,
        worked_after,
        report,
        is_same,
    })
}

fn name(number: usize, exclusive: bool) -> String {
    let kind = if exclusive { "exclusive" } else { "durable" };
    format!("{kind}-{number:05}")
}

/// Declares the queues, and binds each with its name.
async fn declare(channel: &BaseChannel, count: usize, exclusive: bool) -> Result {
    let exchange = exchange::Declare::default().exchange(EXCHANGE);
    channel.call(exchange.kind("direct").durable(true)).await?;
    for number in 0..count {
        let name = name(number, exclusive);
        let declare = queue::Declare::default().queue(name.as_str());
        let declare = declare.durable(!exclusive).exclusive(exclusive);
        let bind = queue::Bind::default().queue(name.as_str());
        let bind = bind.exchange(EXCHANGE).routing_key(name);
        channel.send(&declare)?;
        if number % BATCH == BATCH - 1 || number == count - 1 {
            channel.call(bind).await?;
            if (number + 1) % 1000 == 0 {
                eprintln!("{} of {count} queues declared", number + 1);
            }
        } else {
            channel.send(&bind)?;
        }
    }
    Ok(())
}

/// Starts consumers on the first queues. Returns their channels.
async fn consume(
    connection: &Connection,
    count: usize,
    exclusive: bool,
    received: &Arc<AtomicUsize>,
) -> Result<Vec<Channel>> {
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(connection.open_channel().await?);
    }
    for number in 0..count {
        let consume = basic::Consume::default().queue(name(number, exclusive));
        let mut consumer = channels[number % CHANNELS].consume(consume).await?;
        let received = Arc::clone(received);
        tokio::spawn(async move {
            while let Some(Ok(delivery)) = consumer.next().await {
                if delivery.acker.ack().is_ok() {
                    received.fetch_add(1, SeqCst);
                }
            }
        });
    }
    Ok(channels)
}
