//! Queues: declaring, binding, purging and deleting.

use std::collections::BTreeSet;

use amqp_tokio::{
    core::{
        MethodId,
        protocol::{ReplyCode, queue},
    },
    wire::FieldTable,
};

use super::{
    Case, cases,
    tools::{
        assert_channel_closed, bind, consume, declare_exchange, look, open, open_confirming,
        own_queue, put, shared_queue,
    },
};
use crate::{context::Ctx, harness::Outcome, operator::Declared};

const DECLARE: MethodId = MethodId::new(50, 10);

const DELETE: MethodId = MethodId::new(50, 40);

const BIND: MethodId = MethodId::new(50, 20);

const PURGE: MethodId = MethodId::new(50, 30);

const CONSUME: MethodId = MethodId::new(60, 20);

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_declared_queue_has_its_name_and_no_messages,
        an_exclusive_queue_ends_with_its_connection,
        deleting_a_queue_returns_its_number_of_messages,
        a_queue_with_messages_is_not_deleted_if_empty,
        a_queue_with_consumers_is_not_deleted_if_unused,
        purging_returns_the_number_of_messages,
        the_server_names_a_queue_without_a_name,
        a_new_queue_is_empty_and_unused,
        a_time_to_live_may_need_more_than_31_bits,
        a_missing_queue_is_not_found,
        another_queue_of_the_same_name_is_refused,
        two_channels_declare_the_same_queue,
        the_broker_lists_the_flags,
        an_exclusive_queue_is_locked_for_others,
        two_connections_consume_a_queue,
        deleting_a_queue_twice_is_no_error,
        queues_are_bound_and_unbound,
        purging_an_empty_or_a_missing_queue,
    ]
}

/// Given a named queue declare, then the name is echoed and message_count is 0.
async fn a_declared_queue_has_its_name_and_no_messages(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let declared = channel.call(shared_queue("my queue")).await?;
    assert_eq!(declared.queue, "my queue");
    assert_eq!(declared.message_count, 0);
    Ok(connection.close().await?)
}

/// Given an exclusive queue whose connection ended, when passively declared from another
/// connection, then 404 and that connection stays open.
async fn an_exclusive_queue_ends_with_its_connection(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let queue = own_queue(&channel).await?;
    connection.close().await?;

    let (connection, channel) = open(&cx).await?;
    let error = look(&channel, &queue).await.expect_err("it has ended");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    let channel = connection.open_channel().await?;
    own_queue(&channel).await?;
    Ok(connection.close().await?)
}

/// Given an exclusive queue, when deleted, returns 0; passive declare, 404; with one message in it
/// delete returns 1.
async fn deleting_a_queue_returns_its_number_of_messages(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for messages in [0, 1] {
        let queue = own_queue(&channel).await?;
        for _ in 0..messages {
            put(&channel, "", &queue, "test").await?;
        }
        let delete = queue::Delete::default().queue(&queue);
        assert_eq!(channel.call(delete).await?.message_count, messages);
        let looking = connection.open_channel().await?;
        let error = look(&looking, &queue).await.expect_err("it is deleted");
        assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    }
    Ok(connection.close().await?)
}

/// Given a non-empty queue, when deleted if_empty, then 406.
async fn a_queue_with_messages_is_not_deleted_if_empty(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "test").await?;
    let delete = queue::Delete::default().queue(&queue).if_empty(true);
    let error = channel.call(delete).await.expect_err("it is not empty");
    assert_channel_closed(&error, ReplyCode::PRECONDITION_FAILED, DELETE);
    let channel = connection.open_channel().await?;
    assert_eq!(look(&channel, &queue).await?.message_count, 1);
    Ok(connection.close().await?)
}

