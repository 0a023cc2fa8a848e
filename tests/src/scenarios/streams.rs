//! Stream queues: where readers start, what acknowledging means, and what is refused.

use amqp_tokio::{
    BaseChannel, Consumer, Delivery, ManualAck, Requeue,
    core::protocol::{ReplyCode, basic, queue},
    wire::{FieldTable, FieldValue, ShortStr, Timestamp},
};

use super::{
    Case, cases,
    tools::{assert_connection_closed, bind, consume, get, open, open_confirming, put, text},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

const STREAM: &str = "stream";

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_reader_starts_at_the_offset_that_it_names,
        a_reader_gets_what_is_published_later,
        acknowledged_messages_stay_in_a_stream,
        a_stream_keeps_no_nested_headers,
        what_takes_messages_of_a_stream_is_refused,
        a_stream_is_neither_transient_nor_exclusive,
    ]
}

/// Declares the stream.
async fn declare(channel: &BaseChannel) -> Outcome {
    let mut stream = queue::Declare::default().queue(STREAM).durable(true);
    stream.arguments = FieldTable::new().with("x-queue-type", "stream");
    channel.call(stream).await?;
    Ok(())
}

/// A consumer of the stream that starts there.
async fn read(
    channel: &BaseChannel,
    from: impl Into<FieldValue>,
) -> Result<Consumer<ManualAck>, Failure> {
    let mut reader = consume(STREAM);
    reader.arguments = FieldTable::new().with("x-stream-offset", from);
    Ok(channel.consume(reader).await?)
}

async fn next(cx: &Ctx, reader: &mut Consumer<ManualAck>) -> Result<Delivery, Failure> {
    Ok(cx.soon(reader.next()).await?.ok_or("no delivery")??)
}

/// The offset of a delivery.
fn offset(delivery: &Delivery) -> Result<i64, Failure> {
    let headers = delivery.properties()?.headers.unwrap_or_default();
    let offset = headers.get("x-stream-offset");
    let offset = offset.and_then(FieldValue::as_i64);
    offset.ok_or_else(|| "no x-stream-offset".into())
}

/// Given a stream with messages, when consumers ask for first, last, an offset, an interval and a
/// time, then
/// each starts there, and each delivery has its offset in the header `x-stream-offset`.
async fn a_reader_starts_at_the_offset_that_it_names(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare(&channel).await?;
    for number in 0..5 {
        put(&channel, "", STREAM, number.to_string()).await?;
    }
    let starts: [(FieldValue, i64); 6] = [
        ("first".into(), 0),
        ("last".into(), 4),
        (3.into(), 3),
        (0.into(), 0),
        ("1h".into(), 0),
        (Timestamp(0).into(), 0),
    ];
    for (from, start) in starts {
        let reading = connection.open_channel().await?;
        let mut reader = read(&reading, from).await?;
        for expected in start..5 {
            let delivery = next(&cx, &mut reader).await?;
            assert_eq!(offset(&delivery)?, expected);
            assert_eq!(text(&delivery.body), expected.to_string());
            assert!(!delivery.method.redelivered);
            delivery.ack()?;
        }
        reading.close().await?;
    }
    Ok(connection.close().await?)
}

/// Given a stream, when consumers wait at its end and beyond it, then one gets the next message, and
/// the other the message with its offset.
async fn a_reader_gets_what_is_published_later(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare(&channel).await?;
    put(&channel, "", STREAM, "0").await?;
    let one = connection.open_channel().await?;
    let mut at_the_end = read(&one, "next").await?;
    let other = connection.open_channel().await?;
    let mut beyond = read(&other, 3).await?;
    bind(&channel, STREAM, "amq.fanout", "").await?;
    for number in 1..5 {
        put(&channel, "amq.fanout", "key", number.to_string()).await?;
    }
    for expected in 1..5 {
        let delivery = next(&cx, &mut at_the_end).await?;
        assert_eq!(offset(&delivery)?, expected);
        assert_eq!(delivery.method.exchange, "amq.fanout");
        assert_eq!(delivery.method.routing_key, "key");
        delivery.ack()?;
    }
    for expected in 3..5 {
        let delivery = next(&cx, &mut beyond).await?;
        assert_eq!(offset(&delivery)?, expected);
        delivery.ack()?;
    }
    Ok(connection.close().await?)
}

