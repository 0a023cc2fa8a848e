//! A storage in a file of SQLite.

mod fault;
mod rows;
mod schema;
mod write;

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    io,
    path::{self, Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};

use self::fault::Fault;
use super::{Change, Storage, StorageError, StorageErrorKind, Stored, check};

/// The attempts at opening a file that is open, in case it is being opened or closed elsewhere.
/// Several that open it at once keep each other out until all but one have let go.
const ATTEMPTS: u32 = 32;

/// The longest time between two attempts. The times are drawn, so that two do not stay in step.
const PAUSE: Duration = Duration::from_millis(8);

/// The memory for pages, in KiB. All is read once; then follow appends, and removals by key.
const CACHE_KIB: i64 = 8 << 10;

/// The size to which the log is cut after a larger batch, in bytes: that at which SQLite moves it
/// into the file (<https://www.sqlite.org/wal.html#ckpt>).
const LOG_SIZE: i64 = 4 << 20;

/// The most pages of a file (<https://www.sqlite.org/limits.html>).
const MAX_PAGES: u64 = 0xffff_fffe;

/// The free space in the file from which the file is made smaller, in bytes.
const SHRINK_FROM: u64 = 16 << 20;

/// The most that is copied to make the file smaller after a batch, in bytes.
const SHRINK_COPIES: u64 = 16 << 20;

/// A storage in a file of SQLite, which is compiled into the program.
///
/// A batch is one transaction, in the write-ahead log beside the file (`-wal`), and on the disk
/// when [`apply`](Storage::apply) returns (`synchronous=FULL`). A body of more than 1 MiB is in
/// parts, so that neither writing nor reading needs a copy of it at once. A checksum per row
/// finds damage that SQLite does not. The file shrinks once most of it is free.
///
/// A file is open at most once at a time, in all processes. Both files belong together: a copy of
/// one without the other may lack the last batches, unless the storage was dropped before.
///
/// ```
/// use amqp_peer::storage::{SqliteStorage, Storage};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("bob.sqlite");
/// let mut storage = SqliteStorage::open(&path)?;
/// assert!(storage.load()?.outbox.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct SqliteStorage {
    path: PathBuf,
    connection: Connection,
    /// Whether damage was found. Nothing is written then.
    is_damaged: bool,
}