/// Given a consumer on a queue, when deleted if_unused, then 406.
async fn a_queue_with_consumers_is_not_deleted_if_unused(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let queue = own_queue(&channel).await?;
    let consuming = connection.open_channel().await?;
    let _consumer = consuming.consume(consume(&queue)).await?;
    let delete = queue::Delete::default().queue(&queue).if_unused(true);
    let error = channel.call(delete).await.expect_err("it is used");
    assert_channel_closed(&error, ReplyCode::PRECONDITION_FAILED, DELETE);
    assert_eq!(look(&consuming, &queue).await?.consumer_count, 1);
    Ok(connection.close().await?)
}

/// Given an empty or one-message queue, when purged, then 0 or 1.
async fn purging_returns_the_number_of_messages(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let purge = queue::Purge::default().queue(&queue);
    assert_eq!(channel.call(purge.clone()).await?.message_count, 0);
    put(&channel, "", &queue, "test").await?;
    assert_eq!(channel.call(purge.clone()).await?.message_count, 1);
    assert_eq!(channel.call(purge).await?.message_count, 0);
    Ok(connection.close().await?)
}

/// Given no name, queue_declare returns a non-empty name.
async fn the_server_names_a_queue_without_a_name(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let unnamed = queue::Declare::default().exclusive(true);
    let one = channel.call(unnamed.clone()).await?.queue;
    let two = channel.call(unnamed).await?.queue;
    assert!(!one.is_empty() && !two.is_empty());
    assert_ne!(one, two);
    Ok(connection.close().await?)
}

/// Given name q, declare gives counts 0 and 0 and the same name; passive the same.
async fn a_new_queue_is_empty_and_unused(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let expected = queue::DeclareOk::default().queue("q");
    assert_eq!(channel.call(shared_queue("q")).await?, expected);
    assert_eq!(look(&channel, "q").await?, expected);
    Ok(connection.close().await?)
}

/// Given argument x-message-ttl = 2^31, which needs more than an i32, when declared, then accepted.
async fn a_time_to_live_may_need_more_than_31_bits(cx: Ctx) -> Outcome {
    const TTL: u32 = 1 << 31;
    let (connection, channel) = open(&cx).await?;
    let arguments = FieldTable::new().with("x-message-ttl", TTL);
    channel
        .call(shared_queue("ttl").arguments(arguments))
        .await?;
    // It is the number that was meant: RabbitMQ compares numbers and not their types.
    let arguments = FieldTable::new().with("x-message-ttl", i64::from(TTL));
    channel
        .call(shared_queue("ttl").arguments(arguments))
        .await?;
    let arguments = FieldTable::new().with("x-message-ttl", i64::from(TTL) - 1);
    let error = channel
        .call(shared_queue("ttl").arguments(arguments))
        .await
        .expect_err("it is another number");
    assert_channel_closed(&error, ReplyCode::PRECONDITION_FAILED, DECLARE);
    Ok(connection.close().await?)
}

/// Given no queue, passive, 404.
async fn a_missing_queue_is_not_found(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let error = look(&channel, "missing").await.expect_err("it is missing");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    Ok(connection.close().await?)
}

/// Given a queue, when redeclared exclusive and auto_delete, then 405 or 406.
async fn another_queue_of_the_same_name_is_refused(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let other = shared_queue("q").exclusive(true).auto_delete(true);
    let error = channel.call(other).await.expect_err("it is another queue");
    let code = error.code().ok_or("no code")?;
    assert!(
        [ReplyCode::RESOURCE_LOCKED, ReplyCode::PRECONDITION_FAILED].contains(&code),
        "{error}"
    );
    assert_channel_closed(&error, code, DECLARE);
    Ok(connection.close().await?)
}

/// Given two channels, when both declare the same queue, both get 0 and 0.
async fn two_channels_declare_the_same_queue(cx: Ctx) -> Outcome {
    let (connection, one) = open(&cx).await?;
    let two = connection.open_channel().await?;
    let (one, two) =
        crate::context::join(one.call(shared_queue("q")), two.call(shared_queue("q"))).await;
    let expected = queue::DeclareOk::default().queue("q");
    assert_eq!((one?, two?), (expected.clone(), expected));
    Ok(connection.close().await?)
}

