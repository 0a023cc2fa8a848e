//! Connections that outlive their broker, under a paused clock.

#![cfg(feature = "broker")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use amqp_tokio::{
    Config, ConfirmChannel, Connection, ConsumeOptions, CredentialsError, CredentialsProvider,
    LocalBroker, Login, LoginFuture, Options, Unconfirmed,
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
    Ok(basic::Publish::default().routing_key(queue))
}

/// A connection that recovers, with a channel in confirm mode.
async fn open(broker: &LocalBroker) -> Result<(Connection, ConfirmChannel), Box<dyn Error>> {
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    Ok((connection, channel))
}

/// As [`open`], with the durable queue `tasks`.
async fn with_tasks(broker: &LocalBroker) -> Result<(Connection, ConfirmChannel), Box<dyn Error>> {
    let (connection, channel) = open(broker).await?;
    let declare = queue::Declare::default().queue("tasks");
    channel.call(declare.durable(true)).await?;
    Ok((connection, channel))
}

/// Publishes a message, and waits for its confirm.
async fn put(channel: &ConfirmChannel, queue: &str, body: &'static str) -> Outcome {
    let confirm = channel.publish(&to(queue)?, &persistent(), body).await?;
    Ok(confirm.await?)
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

async fn until_recovered(connection: &Connection) -> Outcome {
    until(connection, |event| {
        matches!(event, RecoveryEvent::Recovered(_))
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn the_same_handles_publish_and_consume_after_a_restart() -> Outcome {
    let broker = LocalBroker::default();
    let (connection, channel) = with_tasks(&broker).await?;
    let consume = basic::Consume::default().queue("tasks");
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
    let (connection, channel) = with_tasks(&broker).await?;
    let consume = basic::Consume::default().queue("tasks");
    let asking = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_with(consume, asking).await?;
    put(&channel, "tasks", "1").await?;
    let before = consumer.next().await.ok_or("ended")??;
    broker.restart();
    until_recovered(&connection).await?;
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
    let (connection, channel) = with_tasks(&broker).await?;
    let consume = basic::Consume::default().queue("tasks");
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
    let (connection, channel) = open(&broker).await?;
    let declare = queue::Declare::default().queue("tasks").durable(true);
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
    let (connection, channel) = open(&broker).await?;
    let declare = exchange::Declare::default()
        .exchange("events")
        .kind("topic");
    channel.call(declare).await?;
    let named = channel
        .call(queue::Declare::default().exclusive(true))
        .await?
        .queue;
    let bind = queue::Bind::default()
        .queue(named.clone())
        .exchange("events");
    channel.call(bind.routing_key("#")).await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue(named))
        .await?;
    broker.restart();
    until_recovered(&connection).await?;
    let publish = basic::Publish::default()
        .exchange("events")
        .routing_key("a.b");
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
        .consume(basic::Consume::default().queue("none"))
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

#[tokio::test(start_paused = true)]
async fn the_deadline_of_the_first_connect_ends_an_attempt() -> Outcome {
    let broker = LocalBroker::default();
    let limit = Duration::from_secs(3);
    let policy = Policy::new(1).first_connect(true).deadline(limit);
    let stalled = ByteFaults::new().to_client(Impairment::new().stall_after(0));
    broker.with(|broker| broker.faults().bytes_of_next(1, stalled));
    let begun = tokio::time::Instant::now();
    let options = Options::default().recovery(policy);
    let refused = timeout(PATIENCE, broker.connect_with(&options)).await?;
    assert!(refused.is_err());
    assert_eq!(begun.elapsed(), limit);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_topology_that_is_set_keeps_the_consumers() -> Outcome {
    let broker = LocalBroker::default();
    let (connection, channel) = with_tasks(&broker).await?;
    let consume = basic::Consume::default().queue("tasks");
    let mut consumer = channel.consume(consume).await?;
    let mut topology = amqp_tokio::recovery::Topology::default();
    for queue in ["tasks", "others"] {
        topology.declare_queue(queue::Declare::default().queue(queue).durable(true));
    }
    connection.set_topology(topology);
    broker.restart();
    until_recovered(&connection).await?;
    put(&channel, "tasks", "x").await?;
    let delivery = timeout(PATIENCE, consumer.next()).await?.ok_or("ended")??;
    assert_eq!(delivery.body, "x");
    delivery.ack()?;
    put(&channel, "others", "x").await?;
    assert!(broker.with(|broker| broker.queue("/", "others").is_some()));
    connection.close().await?;
    Ok(())
}

/// A provider of the default user that counts its calls.
#[derive(Default)]
struct Counting(AtomicUsize);

impl CredentialsProvider for Counting {
    fn login(&self) -> LoginFuture<'_> {
        self.0.fetch_add(1, Relaxed);
        Box::pin(async { Ok(Login::new("guest", "guest")) })
    }
}

/// A provider that fails at its second and third call.
#[derive(Default)]
struct Failing(Counting);

impl CredentialsProvider for Failing {
    fn login(&self) -> LoginFuture<'_> {
        match self.0.0.load(Relaxed) {
            1 | 2 => {
                self.0.0.fetch_add(1, Relaxed);
                Box::pin(async { Err(CredentialsError("no".into())) })
            }
            _ => self.0.login(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_fails_for_a_while_is_asked_again() -> Outcome {
    let broker = LocalBroker::default();
    let provider = Arc::new(Failing::default());
    let options = options().credentials(provider.clone());
    let connection = broker.connect_with(&options).await?;
    broker.restart();
    until_recovered(&connection).await?;
    assert_eq!(provider.0.0.load(Relaxed), 4);
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn credentials_are_asked_for_anew() -> Outcome {
    let broker = LocalBroker::default();
    let provider = Arc::new(Counting::default());
    let options = options().credentials(provider.clone());
    let connection = broker.connect_with(&options).await?;
    let mut events = connection.recovery_events();
    for number in 2..5 {
        broker.restart();
        loop {
            let event = timeout(PATIENCE, events.next()).await?.ok_or("ended")?;
            if let RecoveryEvent::Recovered(_) = event.event {
                break;
            }
        }
        assert_eq!(provider.0.load(Relaxed), number);
    }
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_binding_whose_exchange_is_gone_is_reported_and_the_rest_comes_back() -> Outcome {
    let broker = LocalBroker::default();
    let (connection, channel) = open(&broker).await?;
    let other = broker.connect(Config::default()).await?;
    let operator = other.open_channel().await?;
    let declare = exchange::Declare::default()
        .exchange("theirs")
        .kind("topic");
    operator.call(declare.durable(true)).await?;
    let queue = queue::Declare::default().queue("mine").exclusive(true);
    channel.call(queue).await?;
    let bind = queue::Bind::default().queue("mine").exchange("theirs");
    channel.call(bind).await?;
    let mut consumer = channel
        .consume(basic::Consume::default().queue("mine"))
        .await?;
    let delete = exchange::Delete::default().exchange("theirs");
    operator.call(delete).await?;
    broker.restart();
    let mut report = None;
    let mut events = connection.recovery_events();
    while report.is_none() {
        let event = timeout(PATIENCE, events.next()).await?.ok_or("ended")?;
        if let RecoveryEvent::Recovered(it) = event.event {
            report = Some(it);
        }
    }
    let failures = report.map(|it| it.failures).unwrap_or_default();
    assert_eq!(failures.len(), 1);
    assert!(
        failures[0].to_string().contains("theirs"),
        "{}",
        failures[0]
    );
    put(&channel, "mine", "1").await?;
    consumer.next().await.ok_or("ended")??.ack()?;
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn thousands_of_queues_are_declared_side_by_side_with_progress() -> Outcome {
    const QUEUES: usize = 5000;
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    for number in 0..QUEUES {
        let name = format!("queue {number}");
        channel.send(&queue::Declare::default().queue(name).exclusive(true))?;
        if number % 1000 == 0 {
            channel.call(basic::Qos::default()).await?;
        }
    }
    channel.call(basic::Qos::default()).await?;
    broker.restart();
    let mut events = connection.recovery_events();
    let mut progress = Vec::new();
    let report = loop {
        match timeout(PATIENCE, events.next())
            .await?
            .ok_or("ended")?
            .event
        {
            RecoveryEvent::Recovering { done, of } => progress.push((done, of)),
            RecoveryEvent::Recovered(report) => break report,
            _ => {}
        }
    };
    assert_eq!(report.failures, []);
    assert!(report.steps > QUEUES && report.round_trips < 50, "{report}");
    assert!((2..50).contains(&progress.len()), "{progress:?}");
    assert!(progress.is_sorted());
    let vhosts = broker.inspect().vhosts;
    assert_eq!(
        vhosts.iter().map(|it| it.queues.len()).sum::<usize>(),
        QUEUES
    );
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_close_during_the_outage_ends_with_the_reason_of_the_loss() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    broker.stop();
    until(&connection, |event| matches!(event, RecoveryEvent::Lost(_))).await?;
    let lost = connection.close().await.err().ok_or("it was lost")?;
    assert!(lost.is_connection_forced(), "{lost}");
    for _ in 0..2 {
        let closed = connection.closed().await;
        assert!(closed.is_connection_forced(), "{closed}");
        sleep(PATIENCE).await;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_consumer_without_acknowledgements_is_told_of_a_loss_behind_its_messages() -> Outcome {
    let broker = LocalBroker::default();
    let (connection, channel) = with_tasks(&broker).await?;
    let consume = basic::Consume::default().queue("tasks");
    let asking = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_no_ack_with(consume, asking).await?;
    for body in ["1", "2", "3"] {
        put(&channel, "tasks", body).await?;
    }
    broker.restart();
    until_recovered(&connection).await?;
    put(&channel, "tasks", "4").await?;
    for body in ["1", "2", "3"] {
        assert_eq!(consumer.next().await.ok_or("ended")??.body, body);
    }
    let interrupted = consumer.next().await.ok_or("ended")?;
    assert!(matches!(
        interrupted,
        Err(amqp_tokio::Error::Interrupted(_))
    ));
    assert_eq!(consumer.next().await.ok_or("ended")??.body, "4");
    connection.close().await?;
    Ok(())
}

/// Restarts the broker, and waits for the recovery.
async fn restart(broker: &LocalBroker, connection: &Connection) -> Outcome {
    let mut events = connection.recovery_events();
    while events.try_next().is_some() {}
    broker.restart();
    while let Some(change) = timeout(PATIENCE, events.next()).await? {
        if matches!(change.event, RecoveryEvent::Recovered(_)) {
            return Ok(());
        }
    }
    Err("the connection has ended".into())
}

#[tokio::test(start_paused = true)]
async fn each_interruption_is_reported_in_its_place() -> Outcome {
    let broker = LocalBroker::default();
    let (connection, channel) = with_tasks(&broker).await?;
    let consume = basic::Consume::default().queue("tasks");
    let asking = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_no_ack_with(consume, asking).await?;
    for body in ["1", "2"] {
        put(&channel, "tasks", body).await?;
        restart(&broker, &connection).await?;
    }
    // Without a message in between.
    restart(&broker, &connection).await?;
    put(&channel, "tasks", "3").await?;
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(
            match timeout(PATIENCE, consumer.next()).await?.ok_or("ended")? {
                Ok(message) => String::from_utf8(message.body.to_vec())?,
                Err(amqp_tokio::Error::Interrupted(_)) => "interrupted".to_owned(),
                Err(other) => return Err(other.into()),
            },
        );
    }
    assert_eq!(seen, ["1", "interrupted", "2", "interrupted", "3"]);
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn losses_in_a_row_are_one_interruption() -> Outcome {
    let broker = LocalBroker::default();
    let (connection, channel) = with_tasks(&broker).await?;
    let consume = basic::Consume::default().queue("tasks");
    let asking = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_with(consume, asking).await?;
    put(&channel, "tasks", "1").await?;
    for _ in 0..2 {
        // The delivery of each life is dropped with it.
        restart(&broker, &connection).await?;
    }
    let interrupted = timeout(PATIENCE, consumer.next()).await?.ok_or("ended")?;
    assert!(matches!(
        interrupted,
        Err(amqp_tokio::Error::Interrupted(_))
    ));
    let delivery = timeout(PATIENCE, consumer.next()).await?.ok_or("ended")??;
    assert_eq!(delivery.body, "1");
    delivery.ack()?;
    connection.close().await?;
    Ok(())
}
