//! The bounds of operations, and the faults.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    process,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    thread,
    time::{Duration, Instant},
};

use amqp_tokio::Connection;

use crate::{meter::uncounted, random::Random};

/// The delay of an operation beyond its own deadline: that of a machine with much else to do.
pub(crate) const SLACK: Duration = Duration::from_secs(60);

/// How many faults are kept; the first is the one to look at.
const FAULTS_MAX: usize = 20;

/// Which run it is, for messages.
#[derive(Clone, Debug)]
pub(crate) struct Label {
    pub(crate) seed: u64,
    pub(crate) seconds: u64,
    pub(crate) runtime: &'static str,
}

impl Label {
    /// How to run it again.
    pub(crate) fn again(&self) -> String {
        format!(
            "run again: STRESS_SEED={} STRESS_SECONDS={} cargo test -p amqp-tests --test stress -- --nocapture random_{}",
            self.seed, self.seconds, self.runtime
        )
    }
}

/// Watches over operations: each is to end within its bound.
#[derive(Debug)]
pub(crate) struct Watch {
    pub(crate) label: Label,
    board: Mutex<Board>,
    done: AtomicU64,
    over: AtomicBool,
}

#[derive(Debug, Default)]
struct Board {
    last: u64,
    running: BTreeMap<u64, Running>,
    faults: Vec<String>,
    /// The most that an operation took beyond its bound, and which.
    worst: (Duration, &'static str),
}

#[derive(Debug)]
struct Running {
    actor: String,
    operation: &'static str,
    begun: Instant,
    bound: Duration,
}

impl Watch {
    /// Begins to watch. A thread of its own ends the process when an operation hangs: the runtime
    /// may hang.
    pub(crate) fn start(label: Label) -> Arc<Self> {
        let watch = Arc::new(Self {
            label,
            board: Mutex::default(),
            done: AtomicU64::new(0),
            over: AtomicBool::new(false),
        });
        let watching = Arc::clone(&watch);
        thread::spawn(move || watching.look_out());
        watch
    }

    fn look_out(&self) {
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(100));
            let board = self.lock();
            let hung = board
                .running
                .values()
                .any(|it| it.begun.elapsed() > it.bound + SLACK);
            if hung {
                eprintln!("HUNG on {}; all that is under way:", self.label.runtime);
                for it in board.running.values() {
                    let (taken, bound) = (it.begun.elapsed(), it.bound);
                    let mark = if taken > bound + SLACK { "HUNG " } else { "" };
                    eprintln!(
                        "  {mark}{}: {} since {taken:.1?}, bound {bound:?}",
                        it.actor, it.operation
                    );
                }
                for fault in &board.faults {
                    eprintln!("  fault before: {fault}");
                }
                eprintln!("seed {}; {}", self.label.seed, self.label.again());
                process::exit(1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the watching.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    /// Notes a fault.
    pub(crate) fn fault(&self, text: String) {
        let text = uncounted(|| text.clone());
        let mut board = self.lock();
        if board.faults.len() < FAULTS_MAX {
            uncounted(|| board.faults.push(text));
        }
    }

    pub(crate) fn faults(&self) -> Vec<String> {
        self.lock().faults.clone()
    }

    /// How many operations have ended.
    pub(crate) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The most that an operation took beyond its bound, and which.
    pub(crate) fn worst(&self) -> (Duration, &'static str) {
        self.lock().worst
    }

    /// Runs an operation that is to end within its bound.
    pub(crate) async fn bounded<T>(
        &self,
        actor: &str,
        operation: &'static str,
        bound: Duration,
        future: impl Future<Output = T>,
    ) -> T {
        let begun = Instant::now();
        let number = {
            let mut board = self.lock();
            board.last += 1;
            let number = board.last;
            uncounted(|| {
                let actor = actor.to_owned();
                let running = Running {
                    actor,
                    operation,
                    begun,
                    bound,
                };
                board.running.insert(number, running)
            });
            number
        };
        // Also when it is dropped.
        let _entry = Entry {
            watch: self,
            number,
        };
        let output = future.await;
        let over = begun.elapsed().saturating_sub(bound);
        let mut board = self.lock();
        if over > board.worst.0 {
            board.worst = (over, operation);
        }
        output
    }

    /// Runs an operation as [`bounded`](Self::bounded) does, and gives it up at times: after a few
    /// polls, or after a very short time by the connection's clock.
    pub(crate) async fn attempt<T>(
        &self,
        actor: &str,
        random: &mut Random,
        connection: &Connection,
        operation: &'static str,
        bound: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        match random.below(20) {
            0..=1 => {
                let polls = random.within(1, 3);
                self.bounded(actor, operation, bound, cut(polls, future))
                    .await
            }
            2..=3 => {
                let limit = Duration::from_micros(random.below(8000));
                let future = connection.within(limit, future);
                self.bounded(actor, operation, limit, future).await
            }
            _ => Some(self.bounded(actor, operation, bound, future).await),
        }
    }
}

struct Entry<'a> {
    watch: &'a Watch,
    number: u64,
}

impl Drop for Entry<'_> {
    fn drop(&mut self) {
        self.watch.done.fetch_add(1, Ordering::Relaxed);
        let mut board = self.watch.lock();
        uncounted(|| drop(board.running.remove(&self.number)));
    }
}

/// The output of a future, unless it takes more than so many polls: it is dropped then.
async fn cut<T>(polls: u64, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = polls;
    poll_fn(move |cx| {
        left -= 1;
        match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}
