//! Prefetch, fetching, acknowledging and recovering.

use std::time::Duration;

use amqp_tokio::{
    Error, Requeue, Tags,
    core::{
        ApiMisuse,
        protocol::{ReplyCode, basic},
    },
    wire::FieldTable,
};

use super::{
    Case,
    bystanders::Bystanders,
    case, cases,
    tools::{
        assert_connection_closed, assert_misuse, becomes_ready, by_peer, consume, fetch, get, open,
        open_confirming, own_queue, put, ready, text, to,
    },
};
use crate::{
    context::{Ctx, join},
    harness::Outcome,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        prefetch_can_be_set,
        a_prefetch_size_is_refused_here,
        a_prefetch_size_closes_the_connection,
        get_returns_all_fields_of_a_message,
        deliveries_are_acknowledged_and_refused,
        an_acknowledgement_is_not_made_twice,
        recover_delivers_again,
        recover_without_requeue_is_refused_here,
        recover_without_requeue_closes_the_connection,
    ];
    let timing_out = case!(an_unacknowledged_delivery_closes_its_channel);
    cases.push(
        timing_out
            .alone(&["consumer_timeout = 500"])
            .embedded(|config| config.consumer_timeout = Some(Duration::from_millis(500))),
    );
    cases
}

/// Given no arguments, basic_qos ok; with count 100 ok.
async fn prefetch_can_be_set(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(basic::Qos::default()).await?;
    channel
        .call(basic::Qos::default().prefetch_count(100))
        .await?;
    // And it counts.
    channel
        .call(basic::Qos::default().prefetch_count(2))
        .await?;
    let queue = own_queue(&channel).await?;
    for number in 1..=3 {
        put(&channel, "", &queue, number.to_string()).await?;
    }
    let mut consumer = channel.consume(consume(&queue)).await?;
    let one = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    let two = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(ready(&channel, &queue).await?, 1);
    one.ack()?;
    let three = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(text(&three.body), "3");
    two.ack()?;
    three.ack()?;
    Ok(connection.close().await?)
}

/// RabbitMQ would close the connection, so that this side refuses the one call.
async fn a_prefetch_size_is_refused_here(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let feature = "basic.qos prefetch-size";
    assert_misuse(
        channel.call(basic::Qos::default().prefetch_size(10)).await,
        &ApiMisuse::NotImplementedByRabbitMq { feature },
    );
    channel.call(basic::Qos::default()).await?;
    Ok(connection.close().await?)
}

/// Given prefetch_size=10, then 540 not_implemented.
async fn a_prefetch_size_closes_the_connection(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let channel = connection.open_channel().await?;
    let (error, behind) = join(
        channel.call(basic::Qos::default().prefetch_size(10)),
        own_queue(&channel),
    )
    .await;
    let error = error.expect_err("RabbitMQ does not implement it");
    assert_connection_closed(&error, ReplyCode::NOT_IMPLEMENTED);
    assert_eq!(behind, Err(error));
    bystanders.all_closed_with(ReplyCode::NOT_IMPLEMENTED).await
}

/// Given a message, get returns all metadata; given none, nothing.
async fn get_returns_all_fields_of_a_message(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    assert!(channel.get(get(&queue)).await?.is_none());
    let properties = basic::Properties::default()
        .content_type("text/plain")
        .content_encoding("utf-8")
        .headers(FieldTable::new().with("a", 1).with("b", "two"))
        .delivery_mode(2)
        .priority(0)
        .correlation_id("c")
        .reply_to("r")
        .expiration("60000")
        .message_id("m")
        .timestamp(amqp_tokio::wire::Timestamp(1_700_000_000))
        .kind("k")
        .user_id("guest")
        .app_id("a");
    for _ in 0..2 {
        let confirm = channel
            .publish(&to("", &queue), &properties, "body")
            .await?;
        confirm.await?;
    }
    for (tag, left) in [(1, 1), (2, 0)] {
        let message = fetch(&channel, &queue).await?;
        let expected = basic::GetOk::default()
            .delivery_tag(tag)
            .routing_key(&queue)
            .message_count(left);
        assert_eq!(message.method, expected);
        assert_eq!(message.properties.decode()?, properties);
        assert_eq!(
            (message.exchange().as_str(), message.routing_key()),
            ("", &queue)
        );
        assert_eq!(message.header("b"), Some("two".into()));
        assert_eq!(message.header("c"), None);
        assert_eq!(message.body.text()?, "body");
        assert_eq!(
            message.acker.as_ref().map(|acker| acker.tag().get()),
            Some(tag)
        );
        message.ack()?;
    }
    put(&channel, "", &queue, "for nothing").await?;
    let message = channel.get(get(&queue).no_ack(true)).await?;
    let message = message.ok_or("the queue is empty")?;
    assert!(message.acker.is_none());
    assert_eq!(message.body, "for nothing");
    message.ack()?; // which is nothing
    assert!(channel.get(get(&queue)).await?.is_none());
    Ok(connection.close().await?)
}

