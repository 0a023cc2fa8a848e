//! A single-threaded executor, run in steps by its owner.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Relaxed},
        },
    },
    task::{Context, Wake, Waker},
    thread::{self, ThreadId},
};

/// The maximum rounds of one [`Tasks::run`], so that tasks that wake each other do not starve the
/// owner.
const ROUNDS: usize = 64;

/// The tasks. [`run`](Self::run) polls those that were woken. Spawned tasks, such as the driver,
/// are polled after all others, so that the output of these is written together.
pub(super) struct Tasks {
    tasks: BTreeMap<u64, Task>,
    scheduler: Arc<Scheduler>,
}

/// The origin of a task, which determines its run queue.
#[derive(Clone, Copy)]
enum Origin {
    Inserted,
    Spawned,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Arc<TaskWaker>,
}

impl Tasks {
    /// Creates an empty set. `owner_waker` is woken when another thread than this one wakes a task.
    pub(super) fn new(owner_waker: Waker) -> Self {
        Self {
            tasks: BTreeMap::new(),
            scheduler: Arc::new(Scheduler {
                owner: thread::current().id(),
                owner_waker,
                queues: Mutex::default(),
            }),
        }
    }

    /// Returns a handle to spawn tasks from within a task.
    pub(super) fn spawner(&self) -> Spawner {
        Spawner(Arc::clone(&self.scheduler))
    }

    /// Adds a task under that number, which must be unique.
    pub(super) fn insert(&mut self, number: u64, task: impl Future<Output = ()> + 'static) {
        self.add(number, Origin::Inserted, Box::pin(task));
    }

    fn add(&mut self, number: u64, origin: Origin, future: Pin<Box<dyn Future<Output = ()>>>) {
        let waker = Arc::new(TaskWaker {
            number,
            origin,
            queued: AtomicBool::new(false),
            scheduler: Arc::clone(&self.scheduler),
        });
        waker.wake_by_ref();
        self.tasks.insert(number, Task { future, waker });
    }

    /// Whether a task is woken or newly spawned.
    pub(super) fn is_ready(&self) -> bool {
        let queues = self.scheduler.lock();
        !queues.inserted.is_empty() || !queues.spawned.is_empty() || !queues.new.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && !self.is_ready()
    }

    /// Polls the woken tasks until none is left, or [`ROUNDS`] is reached.
    pub(super) fn run(&mut self) {
        for _ in 0..ROUNDS {
            let mut queues = self.scheduler.lock();
            let (mut woken, new) = (mem::take(&mut queues.inserted), mem::take(&mut queues.new));
            if woken.is_empty() {
                woken = mem::take(&mut queues.spawned);
            }
            drop(queues);
            if woken.is_empty() && new.is_empty() {
                return;
            }
            for future in new {
                self.add(next_number(), Origin::Spawned, future);
            }
            for number in woken {
                self.poll(number);
            }
        }
    }

    fn poll(&mut self, number: u64) {
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        task.waker.queued.swap(false, AcqRel);
        let waker = Waker::from(Arc::clone(&task.waker));
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            self.tasks.remove(&number);
        }
    }
}

/// Returns a number that is unique within the process.
pub(super) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// Spawns tasks into a [`Tasks`], which runs them.
#[derive(Clone)]
pub(super) struct Spawner(Arc<Scheduler>);

