//! One storage under test, and the data that cases store.

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use amqp_core::Body;

use super::super::{Change, Storage, StorageError, Stored, StoredClock, StoredMessage, WallTime};
use crate::{Message, MessageId, PeerName};

/// The findings of a case, or the reason why it fails.
pub(super) type Verdict<T = ()> = Result<T, String>;

type Open<'a> = &'a mut dyn FnMut() -> Result<Box<dyn Storage>, StorageError>;

/// A storage that is opened, changed, closed and opened again.
pub(super) struct Bench<'a> {
    open: Open<'a>,
    /// `Some` while it is open.
    storage: Option<Box<dyn Storage>>,
}

impl<'a> Bench<'a> {
    pub(super) fn new(open: Open<'a>) -> Self {
        Self {
            open,
            storage: None,
        }
    }

    /// The storage, opened and loaded as a peer does.
    fn storage(&mut self) -> Verdict<&mut Box<dyn Storage>> {
        if self.storage.is_none() {
            let mut storage =
                (self.open)().map_err(|error| format!("cannot be opened: {error}"))?;
            storage
                .load()
                .map_err(|error| format!("cannot be loaded when it was opened: {error}"))?;
            self.storage = Some(storage);
        }
        self.storage.as_mut().ok_or_else(|| "is not open".into())
    }

    pub(super) fn close(&mut self) {
        self.storage = None;
    }

    /// Applies a batch.
    pub(super) fn apply(&mut self, changes: &[Change]) -> Verdict {
        self.storage()?
            .apply(changes)
            .map_err(|error| format!("does not take {}: {error}", shown(&changes)))
    }

    /// Applies a batch that must be refused.
    pub(super) fn refuse(&mut self, changes: &[Change]) -> Verdict<StorageError> {
        match self.storage()?.apply(changes) {
            Err(error) => Ok(error),
            Ok(()) => Err(format!("takes {}", shown(&changes))),
        }
    }

    /// Checks the contents in the open storage, and in one that is opened after it.
    pub(super) fn expect(&mut self, expected: &Expected) -> Verdict {
        self.expect_open(expected)?;
        self.close();
        self.expect_open(expected)
            .map_err(|text| format!("after it was closed and opened, {text}"))
    }

    /// Checks the contents in the open storage.
    pub(super) fn expect_open(&mut self, expected: &Expected) -> Verdict {
        let found = self.storage()?.load();
        let found = found.map_err(|error| format!("cannot be loaded: {error}"))?;
        let Stored {
            outbox,
            accepted,
            clocks,
        } = &found;
        compare_lists("the messages to", &expected.0.outbox, outbox)?;
        compare_lists("the accepted messages of", &expected.0.accepted, accepted)?;
        compare("the clock of", &expected.0.clocks, clocks)
    }
}

