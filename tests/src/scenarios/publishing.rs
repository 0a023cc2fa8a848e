//! Publishing, confirms and returned messages.

use std::time::Duration;

use amqp_tokio::{
    BaseChannel, Channel, ConfirmChannel, Requeue, Unconfirmed,
    core::{
        MethodDef as _,
        protocol::{ReplyCode, basic, exchange, queue},
    },
    wire::{FieldArray, FieldTable, FieldValue, ShortStr, Timestamp},
};

use super::{
    Case, cases,
    tools::{
        assert_channel_closed, becomes_ready, bind, by_peer, declare_exchange, fetch, get,
        in_doubt, look, open, open_confirming, own_queue, put, ready, shared_queue, text, to,
    },
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        bodies_of_all_sizes_reach_the_queue,
        a_confirmed_message_is_in_the_queue,
        unroutable_messages_come_back_to_the_listener,
        returns_need_no_listener,
        listeners_share_returned_messages,
        a_burst_with_a_missing_exchange_in_it,
        a_burst_with_a_missing_exchange_without_confirms,
        no_route_for_a_mandatory_message,
        no_route_without_confirms,
        publish_get_ack,
        publish_get_ack_without_confirms,
        rabbitmq_can_confirm,
        an_exchange_is_declared_with_one_type,
        exchanges_are_bound_to_exchanges,
        a_queue_is_declared_again_as_it_is,
        only_messages_published_while_bound_arrive,
        purge_counts,
        failed_publishes_leave_no_channel_behind,
        the_delivery_mode_arrives_as_it_left,
        a_rejected_message_comes_back_or_is_dead_lettered,
        all_properties_and_headers_survive,
    ]
}

/// Given body "coucou", an empty body, and 1,000,000 bytes, when published to a fanout, then one
/// message is ready in the queue each time.
async fn bodies_of_all_sizes_reach_the_queue(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    declare_exchange(&channel, "e", "fanout").await?;
    let large: Vec<u8> = (0..1_000_000).map(|at: u32| at as u8).collect();
    for body in [b"coucou".to_vec(), Vec::new(), large] {
        let queue = own_queue(&channel).await?;
        bind(&channel, &queue, "e", "").await?;
        let publish = basic::Publish::default().exchange("e");
        channel
            .publish(&publish, &basic::Properties::default(), body.clone())
            .await?;
        // Without confirms the arrival is not acknowledged.
        becomes_ready(&cx, &channel, &queue, 1).await?;
        let message = fetch(&channel, &queue).await?;
        assert_eq!(message.body, body[..]);
        message.ack()?;
        let delete = queue::Delete::default().queue(&queue);
        channel.call(delete).await?;
    }
    Ok(connection.close().await?)
}

/// Given confirm mode, when published, then the call returns after the ack and the message is in the
/// queue.
async fn a_confirmed_message_is_in_the_queue(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    channel.call(shared_queue("q")).await?;
    let other = cx.connect().await?;
    let observer = other.open_channel().await?;
    for number in 1..=10 {
        let confirm = channel
            .publish(&to("", "q"), &basic::Properties::default(), "test")
            .await?;
        assert_eq!(confirm.seq().map(|seq| seq.get()), Some(number.into()));
        confirm.await?;
        assert_eq!(look(&observer, "q").await?.message_count, number);
    }
    other.close().await?;
    Ok(connection.close().await?)
}

/// Given an iterator on returns started first, when a mandatory unroutable message is published,
/// then it is delivered to the iterator within 1 s.
async fn unroutable_messages_come_back_to_the_listener(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let mut returns = channel.returns();
    let headers = FieldTable::new().with("number", 1);
    let properties = basic::Properties::default().headers(headers);
    channel
        .publish(&to("", "nowhere"), &properties, "come back")
        .await?;
    // One that is not mandatory is dropped by the server.
    channel
        .publish(
            &to("", "nowhere").mandatory(false),
            &properties,
            "stay away",
        )
        .await?;
    let message = cx.soon(returns.next()).await?.ok_or("nothing came back")?;
    assert_eq!(message.code, ReplyCode::NO_ROUTE);
    assert_eq!(message.text, "NO_ROUTE");
    assert_eq!(
        (message.exchange, message.routing_key.as_str()),
        (<_>::default(), "nowhere")
    );
    assert_eq!(message.encoded_properties.decode()?, properties);
    assert_eq!(message.body, "come back");
    // The channel goes on, and nothing else came back.
    own_queue(&channel).await?;
    assert_eq!(returns.error(), None);
    channel.close().await?;
    assert_eq!(cx.soon(returns.next()).await?, None);
    Ok(connection.close().await?)
}

