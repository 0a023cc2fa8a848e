//! The end of a broker that stands still: it goes on until its connections end, and closes its file.

use std::time::Duration;

use amqp_embedded::broker::{ByteFaults, Impairment};
use amqp_tokio::protocol::ReplyCode;
use tokio::time::timeout;

use crate::{
    Outcome,
    file::{File, PATIENCE},
};

/// Given a paused broker with a connection, when its last clone is dropped, then it goes on until
/// the connection ends, and closes its file.
#[tokio::test]
async fn a_pause_ends_with_the_last_clone() -> Outcome {
    let file = File::new()?;
    let broker = file.open()?;
    let connection = broker.connect(amqp_tokio::Config::default()).await?;
    broker.pause();
    let clone = broker.clone();
    drop(broker);
    let opening = connection.open_channel();
    assert!(timeout(Duration::from_millis(100), opening).await.is_err());
    drop(clone);
    timeout(PATIENCE, connection.open_channel()).await??;
    timeout(PATIENCE, connection.close()).await??;
    file.reopen().await?;
    Ok(())
}

/// As above, of a broker that was stopped meanwhile.
#[tokio::test]
async fn a_stop_during_a_pause_is_seen_when_the_last_clone_is_dropped() -> Outcome {
    let file = File::new()?;
    let broker = file.open()?;
    let connection = broker.connect(amqp_tokio::Config::default()).await?;
    broker.pause();
    broker.stop();
    drop(broker);
    let reason = timeout(PATIENCE, connection.closed()).await?;
    let close = reason.by_peer().ok_or("closed by the client")?;
    assert_eq!(close.code, ReplyCode::CONNECTION_FORCED);
    file.reopen().await?;
    Ok(())
}

/// Given stalled connections, of which the broker has closed one and the other's client is gone, when
/// the last clone is dropped, then their drivers end.
#[tokio::test]
async fn a_stall_ends_with_the_last_clone() -> Outcome {
    let file = File::new()?;
    let broker = file.open()?;
    let closed = broker.connect(amqp_tokio::Config::default()).await?;
    let gone = broker.connect(amqp_tokio::Config::default()).await?;
    let stalled = ByteFaults::both(Impairment::new().stall_after(0));
    for connection in broker.inspect().connections {
        broker.with(|broker| broker.faults().bytes(connection.key, stalled));
    }
    drop(gone);
    let code = ReplyCode::CONNECTION_FORCED;
    let key = broker.inspect().connections[0].key;
    broker.with(|broker| broker.faults().close_connection(key, code, "for a test"));
    drop(broker);
    let reason = timeout(PATIENCE, closed.closed()).await?;
    let close = reason.by_peer().ok_or("closed by the client")?;
    assert_eq!(close.code, code);
    file.reopen().await?;
    Ok(())
}
