//! A bounded set of futures that one task polls.

use std::{
    collections::VecDeque,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use crate::sync::{Mutex, MutexGuard};

/// Futures that run side by side in the task that polls them. A wake-up of one polls only that one.
pub(crate) struct Running<F> {
    slots: Vec<Slot<F>>,
    /// The slots without a future.
    free: Vec<usize>,
    ready: Arc<Ready>,
}

struct Slot<F> {
    future: Option<Pin<Box<F>>>,
    waker: Arc<SlotWaker>,
}

/// The futures that were woken.
#[derive(Debug, Default)]
struct Ready(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    indices: VecDeque<usize>,
    /// The task that polls. `Some` while it sleeps, or is being polled.
    task: Option<Waker>,
}

impl Ready {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct SlotWaker {
    index: usize,
    /// Invariant: `true` exactly while the index is in the queue.
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.queued.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut queue = self.ready.lock();
        queue.indices.push_back(self.index);
        let task = queue.task.take();
        drop(queue);
        task.into_iter().for_each(Waker::wake);
    }
}

impl<F: Future> Running<F> {
    pub(crate) fn new() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            ready: Arc::default(),
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Adds a future, to be polled by the next [`poll_next`](Self::poll_next).
    pub(crate) fn push(&mut self, future: F) {
        let index = self.free.pop().unwrap_or_else(|| {
            let index = self.slots.len();
            let waker = Arc::new(SlotWaker {
                index,
                queued: AtomicBool::new(false),
                ready: Arc::clone(&self.ready),
            });
            let future = None;
            self.slots.push(Slot { future, waker });
            index
        });
        if let Some(slot) = self.slots.get_mut(index) {
            slot.future = Some(Box::pin(future));
            Arc::clone(&slot.waker).wake();
        }
    }

    /// Ready with the output of a future that has ended. Pending, with the task registered, while
    /// there is none.
    pub(crate) fn poll_next(&mut self, cx: &Context<'_>) -> Poll<F::Output> {
        let task = cx.waker().clone();
        let mut queue = self.ready.lock();
        let replaced = queue.task.replace(task);
        // A future that wakes itself waits for the next call, so that others get their turn.
        let mut turns = queue.indices.len();
        drop(queue);
        drop(replaced);
        while turns > 0 {
            turns -= 1;
            let Some(index) = self.ready.lock().indices.pop_front() else {
                break;
            };
            let Some(slot) = self.slots.get_mut(index) else {
                continue;
            };
            // Reads the last wake-up, too, so that the poll sees all that precedes it.
            slot.waker.queued.swap(false, Ordering::AcqRel);
            let Some(future) = &mut slot.future else {
                continue;
            };
            let waker = Waker::from(Arc::clone(&slot.waker));
            if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
                self.free.push(index);
                drop(slot.future.take());
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }

    /// Drops all futures.
    pub(crate) fn clear(&mut self) {
        self.free.clear();
        drop(mem::take(&mut self.slots));
        self.ready.lock().indices.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, sync::atomic::AtomicUsize, task::Wake};

    use shuttle::{future::block_on, thread};

    use super::*;
    use crate::interleavings::explore::explore;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A future that ends at the n-th poll, and leaves its waker.
    fn after(polls: usize, place: Arc<Mutex<Vec<Waker>>>) -> impl Future<Output = usize> {
        let mut polled = 0;
        poll_fn(move |cx| {
            polled += 1;
            place.lock().unwrap().push(cx.waker().clone());
            if polled < polls {
                return Poll::Pending;
            }
            Poll::Ready(polled)
        })
    }

    #[test]
    fn only_the_woken_future_is_polled() {
        let task = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let (one, two) = (Arc::default(), Arc::default());
        let mut running = Running::new();
        running.push(after(2, Arc::clone(&one)));
        running.push(after(3, Arc::clone(&two)));
        assert_eq!(running.len(), 2);
        assert!(running.poll_next(&cx).is_pending());
        assert!(running.poll_next(&cx).is_pending());
        assert_eq!(task.0.load(Ordering::SeqCst), 0);
        let wake = |place: &Mutex<Vec<Waker>>| place.lock().unwrap()[0].wake_by_ref();
        wake(&one);
        wake(&one);
        assert_eq!(task.0.load(Ordering::SeqCst), 1, "once is enough");
        assert_eq!(running.poll_next(&cx), Poll::Ready(2));
        assert_eq!(two.lock().unwrap().len(), 1);
        assert!(running.poll_next(&cx).is_pending());
        // The place of the ended one is free, and its late waker does no harm.
        running.push(after(1, Arc::clone(&one)));
        wake(&one);
        wake(&two);
        assert_eq!(running.poll_next(&cx), Poll::Ready(1));
        assert!(running.poll_next(&cx).is_pending());
        wake(&two);
        assert_eq!(running.poll_next(&cx), Poll::Ready(3));
        assert_eq!(running.len(), 0);
    }

    /// Each event happens while the task polls, before, or after.
    #[test]
    fn a_wake_up_during_a_poll_is_another_poll() {
        explore("futures that another thread wakes", 3, || {
            let events = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
            let place = Arc::default();
            let mut running = Running::new();
            for at in 0..2 {
                let (events, place) = (Arc::clone(&events), Arc::clone(&place));
                running.push(poll_fn(move |cx| {
                    let place: &Mutex<Vec<Waker>> = &place;
                    place.lock().unwrap().push(cx.waker().clone());
                    let seen = events[at].load(Ordering::SeqCst);
                    // An event may follow before the poll ends.
                    drop(place.lock());
                    if seen < 2 {
                        return Poll::Pending;
                    }
                    Poll::Ready(at)
                }));
            }
            let waking = thread::spawn(move || {
                for _ in 0..2 {
                    for at in [1, 0] {
                        events[at].fetch_add(1, Ordering::SeqCst);
                        let wakers = place.lock().unwrap().clone();
                        wakers.into_iter().for_each(Waker::wake);
                    }
                }
            });
            let mut ended = [0, 1].map(|_| block_on(poll_fn(|cx| running.poll_next(cx))));
            ended.sort_unstable();
            assert_eq!(ended, [0, 1]);
            waking.join().unwrap();
        });
    }

    #[test]
    fn a_future_that_wakes_itself_does_not_keep_the_task() {
        let task = Arc::<Count>::default();
        let waker = Waker::from(Arc::clone(&task));
        let cx = Context::from_waker(&waker);
        let mut running = Running::new();
        running.push(poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        }));
        for polls in 1..4 {
            assert!(running.poll_next(&cx).is_pending());
            assert_eq!(
                task.0.load(Ordering::SeqCst),
                polls,
                "and the task is woken"
            );
        }
        running.clear();
        assert_eq!(running.len(), 0);
        assert!(running.poll_next(&cx).is_pending());
    }
}