/// Returned messages without a listener are dropped, and the channel goes on.
async fn returns_need_no_listener(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let properties = basic::Properties::default();
    for _ in 0..100 {
        channel
            .publish(&to("", "nowhere"), &properties, "lost")
            .await?;
    }
    let queue = own_queue(&channel).await?;
    assert!(channel.get(get(&queue)).await?.is_none());
    let mut returns = channel.returns();
    channel
        .publish(&to("", "nowhere"), &properties, "found")
        .await?;
    let message = cx.soon(returns.next()).await?.ok_or("nothing came back")?;
    assert_eq!(message.body, "found");
    Ok(connection.close().await?)
}

/// Given two listeners, then each message goes to one of them, to one that waits if there is one, and
/// one of them can be dropped.
async fn listeners_share_returned_messages(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let properties = basic::Properties::default();
    let listeners = [(); 2].map(|()| {
        let mut returns = channel.returns();
        cx.spawn(async move { returns.next().await })
    });
    cx.sleep(Duration::from_millis(50)).await;
    for body in ["one", "two"] {
        channel
            .publish(&to("", "nowhere"), &properties, body)
            .await?;
    }
    let mut bodies = Vec::new();
    for listener in listeners {
        let message = cx.soon(listener.join()).await??.ok_or("nothing")?;
        bodies.push(text(&message.body));
    }
    bodies.sort_unstable();
    assert_eq!(bodies, ["one", "two"]);

    let (leaving, mut staying) = (channel.returns(), channel.returns());
    drop(leaving);
    channel
        .publish(&to("", "nowhere"), &properties, "three")
        .await?;
    let message = cx.soon(staying.next()).await?.ok_or("nothing came back")?;
    assert_eq!(message.body, "three");
    Ok(connection.close().await?)
}

/// Given three publishes in one burst, the second to a missing exchange, then the first has arrived,
/// the others fail with 404, and later publishes, on another channel, succeed; twice.
async fn a_burst_with_a_missing_exchange_in_it(cx: Ctx) -> Outcome {
    let (connection, observing) = open(&cx).await?;
    observing.call(shared_queue("q")).await?;
    for round in 1..=2 {
        let channel = connection.open_channel().await?.confirm_select().await?;
        let properties = basic::Properties::default();
        let first = channel.publish(&to("", "q"), &properties, "1").await?;
        let second = channel
            .publish(&to("missing", "q"), &properties, "2")
            .await?;
        let third = channel.publish(&to("", "q"), &properties, "3").await;
        // The server may close before it has confirmed the first.
        match cx.soon(first).await? {
            Ok(()) => {}
            unknown => assert_eq!(by_peer(&in_doubt(unknown)).code, ReplyCode::NOT_FOUND),
        }
        let reason = in_doubt(cx.soon(second).await?);
        assert_eq!(by_peer(&reason).code, ReplyCode::NOT_FOUND);
        match third {
            Ok(third) => match cx.soon(third).await? {
                Err(Unconfirmed::NotSent(reported) | Unconfirmed::Unknown(reported)) => {
                    assert_eq!(reported, reason);
                }
                other => return Err(format!("behind the end: {other:?}").into()),
            },
            Err(error) => assert_eq!(error.code(), Some(ReplyCode::NOT_FOUND)),
        }
        assert_eq!(ready(&observing, "q").await?, 2 * round - 1);
        let again = connection.open_channel().await?.confirm_select().await?;
        put(&again, "", "q", "later").await?;
        assert_eq!(ready(&observing, "q").await?, 2 * round);
    }
    Ok(connection.close().await?)
}

