//! Connections that are lost and come back under a loop of the program's own, and under calls that
//! block. Neither depends on the runtime; they run beside each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use amqp_blocking::{
    ConnectionState, Error as CallError, Options, connect_with,
    core::dial::Address,
    protocol::{basic, exchange, queue},
    recovery::{Backoff, Policy, RecoveryEvent, Report},
    select::{self, Answer, Client, Error, Message, Promise},
    within,
};

use super::{
    Case, case, cases,
    recovering::{RECOVERY, policy},
    tools::{consume, shared_queue, text, to},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
    relay::Relay,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        a_loop_comes_back_with_its_topology,
        a_loops_messages_of_before_a_loss_are_stale,
        nothing_confirmed_to_a_loop_is_lost_over_ten_losses,
        closing_a_loop_during_the_back_off_ends_it_at_once,
        a_loss_during_the_recovery_of_a_loop_is_another_loss,
        a_loop_has_a_report_of_an_entity_that_has_changed,
        a_locked_queue_of_a_loop_is_tried_again,
    ];
    cases.extend([
        case!(a_loop_goes_on_over_a_restart).alone(&[]),
        case!(blocking_calls_go_on_over_losses_and_a_restart).alone(&[]),
    ]);
    cases
}

/// The options of a connection that recovers.
fn options(uri: &str) -> Result<Options, Failure> {
    Ok(Options::from_uri(uri)?.recovery(policy()))
}

fn connect(options: &Options) -> Result<Client, Failure> {
    let (mut client, connected) = select::connect_with(options)?;
    client
        .wait(connected, Some(RECOVERY))?
        .ok_or("not connected")?;
    Ok(client)
}

/// The next result of a promise.
fn next(client: &mut Client, promise: Promise) -> Result<Answer, Failure> {
    let answer = client.wait(promise, Some(RECOVERY))?;
    Ok(answer.ok_or("no result in time")?)
}

fn next_message(client: &mut Client, promise: Promise) -> Result<Message, Failure> {
    Ok(next(client, promise)?.message().ok_or("no message")?)
}

/// Begins to consume.
fn start(client: &mut Client, queue: &str, prefetch: u16) -> Result<Promise, Failure> {
    let consumer = client.consume(consume(queue), prefetch)?;
    match next(client, consumer)? {
        Answer::Consuming => Ok(consumer),
        other => Err(format!("{other:?}").into()),
    }
}

fn publish(client: &mut Client, exchange: &str, key: &str, body: &str) -> Result<Promise, Failure> {
    let persistent = basic::Properties::default().persistent();
    Ok(client.publish(to(exchange, key), persistent, body.to_owned())?)
}

/// Makes turns until a recovery has ended, and returns its report.
fn recovered(client: &mut Client) -> Result<Report, Failure> {
    let connection = client.connection().ok_or("it is not open")?;
    let (mut events, begun) = (connection.recovery_events(), Instant::now());
    while begun.elapsed() < RECOVERY {
        while let Some(event) = events.try_next() {
            if let RecoveryEvent::Recovered(report) = event.event {
                return Ok(report);
            }
        }
        client.wait_any(&[], Some(Duration::from_millis(10)))?;
    }
    Err("it has not recovered".into())
}

fn close(mut client: Client) -> Outcome {
    let closed = client.close()?;
    next(&mut client, closed)?;
    assert!(client.closed().is_some_and(|end| end.is_clean()));
    Ok(())
}

/// Given exclusive queues, an exchange, bindings and consumers of a loop, when its connection is lost,
/// then all come back, and the promises of the consumers go on.
async fn a_loop_comes_back_with_its_topology(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let options = options(&cx.uri_at(relay.address()))?;
    cx.in_thread(move || {
        let mut client = connect(&options)?;
        let own = |name| shared_queue(name).durable(false).exclusive(true);
        let declared = [
            client.call(
                exchange::Declare::default()
                    .exchange("events")
                    .kind("topic"),
            )?,
            client.call(own("all"))?,
            client.call(own("some"))?,
        ];
        for promise in declared {
            next(&mut client, promise)?;
        }
        for (queue, key) in [("all", "#"), ("some", "a.*")] {
            let bind = queue::Bind::default().queue(queue).exchange("events");
            let bound = client.call(bind.routing_key(key))?;
            next(&mut client, bound)?;
        }
        let all = start(&mut client, "all", 1)?;
        let some = start(&mut client, "some", 1)?;
        relay.cut();
        assert_eq!(recovered(&mut client)?.failures, []);
        for (key, consumers) in [("a.b", vec![all, some]), ("b", vec![all])] {
            let published = publish(&mut client, "events", key, key)?;
            next(&mut client, published)?;
            for consumer in consumers {
                let message = next_message(&mut client, consumer)?;
                assert_eq!(text(&message.body), key);
                message.ack()?;
            }
        }
        close(client)
    })
    .await?
}

