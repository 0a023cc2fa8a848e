//! Futures that are dropped before they are done.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    task::Poll,
};

use amqp_tokio::{
    Channel, ConfirmChannel, Connection,
    core::protocol::{basic, queue},
    wire::{Secret, ShortStr},
};

use super::{
    Case, cases,
    tools::{becomes_ready, consume, get, own_queue, put, shared_queue, to},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
};

pub(super) fn cases() -> Vec<Case> {
    cases![
        every_future_can_be_dropped_at_each_await,
        a_dropped_request_does_not_disturb_the_next,
        a_close_that_is_not_awaited_is_made,
    ]
}

/// The surroundings of an operation: a connection of others, too, and a channel of its own.
struct Stage<'a> {
    cx: &'a Ctx,
    connection: &'a Connection,
    channel: &'a Channel,
    confirming: &'a ConfirmChannel,
}

type Operation = for<'a> fn(&'a Stage<'a>) -> Pin<Box<dyn Future<Output = Outcome> + 'a>>;

/// An operation of that name.
macro_rules! operation {
    ($name:literal, $stage:ident, $body:block) => {
        ($name, |$stage| Box::pin(async move $body))
    };
}

/// Everything that can be waited for, on a channel and on a connection with one message in the
/// queue `q`.
const OPERATIONS: [(&str, Operation); 20] = [
    operation!("open a channel", on, {
        on.connection.open_channel().await?.close().await?;
        Ok(())
    }),
    operation!("call", on, {
        own_queue(on.channel).await?;
        Ok(())
    }),
    operation!("publish", on, {
        let properties = basic::Properties::default();
        let publish = to("", "elsewhere").mandatory(false);
        on.channel.publish(&publish, &properties, "body").await?;
        Ok(())
    }),
    operation!("publish with a confirm", on, {
        put(on.confirming, "", "other", "body").await
    }),
    operation!("a message that comes back", on, {
        let mut returns = on.channel.returns();
        let properties = basic::Properties::default();
        let publish = to("", "nowhere");
        on.channel.publish(&publish, &properties, "body").await?;
        returns.next().await.ok_or("it did not come back")?;
        Ok(())
    }),
    operation!("consume", on, {
        drop(on.channel.consume(consume("q")).await?);
        Ok(())
    }),
    operation!("consume without acknowledgements", on, {
        drop(on.channel.consume_no_ack(consume("other")).await?);
        Ok(())
    }),
    operation!("cancel", on, {
        let mut consumer = on.channel.consume(consume("q")).await?;
        consumer.cancel().await?;
        Ok(())
    }),
    operation!("the next delivery", on, {
        let mut consumer = on.channel.consume(consume("q")).await?;
        let _unacknowledged = consumer.next().await.ok_or("no delivery")??;
        Ok(())
    }),
    operation!("get", on, {
        let _unacknowledged = on.channel.get(get("q")).await?;
        Ok(())
    }),
    operation!("select confirms", on, {
        let channel = on.connection.open_channel().await?;
        channel.confirm_select().await?;
        Ok(())
    }),
    operation!("a transaction", on, {
        let channel = on.connection.open_channel().await?;
        let channel = channel.tx_select().await?;
        let properties = basic::Properties::default();
        channel
            .publish(&to("", "other"), &properties, "body")
            .await?;
        channel.commit().await?;
        channel.rollback().await?;
        Ok(())
    }),
    operation!("a pool", on, {
        let pool = on.connection.channel_pool(2).await?;
        let channel = pool.checkout().await?;
        put(&channel, "", "other", "body").await
    }),
    operation!("a scope", on, {
        let channel = on.channel;
        let scope = on.connection.scope(async { own_queue(channel).await });
        scope.await??;
        Ok(())
    }),
    operation!("flush", on, {
        let properties = basic::Properties::default();
        let publish = to("", "elsewhere");
        on.channel.publish(&publish, &properties, "body").await?;
        on.connection.flush().await?;
        Ok(())
    }),
    operation!("a new secret", on, {
        let secret = Secret::from("guest");
        let reason = ShortStr::default();
        on.connection.update_secret(secret, reason).await?;
        Ok(())
    }),
    operation!("connect and close", on, {
        let connection = on.cx.connect().await?;
        connection.close().await?;
        Ok(())
    }),
    operation!("the end of a connection", on, {
        let connection = on.cx.connect().await?;
        connection.abort();
        connection.closed().await;
        Ok(())
    }),
    operation!("delete", on, {
        let delete = queue::Delete::default().queue("gone");
        on.channel.call(delete).await?;
        Ok(())
    }),
    operation!("close a channel", on, {
        on.channel.close().await?;
        Ok(())
    }),
];

