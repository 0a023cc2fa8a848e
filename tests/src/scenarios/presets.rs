//! Presets of queues, exchanges, bindings, consumers and messages: the brokers accept them, and do as
//! they say.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use amqp_tokio::{
    BaseChannel, SystemTimestamp as _,
    arguments::{
        ClassicOverflow, DeadLetter, Exchange, HeadersMatch, LeaderLocator, Queue, QuorumOverflow,
        StreamConsume, StreamOffset,
    },
    json,
    protocol::{basic, exchange, queue},
    wire::{FieldTable, FieldValue, Timestamp},
};

use super::{
    Case, cases,
    tools::{becomes_ready, consume, fetch, open, open_confirming, own_queue, put, ready, to},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

const MINUTE: Duration = Duration::from_secs(60);

pub(super) fn cases() -> Vec<Case> {
    cases![
        every_preset_of_a_queue_is_declared,
        every_preset_of_an_exchange_is_declared,
        a_queue_does_as_its_settings_say,
        dead_letters_arrive_at_least_once,
        bindings_match_the_headers,
        a_stream_is_read_from_its_offset,
        a_message_comes_back_as_it_was_built,
    ]
}

/// A queue of each type, without settings and with all that RabbitMQ 3.10 knows.
fn queues() -> Result<Vec<queue::Declare>, Failure> {
    let dead = || DeadLetter::to("amq.direct").routing_key("dead");
    Ok(vec![
        Queue::classic("classic").declare()?,
        Queue::classic("classic with settings")
            .message_ttl(MINUTE)
            .expires(MINUTE)
            .max_length(10)
            .max_length_bytes(u64::MAX)
            .overflow(ClassicOverflow::RejectPublishDlx)
            .dead_letter(dead())
            .max_priority(255)
            .single_active_consumer(true)
            .auto_delete(true)
            .declare()?,
        Queue::exclusive("exclusive").declare()?,
        Queue::exclusive("exclusive with settings")
            .message_ttl(Duration::ZERO)
            .expires(Duration::from_nanos(1) + MINUTE)
            .overflow(ClassicOverflow::DropHead)
            .dead_letter(DeadLetter::to_queue("classic"))
            .max_priority(1)
            .auto_delete(true)
            .declare()?,
        Queue::quorum("quorum").declare()?,
        Queue::quorum("quorum with settings")
            .message_ttl(MINUTE)
            .expires(10 * 365 * 24 * 60 * MINUTE)
            .max_length(10)
            .max_length_bytes(1_000_000)
            .overflow(QuorumOverflow::RejectPublish)
            .dead_letter(dead())
            .single_active_consumer(true)
            .delivery_limit(5)
            .initial_group_size(1)
            .consumer_timeout(MINUTE)
            .leader_locator(LeaderLocator::Balanced)
            .declare()?,
        Queue::quorum("quorum with all deliveries")
            .no_delivery_limit()
            .declare()?,
        Queue::quorum("quorum at least once")
            .dead_letter_at_least_once(dead())
            .max_length(10)
            .declare()?,
        Queue::stream("stream").declare()?,
        Queue::stream("stream with settings")
            .max_age(MINUTE)
            .max_length_bytes(1_000_000_000)
            .max_segment_size_bytes(3_000_000_000)
            .initial_cluster_size(1)
            .leader_locator(LeaderLocator::ClientLocal)
            .declare()?,
    ])
}

/// Given each preset of a queue, with and without settings, when declared twice, then Declare-Ok; a
/// queue without a name gets one.
async fn every_preset_of_a_queue_is_declared(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    for declare in queues()?.into_iter().chain(queues()?) {
        let name = declare.queue.clone();
        let declared = channel.call(declare).await?;
        assert_eq!((declared.queue, declared.message_count), (name, 0));
    }
    let named = channel.queue_declare(Queue::server_named()).await?;
    assert!(named.queue.starts_with("amq.gen-"), "{}", named.queue);
    Ok(connection.close().await?)
}

/// Given each preset of an exchange that needs no plugin, when declared twice, then Declare-Ok.
async fn every_preset_of_an_exchange_is_declared(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    for _ in 0..2 {
        for preset in [
            Exchange::direct("direct"),
            Exchange::fanout("fanout").internal(true),
            Exchange::topic("topic").alternate_exchange("fanout"),
            Exchange::headers("headers").auto_delete(true),
            Exchange::fanout("transient").durable(false),
        ] {
            channel.exchange_declare(preset).await?;
        }
    }
    Ok(connection.close().await?)
}

/// Given a maximum length of 2, a target of dead letters and priorities, when messages are published
/// and consumed, then the oldest is a dead letter, and the consumer and the message of the higher
/// priority are first.
async fn a_queue_does_as_its_settings_say(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let dead = own_queue(&channel).await?;
    let short = Queue::server_named()
        .max_length(2)
        .dead_letter(DeadLetter::to_queue(&dead));
    let short = channel.queue_declare(short).await?.queue;
    for body in ["one", "two", "three"] {
        put(&channel, "", &short, body).await?;
    }
    becomes_ready(&cx, &channel, &dead, 1).await?;
    assert_eq!(fetch(&channel, &dead).await?.body, "one");
    assert_eq!(ready(&channel, &short).await?, 2);

    let ranked = Queue::server_named().max_priority(2).declare()?;
    let ranked = channel.call(ranked).await?.queue;
    for priority in [0, 2, 1] {
        let properties = basic::Properties::default().priority(priority);
        let confirm = channel
            .publish(&to("", &ranked), &properties, priority.to_string())
            .await?;
        confirm.await?;
    }
    let mut consumer = channel.consume(consume(&ranked).priority(-1)).await?;
    for expected in ["2", "1", "0"] {
        let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
        assert_eq!(delivery.body, expected);
        delivery.ack()?;
    }
    let mut first = channel.consume(consume(&ranked).priority(1)).await?;
    put(&channel, "", &ranked, "next").await?;
    let delivery = cx.soon(first.next()).await?.ok_or("no delivery")??;
    assert_eq!(delivery.body, "next");
    delivery.ack()?;
    Ok(connection.close().await?)
}

/// Given a quorum queue that dead-letters at least once, when a message expires, then its target has
/// it.
async fn dead_letters_arrive_at_least_once(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let dead = Queue::quorum("dead").declare()?;
    channel.call(dead).await?;
    let source = Queue::quorum("source")
        .dead_letter_at_least_once(DeadLetter::to_queue("dead"))
        .message_ttl(Duration::from_millis(1))
        .declare()?;
    channel.call(source).await?;
    put(&channel, "", "source", "late").await?;
    becomes_ready(&cx, &channel, "dead", 1).await?;
    assert_eq!(fetch(&channel, "dead").await?.body, "late");
    Ok(connection.close().await?)
}

/// Given bindings for all and any of the headers, with and without those that begin with `x-`, when
/// messages with some of them are published, then each goes to the queues of the bindings that match.
async fn bindings_match_the_headers(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel
        .call(Exchange::headers("documents").declare()?)
        .await?;
    let mut queues = Vec::new();
    for headers in [
        HeadersMatch::all()
            .header("format", "pdf")
            .present("author"),
        HeadersMatch::any()
            .header("format", "pdf")
            .header("pages", 3),
        HeadersMatch::all_with_x()
            .header("x-kind", true)
            .header("pages", 3),
        HeadersMatch::any_with_x()
            .header("x-kind", true)
            .header("format", "ps"),
    ] {
        let queue = own_queue(&channel).await?;
        let bind = queue::Bind::default()
            .queue(&queue)
            .exchange("documents")
            .arguments(headers);
        channel.call(bind).await?;
        queues.push(queue);
    }
    let message = basic::Properties::default;
    for (properties, expected) in [
        (
            message().header("format", "pdf").header("author", 1),
            [1, 1, 0, 0],
        ),
        (
            message().header("pages", 3).header("x-kind", true),
            [0, 1, 1, 1],
        ),
        (message().header("x-kind", true), [0, 0, 0, 1]),
        (message().header("format", "pdf"), [0, 1, 0, 0]),
    ] {
        let publish = basic::Publish::default().exchange("documents");
        channel.publish(&publish, &properties, "").await?.await?;
        for (queue, count) in queues.iter().zip(expected) {
            becomes_ready(&cx, &channel, queue, count).await?;
            channel.call(queue::Purge::default().queue(queue)).await?;
        }
    }
    let delete = exchange::Delete::default().exchange("documents");
    channel.call(delete).await?;
    Ok(connection.close().await?)
}

/// Given a stream with 3 messages, when presets of consumers ask for an offset, a time and an
/// interval, then each starts there, and acknowledges.
async fn a_stream_is_read_from_its_offset(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let log = Queue::stream("log").max_age(60 * MINUTE).declare()?;
    channel.call(log).await?;
    for body in ["0", "1", "2"] {
        put(&channel, "", "log", body).await?;
    }
    let an_hour_ago = Timestamp::from_system_time(SystemTime::now() - 60 * MINUTE)?;
    for (offset, start) in [
        (StreamOffset::First, 0),
        (StreamOffset::Last, 2),
        (StreamOffset::Offset(1), 1),
        (StreamOffset::Timestamp(an_hour_ago), 0),
        (StreamOffset::Interval(60 * MINUTE), 0),
    ] {
        let reading = connection.open_channel().await?;
        let preset = StreamConsume::new("log", 1).offset(offset);
        reads(&cx, &reading, &preset, start).await?;
        reading.close().await?;
    }
    Ok(connection.close().await?)
}

async fn reads(cx: &Ctx, channel: &BaseChannel, preset: &StreamConsume, start: u8) -> Outcome {
    channel.call(preset.qos()).await?;
    let mut reader = channel.consume(preset.consume()?).await?;
    for expected in start..3 {
        let delivery = cx.soon(reader.next()).await?.ok_or("no delivery")??;
        assert_eq!(delivery.body, expected.to_string().as_str());
        delivery.ack()?;
    }
    Ok(())
}

/// Given a message with every setting and a body in JSON, when it is published and fetched, then its
/// properties and its value are as they were, and its headers too as JSON.
async fn a_message_comes_back_as_it_was_built(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let order = BTreeMap::from([(String::from("apples"), 3)]);
    let properties = basic::Properties::default()
        .persistent()
        .content_encoding("identity")
        .priority(3)
        .correlation_id("request 7")
        .reply_to(&queue)
        .message_id("7")
        .kind("order.created")
        .user_id("guest")
        .app_id("shop")
        .expire_after(MINUTE)?
        .timestamp(Timestamp::from_system_time(SystemTime::now())?)
        .header("attempt", 1)
        .header("origin", "web")
        .header("ratio", 0.5)
        .header("parts", vec![FieldValue::from(1), "two".into()])
        .header("nested", FieldTable::new().with("deep", true));
    let (properties, body) = json::content(properties, &order)?;
    let confirm = channel.publish(&to("", &queue), &properties, body).await?;
    confirm.await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(delivery.properties()?, properties);
    assert!(delivery.properties()?.is_persistent());
    assert_eq!(delivery.json(), Ok(order));
    assert!(matches!(
        delivery.json::<u32>(),
        Err(json::JsonError::Mismatch { .. })
    ));
    delivery.ack()?;
    Ok(connection.close().await?)
}
