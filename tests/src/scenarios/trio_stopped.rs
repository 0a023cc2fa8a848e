//! trio_amqp: a server that stands still. Its connections stay open, and nobody answers on them.

use std::time::{Duration, Instant};

use amqp_blocking::ConfirmError;
use amqp_tokio::{
    Error,
    core::{
        CloseCause, TimeoutReason,
        protocol::{basic, queue},
    },
};

use super::{
    Case,
    bystanders::{Bystanders, reason_of},
    case,
    tools::{consume, in_doubt, look, own_queue, to},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
    operator::Operator,
    task::Task,
};

pub(super) fn cases() -> Vec<Case> {
    vec![
        case!(tri_11_a_stopped_server_is_dead_after_two_intervals)
            .alone(&[])
            .not_on_embedded("it is no process that could be stopped"),
    ]
}

/// How often a peer gives a sign of life, in seconds.
const HEARTBEAT: u16 = 2;

/// For how long it may give none.
const SILENCE: Duration = Duration::from_secs(2 * HEARTBEAT as u64);

/// By how much a busy machine may be late: by less than a third interval.
const MARGIN: Duration = Duration::from_millis(1500);

/// Given heartbeats, when the server's process is stopped (`SIGSTOP`), then the connection ends after
/// two intervals, not earlier and not much later, because the server was silent, and that is what
/// everybody is told who waits, on the runtime or in a call that blocks a thread. The server can go
/// on afterwards, and be stopped as usual.
async fn tri_11_a_stopped_server_is_dead_after_two_intervals(cx: Ctx) -> Outcome {
    let Operator::RabbitMq(node) = cx.operator() else {
        return Err("it is not RabbitMQ".into());
    };
    // RabbitMQ offers a longer interval; the shorter one counts.
    let connection = cx.connect_asking(&format!("heartbeat={HEARTBEAT}")).await?;
    assert_eq!(connection.tuning().heartbeat, HEARTBEAT);
    let bystanders = Bystanders::of(&cx, &connection).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let queue = own_queue(&channel).await?;
    let consumer = channel.consume(consume(&queue)).await?;
    let mut consumer = amqp_blocking::Consumer::from(consumer);
    let calling = amqp_blocking::Channel::from(connection.open_channel().await?);
    let next = in_thread(&cx, move || (consumer.next(), consumer.next()));

    let before_last_words = Instant::now();
    look(&channel, &queue).await?;
    node.pause()?;
    let stopped = Instant::now();
    let publish = || async {
        let nothing = basic::Properties::default();
        channel.publish(&to("", "nowhere"), &nothing, "").await
    };
    let confirm = cx.spawn(publish().await?);
    let blocking_confirm = amqp_blocking::Confirm::from(publish().await?);
    let blocking_confirm = in_thread(&cx, move || blocking_confirm.wait());
    let blocking_call = in_thread(&cx, move || {
        calling.call(queue::Declare::default().exclusive(true))
    });
    let call = cx.spawn(async move { own_queue(&channel).await });

    let told = cx.soon(connection.closed()).await?;
    let silence = before_last_words.elapsed();
    assert!(silence >= SILENCE, "dead after {silence:?}: {told}");
    let cause = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert_eq!(told.cause(), &cause);
    assert_eq!(bystanders.told_alike().await?, told);
    let (first, second) = cx.soon(next.join()).await???;
    assert_eq!(reason_of(first.map(|it| it.map(drop)))?, told);
    assert!(second.is_none(), "told once");
    assert_eq!(reason_of(Some(cx.soon(call.join()).await??))?, told);
    let blocking_call = cx.soon(blocking_call.join()).await???;
    assert_eq!(reason_of(Some(blocking_call))?, told);
    let of_connection = CloseCause::Connection(told.clone());
    let doubt = in_doubt(cx.soon(confirm.join()).await??);
    assert_eq!(doubt.cause(), &of_connection);
    match cx.soon(blocking_confirm.join()).await??? {
        Err(ConfirmError::Unconfirmed(doubt)) => {
            assert_eq!(in_doubt(Err(doubt)).cause(), &of_connection);
        }
        other => panic!("the publish should be in doubt, but: {other:?}"),
    }
    let late = stopped.elapsed().saturating_sub(SILENCE);
    assert!(late <= MARGIN, "{late:?} later than two intervals");
    let error = Error::ConnectionClosed(told).to_string();
    assert!(error.contains("two heartbeat intervals"), "{error}");

    node.resume()?;
    cx.connect().await?.close().await?;
    Ok(node.stop()?)
}

/// A thread in a call that blocks, and what comes of that.
fn in_thread<T: Send + 'static>(
    cx: &Ctx,
    call: impl FnOnce() -> T + Send + 'static,
) -> Task<Result<T, Failure>> {
    let waiting = cx.clone();
    cx.spawn(async move { waiting.in_thread(call).await })
}
