//! The results that wait to be taken.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet, VecDeque},
    rc::Rc,
    task::{Context, Poll, Waker},
};

use super::{Answer, Error, Promise, consuming::Consuming};

/// How much of what was delivered to one consumer waits here, in bytes of bodies and some for each.
/// What is beyond it waits in the connection, which bounds it in its turn.
const UNTAKEN_MAX: usize = 1 << 20;

/// What a delivery takes beside its body, in bytes.
const MESSAGE_OVERHEAD: usize = 256;

/// Where the results of one promise go.
pub(super) struct Outbox {
    pub(super) promise: Promise,
    pub(super) results: Rc<RefCell<Results>>,
}

impl Outbox {
    pub(super) fn tell(&self, result: Result<Answer, Error>) {
        let unwanted = self.results.borrow_mut().push(self.promise, result);
        drop(unwanted); // which may put a message back
    }

    /// Waits until there is room for one more message.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<()> {
        self.results.borrow_mut().poll_room(self.promise, cx)
    }
}

/// The promises that are not over, and what has come of them.
#[derive(Default)]
pub(super) struct Results {
    promises: BTreeMap<Promise, Entry>,
    /// What has come, by the number that it got then.
    come: BTreeMap<u64, (Promise, Result<Answer, Error>)>,
    /// Those of them that a callback is there for.
    due: BTreeSet<u64>,
    last: u64,
}

/// A promise whose final result was not taken yet.
#[derive(Default)]
struct Entry {
    /// What has come of it.
    come: VecDeque<u64>,
    /// What of that was delivered, in bytes.
    untaken: usize,
    /// Who waits for room.
    waiting: Option<Waker>,
    /// A callback takes what comes.
    called: bool,
    /// Nobody wants what comes.
    ignored: bool,
    /// What is consumed under it.
    consuming: Option<Rc<Consuming>>,
}

impl Results {
    /// There will be results of that, of what is consumed if that is given.
    pub(super) fn expect(&mut self, promise: Promise, consuming: Option<Rc<Consuming>>) {
        let entry = Entry {
            consuming,
            ..Entry::default()
        };
        self.promises.insert(promise, entry);
    }

    /// What is consumed under that.
    pub(super) fn consuming(&self, promise: Promise) -> Option<Rc<Consuming>> {
        self.promises.get(&promise)?.consuming.clone()
    }

    /// How many promises are not over.
    pub(super) fn len(&self) -> usize {
        self.promises.len()
    }

    /// Whether something of that was not taken yet, or is to come.
    pub(super) fn expects(&self, promise: Promise) -> bool {
        let entry = self.promises.get(&promise);
        entry.is_some_and(|entry| !entry.ignored)
    }

    /// Gives back what nobody wants.
    #[must_use]
    fn push(
        &mut self,
        promise: Promise,
        result: Result<Answer, Error>,
    ) -> Option<Result<Answer, Error>> {
        let is_final = is_final(&result);
        let Some(entry) = self.promises.get_mut(&promise) else {
            return Some(result);
        };
        if entry.ignored {
            if is_final {
                self.promises.remove(&promise);
            }
            return Some(result);
        }
        self.last += 1;
        entry.untaken += weight(&result);
        entry.come.push_back(self.last);
        if entry.called {
            self.due.insert(self.last);
        }
        self.come.insert(self.last, (promise, result));
        None
    }

    fn poll_room(&mut self, promise: Promise, cx: &Context<'_>) -> Poll<()> {
        match self.promises.get_mut(&promise) {
            Some(entry) if entry.untaken >= UNTAKEN_MAX => {
                entry.waiting = Some(cx.waker().clone());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        }
    }

    pub(super) fn pop(&mut self) -> Option<(Promise, Result<Answer, Error>)> {
        let (&number, _) = self.come.first_key_value()?;
        self.remove(number)
    }

    pub(super) fn take(&mut self, promise: Promise) -> Option<Result<Answer, Error>> {
        let number = *self.promises.get(&promise)?.come.front()?;
        Some(self.remove(number)?.1)
    }

    /// A callback takes what has come and what will; false if nothing will.
    pub(super) fn set_called(&mut self, promise: Promise) -> bool {
        let Some(entry) = self.promises.get_mut(&promise).filter(|it| !it.ignored) else {
            return false;
        };
        entry.called = true;
        self.due.extend(&entry.come);
        true
    }

    /// The first from that number on that a callback is there for, up to another one.
    pub(super) fn next_due(&self, from: u64, to: u64) -> Option<(u64, Promise)> {
        let &number = self.due.range(from..).next().filter(|it| **it <= to)?;
        Some((number, self.come.get(&number)?.0))
    }

    /// Whether something is there that came after that.
    pub(super) fn came_after(&self, number: u64) -> bool {
        self.come
            .last_key_value()
            .is_some_and(|(last, _)| *last > number)
    }

    /// Whether a callback is there for something.
    pub(super) fn is_due(&self) -> bool {
        !self.due.is_empty()
    }

    /// The number of what came last.
    pub(super) const fn last(&self) -> u64 {
        self.last
    }

    /// Nobody wants what has come of that, nor what will. Gives back the former.
    #[must_use]
    pub(super) fn ignore(&mut self, promise: Promise) -> Vec<Result<Answer, Error>> {
        let mut unwanted = Vec::new();
        while let Some(result) = self.take(promise) {
            unwanted.push(result);
        }
        if let Some(entry) = self.promises.get_mut(&promise) {
            entry.ignored = true;
        }
        unwanted
    }

    /// Takes what came with that number.
    fn remove(&mut self, number: u64) -> Option<(Promise, Result<Answer, Error>)> {
        let (promise, result) = self.come.remove(&number)?;
        self.due.remove(&number);
        if let Some(entry) = self.promises.get_mut(&promise) {
            // Within one promise they are taken in order.
            entry.come.pop_front();
            entry.untaken -= weight(&result);
            entry.waiting.take().into_iter().for_each(Waker::wake);
        }
        if is_final(&result) {
            self.promises.remove(&promise);
        }
        Some((promise, result))
    }
}

/// Whether nothing more follows.
pub(super) fn is_final(result: &Result<Answer, Error>) -> bool {
    result.as_ref().map_or(true, Answer::is_final)
}

fn weight(result: &Result<Answer, Error>) -> usize {
    match result {
        Ok(Answer::Delivered(message)) => message.body.len() + MESSAGE_OVERHEAD,
        _ => 0,
    }
}
