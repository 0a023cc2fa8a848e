//! Tasks that end with their owner, on any runtime.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use crate::{harness, runtime::Boxed};

/// A task that runs beside its owner. Dropping this cancels it.
#[derive(Debug)]
pub struct Task<T>(Arc<Progress<T>>);

/// The task has panicked; with its message.
#[derive(Debug, PartialEq, Eq)]
pub struct Panicked(pub String);

/// The state that owner and task share.
#[derive(Debug)]
struct Progress<T>(Mutex<State<T>>);

#[derive(Debug)]
struct State<T> {
    outcome: Option<Result<T, Panicked>>,
    /// The task's future was dropped, with everything in it.
    ended: bool,
    cancelled: bool,
    /// Wakes the task, to be cancelled.
    task: Option<Waker>,
    owner: Option<Waker>,
}

impl<T> Progress<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cancel(&self) {
        let task = {
            let mut state = self.lock();
            state.cancelled = true;
            state.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl<T: Send + 'static> Task<T> {
    /// A task, and the future that some runtime has to run for it.
    pub(crate) fn new(future: Boxed<T>) -> (Self, Boxed<()>) {
        let progress = Arc::new(Progress(Mutex::new(State {
            outcome: None,
            ended: false,
            cancelled: false,
            task: None,
            owner: None,
        })));
        let work = Work {
            future: Some(future),
            progress: Arc::clone(&progress),
        };
        (Self(progress), Box::pin(work))
    }

    /// Waits until the task has ended, and returns its output.
    ///
    /// # Errors
    /// When it panicked.
    pub async fn join(self) -> Result<T, Panicked> {
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.ended
                && let Some(outcome) = state.outcome.take()
            {
                return Poll::Ready(outcome);
            }
            state.owner = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// Cancels the task, and waits until all that it had is dropped.
    pub async fn cancel(self) {
        self.0.cancel();
        poll_fn(|cx| {
            let mut state = self.0.lock();
            if state.ended {
                return Poll::Ready(());
            }
            state.owner = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Whether it has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.lock().ended
    }
}

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// The task as its runtime sees it.
struct Work<T> {
    /// None once it has ended.
    future: Option<Boxed<T>>,
    progress: Arc<Progress<T>>,
}

impl<T> Work<T> {
    fn end(&mut self, outcome: Option<Result<T, Panicked>>) {
        self.future = None; // before the end is reported
        let owner = {
            let mut state = self.progress.lock();
            state.outcome = outcome;
            state.ended = true;
            state.owner.take()
        };
        if let Some(owner) = owner {
            owner.wake();
        }
    }
}

impl<T> Future for Work<T> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let cancelled = {
            let mut state = self.progress.lock();
            state.task = Some(cx.waker().clone());
            state.cancelled
        };
        let Some(future) = self.future.as_mut().filter(|_| !cancelled) else {
            self.end(None);
            return Poll::Ready(());
        };
        let outcome = match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(value)) => Ok(value),
            Err(panic) => Err(Panicked::new(panic.as_ref())),
        };
        self.end(Some(outcome));
        Poll::Ready(())
    }
}

/// A runtime that ends drops its tasks.
impl<T> Drop for Work<T> {
    fn drop(&mut self) {
        if self.future.is_some() {
            self.end(None);
        }
    }
}

impl Panicked {
    fn new(panic: &(dyn Any + Send)) -> Self {
        Self(harness::message(panic).to_owned())
    }
}

impl std::fmt::Display for Panicked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "a task panicked: {}", self.0)
    }
}

impl std::error::Error for Panicked {}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::atomic::{AtomicBool, Ordering::SeqCst},
    };

    use super::*;
    use crate::{
        harness::Outcome,
        runtime::{Runtime, Tokio},
    };

    /// Tells when it is dropped.
    struct Held(Arc<AtomicBool>);

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.store(true, SeqCst);
        }
    }

    fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> Task<T> {
        let (task, work) = Task::new(Box::pin(future));
        Tokio::CurrentThread.spawn(work);
        task
    }

    fn run(test: impl Future<Output = Outcome> + 'static) {
        Tokio::CurrentThread
            .block_on(Box::pin(test))
            .expect("nothing fails");
    }

    #[test]
    fn the_output_of_a_task_is_returned() {
        run(async {
            assert_eq!(spawn(async { 42 }).join().await, Ok(42));
            let panicking = spawn(async { panic!("went {}", "wrong") });
            let panicked: Result<(), _> = panicking.join().await;
            assert_eq!(panicked, Err(Panicked("went wrong".into())));
            Ok(())
        });
    }

    #[test]
    fn a_cancelled_task_has_dropped_its_future() {
        run(async {
            for begun in [false, true] {
                let dropped = Arc::new(AtomicBool::new(false));
                let held = Held(Arc::clone(&dropped));
                let task = spawn(async move {
                    let _held = held;
                    pending::<()>().await;
                });
                if begun {
                    Tokio::CurrentThread
                        .sleep(std::time::Duration::from_millis(1))
                        .await;
                }
                assert!(!task.is_finished() && !dropped.load(SeqCst));
                task.cancel().await;
                assert!(dropped.load(SeqCst));
            }
            Ok(())
        });
    }

    #[test]
    fn a_task_ends_with_its_owner() {
        let dropped = Arc::new(AtomicBool::new(false));
        let held = Held(Arc::clone(&dropped));
        run(async move {
            let task = spawn(async move {
                let _held = held;
                pending::<()>().await;
            });
            drop(task);
            Tokio::CurrentThread
                .sleep(std::time::Duration::from_millis(1))
                .await;
            assert!(dropped.load(SeqCst));
            Ok(())
        });
    }
}
