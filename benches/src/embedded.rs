//! The embedded broker and its clients in one process, without sockets: the setting of an
//! application's tests.

use std::{fs, time::Instant};

use amqp_tokio::{
    Channel, Config, ConfirmChannel, Connection, LocalBroker, broker,
    protocol::{basic, exchange, queue},
};
use bytes::Bytes;
use tokio::{runtime::Builder, time::sleep};

use crate::{
    Result, allocator,
    clock::{Sample, Stopwatch},
    fleet::Fleet,
    load::{ACK_EVERY, BODY, ENDED, IN_FLIGHT, Load, Shape, check},
    memory::REST,
    stats::Series,
};

/// The connections of an application's tests, and how many channels each has.
const CONNECTIONS: u32 = 1000;
const CHANNELS_EACH: u32 = 10;

/// The connections of the measurement of many, with a channel each.
const MANY_CONNECTIONS: u32 = 5000;

/// How many messages are queued.
const QUEUED: u64 = 1_000_000;

/// The memory of one beside its body, at most, in bytes.
const ROOM: u64 = 1024;

/// The memory that a broker may have for them: they all fit.
const MEMORY: usize = 4 << 30;

/// How many queues are bound to the exchange that routes; one has the messages.
const BOUND: usize = 10;

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

/// The memory of messages in a queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Queued {
    pub(crate) name: &'static str,
    /// Bytes per message beside its body, in the whole process: its publisher is at rest.
    pub(crate) overhead: f64,
}

