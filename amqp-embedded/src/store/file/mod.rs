//! The file: tables of changes, by the entities that they are about.

#[cfg(test)]
mod tests;

use std::{
    fmt, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use amqp_broker::{BindingTarget, Change, DurableBinding};
use bytes::BytesMut;
use redb::{
    Database, DatabaseError, ReadableTable, StorageError, Table, TableDefinition, TableError,
    WriteTransaction,
};

use super::StoreError;

/// The version of the tables and of the bytes in them.
const FORMAT: u64 = 1;

/// The size from which a file is compacted, if most of it is free, in bytes.
const COMPACT_FROM: u64 = 4 << 20;

/// The cache of the file, in bytes. Reading is rare: the broker has everything in memory.
const CACHE: usize = 8 << 20;

type Bytes = &'static [u8];

/// The number of a queue, and of a message in it.
type MessageKey = (u64, u64);

/// A virtual host, a kind of settings in it, and a name of that kind.
type SettingKey = (&'static str, &'static str, &'static str);

/// A virtual host, the source of a binding in it, and its record.
type BindingKey = (&'static str, &'static str, Bytes);

/// A virtual host, the kind and the name of the destination of a binding in it, and its record.
type DestinationKey = (&'static str, u8, &'static str, Bytes);

const ABOUT: TableDefinition<'_, &str, u64> = TableDefinition::new("about");
/// `ExchangeDeclared`, by virtual host and name.
const EXCHANGES: TableDefinition<'_, (&str, &str), Bytes> = TableDefinition::new("exchanges");
/// `QueueDeclared`, by number.
const QUEUES: TableDefinition<'_, u64, Bytes> = TableDefinition::new("queues");
/// `Bound`, which is in the key, by virtual host and source.
const BINDINGS: TableDefinition<'_, BindingKey, ()> = TableDefinition::new("bindings");
/// The records of `bindings`, by virtual host and destination.
const DESTINATIONS: TableDefinition<'_, DestinationKey, ()> = TableDefinition::new("destinations");
/// `Enqueued`.
const MESSAGES: TableDefinition<'_, MessageKey, Bytes> = TableDefinition::new("messages");
/// The last `Delivered` or `Requeued` of a message.
const STATES: TableDefinition<'_, MessageKey, Bytes> = TableDefinition::new("states");

/// `SegmentBegun`, by the number of the queue and the first offset.
const SEGMENTS: TableDefinition<'_, MessageKey, Bytes> = TableDefinition::new("segments");
/// `Appended`, by the number of the queue and the offset.
const APPENDED: TableDefinition<'_, MessageKey, Bytes> = TableDefinition::new("appended");
/// `UserSet`, by name.
const USERS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("users");
/// `VhostSet`, by name.
const VHOSTS: TableDefinition<'_, &str, Bytes> = TableDefinition::new("vhosts");
/// `PolicySet`, by virtual host, kind and name.
const POLICIES: TableDefinition<'_, SettingKey, Bytes> = TableDefinition::new("policies");
/// `ParameterSet`, by virtual host, component and name.
const PARAMETERS: TableDefinition<'_, SettingKey, Bytes> = TableDefinition::new("parameters");
/// `GlobalParameterSet`, by name.
const GLOBAL_PARAMETERS: TableDefinition<'_, &str, Bytes> =
    TableDefinition::new("global parameters");

const FORMAT_KEY: &str = "format";

/// 1 if the last change is `Stopped`.
const STOPPED_KEY: &str = "stopped";

/// The file of a store.
pub(super) struct StoreFile {
    path: PathBuf,
    database: Database,
}

impl StoreFile {
    /// Opens or creates a file. Returns it with the changes that lead to its state.
    pub(super) fn open(path: &Path) -> Result<(Self, Vec<Change>), StoreError> {
        guarded(path, || Self::try_open(path))
    }

    fn try_open(path: &Path) -> Result<(Self, Vec<Change>), StoreError> {
        let opened = Database::builder()
            .set_cache_size(CACHE)
            .create_with_file_format_v3(true)
            .create(path);
        let database = opened.map_err(|error| match error {
            DatabaseError::DatabaseAlreadyOpen => StoreError::AlreadyOpen(path.into()),
            other => failed(path, other),
        })?;
        let mut file = Self {
            path: path.into(),
            database,
        };
        match file.format().map_err(|error| failed(path, error))? {
            Some(FORMAT) => {}
            Some(found) => {
                return Err(StoreError::Format {
                    path: path.into(),
                    found,
                    known: FORMAT,
                });
            }
            None => file.begin().map_err(|error| failed(path, error))?,
        }
        let records = file.records().map_err(|error| failed(path, error))?;
        let changes = records.iter().map(|record| Change::decode(record));
        let changes = changes.collect::<Result<Vec<Change>, _>>();
        let changes = changes.map_err(|problem| StoreError::Record {
            path: path.into(),
            problem,
        })?;
        file.compact().map_err(|error| failed(path, error))?;
        Ok((file, changes))
    }

    /// Reads the format of the file. `Some` unless the file is new: without tables.
    fn format(&self) -> Result<Option<u64>, Problem> {
        let read = self.database.begin_read()?;
        let is_new =
            read.list_tables()?.next().is_none() && read.list_multimap_tables()?.next().is_none();
        if is_new {
            return Ok(None);
        }
        let format = match read.open_table(ABOUT) {
            Err(TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. }) => None,
            about => about?.get(FORMAT_KEY)?.map(|format| format.value()),
        };
        let foreign = || Problem("it is no store, but a database of another program".into());
        format.map(Some).ok_or_else(foreign)
    }

    /// Creates the tables of a new file.
    fn begin(&self) -> Result<(), Problem> {
        let write = self.database.begin_write()?;
        Tables::open(&write)?.about.insert(FORMAT_KEY, FORMAT)?;
        write.commit()?;
        Ok(())
    }

    /// Reads all changes, in an order in which each follows those that it depends on.
    fn records(&self) -> Result<Vec<Vec<u8>>, Problem> {
        let read = self.database.begin_read()?;
        let mut records = Vec::new();
        for table in [VHOSTS, USERS, GLOBAL_PARAMETERS] {
            for entry in read.open_table(table)?.iter()? {
                records.push(entry?.1.value().to_vec());
            }
        }
        for table in [POLICIES, PARAMETERS] {
            for entry in read.open_table(table)?.iter()? {
                records.push(entry?.1.value().to_vec());
            }
        }
        for entry in read.open_table(EXCHANGES)?.iter()? {
            records.push(entry?.1.value().to_vec());
        }
        for entry in read.open_table(QUEUES)?.iter()? {
            records.push(entry?.1.value().to_vec());
        }
        for entry in read.open_table(BINDINGS)?.iter()? {
            records.push(entry?.0.value().2.to_vec());
        }
        for table in [MESSAGES, STATES, SEGMENTS, APPENDED] {
            for entry in read.open_table(table)?.iter()? {
                records.push(entry?.1.value().to_vec());
            }
        }
        let stopped = read.open_table(ABOUT)?.get(STOPPED_KEY)?;
        if stopped.is_some_and(|stopped| stopped.value() == 1) {
            records.push(encoded(&Change::Stopped));
        }
        Ok(records)
    }

    /// Returns free space to the system, if most of the file is free.
    fn compact(&mut self) -> Result<(), Problem> {
        let size = fs::metadata(&self.path).map_or(0, |file| file.len());
        if size < COMPACT_FROM {
            return Ok(());
        }
        let write = self.database.begin_write()?;
        let stored = write.stats()?.stored_bytes();
        write.abort()?;
        if stored < size / 2 {
            self.database.compact()?;
        }
        Ok(())
    }

    /// Writes changes to the disk, all or none.
    pub(super) fn write(&self, changes: &[Change]) -> Result<(), StoreError> {
        guarded(&self.path, || {
            self.try_write(changes)
                .map_err(|error| failed(&self.path, error))
        })
    }

    fn try_write(&self, changes: &[Change]) -> Result<(), Problem> {
        let write = self.database.begin_write()?;
        {
            let mut tables = Tables::open(&write)?;
            for change in changes {
                tables.apply(change)?;
            }
            let stopped = u64::from(changes.last() == Some(&Change::Stopped));
            let before = tables.about.get(STOPPED_KEY)?.map(|before| before.value());
            if before != Some(stopped) {
                tables.about.insert(STOPPED_KEY, stopped)?;
            }
        }
        write.commit()?;
        Ok(())
    }
}

/// The text of an error of the database.
struct Problem(String);

impl<E: std::error::Error> From<E> for Problem {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn failed(path: &Path, problem: impl fmt::Display) -> StoreError {
    StoreError::File {
        path: path.into(),
        problem: problem.to_string(),
    }
}

/// Runs `act`, and returns its panic as an error: redb panics at corrupt pages of some kinds.
fn guarded<T>(path: &Path, act: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    // After a panic nothing of the database is used again.
    catch_unwind(AssertUnwindSafe(act)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied();
        let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("no reason");
        Err(failed(
            path,
            format_args!("it is corrupt, or cannot be written: {text}"),
        ))
    })
}

/// The tables in a transaction.
struct Tables<'a> {
    about: Table<'a, &'static str, u64>,
    exchanges: Table<'a, (&'static str, &'static str), Bytes>,
    queues: Table<'a, u64, Bytes>,
    bindings: Table<'a, BindingKey, ()>,
    destinations: Table<'a, DestinationKey, ()>,
    messages: Table<'a, MessageKey, Bytes>,
    states: Table<'a, MessageKey, Bytes>,
    segments: Table<'a, MessageKey, Bytes>,
    appended: Table<'a, MessageKey, Bytes>,
    users: Table<'a, &'static str, Bytes>,
    vhosts: Table<'a, &'static str, Bytes>,
    policies: Table<'a, SettingKey, Bytes>,
    parameters: Table<'a, SettingKey, Bytes>,
    global_parameters: Table<'a, &'static str, Bytes>,
}

