//! The file of a broker.

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use amqp_embedded::{StoreError, broker::Config};
use amqp_tokio::LocalBroker;
use tempfile::TempDir;
use tokio::time::{sleep, timeout};

/// The time that anything may take.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn open(path: &Path) -> Result<LocalBroker, StoreError> {
    LocalBroker::open(path, Config::default())
}

/// A file in a folder of its own, which is removed with it.
pub(crate) struct File {
    pub(crate) folder: TempDir,
    pub(crate) path: PathBuf,
}

impl File {
    pub(crate) fn new() -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("broker");
        Ok(Self { folder, path })
    }

    pub(crate) fn open(&self) -> Result<LocalBroker, StoreError> {
        open(&self.path)
    }

    /// Waits until the last connection of its broker has ended, and opens it.
    pub(crate) async fn reopen(&self) -> Result<LocalBroker, Box<dyn Error>> {
        let opened = async {
            loop {
                match self.open() {
                    Err(StoreError::AlreadyOpen(_)) => sleep(Duration::from_millis(10)).await,
                    opened => return opened,
                }
            }
        };
        Ok(timeout(PATIENCE, opened).await??)
    }
}
