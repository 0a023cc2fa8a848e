//! Publishers that report the outcome of each message.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use amqp_tokio::{
    BaseChannel, Connection,
    core::protocol::ReplyCode,
    publishing::{
        Acknowledgements, NotPublishedReason, Outcome, OutgoingMessage, Publisher,
        PublisherOptions, Window,
    },
};

use super::{
    Case, cases,
    tools::{
        becomes_ready, by_peer, fetch, open, open_confirming, own_queue, ready, shared_queue, text,
        to,
    },
};
use crate::{context::Ctx, harness::Failure};

type Result<T = ()> = std::result::Result<T, Failure>;

pub(super) fn cases() -> Vec<Case> {
    cases![
        acknowledgements_are_on_off_or_as_the_server_can,
        many_messages_have_their_outcomes_in_order,
        a_window_of_bytes_holds_messages_back,
        a_channel_error_leaves_no_message_without_an_outcome,
        a_lost_connection_leaves_no_message_without_an_outcome,
    ]
}

async fn publisher(
    cx: &Ctx,
    acknowledgements: Acknowledgements,
) -> Result<(Connection, Publisher)> {
    let (connection, channel) = open(cx).await?;
    let options = PublisherOptions::default();
    let publisher = Publisher::open(channel, acknowledgements, options).await?;
    Ok((connection, publisher))
}

fn message(queue: &str, body: impl ToString) -> OutgoingMessage {
    OutgoingMessage::new(to("", queue), body.to_string())
}

/// PUK-44. With acknowledgements, the outcome of a message is the server's answer. Without, it is
/// that the message was accepted, and mandatory messages come back on the channel. By the
/// capability, it is as with them on both brokers.
async fn acknowledgements_are_on_off_or_as_the_server_can(cx: Ctx) -> Result {
    for acknowledgements in [Acknowledgements::On, Acknowledgements::IfSupported] {
        let (connection, publisher) = publisher(&cx, acknowledgements).await?;
        assert!(publisher.has_confirms());
        let queue = own_queue(publisher.channel()).await?;
        let receipt = publisher.publish(message(&queue, "taken")).await;
        assert_eq!(cx.soon(receipt).await?, Outcome::Acked);
        assert_eq!(ready(publisher.channel(), &queue).await?, 1);
        let receipt = publisher.publish(message("nowhere", "back")).await;
        let Outcome::Returned(returned) = cx.soon(receipt).await? else {
            return Err("no queue takes it".into());
        };
        assert_eq!(
            (returned.code, text(&returned.body)),
            (ReplyCode::NO_ROUTE, "back".into())
        );
        connection.close().await?;
    }
    let (connection, publisher) = publisher(&cx, Acknowledgements::Off).await?;
    assert!(!publisher.has_confirms());
    let mut returns = publisher.channel().returns();
    let queue = own_queue(publisher.channel()).await?;
    for name in [&*queue, "nowhere"] {
        let receipt = publisher.publish(message(name, name)).await;
        assert_eq!(receipt.await, Outcome::Unacknowledged);
    }
    let returned = cx.soon(returns.next()).await?.ok_or("nothing came back")?;
    assert_eq!(text(&returned.body), "nowhere");
    becomes_ready(&cx, publisher.channel(), &queue, 1).await?;
    Ok(connection.close().await?)
}

/// Given 600 messages, each third without a queue, and a window of 50, then the outcomes come in
/// order, and those in the queue are the confirmed ones, in order.
async fn many_messages_have_their_outcomes_in_order(cx: Ctx) -> Result {
    const COUNT: usize = 600;
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let window = Window {
        messages: 50,
        bytes: 1 << 20,
    };
    let options = PublisherOptions::default().window(window);
    let publisher = Publisher::new(channel.clone(), options);
    let routed = |number: usize| !number.is_multiple_of(3);
    let messages = (0..COUNT).map(|number| {
        let queue = if routed(number) { &*queue } else { "nowhere" };
        message(queue, number)
    });
    let outcomes = cx.soon(publisher.publish_many(messages).wait_all()).await?;
    assert_eq!(outcomes.len(), COUNT);
    for (number, outcome) in outcomes.iter().enumerate() {
        let is_right = match outcome {
            Outcome::Acked => routed(number),
            Outcome::Returned(back) => !routed(number) && text(&back.body) == number.to_string(),
            _ => false,
        };
        assert!(is_right, "{number}: {outcome:?}");
    }
    for number in (0..COUNT).filter(|&number| routed(number)) {
        let fetched = fetch(&channel, &queue).await?;
        assert_eq!(text(&fetched.body), number.to_string());
        fetched.ack()?;
    }
    Ok(connection.close().await?)
}