/// The same without confirms: the next request on the channel fails.
async fn a_burst_with_a_missing_exchange_without_confirms(cx: Ctx) -> Outcome {
    let (connection, observing) = open(&cx).await?;
    observing.call(shared_queue("q")).await?;
    for round in 1..=2 {
        let channel = connection.open_channel().await?;
        throw(&channel, "", "q", "1").await?;
        throw(&channel, "missing", "q", "2").await?;
        // It may fail already.
        let _late = throw(&channel, "", "q", "3").await;
        let error = own_queue(&channel).await.expect_err("it is closed");
        assert_channel_closed(&error, ReplyCode::NOT_FOUND, basic::Publish::ID);
        becomes_ready(&cx, &observing, "q", 2 * round - 1).await?;
        throw(&connection.open_channel().await?, "", "q", "later").await?;
        becomes_ready(&cx, &observing, "q", 2 * round).await?;
    }
    Ok(connection.close().await?)
}

/// Given a mandatory message for a key without a queue, then 312; and again when a queue of another
/// name is there.
async fn no_route_for_a_mandatory_message(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    for _ in 0..2 {
        let properties = basic::Properties::default();
        let confirm = channel.publish(&to("", "nowhere"), &properties, "").await?;
        let Err(Unconfirmed::Returned(returned)) = cx.soon(confirm).await? else {
            return Err("it went somewhere".into());
        };
        assert_eq!(returned.code, ReplyCode::NO_ROUTE);
        channel.call(shared_queue("elsewhere")).await?;
    }
    put(&channel, "", "elsewhere", "here").await?;
    Ok(connection.close().await?)
}

/// The same without confirms: it comes back all the same.
async fn no_route_without_confirms(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let mut returns = channel.returns();
    for body in ["1", "2"] {
        throw(&channel, "", "nowhere", body).await?;
        let returned = cx.soon(returns.next()).await?.ok_or("no return")?;
        assert_eq!(returned.code, ReplyCode::NO_ROUTE);
        assert_eq!(text(&returned.body), body);
        channel.call(shared_queue("elsewhere")).await?;
    }
    Ok(connection.close().await?)
}

/// Given a message, then get gives it once.
async fn publish_get_ack(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "once").await?;
    fetch_body(&channel, &queue, "once").await?;
    assert!(channel.get(get(&queue)).await?.is_none());
    Ok(connection.close().await?)
}

/// The same without confirms. Later requests on the channel are behind the publish.
async fn publish_get_ack_without_confirms(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let queue = own_queue(&channel).await?;
    throw(&channel, "", &queue, "once").await?;
    becomes_ready(&cx, &channel, &queue, 1).await?;
    fetch_body(&channel, &queue, "once").await?;
    assert!(channel.get(get(&queue)).await?.is_none());
    Ok(connection.close().await?)
}

/// Given RabbitMQ, then the capability `publisher_confirms` is seen, and is true.
async fn rabbitmq_can_confirm(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    assert!(connection.has_capability("publisher_confirms"));
    assert!(!connection.has_capability("telepathy"));
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "").await?;
    Ok(connection.close().await?)
}

/// Given a direct exchange, when declared as fanout, then 406. One that is not there can be deleted.
async fn an_exchange_is_declared_with_one_type(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    declare_exchange(&channel, "e", "direct").await?;
    declare_exchange(&channel, "e", "direct").await?;
    let error = declare_exchange(&channel, "e", "fanout").await;
    let error = error.expect_err("it is direct");
    assert_channel_closed(
        &error,
        ReplyCode::PRECONDITION_FAILED,
        exchange::Declare::ID,
    );
    let channel = connection.open_channel().await?;
    for _ in 0..2 {
        let delete = exchange::Delete::default().exchange("e");
        channel.call(delete).await?;
    }
    Ok(connection.close().await?)
}