/// Given a delivery: ack; nack(multiple, no requeue); nack(no requeue); nack(requeue) then
/// redelivered and acked; reject.
async fn deliveries_are_acknowledged_and_refused(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let mut next = async |body: &str| {
        let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
        assert_eq!(text(&delivery.body), body);
        Ok::<_, crate::harness::Failure>(delivery)
    };
    for body in [
        "ack",
        "nack these",
        "nack these two",
        "nack",
        "nack back",
        "reject",
        "reject back",
    ] {
        put(&channel, "", &queue, body).await?;
    }

    next("ack").await?.ack()?;
    let _ = next("nack these").await?;
    let these = next("nack these two").await?.acker.tag();
    channel.nack(Tags::UpTo(these), Requeue::No)?;
    next("nack").await?.nack(Requeue::No)?;
    let delivery = next("nack back").await?;
    assert!(!delivery.is_redelivered());
    delivery.nack(Requeue::Yes)?;
    next("reject").await?.reject(Requeue::No)?;
    next("reject back").await?.reject(Requeue::Yes)?;
    for body in ["nack back", "reject back"] {
        let delivery = next(body).await?;
        assert!(delivery.is_redelivered());
        delivery.ack()?;
    }

    // Up to one, and all of them.
    for body in ["1", "2", "3", "4"] {
        put(&channel, "", &queue, body).await?;
    }
    let one = next("1").await?;
    next("2").await?.acker.ack_up_to()?;
    let gone = one.acker.tag().get();
    assert_eq!(one.ack(), Err(ApiMisuse::UnknownDeliveryTag(gone).into()));
    let _ = (next("3").await?, next("4").await?);
    channel.ack(Tags::All)?;
    channel.ack(Tags::All)?; // of which there are none left

    // The server agrees: nothing is outstanding.
    channel.close().await?;
    let channel = connection.open_channel().await?;
    assert_eq!(ready(&channel, &queue).await?, 0);
    Ok(connection.close().await?)
}

/// A tag that is not outstanding is refused here, because RabbitMQ would close the channel.
async fn an_acknowledgement_is_not_made_twice(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "once").await?;
    let message = fetch(&channel, &queue).await?;
    let tag = message.acker.as_ref().ok_or("to be acknowledged")?.tag();
    channel.ack(Tags::One(tag))?;
    let twice = ApiMisuse::UnknownDeliveryTag(tag.get());
    assert_misuse(channel.ack(Tags::One(tag)), &twice);
    assert_misuse(channel.ack(Tags::UpTo(tag)), &twice);
    assert_misuse(channel.nack(Tags::One(tag), Requeue::Yes), &twice);
    assert_misuse(message.ack(), &twice);
    channel.close().await?;
    let channel = connection.open_channel().await?;
    assert_eq!(ready(&channel, &queue).await?, 0);
    Ok(connection.close().await?)
}

/// Given recover(requeue=true), Recover-Ok, and the outstanding messages are delivered again; the
/// asynchronous form is deprecated and does the same.
async fn recover_delivers_again(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "again").await?;
    for asynchronous in [false, true] {
        let message = fetch(&channel, &queue).await?;
        assert_eq!(ready(&channel, &queue).await?, 0);
        if asynchronous {
            channel.recover_async(true)?;
        } else {
            channel.call(basic::Recover { requeue: true }).await?;
        }
        becomes_ready(&cx, &channel, &queue, 1).await?;
        let stale = message.acker.as_ref().ok_or("to be acknowledged")?.tag();
        assert_misuse(message.ack(), &ApiMisuse::UnknownDeliveryTag(stale.get()));
    }
    let message = fetch(&channel, &queue).await?;
    assert!(message.is_redelivered());
    message.ack()?;
    channel.close().await?;
    let channel = connection.open_channel().await?;
    assert_eq!(ready(&channel, &queue).await?, 0);
    Ok(connection.close().await?)
}

/// RabbitMQ would close the connection, so that this side refuses the one call.
async fn recover_without_requeue_is_refused_here(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let feature = "basic.recover without requeue";
    let refused = ApiMisuse::NotImplementedByRabbitMq { feature };
    assert_misuse(
        channel.call(basic::Recover { requeue: false }).await,
        &refused,
    );
    assert_misuse(channel.recover_async(false), &refused);
    channel.call(basic::Recover { requeue: true }).await?;
    Ok(connection.close().await?)
}

/// Given recover(requeue=false), then a server error.
async fn recover_without_requeue_closes_the_connection(cx: Ctx) -> Outcome {
    let connection = cx.connect_unchecked().await?;
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let channel = connection.open_channel().await?;
    let error = channel
        .call(basic::Recover { requeue: false })
        .await
        .expect_err("RabbitMQ does not implement it");
    assert_connection_closed(&error, ReplyCode::NOT_IMPLEMENTED);
    bystanders.all_closed_with(ReplyCode::NOT_IMPLEMENTED).await
}

/// Given a consumer timeout, when a delivery is not acknowledged, then 406 closes its channel, and
/// the message is requeued.
async fn an_unacknowledged_delivery_closes_its_channel(cx: Ctx) -> Outcome {
    cx.check_acknowledgements_often().await?;
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "x").await?;
    let consuming = connection.open_channel().await?;
    let mut consumer = consuming.consume(consume(&queue)).await?;
    let _delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    let end = cx.soon(consumer.next()).await?.ok_or("no reason")?;
    let Err(Error::ChannelClosed(reason)) = end else {
        return Err(format!("the channel should be closed, but: {end:?}").into());
    };
    let close = by_peer(&reason);
    assert_eq!(close.code, ReplyCode::PRECONDITION_FAILED);
    assert_eq!(close.method, None);
    let number = delivery_channel(&close.text);
    assert_eq!(number, Some(consuming.number().to_string()), "{reason}");
    becomes_ready(&cx, &channel, &queue, 1).await?;
    Ok(connection.close().await?)
}

/// The channel in the text of a timeout: `Some` if all else is as it should be.
fn delivery_channel(text: &str) -> Option<String> {
    let rest = text.strip_prefix("PRECONDITION_FAILED - delivery acknowledgement on channel ")?;
    let number = rest.strip_suffix(
        " timed out. Timeout value used: 500 ms. This timeout value can be configured, see \
         consumers doc guide to learn more",
    )?;
    Some(number.to_owned())
}
