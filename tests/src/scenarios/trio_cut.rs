//! trio_amqp: connections that are cut.

use std::time::Duration;

use amqp_tokio::{
    Error, Unconfirmed,
    core::{CloseCause, CloseReason, Stage, protocol::basic},
};

use super::{
    Case, cases,
    tools::{consume, own_queue, put, to},
};
use crate::{context::Ctx, harness::Outcome, relay::Relay};

pub(super) fn cases() -> Vec<Case> {
    cases![
        tri_10_a_cut_connection_is_told_to_everybody,
        tri_10_a_connection_cut_in_the_handshake_is_no_connection,
    ]
}

/// Whether the transport ended at that stage.
#[track_caller]
fn assert_cut(reason: &CloseReason, at: Stage) {
    match reason.cause() {
        CloseCause::Eof { stage } | CloseCause::Transport { stage, .. } => assert_eq!(*stage, at),
        other => panic!("the transport should have ended: {other}"),
    }
}

/// Given an open channel, when the TCP stream is cut, then within 1 s connection and channel report
/// closed and pending calls fail.
async fn tri_10_a_cut_connection_is_told_to_everybody(cx: Ctx) -> Outcome {
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
    cx.within(Duration::from_secs(1), async {
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
        let (told, over) = next.join().await?;
        assert_eq!(told.map(|it| it.map(drop)), Some(Err(ended.clone())));
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

/// The same before there is a connection: whoever waits for it is told.
async fn tri_10_a_connection_cut_in_the_handshake_is_no_connection(cx: Ctx) -> Outcome {
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
    let refusal = cx
        .within(Duration::from_secs(1), connecting.join())
        .await???;
    let Error::ConnectionClosed(reason) = refusal else {
        return Err(refusal.into());
    };
    assert_cut(&reason, Stage::Greeting);
    Ok(())
}