/// Given a window of 100,000 bytes, then no more are in flight, and a message beyond it comes back from
/// a try and waits otherwise, until the server has confirmed another.
async fn a_window_of_bytes_holds_messages_back(cx: Ctx) -> Result {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let window = Window {
        messages: 1000,
        bytes: 100_000,
    };
    let publisher = Publisher::new(channel, PublisherOptions::default().window(window));
    let large = OutgoingMessage::new(to("", &queue), vec![7; 40_000]);
    let mut receipts = Vec::new();
    for _ in 0..30 {
        receipts.push(match publisher.try_publish(large.clone()) {
            Ok(receipt) => receipt,
            Err(refused) => {
                assert_eq!(refused.reason, NotPublishedReason::WindowFull);
                assert_eq!(*refused.message, large);
                cx.soon(publisher.publish(*refused.message)).await?
            }
        });
        assert!(publisher.bytes_in_flight() <= window.bytes);
    }
    let outcomes = cx.soon(publisher.wait_all(receipts)).await?;
    assert!(outcomes.iter().all(Outcome::is_acked));
    assert_eq!(ready(publisher.channel(), &queue).await?, 30);
    Ok(connection.close().await?)
}

/// Given a burst with a missing exchange in it, then the messages before it may be confirmed, that
/// one is not, and those behind it come back or are in doubt because of the same error.
async fn a_channel_error_leaves_no_message_without_an_outcome(cx: Ctx) -> Result {
    let (connection, channel) = open_confirming(&cx).await?;
    let queue = own_queue(&channel).await?;
    let publisher = Publisher::new(channel.clone(), PublisherOptions::default());
    let mut receipts = Vec::new();
    for number in 0..20 {
        let message = match number {
            10 => OutgoingMessage::new(to("missing", ""), "10"),
            _ => message(&queue, number),
        };
        receipts.push(publisher.publish(message).await);
    }
    let outcomes = cx.soon(publisher.wait_all(receipts)).await?;
    assert_eq!(outcomes.len(), 20);
    for (number, outcome) in outcomes.into_iter().enumerate() {
        match outcome {
            Outcome::Acked => assert!(number < 10, "{number}"),
            Outcome::Unknown(reason) => {
                assert_eq!(by_peer(&reason).code, ReplyCode::NOT_FOUND);
            }
            Outcome::NotSent { message, .. } => {
                assert_eq!(text(&message.body), number.to_string());
            }
            other => return Err(format!("{number}: {other:?}").into()),
        }
    }
    let refused = publisher.try_publish(message(&queue, 20));
    assert!(matches!(
        refused.expect_err("it is closed").reason,
        NotPublishedReason::Failed(_)
    ));
    Ok(connection.close().await?)
}

/// Given messages in flight, when an operator closes the connection, then each has an outcome, and
/// all that were confirmed are in the queue.
async fn a_lost_connection_leaves_no_message_without_an_outcome(cx: Ctx) -> Result {
    let other = cx.connect().await?;
    let observer = other.open_channel().await?;
    observer.call(shared_queue("q")).await?;
    let (connection, channel) = open_confirming(&cx).await?;
    let publisher = Publisher::new(channel, PublisherOptions::default());
    let publishing = publisher.clone();
    let acked = Arc::new(AtomicU32::new(0));
    let counting = Arc::clone(&acked);
    let task = cx.spawn(async move {
        let mut many = publishing.publish_many((0..u32::MAX).map(|number| message("q", number)));
        while let Some(Outcome::Acked) = many.next().await {
            counting.fetch_add(1, SeqCst);
        }
        many.next().await
    });
    cx.until("messages are confirmed", || acked.load(SeqCst) > 100)
        .await?;
    connection.abort();
    let next = cx.soon(task.join()).await??;
    assert!(!matches!(next, None | Some(Outcome::Acked)), "{next:?}");
    let acked = acked.load(SeqCst);
    let count = is_settled(&cx, &observer).await?;
    assert!(acked <= count, "{acked} of {count}");
    Ok(other.close().await?)
}

/// The number of messages in the queue, once it does not grow.
async fn is_settled(cx: &Ctx, observer: &BaseChannel) -> Result<u32> {
    let mut before = ready(observer, "q").await?;
    loop {
        cx.sleep(Duration::from_millis(200)).await;
        let count = ready(observer, "q").await?;
        if count == before {
            return Ok(count);
        }
        before = count;
    }
}
