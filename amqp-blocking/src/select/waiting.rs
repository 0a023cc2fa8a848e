//! Synchronization between the tasks of one thread.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    task::{Context, Poll, Waker},
};

/// A value that is set once, and the wakers of the tasks that wait for it.
pub(super) struct SetOnce<T> {
    value: RefCell<Option<T>>,
    waiting: RefCell<Vec<Waker>>,
}

impl<T> Default for SetOnce<T> {
    fn default() -> Self {
        Self {
            value: RefCell::default(),
            waiting: RefCell::default(),
        }
    }
}

impl<T: Clone> SetOnce<T> {
    /// Sets the value and wakes the waiting tasks. Only the first call has an effect on the value.
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
        // Comparing with the last waker suffices: a task that polls repeatedly waits alone.
        if !waiting.last().is_some_and(|it| it.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    pub(super) async fn get(&self) -> T {
        poll_fn(|cx| self.poll(cx)).await
    }
}

/// Returns the output of the first future to be ready, and of `other` if both are.
pub(super) async fn either<T>(one: impl Future<Output = T>, other: impl Future<Output = T>) -> T {
    let (mut one, mut other) = (pin!(one), pin!(other));
    poll_fn(|cx| match other.as_mut().poll(cx) {
        Poll::Pending => one.as_mut().poll(cx),
        ready => ready,
    })
    .await
}

/// Waits for all futures, polled concurrently. Returns the outputs in their order.
pub(super) async fn all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut waiting: Vec<_> = futures.into_iter().map(|it| (Box::pin(it), None)).collect();
    poll_fn(|cx| {
        for (future, done) in &mut waiting {
            if done.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(cx)
            {
                *done = Some(value);
            }
        }
        match waiting.iter().all(|(_, done)| done.is_some()) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    })
    .await;
    waiting.into_iter().filter_map(|(_, done)| done).collect()
}

/// A fair asynchronous lock, first in, first out.
#[derive(Default)]
pub(super) struct FairQueue {
    waiting: RefCell<BTreeMap<u64, Option<Waker>>>,
    last: Cell<u64>,
}

impl FairQueue {
    /// Waits for the front of the queue. It is held until the [`TurnGuard`] is dropped.
    pub(super) async fn wait_turn(&self) -> TurnGuard<'_> {
        let number = self.last.get() + 1;
        self.last.set(number);
        self.waiting.borrow_mut().insert(number, None);
        let turn = TurnGuard {
            queue: self,
            number,
        };
        poll_fn(|cx| turn.poll(cx)).await;
        turn
    }
}

/// A place in a [`FairQueue`], released on drop.
pub(super) struct TurnGuard<'a> {
    queue: &'a FairQueue,
    number: u64,
}

impl TurnGuard<'_> {
    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        let mut waiting = self.queue.waiting.borrow_mut();
        match waiting.first_key_value() {
            Some((first, _)) if *first == self.number => Poll::Ready(()),
            _ => {
                waiting.insert(self.number, Some(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        let mut waiting = self.queue.waiting.borrow_mut();
        waiting.remove(&self.number);
        let first = waiting.first_entry();
        let waker = first.and_then(|mut first| first.get_mut().take());
        drop(waiting);
        waker.into_iter().for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::Pin,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct Flag(AtomicBool);

    impl Wake for Flag {
        fn wake(self: Arc<Self>) {
            self.0.store(true, SeqCst);
        }
    }

    impl Flag {
        fn poll<F: Future>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
            future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
        }

        fn take(&self) -> bool {
            self.0.swap(false, SeqCst)
        }
    }

    #[test]
    fn the_first_value_is_the_one_for_all() {
        let (cell, flag) = (SetOnce::default(), Arc::new(Flag::default()));
        let mut waiting = pin!(cell.get());
        assert!(flag.poll(waiting.as_mut()).is_pending());
        cell.set(1);
        cell.set(2);
        assert!(flag.take());
        assert_eq!(flag.poll(waiting.as_mut()), Poll::Ready(1));
        assert_eq!(cell.peek(), Some(1));
    }

    #[test]
    fn each_has_its_turn_in_order_and_who_leaves_holds_nobody_up() {
        let queue = FairQueue::default();
        let flags = [(); 4].map(|()| Arc::new(Flag::default()));
        let [mut one, mut two, mut three, mut four] = [(); 4].map(|()| Box::pin(queue.wait_turn()));
        let Poll::Ready(turn) = flags[0].poll(one.as_mut()) else {
            panic!("nobody is before it");
        };
        for (flag, waiting) in flags[1..].iter().zip([&mut two, &mut three, &mut four]) {
            assert!(flag.poll(waiting.as_mut()).is_pending());
        }
        drop(two);
        drop(turn);
        assert!(flags[2].take() && !flags[3].take());
        // The third has the first place, and gives it up.
        drop(three);
        assert!(flags[3].take());
        assert!(flags[3].poll(four.as_mut()).is_ready());
        drop(one);
    }
}
