//! Messages, there and back.

use std::collections::BTreeSet;

use amqp_tokio::{
    BaseChannel, Requeue, Unconfirmed,
    core::{
        MethodDef as _,
        protocol::{ReplyCode, basic, exchange, queue},
    },
};

use super::{
    Case, cases,
    tools::{
        assert_channel_closed, becomes_ready, bind, consume, declare_exchange, fetch, get, look,
        open, open_confirming, own_queue, put, ready, shared_queue, text, to,
    },
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        get_and_acknowledge,
        ten_messages_are_consumed,
        a_rejected_message_can_be_fetched_again,
        properties_come_back_as_they_were,
        an_unroutable_message_is_returned,
        an_empty_routing_key_is_one,
        another_connection_sees_declared_entities,
        an_operator_sees_declared_entities,
        messages_are_fetched_and_delivered,
        returned_messages_are_not_delivered,
        nothing_is_unbound_from_the_default_exchange,
    ]
}

/// Given an empty exclusive queue, when get, then none; after publish, get returns "test"; ack
/// succeeds.
async fn get_and_acknowledge(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    assert!(channel.get(get(&queue)).await?.is_none());
    put(&channel, "", &queue, "test").await?;
    let message = fetch(&channel, &queue).await?;
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
async fn ten_messages_are_consumed(cx: Ctx) -> Outcome {
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
async fn a_rejected_message_can_be_fetched_again(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "test").await?;
    let message = fetch(&channel, &queue).await?;
    assert!(!message.is_redelivered());
    assert_eq!(ready(&channel, &queue).await?, 0);
    message.reject(Requeue::Yes)?;
    becomes_ready(&cx, &channel, &queue, 1).await?;
    let message = fetch(&channel, &queue).await?;
    assert!(message.is_redelivered());
    message.ack()?;
    channel.close().await?; // and earlier output on it has taken effect
    let channel = connection.open_channel().await?;
    assert_eq!(ready(&channel, &queue).await?, 0);
    Ok(connection.close().await?)
}

/// Given header message_id="123456" and an empty body, when published and got, then the header is
/// equal.
async fn properties_come_back_as_they_were(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let properties = basic::Properties::default().message_id("123456");
    let confirm = channel.publish(&to("", &queue), &properties, "").await?;
    confirm.await?;
    let message = fetch(&channel, &queue).await?;
    assert_eq!(message.properties.decode()?, properties);
    assert!(message.body.is_empty());
    message.ack()?;
    Ok(connection.close().await?)
}

/// Given a routing key with no queue, when publishing mandatory, then the message is returned with
/// 312 no_route and the channel stays open.
async fn an_unroutable_message_is_returned(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let properties = basic::Properties::default().message_id("1");
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
async fn an_empty_routing_key_is_one(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "direct", "direct").await?;
    let queue = own_queue(&channel).await?;
    bind(&channel, &queue, "direct", "").await?;
    put(&channel, "direct", "", "test").await?;
    let message = fetch(&channel, &queue).await?;
    assert_eq!(message.body, "test");
    assert_eq!(message.method.routing_key, "");
    message.ack()?;
    Ok(connection.close().await?)
}

/// Given an exchange and a queue that are declared, bound and deleted, then a second connection sees
/// each of it.
async fn another_connection_sees_declared_entities(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let (observer, observing) = open(&cx).await?;
    declare_exchange(&channel, "e", "direct").await?;
    channel.call(shared_queue("q")).await?;
    see_exchange(&observing, "e").await?;
    look(&observing, "q").await?;
    bind(&channel, "q", "e", "key").await?;
    put(&channel, "e", "key", "bound").await?;
    assert_eq!(ready(&observing, "q").await?, 1);

    channel
        .call(exchange::Delete::default().exchange("e"))
        .await?;
    channel.call(queue::Delete::default().queue("q")).await?;
    let error = look(&observing, "q").await.expect_err("it was deleted");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, queue::Declare::ID);
    let observing = observer.open_channel().await?;
    let gone = see_exchange(&observing, "e").await;
    let error = gone.expect_err("it was deleted").downcast()?;
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, exchange::Declare::ID);
    observer.close().await?;
    Ok(connection.close().await?)
}

