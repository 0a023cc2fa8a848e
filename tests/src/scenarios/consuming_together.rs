//! Consumers of several queues, and their common end.

use std::{
    collections::BTreeSet, future::poll_fn, pin::Pin, sync::Arc, task::Poll, time::Duration,
};

use amqp_tokio::{
    BaseChannel, Consumer, Delivery, Error, ManualAck, Tags,
    core::{
        ApiMisuse, MethodDef as _,
        protocol::{ReplyCode, basic, queue},
    },
    wire::{FieldValue, ShortStr},
};
use futures_core::Stream as _;

use super::{
    Case, case, cases,
    tools::{
        assert_channel_closed, assert_misuse, becomes_ready, consume, fetch, get, is_own_close,
        look, open, open_confirming, own_queue, put, ready, shared_queue, text,
    },
};
use crate::{
    context::{Ctx, join},
    harness::{Failure, Outcome},
    relay::Relay,
};

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        a_hundred_queues_at_once,
        a_round_of_callbacks,
        a_consumer_ends_once_with_its_connection,
        a_close_takes_the_last_acknowledgement_along,
        a_cancelled_consumer_has_its_tag,
        one_of_each_of_three_queues,
        a_consumer_ends_when_its_queue_is_deleted,
        consumers_of_one_task_end_together,
        two_queues_are_deleted_at_once,
        two_queues_share_a_prefetch,
        an_exclusive_queue_is_refused_to_others,
        tags_are_unique_and_name_the_queue,
        client_properties_are_texts_and_numbers,
        fetched_messages_keep_their_order,
        an_unknown_tag_is_refused_here,
        consuming_from_a_missing_queue_fails_alone,
        the_rest_of_a_deleted_queue_is_no_error,
        a_prefetch_is_raised_under_way,
    ];
    cases.push(case!(one_second_heartbeats).alone(&["heartbeat = 1"]));
    cases
}

/// For as long nothing must come.
const SILENCE: Duration = Duration::from_millis(100);

/// Given 100 queues, when all are declared and then deleted with every request in flight, then all
/// succeed.
async fn a_hundred_queues_at_once(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let mut tasks = Vec::new();
    for number in 0..100 {
        // Each on a channel of its own; they are deleted on one.
        let channel = connection.open_channel().await?;
        let name = format!("q{number}");
        tasks.push(cx.spawn(async move {
            let declared = channel.call(shared_queue(&name)).await?;
            assert_eq!(declared.queue, name);
            Ok::<_, Error>(channel)
        }));
    }
    let mut channels = Vec::new();
    for task in tasks {
        channels.push(cx.soon(task.join()).await???);
    }
    let channel = Arc::new(channels.swap_remove(0));
    let mut tasks = Vec::new();
    for number in 0..100 {
        let channel = Arc::clone(&channel);
        tasks.push(cx.spawn(async move {
            let delete = queue::Delete::default().queue(format!("q{number}").as_str());
            channel.call(delete).await
        }));
    }
    for task in tasks {
        assert_eq!(cx.soon(task.join()).await???.message_count, 0);
    }
    Ok(connection.close().await?)
}

/// Given steps that are each begun by the end of the one before, without a wait for the whole, then
/// the last one is reached.
async fn a_round_of_callbacks(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let then = cx.clone();
    let chained = cx.spawn(async move {
        let channel = connection.open_channel().await?.confirm_select().await?;
        let declared = then.spawn(async move {
            let queue = own_queue(&channel).await?;
            Ok::<_, Failure>((channel, queue))
        });
        let (channel, queue) = declared.join().await??;
        let published = then.spawn(async move {
            put(&channel, "", &queue, "called back").await?;
            Ok::<_, Failure>((channel, queue))
        });
        let (channel, queue) = published.join().await??;
        let fetched = then.spawn(async move {
            let message = fetch(&channel, &queue).await?;
            assert_eq!(text(&message.body), "called back");
            message.ack()?;
            Ok::<_, Failure>((channel, queue))
        });
        let (channel, queue) = fetched.join().await??;
        let delete = queue::Delete::default().queue(&*queue);
        assert_eq!(channel.call(delete).await?.message_count, 0);
        connection.close().await?;
        Ok::<_, Failure>("done")
    });
    assert_eq!(cx.soon(chained.join()).await???, "done");
    Ok(())
}

