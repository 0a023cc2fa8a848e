//! A broker in this process that stops, stands still, and comes back.

#![cfg(feature = "broker")]

use std::{
    error::Error,
    time::{Duration, Instant},
};

use amqp_tokio::{
    BaseChannel, Config, Connection, LocalBroker, connect,
    core::{CloseCause, TimeoutReason},
    protocol::{ReplyCode, basic, queue},
    serve,
};
use tokio::{net::TcpListener, time};

type Outcome = Result<(), Box<dyn Error>>;

/// The time limit of steps that end at once.
const PATIENCE: Duration = Duration::from_secs(120);

fn persistent() -> basic::Properties {
    basic::Properties {
        delivery_mode: Some(2),
        ..basic::Properties::default()
    }
}

async fn declare(channel: &BaseChannel) -> Result<u32, amqp_tokio::Error> {
    let declare = queue::Declare::default().queue("tasks");
    Ok(channel.call(declare).await?.message_count)
}

/// The code of the close by the broker.
async fn closed(connection: &Connection) -> Result<ReplyCode, Box<dyn Error>> {
    let reason = time::timeout(PATIENCE, connection.closed()).await?;
    Ok(reason.by_peer().ok_or("closed otherwise")?.code)
}

/// One round: finds the messages of all rounds before, and adds one.
async fn work(connection: &Connection, round: u32) -> Outcome {
    let channel = connection.open_channel().await?.confirm_select().await?;
    assert_eq!(declare(&channel).await?, round);
    let publish = basic::Publish::default().routing_key("tasks");
    let confirm = channel
        .publish(&publish, &persistent(), round.to_string())
        .await?;
    Ok(confirm.await?)
}

/// Takes less than a second, unless the machine is busy.
#[tokio::test]
async fn a_program_loses_its_broker_three_times() -> Outcome {
    for _ in 0..20 {
        let started = Instant::now();
        lose_the_broker_three_times().await?;
        if started.elapsed() < Duration::from_secs(1) {
            return Ok(());
        }
    }
    Err("it never took less than a second".into())
}

async fn lose_the_broker_three_times() -> Outcome {
    let broker = LocalBroker::default();
    for round in 0..3 {
        let connection = broker.connect(Config::default()).await?;
        work(&connection, round).await?;
        broker.restart();
        assert_eq!(closed(&connection).await?, ReplyCode::CONNECTION_FORCED);
    }
    let tasks = broker.with(|broker| broker.queue("/", "tasks"));
    assert_eq!(tasks.map(|tasks| tasks.ready), Some(3));
    Ok(())
}

#[tokio::test]
async fn a_served_broker_keeps_its_port() -> Outcome {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let server = serve(listener, LocalBroker::default())?;
    let uri = format!("amqp://{}", server.local_addr());
    for round in 0..3 {
        let connection = connect(&uri).await?;
        work(&connection, round).await?;
        server.broker().stop();
        assert_eq!(closed(&connection).await?, ReplyCode::CONNECTION_FORCED);
        assert!(connect(&uri).await.is_err());
        server.broker().start();
    }
    connect(&uri).await?.close().await?;
    server.shutdown().await;
    Ok(())
}

#[tokio::test]
async fn a_stopped_broker_accepts_nothing_in_memory_either() -> Outcome {
    let broker = LocalBroker::default();
    broker.stop();
    broker.stop();
    assert!(broker.connect(Config::default()).await.is_err());
    broker.start();
    broker.start();
    broker.connect(Config::default()).await?.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_stands_still_is_given_up() -> Outcome {
    let broker = LocalBroker::default();
    let config = || Config::default().heartbeat(2);
    let connection = broker.connect(config()).await?;
    broker.pause();
    let stopped = time::Instant::now();
    let reason = connection.closed().await;
    let silent = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert_eq!(reason.cause(), &silent);
    assert!(stopped.elapsed() >= Duration::from_secs(4));
    // It has noticed nothing yet.
    assert_eq!(broker.inspect().connections.len(), 1);
    broker.resume();
    broker
        .until(|broker| broker.inspect().connections.is_empty())
        .await;
    broker.connect(config()).await?.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_short_pause_loses_nothing() -> Outcome {
    let broker = LocalBroker::default();
    // The broker would give up a client that is silent for as long as the pause takes.
    let connection = broker.connect(Config::default().heartbeat(60)).await?;
    let channel = connection.open_channel().await?;
    broker.pause();
    let call = tokio::spawn(async move { declare(&channel).await });
    let opening = tokio::spawn({
        let broker = broker.clone();
        async move { broker.connect(Config::default()).await }
    });
    time::sleep(Duration::from_secs(5)).await;
    assert!(!call.is_finished() && !opening.is_finished());
    broker.resume();
    assert_eq!(call.await??, 0);
    opening.await??.close().await?;
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn ttls_wait_for_the_end_of_a_pause() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default().heartbeat(60)).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    declare(&channel).await?;
    let mut properties = persistent();
    properties.expiration = Some("1000".parse()?);
    let publish = basic::Publish::default().routing_key("tasks");
    channel.publish(&publish, &properties, "m").await?.await?;
    let ready = || broker.with(|broker| broker.queue("/", "tasks").map(|tasks| tasks.ready));
    broker.pause();
    time::sleep(Duration::from_secs(3)).await;
    assert_eq!(ready(), Some(1));
    broker.resume();
    let empty = broker.until_within(Duration::from_secs(1), |broker| {
        broker
            .queue("/", "tasks")
            .is_some_and(|tasks| tasks.ready == 0)
    });
    assert!(empty.await);
    Ok(())
}

#[tokio::test]
async fn a_wait_for_a_condition_ends_with_the_change() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default()).await?;
    let channel = connection.open_channel().await?;
    let declared = tokio::spawn({
        let broker = broker.clone();
        async move {
            broker
                .until(|broker| broker.queue("/", "tasks").is_some())
                .await;
        }
    });
    tokio::task::yield_now().await;
    assert!(!declared.is_finished());
    declare(&channel).await?;
    time::timeout(PATIENCE, declared).await??;
    let never = broker.until_within(Duration::from_millis(20), |broker| {
        broker.queue("/", "other").is_some()
    });
    assert!(!never.await);
    Ok(())
}
