//! Many connections, channels and messages: the memory of each.

use std::time::Instant;

use amqp_blocking::{
    core::bytes::BytesMut,
    protocol::{Method, basic, channel, confirm, connection, queue},
};
use amqp_test_support::frames::{announce, body, method};
use amqp_tests::harness::Failure;

use crate::{
    broker::Broker,
    probe::{Probe, Trip},
    report::{Report, Row, mib},
    wire::Client,
};

/// The number of publishes between two waits for their confirms.
const BATCH: usize = 500;

/// The memory that may stay after a case, in bytes.
const KEPT: i64 = 64 << 20;

/// The memory that a message may take beside its body, in bytes: as much as `Limits::memory` counts.
const BESIDE: i64 = 384;

const QUEUE: &str = "load";

pub(crate) fn declare(client: &mut Client, name: &str) -> Result<usize, Failure> {
    match client.call(1, queue::Declare::default().queue(name))? {
        Method::QueueDeclareOk(ok) => Ok(ok.message_count as usize),
        other => Err(format!("{other:?}").into()),
    }
}

pub(crate) fn delete(client: &mut Client, name: &str) -> Result<(), Failure> {
    client.call(1, queue::Delete::default().queue(name))?;
    Ok(())
}

/// Closes a connection, and waits for the reply.
pub(crate) fn close(mut client: Client) -> Result<(), Failure> {
    let mut close = connection::Close::default();
    close.reply_code.0 = 200;
    client.call(0, close).map(drop)
}

/// Publishes messages to a queue on a connection of its own, and waits for their confirms.
pub(crate) fn fill(broker: &Broker, name: &str, count: usize, size: usize) -> Result<(), Failure> {
    let mut client = Client::with_channel(broker.address)?;
    client.call(1, confirm::Select::default())?;
    let mut one = BytesMut::new();
    announce(name, size as u64, &mut one);
    body(&vec![b'x'; size], &mut one);
    let mut confirmed = 0;
    for sent in (BATCH..=count).step_by(BATCH) {
        client.send(&one.repeat(BATCH))?;
        while confirmed < sent as u64 {
            match client.next()? {
                // Confirms of earlier publishes may follow: the pause is only for the window.
                Method::BasicAck(ack) => confirmed = confirmed.max(ack.delivery_tag),
                other => return Err(format!("{other:?}").into()),
            }
        }
    }
    close(client)
}

pub(crate) fn connections(
    report: &mut Report,
    broker: &Broker,
    count: usize,
) -> Result<(), Failure> {
    report.progress(format_args!("{count} idle connections"));
    let before = broker.memory()?;
    let probe = Probe::start(broker.address, Trip::Message)?;
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::connect(broker.address)?);
    }
    let each = (broker.memory()? - before) / count as i64;
    report.row(
        Row::new(format!("{count} idle connections"))
            .figure(format!("{:.1} KiB each", each as f64 / 1024.0))
            .bound("16 KiB each", each <= 16 << 10)
            .probe(probe.end()?),
    );
    for client in clients {
        close(client)?;
    }
    given_back(report, broker, before, "they have closed")
}

/// Adds the row of the memory that is kept after a case.
pub(crate) fn given_back(
    report: &mut Report,
    broker: &Broker,
    before: i64,
    name: &str,
) -> Result<(), Failure> {
    let kept = broker.settled(before + KEPT)? - before;
    report.row(
        Row::new(format!("  after {name}"))
            .figure(format!("{} kept", mib(kept)))
            .bound("64 MiB kept", kept <= KEPT),
    );
    Ok(())
}

pub(crate) fn channels(
    report: &mut Report,
    broker: &Broker,
    clients: usize,
) -> Result<(), Failure> {
    const EACH: u16 = 2047;
    let count = clients * usize::from(EACH);
    report.progress(format_args!("{count} channels"));
    let mut connected = Vec::new();
    for _ in 0..clients {
        connected.push(Client::connect(broker.address)?);
    }
    let before = broker.memory()?;
    for client in &mut connected {
        let mut output = BytesMut::new();
        for number in 1..=EACH {
            method(number, channel::Open, &mut output);
        }
        client.send(&output)?;
        for _ in 1..=EACH {
            client.next()?;
        }
    }
    let each = (broker.memory()? - before) / count as i64;
    report.row(
        Row::new(format!("{count} channels of {clients} connections"))
            .figure(format!("{each} B each"))
            .bound("1024 B each", each <= 1024),
    );
    connected.into_iter().try_for_each(close)?;
    given_back(report, broker, before, "they have closed")
}

pub(crate) fn come_and_go(
    report: &mut Report,
    broker: &Broker,
    count: usize,
) -> Result<(), Failure> {
    report.progress(format_args!("{count} connections come and go"));
    let before = broker.memory()?;
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::with_channel(broker.address)?);
    }
    // Half of them without a close.
    for (number, client) in clients.into_iter().enumerate() {
        if number % 2 == 0 {
            close(client)?;
        }
    }
    let name = format!("{count} connections with a channel came and went");
    given_back(report, broker, before, &name)
}

pub(crate) fn messages(
    report: &mut Report,
    broker: &Broker,
    count: usize,
    size: usize,
) -> Result<(), Failure> {
    report.progress(format_args!("{count} messages of {size} bytes"));
    let before = broker.memory()?;
    let mut client = Client::with_channel(broker.address)?;
    declare(&mut client, QUEUE)?;
    for round in ["", "  again, "] {
        let probe = Probe::start(broker.address, Trip::Message)?;
        let began = Instant::now();
        fill(broker, QUEUE, count, size)?;
        let rate = count as f64 / began.elapsed().as_secs_f64();
        let times = probe.end()?;
        // Without the pages that the growing queue has left, which the allocator keeps for 10 s.
        let bound = before + count as i64 * (size as i64 + BESIDE);
        let each = (broker.settled(bound)? - before) / count as i64 - size as i64;
        report.row(
            Row::new(format!("{round}{count} messages of {size} B"))
                .figure(format!("{each} B beside each; {rate:.0}/s"))
                .bound("384 B beside each", each <= BESIDE)
                .probe(times),
        );
        client.call(1, queue::Purge::default().queue(QUEUE))?;
        given_back(report, broker, before, "a purge")?;
    }
    delete(&mut client, QUEUE)?;
    close(client)
}

pub(crate) fn acknowledged(
    report: &mut Report,
    broker: &Broker,
    count: usize,
) -> Result<(), Failure> {
    report.progress(format_args!("{count} messages consumed and acknowledged"));
    let before = broker.memory()?;
    let mut client = Client::with_channel(broker.address)?;
    declare(&mut client, QUEUE)?;
    fill(broker, QUEUE, count, 1024)?;
    client.call(1, basic::Consume::default().queue(QUEUE))?;
    for number in 1..=count {
        let Method::BasicDeliver(delivery) = client.next()? else {
            return Err("a delivery was expected".into());
        };
        if number % BATCH == 0 || number == count {
            let mut output = BytesMut::new();
            let mut ack = basic::Ack::default();
            (ack.delivery_tag, ack.multiple) = (delivery.delivery_tag, true);
            method(1, ack, &mut output);
            client.send(&output)?;
        }
    }
    let name = format!("{count} messages of 1 KiB were acknowledged");
    given_back(report, broker, before, &name)?;
    close(client)?;
    let mut client = Client::with_channel(broker.address)?;
    delete(&mut client, QUEUE)?;
    close(client)
}
