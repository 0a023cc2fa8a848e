//! trio_amqp: channels.

use std::time::Duration;

use amqp_tokio::{
    Requeue, Tags,
    core::{
        ApiMisuse, MethodId,
        protocol::{ReplyCode, basic, channel},
    },
};

use super::{
    Case,
    bystanders::Bystanders,
    case, cases,
    tools::{
        assert_channel_closed, assert_connection_closed, assert_misuse, consume, get, is_own_close,
        open, own_queue, put, ready, text, to,
    },
};
use crate::{context::Ctx, harness::Outcome, relay::Relay};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        tri_12_a_channel_is_open_until_its_scope_is_left,
        tri_13_get_from_a_missing_queue_closes_the_channel,
        tri_14_a_closed_channel_refuses_everything,
        tri_15_two_channels_have_two_numbers,
        tri_16_flow_can_be_resumed,
        tri_17_pausing_is_refused_here,
    ];
    cases.extend([
        case!(tri_17_pausing_closes_the_connection).embedded(|config| config.rules.flow = false),
        case!(tri_17_flow_is_paused_and_resumed).not_on_rabbitmq("RabbitMQ does not implement it"),
    ]);
    cases
}

/// Given a channel scope, then the number is not 0 and it is open; after it, not open; the count of
/// numbers is back to the start.
async fn tri_12_a_channel_is_open_until_its_scope_is_left(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let start = connection.channel_count();
    let channel = connection.open_channel().await?;
    assert_ne!(channel.number(), 0);
    assert!(channel.is_open());
    assert_eq!(connection.channel_count(), start + 1);
    channel.close().await?;
    assert!(!channel.is_open());
    assert_eq!(connection.channel_count(), start);
    Ok(connection.close().await?)
}

/// Given get on a missing queue, then the channel is closed with 404 and not open.
async fn tri_13_get_from_a_missing_queue_closes_the_channel(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let error = channel
        .get(get("missing"))
        .await
        .expect_err("it is missing");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, MethodId::new(60, 70));
    assert!(!channel.is_open());
    assert!(connection.is_open());
    Ok(connection.close().await?)
}

/// Given a closed channel, when closed again, or used to publish, declare or consume, then it is an
/// error each time, and nothing on the wire.
async fn tri_14_a_closed_channel_refuses_everything(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    let own = connection.open_channel().await?;
    own.close().await?;
    let by_server = connection.open_channel().await?;
    let cause = by_server
        .get(get("missing"))
        .await
        .expect_err("it is missing");
    // Its close-ok has passed when something after it was answered.
    let other = connection.open_channel().await?;
    other.call(basic::Qos::default()).await?;

    let sent = relay.to_broker();
    for channel in [&own, &by_server] {
        let publish = to("", "nowhere");
        let errors = [
            channel.close().await.err(),
            channel
                .publish(&publish, &basic::Properties::default(), "")
                .await
                .err(),
            own_queue(channel).await.err(),
            channel.consume(consume("queue")).await.err(),
            channel.consume_no_ack(consume("queue")).await.err(),
            channel.get(get("queue")).await.err(),
            channel.call(basic::Qos::default()).await.err(),
            channel.ack(Tags::All).err(),
            channel.nack(Tags::All, Requeue::Yes).err(),
            channel.recover_async(true).err(),
        ];
        for error in errors {
            let error = error.ok_or("a closed channel did something")?;
            if channel.number() == own.number() {
                assert!(is_own_close(&error), "{error}");
            } else {
                assert_eq!(error, cause);
            }
        }
        let none = channel.returns().next().await;
        assert_eq!(none, None);
    }
    cx.sleep(Duration::from_millis(100)).await;
    assert_eq!(relay.to_broker(), sent);
    drop((own, by_server));
    assert!(other.is_open());
    Ok(connection.close().await?)
}

/// Given two channels, then different numbers.
async fn tri_15_two_channels_have_two_numbers(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let one = connection.open_channel().await?;
    let two = connection.open_channel().await?;
    assert_ne!(one.number(), two.number());
    assert_ne!(one.id(), two.id());
    Ok(connection.close().await?)
}

/// Given flow(active=true), once and twice, then Flow-Ok active=true.
async fn tri_16_flow_can_be_resumed(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    for _ in 0..2 {
        let flow = channel.call(channel::Flow { active: true }).await?;
        assert!(flow.active);
    }
    Ok(connection.close().await?)
}

/// RabbitMQ would close the connection, so that this side refuses the one call.
async fn tri_17_pausing_is_refused_here(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let feature = "channel.flow active=false";
    assert_misuse(
        channel.call(channel::Flow { active: false }).await,
        &ApiMisuse::NotImplementedByRabbitMq { feature },
    );
    assert!(channel.call(channel::Flow { active: true }).await?.active);
    Ok(connection.close().await?)
}

/// Given RabbitMQ, when the client pauses it, then 540.
async fn tri_17_pausing_closes_the_connection(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let channel = connection.open_channel().await?;
    let error = channel
        .call(channel::Flow { active: false })
        .await
        .expect_err("RabbitMQ does not implement it");
    assert_connection_closed(&error, ReplyCode::NOT_IMPLEMENTED);
    bystanders.all_told(ReplyCode::NOT_IMPLEMENTED).await
}

/// Given flow(active=false), then flow(active=true), then flow-ok says the same each time, and what
/// was kept back meanwhile is delivered.
async fn tri_17_flow_is_paused_and_resumed(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let channel = connection.open_channel().await?;
    let queue = own_queue(&channel).await?;
    let mut consumer = channel.consume_no_ack(consume(&queue)).await?;
    for _ in 0..2 {
        let flow = channel.call(channel::Flow { active: false }).await?;
        assert!(!flow.active);
    }
    let publisher = connection.open_channel().await?.confirm_select().await?;
    put(&publisher, "", &queue, "kept back").await?;
    assert_eq!(ready(&channel, &queue).await?, 1);
    for _ in 0..2 {
        let flow = channel.call(channel::Flow { active: true }).await?;
        assert!(flow.active);
    }
    let message = cx
        .soon(consumer.next())
        .await?
        .ok_or("the consumer ended")??;
    assert_eq!(text(&message.body), "kept back");
    Ok(connection.close().await?)
}
