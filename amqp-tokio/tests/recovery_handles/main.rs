//! Handles that wait, are dropped or are closed while their connection is lost or restored, under a
//! paused clock.

#![cfg(feature = "broker")]

use std::{error::Error, time::Duration};

use amqp_tokio::{
    BaseChannel, Config, Connection, LocalBroker, Options,
    core::Limits,
    protocol::{basic, queue},
    recovery::{Backoff, Policy, RecoveryEvent},
};
use tokio::time::timeout;

mod channels;
mod consumers;
mod ends;
mod hosts;
mod publishing;

type Outcome = Result<(), Box<dyn Error>>;

/// Longer than any recovery of these tests.
const PATIENCE: Duration = Duration::from_secs(3600);

const SECOND: Duration = Duration::from_secs(1);

/// Dials again after a second.
fn policy() -> Policy {
    Policy::new(1).backoff(Backoff::default().first(SECOND).max(SECOND).jitter(0))
}

fn options() -> Options {
    Options::default().recovery(policy())
}

fn with_limits(limits: Limits) -> Options {
    options().config(Config::default().limits(limits))
}

fn persistent() -> basic::Properties {
    basic::Properties::default().delivery_mode(2)
}

fn to(queue: &str) -> Result<basic::Publish, amqp_tokio::Error> {
    Ok(basic::Publish::default().routing_key(queue))
}

fn durable(queue: &str) -> Result<queue::Declare, amqp_tokio::Error> {
    Ok(queue::Declare::default().queue(queue).durable(true))
}

fn from(queue: &str) -> Result<basic::Consume, amqp_tokio::Error> {
    Ok(basic::Consume::default().queue(queue))
}

/// Waits for an event of the recovery, from the first one on.
async fn until(
    connection: &Connection,
    wanted: impl Fn(&RecoveryEvent) -> bool,
) -> Result<(), Box<dyn Error>> {
    let mut events = connection.recovery_events();
    let waiting = async {
        while let Some(change) = events.next().await {
            println!("{change}");
            if wanted(&change.event) {
                return Ok(());
            }
        }
        Err("the connection has ended".into())
    };
    timeout(PATIENCE, waiting).await?
}

fn is_recovered(event: &RecoveryEvent) -> bool {
    matches!(event, RecoveryEvent::Recovered(_))
}

fn is_lost(event: &RecoveryEvent) -> bool {
    matches!(event, RecoveryEvent::Lost(_))
}

/// Closes a channel as the server does for a mistake: with a passive declaration of no queue.
async fn fail(channel: &BaseChannel) -> Outcome {
    let none = queue::Declare::default().queue("none").passive(true);
    assert!(timeout(PATIENCE, channel.call(none)).await?.is_err());
    Ok(())
}

/// Lets a consumer that another connection has exclusively keep the recovery of `connection` busy
/// for ten seconds: the queue is `busy`. Returns that other connection.
async fn keep_busy(
    broker: &LocalBroker,
    connection: &Connection,
) -> Result<Connection, Box<dyn Error>> {
    let channel = connection.open_channel().await?;
    channel.call(durable("busy")?).await?;
    let consumer = channel.consume(from("busy")?.exclusive(true)).await?;
    tokio::spawn(async move {
        let mut consumer = consumer;
        while consumer.next().await.is_some() {}
    });
    broker.close_connections("test");
    let other = broker.connect_with(&options()).await?;
    let channel = other.open_channel().await?;
    let mut consumer = channel.consume(from("busy")?.exclusive(true)).await?;
    tokio::spawn(async move { while consumer.next().await.is_some() {} });
    until(
        connection,
        |event| matches!(event, RecoveryEvent::Recovering { done, .. } if *done > 0),
    )
    .await?;
    Ok(other)
}
