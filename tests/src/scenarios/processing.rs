//! Loops over deliveries: bodies, policies, groups and drains.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::{self, Future},
    sync::{Arc, Mutex},
    time::Duration,
};

use amqp_tokio::{
    BaseChannel, ConfirmChannel, Consumer, ConsumerGroup, EndReason, Ended, Failure as BodyFailure,
    ForEachOptions, GroupDelivery, ManualAck, Message, OnFailure, Requeue, Retry,
    core::protocol::queue,
};

use super::{
    Case, case, cases,
    tools::{
        becomes_ready, consume, fetch, open, open_confirming, own_queue, panic_unreported, put,
        ready, shared_queue, text,
    },
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        ten_messages_are_acknowledged_by_their_loop,
        a_body_opens_a_channel,
        each_message_is_settled_once_when_its_body_has_run,
        a_failure_is_treated_by_the_policy,
        a_message_is_retried_after_a_delay,
        a_body_that_fails_ends_its_consumer_and_not_the_channel,
        the_prefetch_of_a_group_moves_both_ways,
        a_drain_leaves_nothing_unsettled,
        bodies_block_their_own_threads,
    ];
    let timing_out = case!(an_overdue_acknowledgement_ends_the_loop_by_type);
    cases.push(
        timing_out
            .alone(&["consumer_timeout = 500"])
            .embedded(|config| config.consumer_timeout = Some(Duration::from_millis(500))),
    );
    cases
}

/// For as long nothing must come.
const SILENCE: Duration = Duration::from_millis(100);

/// Bodies that were called, by the text of their message.
#[derive(Clone, Debug, Default)]
struct Calls(Arc<Mutex<BTreeMap<String, u32>>>);

impl Calls {
    /// Notes a call, and returns how many there were.
    fn note(&self, message: &Message) -> (String, u32) {
        let text = text(&message.body);
        let mut calls = self.0.lock().expect("nothing panics in between");
        let count = calls.entry(text.clone()).or_default();
        *count += 1;
        (text, *count)
    }

    fn of(&self, text: &str) -> u32 {
        let calls = self.0.lock().expect("nothing panics in between");
        calls.get(text).copied().unwrap_or_default()
    }

    fn total(&self) -> u32 {
        self.0
            .lock()
            .expect("nothing panics in between")
            .values()
            .sum()
    }
}

/// A queue that dead-letters to another one, on which the rejected messages are.
async fn dead_lettering(channel: &BaseChannel, name: &str) -> Result<String, Failure> {
    let dead = format!("{name}.dead");
    channel.call(shared_queue(&dead)).await?;
    let mut declare = shared_queue(name);
    declare.arguments = declare
        .arguments
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", dead.as_str());
    channel.call(declare).await?;
    Ok(dead)
}

/// The bodies of the messages in a queue, which stay there.
async fn bodies(channel: &BaseChannel, queue: &str) -> Result<BTreeSet<String>, Failure> {
    let mut found = BTreeSet::new();
    let mut taken = Vec::new();
    for _ in 0..ready(channel, queue).await? {
        let message = fetch(channel, queue).await?;
        assert!(found.insert(text(&message.body)), "twice in the queue");
        taken.push(message);
    }
    for message in taken {
        message.reject(Requeue::Yes)?;
    }
    Ok(found)
}

/// Given 10 messages (passive declare says 10), when a loop acknowledges them, then all 10 arrive and
/// passive declare says 0.
async fn ten_messages_are_acknowledged_by_their_loop(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    for number in 0..10 {
        put(&channel, "", &queue, number.to_string()).await?;
    }
    assert_eq!(ready(&channel, &queue).await?, 10);
    let consuming = connection.open_channel().await?;
    let consumer = consuming.consume(consume(&queue)).await?;
    let (calls, options) = (Calls::default(), ForEachOptions::new(OnFailure::Reject));
    let noted = calls.clone();
    let body = move |message| {
        noted.note(&message);
        future::ready(Ok(()))
    };
    let ended = run(&cx, consumer, options, body, || calls.total() == 10).await?;
    assert_eq!(ended.counts.acked, 10);
    assert!((0..10).all(|number| calls.of(&number.to_string()) == 1));
    // Nothing is outstanding either.
    consuming.close().await?;
    assert_eq!(ready(&channel, &queue).await?, 0);
    Ok(connection.close().await?)
}

