//! Brokers that outlive their process: their durable state in a file.

mod file;
mod writer;

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use amqp_broker::{BadChange, Broker, Config, RestoreError};
use amqp_driver::io::{Runtime, Timer as _};

pub(crate) use self::writer::StoreGuard;
use self::{file::StoreFile, writer::Writer};
use crate::{
    local::{LocalBroker, with_time_of_day},
    shared::{Shared, SharedBroker},
};

/// A failure of the store of a broker.
#[derive(thiserror::Error, Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Another broker has the file open, in this process or another one.
    #[error("the store {} is open already", .0.display())]
    AlreadyOpen(PathBuf),
    /// The file is no store, or cannot be read or written.
    #[error("the store {}: {problem}", path.display())]
    File {
        /// The path.
        path: PathBuf,
        /// The error of the system or of the file's format.
        problem: String,
    },
    /// A record is no change of a broker: the file is corrupt.
    #[error("the store {} is corrupt: {problem}", path.display())]
    Record {
        /// The path.
        path: PathBuf,
        /// The error of the decoder.
        problem: BadChange,
    },
    /// The records do not make a broker, or the configuration is invalid.
    #[error("the broker of the store {}: {problem}", path.display())]
    Restore {
        /// The path.
        path: PathBuf,
        /// The reason.
        problem: RestoreError,
    },
    /// The file is of a later version of this crate.
    #[error("the store {} has the format {found}, but at most {known} is known", path.display())]
    Format {
        /// The path.
        path: PathBuf,
        /// The format of the file.
        found: u64,
        /// The latest format of this version.
        known: u64,
    },
    /// The thread that writes could not be started, or has panicked.
    #[error("the thread of the store: {0}")]
    Thread(io::Error),
}

impl<R: Runtime> LocalBroker<R> {
    /// Opens a broker with its durable state in a file, which is created if it does not exist. The
    /// state is that of the last broker on this file, as after a restart of RabbitMQ: see
    /// [`Broker::restore`].
    ///
    /// Users and virtual hosts that were changed at run time precede those of the configuration; its
    /// others are added, even if they were deleted. Passwords are in the file as salted hashes, but
    /// as they are without the feature `definitions` of `amqp-broker`.
    ///
    /// A thread writes changes in batches, beside the broker. Confirms of messages that are kept,
    /// and `tx.commit-ok`, are sent after their batch is on the disk, so that they hold even if the
    /// process is killed. If the disk is slower than clients, they are paused:
    /// [`Limits::journal`](amqp_broker::Limits::journal). The file grows up to the most that was
    /// ever in it at once, and is compacted when it is opened. Without
    /// [`Config::epoch`](amqp_broker::Config::epoch), the time of day is that of the system.
    ///
    /// Dropping the last clone and connection stops the broker, waits until everything is written,
    /// and closes the file. The calling thread waits for the disk, here and there.
    ///
    /// # Errors
    /// If the file cannot be opened, is corrupt, or is open already, or the configuration is
    /// invalid.
    pub fn open_on(runtime: R, path: impl AsRef<Path>, config: Config) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let clock = runtime.clock();
        let now = clock.now();
        let config = with_time_of_day(config, now).journal(true);
        let (file, changes) = StoreFile::open(path)?;
        let broker =
            Broker::restore(config, now, changes).map_err(|problem| StoreError::Restore {
                path: path.into(),
                problem,
            })?;
        let shared = Arc::new(Shared::new(broker));
        let guard = Writer::start(Arc::clone(&shared), file).map_err(StoreError::Thread)?;
        let shared = SharedBroker::with_store(shared, guard);
        Ok(Self::from_parts(shared, runtime, clock))
    }

    /// Waits until all changes so far are on the disk. Ready at once for a broker without a store.
    ///
    /// # Cancel safety
    /// Dropping the future ends the wait.
    ///
    /// # Errors
    /// The failure of the store. It has stopped the broker.
    pub async fn stored(&self) -> Result<(), Arc<StoreError>> {
        let last = self.with(|broker| broker.last_change());
        let mut error = None;
        let done = self.shared.watch(|state| {
            error.clone_from(&state.store_error);
            error.is_some() || state.broker.last_stored() >= last
        });
        done.await;
        error.map_or(Ok(()), Err)
    }
}

impl<R: Runtime + Default> LocalBroker<R> {
    /// As [`open_on`](Self::open_on), on the default runtime.
    ///
    /// # Errors
    /// As [`open_on`](Self::open_on).
    pub fn open(path: impl AsRef<Path>, config: Config) -> Result<Self, StoreError> {
        Self::open_on(R::default(), path, config)
    }
}