pub(crate) fn figures() -> Result<Figures> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    eprintln!("{CONNECTIONS} connections of the embedded broker");
    let fleet = runtime.block_on(fleet(CONNECTIONS, CHANNELS_EACH))?;
    Ok(Figures {
        fleet: fleet / f64::from(1 << 20),
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
            let delivery = consumer.next().await.ok_or(ENDED)??;
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

/// The memory of each of many connections: both ends, with all that drives them.
pub(crate) fn connections(name: &'static str) -> Result<Fleet> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let live = runtime.block_on(fleet(MANY_CONNECTIONS, 1))?;
    Ok(Fleet {
        name,
        connections: MANY_CONNECTIONS,
        heap: live / f64::from(MANY_CONNECTIONS),
        resident: None,
    })
}

/// The memory of many idle connections, in bytes; afterwards each of their channels answers.
async fn fleet(connections: u32, channels_each: u32) -> Result<f64> {
    let broker = LocalBroker::default();
    let first = open(&broker).await?;
    allocator::start();
    let mut held = Vec::with_capacity(connections as usize);
    for _ in 0..connections {
        let connection = broker.connect(Config::default()).await?;
        let mut channels = Vec::with_capacity(channels_each as usize);
        for _ in 0..channels_each {
            channels.push(connection.open_channel().await?);
        }
        held.push((connection, channels));
    }
    sleep(REST).await;
    let live = allocator::stop().live as f64;
    for channel in held.iter().flat_map(|(_, channels)| channels) {
        let declare = queue::Declare::default().queue("q").passive(true);
        channel.call(declare).await?;
    }
    let inspection = broker.inspect();
    let channels = inspection.connections.iter().map(|it| it.channels.len());
    let counted = (inspection.connections.len(), channels.sum::<usize>());
    let (connections, channels_each) = (connections as usize, channels_each as usize);
    // The first one has a channel, too.
    if counted != (connections + 1, connections * channels_each + 1) {
        return Err(format!("the broker has {counted:?} connections and channels").into());
    }
    drop((first, held));
    Ok(live)
}

/// The memory of a million queued messages with bodies of that size; none on a machine that has too
/// little of it, and a line on standard error says so.
pub(crate) fn queued(name: &'static str, size: usize) -> Result<Option<Queued>> {
    let needed = QUEUED * (size as u64 + ROOM);
    if let Some(available) = available()
        && available < needed
    {
        let [available, needed] = [available, needed].map(|bytes| bytes >> 20);
        eprintln!("{name}: not measured, as it takes {needed} MiB, and {available} are available");
        return Ok(None);
    }
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let overhead = runtime.block_on(queue_up(QUEUED, size))?;
    Ok(Some(Queued { name, overhead }))
}

/// The memory that programs can still get, in bytes; `Some` on Linux.
fn available() -> Option<u64> {
    let all = fs::read_to_string("/proc/meminfo").ok()?;
    let line = all
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib << 10)
}

/// Fills a queue; returns the bytes per message beside its body.
async fn queue_up(count: u64, size: usize) -> Result<f64> {
    let limits = broker::Limits::default().memory(MEMORY);
    let broker = LocalBroker::new(broker::Config::default().limits(limits))?;
    let (_connection, channel) = open(&broker).await?;
    let publish = basic::Publish::default().routing_key("q").mandatory(true);
    let properties = basic::Properties::default();
    let body = Shape::new(Load::Publish, size).body();
    allocator::start();
    let mut left = count;
    while left > 0 {
        let batch = left.min(IN_FLIGHT as u64);
        let mut confirms = Vec::with_capacity(IN_FLIGHT);
        for _ in 0..batch {
            confirms.push(channel.publish(&publish, &properties, body.clone()).await?);
        }
        for confirm in confirms {
            confirm.await?;
        }
        left -= batch;
    }
    sleep(REST).await;
    let live = allocator::stop().live as f64;
    let ready = broker.inspect().queue("q").map(|queue| queue.ready as u64);
    check("messages", ready.unwrap_or(0), count)?;
    Ok(live / count as f64 - size as f64)
}

/// Messages from one client of the broker to another, by way of a topic exchange.
pub(crate) async fn route(count: u64, size: usize) -> Result<Sample> {
    let broker = LocalBroker::default();
    let (_publishing, publisher) = open_plain(&broker).await?;
    let (_consuming, channel) = open_plain(&broker).await?;
    let declare = exchange::Declare::default()
        .exchange("events")
        .kind("topic");
    channel.call(declare).await?;
    for number in 0..BOUND {
        let queue = format!("q{number}");
        let bind = queue::Bind::default()
            .queue(&queue)
            .exchange("events")
            .routing_key(format!("orders.*.shop{number}"));
        channel
            .call(queue::Declare::default().queue(&queue))
            .await?;
        channel.call(bind).await?;
    }
    let consume = basic::Consume::default().queue("q0");
    let mut consumer = channel.consume(consume).await?;
    let body = Shape::new(Load::Publish, size).body();
    let watch = Stopwatch::start();
    let publishing = tokio::spawn(publish_all(publisher, body, count));
    for number in 1..=count {
        let delivery = consumer.next().await.ok_or(ENDED)??;
        if delivery.message.body.len() != size {
            return Err("a body of another size".into());
        }
        if number % ACK_EVERY == 0 || number == count {
            delivery.acker.ack_up_to()?;
        }
    }
    let sample = watch.stop(count);
    publishing.await??;
    Ok(sample)
}

async fn open_plain(broker: &LocalBroker) -> Result<(Connection, Channel)> {
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?;
    Ok((connection, channel))
}

async fn publish_all(channel: Channel, body: Bytes, count: u64) -> Result<()> {
    let publish = basic::Publish::default()
        .exchange("events")
        .routing_key("orders.created.shop0");
    let properties = basic::Properties::default();
    for _ in 0..count {
        channel.publish(&publish, &properties, body.clone()).await?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flavor::Flavor;

    #[test]
    fn all_messages_are_queued() {
        let _alone = allocator::alone();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(queue_up(2500, 16)).unwrap();
    }

    #[test]
    fn all_messages_are_routed() {
        let _alone = allocator::alone();
        for flavor in [Flavor::Tokio, Flavor::TokioThread] {
            let sample = flavor.block_on(route(2550, 1024)).unwrap();
            assert_eq!(sample.messages, 2550);
        }
    }

    #[test]
    fn all_connections_answer() {
        let _alone = allocator::alone();
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(fleet(20, 2)).unwrap();
    }
}