/// Given a body that opens a channel of its connection and publishes on it, then it completes.
async fn a_body_opens_a_channel(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for name in ["q", "answers"] {
        channel.call(shared_queue(name)).await?;
    }
    for number in 0..3 {
        put(&channel, "", "q", number.to_string()).await?;
    }
    let consumer = channel.consume(consume("q")).await?;
    let (calls, options) = (Calls::default(), ForEachOptions::new(OnFailure::Reject));
    let (noted, opening) = (calls.clone(), connection.clone());
    let body = move |message: Message| {
        let (noted, opening) = (noted.clone(), opening.clone());
        async move {
            let answering = async {
                let channel = opening.open_channel().await?.confirm_select().await?;
                put(&channel, "", "answers", text(&message.body)).await?;
                Ok::<_, Failure>(channel.close().await?)
            };
            let answered = answering.await.map_err(|error| error.to_string());
            noted.note(&message);
            answered
        }
    };
    let ended = run(&cx, consumer, options, body, || calls.total() == 3).await?;
    assert_eq!(ended.counts.acked, 3);
    assert_eq!(ready(&channel, "answers").await?, 3);
    Ok(connection.close().await?)
}

/// Given 60 messages, bodies that run side by side and end in another order, and every seventh with an
/// error, then each message is acknowledged once, and not before its body has run, and those with an
/// error are rejected: also if acknowledgements are merged.
async fn each_message_is_settled_once_when_its_body_has_run(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for merged in [false, true] {
        let queue = format!("q{merged}");
        let dead = dead_lettering(&channel, &queue).await?;
        for number in 0..60 {
            put(&channel, "", &queue, number.to_string()).await?;
        }
        let consuming = connection.open_channel().await?;
        let consumer = consuming.consume(consume(&queue)).await?;
        let mut options = ForEachOptions::new(OnFailure::Reject);
        if merged {
            options = options.batch_acks(16, Duration::from_millis(20));
        }
        let (calls, sleeper) = (Calls::default(), cx.clone());
        let noted = calls.clone();
        let work = consumer.for_each_concurrent(7, options, move |message| {
            let (noted, sleeper) = (noted.clone(), sleeper.clone());
            async move {
                let number: u64 = text(&message.body).parse().expect("a number");
                sleeper.sleep(Duration::from_millis(number * 7 % 13)).await;
                assert_eq!(noted.note(&message).1, 1, "called twice");
                if number.is_multiple_of(7) {
                    Err(number)
                } else {
                    Ok(())
                }
            }
        });
        let stopper = work.stopper();
        let task = cx.spawn(work);
        cx.until("all bodies are called", || calls.total() == 60)
            .await?;
        let drained = cx.soon(stopper.drain(Duration::from_secs(5))).await?;
        assert_eq!((drained.unfinished, drained.requeued), (0, 0));
        assert!(drained.acks_processed);
        let Ended { reason, counts, .. } = cx.soon(task.join()).await??;
        assert_eq!(reason, EndReason::Drained(drained));
        assert_eq!((counts.acked, counts.rejected, counts.requeued), (51, 9, 0));
        // A second acknowledgement would have closed the channel, a missing one would be requeued now.
        consuming.close().await?;
        becomes_ready(&cx, &channel, &dead, 9).await?;
        let failed = (0..60).step_by(7).map(|number: u64| number.to_string());
        assert_eq!(bodies(&channel, &dead).await?, failed.collect());
        cx.sleep(SILENCE).await;
        assert_eq!(ready(&channel, &queue).await?, 0);
    }
    Ok(connection.close().await?)
}

/// Runs a loop over a queue until a condition holds, drains it, and returns its end.
async fn run<F>(
    cx: &Ctx,
    consumer: Consumer<ManualAck>,
    options: ForEachOptions<String>,
    body: impl FnMut(Message) -> F + Send + 'static,
    until: impl FnMut() -> bool,
) -> Result<Ended<String>, Failure>
where
    F: Future<Output = Result<(), String>> + Send + 'static,
{
    let work = consumer.for_each_concurrent(4, options, body);
    let stopper = work.stopper();
    let task = cx.spawn(work);
    cx.until("enough bodies are called", until).await?;
    cx.soon(stopper.drain(Duration::from_secs(5))).await?;
    Ok(cx.soon(task.join()).await??)
}

