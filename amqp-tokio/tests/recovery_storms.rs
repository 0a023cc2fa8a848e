//! Many losses, at random moments and at every byte of a restoration.

#![cfg(feature = "broker")]

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use amqp_tokio::{
    Config, Connection, LocalBroker, Options, TryPublishError, Unconfirmed,
    broker::{ByteFaults, Impairment},
    core::{Hold, Limits},
    protocol::{ReplyCode, basic, queue},
    recovery::{Backoff, Policy, RecoveryEvent},
};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

type Outcome = Result<(), Box<dyn Error>>;
type Fallible<T> = Result<T, amqp_tokio::Error>;

/// Longer than any recovery of these tests.
const PATIENCE: Duration = Duration::from_secs(3600);

const MS: Duration = Duration::from_millis(1);

/// Dials again after a millisecond.
fn policy() -> Policy {
    Policy::new(1).backoff(Backoff::default().first(MS).max(MS).jitter(0))
}

fn options() -> Options {
    Options::default().recovery(policy())
}

fn persistent() -> basic::Properties {
    basic::Properties::default().delivery_mode(2)
}

fn to(queue: &str) -> Fallible<basic::Publish> {
    Ok(basic::Publish::default().routing_key(queue))
}

fn durable(queue: &str) -> Fallible<queue::Declare> {
    Ok(queue::Declare::default().queue(queue).durable(true))
}

fn from(queue: &str) -> Fallible<basic::Consume> {
    Ok(basic::Consume::default().queue(queue))
}

/// A generator of numbers (SplitMix64).
#[derive(Clone, Debug)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// One random operation, dropped after a random time.
async fn operate(connection: &Connection, random: &mut Random) -> Fallible<()> {
    let channel = connection.open_channel().await?;
    match random.below(9) {
        0 => drop(channel.call(durable("tasks")?).await?),
        1 => {
            let mut consumer = channel.consume(from("tasks")?).await?;
            for _ in 0..random.below(4) {
                let Some(delivery) = consumer.next().await else {
                    break;
                };
                let delivery = delivery?;
                if random.below(2) == 0 {
                    let _stale = delivery.ack();
                }
            }
            if random.below(2) == 0 {
                consumer.cancel().await?;
            }
        }
        2 => {
            let consumer = channel.consume_no_ack(from("others")?).await;
            let mut consumer = consumer?;
            consumer.next().await.transpose()?;
        }
        3 => {
            if let Some(message) = channel.get(basic::Get::default().queue("tasks")).await? {
                message.ack()?;
            }
        }
        4 => {
            let channel = channel.confirm_select().await?;
            for _ in 0..5 {
                let (publish, properties) = (to("tasks")?, persistent());
                let _outcome = channel.publish(&publish, &properties, "x").await?.await;
            }
        }
        5 => {
            let channel = channel.tx_select().await?;
            let (publish, properties) = (to("others")?, persistent());
            channel.publish(&publish, &properties, "x").await?;
            channel.commit().await?;
        }
        6 => {
            connection.flush().await?;
            let none = queue::Declare::default().queue("none").passive(true);
            let _missing = channel.call(none.clone()).await;
            let _missing = channel.call(none).await;
        }
        7 => channel.close().await?,
        _ => {
            let publish = to("others")?;
            channel.publish(&publish, &persistent(), "x").await?;
            connection.within(5 * MS, connection.closed()).await;
        }
    }
    Ok(())
}

/// Makes the broker, or the network, fail in a random way.
async fn disturb(broker: &LocalBroker, random: &mut Random) {
    let bytes = random.below(2000);
    let cut = ByteFaults::new().from_client(Impairment::new().cut_after(bytes).split(97));
    match random.below(6) {
        0 => broker.close_connections("test"),
        1 => {
            broker.stop();
            sleep(MS * u32::try_from(random.below(20)).unwrap_or(0)).await;
            broker.start();
        }
        2 => {
            broker.with(|broker| broker.faults().bytes_of_next(1, cut));
            broker.close_connections("test");
        }
        3 => {
            broker.with(|broker| {
                let keys: Vec<_> = broker
                    .inspect()
                    .connections
                    .iter()
                    .map(|it| it.key)
                    .collect();
                for key in keys {
                    broker.faults().bytes(key, cut);
                }
            });
        }
        4 => broker.with(|broker| {
            let connections = broker.inspect().connections;
            for connection in connections {
                for channel in connection.channels {
                    let (code, text) = (ReplyCode::NOT_FOUND, "NOT_FOUND - test");
                    broker
                        .faults()
                        .close_channel(connection.key, channel.number, code, text);
                }
            }
        }),
        _ => {
            broker.pause();
            sleep(MS * u32::try_from(random.below(20)).unwrap_or(0)).await;
            broker.resume();
        }
    }
}