/// Given a consumer that waits, when the client closes, then it ends once, and yields nothing more.
async fn a_consumer_ends_once_with_its_connection(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let queue = own_queue(&channel).await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let waiting = cx.spawn(async move {
        let mut reported = Vec::new();
        while let Some(end) = consumer.next().await {
            reported.push(end.map(drop));
        }
        reported
    });
    cx.sleep(SILENCE).await;
    assert!(!waiting.is_finished());
    connection.close().await?;
    // Its own handle closed it: the stream just ends, and later calls fail with the reason.
    assert_eq!(cx.soon(waiting.join()).await??, []);
    let error = own_queue(&channel).await.expect_err("it is closed");
    assert!(is_own_close(&error), "{error}");
    Ok(())
}

/// Given 3 messages consumed and acknowledged, when the connection is closed at once, or flushed and
/// then cut, then none is left.
async fn a_close_takes_the_last_acknowledgement_along(cx: Ctx) -> Outcome {
    let (observer, observing) = open_confirming(&cx).await?;
    observing.call(shared_queue("q")).await?;
    for cut in [false, true] {
        for body in ["1", "2", "3"] {
            put(&observing, "", "q", body).await?;
        }
        let relay = Relay::start(cx.address)?;
        let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
        let mark = cx.mark(&connection).await?;
        let channel = connection.open_channel().await?;
        let mut consumer = channel.consume(consume("q")).await?;
        for body in ["1", "2", "3"] {
            let delivery = next(&cx, &mut consumer).await?;
            assert_eq!(text(&delivery.body), body);
            delivery.ack()?;
        }
        if cut {
            connection.flush().await?;
            let flushed = connection.stats().sent.bytes;
            cx.until("the relay has passed all on", || relay.passed() >= flushed)
                .await?;
            relay.cut();
        } else {
            connection.close().await?;
        }
        cx.gone(&mark).await?;
        assert_eq!(ready(&observing, "q").await?, 0);
    }
    Ok(observer.close().await?)
}

/// Given a message consumed with prefetch 1, when cancelled, then that consumer is cancelled, and
/// the message can still be acknowledged.
async fn a_cancelled_consumer_has_its_tag(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let qos = basic::Qos::default().prefetch_count(1);
    channel.call(qos).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "one").await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let delivery = next(&cx, &mut consumer).await?;
    assert_eq!(delivery.method.consumer_tag, *consumer.tag());
    consumer.cancel().await?;
    assert!(consumer.next().await.is_none());
    delivery.ack()?;
    assert_eq!(look(&channel, &queue).await?.consumer_count, 0);
    Ok(connection.close().await?)
}

/// Given a message in each of 3 queues, when one task consumes from all, then it gets one of each;
/// when it ends, then all are cancelled.
async fn one_of_each_of_three_queues(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let mut consumers = Vec::new();
    for name in ["q1", "q2", "q3"] {
        channel.call(shared_queue(name)).await?;
        put(&channel, "", name, name).await?;
        consumers.push(channel.consume_no_ack(consume(name)).await?);
    }
    for (consumer, name) in consumers.iter_mut().zip(["q1", "q2", "q3"]) {
        let message = cx.soon(consumer.next()).await?.ok_or("no message")??;
        assert_eq!(text(&message.body), name);
        assert_eq!(message.method.routing_key, name);
    }
    drop(consumers);
    for name in ["q1", "q2", "q3"] {
        assert_eq!(look(&channel, name).await?.consumer_count, 0);
    }
    Ok(connection.close().await?)
}