/// Given one exchange bound to another, and that to a queue, for the second of three publishes only,
/// then only that is in the queue.
async fn exchanges_are_bound_to_exchanges(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "e1", "fanout").await?;
    declare_exchange(&channel, "e2", "fanout").await?;
    let queue = own_queue(&channel).await?;
    bind(&channel, &queue, "e2", "").await?;
    throw_confirmed(&channel, "e1", "", "a").await?;
    let bind = exchange::Bind::default().source("e1").destination("e2");
    channel.call(bind).await?;
    throw_confirmed(&channel, "e1", "", "b").await?;
    let unbind = exchange::Unbind::default().source("e1").destination("e2");
    channel.call(unbind).await?;
    throw_confirmed(&channel, "e1", "", "c").await?;
    fetch_body(&channel, &queue, "b").await?;
    assert!(channel.get(get(&queue)).await?.is_none());
    Ok(connection.close().await?)
}

/// Given a queue, when declared as it is, then that is fine; when declared otherwise, then 406, for
/// flags and for arguments.
async fn a_queue_is_declared_again_as_it_is(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    channel.call(shared_queue("q")).await?;
    channel.call(shared_queue("q")).await?;
    let expires = FieldTable::new().with("x-expires", 101);
    for other in [
        shared_queue("q").auto_delete(true),
        shared_queue("q").arguments(expires),
    ] {
        let channel = connection.open_channel().await?;
        let error = channel.call(other).await.expect_err("it is another one");
        assert_channel_closed(&error, ReplyCode::PRECONDITION_FAILED, queue::Declare::ID);
    }
    Ok(connection.close().await?)
}

/// Given bind and unbind around the second of three publishes, then only that arrives.
async fn only_messages_published_while_bound_arrive(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    declare_exchange(&channel, "e", "direct").await?;
    let queue = own_queue(&channel).await?;
    throw_confirmed(&channel, "e", "key", "a").await?;
    bind(&channel, &queue, "e", "key").await?;
    throw_confirmed(&channel, "e", "key", "b").await?;
    let unbind = queue::Unbind::default()
        .queue(&*queue)
        .exchange("e")
        .routing_key("key");
    channel.call(unbind).await?;
    throw_confirmed(&channel, "e", "key", "c").await?;
    let message = fetch(&channel, &queue).await?;
    assert_eq!(text(&message.body), "b");
    assert_eq!(message.method.message_count, 0);
    message.ack()?;
    Ok(connection.close().await?)
}

/// Given one message, when purged twice, then 1 and 0.
async fn purge_counts(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "").await?;
    for expected in [1, 0] {
        let purge = queue::Purge::default().queue(&*queue);
        assert_eq!(channel.call(purge).await?.message_count, expected);
    }
    Ok(connection.close().await?)
}

/// Given publishes to a missing exchange, one after the other, then each fails with 404, and their
/// channels can be used again.
async fn failed_publishes_leave_no_channel_behind(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let start = connection.channel_count();
    for _ in 0..2 {
        let channel = connection.open_channel().await?.confirm_select().await?;
        let properties = basic::Properties::default();
        let confirm = channel.publish(&to("missing", ""), &properties, "").await?;
        let reason = in_doubt(cx.soon(confirm).await?);
        assert_eq!(by_peer(&reason).code, ReplyCode::NOT_FOUND);
        drop(channel);
        cx.until("the channel is free", || {
            connection.channel_count() == start
        })
        .await?;
    }
    Ok(connection.close().await?)
}

/// Given a delivery mode that is absent, 2 or 1, then it arrives so.
async fn the_delivery_mode_arrives_as_it_left(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    for mode in [None, Some(2), Some(1)] {
        let properties = basic::Properties {
            delivery_mode: mode,
            ..basic::Properties::default()
        };
        let confirm = channel.publish(&to("", &queue), &properties, "").await?;
        confirm.await?;
        let message = fetch(&channel, &queue).await?;
        assert_eq!(message.properties.decode()?, properties);
        message.ack()?;
    }
    Ok(connection.close().await?)
}

