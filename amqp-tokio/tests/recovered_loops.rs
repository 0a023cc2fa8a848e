//! Loops over deliveries that go on when their connection is recovered, under a paused clock.

#![cfg(feature = "broker")]

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};

use amqp_tokio::{
    ConsumerGroup, EndReason, ForEachOptions, LocalBroker, OnFailure, Options,
    protocol::{basic, queue},
    recovery::Policy,
};
use tokio::{sync::oneshot, task, time};

type Outcome = Result<(), Box<dyn Error>>;

/// Longer than any recovery of these tests.
const PATIENCE: Duration = Duration::from_secs(3600);

const JOBS: u32 = 300;

/// A broker with persistent jobs in a queue.
async fn with_jobs(queue: &str) -> Result<LocalBroker, Box<dyn Error>> {
    let broker = LocalBroker::default();
    let connection = broker.connect(amqp_tokio::Config::default()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let declare = queue::Declare::default().queue(queue).durable(true);
    channel.call(declare).await?;
    let publish = basic::Publish::default().routing_key(queue);
    let persistent = basic::Properties::default().delivery_mode(2);
    for number in 0..JOBS {
        let confirm = channel.publish(&publish, &persistent, number.to_string());
        confirm.await?.await?;
    }
    connection.close().await?;
    Ok(broker)
}

#[tokio::test(start_paused = true)]
async fn a_loop_goes_on_after_restarts_and_loses_nothing() -> Outcome {
    for merged in [false, true] {
        let broker = with_jobs("jobs").await?;
        let options = Options::default().recovery(Policy::new(1));
        let connection = broker.connect_with(&options).await?;
        let channel = connection.open_channel().await?;
        let consume = basic::Consume::default().queue("jobs");
        let consumer = channel.consume(consume).await?;

        let mut options = ForEachOptions::new(OnFailure::Reject)
            .order_by(|message| message.body.to_vec().last().copied());
        if merged {
            options = options.batch_acks(16, Duration::from_millis(100));
        }
        let handled = Arc::new(Mutex::new(BTreeMap::<Vec<u8>, u32>::new()));
        let noted = Arc::clone(&handled);
        let work = consumer.for_each_concurrent(8, options, move |message| {
            let noted = Arc::clone(&noted);
            async move {
                time::sleep(Duration::from_millis(30)).await;
                *noted
                    .lock()
                    .unwrap()
                    .entry(message.body.to_vec())
                    .or_default() += 1;
                Ok::<_, Infallible>(())
            }
        });
        let stopper = work.stopper();
        let working = task::spawn(work);
        let count = || handled.lock().unwrap().len();
        for restarts in 1..=3 {
            let wanted = restarts * 60;
            time::timeout(PATIENCE, async {
                while count() < wanted {
                    time::sleep(Duration::from_millis(1)).await;
                }
            })
            .await?;
            broker.restart();
        }
        let emptied = broker.until(|broker| {
            let queue = broker.queue("/", "jobs");
            queue.is_some_and(|it| (it.ready, it.unacked) == (0, 0))
        });
        time::timeout(PATIENCE, emptied).await?;
        let drained = time::timeout(PATIENCE, stopper.drain(Duration::from_secs(5))).await?;
        assert_eq!((drained.unfinished, drained.requeued), (0, 0));
        let ended = working.await?;
        assert_eq!(ended.reason, EndReason::Drained(drained));
        assert!(ended.counts.acked >= u64::from(JOBS), "each job");
        assert!(ended.counts.stale > 0, "{:?}", ended.counts);
        assert_eq!(count(), JOBS as usize);
        connection.close().await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_group_goes_on_with_its_prefetch() -> Outcome {
    let broker = with_jobs("jobs").await?;
    let options = Options::default().recovery(Policy::new(1));
    let connection = broker.connect_with(&options).await?;
    let channel = connection.open_channel().await?;
    let consumes = [basic::Consume::default().queue("jobs")];
    let mut group = ConsumerGroup::start(&channel, consumes, 2).await?;
    let mut next = async || {
        time::timeout(PATIENCE, group.next())
            .await?
            .ok_or("ended")?
            .map_err(Box::<dyn Error>::from)
    };
    let before = next().await?;
    let released = next().await?;
    broker.restart();
    drop(released);
    // The credit of the other one is in use, though it is stale.
    let again = next().await?;
    assert!(again.method.redelivered);
    assert_eq!(before.ack(), Err(amqp_tokio::Error::Stale));
    again.ack()?;
    for _ in 1..JOBS {
        next().await?.ack()?;
    }
    let emptied = broker.until(|broker| {
        let queue = broker.queue("/", "jobs");
        queue.is_some_and(|it| (it.ready, it.unacked) == (0, 0))
    });
    time::timeout(PATIENCE, emptied).await?;
    connection.close().await?;
    Ok(())
}

/// Given a body that blocks its thread over a recovery, then the deliveries of before get no body,
/// and those of afterwards keep their places.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn deliveries_that_arrive_behind_a_recovery_stay_in_order() -> Outcome {
    let broker = with_jobs("jobs").await?;
    let options = Options::default().recovery(Policy::new(1));
    let connection = broker.connect_with(&options).await?;
    let channel = connection.open_channel().await?;
    let consume = basic::Consume::default().queue("jobs");
    let consumer = channel.consume(consume).await?;
    let called = Arc::new(Mutex::new(Vec::<u32>::new()));
    let noted = Arc::clone(&called);
    let (blocked, is_blocked) = oneshot::channel();
    let (release, is_released) = mpsc::channel();
    let mut gate = Some((blocked, is_released));
    let options = ForEachOptions::new(OnFailure::Reject).order_by(|_| ());
    let work = consumer.for_each_concurrent(8, options, move |message| {
        let number = String::from_utf8(message.body.to_vec()).unwrap();
        noted.lock().unwrap().push(number.parse().unwrap());
        let gate = gate.take();
        async move {
            if let Some((blocked, is_released)) = gate {
                blocked.send(()).unwrap();
                task::block_in_place(|| is_released.recv().unwrap());
            } else {
                // Others wait for their key meanwhile.
                time::sleep(Duration::from_millis(1)).await;
            }
            Ok::<_, Infallible>(())
        }
    });
    let stopper = work.stopper();
    let working = task::spawn(work);
    is_blocked.await?;
    broker.restart();
    for is_delivered in [false, true] {
        let changed = broker.until(|broker| {
            let queue = broker.queue("/", "jobs");
            queue.is_some_and(|it| (it.unacked > 0) == is_delivered)
        });
        time::timeout(PATIENCE, changed).await?;
    }
    // The deliveries reach the buffer of the consumer.
    time::sleep(Duration::from_millis(200)).await;
    release.send(())?;
    let emptied = broker.until(|broker| {
        let queue = broker.queue("/", "jobs");
        queue.is_some_and(|it| (it.ready, it.unacked) == (0, 0))
    });
    time::timeout(PATIENCE, emptied).await?;
    time::timeout(PATIENCE, stopper.drain(Duration::from_secs(5))).await?;
    let counts = working.await?.counts;
    assert_eq!(counts.requeued, 0, "{counts:?}");
    assert!(counts.stale > 0, "{counts:?}");
    let mut first = Vec::new();
    for &number in called.lock().unwrap().iter() {
        if !first.contains(&number) {
            first.push(number);
        }
    }
    assert_eq!(first, (0..JOBS).collect::<Vec<_>>());
    connection.close().await?;
    Ok(())
}
