//! The handlers that run.

use std::{
    collections::BTreeMap,
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use crate::sync::Mutex;

/// Futures that run side by side. Only those that were woken are polled.
pub(super) struct Running<F> {
    futures: BTreeMap<u64, (Pin<Box<F>>, Waker)>,
    last: u64,
    woken: Arc<Woken>,
}

/// The futures that were woken, and the waker of the task that polls them.
#[derive(Default)]
struct Woken(Mutex<(Vec<u64>, Option<Waker>)>);

struct WakeOne {
    woken: Arc<Woken>,
    number: u64,
}

impl Wake for WakeOne {
    fn wake(self: Arc<Self>) {
        let task = self.woken.with(|numbers, task| {
            numbers.push(self.number);
            task.take()
        });
        task.into_iter().for_each(Waker::wake);
    }
}

impl Woken {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u64>, &mut Option<Waker>) -> T) -> T {
        let mut woken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (numbers, task) = &mut *woken;
        act(numbers, task)
    }
}

impl<F: Future<Output = ()>> Running<F> {
    pub(super) fn new() -> Self {
        Self {
            futures: BTreeMap::new(),
            last: 0,
            woken: Arc::default(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.futures.len()
    }

    pub(super) fn add(&mut self, future: F) {
        self.last += 1;
        let (woken, number) = (Arc::clone(&self.woken), self.last);
        woken.with(|numbers, _| numbers.push(number));
        let waker = Waker::from(Arc::new(WakeOne { woken, number }));
        self.futures.insert(number, (Box::pin(future), waker));
    }

    /// Polls the futures that were woken. Ready when none is left.
    pub(super) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        let waker = cx.waker().clone();
        let (numbers, replaced) = self
            .woken
            .with(|numbers, task| (mem::take(numbers), task.replace(waker)));
        drop(replaced);
        for number in numbers {
            if let Some((future, waker)) = self.futures.get_mut(&number)
                && future
                    .as_mut()
                    .poll(&mut Context::from_waker(waker))
                    .is_ready()
            {
                self.futures.remove(&number);
            }
        }
        if self.futures.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use shuttle::{
        future::block_on,
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        thread,
    };

    use super::*;
    use crate::interleavings::explore::explore;

    #[test]
    fn a_wake_up_during_a_poll_is_another_poll() {
        explore("handlers that another thread wakes", 3, || {
            let events = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
            let place = Arc::default();
            let mut running = Running::new();
            for at in 0..2 {
                let (events, place) = (Arc::clone(&events), Arc::clone(&place));
                running.add(poll_fn(move |cx| {
                    let place: &Mutex<Vec<Waker>> = &place;
                    place.lock().unwrap().push(cx.waker().clone());
                    if events[at].load(SeqCst) {
                        Poll::Ready(())
                    } else {
                        Poll::Pending
                    }
                }));
            }
            let waking = thread::spawn(move || {
                for at in [1, 0] {
                    events[at].store(true, SeqCst);
                    let wakers = place.lock().unwrap().clone();
                    wakers.into_iter().for_each(Waker::wake);
                }
            });
            block_on(poll_fn(|cx| running.poll(cx)));
            waking.join().unwrap();
        });
    }
}
