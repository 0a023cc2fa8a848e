//! amqproto: what a connection is for, seen by a second one.

use amqp_tokio::{
    BaseChannel,
    core::{
        MethodDef as _,
        protocol::{ReplyCode, basic, exchange, queue},
    },
};

use super::{
    Case, cases,
    tools::{
        assert_channel_closed, bind, consume, declare_exchange, get, look, open, open_confirming,
        own_queue, put, ready, shared_queue, text, to,
    },
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        apr_33_another_connection_sees_what_was_declared,
        apr_34_messages_are_fetched_and_delivered,
        apr_35_what_comes_back_is_not_delivered,
        apr_36_nothing_is_unbound_from_the_default_exchange,
    ]
}

/// Given an exchange and a queue that are declared, bound and deleted, then a second connection sees
/// each of it.
async fn apr_33_another_connection_sees_what_was_declared(cx: Ctx) -> Outcome {
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
        .call(exchange::Delete::default().exchange("e")?)
        .await?;
    channel.call(queue::Delete::default().queue("q")?).await?;
    let error = look(&observing, "q").await.expect_err("it was deleted");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, queue::Declare::ID);
    let observing = observer.open_channel().await?;
    let gone = see_exchange(&observing, "e").await;
    let error = gone.expect_err("it was deleted").downcast()?;
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, exchange::Declare::ID);
    observer.close().await?;
    Ok(connection.close().await?)
}

/// Given a message, then get gives it, and so does a consumer, with all that is to be known of it;
/// nothing is left afterwards.
async fn apr_34_messages_are_fetched_and_delivered(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "fetched").await?;
    let message = channel.get(get(&queue)).await?.ok_or("nothing arrived")?;
    assert_eq!(message.body, "fetched");
    message.ack()?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    put(&channel, "", &queue, "delivered").await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    let expected = basic::Deliver::default()
        .consumer_tag(&**consumer.tag())?
        .delivery_tag(2)
        .routing_key(&*queue)?;
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
async fn apr_35_what_comes_back_is_not_delivered(cx: Ctx) -> Outcome {
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

/// Given the default exchange, when a queue is unbound from it, then the caller is told that this is
/// refused.
async fn apr_36_nothing_is_unbound_from_the_default_exchange(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let channel = connection.open_channel().await?;
    let queue = own_queue(&channel).await?;
    let unbind = queue::Unbind::default()
        .queue(&*queue)?
        .routing_key(&*queue)?;
    let error = channel.call(unbind).await.expect_err("it is refused");
    assert_channel_closed(&error, ReplyCode::ACCESS_REFUSED, queue::Unbind::ID);
    assert!(connection.is_open());
    Ok(connection.close().await?)
}

/// Sees whether an exchange is there.
async fn see_exchange(channel: &BaseChannel, name: &str) -> Result<(), Failure> {
    let declare = exchange::Declare::default().exchange(name)?.passive(true);
    channel.call(declare).await?;
    Ok(())
}