impl<'a> Tables<'a> {
    fn open(write: &'a WriteTransaction) -> Result<Self, TableError> {
        Ok(Self {
            about: write.open_table(ABOUT)?,
            exchanges: write.open_table(EXCHANGES)?,
            queues: write.open_table(QUEUES)?,
            bindings: write.open_table(BINDINGS)?,
            destinations: write.open_table(DESTINATIONS)?,
            messages: write.open_table(MESSAGES)?,
            states: write.open_table(STATES)?,
            segments: write.open_table(SEGMENTS)?,
            appended: write.open_table(APPENDED)?,
            users: write.open_table(USERS)?,
            vhosts: write.open_table(VHOSTS)?,
            policies: write.open_table(POLICIES)?,
            parameters: write.open_table(PARAMETERS)?,
            global_parameters: write.open_table(GLOBAL_PARAMETERS)?,
        })
    }

    fn apply(&mut self, change: &Change) -> Result<(), StorageError> {
        match change {
            Change::ExchangeDeclared(exchange) => {
                let key = (exchange.vhost.as_str(), exchange.name.as_str());
                self.exchanges.insert(key, &*encoded(change))?;
            }
            Change::ExchangeDeleted { vhost, name } => {
                self.exchanges.remove((vhost.as_str(), name.as_str()))?;
                self.unbind_source(vhost, name)?;
                self.unbind_destination(vhost, &BindingTarget::Exchange(name.clone()))?;
            }
            Change::QueueDeclared(queue) => {
                self.queues.insert(queue.number, &*encoded(change))?;
            }
            Change::QueueDeleted { queue } => self.delete_queue(*queue)?,
            Change::Bound(binding) => {
                let bytes = encoded(change);
                self.bindings.insert(binding_key(binding, &bytes), ())?;
                let key = destination_key(binding, &bytes);
                self.destinations.insert(key, ())?;
            }
            Change::Unbound(binding) => {
                let bytes = encoded(&Change::Bound(binding.clone()));
                self.bindings.remove(binding_key(binding, &bytes))?;
                self.destinations.remove(destination_key(binding, &bytes))?;
            }
            Change::Enqueued(message) => {
                let key = (message.queue, message.number);
                self.messages.insert(key, &*encoded(change))?;
            }
            Change::Delivered { queue, message } | Change::Requeued { queue, message, .. } => {
                self.states.insert((*queue, *message), &*encoded(change))?;
            }
            Change::Removed { queue, message } => {
                self.messages.remove((*queue, *message))?;
                self.states.remove((*queue, *message))?;
            }
            Change::SegmentBegun { queue, first } => {
                self.segments.insert((*queue, *first), &*encoded(change))?;
            }
            Change::Appended(message) => {
                let key = (message.queue, message.offset);
                self.appended.insert(key, &*encoded(change))?;
            }
            Change::SegmentsDropped { queue, first } => {
                let dropped = (*queue, 0)..(*queue, *first);
                self.segments.retain_in(dropped.clone(), |_, _| false)?;
                self.appended.retain_in(dropped, |_, _| false)?;
            }
            Change::UserSet(user) => {
                self.users.insert(user.name(), &*encoded(change))?;
            }
            Change::UserDeleted { name } => {
                self.users.remove(name.as_str())?;
            }
            Change::VhostSet(vhost) => {
                self.vhosts.insert(vhost.name.as_str(), &*encoded(change))?;
            }
            Change::VhostDeleted { name } => {
                self.vhosts.remove(name.as_str())?;
                let behind = successor(name);
                let settings = (name.as_str(), "", "")..(behind.as_str(), "", "");
                self.policies.retain_in(settings.clone(), |_, _| false)?;
                self.parameters.retain_in(settings, |_, _| false)?;
            }
            Change::PolicySet {
                vhost,
                kind,
                policy,
            } => {
                let key = (vhost.as_str(), kind.name(), policy.name.as_str());
                self.policies.insert(key, &*encoded(change))?;
            }
            Change::PolicyCleared { vhost, kind, name } => {
                self.policies
                    .remove((vhost.as_str(), kind.name(), name.as_str()))?;
            }
            Change::ParameterSet {
                vhost,
                component,
                name,
                ..
            } => {
                let key = (vhost.as_str(), component.as_str(), name.as_str());
                self.parameters.insert(key, &*encoded(change))?;
            }
            Change::GlobalParameterSet { name, .. } => {
                let bytes = encoded(change);
                self.global_parameters.insert(name.as_str(), &*bytes)?;
            }
            // In the table `about`.
            Change::Stopped | Change::Started => {}
        }
        Ok(())
    }