impl Spawner {
    /// Spawns a task, which runs until it ends or the [`Tasks`] is dropped.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().new.push(Box::pin(task));
        self.0.wake_owner();
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

/// The run queues, and the means to wake the owner.
struct Scheduler {
    owner: ThreadId,
    owner_waker: Waker,
    queues: Mutex<RunQueues>,
}

#[derive(Default)]
struct RunQueues {
    /// The woken tasks that were inserted, in order.
    inserted: Vec<u64>,
    /// The woken tasks that were spawned, in order.
    spawned: Vec<u64>,
    /// The newly spawned tasks.
    new: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Scheduler {
    fn lock(&self) -> MutexGuard<'_, RunQueues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes the owner if called on another thread. On its own thread the owner checks
    /// [`Tasks::is_ready`] before it sleeps.
    fn wake_owner(&self) {
        if thread::current().id() != self.owner {
            self.owner_waker.wake_by_ref();
        }
    }
}

struct TaskWaker {
    number: u64,
    origin: Origin,
    /// Whether the task is in a run queue.
    queued: AtomicBool,
    scheduler: Arc<Scheduler>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, AcqRel) {
            let mut queues = self.scheduler.lock();
            let woken = match self.origin {
                Origin::Inserted => &mut queues.inserted,
                Origin::Spawned => &mut queues.spawned,
            };
            woken.push(self.number);
            drop(queues);
            self.scheduler.wake_owner();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        future::{pending, poll_fn, ready},
        rc::Rc,
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        task::Poll,
    };

    use super::*;

    /// Counts the wake-ups.
    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn each_runs_when_it_was_woken_and_what_was_spawned_after_all_others() {
        let mut tasks = Tasks::new(Waker::noop().clone());
        let log = Rc::new(RefCell::new(Vec::new()));
        let wakers = Arc::new(Mutex::new(Vec::<Waker>::new()));
        let (told, spawner) = (Arc::clone(&wakers), tasks.spawner());
        spawner.spawn(poll_fn(move |cx| {
            told.lock().expect("nobody panics").push(cx.waker().clone());
            Poll::Pending
        }));
        tasks.run();
        assert!(!tasks.is_ready());
        for name in ["one", "two"] {
            let (log, wakers) = (Rc::clone(&log), Arc::clone(&wakers));
            tasks.insert(next_number(), async move {
                // The spawned task must be polled again, once.
                for waker in &*wakers.lock().expect("nobody panics") {
                    waker.wake_by_ref();
                }
                log.borrow_mut()
                    .push((name, wakers.lock().map_or(0, |it| it.len())));
            });
        }
        assert!(tasks.is_ready());
        tasks.run();
        assert_eq!(*log.borrow(), [("one", 1), ("two", 1)]);
        assert_eq!(wakers.lock().expect("nobody panics").len(), 2);
        assert!(!tasks.is_ready() && !tasks.is_empty());
    }

    #[test]
    fn those_that_wake_each_other_for_ever_let_others_run() {
        let mut tasks = Tasks::new(Waker::noop().clone());
        let polls = Rc::new(RefCell::new(0));
        let counted = Rc::clone(&polls);
        tasks.insert(
            next_number(),
            poll_fn(move |cx| {
                *counted.borrow_mut() += 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }),
        );
        tasks.run();
        assert_eq!(*polls.borrow(), ROUNDS);
        assert!(tasks.is_ready());
    }

    #[test]
    fn only_another_thread_wakes_the_owner() {
        let count = Arc::new(Count::default());
        let mut tasks = Tasks::new(Arc::clone(&count).into());
        let (tell, told) = std::sync::mpsc::channel();
        let mut first = true;
        tasks.insert(
            next_number(),
            poll_fn(move |cx| {
                if mem::take(&mut first) {
                    cx.waker().wake_by_ref();
                } else {
                    let _listening = tell.send(cx.waker().clone());
                }
                Poll::Pending
            }),
        );
        tasks.run();
        assert_eq!(count.0.load(SeqCst), 0);
        let waker = told.recv().expect("it was polled");
        let elsewhere = thread::spawn(move || waker.wake());
        elsewhere.join().expect("it did not panic");
        assert_eq!(count.0.load(SeqCst), 1);
        assert!(tasks.is_ready());
    }

    #[test]
    fn what_has_ended_or_was_never_there_can_be_woken() {
        let mut tasks = Tasks::new(Waker::noop().clone());
        tasks.insert(next_number(), ready(()));
        tasks.run();
        assert!(tasks.is_empty());
        tasks.insert(next_number(), pending());
        tasks.run();
        assert!(!tasks.is_empty() && !tasks.is_ready());
    }
}
