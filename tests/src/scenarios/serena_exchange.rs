//! Serena: exchanges.

use amqp_tokio::core::{
    MethodId,
    protocol::{ReplyCode, exchange},
};

use super::{
    Case,
    bystanders::Bystanders,
    cases,
    tools::{
        assert_channel_closed, assert_connection_closed, bind, declare_exchange, get, open,
        open_confirming, own_queue, put,
    },
};
use crate::{context::Ctx, harness::Outcome};

pub(super) fn cases() -> Vec<Case> {
    cases![
        ser_18_every_type_of_exchange_can_be_declared,
        ser_19_an_unknown_type_of_exchange_closes_the_connection,
        ser_20_deleting_an_exchange_twice_is_no_error,
        ser_21_a_message_passes_from_exchange_to_exchange,
    ]
}

/// Given each type in {direct, fanout, topic, headers}, when declared, then Declare-Ok.
async fn ser_18_every_type_of_exchange_can_be_declared(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    for kind in ["direct", "fanout", "topic", "headers"] {
        declare_exchange(&channel, kind, kind).await?;
    }
    Ok(connection.close().await?)
}

/// Given exchange type "invalid", when declared, then a connection-level error 503 or 406.
async fn ser_19_an_unknown_type_of_exchange_closes_the_connection(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let error = declare_exchange(&channel, "exchange", "invalid")
        .await
        .expect_err("there is no such type");
    let code = error.code().ok_or("no code")?;
    assert!(
        [ReplyCode::COMMAND_INVALID, ReplyCode::PRECONDITION_FAILED].contains(&code),
        "{error}"
    );
    assert_connection_closed(&error, code);
    bystanders.all_told(code).await
}

/// Given a declared exchange, when deleted, then Delete-Ok; and deleting a missing one is not an
/// error.
async fn ser_20_deleting_an_exchange_twice_is_no_error(cx: Ctx) -> Outcome {
    const DECLARE: MethodId = MethodId::new(40, 10);
    let (connection, channel) = open(&cx).await?;
    declare_exchange(&channel, "passing", "direct").await?;
    let delete = exchange::Delete::default().exchange("passing")?;
    channel.call(delete.clone()).await?;
    channel.call(delete).await?;
    let look = exchange::Declare::default()
        .exchange("passing")?
        .passive(true);
    let error = channel.call(look).await.expect_err("it was deleted");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    Ok(connection.close().await?)
}

/// Given a binding from ex2 to ex1 and one from ex1 to a queue, when publishing to ex2, then the
/// message is in the queue.
async fn ser_21_a_message_passes_from_exchange_to_exchange(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "ex1", "direct").await?;
    declare_exchange(&channel, "ex2", "direct").await?;
    let between = exchange::Bind::default()
        .source("ex2")?
        .destination("ex1")?
        .routing_key("key")?;
    channel.call(between).await?;
    let queue = own_queue(&channel).await?;
    bind(&channel, &queue, "ex1", "key").await?;
    put(&channel, "ex2", "key", "passed on").await?;
    let message = channel
        .get(get(&queue))
        .await?
        .ok_or("the queue is empty")?;
    assert_eq!(message.body, "passed on");
    assert_eq!(message.method.exchange, "ex2");
    message.ack()?;
    Ok(connection.close().await?)
}
