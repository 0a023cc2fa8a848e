//! Connections that are lost and come back, with the same handles.

use std::time::Duration;

use amqp_tokio::{
    ConfirmChannel, Connection, ConsumeOptions, Error, Options,
    core::{
        MethodDef as _,
        dial::Address,
        protocol::{ReplyCode, basic, queue},
    },
    recovery::{Backoff, Policy, RecoveryEvent, Report},
};

use super::{
    Case, case, cases,
    tools::{
        assert_channel_closed, bind, consume, declare_exchange, get, look, open_confirming,
        own_queue, put, shared_queue, text, to,
    },
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
    relay::Relay,
};

/// A broker needs a moment to notice the loss of a connection, and the tests run side by side.
pub(super) const RECOVERY: Duration = Duration::from_secs(300);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        a_lost_connection_comes_back_with_its_topology,
        an_acknowledgement_of_before_a_loss_reaches_nothing,
        a_call_in_flight_at_a_loss_fails_and_a_later_one_waits,
        nothing_confirmed_is_lost_over_ten_losses,
        a_loss_during_the_recovery_is_another_loss,
        an_entity_that_has_changed_is_reported_and_the_others_come_back,
        what_was_deleted_does_not_come_back,
        closing_during_the_back_off_ends_at_once,
        a_channel_that_the_server_closes_is_reopened_with_its_consumers,
        a_transaction_that_is_lost_cannot_be_committed,
        an_exclusive_queue_that_is_still_locked_is_tried_again,
    ];
    cases.extend([case!(a_program_goes_on_over_a_restart).alone(&[])]);
    cases
}

/// A policy that dials again at once.
pub(super) fn policy() -> Policy {
    let first = Duration::from_millis(10);
    let backoff = Backoff::default().first(first);
    Policy::new(1).backoff(backoff.max(Duration::from_millis(200)))
}

fn recovering(options: &mut Options) {
    options.recovery = Some(policy());
}

/// A connection that recovers, through a relay.
async fn connect(cx: &Ctx, relay: &Relay) -> Result<Connection, Failure> {
    cx.connect_by(&cx.uri_at(relay.address()), recovering).await
}

async fn open(cx: &Ctx, relay: &Relay) -> Result<(Connection, ConfirmChannel), Failure> {
    let connection = connect(cx, relay).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    Ok((connection, channel))
}

/// Cuts the connection, and waits until it is back.
async fn cut(cx: &Ctx, relay: &Relay, connection: &Connection) -> Result<Report, Failure> {
    let before = recoveries(connection);
    relay.cut();
    recovered(cx, connection, before + 1).await
}

/// The number of events kept so far, of which none is a recovery to come.
fn recoveries(connection: &Connection) -> usize {
    let mut events = connection.recovery_events();
    let mut count = 0;
    while let Some(change) = events.try_next() {
        count += usize::from(matches!(change.event, RecoveryEvent::Recovered(_)));
    }
    count
}

/// The report of that recovery of the connection.
async fn recovered(cx: &Ctx, connection: &Connection, number: usize) -> Result<Report, Failure> {
    let mut events = connection.recovery_events();
    let waiting = async {
        let mut seen = 0;
        while let Some(change) = events.next().await {
            if let RecoveryEvent::Recovered(report) = change.event {
                seen += 1;
                if seen == number {
                    return Ok(report);
                }
            }
        }
        Err("the connection has ended".into())
    };
    cx.within(RECOVERY, waiting).await?
}

/// Publishes until a confirm says that the broker has the message.
async fn publish(channel: &ConfirmChannel, queue: &str, body: &str) -> Outcome {
    let persistent = basic::Properties::default().delivery_mode(2);
    while channel
        .publish(&to("", queue), &persistent, body.to_owned())
        .await?
        .await
        .is_err()
    {}
    Ok(())
}