/// Given a rejected message, then it is redelivered, or gone, or dead-lettered with the reason.
async fn a_rejected_message_comes_back_or_is_dead_lettered(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let plain = own_queue(&channel).await?;
    put(&channel, "", &plain, "back").await?;
    let message = fetch(&channel, &plain).await?;
    assert!(!message.method.redelivered);
    message.reject(Requeue::Yes)?;
    becomes_ready(&cx, &channel, &plain, 1).await?;
    let message = channel.get(get(&plain)).await?.ok_or("it did not return")?;
    assert!(message.method.redelivered);
    message.reject(Requeue::No)?;
    assert!(channel.get(get(&plain)).await?.is_none());

    let dead = own_queue(&channel).await?;
    let arguments = FieldTable::new()
        .with("x-dead-letter-exchange", "")
        .with("x-dead-letter-routing-key", dead.as_str());
    let declare = queue::Declare::default()
        .exclusive(true)
        .arguments(arguments);
    let lettering = channel.call(declare).await?.queue;
    put(&channel, "", &lettering, "dead").await?;
    let message = channel.get(get(&lettering)).await?;
    message.ok_or("nothing arrived")?.reject(Requeue::No)?;
    becomes_ready(&cx, &channel, &dead, 1).await?;
    let message = channel.get(get(&dead)).await?.ok_or("it is not dead")?;
    assert_eq!(text(&message.body), "dead");
    let headers = message.properties.decode()?.headers.unwrap_or_default();
    let Some(FieldValue::Array(deaths)) = headers.get("x-death") else {
        return Err(format!("no deaths in {headers:?}").into());
    };
    let Some(FieldValue::Table(death)) = deaths.first() else {
        return Err(format!("the first is no table: {deaths:?}").into());
    };
    let reported = |name| death.get(name).and_then(FieldValue::as_str);
    assert_eq!(reported("reason"), Some("rejected"));
    assert_eq!(reported("queue"), Some(lettering.as_str()));
    message.ack()?;
    Ok(connection.close().await?)
}

/// Given all properties, and a header with a list of everything in it, then they arrive as they
/// left.
async fn all_properties_and_headers_survive(cx: Ctx) -> Outcome {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let numbers = [1, 2, 3, 4].map(FieldValue::I32);
    let nested = FieldTable::new()
        .with("a", "b")
        .with("c", FieldValue::Array(FieldArray::new()));
    let list = vec![
        FieldValue::Bool(true),
        FieldValue::I32(1),
        FieldValue::I32(-1),
        FieldValue::I64(1 << 62),
        FieldValue::Void,
        FieldValue::F64(1.2e11),
        FieldValue::I64(-(1 << 62)),
        FieldValue::Array(
            numbers
                .into_iter()
                .chain([FieldValue::Table(nested)])
                .collect(),
        ),
    ];
    let properties = basic::Properties::default()
        .content_type("text/plain")
        .content_encoding("utf-8")
        .headers(FieldTable::new().with("list", FieldValue::Array(list.into())))
        .delivery_mode(1)
        .priority(9)
        .correlation_id("correlation")
        .reply_to("reply")
        .expiration("100000")
        .message_id("message")
        .timestamp(Timestamp(1 << 40))
        .kind("kind")
        .user_id("guest")
        .app_id("app");
    let confirm = channel.publish(&to("", &queue), &properties, "a").await?;
    confirm.await?;
    let message = fetch(&channel, &queue).await?;
    assert_eq!(message.properties.decode()?, properties);
    message.ack()?;
    Ok(connection.close().await?)
}

/// Publishes without confirms.
async fn throw(
    channel: &Channel,
    exchange: &str,
    key: &str,
    body: &'static str,
) -> Result<(), Failure> {
    let properties = basic::Properties::default();
    channel
        .publish(&to(exchange, key), &properties, body)
        .await?;
    Ok(())
}

/// Publishes and waits until the server has dealt with it, wherever it went.
async fn throw_confirmed(
    channel: &ConfirmChannel,
    exchange: &str,
    key: &str,
    body: &'static str,
) -> Result<(), Failure> {
    let publish = to(exchange, key).mandatory(false);
    let properties = basic::Properties::default();
    channel.publish(&publish, &properties, body).await?.await?;
    Ok(())
}

/// Fetches that message, and acknowledges it.
async fn fetch_body(channel: &BaseChannel, queue: &ShortStr, body: &str) -> Outcome {
    let message = fetch(channel, queue).await?;
    assert_eq!(text(&message.body), body);
    Ok(message.ack()?)
}