/// Given a consumer with a prefetch of 2, when it acknowledges, then it gets more; a second consumer
/// gets all messages again.
async fn acknowledged_messages_stay_in_a_stream(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare(&channel).await?;
    for number in 0..6 {
        put(&channel, "", STREAM, number.to_string()).await?;
    }
    for _ in 0..2 {
        let reading = connection.open_channel().await?;
        reading
            .call(basic::Qos::default().prefetch_count(2))
            .await?;
        let mut reader = read(&reading, "first").await?;
        for expected in 0..6 {
            let delivery = next(&cx, &mut reader).await?;
            assert_eq!(offset(&delivery)?, expected);
            delivery.ack()?;
        }
        reading.close().await?;
    }
    Ok(connection.close().await?)
}

/// Given a message with a table and an array among its headers, when it comes from a stream, then
/// they are missing, and the rest is there.
async fn a_stream_keeps_no_nested_headers(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare(&channel).await?;
    let properties = basic::Properties::default()
        .content_type("text/plain")
        .expiration("1")
        .priority(3)
        .headers(
            FieldTable::new()
                .with("table", FieldTable::new())
                .with("array", vec![FieldValue::from(1)])
                .with("number", 7),
        );
    let publish = basic::Publish::default().routing_key(STREAM);
    channel.publish(&publish, &properties, "x").await?.await?;
    let mut reader = read(&channel, "first").await?;
    let delivery = next(&cx, &mut reader).await?;
    let received = delivery.properties()?;
    let headers = received.headers.unwrap_or_default();
    let names: Vec<ShortStr> = headers.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, ["number", "x-stream-offset"]);
    assert_eq!(received.content_type, properties.content_type);
    assert_eq!(received.expiration, properties.expiration);
    assert_eq!(received.priority, properties.priority);
    delivery.ack()?;
    Ok(connection.close().await?)
}

/// Given a stream, when it is fetched from, purged, consumed without acknowledgements, or a delivery
/// is rejected, then 540 closes the connection.
async fn what_takes_messages_of_a_stream_is_refused(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare(&channel).await?;
    put(&channel, "", STREAM, "x").await?;
    let refused = |error: amqp_tokio::Error| {
        assert_connection_closed(&error, ReplyCode::NOT_IMPLEMENTED);
        assert!(error.to_string().contains("supported by stream queues"));
    };
    let (_fetching, channel) = open(&cx).await?;
    refused(channel.get(get(STREAM)).await.expect_err("a stream"));
    let (_purging, channel) = open(&cx).await?;
    let purge = queue::Purge::default().queue(STREAM);
    refused(channel.call(purge).await.expect_err("a stream"));
    let (_consuming, channel) = open(&cx).await?;
    channel
        .call(basic::Qos::default().prefetch_count(1))
        .await?;
    let automatic = channel.consume_no_ack(consume(STREAM)).await;
    refused(automatic.expect_err("a stream"));
    for requeue in [Requeue::Yes, Requeue::No] {
        let (_rejecting, channel) = open(&cx).await?;
        let mut reader = read(&channel, "first").await?;
        next(&cx, &mut reader).await?.reject(requeue)?;
        let end = cx.soon(reader.next()).await?.ok_or("no reason")?;
        refused(end.expect_err("a rejection"));
    }
    Ok(connection.close().await?)
}

/// Given the type stream, when a queue is declared transient, exclusive or with a time to live, then
/// 406.
async fn a_stream_is_neither_transient_nor_exclusive(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let table = FieldTable::new().with("x-queue-type", "stream");
    let mut stream = queue::Declare::default().queue(STREAM).durable(true);
    stream.arguments = table.clone();
    let mut expiring = stream.clone();
    expiring.arguments = table.with("x-message-ttl", 1000);
    let wrong = [
        (stream.clone().durable(false), "'non-durable'"),
        (stream.clone().exclusive(true), "'exclusive-owner'"),
        (stream.auto_delete(true), "'auto-delete'"),
        (expiring, "'x-message-ttl'"),
    ];
    for (declare, named) in wrong {
        let channel = connection.open_channel().await?;
        let error = channel.call(declare).await.expect_err("it is wrong");
        assert_eq!(error.code(), Some(ReplyCode::PRECONDITION_FAILED));
        assert!(error.to_string().contains(named), "{error}");
    }
    Ok(connection.close().await?)
}