/// Given exclusive and server-named queues, bindings and consumers, when the connection is lost,
/// then all come back, the queue with a new name, and the consumers receive.
async fn a_lost_connection_comes_back_with_its_topology(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let (connection, channel) = open(&cx, &relay).await?;
    declare_exchange(&channel, "events", "topic").await?;
    let named = own_queue(&channel).await?;
    bind(&channel, &named, "events", "a.*").await?;
    let auto_delete = shared_queue("auto").durable(false).auto_delete(true);
    channel.call(auto_delete.exclusive(true)).await?;
    bind(&channel, "auto", "events", "#").await?;
    let mut of_named = channel.consume(consume(&named)).await?;
    let mut of_auto = channel.consume(consume("auto")).await?;

    let report = cut(&cx, &relay, &connection).await?;
    assert_eq!(report.failures, []);
    assert_eq!(report.renamed.len(), 1);
    let (from, now) = &report.renamed[0];
    assert_eq!(*from, named);
    look(&channel, now).await?;
    put(&channel, "events", "a.b", "both").await?;
    put(&channel, "events", "b", "one").await?;
    let delivery = cx.soon(of_named.next()).await?.ok_or("no delivery")??;
    assert_eq!(text(&delivery.body), "both");
    for body in ["both", "one"] {
        let delivery = cx.soon(of_auto.next()).await?.ok_or("no delivery")??;
        assert_eq!(text(&delivery.body), body);
        delivery.ack()?;
    }
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given a delivery, when its connection is lost and recovered, then acknowledging it does nothing,
/// not even to the delivery that has the same number on the wire, and the message comes again.
async fn an_acknowledgement_of_before_a_loss_reaches_nothing(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let (connection, channel) = open(&cx, &relay).await?;
    channel.call(shared_queue("tasks")).await?;
    let options = ConsumeOptions::default().report_interruptions(true);
    let mut consumer = channel.consume_with(consume("tasks"), options).await?;
    put(&channel, "", "tasks", "first").await?;
    let before = cx.soon(consumer.next()).await?.ok_or("no delivery")??;

    cut(&cx, &relay, &connection).await?;
    let interrupted = cx.soon(consumer.next()).await?.ok_or("ended")?;
    assert!(
        matches!(interrupted, Err(Error::Interrupted(_))),
        "{interrupted:?}"
    );
    let again = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(text(&again.body), "first");
    assert!(again.method.redelivered && again.acker.tag() != before.acker.tag());
    assert_eq!(before.ack(), Err(Error::Stale));
    // The broker has not been told anything of it: the message is still outstanding.
    drop(again);
    cut(&cx, &relay, &connection).await?;
    let interrupted = cx.soon(consumer.next()).await?.ok_or("ended")?;
    assert!(interrupted.is_err());
    let last = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    last.ack()?;
    connection.flush().await?;
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given a request and a publish in flight, when the connection is lost, then both end with the
/// reason; given others while it is lost, then they wait and succeed.
async fn a_call_in_flight_at_a_loss_fails_and_a_later_one_waits(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let (connection, channel) = open(&cx, &relay).await?;
    channel.call(shared_queue("tasks")).await?;
    relay.pause();
    let confirm = channel
        .publish(&to("", "tasks"), &basic::Properties::default(), "unknown")
        .await?;
    let call = cx.spawn({
        let channel = channel.clone();
        async move { channel.call(shared_queue("tasks")).await }
    });
    cx.sleep(Duration::from_millis(100)).await;
    relay.cut();
    assert!(matches!(
        cx.soon(call.join()).await??,
        Err(Error::ConnectionClosed(_))
    ));
    assert!(cx.soon(confirm).await?.is_err());
    // The relay stands still: the connection is dialled, and not opened.
    let later = cx.spawn({
        let channel = channel.clone();
        async move { channel.call(shared_queue("tasks")).await }
    });
    cx.sleep(Duration::from_millis(300)).await;
    assert!(!later.is_finished());
    let body = channel.try_publish(&to("", "tasks"), &basic::Properties::default(), "held");
    assert!(body.is_err());
    relay.resume();
    cx.within(RECOVERY, later.join()).await???;
    publish(&channel, "tasks", "known").await?;
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given a publisher and a consumer, when their connection is lost ten times while both work, then
/// each message that was confirmed is received.
async fn nothing_confirmed_is_lost_over_ten_losses(cx: Ctx) -> Outcome {
    const MESSAGES: usize = 200;
    let relay = Relay::start(cx.address)?;
    let (connection, channel) = open(&cx, &relay).await?;
    channel.call(shared_queue("tasks")).await?;
    let mut consumer = channel.consume(consume("tasks")).await?;
    let publishing = cx.spawn(async move {
        for number in 0..MESSAGES {
            publish(&channel, "tasks", &number.to_string()).await?;
        }
        Ok::<_, Failure>(())
    });
    let consuming = cx.spawn(async move {
        let mut received = vec![0_usize; MESSAGES];
        while received.contains(&0) {
            let delivery = consumer.next().await.ok_or("ended")??;
            let number: usize = text(&delivery.body).parse()?;
            received[number] += 1;
            if let Err(error) = delivery.ack() {
                assert_eq!(error, Error::Stale);
            }
        }
        Ok::<_, Failure>(received)
    });
    for _ in 0..10 {
        cx.sleep(Duration::from_millis(20)).await;
        cut(&cx, &relay, &connection).await?;
    }
    cx.within(RECOVERY, publishing.join()).await???;
    let received = cx.within(RECOVERY, consuming.join()).await???;
    assert_eq!(received.len(), MESSAGES);
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given a recovery, when the connection is lost again as soon as it is open, then another one
/// follows, from the whole topology.
async fn a_loss_during_the_recovery_is_another_loss(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let (connection, channel) = open(&cx, &relay).await?;
    for number in 0..20 {
        let name = format!("queue {number}");
        channel.call(shared_queue(&name).exclusive(true)).await?;
    }
    let mut events = connection.recovery_events();
    relay.cut();
    let mut cuts = 0;
    let last = async {
        while let Some(change) = events.next().await {
            match change.event {
                RecoveryEvent::Connected if cuts < 4 => {
                    // The first one is that of the connect.
                    cuts += 1;
                    relay.cut();
                }
                RecoveryEvent::Recovered(report) if cuts == 4 => return Ok(report),
                _ => {}
            }
        }
        Err::<Report, Failure>("the connection has ended".into())
    };
    let report = cx.within(RECOVERY, last).await??;
    assert_eq!(report.failures, []);
    for number in 0..20 {
        look(&channel, &format!("queue {number}")).await?;
    }
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given queues, when one is replaced by another kind while the connection is lost, then 406 is
/// reported with the difference, and the others come back.
async fn an_entity_that_has_changed_is_reported_and_the_others_come_back(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let (connection, channel) = open(&cx, &relay).await?;
    let (_other, operator) = open_confirming(&cx).await?;
    let mut limited = shared_queue("changed");
    limited.arguments = limited.arguments.with("x-max-length", 5);
    channel.call(limited).await?;
    channel.call(shared_queue("other").exclusive(true)).await?;
    let mut consumer = channel.consume(consume("other")).await?;
    relay.pause();
    operator
        .call(queue::Delete::default().queue("changed"))
        .await?;
    operator.call(shared_queue("changed")).await?;
    let before = recoveries(&connection);
    relay.cut();
    relay.resume();
    let report = recovered(&cx, &connection, before + 1).await?;
    assert_eq!(report.failures.len(), 1, "{report}");
    let failure = &report.failures[0];
    let difference = failure.difference.as_ref().ok_or("no difference")?;
    assert_eq!(difference.argument, "x-max-length", "{failure}");
    put(&channel, "", "other", "works").await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    delivery.ack()?;
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given queues and a consumer that were deleted and cancelled, when the connection is lost, then
/// they do not come back.
async fn what_was_deleted_does_not_come_back(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let (connection, channel) = open(&cx, &relay).await?;
    let declare = |name| shared_queue(name).durable(false).exclusive(true);
    for name in ["kept", "deleted", "last consumer"] {
        let auto_delete = name == "last consumer";
        channel.call(declare(name).auto_delete(auto_delete)).await?;
    }
    channel
        .call(queue::Delete::default().queue("deleted"))
        .await?;
    let mut consumer = channel.consume(consume("last consumer")).await?;
    consumer.cancel().await?;
    let report = cut(&cx, &relay, &connection).await?;
    assert_eq!(report.failures, []);
    look(&channel, "kept").await?;
    for name in ["deleted", "last consumer"] {
        let looking = connection.open_channel().await?;
        let error = look(&looking, name).await.err().ok_or("it is back")?;
        assert_eq!(error.code(), Some(ReplyCode::NOT_FOUND));
    }
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given a connection that is lost and not dialled for an hour, when it is closed, then it ends at
/// once, with everything that waits for it.
async fn closing_during_the_back_off_ends_at_once(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let hour = Duration::from_secs(3600);
    let patient = move |options: &mut Options| {
        let backoff = Backoff::default().first(hour).max(hour);
        options.recovery = Some(Policy::new(1).backoff(backoff));
    };
    let connection = cx.connect_by(&cx.uri_at(relay.address()), patient).await?;
    let channel = connection.open_channel().await?;
    let mut events = connection.recovery_events();
    relay.cut();
    let lost = async {
        while let Some(change) = events.next().await {
            if let RecoveryEvent::Reconnecting { .. } = change.event {
                return;
            }
        }
    };
    cx.soon(lost).await?;
    let waiting = cx.spawn(async move { channel.call(shared_queue("tasks")).await });
    cx.sleep(Duration::from_millis(50)).await;
    // The output of the lost connection may not have arrived.
    assert!(cx.soon(connection.close()).await?.is_err());
    assert!(matches!(
        cx.soon(waiting.join()).await??,
        Err(Error::ConnectionClosed(_))
    ));
    Ok(())
}

/// Given a channel with a consumer, when the server closes the channel for another request, then
/// that fails with the reason, and the channel goes on with its consumer.
async fn a_channel_that_the_server_closes_is_reopened_with_its_consumers(cx: Ctx) -> Outcome {
    let connection = cx.connect_by(&cx.uri, recovering).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(shared_queue("tasks")).await?;
    let mut consumer = channel.consume(consume("tasks")).await?;
    put(&channel, "", "tasks", "first").await?;
    let first = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    for _ in 0..2 {
        let error = look(&channel, "missing").await.err().ok_or("it is there")?;
        assert_channel_closed(&error, ReplyCode::NOT_FOUND, queue::Declare::ID);
    }
    let again = cx
        .within(RECOVERY, consumer.next())
        .await?
        .ok_or("ended")??;
    assert!(again.method.redelivered);
    assert_eq!(first.ack(), Err(Error::Stale));
    again.ack()?;
    publish(&channel, "tasks", "second").await?;
    let second = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(text(&second.body), "second");
    second.ack()?;
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given a transaction, when its connection is lost, then it cannot be committed, before or after a
/// further publish, until it is rolled back.
async fn a_transaction_that_is_lost_cannot_be_committed(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = connect(&cx, &relay).await?;
    let channel = connection.open_channel().await?.tx_select().await?;
    channel.call(shared_queue("tasks")).await?;
    let properties = basic::Properties::default();
    channel
        .publish(&to("", "tasks"), &properties, "lost")
        .await?;
    cut(&cx, &relay, &connection).await?;
    channel
        .publish(&to("", "tasks"), &properties, "half")
        .await?;
    assert_eq!(channel.commit().await, Err(Error::TransactionLost));
    channel.rollback().await?;
    channel
        .publish(&to("", "tasks"), &properties, "whole")
        .await?;
    channel.commit().await?;
    let message = channel.get(get("tasks")).await?.ok_or("empty")?;
    assert_eq!(text(&message.body), "whole");
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given an exclusive queue, when its connection is lost and the broker has not noticed, then the
/// queue is locked, and declared again until the broker has.
async fn an_exclusive_queue_that_is_still_locked_is_tried_again(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let direct = Address::tcp(cx.address.ip().to_string(), cx.address.port());
    let uri = cx.uri_at(relay.address());
    let connect = async || {
        let direct = direct.clone();
        cx.connect_by(&uri, move |options| {
            recovering(options);
            options.addresses.push(direct);
            options.config.heartbeat = Some(1);
            options.config.timeouts.handshake = Duration::from_millis(300);
        })
        .await
    };
    // A busy broker may not have answered in time through the relay.
    let (connection, channel) = loop {
        let connection = connect().await?;
        let before = relay.to_broker().bytes;
        let channel = connection.open_channel().await?.confirm_select().await?;
        if relay.to_broker().bytes > before {
            break (connection, channel);
        }
        connection.close().await?;
    };
    channel.call(shared_queue("mine").exclusive(true)).await?;
    let mut consumer = channel.consume(consume("mine")).await?;
    let before = recoveries(&connection);
    relay.pause();
    let report = recovered(&cx, &connection, before + 1).await?;
    assert_eq!(report.failures, []);
    put(&channel, "", "mine", "works").await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    delivery.ack()?;
    cx.soon(connection.close()).await??;
    Ok(())
}

/// Given a program that publishes and consumes, when the broker is restarted, then the same handles
/// go on.
async fn a_program_goes_on_over_a_restart(cx: Ctx) -> Outcome {
    let connection = cx.connect_by(&cx.uri, recovering).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    channel.call(shared_queue("tasks")).await?;
    let mut consumer = channel.consume(consume("tasks")).await?;
    for round in 0..3 {
        let body = format!("round {round}");
        cx.within(RECOVERY, publish(&channel, "tasks", &body))
            .await??;
        loop {
            let delivery = cx.within(RECOVERY, consumer.next()).await?;
            let delivery = delivery.ok_or("ended")??;
            let received = text(&delivery.body);
            // One of the round before may come again.
            let _stale = delivery.ack();
            if received == body {
                break;
            }
        }
        if round < 2 {
            cx.within(RECOVERY, cx.restart_broker()).await??;
        }
    }
    cx.soon(connection.close()).await??;
    Ok(())
}
