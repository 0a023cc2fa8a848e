//! The results that have not been taken.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{Answer, Error, Promise, consumer_group::ConsumerGroup};

/// The bound for the untaken deliveries of one promise, in bytes: the bodies, and
/// [`MESSAGE_OVERHEAD`] each. Further deliveries stay in the connection, which has its own bound.
const UNTAKEN_MAX: usize = 1 << 20;

/// The estimated memory of a delivery besides its body, in bytes.
const MESSAGE_OVERHEAD: usize = 256;

/// The sender of the results of one promise.
pub(super) struct ResultSender {
    pub(super) promise: Promise,
    pub(super) results: Rc<RefCell<Results>>,
}

impl ResultSender {
    pub(super) fn send(&self, result: Result<Answer, Error>) {
        let ignored = self.results.borrow_mut().push(self.promise, result);
        drop(ignored); // outside of the borrow: a dropped message is requeued
    }

    /// Waits until there is room for one more delivery.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.results.borrow_mut().poll_room(self.promise, cx)
    }
}

/// The outstanding promises and their results.
#[derive(Default)]
pub(super) struct Results {
    promises: BTreeMap<Promise, PromiseState>,
    /// The untaken results, by number, in order of arrival.
    untaken: BTreeMap<u64, (Promise, Result<Answer, Error>)>,
    /// The numbers of the untaken results that have a callback.
    due: BTreeSet<u64>,
    last: u64,
}

/// A promise until its final result is taken.
#[derive(Default)]
struct PromiseState {
    /// The numbers of its untaken results.
    untaken: VecDeque<u64>,
    /// The weight of its untaken deliveries, in bytes.
    untaken_bytes: usize,
    /// `Some` while its task waits for room.
    room_waker: Option<Waker>,
    /// Whether a callback takes its results.
    has_callback: bool,
    /// Whether its results are dropped.
    ignored: bool,
    /// `Some` if it is the promise of consumers.
    group: Option<Rc<ConsumerGroup>>,
}

impl Results {
    /// Registers a promise. `group` is `Some` if it is that of consumers.
    pub(super) fn register(&mut self, promise: Promise, group: Option<Rc<ConsumerGroup>>) {
        let state = PromiseState {
            group,
            ..PromiseState::default()
        };
        self.promises.insert(promise, state);
    }

    /// The consumers of a promise. `Some` if it has any, and has not ended.
    pub(super) fn group(&self, promise: Promise) -> Option<Rc<ConsumerGroup>> {
        self.promises.get(&promise)?.group.clone()
    }

    /// The number of outstanding promises.
    pub(super) fn len(&self) -> usize {
        self.promises.len()
    }

    /// Whether a result of the promise is untaken or still to arrive.
    pub(super) fn is_outstanding(&self, promise: Promise) -> bool {
        let state = self.promises.get(&promise);
        state.is_some_and(|state| !state.ignored)
    }

    /// Adds a result. Returns it if the promise is ignored or has ended.
    #[must_use]
    fn push(
        &mut self,
        promise: Promise,
        result: Result<Answer, Error>,
    ) -> Option<Result<Answer, Error>> {
        let is_final = is_final(&result);
        let Some(state) = self.promises.get_mut(&promise) else {
            return Some(result);
        };
        if state.ignored {
            if is_final {
                self.promises.remove(&promise);
            }
            return Some(result);
        }
        self.last += 1;
        state.untaken_bytes += weight(&result);
        state.untaken.push_back(self.last);
        if state.has_callback {
            self.due.insert(self.last);
        }
        self.untaken.insert(self.last, (promise, result));
        None
    }

    fn poll_room(&mut self, promise: Promise, cx: &Context<'_>) -> Poll<()> {
        match self.promises.get_mut(&promise) {
            Some(state) if state.untaken_bytes >= UNTAKEN_MAX => {
                state.room_waker = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn pop(&mut self) -> Option<(Promise, Result<Answer, Error>)> {
        let (&number, _) = self.untaken.first_key_value()?;
        self.remove(number)
    }

    pub(super) fn take(&mut self, promise: Promise) -> Option<Result<Answer, Error>> {
        let number = *self.promises.get(&promise)?.untaken.front()?;
        Some(self.remove(number)?.1)
    }

    /// Marks the results of the promise, untaken and later ones, as due for a callback. Returns
    /// `false` if there will be none.
    pub(super) fn set_callback(&mut self, promise: Promise) -> bool {
        let Some(state) = self.promises.get_mut(&promise).filter(|it| !it.ignored) else {
            return false;
        };
        state.has_callback = true;
        self.due.extend(&state.untaken);
        true
    }

    /// The first result due for a callback, numbered from `from` to `to` inclusive.
    pub(super) fn next_due(&self, from: u64, to: u64) -> Option<(u64, Promise)> {
        let &number = self.due.range(from..).next().filter(|it| **it <= to)?;
        Some((number, self.untaken.get(&number)?.0))
    }

    /// Whether a result after that number is untaken.
    pub(super) fn has_untaken_after(&self, number: u64) -> bool {
        self.untaken
            .last_key_value()
            .is_some_and(|(last, _)| *last > number)
    }

    /// Whether a result is due for a callback.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The number of the last result to arrive.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Ignores later results of the promise. Returns its untaken ones.
    #[must_use]
    pub(super) fn ignore(&mut self, promise: Promise) -> Vec<Result<Answer, Error>> {
        let mut ignored = Vec::new();
        while let Some(result) = self.take(promise) {
            ignored.push(result);
        }
        if let Some(state) = self.promises.get_mut(&promise) {
            state.ignored = true;
        }
        ignored
    }

    /// Takes the result with that number.
    fn remove(&mut self, number: u64) -> Option<(Promise, Result<Answer, Error>)> {
        let (promise, result) = self.untaken.remove(&number)?;
        self.due.remove(&number);
        if let Some(state) = self.promises.get_mut(&promise) {
            // The results of one promise are taken in order.
            state.untaken.pop_front();
            state.untaken_bytes -= weight(&result);
            state.room_waker.take().into_iter().for_each(Waker::wake);
        }
        if is_final(&result) {
            self.promises.remove(&promise);
        }
        Some((promise, result))
    }
}

/// Whether the result is the last of its promise.
pub(super) fn is_final(result: &Result<Answer, Error>) -> bool {
    result.as_ref().map_or(true, Answer::is_final)
}

fn weight(result: &Result<Answer, Error>) -> usize {
    match result {
        Ok(Answer::Delivered(message)) => message.body.len() + MESSAGE_OVERHEAD,
        _ => 0,
    }
}
