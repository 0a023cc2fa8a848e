//! Commands of operators, on policies, permissions, limits and connections, while clients are
//! connected.

use std::time::Duration;

use amqp_tokio::{
    BaseChannel, Error, Requeue,
    core::protocol::{ReplyCode, basic, queue},
    wire::{FieldTable, FieldValue},
};

use super::{
    Case, cases,
    tools::{
        becomes_ready, bind, by_peer, declare_exchange, fetch, in_doubt, look, open,
        open_confirming, put, ready, shared_queue, text, to,
    },
};
use crate::{context::Ctx, harness::Outcome};

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_policy_cuts_a_queue_until_it_is_cleared,
        an_operator_policy_cannot_be_exceeded,
        a_policy_has_the_dead_letter_exchange_of_a_queue,
        a_policy_has_the_alternate_exchange_of_an_exchange,
        a_policy_lets_an_unused_queue_expire,
        a_vhost_without_room_for_a_queue,
        routing_keys_are_permitted_by_pattern,
        a_connection_is_closed_with_a_reason,
    ]
}

/// A queue with one argument.
fn with(name: &str, argument: &str, value: impl Into<FieldValue>) -> Result<queue::Declare, Error> {
    let mut declare = shared_queue(name);
    declare.arguments = FieldTable::new().with(argument, value);
    Ok(declare)
}

/// Asserts that a declaration is refused with that text.
async fn refused_with(channel: &BaseChannel, declare: queue::Declare, text: &str) {
    let error = channel.call(declare).await.expect_err("a refusal");
    let Error::ChannelClosed(reason) = &error else {
        panic!("{error}");
    };
    assert_eq!(by_peer(reason).text, text);
}

/// Given a policy with a shorter maximum length, then the oldest messages are dropped at once; given
/// that it is cleared, then there is no limit.
async fn a_policy_cuts_a_queue_until_it_is_cleared(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("line")).await?;
    for body in ["1", "2", "3"] {
        put(&channel, "", "line", body).await?;
    }
    cx.set_policy("short", "^line$", "queues", &[("max-length", 1.into())])
        .await?;
    becomes_ready(&cx, &channel, "line", 1).await?;
    let fetched = fetch(&channel, "line").await?;
    assert_eq!(text(&fetched.body), "3");
    fetched.acker.ok_or("no acker")?.ack()?;
    cx.clear_policy("short").await?;
    for body in ["4", "5"] {
        put(&channel, "", "line", body).await?;
    }
    becomes_ready(&cx, &channel, "line", 2).await?;
    connection.close().await?;
    Ok(())
}

/// Given an operator policy, then the lower of its number, that of the policy and that of the
/// declaration applies.
async fn an_operator_policy_cannot_be_exceeded(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    cx.set_operator_policy("roof", "", &[("max-length", 2.into())])
        .await?;
    cx.set_policy("more", "", "queues", &[("max-length", 3.into())])
        .await?;
    channel.call(with("many", "x-max-length", 9)?).await?;
    channel.call(with("one", "x-max-length", 1)?).await?;
    for (queue, count) in [("many", 2), ("one", 1)] {
        for body in ["1", "2", "3"] {
            put(&channel, "", queue, body).await?;
        }
        assert_eq!(ready(&channel, queue).await?, count, "{queue}");
    }
    connection.close().await?;
    Ok(())
}

/// Given a policy with a dead-letter exchange, then a rejected message goes there.
async fn a_policy_has_the_dead_letter_exchange_of_a_queue(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for name in ["work", "dead"] {
        channel.call(shared_queue(name)).await?;
    }
    let letters = [
        ("dead-letter-exchange", "".into()),
        ("dead-letter-routing-key", "dead".into()),
    ];
    cx.set_policy("letters", "^work$", "queues", &letters)
        .await?;
    put(&channel, "", "work", "rejected").await?;
    let fetched = fetch(&channel, "work").await?;
    fetched.acker.ok_or("no acker")?.reject(Requeue::No)?;
    becomes_ready(&cx, &channel, "dead", 1).await?;
    connection.close().await?;
    Ok(())
}