/// Given a consumer, when its queue is deleted, then it ends with a cancel, and the queue that is
/// declared anew has no consumer.
async fn a_consumer_ends_when_its_queue_is_deleted(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let mut consumer = channel.consume(consume("q")).await?;
    delete(&channel, "q").await?;
    let tag = consumer.tag().clone();
    let reported = cx
        .soon(consumer.next())
        .await?
        .ok_or("it was not reported")?;
    let cancelled = Error::ConsumerCancelled {
        tag,
        channel: channel.number(),
    };
    assert_eq!(reported.map(drop), Err(cancelled));
    assert!(consumer.next().await.is_none());
    assert_eq!(channel.call(shared_queue("q")).await?.consumer_count, 0);
    Ok(connection.close().await?)
}

/// Given one task that consumes from 3 queues, when one of them is deleted and the task gives up,
/// then none has a consumer.
async fn consumers_of_one_task_end_together(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let consumers = consume_three(&channel).await?;
    let waiting = cx.spawn(first_end(consumers));
    delete(&channel, "q2").await?;
    assert_eq!(cx.soon(waiting.join()).await??, "q2");
    for name in ["q1", "q2", "q3"] {
        assert_eq!(channel.call(shared_queue(name)).await?.consumer_count, 0);
    }
    Ok(connection.close().await?)
}

/// The same when two are deleted at once: the other consumers are cancelled without a fault, and
/// each consumer ends at most once.
async fn two_queues_are_deleted_at_once(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let other = connection.open_channel().await?;
    let consumers = consume_three(&channel).await?;
    let waiting = cx.spawn(first_end(consumers));
    let (one, two) = join(delete(&channel, "q1"), delete(&other, "q3")).await;
    one.and(two)?;
    let reported = cx.soon(waiting.join()).await??;
    assert!(["q1", "q3"].contains(&reported.as_str()), "{reported}");
    for name in ["q1", "q2", "q3"] {
        assert_eq!(channel.call(shared_queue(name)).await?.consumer_count, 0);
    }
    assert!(channel.is_open() && other.is_open());
    Ok(connection.close().await?)
}

/// Given consumers of 2 queues that share a prefetch of 1, then only one message comes until it is
/// raised to 2.
async fn two_queues_share_a_prefetch(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    share_prefetch(&channel, 1).await?;
    let mut consumers = Vec::new();
    for name in ["q1", "q2"] {
        channel.call(shared_queue(name)).await?;
        put(&channel, "", name, name).await?;
        consumers.push(channel.consume(consume(name)).await?);
    }
    let [one, two] = &mut consumers[..] else {
        return Err("there are two".into());
    };
    let first = next(&cx, one).await?;
    assert!(cx.within(SILENCE, two.next()).await.is_err());
    share_prefetch(&channel, 2).await?;
    let second = next(&cx, two).await?;
    first.ack()?;
    second.ack()?;
    Ok(connection.close().await?)
}

/// Given an exclusive queue, when declared as shared on another connection, then 405; given an
/// exclusive consumer, when another one comes, then 403.
async fn an_exclusive_queue_is_refused_to_others(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let exclusive = queue::Declare::default().queue("own").exclusive(true);
    channel.call(exclusive).await?;
    let (other, there) = open(&cx).await?;
    let error = there.call(queue::Declare::default().queue("own")).await;
    let error = error.expect_err("it is another's");
    assert_channel_closed(&error, ReplyCode::RESOURCE_LOCKED, queue::Declare::ID);

    channel.call(shared_queue("q")).await?;
    let _alone = channel.consume(consume("q").exclusive(true)).await?;
    let there = other.open_channel().await?;
    let error = there.consume(consume("q")).await;
    let error = error.expect_err("somebody is alone there");
    assert_channel_closed(&error, ReplyCode::ACCESS_REFUSED, basic::Consume::ID);
    other.close().await?;
    Ok(connection.close().await?)
}

