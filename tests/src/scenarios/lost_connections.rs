//! Connections that are cut, and servers that stand still.

use std::time::{Duration, Instant};

use amqp_blocking::ConfirmError;
use amqp_tokio::{
    Error, Unconfirmed,
    core::{
        CloseCause, CloseReason, Stage, TimeoutReason,
        protocol::{basic, queue},
    },
};

use super::{
    Case,
    bystanders::{Bystanders, reason_of},
    case, cases,
    tools::{consume, in_doubt, look, own_queue, put, to},
};
use crate::{
    context::Ctx,
    harness::{Failure, Outcome},
    operator::Operator,
    relay::Relay,
    task::Task,
};

/// How often a peer gives a sign of life, in seconds.
const HEARTBEAT: u16 = 3;

/// For how long it may give none.
const SILENCE: Duration = Duration::from_secs(2 * HEARTBEAT as u64);

/// By how much a busy machine may be late: by less than a third interval.
const MARGIN: Duration = Duration::from_millis(2500);

pub(super) fn cases() -> Vec<Case> {
    let mut cases = cases![
        a_cut_connection_ends_every_wait,
        a_connection_cut_in_the_handshake_is_no_connection,
    ];
    cases.extend([case!(a_stopped_server_is_dead_after_two_intervals).alone(&[])]);
    cases
}

/// Whether the transport ended at that stage.
#[track_caller]
fn assert_cut(reason: &CloseReason, at: Stage) {
    match reason.cause() {
        CloseCause::Eof { stage } | CloseCause::Transport { stage, .. } => assert_eq!(*stage, at),
        other => panic!("the transport should have ended: {other}"),
    }
}

/// Given an open channel, when the TCP stream is cut, then connection and channel report closed, and
/// pending calls fail, long before the peer counts as silent.
async fn a_cut_connection_ends_every_wait(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    let connection = cx.connect_to(&cx.uri_at(relay.address()), |_| ()).await?;
    let channel = connection.open_channel().await?.confirm_select().await?;
    let queue = own_queue(&channel).await?;
    put(&channel, "", &queue, "before").await?;
    let mut consumer = channel.consume(consume(&queue)).await?;
    let delivery = cx.soon(consumer.next()).await?.ok_or("no delivery")??;

    relay.pause();
    let confirm = channel
        .publish(&to("", &queue), &basic::Properties::default(), "")
        .await?;
    let confirm = cx.spawn(confirm);
    let next = cx.spawn(async move { (consumer.next().await, consumer.next().await) });
    let closed = cx.spawn({
        let connection = connection.clone();
        async move { connection.closed().await }
    });
    let call = cx.spawn(async move { (own_queue(&channel).await, channel) });
    cx.sleep(Duration::from_millis(100)).await;
    assert!(!confirm.is_finished() && !next.is_finished());
    assert!(!call.is_finished() && !closed.is_finished());
    assert!(connection.is_open());

    relay.cut();
    cx.soon(async {
        let reason = closed.join().await?;
        assert_cut(&reason, Stage::Open);
        let ended = Error::ConnectionClosed(reason.clone());
        let (called, channel) = call.join().await?;
        assert_eq!(called, Err(ended.clone()));
        match confirm.join().await? {
            Err(Unconfirmed::Unknown(doubt)) => {
                assert_eq!(doubt.cause(), &CloseCause::Connection(reason.clone()),)
            }
            other => panic!("the publish should be in doubt: {other:?}"),
        }
        let (reported, over) = next.join().await?;
        assert_eq!(reported.map(|it| it.map(drop)), Some(Err(ended.clone())));
        assert!(over.is_none());
        assert!(!connection.is_open() && !channel.is_open());
        assert_eq!(channel.close_reason(), Some(reason));
        assert_eq!(delivery.ack(), Err(ended.clone()));
        assert_eq!(channel.close().await, Err(ended.clone()));
        assert_eq!(connection.close().await, Err(ended));
        Outcome::Ok(())
    })
    .await?
}

/// A cut during the handshake: every future that waits for the connection gets the error.
async fn a_connection_cut_in_the_handshake_is_no_connection(cx: Ctx) -> Outcome {
    let relay = Relay::start(cx.address)?;
    relay.pause();
    let uri = cx.uri_at(relay.address());
    let connecting = cx.spawn({
        let cx = cx.clone();
        async move { cx.refusal(&uri).await }
    });
    cx.sleep(Duration::from_millis(100)).await;
    assert!(!connecting.is_finished());
    relay.cut();
    let refusal = cx.soon(connecting.join()).await???;
    let Error::ConnectionClosed(reason) = refusal else {
        return Err(refusal.into());
    };
    assert_cut(&reason, Stage::Greeting);
    Ok(())
}

/// Given heartbeats, when the server's process is stopped (`SIGSTOP`), then the connection ends
/// after two intervals, not earlier and not much later, because the server was silent, and every
/// wait fails with that, on the runtime or in a call that blocks a thread. The server can go on
/// afterwards, and be stopped as usual.
async fn a_stopped_server_is_dead_after_two_intervals(cx: Ctx) -> Outcome {
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
    cx.pause_broker()?;
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

    let reported = cx.soon(connection.closed()).await?;
    let silence = before_last_words.elapsed();
    assert!(silence >= SILENCE, "dead after {silence:?}: {reported}");
    let cause = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert_eq!(reported.cause(), &cause);
    assert_eq!(bystanders.common_reason().await?, reported);
    let (first, second) = cx.soon(next.join()).await???;
    assert_eq!(reason_of(first.map(|it| it.map(drop)))?, reported);
    assert!(second.is_none(), "reported once");
    assert_eq!(reason_of(Some(cx.soon(call.join()).await??))?, reported);
    let blocking_call = cx.soon(blocking_call.join()).await???;
    assert_eq!(reason_of(Some(blocking_call))?, reported);
    let of_connection = CloseCause::Connection(reported.clone());
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
    let error = Error::ConnectionClosed(reported).to_string();
    assert!(error.contains("two heartbeat intervals"), "{error}");

    cx.resume_broker()?;
    cx.connect().await?.close().await?;
    match cx.operator() {
        Operator::RabbitMq(node) => Ok(node.stop()?),
        Operator::Embedded(_) => cx.stop_broker().await,
    }
}

/// A thread in a call that blocks, and the result of the call.
fn in_thread<T: Send + 'static>(
    cx: &Ctx,
    call: impl FnOnce() -> T + Send + 'static,
) -> Task<Result<T, Failure>> {
    let waiting = cx.clone();
    cx.spawn(async move { waiting.in_thread(call).await })
}