/// Given a body that fails at its first call for a message, with an error or a panic, then the policy
/// requeues the message and it succeeds, or rejects it and it is dead-lettered; the channel stays
/// open.
async fn a_failure_is_treated_by_the_policy(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for (queue, requeues) in [("requeue", true), ("reject", false)] {
        let dead = dead_lettering(&channel, queue).await?;
        for body in ["error", "panic", "ok"] {
            put(&channel, "", queue, body).await?;
        }
        let consumer = channel.consume(consume(queue)).await?;
        let options = ForEachOptions::new(match requeues {
            true => OnFailure::Requeue,
            false => OnFailure::Reject,
        });
        let calls = Calls::default();
        let noted = calls.clone();
        let body = move |message: Message| {
            let (text, count) = noted.note(&message);
            async move {
                if text == "panic" && count == 1 {
                    panic_unreported("a panic");
                }
                if text == "error" && count == 1 {
                    Err(text)
                } else {
                    Ok(())
                }
            }
        };
        let expected = if requeues { 5 } else { 3 };
        let ended = run(&cx, consumer, options, body, || calls.total() == expected).await?;
        let counts = ended.counts;
        assert_eq!((counts.failed, counts.panicked), (1, 1));
        let (acked, requeued, rejected) = if requeues { (3, 2, 0) } else { (1, 0, 2) };
        assert_eq!(
            (counts.acked, counts.requeued, counts.rejected),
            (acked, requeued, rejected)
        );
        becomes_ready(&cx, &channel, &dead, u32::try_from(rejected)?).await?;
        assert_eq!(ready(&channel, queue).await?, 0);
    }
    Ok(connection.close().await?)
}

/// Given a retry through a delay queue, at most twice, when the body fails for one message always and
/// for another once, then the first has three calls and is dead-lettered, the other two and is
/// acknowledged; each call knows its number, and the message is as it was.
async fn a_message_is_retried_after_a_delay(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let dead = dead_lettering(&channel, "jobs").await?;
    put(&channel, "", "jobs", "always").await?;
    put(&channel, "", "jobs", "once").await?;
    let publisher = connection.open_channel().await?.confirm_select().await?;
    let delay = Duration::from_millis(50);
    let retry = Retry::declare(&publisher, "jobs", delay, 2).await?;
    let consumer = channel.consume(consume("jobs")).await?;
    let calls = Calls::default();
    let noted = calls.clone();
    let body = move |message: Message| {
        let (text, count) = noted.note(&message);
        async move {
            assert_eq!(Retry::count(&message), count - 1);
            if text == "always" || count == 1 {
                Err(text)
            } else {
                Ok(())
            }
        }
    };
    let options = ForEachOptions::new(OnFailure::Retry(retry));
    let done = || (calls.of("always"), calls.of("once")) == (3, 2);
    let ended = run(&cx, consumer, options, body, done).await?;
    let counts = ended.counts;
    assert_eq!((counts.retried, counts.acked, counts.rejected), (3, 1, 1));
    becomes_ready(&cx, &channel, &dead, 1).await?;
    let message = fetch(&channel, &dead).await?;
    assert_eq!(text(&message.body), "always");
    message.ack()?;
    for queue in ["jobs", "jobs.retry.50"] {
        assert_eq!(ready(&channel, queue).await?, 0);
    }
    Ok(connection.close().await?)
}

/// Given a handler that fails with an error or a panic, and a policy that ends the consumer, then the
/// consumer ends with that reason, the message is requeued, and the channel and its other consumer go
/// on.
async fn a_body_that_fails_ends_its_consumer_and_not_the_channel(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let (queue, others) = (own_queue(&channel).await?, own_queue(&channel).await?);
    let mut other = channel.consume(consume(&others)).await?;
    for panics in [false, true] {
        put(&channel, "", &queue, "bad news").await?;
        let consumer = channel.consume(consume(&queue)).await?;
        let options = ForEachOptions::new(OnFailure::End(Requeue::Yes));
        let work = consumer.for_each_concurrent(4, options, move |message| async move {
            if panics {
                panic_unreported("cannot handle it at all");
            }
            Err(text(&message.body))
        });
        let ended = cx.soon(work).await?;
        match (panics, ended.reason) {
            (false, EndReason::Failed(BodyFailure::Error(error))) => assert_eq!(error, "bad news"),
            (true, EndReason::Failed(BodyFailure::Panicked(panic))) => {
                assert_eq!(panic.message, "cannot handle it at all");
            }
            (_, reason) => panic!("the failure should be the reason: {reason:?}"),
        }
        becomes_ready(&cx, &channel, &queue, 1).await?;
        fetch(&channel, &queue).await?.ack()?;
        put(&channel, "", &others, "good news").await?;
        let delivery = cx.soon(other.next()).await?.ok_or("no delivery")??;
        assert_eq!(delivery.body, "good news");
        delivery.ack()?;
    }
    Ok(connection.close().await?)
}