/// Given consumer tags that are left out, chosen, or chosen again on another channel, then each
/// consumer of a channel has its own, which its deliveries carry.
async fn tags_are_unique_and_name_the_queue(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let other = connection.open_channel().await?;
    let mut tags = BTreeSet::new();
    let mut consumers = Vec::new();
    for name in ["q1", "q2", "q3"] {
        channel.call(shared_queue(name)).await?;
        // The same names on both channels.
        for (channel, tag) in [(&*channel, ""), (&*channel, name), (&other, name)] {
            let consumer = channel.consume(consume(name).consumer_tag(tag)).await?;
            let on = channel.number();
            assert!(tags.insert((on, consumer.tag().clone())), "a tag twice");
            assert!(tag.is_empty() || consumer.tag() == tag);
            consumers.push((name, consumer));
        }
        for body in ["1", "2", "3"] {
            put(&channel, "", name, body).await?;
        }
    }
    for (name, consumer) in &mut consumers {
        let delivery = next(&cx, consumer).await?;
        assert_eq!(delivery.method.consumer_tag, *consumer.tag());
        assert_eq!(delivery.method.routing_key, *name);
        delivery.ack()?;
    }
    let again = other.consume(consume("q1").consumer_tag("q2")).await;
    let tag = ShortStr::try_from("q2")?;
    assert_misuse(again, &ApiMisuse::DuplicateConsumerTag(tag));
    Ok(connection.close().await?)
}

/// Given client properties that are texts and numbers, then connecting works, and so does a round.
async fn client_properties_are_texts_and_numbers(cx: Ctx) -> Outcome {
    let connection = cx
        .connect_to(&cx.uri, |config| {
            let name = |name: &'static str| ShortStr::try_from(name).expect("a short name");
            config.properties.insert(name("text"), "a text");
            config
                .properties
                .insert(name("number"), FieldValue::I32(12));
        })
        .await?;
    let reported = cx.client_properties().await?;
    assert_eq!(reported.get("text").map(String::as_str), Some("a text"));
    let channel = connection.open_channel().await?.confirm_select().await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "").await?;
    Ok(connection.close().await?)
}

/// Given 4 messages, when fetched and not acknowledged, then they come in order, for the first time,
/// and get finds no more; when all are acknowledged, then their channels are free again.
async fn fetched_messages_keep_their_order(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let start = connection.channel_count();
    let channel = connection.open_channel().await?.confirm_select().await?;
    let queue = own_queue(&channel).await?;
    let bodies = ["1", "2", "3", "4"];
    for body in bodies {
        put(&channel, "", &queue, body).await?;
    }
    let mut fetched = Vec::new();
    for body in bodies {
        let message = fetch(&channel, &queue).await?;
        assert_eq!(text(&message.body), body);
        assert!(!message.is_redelivered());
        fetched.push(message);
    }
    assert!(channel.get(get(&queue)).await?.is_none());
    for message in fetched {
        message.ack()?;
    }
    drop(channel);
    cx.until("the channel is free", || {
        connection.channel_count() == start
    })
    .await?;
    let again = connection.open_channel().await?;
    assert!(again.get(get(&queue)).await?.is_none());
    Ok(connection.close().await?)
}

/// An unknown delivery tag is refused here, because RabbitMQ would close the channel; so is one that
/// was acknowledged. Both change nothing.
async fn an_unknown_tag_is_refused_here(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "1").await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let tag = next(&cx, &mut consumer).await?.acker.tag();
    let other = connection.open_channel().await?;
    let unknown = ApiMisuse::UnknownDeliveryTag(tag.get());
    assert_misuse(other.ack(Tags::One(tag)), &unknown);
    channel.ack(Tags::One(tag))?;
    assert_misuse(channel.ack(Tags::One(tag)), &unknown);
    put(&channel, "", &queue, "2").await?;
    let delivery = next(&cx, &mut consumer).await?;
    assert_eq!(text(&delivery.body), "2");
    delivery.ack()?;
    Ok(connection.close().await?)
}

