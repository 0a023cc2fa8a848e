//! Serena: messages, there and back.

use amqp_tokio::{
    Requeue, Unconfirmed,
    core::protocol::{ReplyCode, basic},
};

use super::{
    Case, cases,
    tools::{
        becomes_ready, bind, consume, declare_exchange, get, look, open_confirming, own_queue, put,
        ready, shared_queue, text, to,
    },
};
use crate::{context::Ctx, harness::Outcome};

pub(super) fn cases() -> Vec<Case> {
    cases![
        ser_22_get_and_acknowledge,
        ser_23_ten_messages_are_consumed,
        ser_24_a_rejected_message_can_be_fetched_again,
        ser_25_properties_come_back_as_they_were,
        ser_26_an_unroutable_message_is_returned,
        ser_33_an_empty_routing_key_is_one,
    ]
}

/// Given an empty exclusive queue, when get, then none; after publish, get returns "test"; ack
/// succeeds.
async fn ser_22_get_and_acknowledge(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    assert!(channel.get(get(&queue)).await?.is_none());
    put(&channel, "", &queue, "test").await?;
    let message = channel
        .get(get(&queue))
        .await?
        .ok_or("the queue is empty")?;
    assert_eq!(message.body, "test");
    message.ack()?;
    channel.close().await?;
    // The acknowledgement has arrived: nothing came back.
    let channel = connection.open_channel().await?;
    assert!(channel.get(get(&queue)).await?.is_none());
    Ok(connection.close().await?)
}

/// Given 10 messages (passive declare says 10), when consumed with auto-ack, then all 10 arrive and
/// passive declare says 0.
async fn ser_23_ten_messages_are_consumed(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("ten")).await?;
    for acknowledge in [false, true] {
        for number in 0..10 {
            put(&channel, "", "ten", format!("message {number}")).await?;
        }
        assert_eq!(ready(&channel, "ten").await?, 10);
        let reading = connection.open_channel().await?;
        let mut arrived = Vec::new();
        if acknowledge {
            let mut consumer = reading.consume(consume("ten")).await?;
            while arrived.len() < 10 {
                let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
                arrived.push(text(&delivery.body));
                delivery.ack()?;
            }
        } else {
            let mut consumer = reading.consume_no_ack(consume("ten")).await?;
            while arrived.len() < 10 {
                let message = cx.soon(consumer.next()).await?.ok_or("no message")??;
                arrived.push(text(&message.body));
            }
        }
        let expected: Vec<String> = (0..10).map(|number| format!("message {number}")).collect();
        assert_eq!(arrived, expected);
        assert_eq!(ready(&channel, "ten").await?, 0);
        // Nothing is outstanding either.
        reading.close().await?;
        assert_eq!(look(&channel, "ten").await?.consumer_count, 0);
        assert_eq!(ready(&channel, "ten").await?, 0);
    }
    Ok(connection.close().await?)
}

/// Given one message got, when rejected with requeue, then passive count is 1; get and ack again, 0.
async fn ser_24_a_rejected_message_can_be_fetched_again(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "test").await?;
    let message = channel
        .get(get(&queue))
        .await?
        .ok_or("the queue is empty")?;
    assert!(!message.method.redelivered);
    assert_eq!(ready(&channel, &queue).await?, 0);
    message.reject(Requeue::Yes)?;
    becomes_ready(&cx, &channel, &queue, 1).await?;
    let message = channel
        .get(get(&queue))
        .await?
        .ok_or("the queue is empty")?;
    assert!(message.method.redelivered);
    message.ack()?;
    channel.close().await?; // and what was sent on it before has taken effect
    let channel = connection.open_channel().await?;
    assert_eq!(ready(&channel, &queue).await?, 0);
    Ok(connection.close().await?)
}

/// Given header message_id="123456" and an empty body, when published and got, then the header is
/// equal.
async fn ser_25_properties_come_back_as_they_were(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let properties = basic::Properties::default().message_id("123456")?;
    let confirm = channel.publish(&to("", &queue), &properties, "").await?;
    confirm.await?;
    let message = channel
        .get(get(&queue))
        .await?
        .ok_or("the queue is empty")?;
    assert_eq!(message.properties.decode()?, properties);
    assert!(message.body.is_empty());
    message.ack()?;
    Ok(connection.close().await?)
}

/// Given a routing key with no queue, when publishing mandatory, then the message is returned with
/// 312 no_route and the channel stays open.
async fn ser_26_an_unroutable_message_is_returned(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let properties = basic::Properties::default().message_id("1")?;
    let confirm = channel
        .publish(&to("", "nowhere"), &properties, "come back")
        .await?;
    let Err(Unconfirmed::Returned(message)) = confirm.await else {
        return Err("it was not returned".into());
    };
    assert_eq!(message.code, ReplyCode::NO_ROUTE);
    assert_eq!(message.text, "NO_ROUTE");
    assert_eq!(message.exchange, "");
    assert_eq!(message.routing_key, "nowhere");
    assert_eq!(message.encoded_properties.decode()?, properties);
    assert_eq!(message.body, "come back");
    assert!(channel.is_open());
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "stay").await?;
    Ok(connection.close().await?)
}

/// Given a queue bound to a direct exchange with key "", when published there, then the queue gets
/// it.
async fn ser_33_an_empty_routing_key_is_one(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "direct", "direct").await?;
    let queue = own_queue(&channel).await?;
    bind(&channel, &queue, "direct", "").await?;
    put(&channel, "direct", "", "test").await?;
    let message = channel
        .get(get(&queue))
        .await?
        .ok_or("the queue is empty")?;
    assert_eq!(message.body, "test");
    assert_eq!(message.method.routing_key, "");
    message.ack()?;
    Ok(connection.close().await?)
}
