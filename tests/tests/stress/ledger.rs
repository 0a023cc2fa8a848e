//! Which message was published, with which outcome, and which arrived.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use amqp_tokio::Body;

use crate::meter::uncounted;

/// A message: its publisher, and its number there, from 1.
pub(crate) type Id = (u32, u32);

/// The number of publishes with each outcome.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(pub(crate) BTreeMap<&'static str, u64>);

/// The messages of one queue that one consumer at a time takes from.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    publishers: AtomicU32,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
struct Books {
    /// Those that the queue has, as the server said.
    held: BTreeSet<Id>,
    /// Those that the queue cannot have.
    never: BTreeMap<Id, &'static str>,
    arrived: BTreeSet<Id>,
    /// The last of each publisher that arrived for the first time.
    latest: BTreeMap<u32, u32>,
    published: u64,
    counts: Counts,
}

impl Ledger {
    fn with<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        uncounted(|| act(&mut self.lock()))
    }

    fn lock(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for a publisher.
    pub(crate) fn publisher(&self) -> u32 {
        self.publishers.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Counts an outcome.
    pub(crate) fn count(&self, outcome: &'static str) {
        self.with(|books| *books.counts.0.entry(outcome).or_default() += 1);
    }

    pub(crate) fn counts(&self) -> Counts {
        self.with(|books| books.counts.clone())
    }

    /// How many messages may wait in the queue: an upper bound.
    pub(crate) fn waiting(&self) -> u64 {
        self.with(|books| books.published.saturating_sub(books.arrived.len() as u64))
    }

    /// A message that may arrive.
    pub(crate) fn accepted(&self) {
        self.with(|books| books.published += 1);
    }

    /// A message that the server has.
    pub(crate) fn held(&self, id: Id) {
        self.with(|books| books.held.insert(id));
    }

    /// A message that must not arrive, and why.
    pub(crate) fn never(&self, id: Id, why: &'static str) {
        self.with(|books| books.never.insert(id, why));
    }

    /// A message that has arrived; returns its faults.
    pub(crate) fn arrived(&self, body: &Body, redelivered: bool) -> Result<(), String> {
        uncounted(|| {
            let (publisher, number) = read(body)?;
            let mut books = self.lock();
            let first = books.arrived.insert((publisher, number));
            if redelivered {
                return Ok(());
            }
            if !first {
                return Err(format!(
                    "message {number} of publisher {publisher} came twice and is not marked as redelivered"
                ));
            }
            let latest = books.latest.insert(publisher, number).unwrap_or_default();
            if latest >= number {
                return Err(format!(
                    "order: message {number} of publisher {publisher} came behind {latest}"
                ));
            }
            Ok(())
        })
    }

    /// The faults when nothing more will arrive.
    pub(crate) fn settle(&self) -> Vec<String> {
        self.with(|books| {
            let mut faults = Vec::new();
            let lost: Vec<&Id> = books.held.difference(&books.arrived).collect();
            if let Some(first) = lost.first() {
                faults.push(format!(
                    "{} messages were confirmed and did not arrive, the first is {first:?} (publisher, number)",
                    lost.len()
                ));
            }
            for (id, why) in &books.never {
                if books.arrived.contains(id) {
                    faults.push(format!(
                        "message {id:?} (publisher, number) arrived, but was reported as {why}"
                    ));
                }
            }
            faults
        })
    }

    pub(crate) fn clear(&self) {
        self.with(|books| *books = Books::default());
    }
}

/// The body of a message.
pub(crate) fn write((publisher, number): Id, size: usize) -> Vec<u8> {
    let mut body = vec![filling((publisher, number)); size.max(8)];
    body[..4].copy_from_slice(&publisher.to_be_bytes());
    body[4..8].copy_from_slice(&number.to_be_bytes());
    body
}

/// The message of a body, which must be whole.
fn read(body: &Body) -> Result<Id, String> {
    let bytes = body.to_vec();
    let word = |at: usize| {
        let word = bytes.get(at..at + 4).ok_or("a body is too short")?;
        word.try_into().map_err(|_| "a body is too short")
    };
    let id = (u32::from_be_bytes(word(0)?), u32::from_be_bytes(word(4)?));
    let filling = filling(id);
    if bytes[8..].iter().any(|&byte| byte != filling) {
        return Err(format!("the body of message {id:?} is not as published"));
    }
    Ok(id)
}

const fn filling((publisher, number): Id) -> u8 {
    (publisher.wrapping_mul(31).wrapping_add(number) % 251) as u8
}
