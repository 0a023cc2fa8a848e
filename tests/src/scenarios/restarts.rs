//! Brokers that stop, and come back with what is durable.

use std::time::{Duration, Instant};

use amqp_tokio::{
    BaseChannel, Error,
    core::protocol::{ReplyCode, basic, exchange, queue},
};

use super::{
    Case, case,
    tools::{assert_connection_closed, bind, get, look, open_confirming, text, to},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
    operator::Operator,
};

/// A restart of RabbitMQ takes some seconds.
const RESTART: Duration = Duration::from_secs(300);

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(a_program_loses_its_broker_three_times).alone(&[]),
        case!(a_restart_keeps_what_is_durable).alone(&[]),
        case!(quorum_queues_count_the_deliveries_of_lost_connections).alone(&[]),
        case!(a_stopped_broker_takes_no_connections).alone(&[]),
    ]
}

fn persistent() -> basic::Properties {
    basic::Properties {
        delivery_mode: Some(2),
        ..basic::Properties::default()
    }
}

/// All messages of a queue: their bodies, with `!` for redelivered ones.
async fn drain(channel: &BaseChannel, queue: &str) -> Result<Vec<String>, Failure> {
    let mut bodies = Vec::new();
    while let Some(message) = channel.get(get(queue)).await? {
        let mark = if message.method.redelivered { "!" } else { "" };
        bodies.push(format!("{}{mark}", text(&message.body)));
        message.ack()?;
    }
    Ok(bodies)
}

/// A program that loses its broker three times finds durable things again, each time those of all
/// rounds before. On the embedded broker that takes less than a second.
async fn a_program_loses_its_broker_three_times(cx: Ctx) -> Outcome {
    // A busy machine may take longer now and then.
    for _ in 0..10 {
        let started = Instant::now();
        lose_the_broker_three_times(&cx).await?;
        let is_fast = started.elapsed() < Duration::from_secs(1);
        if is_fast || matches!(cx.operator(), Operator::RabbitMq(_)) {
            return Ok(());
        }
        let (_connection, channel) = open_confirming(&cx).await?;
        let delete = queue::Delete::default().queue("tasks");
        channel.call(delete).await?;
    }
    Err("it never took less than a second".into())
}

async fn lose_the_broker_three_times(cx: &Ctx) -> Outcome {
    for round in 0..=3_u32 {
        let (connection, channel) = open_confirming(cx).await?;
        let declared = channel
            .call(queue::Declare::default().queue("tasks"))
            .await?;
        assert_eq!(declared.message_count, round);
        let declare = exchange::Declare::default()
            .exchange("events")
            .kind("topic");
        channel.call(declare.durable(true)).await?;
        if round == 0 {
            bind(&channel, "tasks", "events", "task.#").await?;
        }
        let body = format!("round {round}");
        let confirm = channel
            .publish(&to("events", "task.new"), &persistent(), body)
            .await?;
        confirm.await?;
        if round == 3 {
            let bodies = drain(&channel, "tasks").await?;
            assert_eq!(bodies, ["round 0", "round 1", "round 2", "round 3"]);
            break;
        }
        cx.within(RESTART, cx.restart_broker()).await??;
        let reason = cx.soon(connection.closed()).await?;
        assert_connection_closed(
            &Error::ConnectionClosed(reason),
            ReplyCode::CONNECTION_FORCED,
        );
    }
    Ok(())
}

/// Given durable and transient queues and messages, when the broker restarts, then persistent
/// messages of durable queues are there, in their order and redelivered if they were delivered
/// before, and nothing else.
async fn a_restart_keeps_what_is_durable(cx: Ctx) -> Outcome {
    let (_connection, channel) = open_confirming(&cx).await?;
    channel
        .call(queue::Declare::default().queue("durable"))
        .await?;
    let transient = queue::Declare::default().queue("transient").durable(false);
    channel.call(transient).await?;
    for (number, properties) in [
        (0, persistent()),
        (1, persistent()),
        (2, persistent()),
        (3, basic::Properties::default()),
        (4, persistent()),
    ] {
        for queue in ["durable", "transient"] {
            let body = number.to_string();
            let confirm = channel.publish(&to("", queue), &properties, body).await?;
            confirm.await?;
        }
    }
    let first = channel.get(get("durable")).await?.ok_or("no message")?;
    first.ack()?;
    let _unacked = channel.get(get("durable")).await?.ok_or("no message")?;
    look(&channel, "durable").await?;
    cx.within(RESTART, cx.restart_broker()).await??;

    let (_connection, channel) = open_confirming(&cx).await?;
    let queues = cx.queues().await?.into_iter().map(|queue| queue.name);
    assert_eq!(queues.collect::<Vec<_>>(), ["durable"]);
    assert_eq!(drain(&channel, "durable").await?, ["1!", "2", "4"]);
    Ok(())
}

/// Given a quorum queue with a delivered message, when the broker restarts, then it is delivered
/// again with `x-delivery-count` 1, before the others, which are there though they are transient.
async fn quorum_queues_count_the_deliveries_of_lost_connections(cx: Ctx) -> Outcome {
    let (_connection, channel) = open_confirming(&cx).await?;
    let mut declare = queue::Declare::default().queue("quorum");
    declare.arguments = declare.arguments.with("x-queue-type", "quorum");
    channel.call(declare).await?;
    for body in ["first", "second"] {
        let properties = basic::Properties::default();
        let confirm = channel
            .publish(&to("", "quorum"), &properties, body)
            .await?;
        confirm.await?;
    }
    let _unacked = channel.get(get("quorum")).await?.ok_or("no message")?;
    cx.within(RESTART, cx.restart_broker()).await??;

    let (_connection, channel) = open_confirming(&cx).await?;
    // Its leader is elected some time after the start.
    let mut first = None;
    for _ in 0..600 {
        first = channel.get(get("quorum")).await?;
        if first.is_some() {
            break;
        }
        cx.sleep(Duration::from_millis(100)).await;
    }
    let first = first.ok_or("no message")?;
    let properties = first.properties.decode()?;
    let headers = properties.headers.ok_or("no headers")?;
    let count = headers
        .get("x-delivery-count")
        .and_then(|count| count.as_i64());
    assert_eq!((&*text(&first.body), count), ("first", Some(1)));
    first.ack()?;
    assert_eq!(drain(&channel, "quorum").await?, ["second"]);
    Ok(())
}

/// Given a broker that is stopped, when connecting, then there is an error, and none once it is
/// started.
async fn a_stopped_broker_takes_no_connections(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    cx.within(RESTART, cx.stop_broker()).await??;
    let reason = cx.soon(connection.closed()).await?;
    let close = super::tools::by_peer(&reason);
    assert_eq!(close.code, ReplyCode::CONNECTION_FORCED);
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    assert_eq!(close.text, text);
    assert!(cx.connect().await.is_err());
    cx.within(RESTART, cx.start_broker()).await??;
    cx.connect().await?.close().await?;
    Ok(())
}
