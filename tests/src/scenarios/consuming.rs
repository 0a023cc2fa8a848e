//! Consumers.

use std::{
    collections::BTreeSet,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use amqp_tokio::{
    ConsumeOptions, Delivery, Error, Prefetch, Requeue,
    core::{
        ApiMisuse,
        protocol::{ReplyCode, basic, queue},
    },
};

use super::{
    Case, cases,
    tools::{
        assert_channel_closed, assert_connection_closed, assert_misuse, becomes_ready, consume,
        look, open_confirming, own_queue, panic_unreported, put, ready, shared_queue, text, to,
    },
};
use crate::{
    context::{Ctx, LOOK_EVERY, join},
    harness::{Failure, Outcome},
    relay::Relay,
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_consumer_gets_messages_published_before,
        a_large_message_is_delivered_whole,
        two_consumers_of_a_channel_get_their_own,
        a_tag_in_use_is_refused_here,
        a_tag_in_use_closes_the_connection,
        nothing_is_delivered_before_consume_returns,
        a_consume_that_is_given_up_keeps_nothing,
        a_failing_handler_is_reported_to_its_owner,
        a_cancelled_consumer_gets_nothing_more,
        an_unknown_tag_can_be_cancelled,
        a_consumer_ends_when_its_queue_is_gone,
        a_consumer_need_not_be_polled,
        a_handler_opens_a_channel,
        a_consumer_has_a_third_of_its_buffer_as_prefetch,
        a_slow_consumer_delays_no_other,
        user_code_may_block_for_three_heartbeats,
    ]
}

/// Given a published message, when a consumer starts afterwards, then body, consumer_tag,
/// delivery_tag and properties arrive.
async fn a_consumer_gets_messages_published_before(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let properties = basic::Properties::default()
        .content_type("text/plain")
        .correlation_id("7")
        .delivery_mode(1)
        .priority(0);
    let confirm = channel
        .publish(&to("", &queue), &properties, "coucou")
        .await?;
    confirm.await?;

    let consume = consume(&queue).consumer_tag("my tag");
    let mut consumer = channel.consume(consume).await?;
    assert_eq!(*consumer.tag(), "my tag");
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(delivery.body, "coucou");
    assert_eq!(delivery.properties()?, properties);
    let expected = basic::Deliver::default()
        .consumer_tag("my tag")
        .delivery_tag(1)
        .routing_key(&queue);
    assert_eq!(delivery.method, expected);
    assert_eq!(delivery.acker.tag().get(), 1);
    delivery.ack()?;
    Ok(connection.close().await?)
}

/// Given a 1,000,000-byte message, when consumed, then the body is identical.
async fn a_large_message_is_delivered_whole(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    // No two pieces are the same, wherever it is cut.
    let body: Vec<u8> = (0..250_000_u32).flat_map(u32::to_be_bytes).collect();
    put(&channel, "", &queue, body.clone()).await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(delivery.body.len(), body.len());
    assert!(delivery.body.clone().into_bytes() == body);
    assert!(delivery.body.pieces().count() > 1);
    delivery.ack()?;
    Ok(connection.close().await?)
}

/// Given two consumers on two queues of one channel, then each gets its own message with its own
/// tag.
async fn two_consumers_of_a_channel_get_their_own(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let (one, two) = (own_queue(&channel).await?, own_queue(&channel).await?);
    let mut of_one = channel.consume(consume(&one)).await?;
    let mut of_two = channel.consume(consume(&two)).await?;
    assert_ne!(of_one.tag(), of_two.tag());
    put(&channel, "", &two, "two").await?;
    put(&channel, "", &one, "one").await?;
    let mut tags = BTreeSet::new();
    for (consumer, body) in [(&mut of_one, "one"), (&mut of_two, "two")] {
        let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
        assert_eq!(delivery.body, body);
        assert_eq!(delivery.method.consumer_tag, *consumer.tag());
        tags.insert(delivery.acker.tag());
        delivery.ack()?;
    }
    assert_eq!(tags.len(), 2);
    Ok(connection.close().await?)
}

/// Given tag "tag" in use, when another consume uses it, then it is refused here, because RabbitMQ
/// would close the connection with 530. This side, too, routes deliveries by their tags: so it is
/// refused without the checks for RabbitMQ as well.
async fn a_tag_in_use_is_refused_here(cx: Ctx) -> Outcome {
    for connection in [cx.connect().await?, cx.connect_unchecked().await?] {
        let channel = connection.open_channel().await?.confirm_select().await?;
        let queue = own_queue(&channel).await?;
        let consume = consume(&queue).consumer_tag("tag");
        let mut consumer = channel.consume(consume.clone()).await?;
        let in_use = ApiMisuse::DuplicateConsumerTag("tag".try_into()?);
        assert_misuse(channel.consume(consume.clone()).await, &in_use);
        assert_misuse(channel.consume_no_ack(consume.clone()).await, &in_use);
        // The one that has it goes on.
        put(&channel, "", &queue, "test").await?;
        cx.soon(consumer.next())
            .await?
            .ok_or("no delivery")??
            .ack()?;
        // Tags are the channel's own, and free when they are cancelled.
        let other = connection.open_channel().await?;
        other.consume(consume.clone()).await?;
        consumer.cancel().await?;
        channel.consume(consume).await?;
        connection.close().await?;
    }
    Ok(())
}

