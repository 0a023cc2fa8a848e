//! The embedded broker and its clients in one process, without sockets: the setting of an
//! application's tests.

use std::time::Instant;

use amqp_tokio::{
    Config, ConfirmChannel, Connection, LocalBroker,
    protocol::{basic, queue},
};
use tokio::{runtime::Builder, time::sleep};

use crate::{
    Result, allocator,
    clock::{Sample, Stopwatch},
    load::{ACK_EVERY, BODY, IN_FLIGHT},
    memory::REST,
    stats::Series,
};

/// How many connections a broker has in the measurement of many, and how many channels each.
const CONNECTIONS: usize = 1000;
const CHANNELS_EACH: usize = 10;

/// After how many messages memory is looked at first, and last.
const FEW: u64 = 100_000;
const MANY: u64 = 1_000_000;

/// How many unit tests run before they are timed, and how many then.
const WARM_UP: u32 = 100;
const TESTS: u32 = 1000;

/// The results.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    /// The memory of 1,000 idle connections with 10,000 channels, in MiB: both ends, with all that
    /// drives them.
    pub(crate) fleet: f64,
    /// How much more is held after a million messages than after the first 100,000, in KiB.
    pub(crate) growth: f64,
    /// How long a unit test with a broker, a client, a queue and a confirmed message takes, in
    /// microseconds.
    pub(crate) unit_test: Series,
}

pub(crate) fn figures() -> Result<Figures> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    Ok(Figures {
        fleet: runtime.block_on(fleet())?,
        growth: runtime.block_on(growth())?,
        unit_test: runtime.block_on(unit_tests())?,
    })
}

/// Messages through a queue, from a client of the broker and back to it.
pub(crate) async fn round(count: u64) -> Result<Sample> {
    let broker = LocalBroker::default();
    let (_connection, channel) = open(&broker).await?;
    let watch = Stopwatch::start();
    pass(&channel, count).await?;
    Ok(watch.stop(count))
}

async fn open(broker: &LocalBroker) -> Result<(Connection, ConfirmChannel)> {
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue("q");
    channel.call(declare).await?;
    Ok((connection, channel))
}

/// Publishes and consumes, with confirms and acknowledgements, never more than a few at a time.
async fn pass(channel: &ConfirmChannel, count: u64) -> Result<()> {
    let consume = basic::Consume::default().queue("q");
    let mut consumer = channel.consume(consume).await?;
    let publish = basic::Publish::default().routing_key("q").mandatory(true);
    let properties = basic::Properties::default();
    let mut left = count;
    while left > 0 {
        let batch = left.min(IN_FLIGHT as u64);
        let mut confirms = Vec::with_capacity(IN_FLIGHT);
        for _ in 0..batch {
            confirms.push(channel.publish(&publish, &properties, &BODY).await?);
        }
        for number in 1..=batch {
            let delivery = consumer.next().await.ok_or("the consumer ended")??;
            if number % ACK_EVERY == 0 || number == batch {
                delivery.acker.ack_up_to()?;
            }
        }
        for confirm in confirms {
            confirm.await?;
        }
        left -= batch;
    }
    consumer.cancel().await?;
    Ok(())
}

/// The memory of many idle connections, in MiB.
async fn fleet() -> Result<f64> {
    eprintln!("{CONNECTIONS} connections of the embedded broker");
    let broker = LocalBroker::default();
    let first = open(&broker).await?;
    allocator::start();
    let mut held = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        let connection = broker.connect(Config::default()).await?;
        let mut channels = Vec::with_capacity(CHANNELS_EACH);
        for _ in 0..CHANNELS_EACH {
            channels.push(connection.open_channel().await?);
        }
        held.push((connection, channels));
    }
    sleep(REST).await;
    let live = allocator::stop().live as f64;
    let inspection = broker.inspect();
    let channels = inspection.connections.iter().map(|it| it.channels.len());
    let counted = (inspection.connections.len(), channels.sum::<usize>());
    // The first one has a channel, too.
    if counted != (CONNECTIONS + 1, CONNECTIONS * CHANNELS_EACH + 1) {
        return Err(format!("the broker has {counted:?} connections and channels").into());
    }
    drop((first, held));
    Ok(live / f64::from(1 << 20))
}

/// How much more is held after many messages than after a few, in KiB.
async fn growth() -> Result<f64> {
    eprintln!("{MANY} messages through the embedded broker");
    let broker = LocalBroker::default();
    let (_connection, channel) = open(&broker).await?;
    allocator::start();
    pass(&channel, FEW).await?;
    sleep(REST).await;
    let few = allocator::counted().live;
    pass(&channel, MANY - FEW).await?;
    sleep(REST).await;
    let many = allocator::stop().live;
    Ok((many - few) as f64 / 1024.0)
}

/// How long each of many unit tests takes, in microseconds.
async fn unit_tests() -> Result<Series> {
    eprintln!("unit tests on the embedded broker");
    for _ in 0..WARM_UP {
        unit_test().await?;
    }
    let mut times = Series::default();
    for _ in 0..TESTS {
        let begun = Instant::now();
        unit_test().await?;
        times.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(times)
}

/// A broker, a client, a queue, and a confirmed message.
async fn unit_test() -> Result<()> {
    let broker = LocalBroker::default();
    let (connection, channel) = open(&broker).await?;
    let publish = basic::Publish::default().routing_key("q").mandatory(true);
    let confirm = channel
        .publish(&publish, &basic::Properties::default(), &BODY)
        .await?;
    confirm.await?;
    let ready = broker.inspect().queue("q").map(|queue| queue.ready);
    if ready != Some(1) {
        return Err(format!("there are {ready:?} messages in the queue").into());
    }
    connection.close().await?;
    Ok(())
}
