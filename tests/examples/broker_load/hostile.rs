//! Clients that cost a broker more than they should: each is bounded by a limit or a timeout.

use std::{
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    core::{bytes::BytesMut, frame::PROTOCOL_HEADER},
    protocol::{Method, basic, channel, queue},
};
use amqp_test_support::frames::{announce, body, login, method};
use amqp_tests::harness::Failure;

use crate::{
    broker::Broker,
    cases::{close, declare, delete, fill, given_back},
    probe::{Probe, Trip},
    report::{Report, Row, mib},
    wire::{Client, LIMIT, Written},
};

const QUEUE: &str = "load-hostile";

/// The time in which a broker ends a handshake that does not proceed: 10 s, and some to notice.
const HANDSHAKE: Duration = Duration::from_secs(13);

/// Waits until the broker has closed all sockets. Returns the number of those that it has not.
fn ended(clients: &mut [Client], until: Instant) -> usize {
    let open = clients.iter_mut().filter_map(|client| {
        let left = until.saturating_duration_since(Instant::now());
        (!client.ends_within(left)).then_some(())
    });
    open.count()
}

/// A consumer that reads nothing.
pub(crate) fn slow_reader(
    report: &mut Report,
    broker: &Broker,
    count: usize,
) -> Result<(), Failure> {
    report.progress(format_args!(
        "a consumer of {count} messages that does not read"
    ));
    let mut owner = Client::with_channel(broker.address)?;
    declare(&mut owner, QUEUE)?;
    fill(broker, QUEUE, count, 1024)?;
    let before = broker.memory()?;
    let mut slow = Client::with_channel(broker.address)?;
    let probe = Probe::start(broker.address, Trip::Message)?;
    let mut output = BytesMut::new();
    let consume = basic::Consume::default().queue(QUEUE).no_ack(true);
    method(1, consume, &mut output);
    slow.send(&output)?;
    thread::sleep(Duration::from_secs(3));
    let given = count - declare(&mut owner, QUEUE)?;
    let more = broker.memory()? - before;
    report.row(
        Row::new("a consumer that does not read".into())
            .figure(format!("{given} given out, {}", mib(more)))
            // The sockets of both sides hold megabytes.
            .bound(
                "12 MiB given out, 4 MiB",
                given <= 12 << 10 && more <= 4 << 20,
            )
            .probe(probe.end()?),
    );
    drop(slow);
    delete(&mut owner, QUEUE)?;
    close(owner)
}

/// Clients that connect and send nothing.
pub(crate) fn strangers(report: &mut Report, broker: &Broker, count: usize) -> Result<(), Failure> {
    report.progress(format_args!("{count} silent strangers"));
    let before = broker.memory()?;
    let probe = Probe::start(broker.address, Trip::Message)?;
    let began = Instant::now();
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(Client::socket(broker.address)?);
    }
    thread::sleep(Duration::from_secs(1));
    let each = (broker.memory()? - before) / count as i64;
    let open = ended(&mut clients, Instant::now() + HANDSHAKE);
    let time = began.elapsed().as_secs_f64();
    report.row(
        Row::new(format!("{count} silent strangers"))
            .figure(format!(
                "{:.1} KiB each, {time:.1} s, {open} left",
                each as f64 / 1024.0
            ))
            .bound("16 KiB each, closed in 10 s", open == 0 && each <= 16 << 10)
            .probe(probe.end()?),
    );
    Ok(())
}

/// Clients that send their login byte by byte.
pub(crate) fn slow_logins(
    report: &mut Report,
    broker: &Broker,
    count: usize,
) -> Result<(), Failure> {
    report.progress(format_args!("{count} logins byte by byte"));
    let before = broker.memory()?;
    let probe = Probe::start(broker.address, Trip::Message)?;
    let began = Instant::now();
    let mut bytes = BytesMut::new();
    method(0, login("guest"), &mut bytes);
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::socket(broker.address)?;
        client.send(&PROTOCOL_HEADER)?;
        clients.push(client);
    }
    let mut most = 0;
    for byte in bytes.chunks(1) {
        if began.elapsed() > HANDSHAKE {
            break;
        }
        for client in &mut clients {
            // Fails when the broker has closed the socket.
            let _closed = client.send(byte);
        }
        most = most.max(broker.memory()? - before);
        thread::sleep(Duration::from_millis(500));
    }
    let open = ended(&mut clients, Instant::now() + Duration::from_secs(1));
    let each = most as f64 / count as f64 / 1024.0;
    report.row(
        Row::new(format!("{count} logins, a byte each 0.5 s"))
            .figure(format!("{each:.1} KiB each, {open} left"))
            .bound("16 KiB each, closed in 10 s", open == 0 && each <= 16.0)
            .probe(probe.end()?),
    );
    Ok(())
}

/// A client that opens all channels that there are.
pub(crate) fn channel_hog(report: &mut Report, broker: &Broker) -> Result<(), Failure> {
    report.progress(format_args!("a client that opens 65,535 channels"));
    let before = broker.memory()?;
    let probe = Probe::start(broker.address, Trip::Message)?;
    let mut client = Client::connect(broker.address)?;
    let mut output = BytesMut::new();
    for number in 1..=u16::MAX {
        method(number, channel::Open, &mut output);
    }
    // The broker closes the connection meanwhile.
    let _closed = client.send_for(&output, Duration::from_secs(1));
    let mut opened = 0;
    let close = loop {
        match client.next()? {
            Method::ChannelOpenOk(_) => opened += 1,
            Method::ConnectionClose(close) => break close,
            other => return Err(format!("{other:?}").into()),
        }
    };
    let more = broker.memory()? - before;
    let code = close.reply_code.0;
    report.row(
        Row::new("65,535 channels of one connection".into())
            .figure(format!("{opened} opened, then {code}, {}", mib(more)))
            .bound(
                "2047, then 530; 8 MiB",
                opened == 2047 && code == 530 && more <= 8 << 20,
            )
            .probe(probe.end()?),
    );
    Ok(())
}

