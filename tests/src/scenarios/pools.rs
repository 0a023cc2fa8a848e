//! Pools of channels.

use std::time::Duration;

use amqp_tokio::{
    Error, Unconfirmed,
    core::protocol::{ReplyCode, basic},
};

use super::{
    Case, cases,
    tools::{by_peer, consume, in_doubt, put, ready, shared_queue, to},
};
use crate::{context::Ctx, harness::Outcome, relay::Relay};

pub(super) fn cases() -> Vec<Case> {
    cases![
        a_pools_channels_are_given_back,
        publishing_and_consuming_through_a_pool,
        a_pool_replaces_a_channel_that_ended,
        looking_at_a_pool_disturbs_no_checkout,
        a_checkout_ends_with_the_connection,
        a_cancelled_pool_leaves_no_channels,
    ]
}

/// Given a pool of 2, when idle, then idle is 2; after use of the pool, a plain channel gets number 1
/// again.
async fn a_pools_channels_are_given_back(cx: Ctx) -> Outcome {
    let connection = cx.connect_asking("channel_max=2").await?;
    {
        let pool = connection.channel_pool(2).await?;
        assert_eq!((pool.size(), pool.idle()), (2, 2));
        assert_eq!(connection.channel_count(), 2);
        let channel = pool.checkout().await?;
        assert_eq!(pool.idle(), 1);
        drop(channel);
        assert_eq!(pool.idle(), 2);
    }
    cx.until("the channels are closed", || {
        connection.channel_count() == 0
    })
    .await?;
    // Numbers are given out in turn: behind 2 of 2 comes 1.
    assert_eq!(connection.open_channel().await?.number(), 1);
    Ok(connection.close().await?)
}

/// Given a pool of 2, when publishing and consuming one message through it, then the body matches
/// and idle is 2 afterwards.
async fn publishing_and_consuming_through_a_pool(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let pool = connection.channel_pool(2).await?;
    pool.checkout().await?.call(shared_queue("pooled")).await?;
    put(&*pool.checkout().await?, "", "pooled", "through the pool").await?;
    {
        let channel = pool.checkout().await?;
        let mut consumer = channel.consume(consume("pooled")).await?;
        let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;
        assert_eq!(delivery.body, "through the pool");
        delivery.ack()?;
        consumer.cancel().await?;
        assert_eq!(pool.idle(), 1);
        put(&*pool.checkout().await?, "", "pooled", "").await?;
    }
    assert_eq!(pool.idle(), 2);
    assert_eq!(ready(&*pool.checkout().await?, "pooled").await?, 1);
    Ok(connection.close().await?)
}

/// Given a pool of 2, when publishing to a missing exchange, then the server's 404; idle drops to 1
/// and is 2 again after the refill.
async fn a_pool_replaces_a_channel_that_ended(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let pool = connection.channel_pool(2).await?;
    {
        let channel = pool.checkout().await?;
        let confirm = channel
            .publish(&to("missing", ""), &basic::Properties::default(), "")
            .await?;
        let reason = in_doubt(cx.soon(confirm).await?);
        assert_eq!(by_peer(&reason).code, ReplyCode::NOT_FOUND);
        let after = channel
            .publish(&to("", ""), &basic::Properties::default(), "")
            .await
            .expect_err("the channel has ended");
        assert_eq!(after.code(), Some(ReplyCode::NOT_FOUND));
        assert_eq!(pool.idle(), 1);
    }
    cx.until("the channel is replaced", || pool.idle() == 2)
        .await?;
    let (one, two) = (pool.checkout().await?, pool.checkout().await?);
    assert_ne!(one.number(), two.number());
    for channel in [one, two] {
        let confirm = channel
            .publish(&to("", "nowhere"), &basic::Properties::default(), "")
            .await?;
        let outcome = confirm.await;
        assert!(
            matches!(outcome, Err(Unconfirmed::Returned(_))),
            "{outcome:?}"
        );
    }

    // A checkout that waits gets the channel in place of the one that ended.
    let (held, broken) = (pool.checkout().await?, pool.checkout().await?);
    let waiting = cx.spawn({
        let pool = pool.clone();
        async move { pool.checkout().await.map(|channel| channel.is_open()) }
    });
    let confirm = broken
        .publish(&to("missing", ""), &basic::Properties::default(), "")
        .await?;
    in_doubt(cx.soon(confirm).await?);
    drop(broken);
    assert!(cx.soon(waiting.join()).await???);
    drop(held);
    Ok(connection.close().await?)
}

/// Given a pool with its only channel being replaced, when a checkout waits for it and the idle
/// channels are counted meanwhile, then the checkout still gets it.
async fn looking_at_a_pool_disturbs_no_checkout(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    let pool = connection.channel_pool(1).await?;
    {
        let channel = pool.checkout().await?;
        channel.close().await?;
        relay.pause();
    }
    let waiting = cx.spawn({
        let pool = pool.clone();
        async move { pool.checkout().await.map(|channel| channel.is_open()) }
    });
    cx.sleep(Duration::from_millis(50)).await;
    assert_eq!(pool.idle(), 0);
    cx.sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    relay.resume();
    assert!(cx.soon(waiting.join()).await???);
    Ok(connection.close().await?)
}

/// Given a pool with its only channel out, when the connection ends, then a waiting checkout fails
/// with the reason, also if the channel is never put back.
async fn a_checkout_ends_with_the_connection(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    let pool = connection.channel_pool(1).await?;
    let held = pool.checkout().await?;
    let waiting = cx.spawn({
        let pool = pool.clone();
        async move { pool.checkout().await.map(drop) }
    });
    cx.sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    relay.cut();
    let reported = cx.soon(waiting.join()).await??;
    let reason = cx.soon(connection.closed()).await?;
    assert_eq!(reported, Err(Error::ConnectionClosed(reason.clone())));
    drop(held);
    let late = pool.checkout().await.map(drop);
    assert_eq!(late, Err(Error::ConnectionClosed(reason)));
    assert_eq!(pool.idle(), 0);
    Ok(())
}

/// Given a pool that is being opened, when that is given up, then its channels are closed.
async fn a_cancelled_pool_leaves_no_channels(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    relay.pause();
    let opening = cx.spawn({
        let connection = connection.clone();
        async move { connection.channel_pool(10).await.map(drop) }
    });
    cx.until("all are asked for", || connection.channel_count() == 10)
        .await?;
    cx.soon(opening.cancel()).await?;
    relay.resume();
    cx.until("all are closed", || connection.channel_count() == 0)
        .await?;
    Ok(connection.close().await?)
}