    fn delete_queue(&mut self, number: u64) -> Result<(), StorageError> {
        let record = self.queues.remove(number)?;
        let declared = record.map(|record| Change::decode(record.value()));
        let all = (number, 0)..=(number, u64::MAX);
        self.messages.retain_in(all.clone(), |_, _| false)?;
        self.states.retain_in(all.clone(), |_, _| false)?;
        self.segments.retain_in(all.clone(), |_, _| false)?;
        self.appended.retain_in(all, |_, _| false)?;
        if let Some(Ok(Change::QueueDeclared(queue))) = declared {
            self.unbind_destination(&queue.vhost, &BindingTarget::Queue(queue.name))?;
        }
        Ok(())
    }

    /// Removes the bindings from an exchange.
    fn unbind_source(&mut self, vhost: &str, source: &str) -> Result<(), StorageError> {
        let behind = successor(source);
        let from: (&str, &str, &[u8]) = (vhost, source, &[]);
        let all = from..(vhost, behind.as_str(), &[]);
        for entry in self.bindings.extract_from_if(all, |_, ()| true)? {
            let (key, _) = entry?;
            let (.., record) = key.value();
            if let Ok(Change::Bound(binding)) = Change::decode(record) {
                self.destinations
                    .remove(destination_key(&binding, record))?;
            }
        }
        Ok(())
    }

