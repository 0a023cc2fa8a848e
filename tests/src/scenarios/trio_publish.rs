//! trio_amqp: publishing, and messages that come back.

use std::time::Duration;

use amqp_tokio::{
    core::protocol::{ReplyCode, basic, queue},
    wire::FieldTable,
};

use super::{
    Case, cases,
    tools::{
        becomes_ready, bind, declare_exchange, get, look, open, open_confirming, own_queue,
        shared_queue, text, to,
    },
};
use crate::{context::Ctx, harness::Outcome};

pub(super) fn cases() -> Vec<Case> {
    cases![
        tri_36_bodies_of_all_sizes_reach_the_queue,
        tri_37_a_confirmed_message_is_in_the_queue,
        tri_38_unroutable_messages_come_back_to_the_listener,
        tri_38_nobody_has_to_listen,
        tri_38_listeners_share_what_comes_back,
    ]
}

/// Given body "coucou", an empty body, and 1,000,000 bytes, when published to a fanout, then one
/// message is ready in the queue each time.
async fn tri_36_bodies_of_all_sizes_reach_the_queue(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    declare_exchange(&channel, "e", "fanout").await?;
    let large: Vec<u8> = (0..1_000_000).map(|at: u32| at as u8).collect();
    for body in [b"coucou".to_vec(), Vec::new(), large] {
        let queue = own_queue(&channel).await?;
        bind(&channel, &queue, "e", "").await?;
        let publish = basic::Publish::default().exchange("e")?;
        channel
            .publish(&publish, &basic::Properties::default(), body.clone())
            .await?;
        // Without a confirm nobody says when it is there.
        becomes_ready(&cx, &channel, &queue, 1).await?;
        let message = channel
            .get(get(&queue))
            .await?
            .ok_or("the queue is empty")?;
        assert_eq!(message.body, body[..]);
        message.ack()?;
        let delete = queue::Delete::default().queue(&queue)?;
        channel.call(delete).await?;
    }
    Ok(connection.close().await?)
}

/// Given confirm mode, when published, then the call returns after the ack and the message is in the
/// queue.
async fn tri_37_a_confirmed_message_is_in_the_queue(cx: Ctx) -> Outcome {
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
async fn tri_38_unroutable_messages_come_back_to_the_listener(cx: Ctx) -> Outcome {
    let (connection, channel) = open(&cx).await?;
    let mut returns = channel.returns();
    let headers = FieldTable::new().with("number", 1)?;
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
    let message = cx
        .within(Duration::from_secs(1), returns.next())
        .await?
        .ok_or("nothing came back")?;
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

/// Messages that come back while nobody listens are dropped, and disturb nothing.
async fn tri_38_nobody_has_to_listen(cx: Ctx) -> Outcome {
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

/// Given two listeners, then each message goes to one of them, whoever waits, and one of them may
/// leave.
async fn tri_38_listeners_share_what_comes_back(cx: Ctx) -> Outcome {
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
