//! The rows of the tables: reading them, and the checksum of a message.

use std::{collections::BTreeMap, time::Duration};

use amqp_core::EncodedProperties;
use bytes::Bytes;
use rusqlite::{Connection, params};
use sha2::{Digest as _, Sha256};

use super::Fault;
use crate::{
    MessageId, PeerName,
    storage::{Stored, StoredClock, StoredMessage, WallTime},
};

const MESSAGES: &str =
    "SELECT receiver, sequence, id, expires_at, parts, checksum, properties, body,
    number FROM messages ORDER BY receiver, sequence";
const PARTS_LEN: &str = "SELECT count(*), sum(length(body)) FROM parts WHERE message = ?1";
const PARTS: &str = "SELECT body FROM parts WHERE message = ?1 ORDER BY part";
const ACCEPTED: &str =
    "SELECT sender, position, id, checksum FROM accepted ORDER BY sender, position";
const CLOCKS: &str = "SELECT name, disconnected, since, checksum FROM clocks";

/// The bytes of a duration: seconds and nanoseconds.
type DurationBytes = [u8; 12];

/// The columns of a message that its checksum covers, together with the body.
pub(super) struct Row<'a> {
    pub(super) receiver: &'a str,
    pub(super) sequence: i64,
    pub(super) id: &'a [u8; 16],
    pub(super) expires_at: Option<DurationBytes>,
    pub(super) properties: &'a [u8],
}

impl Row<'_> {
    pub(super) fn checksum<'b>(&self, body: impl Iterator<Item = &'b [u8]>) -> [u8; 8] {
        let mut checksum = Checksum::default()
            .field(self.receiver.as_bytes())
            .field(&self.sequence.to_be_bytes())
            .field(self.id)
            .optional(self.expires_at)
            .field(self.properties);
        body.for_each(|piece| checksum.0.update(piece));
        checksum.end()
    }
}

pub(super) fn checksum_of_accepted(sender: &str, position: i64, id: &[u8; 16]) -> [u8; 8] {
    Checksum::default()
        .field(sender.as_bytes())
        .field(&position.to_be_bytes())
        .field(id)
        .end()
}

pub(super) fn checksum_of_clock(
    name: &str,
    disconnected: DurationBytes,
    since: Option<DurationBytes>,
) -> [u8; 8] {
    Checksum::default()
        .field(name.as_bytes())
        .field(&disconnected)
        .optional(since)
        .end()
}

/// The beginning of the SHA-256 of the columns of a row.
#[derive(Default)]
struct Checksum(Sha256);

impl Checksum {
    /// Adds a column after its length, so that no bytes move unseen to the next column.
    fn field(mut self, bytes: &[u8]) -> Self {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
        self
    }

    fn optional(self, bytes: Option<DurationBytes>) -> Self {
        self.field(bytes.as_ref().map_or(&[][..], |bytes| &bytes[..]))
    }

    fn end(self) -> [u8; 8] {
        let digest: [u8; 32] = self.0.finalize().into();
        let [a, b, c, d, e, f, g, h, ..] = digest;
        [a, b, c, d, e, f, g, h]
    }
}

/// Reads all that is stored.
pub(super) fn load(connection: &Connection) -> Result<Stored, Fault> {
    // One state of all tables.
    let transaction = connection.unchecked_transaction()?;
    let stored = Stored {
        outbox: messages(&transaction)?,
        accepted: accepted(&transaction)?,
        clocks: clocks(&transaction)?,
    };
    transaction.finish()?;
    Ok(stored)
}

fn messages(
    connection: &Connection,
) -> Result<BTreeMap<PeerName, Vec<(u64, StoredMessage)>>, Fault> {
    let mut groups = Groups::default();
    let mut statement = connection.prepare(MESSAGES)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let receiver = text(row.get_ref(0)?)?;
        let sequence: i64 = row.get(1)?;
        let id: [u8; 16] = row.get(2)?;
        let expires_at: Option<DurationBytes> = row.get(3)?;
        let parts: i64 = row.get(4)?;
        let checksum: [u8; 8] = row.get(5)?;
        let properties = blob(row.get_ref(6)?)?;
        let body = if parts == 0 {
            Bytes::copy_from_slice(blob(row.get_ref(7)?)?)
        } else {
            join(connection, row.get(8)?, parts)?
        };
        let columns = Row {
            receiver,
            sequence,
            id: &id,
            expires_at,
            properties,
        };
        if columns.checksum([&body[..]].into_iter()) != checksum {
            let text = format!("message {sequence} to {receiver:?} is altered");
            return Err(Fault::damaged(text));
        }
        let properties = EncodedProperties::new(Bytes::copy_from_slice(properties));
        let stored = StoredMessage {
            id: MessageId::from_bytes(id),
            body: body.into(),
            properties: properties.map_err(Fault::damaged)?,
            expires_at: expires_at.map(from_duration).transpose()?,
        };
        groups.push(receiver, sequence, stored)?;
    }
    Ok(groups.end())
}