/// Given each of durable and auto_delete, when declared, then the broker lists those flags. RabbitMQ
/// refuses two of the four since 4.3.
async fn the_broker_lists_the_flags(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let mut expected = BTreeSet::new();
    for durable in [false, true] {
        for auto_delete in [false, true] {
            let name = format!("q-{durable}-{auto_delete}");
            let declare = queue::Declare::default()
                .queue(&name)
                .durable(durable)
                .auto_delete(auto_delete);
            channel.call(declare).await?;
            expected.insert(Declared {
                name,
                durable,
                auto_delete,
            });
        }
    }
    assert_eq!(cx.queues().await?, expected);
    Ok(connection.close().await?)
}

/// Given an exclusive queue consumed on connection A, when connection B consumes it, then 405.
async fn an_exclusive_queue_is_locked_for_others(cx: Ctx) -> Outcome {
    let (a, on_a) = open(&cx).await?;
    let (b, on_b) = open(&cx).await?;
    on_a.call(shared_queue("exclusive").exclusive(true)).await?;
    let _consumer = on_a.consume(consume("exclusive")).await?;
    let error = on_b
        .consume(consume("exclusive"))
        .await
        .expect_err("it is A's");
    assert_channel_closed(&error, ReplyCode::RESOURCE_LOCKED, CONSUME);
    b.close().await?;
    Ok(a.close().await?)
}

/// Given a non-exclusive queue, when two connections consume, both ok.
async fn two_connections_consume_a_queue(cx: Ctx) -> Outcome {
    let (a, on_a) = open_confirming(&cx).await?;
    let (b, on_b) = open(&cx).await?;
    on_a.call(shared_queue("q")).await?;
    let mut one = on_a.consume(consume("q")).await?;
    let mut two = on_b.consume(consume("q")).await?;
    assert_eq!(look(&on_a, "q").await?.consumer_count, 2);
    put(&on_a, "", "q", "").await?;
    put(&on_a, "", "q", "").await?;
    // They take turns.
    cx.soon(one.next()).await?.ok_or("no delivery")??.ack()?;
    cx.soon(two.next()).await?.ok_or("no delivery")??.ack()?;
    b.close().await?;
    Ok(a.close().await?)
}

/// Given a queue, delete ok; deleting a missing one, ok.
async fn deleting_a_queue_twice_is_no_error(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let delete = queue::Delete::default().queue("q");
    assert_eq!(channel.call(delete.clone()).await?.message_count, 0);
    assert_eq!(channel.call(delete).await?.message_count, 0);
    let error = look(&channel, "q").await.expect_err("it is deleted");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    Ok(connection.close().await?)
}

/// Given queue and exchange, bind ok; missing exchange or queue, 404; unbind ok.
async fn queues_are_bound_and_unbound(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    declare_exchange(&channel, "e", "direct").await?;
    bind(&channel, "q", "e", "key").await?;
    put(&channel, "e", "key", "").await?;
    let unbind = queue::Unbind::default()
        .queue("q")
        .exchange("e")
        .routing_key("key");
    channel.call(unbind).await?;
    put(&channel, "e", "key", "")
        .await
        .expect_err("nothing is bound there any more");
    assert_eq!(look(&channel, "q").await?.message_count, 1);
    for (queue, exchange) in [("q", "missing"), ("missing", "e")] {
        let channel = connection.open_channel().await?;
        let error = bind(&channel, queue, exchange, "")
            .await
            .expect_err("one is missing");
        assert_channel_closed(&error, ReplyCode::NOT_FOUND, BIND);
    }
    Ok(connection.close().await?)
}

/// Given an empty queue, purge gives 0; missing, 404.
async fn purging_an_empty_or_a_missing_queue(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let purged = channel.call(queue::Purge::default().queue("q")).await?;
    assert_eq!(purged.message_count, 0);
    let missing = queue::Purge::default().queue("missing");
    let error = channel.call(missing).await.expect_err("it is missing");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, PURGE);
    Ok(connection.close().await?)
}
