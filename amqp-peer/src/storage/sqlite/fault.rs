//! The errors of SQLite, by kind.

use std::{
    error::Error,
    fs::OpenOptions,
    io::{self, ErrorKind},
    path::Path,
};

use rusqlite::{Error as SqlError, ErrorCode, ffi};

use super::super::{StorageError, StorageErrorKind};

/// A failure, before the path is added.
#[derive(Debug)]
pub(super) struct Fault {
    error: StorageError,
    /// Whether SQLite could not open the file, and did not say why.
    cannot_open: bool,
}

impl Fault {
    pub(super) fn new(
        kind: StorageErrorKind,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self {
            error: StorageError::new(kind, cause),
            cannot_open: false,
        }
    }

    pub(super) fn damaged(cause: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::new(StorageErrorKind::Damaged, cause)
    }

    pub(super) fn io(error: io::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
                StorageErrorKind::ReadOnly
            }
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => StorageErrorKind::Full,
            _ => StorageErrorKind::Io,
        };
        Self::new(kind, error)
    }

    pub(super) const fn kind(&self) -> StorageErrorKind {
        self.error.kind()
    }

    pub(super) fn at(self, path: &Path) -> StorageError {
        self.error.at(path)
    }

    /// The error of opening a file: if it does not exist and could not be created, with the reason
    /// of the system.
    pub(super) fn at_opening(self, path: &Path) -> StorageError {
        if self.cannot_open
            && !path.exists()
            && let Err(error) = OpenOptions::new().write(true).create_new(true).open(path)
        {
            return Self::io(error).at(path);
        }
        self.at(path)
    }
}

impl From<SqlError> for Fault {
    fn from(error: SqlError) -> Self {
        let kind = match &error {
            SqlError::SqliteFailure(failure, _) => kind_of(*failure),
            SqlError::SqlInputError { error: failure, .. } => kind_of(*failure),
            SqlError::FromSqlConversionFailure(..)
            | SqlError::IntegralValueOutOfRange(..)
            | SqlError::InvalidColumnType(..)
            | SqlError::Utf8Error(..)
            | SqlError::QueryReturnedNoRows => StorageErrorKind::Damaged,
            _ => StorageErrorKind::Io,
        };
        let cannot_open = error.sqlite_error_code() == Some(ErrorCode::CannotOpen);
        Self {
            error: StorageError::new(kind, error),
            cannot_open,
        }
    }
}

/// The kind of a result code (<https://www.sqlite.org/rescode.html>).
const fn kind_of(failure: ffi::Error) -> StorageErrorKind {
    match (failure.code, failure.extended_code) {
        // The file was moved or removed while it was open.
        (_, ffi::SQLITE_READONLY_DBMOVED) => StorageErrorKind::Io,
        (
            _,
            ffi::SQLITE_IOERR_SHORT_READ | ffi::SQLITE_IOERR_CORRUPTFS | ffi::SQLITE_IOERR_DATA,
        ) => StorageErrorKind::Damaged,
        (ErrorCode::DiskFull, _) => StorageErrorKind::Full,
        (ErrorCode::ReadOnly | ErrorCode::PermissionDenied, _) => StorageErrorKind::ReadOnly,
        (ErrorCode::NotADatabase, _) => StorageErrorKind::Foreign,
        (
            ErrorCode::DatabaseCorrupt | ErrorCode::ConstraintViolation | ErrorCode::TypeMismatch,
            _,
        ) => StorageErrorKind::Damaged,
        (
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::FileLockingProtocolFailed,
            _,
        ) => StorageErrorKind::Locked,
        _ => StorageErrorKind::Io,
    }
}
