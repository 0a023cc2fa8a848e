//! Connections that outlive their broker, under a paused clock.

#![cfg(feature = "broker")]

use std::{error::Error, time::Duration};

use amqp_tokio::{
    Connection, ConsumeOptions, LocalBroker, Options, Unconfirmed,
    broker::{ByteFaults, Impairment},
    protocol::{basic, exchange, queue},
    recovery::{Policy, RecoveryEvent},
};
use tokio::time::{sleep, timeout};

type Outcome = Result<(), Box<dyn Error>>;

/// Longer than any recovery of these tests.
const PATIENCE: Duration = Duration::from_secs(3600);

fn options() -> Options {
    Options::default().recovery(Policy::new(1))
}

fn persistent() -> basic::Properties {
    basic::Properties::default().delivery_mode(2)
}

fn to(queue: &str) -> Result<basic::Publish, amqp_tokio::Error> {
    Ok(basic::Publish::default().routing_key(queue)?)
}

/// Waits for an event of the recovery.
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

#[tokio::test(start_paused = true)]
async fn the_same_handles_publish_and_consume_after_a_restart() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue("tasks")?.durable(true);
    channel.call(declare).await?;
    let consume = basic::Consume::default().queue("tasks")?;
    let mut consumer = channel.consume(consume).await?;
    let (publish, properties) = (to("tasks")?, persistent());
    for round in 0..3_u32 {
        let body = round.to_string();
        loop {
            let publishing = channel.publish(&publish, &properties, body.clone());
            if timeout(PATIENCE, publishing).await??.await.is_ok() {
                break;
            }
        }
        let delivery = timeout(PATIENCE, consumer.next()).await?.ok_or("ended")??;
        assert_eq!(delivery.body, body.as_bytes());
        delivery.ack()?;
        let acknowledged =
            broker.until(|broker| broker.queue("/", "tasks").is_some_and(|it| it.unacked == 0));
        acknowledged.await;
        if round < 2 {
            broker.restart();
        }
    }
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_before_is_stale_and_the_message_comes_again() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue("tasks")?.durable(true);
    channel.call(declare).await?;
    let consume = basic::Consume::default().queue("tasks")?;
    let asking = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_with(consume, asking).await?;
    channel
        .publish(&to("tasks")?, &persistent(), "1")
        .await?
        .await?;
    let before = consumer.next().await.ok_or("ended")??;
    broker.restart();
    until(&connection, |event| {
        matches!(event, RecoveryEvent::Recovered(_))
    })
    .await?;
    assert_eq!(before.ack(), Err(amqp_tokio::Error::Stale));
    let interrupted = consumer.next().await.ok_or("ended")?;
    assert!(matches!(
        interrupted,
        Err(amqp_tokio::Error::Interrupted(_))
    ));
    let again = consumer.next().await.ok_or("ended")??;
    assert!(again.method.redelivered);
    again.ack()?;
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn attempts_that_fail_in_the_handshake_interrupt_a_consumer_no_further() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue("tasks")?.durable(true);
    channel.call(declare).await?;
    let consume = basic::Consume::default().queue("tasks")?;
    let asking = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_with(consume, asking).await?;
    let cut = ByteFaults::both(Impairment::new().cut_after(100));
    broker.with(|broker| broker.faults().bytes_of_next(5, cut));
    broker.restart();
    let consuming = tokio::spawn(async move {
        let mut interruptions = 0;
        while let Some(Err(_)) = consumer.next().await {
            interruptions += 1;
        }
        interruptions
    });
    let (publish, properties) = (to("tasks")?, persistent());
    while channel
        .publish(&publish, &properties, "1")
        .await?
        .await
        .is_err()
    {}
    assert_eq!(timeout(PATIENCE, consuming).await??, 1);
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_was_in_flight_ends_and_what_comes_later_waits() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue("tasks")?.durable(true);
    channel.call(declare.clone()).await?;
    broker.pause();
    let confirm = channel.publish(&to("tasks")?, &persistent(), "1").await?;
    broker.stop();
    broker.resume();
    assert!(matches!(
        confirm.await,
        Err(Unconfirmed::Unknown(_) | Unconfirmed::NotSent(_))
    ));
    let (publish, properties) = (to("tasks")?, persistent());
    let mut waiting = Box::pin(channel.call(declare));
    let mut publishing = Box::pin(channel.publish(&publish, &properties, "2"));
    // Longer than any timeout of a request or a publish.
    assert!(
        timeout(Duration::from_secs(600), &mut waiting)
            .await
            .is_err()
    );
    assert!(
        timeout(Duration::from_secs(600), &mut publishing)
            .await
            .is_err()
    );
    broker.start();
    timeout(PATIENCE, waiting).await??;
    timeout(PATIENCE, publishing).await??.await?;
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn transient_entities_are_declared_again_with_their_bindings() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = exchange::Declare::default()
        .exchange("events")?
        .kind("topic")?;
    channel.call(declare).await?;
    let named = channel
        .call(queue::Declare::default().exclusive(true))
        .await?
        .queue;
    let bind = queue::Bind::default()
        .queue(named.clone())?
        .exchange("events")?;
    channel.call(bind.routing_key("#")?).await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue(named)?)
        .await?;
    broker.restart();
    until(&connection, |event| {
        matches!(event, RecoveryEvent::Recovered(_))
    })
    .await?;
    let publish = basic::Publish::default()
        .exchange("events")?
        .routing_key("a.b")?;
    channel
        .publish(&publish.mandatory(true), &persistent(), "1")
        .await?
        .await?;
    let delivery = consumer.next().await.ok_or("ended")??;
    assert_eq!(delivery.body, "1");
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn closing_while_the_broker_is_gone_ends_at_once() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue("none")?)
        .await;
    assert!(consumer.is_err());
    consumer = Err(amqp_tokio::Error::Recovering);
    drop(consumer);
    broker.stop();
    until(&connection, |event| matches!(event, RecoveryEvent::Lost(_))).await?;
    sleep(Duration::from_secs(5)).await;
    let waiting = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(basic::Qos::default().prefetch_count(1)).await }
    });
    sleep(Duration::from_secs(5)).await;
    assert!(connection.close().await.is_err());
    let waited = waiting.await?;
    assert!(
        matches!(waited, Err(amqp_tokio::Error::ConnectionClosed(_))),
        "{waited:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_first_connect_awaits_the_broker_if_asked() -> Outcome {
    let broker = LocalBroker::default();
    broker.stop();
    assert!(broker.connect_with(&options()).await.is_err());
    let options = Options::default().recovery(Policy::new(1).first_connect(true));
    let connecting = tokio::spawn({
        let broker = broker.clone();
        async move { broker.connect_with(&options).await }
    });
    sleep(Duration::from_secs(600)).await;
    assert!(!connecting.is_finished());
    broker.start();
    timeout(PATIENCE, connecting).await???.close().await?;
    broker.stop();
    let policy = Policy::new(1).first_connect(true).attempts(3);
    let few = Options::default().recovery(policy);
    let refused = timeout(PATIENCE, broker.connect_with(&few)).await?;
    assert!(refused.is_err());
    Ok(())
}