/// Given two queues with messages and a group of their consumers with a prefetch of 2, when it is
/// raised and lowered, then at no time more are handed out than it says, from both queues in turn,
/// and all messages arrive: on classic and on quorum queues.
async fn the_prefetch_of_a_group_moves_both_ways(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for kind in ["classic", "quorum"] {
        let queues = ["a", "b"].map(|name| format!("{kind}.{name}"));
        for queue in &queues {
            let mut declare = queue::Declare::default().queue(queue).durable(true);
            declare.arguments = declare.arguments.with("x-queue-type", kind);
            channel.call(declare).await?;
            for number in 0..8 {
                put(&channel, "", queue, number.to_string()).await?;
            }
        }
        let consuming = connection.open_channel().await?;
        let consumes = queues.each_ref().map(|queue| consume(queue));
        let mut group = ConsumerGroup::start(&consuming, consumes, 2).await?;
        let prefetch = group.prefetch();
        let mut held = take(&cx, &mut group, 2).await?;
        // Two of each have arrived.
        prefetch.set(4);
        held.extend(take(&cx, &mut group, 2).await?);
        let of = |index| held.iter().filter(|it| it.index() == index).count();
        assert_eq!((of(0), of(1)), (2, 2), "each queue has its share");
        prefetch.set(6);
        held.extend(take(&cx, &mut group, 2).await?);
        prefetch.set(1);
        for delivery in held.drain(1..) {
            delivery.ack()?;
        }
        take(&cx, &mut group, 0).await?;
        held.remove(0).ack()?;
        for _ in 0..4 {
            take(&cx, &mut group, 1).await?.remove(0).ack()?;
        }
        // The rest, with the consumers started again.
        prefetch.set(0);
        let mut seen = [0; 2];
        for _ in 0..6 {
            let delivery = cx.soon(group.next()).await?.ok_or("no delivery")??;
            seen[delivery.index()] += 1;
            delivery.ack()?;
        }
        assert_eq!(seen.iter().sum::<u32>(), 6);
        group.cancel().await;
        assert!(cx.soon(group.next()).await?.is_none());
        consuming.close().await?;
        cx.sleep(SILENCE).await;
        for queue in &queues {
            assert_eq!(ready(&channel, queue).await?, 0);
        }
    }
    Ok(connection.close().await?)
}

/// Takes so many deliveries, and waits to see that there is not one more.
async fn take(
    cx: &Ctx,
    group: &mut ConsumerGroup,
    count: usize,
) -> Result<Vec<GroupDelivery>, Failure> {
    let mut taken = Vec::new();
    for _ in 0..count {
        taken.push(cx.soon(group.next()).await?.ok_or("no delivery")??);
    }
    assert!(cx.within(SILENCE, group.next()).await.is_err(), "too many");
    Ok(taken)
}

/// Given 50 messages, and bodies of which some run for long, when the loop is drained, then each
/// message is acknowledged or back in its queue at once, while the channel is still open.
async fn a_drain_leaves_nothing_unsettled(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    for number in 0..50 {
        put(&channel, "", "q", number.to_string()).await?;
    }
    let (_consuming, there) = open(&cx).await?;
    let consumer = there.consume(consume("q")).await?;
    let options =
        ForEachOptions::<String>::new(OnFailure::Reject).batch_acks(64, Duration::from_secs(5));
    let (calls, sleeper) = (Calls::default(), cx.clone());
    let noted = calls.clone();
    let work = consumer.for_each_concurrent(8, options, move |message| {
        noted.note(&message);
        let sleeper = sleeper.clone();
        async move {
            if text(&message.body) == "3" {
                future::pending::<()>().await;
            }
            sleeper.sleep(Duration::from_millis(10)).await;
            Ok(())
        }
    });
    let stopper = work.stopper();
    let task = cx.spawn(work);
    cx.until("some bodies are called", || calls.total() > 15)
        .await?;
    let drained = cx.soon(stopper.drain(Duration::from_secs(2))).await?;
    let ended = cx.soon(task.join()).await??;
    assert_eq!(drained.unfinished, 1);
    assert_eq!(ended.counts.acked + ended.counts.requeued, 50);
    assert_eq!(ended.counts.acked, u64::from(calls.total()) - 1);
    let left = u32::try_from(ended.counts.requeued)?;
    becomes_ready(&cx, &channel, "q", left).await?;
    assert!(bodies(&channel, "q").await?.contains("3"));
    there.close().await?;
    cx.sleep(SILENCE).await;
    becomes_ready(&cx, &channel, "q", left).await?;
    Ok(connection.close().await?)
}