/// Given tag "tag" in use, when another consume uses it, then the connection is closed with 530. The
/// client refuses that itself, so that a relay makes one tag of two.
async fn a_tag_in_use_closes_the_connection(cx: Ctx) -> Outcome {
    let relay = Relay::replacing(cx.address, b"tog", b"tag")?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    let channel = connection.open_channel().await?;
    let queue = own_queue(&channel).await?;
    let mut consumer = channel.consume(consume(&queue).consumer_tag("tag")).await?;
    let again = channel.consume(consume(&queue).consumer_tag("tog")).await;
    let error = again.expect_err("the tag is in use");
    assert_connection_closed(&error, ReplyCode::NOT_ALLOWED);
    let end = cx.soon(consumer.next()).await?;
    let error = end.ok_or("it ended without a reason")?.expect_err("closed");
    assert_connection_closed(&error, ReplyCode::NOT_ALLOWED);
    assert!(!connection.is_open());
    Ok(())
}

/// Given a message already queued, when consume is called, then no delivery is handed out before the
/// call has returned.
async fn nothing_is_delivered_before_consume_returns(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "early").await?;
    for _ in 0..50 {
        // There is nothing to take a delivery from until there is a consumer.
        let mut consumer = channel.consume(consume(&queue)).await?;
        let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
        assert_eq!(delivery.body, "early");
        assert_eq!(delivery.method.consumer_tag, *consumer.tag());
        delivery.nack(Requeue::Yes)?;
        consumer.cancel().await?;
        // Messages that came back to it before it was cancelled are requeued, too.
        while let Some(delivery) = cx.soon(consumer.next()).await? {
            delivery?.nack(Requeue::Yes)?;
        }
        becomes_ready(&cx, &channel, &queue, 1).await?;
    }
    Ok(connection.close().await?)
}

/// Given a message already queued, when consume is called and given up, at any point, then the
/// consumer is cancelled and the message is back in the queue.
async fn a_consume_that_is_given_up_keeps_nothing(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    put(&channel, "", "q", "early").await?;
    for polls in 1..=20 {
        {
            let mut consuming = pin!(channel.consume(consume("q")));
            let mut left = polls;
            // A consume that is polled once is sent.
            poll_fn(|cx| {
                left -= 1;
                if consuming.as_mut().poll(cx).is_ready() || left == 0 {
                    return Poll::Ready(());
                }
                cx.waker().wake_by_ref();
                Poll::Pending
            })
            .await;
        }
        let unused = queue::DeclareOk::default().queue("q").message_count(1);
        cx.soon(async {
            while look(&channel, "q").await? != unused {
                cx.sleep(LOOK_EVERY).await;
            }
            Outcome::Ok(())
        })
        .await??;
    }
    Ok(connection.close().await?)
}

/// Given a user's handler that fails, then the error surfaces to its owner and does not silently
/// stop the reader.
async fn a_failing_handler_is_reported_to_its_owner(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let consuming = Arc::new(connection.open_channel().await?);
    for panics in [false, true] {
        put(&channel, "", &queue, "bad news").await?;
        let task = cx.spawn({
            let consuming = Arc::clone(&consuming);
            let consume = consume(&queue);
            async move {
                let mut consumer = consuming.consume(consume).await?;
                while let Some(delivery) = consumer.next().await {
                    handle(&delivery?, panics)?;
                }
                Outcome::Ok(())
            }
        });
        let end = cx.soon(task.join()).await?;
        match (panics, end) {
            (false, Ok(Err(failure))) => assert_eq!(failure.to_string(), "cannot handle it"),
            (true, Err(panicked)) => assert_eq!(panicked.0, "cannot handle it at all"),
            (_, other) => panic!("the owner should be reported: {other:?}"),
        }
        // Everything else goes on: also on that channel, where the message is outstanding.
        assert_eq!(ready(&consuming, &queue).await?, 0);
        put(&channel, "", &queue, "good news").await?;
        let mut consumer = consuming.consume_no_ack(consume(&queue)).await?;
        let message = cx.soon(consumer.next()).await?.ok_or("no message")??;
        assert_eq!(message.body, "good news");
        consumer.cancel().await?;
    }
    // Unacknowledged messages are requeued when the channel ends.
    consuming.close().await?;
    becomes_ready(&cx, &channel, &queue, 2).await?;
    Ok(connection.close().await?)
}

