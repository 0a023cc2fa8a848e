//! Handles that wait, are dropped or are closed while their connection is lost or restored, under a
//! paused clock.

#![cfg(feature = "broker")]

use std::{error::Error, future::pending, sync::Arc, time::Duration};

use amqp_tokio::{
    BaseChannel, Config, Connection, ConnectionState, ConsumeOptions, CredentialsProvider,
    LocalBroker, LoginFuture, Options, Tags,
    broker::{ByteFaults, Impairment},
    core::{CloseCause, Limits, Timeouts},
    protocol::{ReplyCode, basic, queue},
    recovery::{Backoff, GiveUp, Mode, OnFailure, Policy, RecoveryEvent},
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

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
    Ok(basic::Publish::default().routing_key(queue)?)
}

fn durable(queue: &str) -> Result<queue::Declare, amqp_tokio::Error> {
    Ok(queue::Declare::default().queue(queue)?.durable(true))
}

fn from(queue: &str) -> Result<basic::Consume, amqp_tokio::Error> {
    Ok(basic::Consume::default().queue(queue)?)
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
    let none = queue::Declare::default().queue("none")?.passive(true);
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

#[tokio::test(start_paused = true)]
async fn an_interruption_is_reported_once_though_handshakes_fail() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    channel.call(durable("tasks")?).await?;
    let asking = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_with(from("tasks")?, asking).await?;
    let cut = ByteFaults::new().from_client(Impairment::new().cut_after(100));
    broker.with(|broker| broker.faults().bytes_of_next(5, cut));
    broker.close_connections("test");
    let mut interruptions = 0;
    while let Ok(next) = timeout(Duration::from_secs(60), consumer.next()).await {
        let next = next.ok_or("ended")?;
        assert!(matches!(next, Err(amqp_tokio::Error::Interrupted(_))));
        interruptions += 1;
    }
    assert_eq!(interruptions, 1);
    assert!(connection.is_open());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_publish_begins_with_the_end_of_the_recovery() -> Outcome {
    let broker = LocalBroker::default();
    let timeouts = Timeouts::default().publish(30 * SECOND);
    let config = Config::default()
        .limits(Limits::default().unconfirmed(1))
        .timeouts(timeouts)
        .heartbeat(0);
    let connection = broker.connect_with(&options().config(config)).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    broker.stop();
    until(&connection, is_lost).await?;
    let mut publishers = JoinSet::new();
    let begun = Instant::now();
    for _ in 0..10 {
        let channel = channel.clone();
        publishers.spawn(async move {
            let (publish, properties) = (to("tasks")?, persistent());
            let published = channel.publish(&publish, &properties, "1").await;
            if published.is_ok() {
                pending::<()>().await;
            }
            published.map(drop)
        });
    }
    sleep(25 * SECOND).await;
    broker.with(|broker| broker.faults().memory_alarm(true));
    broker.start();
    until(&connection, is_recovered).await?;
    let timed_out = timeout(60 * SECOND, publishers.join_next())
        .await?
        .ok_or("none")??;
    assert!(
        matches!(timed_out, Err(amqp_tokio::Error::TimedOut(_))),
        "{timed_out:?}"
    );
    assert_eq!(begun.elapsed().as_secs(), 25 + 30);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn publishers_in_line_go_on_in_order() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker
        .connect_with(&with_limits(Limits::default().unconfirmed(1)))
        .await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    broker.pause();
    let first = channel
        .publish(&to("tasks")?, &persistent(), "lost")
        .await?;
    let mut publishers = JoinSet::new();
    let mut publish = |number: u8| {
        let channel = channel.clone();
        publishers.spawn(async move {
            let (publish, properties) = (to("tasks")?, persistent());
            let confirm = channel.publish(&publish, &properties, vec![number]).await?;
            assert!(confirm.await.is_ok());
            Ok::<_, amqp_tokio::Error>(())
        });
    };
    for number in 0..5 {
        publish(number);
        tokio::task::yield_now().await;
    }
    broker.stop();
    broker.resume();
    until(&connection, is_lost).await?;
    assert!(first.await.is_err());
    for number in 5..10 {
        publish(number);
        tokio::task::yield_now().await;
    }
    broker.start();
    while let Some(published) = timeout(PATIENCE, publishers.join_next()).await? {
        published??;
    }
    let mut numbers = Vec::new();
    while let Some(message) = channel.get(basic::Get::default().queue("tasks")?).await? {
        numbers.extend(message.body.to_vec());
        message.ack()?;
    }
    assert_eq!(numbers, (0..10).collect::<Vec<u8>>());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_consumer_dropped_while_others_are_restored_gets_no_message_again_and_again() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    channel
        .publish(&to("tasks")?, &persistent(), "1")
        .await?
        .await?;
    let consumer = channel.consume(from("tasks")?).await?;
    let _other = keep_busy(&broker, &connection).await?;
    let before = channel.stats().ok_or("no channel")?.delivered;
    drop(consumer);
    sleep(5 * SECOND).await;
    let delivered = channel.stats().ok_or("no channel")?.delivered - before;
    assert!(delivered <= 2, "{delivered} deliveries");
    until(&connection, is_recovered).await?;
    let message = channel.get(basic::Get::default().queue("tasks")?).await?;
    message.ok_or("no message")?.ack()?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn channels_dropped_or_closed_while_others_are_restored_are_gone() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let mut channels = Vec::new();
    for _ in 0..20 {
        channels.push(connection.open_channel().await?);
    }
    let _other = keep_busy(&broker, &connection).await?;
    for (at, channel) in channels.into_iter().enumerate() {
        if at % 2 == 0 {
            timeout(SECOND, channel.close()).await??;
        }
    }
    until(&connection, is_recovered).await?;
    sleep(SECOND).await;
    let connections = broker.inspect().connections;
    let open: usize = connections.iter().map(|it| it.channels.len()).sum();
    // That of the other connection.
    assert_eq!(open, 1);
    timeout(SECOND, connection.open_channel()).await??;
    assert!(connection.topology().ok_or("none")?.channels().count() <= 2);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_new_channel_takes_no_number_of_one_that_is_being_reopened() -> Outcome {
    let broker = LocalBroker::default();
    let config = Config::default().channel_max(2);
    let connection = broker.connect_with(&options().config(config)).await?;
    let (one, two) = (
        connection.open_channel().await?,
        connection.open_channel().await?,
    );
    fail(&one).await?;
    fail(&one).await?;
    // It is reopened after a delay.
    two.close().await?;
    let three = connection.open_channel().await?;
    assert_ne!(three.id().number(), one.id().number());
    let waiting = one.call(basic::Qos::default().prefetch_count(1));
    timeout(PATIENCE, waiting).await??;
    assert!(connection.open_channel().await.is_err());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_consumer_that_the_mode_excludes_ends_with_its_channel() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default().recovery(policy().mode(Mode::ConnectionOnly));
    let connection = broker.connect_with(&options).await?;
    let channel = connection.open_channel().await?;
    channel.call(durable("tasks")?).await?;
    let mut consumer = channel.consume(from("tasks")?).await?;
    fail(&channel).await?;
    let end = timeout(PATIENCE, consumer.next()).await?;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    // The channel goes on.
    timeout(PATIENCE, channel.call(durable("tasks")?)).await??;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_recovery_that_is_given_up_is_the_one_end_of_all_handles() -> Outcome {
    let broker = LocalBroker::default();
    let mut policy = policy();
    policy.queues.precondition_failed = OnFailure::GiveUp;
    let connection = broker
        .connect_with(&Options::default().recovery(policy))
        .await?;
    let channel = connection.open_channel().await?;
    channel.call(durable("tasks")?.durable(false)).await?;
    let mut consumer = channel.consume(from("tasks")?).await?;
    broker.stop();
    broker.start();
    let other = broker.connect_with(&options()).await?;
    other.open_channel().await?.call(durable("tasks")?).await?;
    let first = timeout(PATIENCE, connection.closed()).await?;
    assert!(
        matches!(first.cause(), CloseCause::NotRecovered { .. }),
        "{first}"
    );
    let end = timeout(PATIENCE, consumer.next()).await?;
    assert!(matches!(end, Some(Err(_))), "{end:?}");
    sleep(PATIENCE).await;
    assert_eq!(connection.close_reason(), Some(first));
    let mut events = connection.recovery_events();
    let mut last = None;
    while let Some(change) = events.next().await {
        last = Some(change.event);
    }
    assert!(
        matches!(last, Some(RecoveryEvent::GaveUp(GiveUp::Step(_)))),
        "{last:?}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_prefetch_that_was_in_flight_is_set_for_the_next_consumer() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    channel.call(durable("tasks")?).await?;
    broker.pause();
    let mut calls = JoinSet::new();
    let declaring = channel.clone();
    calls.spawn(async move { declaring.call(durable("tasks")?).await.map(drop) });
    tokio::task::yield_now().await;
    let consuming = channel.clone();
    calls.spawn(async move { consuming.consume(from("tasks")?).await.map(drop) });
    tokio::task::yield_now().await;
    broker.stop();
    broker.resume();
    while let Some(called) = calls.join_next().await {
        assert!(called?.is_err());
    }
    broker.start();
    let _consumer = timeout(PATIENCE, channel.consume(from("tasks")?)).await??;
    let inspection = broker.inspect();
    let queue = inspection
        .vhosts
        .iter()
        .flat_map(|it| &it.queues)
        .next()
        .ok_or("none")?;
    assert_eq!(queue.consumers.first().ok_or("none")?.prefetch, 1000);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn closing_while_lost_is_the_last_event() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    broker.stop();
    until(&connection, is_lost).await?;
    let mut events = connection.recovery_events();
    sleep(10 * SECOND).await;
    assert!(connection.close().await.is_err());
    let reason = connection.close_reason();
    sleep(10 * SECOND).await;
    assert_eq!(connection.close_reason(), reason);
    let mut last = None;
    while let Some(change) = timeout(SECOND, events.next()).await? {
        last = Some(change.event);
    }
    assert!(
        matches!(last, Some(RecoveryEvent::GaveUp(GiveUp::Stopped))),
        "{last:?}"
    );
    Ok(())
}

/// Has credentials once, and hangs afterwards.
#[derive(Debug, Default)]
struct Once(std::sync::atomic::AtomicBool);

impl CredentialsProvider for Once {
    fn login(&self) -> LoginFuture<'_> {
        let first = !self.0.swap(true, std::sync::atomic::Ordering::SeqCst);
        Box::pin(async move {
            if !first {
                pending::<()>().await;
            }
            Ok(amqp_tokio::Login::new("guest", "guest"))
        })
    }
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_hangs_is_bounded_by_the_deadline_and_by_a_close() -> Outcome {
    for closes in [false, true] {
        let broker = LocalBroker::default();
        let options = Options::default()
            .recovery(policy().deadline(600 * SECOND))
            .credentials(Arc::new(Once::default()));
        let connection = broker.connect_with(&options).await?;
        broker.close_connections("test");
        until(&connection, is_lost).await?;
        sleep(5 * SECOND).await;
        if closes {
            assert!(timeout(SECOND, connection.close()).await?.is_err());
        } else {
            let reason = timeout(700 * SECOND, connection.closed()).await?;
            assert!(
                matches!(reason.cause(), CloseCause::NotRecovered { .. }),
                "{reason}"
            );
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_dialled_again_and_a_close_meanwhile_ends_at_once() -> Outcome {
    for stalled in [0, 8, 300, 500] {
        for closes in [false, true] {
            let broker = LocalBroker::default();
            let connection = broker.connect_with(&options()).await?;
            let stall = ByteFaults::new().to_client(Impairment::new().stall_after(stalled));
            broker.with(|broker| broker.faults().bytes_of_next(1, stall));
            broker.close_connections("test");
            until(&connection, is_lost).await?;
            sleep(2 * SECOND).await;
            if closes {
                let closed = timeout(60 * SECOND, connection.close()).await?;
                println!("{stalled}: {closed:?}");
                assert!(connection.close_reason().is_some());
            } else {
                timeout(PATIENCE, connection.open_channel()).await??;
            }
        }
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_closes_while_it_is_restored_is_closing() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let _other = keep_busy(&broker, &connection).await?;
    let mut states = connection.states();
    assert_eq!(states.next().await, Some(ConnectionState::Recovering));
    broker.pause();
    let closing = tokio::spawn({
        let connection = connection.clone();
        async move { connection.close().await }
    });
    tokio::task::yield_now().await;
    assert_eq!(
        timeout(SECOND, states.next()).await?,
        Some(ConnectionState::Closing)
    );
    broker.resume();
    timeout(PATIENCE, closing).await???;
    assert!(
        matches!(states.next().await, Some(ConnectionState::Closed(reason)) if reason.is_clean())
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_room_of_messages_that_are_lost_is_free_again() -> Outcome {
    let broker = LocalBroker::default();
    let limits = Limits::default().undelivered(4096);
    let connection = broker.connect_with(&with_limits(limits)).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    for _ in 0..100 {
        let (publish, properties) = (to("tasks")?, persistent());
        channel
            .publish(&publish, &properties, vec![0; 1000])
            .await?
            .await?;
    }
    let (mut one, two) = (
        channel.consume(from("tasks")?).await?,
        channel.consume(from("tasks")?).await?,
    );
    sleep(SECOND).await;
    for _ in 0..5 {
        broker.close_connections("test");
        sleep(10 * SECOND).await;
        let delivery = timeout(SECOND, one.next()).await?.ok_or("ended")??;
        drop(delivery);
        println!("{:?}", connection.stats().untaken);
    }
    drop(two);
    for _ in 0..100 {
        // The unacknowledged ones of before have come again.
        timeout(PATIENCE, one.next())
            .await?
            .ok_or("ended")??
            .ack()?;
        if broker.with(|broker| {
            broker
                .queue("/", "tasks")
                .is_some_and(|it| it.ready == 0 && it.unacked == 0)
        }) {
            break;
        }
    }
    drop(one);
    channel.call(basic::Qos::default()).await?;
    assert_eq!(connection.stats().untaken, 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_runtime_ends_a_lost_connection() -> Outcome {
    for lost in [0, 5, 10] {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .start_paused(true)
                .build()
                .unwrap();
            let connection = runtime.block_on(async {
                let broker = LocalBroker::default();
                let connection = broker.connect_with(&options()).await.unwrap();
                if lost > 0 {
                    broker.stop();
                    until(&connection, is_lost).await.unwrap();
                    sleep(Duration::from_millis(100 * lost)).await;
                }
                connection
            });
            drop(runtime);
            sender.send(connection).unwrap();
        });
        thread.join().map_err(|_| "panicked")?;
        let connection = receiver.await?;
        timeout(SECOND, connection.closed()).await?;
        assert!(connection.open_channel().await.is_err());
        assert!(connection.close().await.is_err());
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_time_of_a_loss_is_its_own_after_an_idle_hour() -> Outcome {
    let broker = LocalBroker::default();
    let options = Options::default()
        .recovery(policy().deadline(60 * SECOND))
        .config(Config::default().heartbeat(0));
    let connection = broker.connect_with(&options).await?;
    sleep(PATIENCE).await;
    let lost = Instant::now();
    broker.close_connections("test");
    until(&connection, is_recovered).await?;
    assert_eq!(
        lost.elapsed().as_secs(),
        1,
        "the delay of the first attempt"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_lost_with_its_connection_goes_on() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    let connections = broker.inspect().connections;
    let key = connections.first().ok_or("none")?.key;
    broker.with(|broker| {
        let (code, text) = (ReplyCode::NOT_FOUND, "NOT_FOUND - test");
        let number = channel.number();
        broker.faults().close_channel(key, number, code, text);
    });
    broker.close_connections("test");
    until(&connection, is_recovered).await?;
    timeout(PATIENCE, channel.call(durable("tasks")?)).await??;
    assert!(channel.is_open());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_is_lost_while_others_are_restored_goes_on() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    let connections = broker.inspect().connections;
    let before = connections.first().ok_or("none")?.key;
    let other = keep_busy(&broker, &connection).await?;
    sleep(SECOND).await;
    let connections = broker.inspect().connections;
    for connection in connections.iter().filter(|it| it.key != before) {
        for open in connection.channels.iter().filter(|it| it.consumers == 0) {
            broker.with(|broker| {
                let (code, text) = (ReplyCode::NOT_FOUND, "NOT_FOUND - test");
                broker
                    .faults()
                    .close_channel(connection.key, open.number, code, text);
            });
        }
    }
    until(&connection, |event| {
        matches!(event, RecoveryEvent::ChannelLost { .. })
    })
    .await?;
    until(&connection, is_recovered).await?;
    timeout(PATIENCE, channel.call(durable("tasks")?)).await??;
    other.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_loss_right_behind_the_last_reply_of_a_recovery_is_waited_for() -> Outcome {
    let broker = LocalBroker::default();
    let config = Config::default().heartbeat(0);
    let connection = broker.connect_with(&options().config(config)).await?;
    let channel = connection.open_channel().await?;
    let other = broker.connect_with(&options()).await?;
    other.open_channel().await?.call(durable("tasks")?).await?;
    other.close().await?;
    // It is not part of the topology: the only step is to reopen the channel.
    let tasks = durable("tasks")?.passive(true);
    let mut events = connection.recovery_events();
    let mut lost = async || {
        while let Some(change) = timeout(PATIENCE, events.next()).await? {
            if is_lost(&change.event) {
                return Ok(());
            }
        }
        Err::<(), Box<dyn Error>>("the connection has ended".into())
    };
    for bytes in (0..800).step_by(5) {
        let stall = ByteFaults::new().to_client(Impairment::new().stall_after(bytes));
        broker.with(|broker| broker.faults().bytes_of_next(1, stall));
        broker.close_connections("test");
        lost().await?;
        sleep(2 * SECOND).await;
        // Both arrive together.
        broker.close_connections("test");
        let connections = broker.inspect().connections;
        for it in connections {
            broker.with(|broker| broker.faults().bytes(it.key, ByteFaults::default()));
        }
        sleep(SECOND / 2).await;
        timeout(PATIENCE, channel.call(tasks.clone())).await??;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn deliveries_of_a_restoration_that_goes_on_can_be_acknowledged() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    for _ in 0..5 {
        let (publish, properties) = (to("tasks")?, persistent());
        channel.publish(&publish, &properties, "x").await?.await?;
    }
    let prefetch = ConsumeOptions::default().prefetch(amqp_tokio::Prefetch::Count(3));
    let mut consumer = channel.consume_with(from("tasks")?, prefetch).await?;
    let mut before = Vec::new();
    for _ in 0..3 {
        before.push(timeout(SECOND, consumer.next()).await?.ok_or("ended")??);
    }
    let _other = keep_busy(&broker, &connection).await?;
    let first = before.remove(0);
    assert_eq!(
        channel.ack(Tags::UpTo(first.acker.tag())),
        Err(amqp_tokio::Error::Stale)
    );
    assert_eq!(
        before.remove(0).acker.ack_up_to(),
        Err(amqp_tokio::Error::Stale)
    );
    for _ in 0..2 {
        let again = timeout(SECOND, consumer.next()).await?.ok_or("ended")??;
        assert!(again.method.redelivered);
        again.ack()?;
    }
    assert_eq!(before.remove(0).ack(), Err(amqp_tokio::Error::Stale));
    for _ in 0..3 {
        let last = timeout(SECOND, consumer.next()).await?.ok_or("ended")??;
        drop(last);
    }
    assert!(
        timeout(SECOND, consumer.next()).await.is_err(),
        "the prefetch is 3"
    );
    channel.ack(Tags::All)?;
    sleep(SECOND).await;
    let left = broker.with(|broker| broker.queue("/", "tasks").map(|it| (it.ready, it.unacked)));
    assert_eq!(left, Some((0, 0)));
    assert!(connection.stats().untaken == 0);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_tag_is_free_for_another_consumer_after_a_cancel_while_lost() -> Outcome {
    for busy in [false, true] {
        let broker = LocalBroker::default();
        let connection = broker.connect_with(&options()).await?;
        let channel = connection.open_channel().await?.confirm_select().await?;
        channel.call(durable("tasks")?).await?;
        let tagged = from("tasks")?.consumer_tag("mine")?;
        let mut one = channel.consume(tagged.clone()).await?;
        let mut other = None;
        if busy {
            other = Some(keep_busy(&broker, &connection).await?);
        } else {
            broker.close_connections("test");
            until(&connection, is_lost).await?;
        }
        timeout(SECOND, one.cancel()).await??;
        assert!(timeout(SECOND, one.next()).await?.is_none());
        let mut two = timeout(PATIENCE, channel.consume(tagged)).await??;
        let (publish, properties) = (to("tasks")?, persistent());
        channel.publish(&publish, &properties, "x").await?.await?;
        timeout(SECOND, two.next()).await?.ok_or("ended")??.ack()?;
        let consumers =
            broker.with(|broker| broker.queue("/", "tasks").map(|it| it.consumers.len()));
        assert_eq!(consumers, Some(1));
        drop((one, two, other));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn handles_dropped_in_any_order_while_lost_end_the_connection() -> Outcome {
    for order in 0..24 {
        for restoring in [false, true] {
            let broker = LocalBroker::default();
            let connection = broker.connect_with(&options()).await?;
            let channel = connection.open_channel().await?;
            channel.call(durable("tasks")?).await?;
            let consumer = channel.consume(from("tasks")?).await?;
            let events = connection.recovery_events();
            let mut states = connection.states();
            let mut other = None;
            if restoring {
                other = Some(keep_busy(&broker, &connection).await?);
            } else {
                broker.stop();
                until(&connection, is_lost).await?;
            }
            let mut handles: Vec<Box<dyn std::any::Any>> = vec![
                Box::new(connection),
                Box::new(channel),
                Box::new(consumer),
                Box::new(events),
            ];
            let mut left = order;
            while !handles.is_empty() {
                let at = left % handles.len();
                left /= handles.len() + 1;
                drop(handles.swap_remove(at));
                tokio::task::yield_now().await;
            }
            let ended = async {
                while let Some(state) = states.next().await {
                    if matches!(state, ConnectionState::Closed(_)) {
                        break;
                    }
                }
            };
            // The consumer of the busy queue has a handle until its restoration ends.
            timeout(if restoring { 30 * SECOND } else { SECOND }, ended).await?;
            drop(other);
        }
    }
    Ok(())
}