    /// Removes the bindings to a queue or exchange.
    fn unbind_destination(
        &mut self,
        vhost: &str,
        destination: &BindingTarget,
    ) -> Result<(), StorageError> {
        let (kind, name) = kind_and_name(destination);
        let behind = successor(name);
        let from: (&str, u8, &str, &[u8]) = (vhost, kind, name, &[]);
        let all = from..(vhost, kind, behind.as_str(), &[]);
        for entry in self.destinations.extract_from_if(all, |_, ()| true)? {
            let (key, _) = entry?;
            let (.., record) = key.value();
            if let Ok(Change::Bound(binding)) = Change::decode(record) {
                self.bindings.remove(binding_key(&binding, record))?;
            }
        }
        Ok(())
    }
}

fn binding_key<'a>(binding: &'a DurableBinding, record: &'a [u8]) -> (&'a str, &'a str, &'a [u8]) {
    (&binding.vhost, &binding.source, record)
}

fn destination_key<'a>(
    binding: &'a DurableBinding,
    record: &'a [u8],
) -> (&'a str, u8, &'a str, &'a [u8]) {
    let (kind, name) = kind_and_name(&binding.destination);
    (&binding.vhost, kind, name, record)
}

fn kind_and_name(destination: &BindingTarget) -> (u8, &str) {
    match destination {
        BindingTarget::Queue(name) => (0, name),
        BindingTarget::Exchange(name) => (1, name),
    }
}

/// The first text behind `text`.
fn successor(text: &str) -> String {
    format!("{text}\0")
}

fn encoded(change: &Change) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    change.encode(&mut bytes);
    bytes.into()
}
