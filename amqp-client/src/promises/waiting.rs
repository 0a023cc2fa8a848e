//! What the tasks of one thread wait for.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::poll_fn,
    task::{Context, Poll, Waker},
};

/// A value that comes once, and those who wait for it.
pub(super) struct Once<T> {
    value: RefCell<Option<T>>,
    waiting: RefCell<Vec<Waker>>,
}

impl<T> Default for Once<T> {
    fn default() -> Self {
        Self {
            value: RefCell::default(),
            waiting: RefCell::default(),
        }
    }
}

impl<T: Clone> Once<T> {
    /// Here it is. Only the first one counts.
    pub(super) fn set(&self, value: T) {
        self.value.borrow_mut().get_or_insert(value);
        self.waiting.take().into_iter().for_each(Waker::wake);
    }

    pub(super) fn peek(&self) -> Option<T> {
        self.value.borrow().clone()
    }

    pub(super) fn poll(&self, cx: &Context<'_>) -> Poll<T> {
        if let Some(value) = self.peek() {
            return Poll::Ready(value);
        }
        let mut waiting = self.waiting.borrow_mut();
        // Who asks again and again is alone.
        if !waiting.last().is_some_and(|it| it.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) async fn get(&self) -> T {
        poll_fn(|cx| self.poll(cx)).await
    }
}

/// Those who want something that only one can have at a time. The first one has it.
#[derive(Default)]
pub(super) struct Line {
    waiting: RefCell<BTreeMap<u64, Option<Waker>>>,
    last: Cell<u64>,
}

impl Line {
    /// Waits for the first place, and keeps it until that is dropped.
    pub(super) async fn turn(&self) -> Turn<'_> {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.waiting.borrow_mut().insert(number, None);
        let turn = Turn { line: self, number };
        poll_fn(|cx| turn.poll(cx)).await;
        turn
    }
}

/// A place in a [`Line`], given up on drop.
pub(super) struct Turn<'a> {
    line: &'a Line,
    number: u64,
}

impl Turn<'_> {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.line.waiting.borrow_mut();
        match waiting.first_key_value() {
            Some((first, _)) if *first == self.number => Poll::Ready(()),
            _ => {
                waiting.insert(self.number, Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut waiting = self.line.waiting.borrow_mut();
        waiting.remove(&self.number);
        let first = waiting.first_entry();
        let waker = first.and_then(|mut first| first.get_mut().take());
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }
}
