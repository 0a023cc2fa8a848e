//! The failures of storages, by kind.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

/// A failure of a storage: its kind, the file, and the cause.
///
/// Only [`Io`](StorageErrorKind::Io) leaves open whether the changes of a batch are stored: all of
/// them or none.
#[derive(Debug)]
pub struct StorageError {
    kind: StorageErrorKind,
    path: Option<PathBuf>,
    cause: Box<dyn Error + Send + Sync>,
}

/// The kind of a failure of a storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StorageErrorKind {
    /// There is no room: the disk is full, or a quota or the storage's own limit is reached.
    Full,
    /// The file, its folder or its file system cannot be written.
    ReadOnly,
    /// Data are missing or altered. Nothing is written to such a storage.
    Damaged,
    /// The file is no storage of messages: a database of another program, or no database at all.
    /// It is left as it is.
    Foreign,
    /// The storage is open already, in this process or another one.
    Locked,
    /// The data are of a later version of this crate.
    Version {
        /// The version of the data.
        found: u32,
        /// The latest version that is known.
        known: u32,
    },
    /// Reading or writing failed in another way.
    Io,
    /// A change that no storage takes: a sequence or a position beyond
    /// [`MAX_SEQUENCE`](super::MAX_SEQUENCE).
    Misuse,
}

impl StorageError {
    /// Creates an error from its kind and its cause, for a storage of another kind.
    pub fn new(kind: StorageErrorKind, cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            kind,
            path: None,
            cause: cause.into(),
        }
    }

    /// Adds the path of the file.
    #[must_use]
    pub fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.path = Some(path.into());
        self
    }

    /// Returns the kind.
    #[must_use]
    pub const fn kind(&self) -> StorageErrorKind {
        self.kind
    }

    /// Returns the path of the file. `Some` if the storage is a file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }
}

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the storage")?;
        if let Some(path) = &self.path {
            write!(f, " {}", path.display())?;
        }
        write!(f, " {}: {}", self.kind, self.cause)
    }
}

impl fmt::Display for StorageErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => f.write_str("is full"),
            Self::ReadOnly => f.write_str("is read-only"),
            Self::Damaged => f.write_str("is damaged"),
            Self::Foreign => f.write_str("is no storage of messages"),
            Self::Locked => f.write_str("is open already"),
            Self::Version { found, known } => {
                write!(f, "has the version {found}, but at most {known} is known")
            }
            Self::Io => f.write_str("cannot be read or written"),
            Self::Misuse => f.write_str("does not take a change"),
        }
    }
}

impl Error for StorageError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}