/// Messages of 128 MiB of which an eighth arrives, of clients that then leave.
///
/// A broker does not read from the clients that it blocks, and so does not see their end: it learns
/// of it when it sends a heartbeat to a socket that is gone. Without heartbeats neither broker does:
/// of 100 such clients, RabbitMQ 3.10.8 kept all connections and 277 of 290 MiB for eight minutes.
pub(crate) fn halves(
    report: &mut Report,
    broker: &Broker,
    count: usize,
    limit: Option<i64>,
) -> Result<(), Failure> {
    const SIZE: u64 = 128 << 20;
    const PIECE: usize = 64 << 10;
    const HEARTBEAT: u16 = 4;
    report.progress(format_args!("{count} large messages sent by half"));
    let before = broker.memory()?;
    let probe = Probe::start(broker.address, Trip::Empty)?;
    let mut clients = Vec::new();
    for _ in 0..count {
        let mut client = Client::with_heartbeat(broker.address, HEARTBEAT)?;
        client.call(1, channel::Open)?;
        let mut output = BytesMut::new();
        announce("nowhere", SIZE, &mut output);
        client.send(&output)?;
        clients.push((client, true));
    }
    let mut piece = BytesMut::new();
    body(&[b'x'; PIECE], &mut piece);
    let mut sent: i64 = 0;
    for _ in 0..SIZE as usize / 8 / PIECE {
        for (client, goes_on) in &mut clients {
            if *goes_on {
                let written = client.send_for(&piece, Duration::from_millis(20))?;
                *goes_on = matches!(written, Written::All);
                sent += PIECE as i64;
            }
        }
    }
    let more = broker.memory()? - before;
    // A piece of a body may keep three times its size of a read buffer.
    let bound = limit.map_or(i64::MAX, |limit| 3 * limit);
    report.row(
        Row::new(format!("{count} messages of 128 MiB, an eighth sent"))
            .figure(format!("{} sent, {}", mib(sent), mib(more)))
            .bound("3 times --memory: 768 MiB", more <= bound)
            .probe(probe.end()?),
    );
    drop(clients);
    given_back(report, broker, before, "they have gone")
}

/// A client that sends requests and reads no replies.
pub(crate) fn unread_replies(
    report: &mut Report,
    broker: &Broker,
    most: usize,
) -> Result<(), Failure> {
    report.progress(format_args!("requests whose replies are not read"));
    let mut client = Client::with_channel(broker.address)?;
    let mut declare = queue::Declare::default().queue("load-replies");
    declare.exclusive = true;
    client.call(1, declare.clone())?;
    let before = broker.memory()?;
    let probe = Probe::start(broker.address, Trip::Message)?;
    let mut output = BytesMut::new();
    for _ in 0..1000 {
        method(1, declare.clone(), &mut output);
    }
    let mut sent = 0;
    while sent < most {
        match client.send_for(&output, Duration::from_secs(1)) {
            Ok(Written::All) => sent += output.len(),
            // The broker reads no more, or has reset the connection, as RabbitMQ does.
            Ok(Written::Part) | Err(_) => break,
        }
    }
    let more = broker.memory()? - before;
    report.row(
        Row::new("requests whose replies are not read".into())
            .figure(format!("{} sent, {}", mib(sent as i64), mib(more)))
            .bound(
                "the sockets are full; 4 MiB",
                sent < most && more <= 4 << 20,
            )
            .probe(probe.end()?),
    );
    Ok(())
}

/// Logins with a wrong password: the broker keeps their sockets for three seconds.
pub(crate) fn failed_logins(
    report: &mut Report,
    broker: &Broker,
    count: usize,
) -> Result<(), Failure> {
    report.progress(format_args!("{count} failed logins"));
    let before = broker.memory()?;
    let probe = Probe::start(broker.address, Trip::Message)?;
    let mut wrong = BytesMut::new();
    method(0, login("wrong"), &mut wrong);
    let began = Instant::now();
    let mut clients = Vec::new();
    let mut slowest = Duration::ZERO;
    for number in 0..count {
        let mut client = Client::socket(broker.address)?;
        client.greet()?;
        client.send(&wrong)?;
        clients.push(client);
        if number % (count / 10) == 0 {
            let login = Instant::now();
            close(Client::connect(broker.address)?)?;
            slowest = slowest.max(login.elapsed());
        }
    }
    let each = (broker.memory()? - before) / count as i64;
    let open = ended(&mut clients, Instant::now() + LIMIT.min(HANDSHAKE));
    let (slowest, time) = (slowest.as_secs_f64() * 1e3, began.elapsed().as_secs_f64());
    report.row(
        Row::new(format!("{count} logins with a wrong password"))
            .figure(format!(
                "{:.1} KiB each, {time:.1} s; a login {slowest:.0} ms",
                each as f64 / 1024.0
            ))
            .bound(
                "16 KiB each, a login 1 s",
                open == 0 && each <= 16 << 10 && slowest <= 1e3,
            )
            .probe(probe.end()?),
    );
    given_back(report, broker, before, "they have gone")
}