/// Given a policy with an alternate exchange, then a message without a queue goes there.
async fn a_policy_has_the_alternate_exchange_of_an_exchange(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "first", "direct").await?;
    channel.call(shared_queue("lost")).await?;
    bind(&channel, "lost", "amq.fanout", "").await?;
    let alternate = [("alternate-exchange", "amq.fanout".into())];
    cx.set_policy("lost", "^first$", "exchanges", &alternate)
        .await?;
    put(&channel, "first", "nowhere", "x").await?;
    assert_eq!(ready(&channel, "lost").await?, 1);
    connection.close().await?;
    Ok(())
}

/// Given a policy with an expiry, then a queue that is unused for so long is gone, without another
/// event at the broker.
async fn a_policy_lets_an_unused_queue_expire(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("unused")).await?;
    cx.set_policy("brief", "^unused$", "queues", &[("expires", 300.into())])
        .await?;
    // To ask for the queue would be a use of it.
    cx.sleep(Duration::from_millis(1500)).await;
    // A list is no use of it. A busy broker may be late.
    cx.soon(async {
        while cx.queues().await?.iter().any(|it| it.name == "unused") {
            cx.sleep(Duration::from_millis(500)).await;
        }
        Outcome::Ok(())
    })
    .await??;
    let error = look(&channel, "unused").await.expect_err("no queue");
    assert_eq!(error.code(), Some(ReplyCode::NOT_FOUND));
    connection.close().await?;
    Ok(())
}

/// Given a limit of the virtual host on queues, when there are as many, then 406
/// precondition_failed for another, and none for those that exist.
async fn a_vhost_without_room_for_a_queue(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    cx.limit_queues(1).await?;
    channel.call(shared_queue("first")).await?;
    channel.call(shared_queue("first")).await?;
    let text = format!(
        "PRECONDITION_FAILED - cannot declare queue 'second': queue limit in vhost '{}' (1) is \
         reached",
        cx.vhost
    );
    refused_with(&channel, shared_queue("second"), &text).await;
    connection.close().await?;
    Ok(())
}

/// Given permissions for the routing keys of a topic exchange, then others are refused with 403
/// access_refused.
async fn routing_keys_are_permitted_by_pattern(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    bind(&channel, "q", "amq.topic", "#").await?;
    cx.permit_topics("amq.topic", "^{username}[.]", "^r")
        .await?;
    put(&channel, "amq.topic", "guest.news", "permitted").await?;
    let properties = basic::Properties::default();
    let other = to("amq.topic", "other.news");
    let confirm = channel.publish(&other, &properties, "refused").await?;
    let reason = in_doubt(confirm.await);
    let close = by_peer(&reason);
    assert_eq!(close.code, ReplyCode::ACCESS_REFUSED);
    assert_eq!(
        close.text,
        format!(
            "ACCESS_REFUSED - access to topic 'other.news' in exchange 'amq.topic' in vhost '{}' \
             refused for user 'guest'",
            cx.vhost
        )
    );
    let channel = connection.open_channel().await?;
    bind(&channel, "q", "amq.topic", "r.1").await?;
    assert!(bind(&channel, "q", "amq.topic", "x.1").await.is_err());
    connection.close().await?;
    Ok(())
}

/// Given a connection that an operator closes, then 320 connection_forced with the reason.
async fn a_connection_is_closed_with_a_reason(cx: Ctx) -> Outcome {
    let (connection, _channel) = open(&cx).await?;
    cx.close_connections("maintenance").await?;
    let reason = connection.closed().await;
    let close = by_peer(&reason);
    assert_eq!(close.code, ReplyCode::CONNECTION_FORCED);
    assert_eq!(close.text, "CONNECTION_FORCED - maintenance");
    Ok(())
}
