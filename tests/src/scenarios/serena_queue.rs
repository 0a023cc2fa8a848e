//! Serena: queues.

use amqp_tokio::core::{
    MethodId,
    protocol::{ReplyCode, queue},
};

use super::{
    Case, cases,
    tools::{
        assert_channel_closed, consume, look, open, open_confirming, own_queue, put, shared_queue,
    },
};
use crate::{context::Ctx, harness::Outcome};

const DECLARE: MethodId = MethodId::new(50, 10);
const DELETE: MethodId = MethodId::new(50, 40);

pub(super) fn cases() -> Vec<Case> {
    cases![
        ser_27_a_declared_queue_has_its_name_and_no_messages,
        ser_28_an_exclusive_queue_ends_with_its_connection,
        ser_29_deleting_a_queue_tells_how_many_messages_it_had,
        ser_30_a_queue_with_messages_is_not_deleted_if_empty,
        ser_31_a_queue_with_consumers_is_not_deleted_if_unused,
        ser_32_purging_tells_how_many_messages_there_were,
    ]
}

/// Given a named queue declare, then the name is echoed and message_count is 0.
async fn ser_27_a_declared_queue_has_its_name_and_no_messages(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let declared = channel.call(shared_queue("my queue")).await?;
    assert_eq!(declared.queue, "my queue");
    assert_eq!(declared.message_count, 0);
    Ok(connection.close().await?)
}

/// Given an exclusive queue whose connection ended, when passively declared from another
/// connection, then 404 and that connection stays open.
async fn ser_28_an_exclusive_queue_ends_with_its_connection(cx: Ctx) -> Outcome {
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
async fn ser_29_deleting_a_queue_tells_how_many_messages_it_had(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for messages in [0, 1] {
        let queue = own_queue(&channel).await?;
        for _ in 0..messages {
            put(&channel, "", &queue, "test").await?;
        }
        let delete = queue::Delete::default().queue(&queue)?;
        assert_eq!(channel.call(delete).await?.message_count, messages);
        let looking = connection.open_channel().await?;
        let error = look(&looking, &queue).await.expect_err("it is deleted");
        assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    }
    Ok(connection.close().await?)
}

/// Given a non-empty queue, when deleted if_empty, then 406.
async fn ser_30_a_queue_with_messages_is_not_deleted_if_empty(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "test").await?;
    let delete = queue::Delete::default().queue(&queue)?.if_empty(true);
    let error = channel.call(delete).await.expect_err("it is not empty");
    assert_channel_closed(&error, ReplyCode::PRECONDITION_FAILED, DELETE);
    let channel = connection.open_channel().await?;
    assert_eq!(look(&channel, &queue).await?.message_count, 1);
    Ok(connection.close().await?)
}

/// Given a consumer on a queue, when deleted if_unused, then 406.
async fn ser_31_a_queue_with_consumers_is_not_deleted_if_unused(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let queue = own_queue(&channel).await?;
    let consuming = connection.open_channel().await?;
    let _consumer = consuming.consume(consume(&queue)).await?;
    let delete = queue::Delete::default().queue(&queue)?.if_unused(true);
    let error = channel.call(delete).await.expect_err("it is used");
    assert_channel_closed(&error, ReplyCode::PRECONDITION_FAILED, DELETE);
    assert_eq!(look(&consuming, &queue).await?.consumer_count, 1);
    Ok(connection.close().await?)
}

/// Given an empty or one-message queue, when purged, then 0 or 1.
async fn ser_32_purging_tells_how_many_messages_there_were(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let purge = queue::Purge::default().queue(&queue)?;
    assert_eq!(channel.call(purge.clone()).await?.message_count, 0);
    put(&channel, "", &queue, "test").await?;
    assert_eq!(channel.call(purge.clone()).await?.message_count, 1);
    assert_eq!(channel.call(purge).await?.message_count, 0);
    Ok(connection.close().await?)
}
