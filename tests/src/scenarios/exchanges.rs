//! Exchanges and their bindings.

use amqp_tokio::{
    BaseChannel, Error,
    core::{
        MethodId,
        protocol::{ReplyCode, exchange},
    },
};

use super::{
    Case,
    bystanders::Bystanders,
    cases,
    tools::{
        assert_channel_closed, assert_connection_closed, bind, declare_exchange, fetch, open,
        open_confirming, own_queue, put,
    },
};
use crate::{context::Ctx, harness::Outcome};

const DECLARE: MethodId = MethodId::new(40, 10);

const BIND: MethodId = MethodId::new(40, 30);

pub(super) fn cases() -> Vec<Case> {
    cases![
        every_type_of_exchange_can_be_declared,
        an_unknown_type_of_exchange_closes_the_connection,
        deleting_an_exchange_twice_is_no_error,
        a_message_passes_from_exchange_to_exchange,
        declaring_an_exchange_again_changes_nothing,
        another_exchange_of_the_same_name_is_refused,
        an_existing_exchange_is_found_with_any_arguments,
        a_missing_exchange_is_not_found,
        an_unknown_type_closes_the_connection,
        a_deleted_exchange_is_not_found,
        exchanges_are_bound_and_unbound,
    ]
}

/// Given each type in {direct, fanout, topic, headers}, when declared, then Declare-Ok.
async fn every_type_of_exchange_can_be_declared(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    for kind in ["direct", "fanout", "topic", "headers"] {
        declare_exchange(&channel, kind, kind).await?;
    }
    Ok(connection.close().await?)
}

/// Given exchange type "invalid", when declared, then a connection-level error 503 or 406.
async fn an_unknown_type_of_exchange_closes_the_connection(cx: Ctx) -> Outcome {
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
    bystanders.all_closed_with(code).await
}

/// Given a declared exchange, when deleted, then Delete-Ok; and deleting a missing one is not an
/// error.
async fn deleting_an_exchange_twice_is_no_error(cx: Ctx) -> Outcome {
    const DECLARE: MethodId = MethodId::new(40, 10);
    let (connection, channel) = open(&cx).await?;
    declare_exchange(&channel, "passing", "direct").await?;
    let delete = exchange::Delete::default().exchange("passing");
    channel.call(delete.clone()).await?;
    channel.call(delete).await?;
    let look = exchange::Declare::default()
        .exchange("passing")
        .passive(true);
    let error = channel.call(look).await.expect_err("it was deleted");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    Ok(connection.close().await?)
}

/// Given a binding from ex2 to ex1 and one from ex1 to a queue, when publishing to ex2, then the
/// message is in the queue.
async fn a_message_passes_from_exchange_to_exchange(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "ex1", "direct").await?;
    declare_exchange(&channel, "ex2", "direct").await?;
    let between = exchange::Bind::default()
        .source("ex2")
        .destination("ex1")
        .routing_key("key");
    channel.call(between).await?;
    let queue = own_queue(&channel).await?;
    bind(&channel, &queue, "ex1", "key").await?;
    put(&channel, "ex2", "key", "passed on").await?;
    let message = fetch(&channel, &queue).await?;
    assert_eq!(message.body, "passed on");
    assert_eq!(message.method.exchange, "ex2");
    message.ack()?;
    Ok(connection.close().await?)
}

fn fanout(name: &str) -> exchange::Declare {
    exchange::Declare::default().exchange(name).kind("fanout")
}

/// Whether there is an exchange of that name.
async fn look(channel: &BaseChannel, name: &str) -> Result<(), Error> {
    let look = exchange::Declare::default().exchange(name).passive(true);
    channel.call(look).await.map(drop)
}

/// Given exchanges direct, fanout, topic, headers, when declared, ok.
async fn declaring_an_exchange_again_changes_nothing(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    for kind in ["direct", "fanout", "topic", "headers"] {
        declare_exchange(&channel, kind, kind).await?;
        // Saying it again changes nothing.
        declare_exchange(&channel, kind, kind).await?;
        look(&channel, kind).await?;
    }
    Ok(connection.close().await?)
}

/// Given a headers, auto_delete or durable exchange, when redeclared as fanout non-durable, then the
/// channel is closed (406).
async fn another_exchange_of_the_same_name_is_refused(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    for (name, existing) in [
        ("headers", fanout("headers").kind("headers")),
        ("auto_delete", fanout("auto_delete").auto_delete(true)),
        ("durable", fanout("durable").durable(true)),
        ("internal", fanout("internal").internal(true)),
    ] {
        let channel = connection.open_channel().await?;
        channel.call(existing).await?;
        let error = channel.call(fanout(name)).await.expect_err(name);
        assert_channel_closed(&error, ReplyCode::PRECONDITION_FAILED, DECLARE);
    }
    Ok(connection.close().await?)
}

/// Given an existing exchange, when passive-declared even with other flags, then ok.
async fn an_existing_exchange_is_found_with_any_arguments(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(fanout("existing").durable(true)).await?;
    let other = fanout("existing").kind("topic").auto_delete(true);
    channel.call(other.passive(true)).await?;
    Ok(connection.close().await?)
}

/// Given no exchange, when passive-declared, then 404.
async fn a_missing_exchange_is_not_found(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let error = look(&channel, "missing").await.expect_err("it is missing");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    Ok(connection.close().await?)
}

/// Given an unknown type, then a connection error.
async fn an_unknown_type_closes_the_connection(cx: Ctx) -> Outcome {
    let (_connection, channel) = open(&cx).await?;
    let error = declare_exchange(&channel, "exchange", "unknown")
        .await
        .expect_err("there is no such type");
    assert_connection_closed(&error, ReplyCode::COMMAND_INVALID);
    Ok(())
}

/// Given an exchange deleted, when passive-declared, 404; deleting twice is ok.
async fn a_deleted_exchange_is_not_found(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(fanout("passing")).await?;
    let delete = exchange::Delete::default().exchange("passing");
    for _ in 0..2 {
        channel.call(delete.clone()).await?;
    }
    let error = look(&channel, "passing").await.expect_err("it is deleted");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, DECLARE);
    Ok(connection.close().await?)
}

/// Given two exchanges, bind ok; binding missing ones, 404; unbind ok; unbind reversed, ok.
async fn exchanges_are_bound_and_unbound(cx: Ctx) -> Outcome {
    let bind = |from: &str, to: &str| {
        let bind = exchange::Bind::default().source(from).destination(to);
        bind.routing_key("key")
    };
    let unbind = |from: &str, to: &str| {
        let unbind = exchange::Unbind::default().source(from).destination(to);
        unbind.routing_key("key")
    };
    let (connection, channel) = open(&cx).await?;
    channel.call(fanout("one")).await?;
    channel.call(fanout("two")).await?;
    channel.call(bind("one", "two")).await?;
    channel.call(unbind("one", "two")).await?;
    channel.call(unbind("two", "one")).await?;
    for (from, to) in [
        ("one", "missing"),
        ("missing", "two"),
        ("missing", "missing"),
    ] {
        let channel = connection.open_channel().await?;
        let error = channel
            .call(bind(from, to))
            .await
            .expect_err("one is missing");
        assert_channel_closed(&error, ReplyCode::NOT_FOUND, BIND);
    }
    Ok(connection.close().await?)
}
