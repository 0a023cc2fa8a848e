//! The tables of the file, and whether a file is one of this crate.

use rusqlite::{Connection, Transaction};

use super::{super::StorageErrorKind, Fault};

/// `amqp` in ASCII: the mark of a file of this crate
/// (<https://www.sqlite.org/pragma.html#pragma_application_id>).
const APPLICATION: i32 = i32::from_be_bytes(*b"amqp");

/// The version of the tables, and of the bytes in them.
const VERSION: u32 = 1;

/// The tables by name, in the words that SQLite keeps.
///
/// A duration has 8 bytes of seconds and 4 of nanoseconds. The properties are in the wire format of
/// AMQP. A body of more than one part is in `parts`, and empty in `messages`. The checksums find
/// damage within a value, which SQLite does not see.
const TABLES: [(&str, &str); 4] = [
    (
        "accepted",
        "CREATE TABLE accepted (
    sender TEXT NOT NULL,
    position INTEGER NOT NULL,
    id BLOB NOT NULL,
    checksum BLOB NOT NULL,
    PRIMARY KEY (sender, position)
) STRICT, WITHOUT ROWID",
    ),
    (
        "clocks",
        "CREATE TABLE clocks (
    name TEXT NOT NULL PRIMARY KEY,
    disconnected BLOB NOT NULL,
    since BLOB,
    checksum BLOB NOT NULL
) STRICT, WITHOUT ROWID",
    ),
    (
        "messages",
        "CREATE TABLE messages (
    number INTEGER PRIMARY KEY,
    receiver TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    id BLOB NOT NULL,
    expires_at BLOB,
    parts INTEGER NOT NULL,
    checksum BLOB NOT NULL,
    properties BLOB NOT NULL,
    body BLOB NOT NULL,
    UNIQUE (receiver, sequence)
) STRICT",
    ),
    (
        "parts",
        "CREATE TABLE parts (
    message INTEGER NOT NULL REFERENCES messages ON DELETE CASCADE,
    part INTEGER NOT NULL,
    body BLOB NOT NULL,
    PRIMARY KEY (message, part)
) STRICT",
    ),
];

/// Checks that a file is one of this crate, and makes it one if it is new.
pub(super) fn check_or_create(transaction: &Transaction<'_>) -> Result<(), Fault> {
    let application: i32 =
        transaction.pragma_query_value(None, "application_id", |row| row.get(0))?;
    let version: u32 = transaction.pragma_query_value(None, "user_version", |row| {
        Ok(row.get::<_, i32>(0)?.cast_unsigned())
    })?;
    let found = tables(transaction)?;
    if (application, version) == (0, 0) && found.is_empty() {
        for (_, sql) in TABLES {
            transaction.execute_batch(sql)?;
        }
        transaction.pragma_update(None, "user_version", VERSION)?;
        transaction.pragma_update(None, "application_id", APPLICATION)?;
        return Ok(());
    }
    if application != APPLICATION {
        let text = "it is a database of another program";
        return Err(Fault::new(StorageErrorKind::Foreign, text));
    }
    if version > VERSION {
        let kind = StorageErrorKind::Version {
            found: version,
            known: VERSION,
        };
        return Err(Fault::new(
            kind,
            "a later version of this crate has written it",
        ));
    }
    let known = TABLES.map(|(name, sql)| (name.to_owned(), sql.to_owned()));
    if version != VERSION || found != known {
        return Err(Fault::damaged("its tables are not those of its version"));
    }
    Ok(())
}

/// The definitions in the file, by name, without indexes that come with a table.
fn tables(connection: &Connection) -> Result<Vec<(String, String)>, Fault> {
    let sql = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name";
    let mut statement = connection.prepare(sql)?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// Reads the whole file, to find damage (<https://www.sqlite.org/pragma.html#pragma_integrity_check>).
pub(super) fn check_integrity(connection: &Connection) -> Result<(), Fault> {
    let first: String = connection.pragma_query_value(None, "integrity_check", |row| row.get(0))?;
    if first == "ok" {
        Ok(())
    } else {
        Err(Fault::damaged(first.trim().replace('\n', ": ")))
    }
}
