//! The changes, as statements of a transaction.

use std::iter;

use amqp_core::Body;
use bytes::{Buf as _, Bytes};
use rusqlite::{Transaction, params};

use super::{
    Fault,
    rows::{Row, checksum_of_accepted, checksum_of_clock, duration, wall_time},
};
use crate::{
    PeerName,
    storage::{Change, StorageErrorKind, StoredMessage},
};

/// The size of the parts of a body, in bytes. A body of at most one part is in the message's row.
const PART: usize = 1 << 20;

const PUSH: &str = "INSERT INTO messages
    (receiver, sequence, id, expires_at, parts, checksum, properties, body)
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)
    ON CONFLICT (receiver, sequence) DO NOTHING";
const PUSH_PART: &str = "INSERT INTO parts (message, part, body) VALUES (?1, ?2, ?3)";
const REMOVE: &str = "DELETE FROM messages WHERE receiver = ?1 AND sequence = ?2";
const REMOVE_TO: &str = "DELETE FROM messages WHERE receiver = ?1 AND sequence <= ?2";
const CLEAR: &str = "DELETE FROM messages WHERE receiver = ?1";
const CLEAR_CLOCK: &str = "DELETE FROM clocks WHERE name = ?1";
const ACCEPT: &str = "INSERT OR REPLACE INTO accepted (sender, position, id, checksum)
    VALUES (?1, ?2, ?3, ?4)";
const FORGET: &str = "DELETE FROM accepted WHERE sender = ?1 AND position < ?2";
const SET_CLOCK: &str = "INSERT OR REPLACE INTO clocks (name, disconnected, since, checksum)
    VALUES (?1, ?2, ?3, ?4)";

/// Applies a change. Returns whether it has removed messages.
pub(super) fn apply(transaction: &Transaction<'_>, change: &Change) -> Result<bool, Fault> {
    let removed = match change {
        Change::Pushed {
            to,
            sequence,
            message,
        } => {
            push(transaction, to, number(*sequence)?, message)?;
            0
        }
        Change::Removed { to, sequence } => {
            let parameters = params![to.as_str(), number(*sequence)?];
            transaction.prepare_cached(REMOVE)?.execute(parameters)?
        }
        Change::RemovedTo { to, up_to } => {
            let parameters = params![to.as_str(), number(*up_to)?];
            transaction.prepare_cached(REMOVE_TO)?.execute(parameters)?
        }
        Change::Cleared { to } => {
            let parameters = params![to.as_str()];
            transaction
                .prepare_cached(CLEAR_CLOCK)?
                .execute(parameters)?;
            transaction.prepare_cached(CLEAR)?.execute(parameters)?
        }
        Change::Accepted { from, id, position } => {
            let (from, position, id) = (from.as_str(), number(*position)?, id.as_bytes());
            let checksum = checksum_of_accepted(from, position, id);
            let parameters = params![from, position, id, checksum];
            transaction.prepare_cached(ACCEPT)?.execute(parameters)?;
            0
        }
        Change::Forgotten { from, below } => {
            let parameters = params![from.as_str(), number(*below)?];
            transaction.prepare_cached(FORGET)?.execute(parameters)?;
            0
        }
        Change::Clock {
            name,
            disconnected,
            since,
        } => {
            let (disconnected, since) = (duration(*disconnected), since.map(wall_time));
            let checksum = checksum_of_clock(name.as_str(), disconnected, since);
            let parameters = params![name.as_str(), disconnected, since, checksum];
            transaction.prepare_cached(SET_CLOCK)?.execute(parameters)?;
            0
        }
    };
    Ok(removed > 0)
}

fn push(
    transaction: &Transaction<'_>,
    to: &PeerName,
    sequence: i64,
    stored: &StoredMessage,
) -> Result<(), Fault> {
    let body = &stored.body;
    let parts = if body.len() > PART {
        body.len().div_ceil(PART)
    } else {
        0
    };
    let inline = if parts > 0 {
        Bytes::new()
    } else {
        // Without a copy, if it is in one piece.
        body.clone().into_bytes()
    };
    let row = Row {
        receiver: to.as_str(),
        sequence,
        id: stored.id.as_bytes(),
        expires_at: stored.expires_at.map(duration),
        properties: stored.properties.as_bytes(),
    };
    let checksum = row.checksum(body.pieces().map(|piece| &piece[..]));
    let parameters = params![
        row.receiver,
        row.sequence,
        row.id,
        row.expires_at,
        i64::try_from(parts).unwrap_or(i64::MAX),
        checksum,
        row.properties,
        &inline[..],
    ];
    let mut insert = transaction.prepare_cached(PUSH)?;
    if insert.execute(parameters)? == 0 {
        // A message of this sequence is there, perhaps with parts.
        let mut remove = transaction.prepare_cached(REMOVE)?;
        remove.execute(params![row.receiver, row.sequence])?;
        insert.execute(parameters)?;
    }
    if parts > 0 {
        let message = transaction.last_insert_rowid();
        let mut insert = transaction.prepare_cached(PUSH_PART)?;
        for (part, bytes) in (0_i64..).zip(split(body)) {
            insert.execute(params![message, part, &bytes[..]])?;
        }
    }
    Ok(())
}

/// The parts of a body.
fn split(body: &Body) -> impl Iterator<Item = Bytes> {
    let mut rest = body.clone();
    iter::from_fn(move || {
        let len = rest.remaining().min(PART);
        (len > 0).then(|| rest.copy_to_bytes(len))
    })
}

fn number(number: u64) -> Result<i64, Fault> {
    i64::try_from(number).map_err(|error| Fault::new(StorageErrorKind::Misuse, error))
}