impl SqliteStorage {
    /// Opens a file, and creates it if it does not exist or is empty. The whole file is read, to
    /// find damage. The thread waits for the disk, here and at each call.
    ///
    /// # Errors
    /// - [`StorageErrorKind::Locked`] if it is open already, here or in another process;
    /// - [`StorageErrorKind::ReadOnly`] if the file or its folder cannot be written;
    /// - [`StorageErrorKind::Full`] if there is no room to create it;
    /// - [`StorageErrorKind::Foreign`] for a database of another program, or a file that is none:
    ///   such a file stays as it is;
    /// - [`StorageErrorKind::Version`] for a file of a later version of this crate;
    /// - [`StorageErrorKind::Damaged`] if parts of it are missing or overwritten, or there is a
    ///   write-ahead log without its file: both files stay as they are;
    /// - [`StorageErrorKind::Io`] if the folder does not exist, or the system fails.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StorageError> {
        let given = path.as_ref();
        // SQLite gives a sense of their own to names such as `:memory:` and `file:a?mode=ro`.
        let path = path::absolute(given)
            .map_err(|error| StorageError::new(StorageErrorKind::Io, error).at(given))?;
        let mut attempts = 1;
        loop {
            match Self::try_open(&path) {
                Err(fault) if fault.kind() == StorageErrorKind::Locked && attempts < ATTEMPTS => {
                    attempts += 1;
                    thread::sleep(drawn_below(PAUSE));
                }
                opened => return opened.map_err(|fault| fault.at_opening(&path)),
            }
        }
    }

    fn try_open(path: &Path) -> Result<Self, Fault> {
        check_log(path)?;
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(path, flags)?;
        if connection.is_readonly("main")? {
            let text = "the file or its file system cannot be written";
            return Err(Fault::new(StorageErrorKind::ReadOnly, text));
        }
        // What is locked is let go at once: to wait while holding a lock would keep others out.
        connection.busy_timeout(Duration::ZERO)?;
        // Neither a foreign nor a damaged file is written, not even by closing it.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // From before the first access on, so that no memory is shared with other processes
        // (<https://www.sqlite.org/wal.html#noshm>).
        set(&connection, "locking_mode", "exclusive")?;
        set(&connection, "synchronous", "full")?;
        set(&connection, "fullfsync", true)?;
        set(&connection, "foreign_keys", true)?;
        set(&connection, "cell_size_check", true)?;
        set(&connection, "cache_size", -CACHE_KIB)?;
        set(&connection, "journal_size_limit", LOG_SIZE)?;
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        schema::check_or_create(&transaction)?;
        transaction.commit()?;
        // After the tables exist: a log beside an empty file would be lost.
        let mode: String =
            connection.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        if mode != "wal" {
            return Err(Fault::new(
                StorageErrorKind::Io,
                format!("the file system has no write-ahead log, but {mode}"),
            ));
        }
        schema::check_integrity(&connection)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
        let storage = Self {
            path: path.into(),
            connection,
            is_damaged: false,
        };
        storage.shrink(u64::MAX)?;
        Ok(storage)
    }

    /// Returns the absolute path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Limits the size of the file, in bytes, rounded down to whole pages; the write-ahead log comes
    /// on top. A batch that needs more fails with [`StorageErrorKind::Full`]. The file stays as it
    /// is if it is larger, and grows no more. `None` is the default: no limit but that of SQLite,
    /// 16 TiB.
    ///
    /// # Errors
    /// As [`apply`](Storage::apply).
    pub fn limit(&mut self, bytes: Option<u64>) -> Result<(), StorageError> {
        let set = || {
            let page: u64 = self.count("PRAGMA page_size")?;
            let pages = bytes.map_or(MAX_PAGES, |bytes| (bytes / page).clamp(1, MAX_PAGES));
            let pages = i64::try_from(pages).unwrap_or(i64::MAX);
            set(&self.connection, "max_page_count", pages)
        };
        set().map_err(|fault| fault.at(&self.path))
    }

    /// Makes the file smaller, if most of it is free, by copying at most `most` bytes.
    fn shrink(&self, most: u64) -> Result<(), Fault> {
        let free = self.count("PRAGMA freelist_count")?;
        if free == 0 {
            return Ok(());
        }
        let page = self.count("PRAGMA page_size")?;
        let used = self.count("PRAGMA page_count")?.saturating_sub(free);
        if free * page < SHRINK_FROM || used * page > most || used > free / 4 {
            return Ok(());
        }
        // Without room for the copy, the file stays as large as it is.
        let done = self
            .connection
            .execute_batch("VACUUM; PRAGMA wal_checkpoint(TRUNCATE)");
        match done.map_err(Fault::from) {
            Err(fault) if fault.kind() == StorageErrorKind::Damaged => Err(fault),
            _ => Ok(()),
        }
    }

    fn count(&self, sql: &str) -> Result<u64, Fault> {
        let mut statement = self.connection.prepare_cached(sql)?;
        let count: i64 = statement.query_row([], |row| row.get(0))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Notes damage: from then on nothing is written.
    fn noted<T>(&mut self, result: Result<T, Fault>) -> Result<T, StorageError> {
        result.map_err(|fault| {
            if fault.kind() == StorageErrorKind::Damaged && !self.is_damaged {
                self.is_damaged = true;
                let no_checkpoint = DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE;
                let _unknown = self.connection.set_db_config(no_checkpoint, true);
            }
            fault.at(&self.path)
        })
    }

    fn try_apply(&mut self, changes: &[Change]) -> Result<(), Fault> {
        if self.is_damaged {
            let text = "damage was found before";
            return Err(Fault::new(StorageErrorKind::Damaged, text));
        }
        let behavior = TransactionBehavior::Immediate;
        let transaction = self.connection.transaction_with_behavior(behavior)?;
        let mut has_removed = false;
        for change in changes {
            has_removed |= write::apply(&transaction, change)?;
        }
        transaction.commit()?;
        if has_removed {
            self.shrink(SHRINK_COPIES)?;
        }
        Ok(())
    }
}

impl fmt::Debug for SqliteStorage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStorage")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Storage for SqliteStorage {
    fn load(&mut self) -> Result<Stored, StorageError> {
        let loaded = rows::load(&self.connection);
        self.noted(loaded)
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        check(changes).map_err(|error| error.at(&self.path))?;
        if changes.is_empty() {
            return Ok(());
        }
        let applied = self.try_apply(changes);
        self.noted(applied)
    }
}

/// Returns a random time below a limit.
fn drawn_below(limit: Duration) -> Duration {
    let nanos = u64::try_from(limit.as_nanos()).unwrap_or(u64::MAX);
    let drawn = RandomState::new().hash_one(thread::current().id());
    Duration::from_nanos(drawn % nanos.max(1))
}

/// Sets a pragma. Some answer with a row, others with none.
fn set(connection: &Connection, name: &str, value: impl rusqlite::ToSql) -> Result<(), Fault> {
    Ok(connection.pragma_update(None, name, value)?)
}

/// Checks that there is no log without its file: SQLite would delete it.
fn check_log(path: &Path) -> Result<(), Fault> {
    let size = |path: &Path| match std::fs::metadata(path) {
        Ok(file) => Ok(file.len()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(Fault::io(error)),
    };
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    // SQLite takes a file of one byte for an empty one.
    if size(path)? <= 1 && size(Path::new(&log))? > 0 {
        return Err(Fault::new(
            StorageErrorKind::Damaged,
            "it is missing or empty, but its write-ahead log is there",
        ));
    }
    Ok(())
}