/// Joins the parts of a body.
fn join(connection: &Connection, message: i64, parts: i64) -> Result<Bytes, Fault> {
    let mut statement = connection.prepare_cached(PARTS_LEN)?;
    let (count, len) = statement.query_row(params![message], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, Option<i64>>(1)?))
    })?;
    if count != parts {
        let text = format!("a body has {count} of {parts} parts");
        return Err(Fault::damaged(text));
    }
    // The length of the parts in the file.
    let len = usize::try_from(len.unwrap_or(0)).map_err(Fault::damaged)?;
    let mut body = Vec::with_capacity(len);
    let mut statement = connection.prepare_cached(PARTS)?;
    let mut rows = statement.query(params![message])?;
    while let Some(row) = rows.next()? {
        body.extend_from_slice(blob(row.get_ref(0)?)?);
    }
    Ok(body.into())
}

fn accepted(connection: &Connection) -> Result<BTreeMap<PeerName, Vec<(u64, MessageId)>>, Fault> {
    let mut groups = Groups::default();
    let mut statement = connection.prepare(ACCEPTED)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let (sender, position) = (text(row.get_ref(0)?)?, row.get(1)?);
        let id: [u8; 16] = row.get(2)?;
        if checksum_of_accepted(sender, position, &id) != row.get::<_, [u8; 8]>(3)? {
            let text = format!("position {position} of {sender:?} is altered");
            return Err(Fault::damaged(text));
        }
        groups.push(sender, position, MessageId::from_bytes(id))?;
    }
    Ok(groups.end())
}

fn clocks(connection: &Connection) -> Result<BTreeMap<PeerName, StoredClock>, Fault> {
    let mut clocks = BTreeMap::new();
    let mut statement = connection.prepare(CLOCKS)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let receiver = text(row.get_ref(0)?)?;
        let disconnected: DurationBytes = row.get(1)?;
        let since: Option<DurationBytes> = row.get(2)?;
        if checksum_of_clock(receiver, disconnected, since) != row.get::<_, [u8; 8]>(3)? {
            let text = format!("the clock of {receiver:?} is altered");
            return Err(Fault::damaged(text));
        }
        let clock = StoredClock {
            disconnected: from_duration(disconnected)?,
            since: since.map(from_wall_time).transpose()?,
        };
        clocks.insert(name(receiver)?, clock);
    }
    Ok(clocks)
}

/// Rows by name. Those of one name follow each other.
struct Groups<T> {
    done: BTreeMap<PeerName, Vec<(u64, T)>>,
    last: Option<(PeerName, Vec<(u64, T)>)>,
}

impl<T> Default for Groups<T> {
    fn default() -> Self {
        Self {
            done: BTreeMap::new(),
            last: None,
        }
    }
}

impl<T> Groups<T> {
    fn push(&mut self, group: &str, number: i64, item: T) -> Result<(), Fault> {
        let number = u64::try_from(number).map_err(Fault::damaged)?;
        match &mut self.last {
            Some((name, items)) if name.as_str() == group => items.push((number, item)),
            last => {
                let next = (name(group)?, vec![(number, item)]);
                self.done.extend(last.replace(next));
            }
        }
        Ok(())
    }

    fn end(mut self) -> BTreeMap<PeerName, Vec<(u64, T)>> {
        self.done.extend(self.last);
        self.done
    }
}

fn name(name: &str) -> Result<PeerName, Fault> {
    PeerName::new(name).map_err(Fault::damaged)
}

fn text(value: rusqlite::types::ValueRef<'_>) -> Result<&str, Fault> {
    value.as_str().map_err(Fault::damaged)
}

fn blob(value: rusqlite::types::ValueRef<'_>) -> Result<&[u8], Fault> {
    value.as_blob().map_err(Fault::damaged)
}

pub(super) fn duration(duration: Duration) -> DurationBytes {
    let mut bytes = [0; 12];
    let (seconds, nanoseconds) = bytes.split_at_mut(8);
    seconds.copy_from_slice(&duration.as_secs().to_be_bytes());
    nanoseconds.copy_from_slice(&duration.subsec_nanos().to_be_bytes());
    bytes
}

fn from_duration(bytes: DurationBytes) -> Result<Duration, Fault> {
    let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes;
    let seconds = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let nanoseconds = u32::from_be_bytes([i, j, k, l]);
    if nanoseconds >= 1_000_000_000 {
        return Err(Fault::damaged("a duration has too many nanoseconds"));
    }
    Ok(Duration::new(seconds, nanoseconds))
}

pub(super) fn wall_time(time: WallTime) -> DurationBytes {
    duration(time.0)
}

fn from_wall_time(bytes: DurationBytes) -> Result<WallTime, Fault> {
    from_duration(bytes).map(WallTime)
}