fn handle(delivery: &Delivery, panics: bool) -> Outcome {
    assert_eq!(delivery.body, "bad news");
    if panics {
        panic_unreported("cannot handle it at all");
    }
    Err("cannot handle it".into())
}

/// Given a cancelled consumer, when a message is published, then passive shows 1 message, 0
/// consumers.
async fn a_cancelled_consumer_gets_nothing_more(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    assert_eq!(look(&channel, &queue).await?.consumer_count, 1);
    consumer.cancel().await?;
    put(&channel, "", &queue, "test").await?;
    let state = look(&channel, &queue).await?;
    assert_eq!((state.message_count, state.consumer_count), (1, 0));
    assert!(cx.soon(consumer.next()).await?.is_none());
    consumer.cancel().await?; // it has ended already

    // Dropping it does the same.
    let consumer = channel.consume(consume(&queue)).await?;
    drop(consumer);
    let state = look(&channel, &queue).await?;
    assert_eq!(state.consumer_count, 0);
    becomes_ready(&cx, &channel, &queue, 1).await?;
    Ok(connection.close().await?)
}

/// Given an unknown tag, when cancelled, then Cancel-Ok.
async fn an_unknown_tag_can_be_cancelled(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let cancel = basic::Cancel::default().consumer_tag("unknown");
    let cancelled = channel.call(cancel.clone()).await?;
    assert_eq!(cancelled.consumer_tag, "unknown");
    channel.send(&cancel)?;

    // One of this channel has a handle, which it shall not be cancelled behind.
    let queue = own_queue(&channel).await?;
    let mut consumer = channel
        .consume(consume(&queue).consumer_tag("known"))
        .await?;
    let cancel = cancel.consumer_tag("known");
    let method = "basic.cancel";
    assert_misuse(
        channel.call(cancel.clone()).await,
        &ApiMisuse::NotSentThisWay { method },
    );
    assert_misuse(channel.send(&cancel), &ApiMisuse::NotSentThisWay { method });
    put(&channel, "", &queue, "test").await?;
    cx.soon(consumer.next())
        .await?
        .ok_or("no delivery")??
        .ack()?;
    Ok(connection.close().await?)
}

/// Given a consumer on a queue, when the queue is deleted, then the consumer ends with a cancel.
async fn a_consumer_ends_when_its_queue_is_gone(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "before").await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let mut silent = channel.consume_no_ack(consume(&queue)).await?;
    channel.call(queue::Delete::default().queue(&queue)).await?;
    // Earlier deliveries are yielded before.
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(delivery.body, "before");
    delivery.ack()?;
    let error = cx.soon(consumer.next()).await?.ok_or("no reason")?;
    let tag = consumer.tag().clone();
    let cancelled = Error::ConsumerCancelled {
        tag,
        channel: channel.number(),
    };
    assert_eq!(error.map(drop), Err(cancelled));
    assert!(cx.soon(consumer.next()).await?.is_none());
    let error = cx.soon(silent.next()).await?.ok_or("no reason")?;
    let tag = silent.tag().clone();
    let cancelled = Error::ConsumerCancelled {
        tag,
        channel: channel.number(),
    };
    assert_eq!(error.map(drop), Err(cancelled));
    // The channel goes on, and the consumers have nothing left to cancel.
    consumer.cancel().await?;
    drop((consumer, silent));
    own_queue(&channel).await?;
    Ok(connection.close().await?)
}

/// The same when the consumer is not polled, or is dropped at that moment.
async fn a_consumer_need_not_be_polled(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for at_once in [false, true] {
        let queue = own_queue(&channel).await?;
        let consumer = channel.consume(consume(&queue)).await?;
        let delete = queue::Delete::default().queue(&queue);
        if at_once {
            let dropping = async { drop(consumer) };
            let (deleted, ()) = join(channel.call(delete), dropping).await;
            deleted?;
        } else {
            channel.call(delete).await?;
            own_queue(&channel).await?;
            drop(consumer);
        }
        own_queue(&channel).await?;
    }
    let error = channel
        .consume(consume("missing"))
        .await
        .expect_err("it is missing");
    let consume = amqp_tokio::core::MethodId::new(60, 20);
    assert_channel_closed(&error, ReplyCode::NOT_FOUND, consume);
    Ok(connection.close().await?)
}

