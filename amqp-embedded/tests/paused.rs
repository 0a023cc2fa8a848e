//! The end of a broker that stands still.

use std::{error::Error, path::Path, time::Duration};

use amqp_embedded::{StoreError, broker::Config};
use amqp_tokio::{LocalBroker, protocol::ReplyCode};
use tokio::time::{sleep, timeout};

type Outcome = Result<(), Box<dyn Error>>;

const PATIENCE: Duration = Duration::from_secs(10);

fn open(path: &Path) -> Result<LocalBroker, StoreError> {
    LocalBroker::open(path, Config::default())
}

/// Waits until the last connection of a broker has ended, and opens its file.
async fn reopen(path: &Path) -> Result<LocalBroker, Box<dyn Error>> {
    let opened = async {
        loop {
            match open(path) {
                Err(StoreError::AlreadyOpen(_)) => sleep(Duration::from_millis(10)).await,
                opened => return opened,
            }
        }
    };
    Ok(timeout(PATIENCE, opened).await??)
}

/// Given a paused broker with a connection, when its last clone is dropped, then it goes on until
/// the connection ends, and closes its file.
#[tokio::test]
async fn a_pause_ends_with_the_last_clone() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("broker");
    let broker = open(&path)?;
    let connection = broker.connect(amqp_tokio::Config::default()).await?;
    broker.pause();
    let clone = broker.clone();
    drop(broker);
    let opening = connection.open_channel();
    assert!(timeout(Duration::from_millis(100), opening).await.is_err());
    drop(clone);
    timeout(PATIENCE, connection.open_channel()).await??;
    timeout(PATIENCE, connection.close()).await??;
    reopen(&path).await?;
    Ok(())
}

/// As above, of a broker that was stopped meanwhile.
#[tokio::test]
async fn a_stop_during_a_pause_is_seen_when_the_last_clone_is_dropped() -> Outcome {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("broker");
    let broker = open(&path)?;
    let connection = broker.connect(amqp_tokio::Config::default()).await?;
    broker.pause();
    broker.stop();
    drop(broker);
    let reason = timeout(PATIENCE, connection.closed()).await?;
    let close = reason.by_peer().ok_or("closed by the client")?;
    assert_eq!(close.code, ReplyCode::CONNECTION_FORCED);
    reopen(&path).await?;
    Ok(())
}