/// Random operations of several tasks over random losses, each operation dropped at a random time:
/// afterwards the connection works, and nothing is left behind.
async fn storm(seed: u64, losses: u64) -> Outcome {
    let mut random = Random(seed);
    let broker = LocalBroker::default();
    let limits = Limits::default().undelivered(2000).unconfirmed(3);
    let config = Config::default().limits(limits).heartbeat(10);
    let connection = broker.connect_with(&options().config(config)).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    channel.call(durable("others")?).await?;
    let mut tasks = JoinSet::new();
    for task in 0..6 {
        let (connection, mut random) = (connection.clone(), Random(seed * 1000 + task));
        tasks.spawn(async move {
            loop {
                let limit = MS * u32::try_from(random.below(30)).unwrap_or(0);
                let _outcome = timeout(limit, operate(&connection, &mut random)).await;
                sleep(MS).await;
            }
        });
    }
    let mut confirmed = 0;
    for number in 0..losses {
        let publishing = tokio::spawn({
            let channel = channel.clone();
            async move {
                let (publish, properties) = (to("none")?, persistent());
                let body = number.to_be_bytes().to_vec();
                let outcome = channel.publish(&publish, &properties, body).await?.await;
                Ok::<_, amqp_tokio::Error>(outcome.is_ok())
            }
        });
        disturb(&broker, &mut random).await;
        sleep(MS * u32::try_from(random.below(40)).unwrap_or(0)).await;
        if let Ok(true) = timeout(PATIENCE, publishing).await?? {
            confirmed += 1;
        }
    }
    tasks.abort_all();
    while tasks.join_next().await.is_some() {}
    // The state is that of a connection that was never lost.
    timeout(PATIENCE, channel.call(durable("tasks")?)).await??;
    timeout(PATIENCE, connection.flush()).await??;
    sleep(Duration::from_secs(60)).await;
    println!("seed {seed}: {confirmed} of {losses} confirmed");
    assert_eq!(connection.stats().untaken, 0, "seed {seed}");
    let topology = connection.topology().ok_or("none")?;
    assert_eq!(topology.channels().count(), 1, "seed {seed}: {topology:?}");
    assert_eq!(connection.channel_count(), 1, "seed {seed}");
    let open: usize = broker
        .inspect()
        .connections
        .iter()
        .map(|it| it.channels.len())
        .sum();
    assert_eq!(open, 1, "seed {seed}");
    timeout(PATIENCE, connection.close()).await??;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn random_operations_over_random_losses_leave_nothing_behind() -> Outcome {
    let begin = std::env::var("STORM_SEED").map_or(Ok(1), |it| it.parse())?;
    let count = std::env::var("STORM_COUNT").map_or(Ok(3), |it| it.parse())?;
    for seed in begin..begin + count {
        timeout(48 * PATIENCE, storm(seed, 20))
            .await
            .map_err(|_| format!("seed {seed} hangs"))??;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_loss_at_every_byte_of_a_restoration_is_another_loss() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let exclusive = queue::Declare::default().exclusive(true);
    let name = channel.call(exclusive).await?.queue;
    let _consumer = channel.consume(from(&name)?).await?;
    for bytes in (0..1600).step_by(7) {
        let cut = Impairment::new().cut_after(bytes);
        let faults = ByteFaults::new();
        for faults in [faults.from_client(cut), faults.to_client(cut)] {
            broker.with(|broker| broker.faults().bytes_of_next(1, faults));
            broker.close_connections("test");
            let calling = channel.call(basic::Qos::default().prefetch_count(9));
            let _in_flight = timeout(PATIENCE, calling).await?;
            let publishing = channel.publish(&to("none")?, &persistent(), "x").await;
            let _outcome = timeout(PATIENCE, publishing?).await?;
        }
    }
    timeout(PATIENCE, channel.call(basic::Qos::default())).await??;
    connection.close().await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn each_confirm_has_one_outcome_over_a_thousand_losses() -> Outcome {
    let broker = LocalBroker::default();
    let limits = Limits::default().unconfirmed(7);
    let options = options().config(Config::default().limits(limits));
    let connection = broker.connect_with(&options).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    let mut publishers = JoinSet::new();
    for task in 0..4_u64 {
        let channel = channel.clone();
        publishers.spawn(async move {
            let mut counts = [0_u64; 4];
            for number in 0..2000_u64 {
                let body = [task.to_be_bytes(), number.to_be_bytes()].concat();
                let (publish, properties) = (to("tasks")?, persistent());
                let confirm = channel.publish(&publish, &properties, body).await?;
                let at = match confirm.await {
                    Ok(()) => 0,
                    Err(Unconfirmed::NotSent(_)) => 1,
                    Err(Unconfirmed::Unknown(_)) => 2,
                    Err(_) => 3,
                };
                counts[at] += 1;
                sleep(MS).await;
            }
            Ok::<_, amqp_tokio::Error>(counts)
        });
    }
    let disturbing = tokio::spawn({
        let broker = broker.clone();
        async move {
            let mut random = Random(5);
            for _ in 0..1000 {
                sleep(Duration::from_micros(500 + random.below(4000))).await;
                let bytes = random.below(3000);
                let cut = ByteFaults::new().from_client(Impairment::new().cut_after(bytes));
                broker.with(|broker| {
                    let keys: Vec<_> = broker
                        .inspect()
                        .connections
                        .iter()
                        .map(|it| it.key)
                        .collect();
                    for key in keys {
                        broker.faults().bytes(key, cut);
                    }
                });
            }
        }
    });
    let mut counts = [0; 4];
    while let Some(publisher) = timeout(24 * PATIENCE, publishers.join_next()).await? {
        for (all, one) in counts.iter_mut().zip(publisher??) {
            *all += one;
        }
    }
    disturbing.abort();
    println!("{counts:?} acked, not sent, unknown, other");
    assert_eq!(counts.iter().sum::<u64>(), 8000);
    let other = broker.connect_with(&Options::default()).await?;
    let other = other.open_channel().await?;
    let mut received = std::collections::BTreeMap::new();
    while let Some(message) = other.get(basic::Get::default().queue("tasks")).await? {
        *received.entry(message.body.to_vec()).or_insert(0) += 1;
        message.ack()?;
    }
    assert!(received.values().all(|&count| count == 1));
    let received = received.len() as u64;
    assert!(
        received >= counts[0] && received <= counts[0] + counts[2],
        "{received}"
    );
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_thousand_channels_and_consumers_come_back() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let declaring = connection.open_channel().await?;
    declaring.call(durable("tasks")?).await?;
    let mut consumers = Vec::new();
    for _ in 0..1000 {
        let channel = connection.open_channel().await?;
        consumers.push(channel.consume(from("tasks")?).await?);
    }
    for _ in 0..3 {
        broker.close_connections("test");
        timeout(PATIENCE, declaring.call(durable("tasks")?))
            .await?
            .ok();
        // Some are dropped as the others are restored.
        for _ in 0..100 {
            drop(consumers.pop());
            tokio::task::yield_now().await;
        }
    }
    timeout(PATIENCE, declaring.call(durable("tasks")?)).await??;
    connection.flush().await?;
    sleep(Duration::from_secs(1)).await;
    let count = broker.with(|broker| broker.queue("/", "tasks").map(|it| it.consumers.len()));
    assert_eq!(count, Some(700));
    assert_eq!(connection.channel_count(), 701);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_body_comes_back_while_the_connection_is_lost() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?;
    broker.stop();
    sleep(Duration::from_secs(1)).await;
    let refused = channel.try_publish(&to("tasks")?, &persistent(), "body");
    let Err(TryPublishError::HeldBack { hold, body }) = refused else {
        return Err(format!("{refused:?}").into());
    };
    assert_eq!((hold, body.to_vec()), (Hold::Recovering, b"body".to_vec()));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_threads_go_on_over_a_hundred_losses() -> Outcome {
    let broker = LocalBroker::default();
    let connection = broker.connect_with(&options()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(durable("tasks")?).await?;
    let stop = Arc::new(AtomicU64::new(0));
    let mut tasks = JoinSet::new();
    for task in 0..16 {
        let (connection, channel, stop) = (connection.clone(), channel.clone(), Arc::clone(&stop));
        tasks.spawn(async move {
            let mut random = Random(task);
            while stop.load(SeqCst) == 0 {
                if task % 2 == 0 {
                    let limit = MS * u32::try_from(random.below(10)).unwrap_or(0);
                    let _outcome = timeout(limit, operate(&connection, &mut random)).await;
                } else {
                    let (publish, properties) = (to("tasks")?, persistent());
                    let _outcome = channel.publish(&publish, &properties, "x").await?.await;
                }
            }
            Ok::<_, amqp_tokio::Error>(())
        });
    }
    for loss in 0..100 {
        broker.close_connections("test");
        sleep(5 * MS).await;
        if loss % 10 == 0 {
            broker.restart();
        }
    }
    stop.store(1, SeqCst);
    while let Some(task) = timeout(Duration::from_secs(60), tasks.join_next()).await? {
        task??;
    }
    timeout(Duration::from_secs(60), channel.call(durable("tasks")?)).await??;
    let mut lost = 0;
    let mut events = connection.recovery_events();
    while let Some(change) = events.try_next() {
        lost += u32::from(matches!(change.event, RecoveryEvent::Lost(_)));
    }
    assert!(lost > 0);
    timeout(Duration::from_secs(60), connection.close()).await??;
    Ok(())
}