/// Given a consumer's handler that opens a new channel, then it completes.
async fn a_handler_opens_a_channel(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let handler = cx.spawn({
        let connection = connection.clone();
        async move {
            let mut opened = 0;
            while let Some(delivery) = consumer.next().await {
                let channel = connection.open_channel().await?;
                own_queue(&channel).await?;
                delivery?.ack()?;
                channel.close().await?;
                opened += 1;
                if opened == 3 {
                    break;
                }
            }
            Ok::<_, Failure>(opened)
        }
    });
    for _ in 0..3 {
        put(&channel, "", &queue, "open one").await?;
    }
    assert_eq!(cx.soon(handler.join()).await???, 3);
    Ok(connection.close().await?)
}

/// Given a consumer for which nothing was set, then it has a prefetch of a third of the buffer: 16 of
/// 48; another one, or none, by option; and that of a `basic.qos` of the program's own.
async fn a_consumer_has_a_third_of_its_buffer_as_prefetch(cx: Ctx) -> Outcome {
    const MESSAGES: u32 = 40;
    let (observer, observing) = open_confirming(&cx).await?;
    let connection = cx
        .connect_to(&cx.uri, |config| config.prefetch = Prefetch::OfBuffer(48))
        .await?;
    let count = |count| ConsumeOptions::default().prefetch(Prefetch::Count(count));
    let unlimited = ConsumeOptions::default().prefetch(Prefetch::Unlimited);
    for (own, options, expected) in [
        (None, None, 16),
        (None, Some(count(5)), 5),
        (None, Some(unlimited), MESSAGES),
        (Some(3), None, 3),
    ] {
        observing.call(shared_queue("q")).await?;
        for _ in 0..MESSAGES {
            put(&observing, "", "q", "test").await?;
        }
        let channel = connection.open_channel().await?;
        if let Some(prefetch) = own {
            let qos = basic::Qos::default().prefetch_count(prefetch);
            channel.call(qos).await?;
        }
        let mut consumer = match options {
            Some(options) => channel.consume_with(consume("q"), options).await?,
            None => channel.consume(consume("q")).await?,
        };
        let mut deliveries = Vec::new();
        for _ in 0..expected {
            let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
            deliveries.push(delivery);
        }
        assert_eq!(ready(&observing, "q").await?, MESSAGES - expected);
        if expected < MESSAGES {
            // Each acknowledgement brings one more.
            deliveries.remove(0).ack()?;
            let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
            deliveries.push(delivery);
            assert_eq!(ready(&observing, "q").await?, MESSAGES - expected - 1);
        }
        observing.call(queue::Delete::default().queue("q")).await?;
        channel.close().await?;
    }
    connection.close().await?;
    Ok(observer.close().await?)
}

/// Given a consumer that is not polled, with more in its queue than the client buffers, then another
/// consumer of the connection gets its message, and a call its answer.
async fn a_slow_consumer_delays_no_other(cx: Ctx) -> Outcome {
    let (publisher, publishing) = open_confirming(&cx).await?;
    for name in ["slow", "quick"] {
        publishing.call(shared_queue(name)).await?;
    }
    for _ in 0..50 {
        put(&publishing, "", "slow", vec![0; 10_000]).await?;
    }
    let connection = cx
        .connect_to(&cx.uri, |config| config.limits.undelivered = 100_000)
        .await?;
    let (one, other) = (
        connection.open_channel().await?,
        connection.open_channel().await?,
    );
    let mut slow = one.consume(consume("slow")).await?;
    let mut quick = other.consume(consume("quick")).await?;
    for _ in 0..10 {
        put(&publishing, "", "quick", "test").await?;
        let delivery = cx.soon(quick.next()).await?.ok_or("no delivery")??;
        assert_eq!(text(&delivery.body), "test");
        delivery.ack()?;
        cx.soon(look(&other, "quick")).await??;
    }
    for _ in 0..50 {
        let delivery = cx.soon(slow.next()).await?.ok_or("no delivery")??;
        assert_eq!(delivery.body.len(), 10_000);
        delivery.ack()?;
    }
    connection.close().await?;
    Ok(publisher.close().await?)
}

/// Given heartbeats, when the program blocks with a delivery for three of them, then the connection
/// lives, and the acknowledgement arrives. On a runtime of one thread the program blocks another one,
/// because that thread drives the connection, too.
async fn user_code_may_block_for_three_heartbeats(cx: Ctx) -> Outcome {
    let connection = cx.connect_asking("heartbeat=1").await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "test").await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    let work = || thread::sleep(Duration::from_millis(3500));
    if cx.runtime().name() == "tokio_current_thread" {
        cx.in_thread(work).await?;
    } else {
        work();
    }
    delivery.ack()?;
    assert!(connection.is_open());
    put(&channel, "", &queue, "after").await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
    assert_eq!(text(&delivery.body), "after");
    assert!(!delivery.is_redelivered());
    delivery.ack()?;
    Ok(connection.close().await?)
}