/// Given any operation, when it is dropped at any await, then the connection is as before, and so
/// is the queue: late messages, consumers and channels are requeued, cancelled and closed.
async fn every_future_can_be_dropped_at_each_await(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let witness = connection.open_channel().await?.confirm_select().await?;
    witness.call(shared_queue("q")).await?;
    witness.call(shared_queue("other")).await?;
    put(&witness, "", "q", "the message").await?;
    let start = connection.channel_count();
    let mut dropped = 0;
    for (name, operation) in OPERATIONS {
        for polls in 0.. {
            let failed = |error: Failure| format!("{name}, dropped after {polls} polls: {error}");
            let done = trial(&cx, &connection, operation, polls)
                .await
                .map_err(failed)?;
            cx.until("no channel is left", || connection.channel_count() == start)
                .await
                .map_err(failed)?;
            becomes_ready(&cx, &witness, "q", 1).await.map_err(failed)?;
            put(&witness, "", "other", "alive").await.map_err(failed)?;
            if done {
                break;
            }
            dropped += 1;
        }
    }
    assert!(dropped >= 2 * OPERATIONS.len());
    Ok(connection.close().await?)
}

/// Polls an operation so often, and drops it, unless it was done before. Channel and connection must
/// be of use all the same.
async fn trial(
    cx: &Ctx,
    connection: &Connection,
    operation: Operation,
    polls: usize,
) -> Result<bool, Failure> {
    let channel = connection.open_channel().await?;
    let confirming = connection.open_channel().await?.confirm_select().await?;
    let stage = Stage {
        cx,
        connection,
        channel: &channel,
        confirming: &confirming,
    };
    let done = cx.soon(at_most(polls, operation(&stage))).await?;
    let done = match done {
        Some(outcome) => {
            outcome?;
            true
        }
        None => false,
    };
    cx.soon(put(&confirming, "", "other", "usable")).await??;
    if channel.is_open() {
        cx.soon(own_queue(&channel)).await??;
        cx.soon(channel.close()).await??;
    }
    confirming.close().await?;
    Ok(done)
}

/// The output of a future that is polled so often at most; `Some` if it has ended.
async fn at_most<T>(polls: usize, mut future: Pin<Box<dyn Future<Output = T> + '_>>) -> Option<T> {
    let mut left = polls;
    poll_fn(move |cx| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(value) => Poll::Ready(Some(value)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Given a request with a dropped future, when the next one of its kind is made, then each gets
/// its own answer.
async fn a_dropped_request_does_not_disturb_the_next(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let channel = connection.open_channel().await?;
    for number in 0..20 {
        let name = format!("q{number}");
        // The answer may be there at once, which is no harm.
        drop(at_most(1, Box::pin(channel.call(shared_queue(&name)))).await);
        let next = format!("next{number}");
        let declared = cx.soon(channel.call(shared_queue(&next))).await??;
        assert_eq!(declared.queue, next);
        // The dropped request was sent all the same.
        let look = shared_queue(&name).passive(true);
        assert_eq!(channel.call(look).await?.queue, name);
    }
    Ok(connection.close().await?)
}

/// Given a close with a dropped future, then the connection is closed all the same; one that was
/// never polled has not begun.
async fn a_close_that_is_not_awaited_is_made(cx: Ctx) -> Outcome {
    let connection = cx.connect().await?;
    let mark = cx.mark(&connection).await?;
    drop(connection.close());
    assert!(connection.is_open());
    let channel = connection.open_channel().await?;
    own_queue(&channel).await?;
    drop(at_most(1, Box::pin(connection.close())).await);
    assert!(!connection.is_open());
    cx.gone(&mark).await?;
    assert!(cx.soon(connection.closed()).await?.is_clean());
    Ok(())
}
