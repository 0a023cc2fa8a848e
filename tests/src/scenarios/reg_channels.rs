//! Regressions: confirms, channel numbers, transactions, and the order in which handles go.

use std::{collections::BTreeMap, sync::Arc};

use amqp_tokio::{
    Connection, Unconfirmed,
    core::{
        ApiMisuse,
        protocol::{ReplyCode, basic},
    },
};

use super::{
    Case, cases,
    tools::{
        assert_misuse, consume, get, look, open, open_confirming, put, ready, shared_queue, text,
        to,
    },
};
use crate::{
    context::{Ctx, join},
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        reg_01_many_tasks_publish_on_one_channel,
        reg_18_one_channel_and_a_soft_error,
        reg_18_all_channels_and_soft_errors,
        reg_30_commit_with_queued_publishes,
        reg_35_handles_are_dropped_in_any_order,
    ]
}

/// Publish from many tasks with confirms on one channel: every confirm is that of its own message.
async fn reg_01_many_tasks_publish_on_one_channel(cx: Ctx) -> Outcome {
    const TASKS: usize = 16;
    const MESSAGES: usize = 100;
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let channel = Arc::new(channel);
    let tasks: Vec<_> = (0..TASKS)
        .map(|task| {
            let channel = Arc::clone(&channel);
            cx.spawn(async move {
                let mut confirms = Vec::new();
                for number in 0..MESSAGES {
                    let body = format!("{task}:{number}");
                    // Every third one comes back; some are too large for one frame.
                    let key = if number % 3 == 0 { "nowhere" } else { "q" };
                    let padding = if number % 25 == 1 { 150_000 } else { 0 };
                    let properties = basic::Properties::default().message_id(&body)?;
                    let confirm = channel
                        .publish(&to("", key), &properties, "x".repeat(padding) + &body)
                        .await?;
                    let seq = confirm.seq().ok_or("it was not told yet")?;
                    confirms.push((seq, body, key, confirm));
                }
                let mut routed = Vec::new();
                for (seq, body, key, confirm) in confirms {
                    match (key, confirm.await) {
                        ("q", Ok(())) => routed.push((seq.get(), body)),
                        ("nowhere", Err(Unconfirmed::Returned(message))) => {
                            let id = message.encoded_properties.decode()?.message_id;
                            assert_eq!(id.as_deref(), Some(&*body));
                        }
                        (_, outcome) => panic!("{body} to {key}: {outcome:?}"),
                    }
                }
                Ok::<_, Failure>(routed)
            })
        })
        .collect();
    let mut routed = BTreeMap::new();
    for task in tasks {
        routed.extend(cx.soon(task.join()).await???);
    }
    // What has the lower number is before in the queue, so that the numbers are the messages' own.
    let mut consumer = channel.consume_no_ack(consume("q")).await?;
    for (seq, body) in routed {
        let message = cx.soon(consumer.next()).await?.ok_or("no message")??;
        let id = message.properties()?.message_id;
        assert_eq!(id.as_deref(), Some(&*body), "number {seq}");
        assert_eq!(text(&message.body).trim_start_matches('x'), body);
    }
    assert_eq!(ready(&channel, "q").await?, 0);
    Ok(connection.close().await?)
}

/// channel_max 1: exhaustion, and the number can be used again after a soft error.
async fn reg_18_one_channel_and_a_soft_error(cx: Ctx) -> Outcome {
    let connection = cx.connect_asking("channel_max=1").await?;
    for round in 0..5 {
        let channel = connection.open_channel().await?;
        assert_eq!(channel.number(), 1, "round {round}");
        let none_free = ApiMisuse::NoFreeChannel { channel_max: 1 };
        assert_misuse(connection.open_channel().await, &none_free);
        let error = channel
            .get(get("missing"))
            .await
            .expect_err("it is missing");
        assert_eq!(error.code(), Some(ReplyCode::NOT_FOUND));
        // The number is free, also while the handle of the one that ended is still there.
        let next = connection.open_channel().await?;
        assert_eq!(next.number(), 1);
        assert_ne!(next.id(), channel.id());
        next.call(basic::Qos::default()).await?;
        let again = channel.call(basic::Qos::default()).await;
        assert_eq!(again.map(drop), Err(error));
        drop(channel);
        assert!(next.is_open());
        next.close().await?;
    }
    Ok(connection.close().await?)
}

/// The same with several, in use at once.
async fn reg_18_all_channels_and_soft_errors(cx: Ctx) -> Outcome {
    const CHANNELS: u16 = 5;
    let connection = cx
        .connect_asking(&format!("channel_max={CHANNELS}"))
        .await?;
    let mut channels = Vec::new();
    for _ in 0..CHANNELS {
        channels.push(connection.open_channel().await?);
    }
    for round in 0..20 {
        let at = round * 3 % channels.len();
        let channel = channels.swap_remove(at);
        let number = channel.number();
        if round % 2 == 0 {
            channel
                .get(get("missing"))
                .await
                .expect_err("it is missing");
        } else {
            channel.close().await?;
        }
        let next = connection.open_channel().await?;
        assert_eq!(next.number(), number, "the only one that is free");
        let none_free = ApiMisuse::NoFreeChannel {
            channel_max: CHANNELS,
        };
        assert_misuse(connection.open_channel().await, &none_free);
        channels.push(next);
        for channel in &channels {
            channel.call(basic::Qos::default()).await?;
        }
    }
    Ok(connection.close().await?)
}

