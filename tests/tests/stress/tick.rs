//! How long others wait: tasks of the runtime, and threads of the machine for comparison.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use amqp_tests::Runtime;

/// How long each sleep is to take.
const TICK: Duration = Duration::from_millis(3);

/// The longest that a short sleep took beyond its time.
#[derive(Debug, Default)]
struct Worst(AtomicU64);

impl Worst {
    fn note(&self, begun: Instant) {
        let late = begun.elapsed().saturating_sub(TICK);
        let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_max(micros, Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }
}

/// A task and a thread that sleep again and again.
#[derive(Debug)]
pub(crate) struct Ticker {
    over: Arc<AtomicBool>,
    task: Arc<Worst>,
    thread: Arc<Worst>,
    handle: Option<JoinHandle<()>>,
}

impl Ticker {
    pub(crate) fn start(runtime: &'static dyn Runtime) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (task, thread) = (Arc::new(Worst::default()), Arc::new(Worst::default()));
        let (until, worst) = (Arc::clone(&over), Arc::clone(&task));
        runtime.spawn(Box::pin(async move {
            while !until.load(Ordering::Relaxed) {
                let begun = Instant::now();
                runtime.sleep(TICK).await;
                worst.note(begun);
            }
        }));
        let (until, worst) = (Arc::clone(&over), Arc::clone(&thread));
        let handle = thread::spawn(move || {
            while !until.load(Ordering::Relaxed) {
                let begun = Instant::now();
                thread::sleep(TICK);
                worst.note(begun);
            }
        });
        Self {
            over,
            task,
            thread,
            handle: Some(handle),
        }
    }

    /// The worst waits: of the task, and of the thread.
    pub(crate) fn end(mut self) -> (Duration, Duration) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.take() {
            let _panicked = handle.join();
        }
        (self.task.get(), self.thread.get())
    }
}