/// Given an exchange and a queue that are declared, bound and deleted, then the broker's operator
/// sees each of it.
async fn an_operator_sees_declared_entities(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    declare_exchange(&channel, "e", "direct").await?;
    channel.call(shared_queue("q")).await?;
    bind(&channel, "q", "e", "key").await?;
    assert_eq!(cx.exchanges().await?, BTreeSet::from(["e".into()]));
    let bindings = [("", "q", "q"), ("e", "q", "key")];
    let bindings = bindings.map(|(from, to, key)| (from.into(), to.into(), key.into()));
    assert_eq!(cx.bindings().await?, BTreeSet::from(bindings));

    channel
        .call(exchange::Delete::default().exchange("e"))
        .await?;
    channel.call(queue::Delete::default().queue("q")).await?;
    assert_eq!(cx.exchanges().await?, BTreeSet::new());
    assert_eq!(cx.bindings().await?, BTreeSet::new());
    Ok(connection.close().await?)
}

/// Given a message, then get gives it, and so does a consumer, with all that is to be known of it;
/// nothing is left afterwards.
async fn messages_are_fetched_and_delivered(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "fetched").await?;
    let message = fetch(&channel, &queue).await?;
    assert_eq!(message.body, "fetched");
    message.ack()?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    put(&channel, "", &queue, "delivered").await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    let expected = basic::Deliver::default()
        .consumer_tag(&**consumer.tag())
        .delivery_tag(2)
        .routing_key(&*queue);
    assert_eq!(delivery.method, expected);
    assert_eq!(text(&delivery.body), "delivered");
    delivery.ack()?;
    consumer.cancel().await?;
    assert!(consumer.next().await.is_none());
    let left = look(&channel, &queue).await?;
    assert_eq!((left.message_count, left.consumer_count), (0, 0));
    Ok(connection.close().await?)
}

/// Given a mandatory message, when it cannot be routed, then it comes back and is not delivered;
/// when it can, then it does not come back.
async fn returned_messages_are_not_delivered(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let queue = own_queue(&channel).await?;
    let mut returns = channel.returns();
    let mut consumer = channel.consume_no_ack(consume(&queue)).await?;
    let properties = basic::Properties::default();
    for (key, body) in [
        ("nowhere", "back"),
        (&*queue, "there"),
        ("nowhere", "again"),
    ] {
        channel.publish(&to("", key), &properties, body).await?;
    }
    let delivered = cx.soon(consumer.next()).await?.ok_or("no message")??;
    assert_eq!(text(&delivered.body), "there");
    for body in ["back", "again"] {
        let returned = cx.soon(returns.next()).await?.ok_or("no return")?;
        assert_eq!(returned.code, ReplyCode::NO_ROUTE);
        assert_eq!(text(&returned.body), body);
    }
    Ok(connection.close().await?)
}

/// Given the default exchange, when a queue is unbound from it, then the call is refused.
async fn nothing_is_unbound_from_the_default_exchange(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let channel = connection.open_channel().await?;
    let queue = own_queue(&channel).await?;
    let unbind = queue::Unbind::default().queue(&*queue).routing_key(&*queue);
    let error = channel.call(unbind).await.expect_err("it is refused");
    assert_channel_closed(&error, ReplyCode::ACCESS_REFUSED, queue::Unbind::ID);
    assert!(connection.is_open());
    Ok(connection.close().await?)
}

/// Sees whether an exchange is there.
async fn see_exchange(channel: &BaseChannel, name: &str) -> Result<(), Failure> {
    let declare = exchange::Declare::default().exchange(name).passive(true);
    channel.call(declare).await?;
    Ok(())
}