/// Compares values by name.
fn compare<T: Debug + PartialEq>(
    about: &str,
    expected: &BTreeMap<PeerName, T>,
    found: &BTreeMap<PeerName, T>,
) -> Verdict {
    for (name, value) in expected {
        match found.get(name) {
            None => return Err(format!("{about} {name:?}: lost")),
            Some(other) if other != value => {
                let (other, value) = (shown(other), shown(value));
                return Err(format!("{about} {name:?}: {other} in place of {value}"));
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|name| !expected.contains_key(*name)) {
        Some(name) => Err(format!(
            "{about} {name:?}: there are some, but none were left"
        )),
        None => Ok(()),
    }
}

/// Compares lists by name, and says which element differs.
fn compare_lists<T: Debug + PartialEq>(
    about: &str,
    expected: &BTreeMap<PeerName, Vec<(u64, T)>>,
    found: &BTreeMap<PeerName, Vec<(u64, T)>>,
) -> Verdict {
    for (name, list) in expected {
        let other = found.get(name).map_or(&[][..], Vec::as_slice);
        let place = list.iter().zip(other).position(|(a, b)| a != b);
        let place = place.unwrap_or_else(|| list.len().min(other.len()));
        let differs = match (list.get(place), other.get(place)) {
            (None, None) => continue,
            (Some(lost), None) => format!("ends before {}", shown(lost)),
            (None, Some(more)) => format!("goes on with {}", shown(more)),
            (Some(one), Some(another)) => {
                format!("has {} in place of {}", shown(another), shown(one))
            }
        };
        return Err(format!(
            "{about} {name:?}: after {place} of {}, the list {differs}",
            list.len()
        ));
    }
    let names = |lists: &BTreeMap<PeerName, Vec<(u64, T)>>| {
        let names = lists.iter().filter(|(_, list)| !list.is_empty());
        names.map(|(name, _)| (name.clone(), ())).collect()
    };
    compare(about, &names(expected), &names(found))
}

/// The beginning of a value in words.
fn shown(value: &impl Debug) -> String {
    const MOST: usize = 600;
    let mut text = format!("{value:?}");
    if text.len() > MOST {
        let end = (0..=MOST).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push_str("..");
    }
    text
}

/// The contents that a case expects.
#[derive(Default)]
pub(super) struct Expected(Stored);

impl Expected {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn outbox(
        mut self,
        to: &PeerName,
        messages: impl IntoIterator<Item = (u64, StoredMessage)>,
    ) -> Self {
        self.0
            .outbox
            .insert(to.clone(), messages.into_iter().collect());
        self
    }

    pub(super) fn accepted(
        mut self,
        from: &PeerName,
        accepted: impl IntoIterator<Item = (u64, MessageId)>,
    ) -> Self {
        self.0
            .accepted
            .insert(from.clone(), accepted.into_iter().collect());
        self
    }

    pub(super) fn clock(
        mut self,
        name: &PeerName,
        disconnected: Duration,
        since: Option<WallTime>,
    ) -> Self {
        let clock = StoredClock {
            disconnected,
            since,
        };
        self.0.clocks.insert(name.clone(), clock);
        self
    }
}

pub(super) fn name(name: &str) -> Verdict<PeerName> {
    PeerName::new(name).map_err(|error| format!("is not reached: {error}"))
}

pub(super) fn id(number: u64) -> MessageId {
    MessageId::from_bytes(u128::from(number).to_be_bytes())
}

/// A persistent message with a body.
pub(super) fn message(number: u64, body: impl Into<Body>) -> StoredMessage {
    StoredMessage {
        id: id(number),
        body: body.into(),
        properties: Message::default().persistent().to_wire(),
        expires_at: None,
    }
}

/// A message with a short body.
pub(super) fn numbered(number: u64) -> StoredMessage {
    message(number, format!("message {number}"))
}

/// The messages of those sequences, as they are loaded.
pub(super) fn row(
    sequences: impl IntoIterator<Item = u64>,
) -> impl Iterator<Item = (u64, StoredMessage)> {
    sequences
        .into_iter()
        .map(|sequence| (sequence, numbered(sequence)))
}

pub(super) fn push(to: &PeerName, sequence: u64, message: StoredMessage) -> Change {
    Change::Pushed {
        to: to.clone(),
        sequence,
        message,
    }
}

/// The changes that push the messages of those sequences.
pub(super) fn pushes(to: &PeerName, sequences: impl IntoIterator<Item = u64>) -> Vec<Change> {
    let messages = row(sequences);
    messages
        .map(|(sequence, message)| push(to, sequence, message))
        .collect()
}

pub(super) fn remove(to: &PeerName, sequence: u64) -> Change {
    Change::Removed {
        to: to.clone(),
        sequence,
    }
}

pub(super) fn remove_to(to: &PeerName, up_to: u64) -> Change {
    Change::RemovedTo {
        to: to.clone(),
        up_to,
    }
}

pub(super) fn clear(to: &PeerName) -> Change {
    Change::Cleared { to: to.clone() }
}

pub(super) fn accept(from: &PeerName, position: u64, id: MessageId) -> Change {
    Change::Accepted {
        from: from.clone(),
        id,
        position,
    }
}

pub(super) fn forget(from: &PeerName, below: u64) -> Change {
    Change::Forgotten {
        from: from.clone(),
        below,
    }
}

pub(super) fn clock(name: &PeerName, disconnected: Duration, since: Option<WallTime>) -> Change {
    Change::Clock {
        name: name.clone(),
        disconnected,
        since,
    }
}