/// Given messages that a loop has fetched and consumed, when its connection is lost, then they cannot
/// be acknowledged any more, and come again to the same consumer, one by one as before.
async fn a_loops_messages_of_before_a_loss_are_stale(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let options = options(&cx.uri_at(relay.address()))?;
    cx.in_thread(move || {
        let mut client = connect(&options)?;
        let declared = client.call(shared_queue("tasks"))?;
        next(&mut client, declared)?;
        for body in ["1", "2"] {
            let published = publish(&mut client, "", "tasks", body)?;
            next(&mut client, published)?;
        }
        let got = client.get(basic::Get::default().queue("tasks"))?;
        let fetched = next_message(&mut client, got)?;
        let consumer = start(&mut client, "tasks", 1)?;
        let delivered = next_message(&mut client, consumer)?;
        relay.cut();
        assert_eq!(recovered(&mut client)?.failures, []);
        for message in [fetched, delivered] {
            let stale = message.ack();
            assert!(
                matches!(stale, Err(Error::Call(CallError::Stale))),
                "{stale:?}"
            );
        }
        let mut bodies = BTreeSet::new();
        for _ in 0..2 {
            let message = next_message(&mut client, consumer)?;
            assert!(message.redelivered);
            bodies.insert(text(&message.body));
            message.ack()?;
        }
        assert_eq!(bodies.len(), 2);
        close(client)
    })
    .await?
}

/// The outcome of a program that publishes and consumes numbers.
struct Ledger {
    confirmed: BTreeSet<String>,
    recoveries: usize,
}

/// The state of that program, for the scenario beside it.
#[derive(Default)]
struct Signals {
    /// A message was confirmed.
    works: AtomicBool,
    /// It is to stop.
    stop: AtomicBool,
}