/// Given a consumer timeout, when a body runs for longer, then the loop ends with that reason, and the
/// message is requeued.
async fn an_overdue_acknowledgement_ends_the_loop_by_type(cx: Ctx) -> Outcome {
    cx.check_acknowledgements_often().await?;
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "slow").await?;
    let consuming = connection.open_channel().await?;
    let consumer = consuming.consume(consume(&queue)).await?;
    let sleeper = cx.clone();
    let options = ForEachOptions::<String>::new(OnFailure::Reject);
    let work = consumer.for_each_concurrent(1, options, move |_| {
        let (sleeper, consuming) = (sleeper.clone(), consuming.clone());
        async move {
            while consuming.is_open() {
                sleeper.sleep(Duration::from_millis(10)).await;
            }
            Ok(())
        }
    });
    let ended = cx.soon(work).await?;
    assert!(
        matches!(ended.reason, EndReason::AckTimedOut(_)),
        "{:?}",
        ended.reason
    );
    assert_eq!((ended.counts.acked, ended.counts.stale), (0, 1));
    becomes_ready(&cx, &channel, &queue, 1).await?;
    Ok(connection.close().await?)
}

/// Given bodies that block, with one thread and with several, then each message is acknowledged when
/// its body has returned, and a drain from another thread ends the loop.
async fn bodies_block_their_own_threads(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for threads in [1, 4] {
        let queue = format!("q{threads}");
        let dead = dead_lettering(&channel, &queue).await?;
        fill(&channel, &queue).await?;
        let uri = cx.uri.clone();
        let name = queue.clone();
        let calls = Calls::default();
        let drained = cx
            .in_thread(move || block(&uri, &name, threads, &calls))
            .await??;
        assert_eq!(drained, 12);
        becomes_ready(&cx, &channel, &dead, 2).await?;
        assert_eq!(
            bodies(&channel, &dead).await?,
            ["3", "7"].map(String::from).into()
        );
        cx.sleep(SILENCE).await;
        assert_eq!(ready(&channel, &queue).await?, 0);
    }
    Ok(connection.close().await?)
}

async fn fill(channel: &ConfirmChannel, queue: &str) -> Outcome {
    for number in 0..12 {
        put(channel, "", queue, number.to_string()).await?;
    }
    Ok(())
}

/// Handles twelve messages with handles that block, and returns how many were.
fn block(uri: &str, queue: &str, threads: usize, calls: &Calls) -> Result<u64, Failure> {
    let connection = amqp_blocking::connect(uri)?;
    let consumer = connection.open_channel()?.consume(consume(queue))?;
    let noted = calls.clone();
    let body = move |message: Message| {
        std::thread::sleep(Duration::from_millis(5));
        let (text, _) = noted.note(&message);
        if text == "7" {
            panic_unreported("a panic");
        }
        if text == "3" {
            Err(std::io::Error::other(text))
        } else {
            Ok(())
        }
    };
    let options = ForEachOptions::new(OnFailure::Reject).batch_acks(5, Duration::from_millis(20));
    let work = match threads {
        1 => consumer.for_each(options, body),
        threads => consumer.for_each_in_threads(threads, options, body),
    };
    let stopper = work.stopper();
    let waiting = calls.clone();
    let stopping = std::thread::spawn(move || {
        while waiting.total() < 12 {
            std::thread::sleep(Duration::from_millis(1));
        }
        stopper.drain(Duration::from_secs(5))
    });
    let ended = work.run()?;
    let drained = stopping.join().map_err(|_| "a panic")??;
    assert!(matches!(&ended.reason, EndReason::Drained(it) if *it == drained));
    assert_eq!((drained.unfinished, drained.requeued), (0, 0));
    connection.close()?;
    Ok(ended.counts.handled())
}
