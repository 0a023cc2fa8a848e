//! A broker in this process that stops and comes back.

#![cfg(feature = "broker")]

use std::{
    error::Error,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use amqp_blocking::{
    Config, Connection, ConnectionState, LocalBroker, Options, PreparedPublish, connect,
    connect_with,
    protocol::{ReplyCode, basic, queue},
    recovery::{Backoff, Policy},
    serve, within,
};

type Outcome = Result<(), Box<dyn Error>>;

/// One round: finds the messages of all rounds before, and adds one.
fn work(connection: &Connection, round: u32) -> Outcome {
    let channel = connection.open_channel()?.confirm_select()?;
    let declare = queue::Declare::default().queue("tasks");
    assert_eq!(channel.call(declare)?.message_count, round);
    let publish = basic::Publish::default().routing_key("tasks");
    let persistent = basic::Properties {
        delivery_mode: Some(2),
        ..basic::Properties::default()
    };
    let confirm = channel.publish(&publish, &persistent, round.to_string())?;
    Ok(confirm.wait()?)
}

fn closed(connection: &Connection) -> Result<ReplyCode, Box<dyn Error>> {
    let reason = connection.closed()?;
    Ok(reason.by_peer().ok_or("closed otherwise")?.code)
}

/// Takes less than a second, unless the machine is busy.
#[test]
fn a_program_loses_its_broker_three_times() -> Outcome {
    for _ in 0..20 {
        let started = Instant::now();
        lose_the_broker_three_times()?;
        if started.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
    }
    Err("it never took less than a second".into())
}

fn lose_the_broker_three_times() -> Outcome {
    let broker = LocalBroker::default();
    for round in 0..3 {
        let connection = broker.connect(Config::default())?;
        work(&connection, round)?;
        broker.restart();
        assert_eq!(closed(&connection)?, ReplyCode::CONNECTION_FORCED);
    }
    let tasks = broker.with(|broker| broker.queue("/", "tasks"));
    assert_eq!(tasks.map(|tasks| tasks.ready), Some(3));
    Ok(())
}

#[test]
fn a_served_broker_keeps_its_port() -> Outcome {
    let server = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
    let uri = format!("amqp://{}", server.local_addr());
    for round in 0..3 {
        let connection = connect(&uri)?;
        work(&connection, round)?;
        server.broker().stop();
        assert_eq!(closed(&connection)?, ReplyCode::CONNECTION_FORCED);
        assert!(connect(&uri).is_err());
        server.broker().start();
    }
    connect(&uri)?.close()?;
    server.shutdown();
    Ok(())
}

#[test]
fn the_same_handles_go_on_over_restarts() -> Outcome {
    let server = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
    let backoff = Backoff::default().first(Duration::from_millis(5));
    let options = Options::from_uri(&format!("amqp://{}", server.local_addr()))?
        .recovery(Policy::new(1).backoff(backoff.max(Duration::from_millis(20))));
    let connection = connect_with(&options)?;
    let channel = connection.open_channel()?.confirm_select()?;
    channel.call(queue::Declare::default().queue("tasks"))?;
    let mut consumer = channel.consume(basic::Consume::default().queue("tasks"))?;
    let publish = basic::Publish::default().routing_key("tasks");
    let persistent = basic::Properties::default().persistent();
    for round in 0..4 {
        let body = round.to_string();
        within(Duration::from_secs(120), || -> Outcome {
            let send = || channel.publish(&publish, &persistent, body.clone());
            while send()?.wait().is_err() {}
            loop {
                let delivery = consumer.next().ok_or("it has ended")??;
                let is_last = delivery.body == body.as_bytes();
                let acknowledged = delivery.ack();
                if is_last && acknowledged.is_ok() {
                    return Ok(());
                }
            }
        })?;
        if round < 3 {
            server.broker().restart();
        }
    }
    connection.close()?;
    server.shutdown();
    Ok(())
}

/// A prepared publish waits while the connection is lost, and is published on the next one: it belongs
/// to none. One that was in flight is in doubt, as any other.
#[test]
fn a_prepared_publish_outlives_its_connection() -> Outcome {
    let server = serve(TcpListener::bind("127.0.0.1:0")?, LocalBroker::default())?;
    let backoff = Backoff::default().first(Duration::from_millis(5));
    let options = Options::from_uri(&format!("amqp://{}", server.local_addr()))?
        .recovery(Policy::new(1).backoff(backoff.max(Duration::from_millis(20))));
    let connection = connect_with(&options)?;
    let channel = connection.open_channel()?.confirm_select()?;
    channel.call(queue::Declare::default().queue("tasks"))?;
    let to_tasks = basic::Publish::default().routing_key("tasks");
    let persistent = basic::Properties::default().persistent();
    let publish = PreparedPublish::new(to_tasks.mandatory(true), &persistent)?;
    channel.publish_prepared(&publish, "before")?.wait()?;
    for round in 1..4 {
        server.broker().stop();
        while connection.as_async().state() != ConnectionState::Recovering {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(channel.try_publish_prepared(&publish, "held").is_err());
        let waiting = thread::spawn({
            let (channel, publish) = (channel.clone(), publish.clone());
            move || channel.publish_prepared(&publish, "during")
        });
        thread::sleep(Duration::from_millis(5));
        assert!(!waiting.is_finished());
        server.broker().start();
        let confirm = waiting.join().map_err(|_| "it panicked")??;
        confirm.wait()?;
        let ready = server.broker().with(|broker| broker.queue("/", "tasks"));
        assert_eq!(ready.map(|tasks| tasks.ready), Some(1 + round));
    }
    connection.close()?;
    server.shutdown();
    Ok(())
}

#[test]
fn a_thread_waits_for_a_condition() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default())?;
    let waiting = thread::spawn({
        let broker = broker.clone();
        move || broker.until(|broker| broker.queue("/", "tasks").is_some())
    });
    work(&connection, 0)?;
    assert!(waiting.join().map_err(|_| "it panicked")?);
    let never = broker.until_within(Duration::from_millis(20), |broker| {
        broker.queue("/", "other").is_some()
    });
    assert!(!never);
    Ok(())
}
