//! The results that wait to be taken.

use std::collections::{BTreeMap, BTreeSet};

use super::{Answer, Error, Promise};

/// How much may wait before nothing more is read: the bodies of deliveries, in bytes, and some for
/// each.
const UNDELIVERED_MAX: usize = 16 << 20;

/// What a delivery takes beside its body, in bytes.
const MESSAGE_OVERHEAD: usize = 256;

/// In the order in which they came, which is the order of their numbers.
#[derive(Default)]
pub(super) struct Results {
    waiting: BTreeMap<u64, (Promise, Result<Answer, Error>)>,
    by_promise: BTreeSet<(Promise, u64)>,
    /// Those that a callback is there for.
    due: BTreeSet<u64>,
    next: u64,
    undelivered: usize,
}

impl Results {
    pub(super) fn push(&mut self, promise: Promise, result: Result<Answer, Error>, due: bool) {
        self.undelivered += weight(&result);
        if due {
            self.due.insert(self.next);
        }
        self.by_promise.insert((promise, self.next));
        self.waiting.insert(self.next, (promise, result));
        self.next += 1;
    }

    pub(super) fn pop(&mut self) -> Option<(Promise, Result<Answer, Error>)> {
        let (&number, _) = self.waiting.first_key_value()?;
        self.remove(number)
    }

    pub(super) fn take(&mut self, promise: Promise) -> Option<Result<Answer, Error>> {
        let of_promise = (promise, 0)..=(promise, u64::MAX);
        let &(_, number) = self.by_promise.range(of_promise).next()?;
        Some(self.remove(number)?.1)
    }

    pub(super) fn has(&self, promise: Promise) -> bool {
        let of_promise = (promise, 0)..=(promise, u64::MAX);
        self.by_promise.range(of_promise).next().is_some()
    }

    /// A callback is there for what waits of a promise.
    pub(super) fn set_due(&mut self, promise: Promise) {
        let of_promise = (promise, 0)..=(promise, u64::MAX);
        let numbers = self.by_promise.range(of_promise).map(|(_, number)| *number);
        self.due.extend(numbers);
    }

    /// The first from that number on that a callback is there for.
    pub(super) fn next_due(&self, from: u64, before: u64) -> Option<(u64, Promise)> {
        let &number = self.due.range(from..before.max(from)).next()?;
        Some((number, self.waiting.get(&number)?.0))
    }

    /// The number that the next one gets.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Whether no more deliveries are wanted.
    pub(super) const fn is_full(&self) -> bool {
        self.undelivered >= UNDELIVERED_MAX
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<(Promise, Result<Answer, Error>)> {
        let (promise, result) = self.waiting.remove(&number)?;
        self.by_promise.remove(&(promise, number));
        self.due.remove(&number);
        self.undelivered -= weight(&result);
        Some((promise, result))
    }
}

fn weight(result: &Result<Answer, Error>) -> usize {
    match result {
        Ok(Answer::Delivered(message)) => message.body.len() + MESSAGE_OVERHEAD,
        _ => 0,
    }
}
