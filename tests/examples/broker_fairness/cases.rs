//! Queues that compete for a channel or a connection, and connections that compete for a broker.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use amqp_blocking::protocol::{basic, queue};
use amqp_tests::harness::Failure;

use crate::{
    processes::{FLOOD, Process, messages},
    wire::Client,
};

const QUEUES: [&str; 3] = ["fair-a", "fair-b", "fair-c"];

/// The number of messages of each queue that a slow reader consumes, and their size in bytes.
const BACKLOG: usize = 20_000;
const SIZE: usize = 1024;

/// The pause of a slow reader before each read of 16 KiB: slower than either broker writes.
const SLOW: Duration = Duration::from_millis(1);

/// The number of messages in a busy queue.
const BUSY: usize = 100_000;

/// The number of busy messages before one is published to the quiet queue.
const HEAD_START: usize = 1000;

/// Fills a queue with messages of a size.
fn fill(address: SocketAddr, name: &str, count: usize, size: usize) -> Result<(), Failure> {
    let connection = amqp_blocking::connect(&format!("amqp://{address}"))?;
    let channel = connection.open_channel()?;
    let declare = queue::Declare::default().queue(name).durable(true);
    channel.call(declare)?;
    channel.call(queue::Purge::default().queue(name))?;
    let channel = channel.confirm_select()?;
    let publish = basic::Publish::default().routing_key(name);
    let properties = basic::Properties::default();
    let mut last = None;
    for _ in 0..count {
        last = Some(channel.publish(&publish, &properties, vec![b'x'; size])?);
    }
    if let Some(last) = last {
        last.wait()?;
    }
    connection.close()?;
    Ok(())
}

fn delete(address: SocketAddr, names: &[&str]) -> Result<(), Failure> {
    let connection = amqp_blocking::connect(&format!("amqp://{address}"))?;
    let channel = connection.open_channel()?;
    for name in names {
        channel.call(queue::Delete::default().queue(*name))?;
    }
    connection.close()?;
    Ok(())
}

/// Returns the number of deliveries of each of three queues of 100, of 99 that are acknowledged
/// one by one on a channel with a prefetch of 1.
pub(crate) fn shares(address: SocketAddr) -> Result<Vec<usize>, Failure> {
    for name in QUEUES {
        fill(address, name, 100, 1)?;
    }
    let mut client = Client::connect(address)?;
    let channel = client.open_channel()?;
    let qos = basic::Qos::default().prefetch_count(1).global(true);
    client.call(channel, &qos)?;
    for name in QUEUES {
        let consume = basic::Consume::default().queue(name).consumer_tag(name);
        client.consume(channel, consume)?;
    }
    let mut counts = vec![0; QUEUES.len()];
    for _ in 0..99 {
        let delivery = client.next_delivery()?;
        client.ack(&delivery)?;
        let tag = delivery.method.consumer_tag.as_str();
        for (count, name) in counts.iter_mut().zip(QUEUES) {
            *count += usize::from(tag == name);
        }
    }
    drop(client);
    delete(address, &QUEUES)?;
    Ok(counts)
}

/// Returns the longest sequence of deliveries of one queue, while all three have messages.
pub(crate) fn longest_run(address: SocketAddr, channels: usize) -> Result<usize, Failure> {
    for name in QUEUES {
        fill(address, name, BACKLOG, SIZE)?;
    }
    let mut client = Client::connect(address)?;
    client.slow_down(SLOW);
    let mut opened = Vec::new();
    for _ in 0..channels {
        opened.push(client.open_channel()?);
    }
    for (name, &channel) in QUEUES.iter().zip(opened.iter().cycle()) {
        let consume = basic::Consume::default()
            .queue(*name)
            .consumer_tag(*name)
            .no_ack(true);
        client.consume(channel, consume)?;
    }
    let (mut last, mut run, mut longest, mut seen) = (usize::MAX, 0, 0, [0; QUEUES.len()]);
    while seen.iter().all(|&count| count < BACKLOG) {
        let delivery = client.next_delivery()?;
        let tag = delivery.method.consumer_tag.as_str();
        let of = QUEUES.iter().position(|name| *name == tag);
        let of = of.ok_or("a delivery of another queue")?;
        seen[of] += 1;
        run = if of == last { run + 1 } else { 1 };
        last = of;
        longest = longest.max(run);
    }
    drop(client);
    delete(address, &QUEUES)?;
    Ok(longest)
}

/// Returns the number of deliveries of a busy queue that come between the publish of a message to a
/// quiet one and its delivery on the same connection.
pub(crate) fn busy_and_quiet(address: SocketAddr) -> Result<usize, Failure> {
    let [busy, quiet, _] = QUEUES;
    fill(address, busy, BUSY, SIZE)?;
    fill(address, quiet, 0, 1)?;
    let mut client = Client::connect(address)?;
    client.slow_down(SLOW);
    for name in [busy, quiet] {
        let channel = client.open_channel()?;
        let consume = basic::Consume::default()
            .queue(name)
            .consumer_tag(name)
            .no_ack(true);
        client.consume(channel, consume)?;
    }
    let connection = amqp_blocking::connect(&format!("amqp://{address}"))?;
    let channel = connection.open_channel()?.confirm_select()?;
    for _ in 0..HEAD_START {
        client.next_delivery()?;
    }
    let publish = basic::Publish::default().routing_key(quiet);
    channel
        .publish(&publish, &basic::Properties::default(), "quiet")?
        .wait()?;
    let mut before = 0;
    while client.next_delivery()?.method.consumer_tag.as_str() != quiet {
        before += 1;
    }
    drop(client);
    delete(address, &[busy, quiet])?;
    Ok(before)
}

/// The round trips of a quiet connection.
pub(crate) struct Flooded {
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    /// The number of messages that the publishers published in a second.
    pub(crate) rate: f64,
}

/// Measures round trips of one message, a publish and a get, beside publishers without pause.
pub(crate) fn flooded(
    address: SocketAddr,
    publishers: usize,
    time: Duration,
) -> Result<Flooded, Failure> {
    let quiet = QUEUES[1];
    let connection = amqp_blocking::connect(&format!("amqp://{address}"))?;
    let channel = connection.open_channel()?;
    channel.call(queue::Declare::default().queue(quiet).durable(true))?;
    channel.call(queue::Purge::default().queue(quiet))?;
    let publish = basic::Publish::default().routing_key(quiet);
    let properties = basic::Properties::default();
    let mut processes = Vec::new();
    for _ in 0..publishers {
        let mut process = Process::start(&[FLOOD, &address.to_string()])?;
        process.line()?;
        processes.push(process);
    }
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < time {
        let sent = Instant::now();
        channel.publish(&publish, &properties, "x")?;
        let get = basic::Get::default().queue(quiet).no_ack(true);
        let _fetched = channel.get(get)?.ok_or("the message is missing")?;
        times.push(sent.elapsed());
    }
    let mut published = 0;
    for process in processes {
        published += messages(process.end()?);
    }
    times.sort_unstable();
    let at = |part: f64| times[((times.len() - 1) as f64 * part) as usize];
    connection.close()?;
    delete(address, &[quiet])?;
    Ok(Flooded {
        p50: at(0.5),
        p99: at(0.99),
        rate: published as f64 / time.as_secs_f64(),
    })
}