/// tx.commit with publishes, acknowledgements and calls right behind it: RabbitMQ would close the
/// connection with 504, so that they are held back until it is done.
async fn reg_30_commit_with_queued_publishes(cx: Ctx) -> Outcome {
    const ROUNDS: usize = 50;
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let channel = channel.tx_select().await?;
    let observer = connection.open_channel().await?;
    let properties = basic::Properties::default();
    let publish = async |body: String| channel.publish(&to("", "q"), &properties, body).await;

    publish("rolled back".into()).await?;
    channel.rollback().await?;
    for round in 0..ROUNDS {
        publish(format!("{round} before")).await?;
        let large = if round % 10 == 0 { 300_000 } else { 0 };
        let (commit, behind) = join(channel.commit(), async {
            publish("x".repeat(large) + &format!("{round} behind")).await?;
            // Also acknowledgements and calls wait their turn.
            let call = look(&channel, "q").await?;
            Ok::<_, Failure>(call)
        })
        .await;
        commit?;
        behind?;
        // The second commit waits for the first, too.
        let (first, second) = join(channel.commit(), channel.commit()).await;
        first.and(second)?;
        let expected = 2 * (round as u32 + 1);
        assert_eq!(ready(&observer, "q").await?, expected, "round {round}");
    }

    // Acknowledgements behind a commit take effect with the next one.
    for number in 0..2 * ROUNDS {
        let message = channel.get(get("q")).await?.ok_or("the queue is empty")?;
        let body = text(&message.body);
        let when = if number % 2 == 0 { "before" } else { "behind" };
        assert_eq!(
            body.trim_start_matches('x'),
            format!("{} {when}", number / 2)
        );
        let (commit, acked) = join(channel.commit(), async { message.ack() }).await;
        commit?;
        acked?;
    }
    channel.commit().await?;
    channel.close().await?;
    assert_eq!(ready(&observer, "q").await?, 0);
    Ok(connection.close().await?)
}

/// The handles of one connection, each to be dropped on its own.
#[derive(Debug)]
enum Handle {
    Connection(#[expect(dead_code, reason = "held until it is dropped")] Connection),
    Channel(#[expect(dead_code, reason = "held until it is dropped")] amqp_tokio::ConfirmChannel),
    Consumer(
        #[expect(dead_code, reason = "held until it is dropped")]
        amqp_tokio::Consumer<amqp_tokio::ManualAck>,
    ),
    Delivery(#[expect(dead_code, reason = "held until it is dropped")] amqp_tokio::Delivery),
    Confirm(#[expect(dead_code, reason = "held until it is dropped")] amqp_tokio::Confirm),
}

/// All orders of so many things.
fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for order in orders(count - 1) {
        for at in 0..count {
            let mut order = order.clone();
            order.insert(at, count - 1);
            all.push(order);
        }
    }
    all
}

/// Connection, channel, consumer, delivery and confirm are dropped in every order: nothing panics or
/// hangs, the connection is gone after the last one, and what was not acknowledged is back in the
/// queue.
async fn reg_35_handles_are_dropped_in_any_order(cx: Ctx) -> Outcome {
    const QUEUED: u32 = 3;
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    for _ in 0..QUEUED {
        put(&channel, "", "q", "test").await?;
    }
    let all = orders(5);
    assert_eq!(all.len(), 120);
    let mut marks = Vec::new();
    for order in all {
        let (dropped, used) = open_confirming(&cx).await?;
        marks.push(cx.mark(&dropped).await?);
        let mut consumer = used.consume(consume("q")).await?;
        let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
        let confirm = used
            .publish(&to("", "nowhere"), &basic::Properties::default(), "")
            .await?;
        let mut handles = [
            Some(Handle::Connection(dropped)),
            Some(Handle::Channel(used)),
            Some(Handle::Consumer(consumer)),
            Some(Handle::Delivery(delivery)),
            Some(Handle::Confirm(confirm)),
        ];
        for at in order {
            drop(handles[at].take());
        }
        // Before the next one takes its turn.
        cx.soon(async {
            while look(&channel, "q").await?.consumer_count > 0 {}
            Outcome::Ok(())
        })
        .await??;
    }
    for mark in &marks {
        cx.gone(mark).await?;
    }
    let state = look(&channel, "q").await?;
    assert_eq!((state.message_count, state.consumer_count), (QUEUED, 0));
    Ok(connection.close().await?)
}
