//! Loops and groups with bodies that block.

#![cfg(feature = "broker")]

use std::{
    error::Error as StdError,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use amqp_blocking::{
    Channel, Config, Connection, ConsumerGroup, EndReason, Error, Failure, ForEachOptions,
    LocalBroker, OnFailure, Requeue,
    protocol::{basic, queue},
    within,
};

type Outcome = Result<(), Box<dyn StdError + Send + Sync>>;

/// A time in which nothing happens.
const SHORT: Duration = Duration::from_millis(30);

/// A broker with messages in a queue, numbered from 0.
fn open(queue: &str, count: u32) -> Result<(LocalBroker, Connection, Channel), Error> {
    let broker = LocalBroker::default();
    let connection = broker.connect(Config::default())?;
    let channel = connection.open_channel()?;
    fill(&channel, queue, count)?;
    Ok((broker, connection, channel))
}

fn fill(channel: &Channel, queue: &str, count: u32) -> Result<(), Error> {
    channel.call(queue::Declare::default().queue(queue))?;
    let publish = basic::Publish::default().routing_key(queue);
    for number in 0..count {
        channel.publish(&publish, &basic::Properties::default(), number.to_string())?;
    }
    Ok(())
}

fn consume(queue: &str) -> Result<basic::Consume, Error> {
    Ok(basic::Consume::default().queue(queue))
}

#[test]
fn a_body_may_use_the_calls_that_block() -> Outcome {
    let (broker, connection, channel) = open("q", 5)?;
    let consumer = channel.consume(consume("q")?)?;
    let other = connection.open_channel()?;
    let options = ForEachOptions::new(OnFailure::End(Requeue::No));
    let work = consumer.for_each(options, move |message| {
        fill(&other, "copies", 1).map_err(|error| error.to_string())?;
        match message.body == "4" {
            true => Err("the last".to_owned()),
            false => Ok(()),
        }
    });
    let ended = work.run()?;
    assert_eq!(
        ended.reason,
        EndReason::Failed(Failure::Error("the last".into()))
    );
    assert_eq!((ended.counts.acked, ended.counts.rejected), (4, 1));
    assert!(broker.until(|broker| {
        let ready = |name| broker.queue("/", name).map(|it| (it.ready, it.unacked));
        ready("q") == Some((0, 0)) && ready("copies") == Some((5, 0))
    }));
    Ok(connection.close()?)
}

#[test]
fn bodies_of_several_threads_run_at_once() -> Outcome {
    let (broker, connection, channel) = open("q", 9)?;
    let consumer = channel.consume(consume("q")?)?;
    let barrier = std::sync::Barrier::new(3);
    let options = ForEachOptions::<Box<dyn StdError + Send + Sync>>::new(OnFailure::Reject);
    let work = consumer.for_each_in_threads(3, options, move |_| {
        barrier.wait(); // none returns before three run
        Ok(())
    });
    let stopper = work.stopper();
    let draining = thread::spawn(move || {
        while broker.with(|broker| broker.queue("/", "q").is_some_and(|it| it.unacked > 0)) {
            thread::sleep(Duration::from_millis(1));
        }
        stopper.drain(Duration::from_secs(20))
    });
    let ended = work.run()?;
    let drained = draining.join().map_err(|_| "a panic")??;
    assert!(matches!(ended.reason, EndReason::Drained(it) if it == drained));
    assert_eq!((ended.counts.acked, drained.unfinished), (9, 0));
    Ok(connection.close()?)
}

#[test]
fn a_limit_drops_the_loop_and_requeues_the_rest() -> Outcome {
    // A busy machine may need more time for the three messages.
    for limit in [SHORT, 30 * SHORT, 300 * SHORT] {
        if limited_loop(limit)? == 3 {
            return Ok(());
        }
    }
    Err("not all messages were handled in time".into())
}

/// Runs a loop over three messages with that limit, and returns the number of calls of its body.
fn limited_loop(limit: Duration) -> Result<usize, Box<dyn StdError + Send + Sync>> {
    let (broker, connection, channel) = open("q", 3)?;
    let consumer = channel.consume(consume("q")?)?;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let options = ForEachOptions::<()>::new(OnFailure::Requeue);
    let work = consumer.for_each(options, move |_| {
        counted.fetch_add(1, SeqCst);
        Ok(())
    });
    let stopper = work.stopper();
    let run = within(limit, || work.run());
    assert!(matches!(run, Err(Error::TimedOut { .. })));
    let calls = calls.load(SeqCst);
    assert!(stopper.has_ended());
    assert!(broker.until(|broker| {
        let queue = broker.queue("/", "q");
        let ready = 3 - calls;
        queue.is_some_and(|it| (it.ready, it.unacked, it.consumers.len()) == (ready, 0, 0))
    }));
    connection.close()?;
    Ok(calls)
}

#[test]
fn a_group_is_an_iterator() -> Outcome {
    let (_broker, connection, channel) = open("a", 3)?;
    fill(&channel, "b", 3)?;
    let mut group = ConsumerGroup::start(&channel, [consume("a")?, consume("b")?], 2)?;
    // The deliveries of both consumers precede the answer to a request.
    channel.call(queue::Declare::default().queue("a"))?;
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(group.next().ok_or("no delivery")??);
    }
    assert_eq!([held[0].index(), held[1].index()], [0, 1]);
    let none = within(SHORT, || group.next());
    assert!(matches!(none, Some(Err(Error::TimedOut { .. }))));
    group.prefetch().set(6);
    for _ in 0..4 {
        held.push(group.next().ok_or("no delivery")??);
    }
    for delivery in held {
        delivery.ack()?;
    }
    group.cancel()?;
    assert!(group.next().is_none());
    Ok(connection.close()?)
}