/// Publishes and consumes in a loop until it is told to stop, and all that was confirmed has come.
fn publish_and_consume(options: &Options, signals: &Signals) -> Result<Ledger, Failure> {
    const IN_FLIGHT: usize = 5;
    let mut client = connect(options)?;
    let declared = client.call(shared_queue("tasks"))?;
    next(&mut client, declared)?;
    let consumer = start(&mut client, "tasks", 10)?;
    let (mut confirmed, mut received) = (BTreeSet::new(), BTreeSet::new());
    let (mut pending, mut count) = (BTreeMap::new(), 0);
    let mut until = Instant::now() + RECOVERY;
    while !signals.stop.load(SeqCst) || !pending.is_empty() || !confirmed.is_subset(&received) {
        if Instant::now() > until {
            return Err(format!("{} outcomes are missing", pending.len()).into());
        }
        while !signals.stop.load(SeqCst) && pending.len() < IN_FLIGHT {
            let body = count.to_string();
            pending.insert(publish(&mut client, "", "tasks", &body)?, body);
            count += 1;
        }
        let promises: Vec<_> = pending.keys().copied().chain([consumer]).collect();
        let result = client.wait_any(&promises, Some(Duration::from_millis(10)))?;
        let Some((promise, result)) = result else {
            continue;
        };
        until = Instant::now() + RECOVERY;
        match (pending.remove(&promise), result) {
            (Some(body), Ok(Answer::Published)) => {
                confirmed.insert(body);
                signals.works.store(true, SeqCst);
            }
            (Some(_), Err(Error::Unconfirmed(_))) => {}
            (None, Ok(Answer::Delivered(message))) => {
                received.insert(text(&message.body));
                match message.ack() {
                    Ok(()) | Err(Error::Call(CallError::Stale)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            (_, other) => return Err(format!("nothing asked for {other:?}").into()),
        }
    }
    // The last loss may not have been noticed.
    loop {
        let last = publish(&mut client, "", "tasks", "last")?;
        match client.wait(last, Some(RECOVERY)) {
            Err(Error::Unconfirmed(_)) => {}
            Ok(Some(_)) => break,
            other => return Err(format!("{other:?}").into()),
        }
    }
    let connection = client.connection().ok_or("it is not open")?;
    let mut events = connection.recovery_events();
    let events = std::iter::from_fn(|| events.try_next());
    let is_recovery = |event: &RecoveryEvent| matches!(event, RecoveryEvent::Recovered(_));
    let recoveries = events.filter(|it| is_recovery(&it.event)).count();
    close(client)?;
    Ok(Ledger {
        confirmed,
        recoveries,
    })
}

/// Runs that program beside a fault of its broker.
async fn beside(cx: &Ctx, options: Options, fault: impl AsyncFnOnce() -> Outcome) -> Outcome {
    let signals = Arc::new(Signals::default());
    let running = cx.spawn({
        let (cx, signals) = (cx.clone(), Arc::clone(&signals));
        async move {
            let program = move || publish_and_consume(&options, &signals);
            cx.in_thread(program).await
        }
    });
    cx.until("it works", || signals.works.load(SeqCst)).await?;
    let done = fault().await;
    signals.stop.store(true, SeqCst);
    let ledger = cx.within(2 * RECOVERY, running.join()).await????;
    done?;
    assert!(ledger.recoveries > 0);
    assert!(!ledger.confirmed.is_empty());
    Ok(())
}

/// Given a loop that publishes and consumes, when its connection is lost ten times, then each
/// confirmed message is received, and each publish has an outcome.
async fn nothing_confirmed_to_a_loop_is_lost_over_ten_losses(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let options = options(&cx.uri_at(relay.address()))?;
    beside(&cx, options, async || {
        for _ in 0..10 {
            cx.sleep(Duration::from_millis(100)).await;
            relay.cut();
        }
        Ok(())
    })
    .await
}

/// Given the same loop, when the broker is restarted, then it goes on.
async fn a_loop_goes_on_over_a_restart(cx: Ctx) -> Outcome {
    let options = options(&cx.uri)?;
    beside(&cx, options, async || {
        for _ in 0..2 {
            cx.sleep(Duration::from_millis(300)).await;
            cx.within(RECOVERY, cx.restart_broker()).await??;
        }
        Ok(())
    })
    .await
}

/// Given a loop with a connection that is lost and not dialled for an hour, when it is closed, then it
/// ends at once, with all its promises.
async fn closing_a_loop_during_the_back_off_ends_it_at_once(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let hour = Duration::from_secs(3600);
    let backoff = Backoff::default().first(hour).max(hour);
    let options = options(&cx.uri_at(relay.address()))?;
    let options = options.recovery(Policy::new(1).backoff(backoff));
    cx.in_thread(move || {
        let mut client = connect(&options)?;
        let declared = client.call(shared_queue("tasks"))?;
        next(&mut client, declared)?;
        let consumer = start(&mut client, "tasks", 1)?;
        let connection = client.connection().ok_or("it is not open")?;
        relay.cut();
        while connection.state() != ConnectionState::Recovering {
            client.wait_any(&[], Some(Duration::from_millis(10)))?;
        }
        let waiting = client.call(shared_queue("other"))?;
        let begun = Instant::now();
        let closed = client.close()?;
        for promise in [closed, waiting, consumer] {
            let ended = client.wait(promise, Some(RECOVERY));
            assert!(matches!(
                ended,
                Err(Error::Call(CallError::ConnectionClosed(_)))
            ));
        }
        assert!(client.closed().is_some());
        assert!(begun.elapsed() < RECOVERY);
        Ok(())
    })
    .await?
}

/// Given the recovery of a loop, when the connection is lost again as soon as it is open, then another
/// one follows, from the whole topology.
async fn a_loss_during_the_recovery_of_a_loop_is_another_loss(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let options = options(&cx.uri_at(relay.address()))?;
    cx.in_thread(move || {
        let mut client = connect(&options)?;
        let names: Vec<_> = (0..20).map(|number| format!("queue {number}")).collect();
        for name in &names {
            let declared = client.call(shared_queue(name).exclusive(true))?;
            next(&mut client, declared)?;
        }
        let consumer = start(&mut client, &names[19], 1)?;
        let connection = client.connection().ok_or("it is not open")?;
        let mut events = connection.recovery_events();
        relay.cut();
        let (mut cuts, begun) = (0, Instant::now());
        let report = loop {
            match events.try_next().map(|change| change.event) {
                // The first one is that of the connect.
                Some(RecoveryEvent::Connected) if cuts < 4 => {
                    cuts += 1;
                    relay.cut();
                }
                Some(RecoveryEvent::Recovered(report)) if cuts == 4 => break report,
                Some(_) => {}
                None => drop(client.wait_any(&[], Some(Duration::from_millis(10)))?),
            }
            assert!(begun.elapsed() < RECOVERY, "it has not recovered");
        };
        assert_eq!(report.failures, []);
        for name in &names {
            let declare = queue::Declare::default().queue(name).passive(true);
            let declared = client.call(declare)?;
            next(&mut client, declared)?;
        }
        let published = publish(&mut client, "", &names[19], "works")?;
        next(&mut client, published)?;
        next_message(&mut client, consumer)?.ack()?;
        close(client)
    })
    .await?
}

/// Given queues of a loop, when one is replaced by another kind while the connection is lost, then 406
/// is reported with the difference, and the others come back.
async fn a_loop_has_a_report_of_an_entity_that_has_changed(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let options = options(&cx.uri_at(relay.address()))?;
    let uri = cx.uri_asking("heartbeat=10");
    cx.in_thread(move || {
        let mut client = connect(&options)?;
        let mut limited = shared_queue("changed");
        limited.arguments = limited.arguments.with("x-max-length", 5);
        let other = shared_queue("other").exclusive(true);
        for promise in [client.call(limited)?, client.call(other)?] {
            next(&mut client, promise)?;
        }
        let consumer = start(&mut client, "other", 1)?;
        relay.pause();
        let operator = amqp_blocking::connect(&uri)?;
        let channel = operator.open_channel()?;
        channel.call(queue::Delete::default().queue("changed"))?;
        channel.call(shared_queue("changed"))?;
        operator.close()?;
        relay.cut();
        relay.resume();
        let report = recovered(&mut client)?;
        assert_eq!(report.failures.len(), 1, "{report}");
        let failure = &report.failures[0];
        let difference = failure.difference.as_ref().ok_or("no difference")?;
        assert_eq!(difference.argument, "x-max-length", "{failure}");
        let published = publish(&mut client, "", "other", "works")?;
        next(&mut client, published)?;
        next_message(&mut client, consumer)?.ack()?;
        close(client)
    })
    .await?
}

/// Given an exclusive queue of a loop, when its connection is lost and the broker has not noticed, then
/// the queue is locked, and declared again until the broker has.
async fn a_locked_queue_of_a_loop_is_tried_again(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let mut options = options(&cx.uri_at(relay.address()))?;
    let direct = Address::tcp(cx.address.ip().to_string(), cx.address.port());
    options.addresses.push(direct);
    options.config.heartbeat = Some(1);
    options.config.timeouts.handshake = Duration::from_millis(300);
    cx.in_thread(move || {
        // A busy broker may not have answered in time through the relay.
        let mut client = loop {
            let mut client = connect(&options)?;
            let before = relay.to_broker().bytes;
            let declared = client.call(shared_queue("mine").exclusive(true))?;
            next(&mut client, declared)?;
            if relay.to_broker().bytes > before {
                break client;
            }
            close(client)?;
        };
        let consumer = start(&mut client, "mine", 1)?;
        relay.pause();
        assert_eq!(recovered(&mut client)?.failures, []);
        let published = publish(&mut client, "", "mine", "works")?;
        next(&mut client, published)?;
        next_message(&mut client, consumer)?.ack()?;
        close(client)
    })
    .await?
}

/// Given handles with calls that block, when their connection is cut and their broker restarted, then
/// the same handles go on.
async fn blocking_calls_go_on_over_losses_and_a_restart(cx: Ctx) -> Outcome {
    let relay = Arc::new(Relay::start(cx.address)?);
    let options = options(&cx.uri_at(relay.address()))?;
    let (round_is_over, rounds) = std::sync::mpsc::channel();
    let (go_on, faults) = std::sync::mpsc::channel();
    let running = cx.spawn({
        let cx = cx.clone();
        async move {
            cx.in_thread(move || rounds_of_calls(&options, &round_is_over, &faults))
                .await
        }
    });
    for round in 0..3 {
        cx.until("the round is over", || rounds.try_recv().is_ok())
            .await?;
        if round == 1 {
            cx.within(RECOVERY, cx.restart_broker()).await??;
        } else {
            relay.cut();
        }
        go_on.send(())?;
    }
    cx.within(2 * RECOVERY, running.join()).await????;
    Ok(())
}

/// Publishes and consumes with blocking calls, in rounds with a fault after each but the last.
fn rounds_of_calls(
    options: &Options,
    over: &std::sync::mpsc::Sender<u32>,
    faults: &std::sync::mpsc::Receiver<()>,
) -> Outcome {
    let connection = connect_with(options)?;
    let channel = connection.open_channel()?.confirm_select()?;
    channel.call(shared_queue("tasks"))?;
    let mut consumer = channel.consume(consume("tasks"))?;
    let persistent = basic::Properties::default().persistent();
    for round in 0..=3_u32 {
        let body = round.to_string();
        within(RECOVERY, || -> Outcome {
            let publish = || channel.publish(&to("", "tasks"), &persistent, body.clone());
            while publish()?.wait().is_err() {}
            loop {
                let delivery = consumer.next().ok_or("it has ended")??;
                let received = text(&delivery.body);
                // One of the round before may come again.
                let _stale = delivery.ack();
                if received == body {
                    return Ok(());
                }
            }
        })?;
        over.send(round)?;
        if round < 3 {
            faults.recv()?;
        }
    }
    Ok(connection.close()?)
}
