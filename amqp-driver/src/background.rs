//! A future that runs without a runtime.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use crate::sync::{Mutex, MutexGuard};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A future that is polled where it is woken, which is without a lock of the session. For short work
/// that waits for a connection: it runs within the driver of that. Dropping this drops the future.
///
/// ```text
///  Idle ──────> Running ──> Woken
///   ^  └─<── pending ──┘ <── poll ─┘
///   └──────────────┴──> Ended
/// ```
pub(crate) struct Background(Arc<Task>);

struct Task(Mutex<State>);

enum State {
    Idle(Work),
    /// A thread polls the future.
    Running,
    /// It was woken while it was polled.
    Woken,
    Ended,
}

impl Background {
    /// Polls a future for the first time.
    pub(crate) fn start(work: impl Future<Output = ()> + Send + 'static) -> Self {
        let task = Arc::new(Task(Mutex::new(State::Idle(Box::pin(work)))));
        task.run();
        Self(task)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let ended = mem::replace(&mut *self.0.lock(), State::Ended);
        drop(ended);
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.run();
    }
}

impl Task {
    fn lock(&self) -> MutexGuard<'_, State> {
        // No critical section panics.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: &Arc<Self>) {
        let mut work = {
            let mut state = self.lock();
            match mem::replace(&mut *state, State::Running) {
                State::Idle(work) => work,
                State::Running | State::Woken => {
                    *state = State::Woken;
                    return;
                }
                State::Ended => {
                    *state = State::Ended;
                    return;
                }
            }
        };
        let waker = Waker::from(Arc::clone(self));
        let cx = &mut Context::from_waker(&waker);
        loop {
            let polled = work.as_mut().poll(cx);
            let mut state = self.lock();
            match (polled, &*state) {
                (Poll::Pending, State::Woken) => *state = State::Running,
                (Poll::Pending, State::Running | State::Idle(_)) => {
                    *state = State::Idle(work);
                    return;
                }
                (Poll::Ready(()), _) | (Poll::Pending, State::Ended) => {
                    *state = State::Ended;
                    drop(state);
                    drop(work);
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        sync::atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::*;

    #[test]
    fn it_is_polled_where_it_is_woken() {
        let polls = Arc::new(AtomicUsize::new(0));
        let kept = Arc::new(Mutex::new(None::<Waker>));
        let (counting, keeping) = (Arc::clone(&polls), Arc::clone(&kept));
        let background = Background::start(poll_fn(move |cx| {
            *keeping.lock().unwrap() = Some(cx.waker().clone());
            // A wake-up while it is polled is one more poll.
            if counting.fetch_add(1, Relaxed) == 1 {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }));
        assert_eq!(polls.load(Relaxed), 1);
        let waker = kept.lock().unwrap().take().unwrap();
        waker.wake_by_ref();
        assert_eq!(polls.load(Relaxed), 3);
        drop(background);
        assert_eq!(Arc::strong_count(&polls), 1, "the future is dropped");
        waker.wake();
        assert_eq!(polls.load(Relaxed), 3);
    }
}
