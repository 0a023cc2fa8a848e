//! Storages: where persistent messages outlive the process.
//!
//! A peer has what it must not lose in a [`Storage`]: the persistent messages in its outboxes, the
//! identifiers of those that it has accepted, and the clocks of the time to live. It reads a
//! storage once, at the start, and from then on gives it each [`Change`], in batches. What depends
//! on a batch, such as an acknowledgement to the sender, waits until the batch is stored.
//!
//! [`MemoryStorage`] is for tests. `SqliteStorage` is a file, with the feature `sqlite`. Another
//! storage implements the trait, and runs the suite [`conformance`] in its tests.

mod change;
pub mod conformance;
mod error;
mod memory;
#[cfg(feature = "sqlite")]
mod sqlite;

#[cfg(feature = "sqlite")]
pub use self::sqlite::SqliteStorage;
pub use self::{
    change::{Batch, BatchId, Change, Stored, StoredClock, StoredMessage, WallTime},
    error::{StorageError, StorageErrorKind},
    memory::MemoryStorage,
};

/// The maximum of sequences and positions: databases have signed integers.
pub const MAX_SEQUENCE: u64 = i64::MAX as u64;

/// A place for the persistent state of a peer.
///
/// # Changes
/// All changes can be applied again, with the same result: so that a batch of unknown outcome
/// can be repeated.
/// - A push of a sequence that is there replaces its message.
/// - A removal of an absent message does nothing. Neither does forgetting.
/// - [`Change::RemovedTo`] includes its sequence, [`Change::Forgotten`] excludes its position.
/// - Each change is about one name. [`Change::Cleared`] is about its messages and its clock, each of
///   the others about its messages, its clock or those accepted from it.
/// - Names differ by their bytes: `Bob` and `bob` are two peers.
///
/// The suite [`conformance`] checks this.
///
/// ```
/// use amqp_peer::{
///     Message, MessageId, PeerName,
///     storage::{Change, MemoryStorage, Storage, StoredMessage},
/// };
///
/// let mut storage = MemoryStorage::new();
/// let bob: PeerName = "bob".parse()?;
/// let message = StoredMessage {
///     id: MessageId::from_bytes([1; 16]),
///     body: "hello".into(),
///     properties: Message::default().persistent().to_wire(),
///     expires_at: None,
/// };
/// storage.apply(&[Change::Pushed { to: bob.clone(), sequence: 1, message }])?;
///
/// let stored = storage.load()?;
/// assert_eq!(stored.outbox[&bob][0].1.body, "hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Storage: Send + 'static {
    /// Returns all that is stored, in the order of sequences and positions. A peer calls it once,
    /// before anything else.
    ///
    /// # Errors
    /// If it cannot be read, or not completely: a storage that has lost something says so, and
    /// returns nothing in part.
    fn load(&mut self) -> Result<Stored, StorageError>;

    /// Applies all changes, in order. They are durable when the call returns: they outlive a kill
    /// of the process, and a failure of the power as far as the system lets them.
    ///
    /// # Errors
    /// None of the changes is applied then. After [`StorageErrorKind::Io`], it is open until the
    /// next load whether all of them or none are. [`StorageErrorKind::Misuse`] for a sequence or a
    /// position beyond [`MAX_SEQUENCE`].
    fn apply(&mut self, changes: &[Change]) -> Result<(), StorageError>;
}

impl<S: Storage + ?Sized> Storage for Box<S> {
    fn load(&mut self) -> Result<Stored, StorageError> {
        (**self).load()
    }

    fn apply(&mut self, changes: &[Change]) -> Result<(), StorageError> {
        (**self).apply(changes)
    }
}

/// Checks that no sequence or position is beyond [`MAX_SEQUENCE`].
///
/// # Errors
/// [`StorageErrorKind::Misuse`].
pub fn check(changes: &[Change]) -> Result<(), StorageError> {
    let beyond = changes.iter().find_map(|change| {
        let number = match change {
            Change::Pushed { sequence, .. } | Change::Removed { sequence, .. } => *sequence,
            Change::RemovedTo { up_to, .. } => *up_to,
            Change::Accepted { position, .. } => *position,
            Change::Forgotten { below, .. } => *below,
            Change::Clock { .. } | Change::Cleared { .. } => 0,
        };
        (number > MAX_SEQUENCE).then_some(number)
    });
    match beyond {
        None => Ok(()),
        Some(number) => Err(StorageError::new(
            StorageErrorKind::Misuse,
            format!("the number {number} is beyond {MAX_SEQUENCE}"),
        )),
    }
}