/// Given a missing queue, when consumed from, then that consumer fails with 404, and no other.
async fn consuming_from_a_missing_queue_fails_alone(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let other = connection.open_channel().await?;
    let error = other.consume(consume("missing")).await;
    let error = error.expect_err("it is missing");
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, basic::Consume::ID);
    put(&channel, "", &queue, "unharmed").await?;
    next(&cx, &mut consumer).await?.ack()?;
    Ok(connection.close().await?)
}

/// Given a fetched message, when its queue is deleted, then acknowledging it and closing is no
/// error.
async fn the_rest_of_a_deleted_queue_is_no_error(cx: Ctx) -> Outcome {
    for acknowledge in [false, true] {
        let (connection, channel) = open_confirming(&cx).await?;
        channel.call(shared_queue("q")).await?;
        put(&channel, "", "q", "").await?;
        let message = fetch(&channel, "q").await?;
        delete(&channel, "q").await?;
        if acknowledge {
            message.ack()?;
            own_queue(&channel).await?; // the channel lives
        }
        connection.close().await?;
    }
    Ok(())
}

/// Given a prefetch of 1, then one message and no more; when raised to 2, then another one and no
/// more.
async fn a_prefetch_is_raised_under_way(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    for body in ["a", "b", "c"] {
        put(&channel, "", &queue, body).await?;
    }
    share_prefetch(&channel, 1).await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let a = next(&cx, &mut consumer).await?;
    assert!(cx.within(SILENCE, consumer.next()).await.is_err());
    share_prefetch(&channel, 2).await?;
    let b = next(&cx, &mut consumer).await?;
    assert!(cx.within(SILENCE, consumer.next()).await.is_err());
    assert_eq!([text(&a.body), text(&b.body)], ["a", "b"]);
    a.ack()?;
    b.ack()?;
    Ok(connection.close().await?)
}

/// Given a heartbeat of 1 s, when idle for longer, then the connection lives, and a round works.
async fn one_second_heartbeats(cx: Ctx) -> Outcome {
    let connection = cx.connect_asking("heartbeat=1").await?;
    assert_eq!(connection.tuning().heartbeat, 1);
    let channel = connection.open_channel().await?.confirm_select().await?;
    cx.sleep(Duration::from_millis(3100)).await;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "alive").await?;
    becomes_ready(&cx, &channel, &queue, 1).await?;
    Ok(connection.close().await?)
}

/// The next delivery.
async fn next(cx: &Ctx, consumer: &mut Consumer<ManualAck>) -> Result<Delivery, Failure> {
    Ok(cx.soon(consumer.next()).await?.ok_or("no delivery")??)
}

/// Bounds the outstanding deliveries of all consumers of the channel together.
async fn share_prefetch(channel: &BaseChannel, count: u16) -> Outcome {
    let qos = basic::Qos::default().prefetch_count(count).global(true);
    channel.call(qos).await?;
    Ok(())
}

async fn delete(channel: &BaseChannel, queue: &str) -> Outcome {
    channel.call(queue::Delete::default().queue(queue)).await?;
    Ok(())
}

/// A consumer of each of three queues.
async fn consume_three(channel: &BaseChannel) -> Result<Vec<Consumer<ManualAck>>, Failure> {
    let mut consumers = Vec::new();
    for name in ["q1", "q2", "q3"] {
        channel.call(shared_queue(name)).await?;
        consumers.push(channel.consume(consume(name).consumer_tag(name)).await?);
    }
    Ok(consumers)
}

/// Waits until one of them is cancelled by the server, gives up on all of them, and returns which
/// one it was.
async fn first_end(mut consumers: Vec<Consumer<ManualAck>>) -> ShortStr {
    poll_fn(|cx| {
        for consumer in &mut consumers {
            match Pin::new(consumer).poll_next(cx) {
                Poll::Ready(Some(Err(Error::ConsumerCancelled { tag, .. }))) => {
                    return Poll::Ready(tag);
                }
                Poll::Ready(other) => panic!("nothing was sent, and nobody left: {other:?}"),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    })
    .await
}
