//! Futures that run when their owner says so, on its thread.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Relaxed, Release},
        },
    },
    task::{Context, Wake, Waker},
    thread::{self, ThreadId},
};

/// How often those are polled that wake each other, before others have a turn.
const ROUNDS: usize = 64;

/// Each is polled when it was woken, by [`run`](Self::run).
pub(super) struct Tasks {
    tasks: BTreeMap<u64, Task>,
    woken: Arc<Woken>,
}

struct Task {
    future: Pin<Box<dyn Future<Output = ()>>>,
    waker: Arc<TaskWaker>,
}

impl Tasks {
    /// None yet. The waker is woken when another thread than this one wakes a task.
    pub(super) fn new(elsewhere: Waker) -> Self {
        Self {
            tasks: BTreeMap::new(),
            woken: Arc::new(Woken {
                owner: thread::current().id(),
                elsewhere,
                lists: Mutex::default(),
            }),
        }
    }

    /// To run tasks from within a task.
    pub(super) fn spawner(&self) -> Spawner {
        Spawner(Arc::clone(&self.woken))
    }

    /// A task of that number, which is another one for each.
    pub(super) fn insert(&mut self, number: u64, task: impl Future<Output = ()> + 'static) {
        self.add(number, Box::pin(task));
    }

    fn add(&mut self, number: u64, future: Pin<Box<dyn Future<Output = ()>>>) {
        let waker = Arc::new(TaskWaker {
            number,
            queued: AtomicBool::new(false),
            woken: Arc::clone(&self.woken),
        });
        waker.wake_by_ref();
        self.tasks.insert(number, Task { future, waker });
    }

    /// Whether there is anything to run.
    pub(super) fn is_ready(&self) -> bool {
        let lists = self.woken.lock();
        !lists.numbers.is_empty() || !lists.spawned.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tasks.is_empty() && !self.is_ready()
    }

    /// Polls those that were woken until none is, or it is the turn of others.
    pub(super) fn run(&mut self) {
        for _ in 0..ROUNDS {
            let lists = mem::take(&mut *self.woken.lock());
            if lists.numbers.is_empty() && lists.spawned.is_empty() {
                return;
            }
            for future in lists.spawned {
                self.add(next_number(), future);
            }
            for number in lists.numbers {
                self.poll(number);
            }
        }
    }

    fn poll(&mut self, number: u64) {
        let Some(task) = self.tasks.get_mut(&number) else {
            return;
        };
        task.waker.queued.store(false, Release);
        let waker = Waker::from(Arc::clone(&task.waker));
        let polled = task.future.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            self.tasks.remove(&number);
        }
    }
}

/// A number that no task of this process has.
pub(super) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Relaxed)
}

/// Runs tasks beside the others of a [`Client`](super::Client): what a runtime that connects for it
/// spawns with.
#[derive(Clone)]
pub struct Spawner(Arc<Woken>);

impl Spawner {
    /// Runs a task beside the others, in the turns of the client, until it ends or the client is
    /// dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.lock().spawned.push(Box::pin(task));
        self.0.tell();
    }
}

impl fmt::Debug for Spawner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spawner").finish_non_exhaustive()
    }
}

/// What there is to run.
struct Woken {
    owner: ThreadId,
    elsewhere: Waker,
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    /// The tasks that were woken, in order.
    numbers: VecDeque<u64>,
    /// Those that were spawned.
    spawned: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Woken {
    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner finds out by itself, unless it sleeps.
    fn tell(&self) {
        if thread::current().id() != self.owner {
            self.elsewhere.wake_by_ref();
        }
    }
}

struct TaskWaker {
    number: u64,
    /// It is among those that were woken.
    queued: AtomicBool,
    woken: Arc<Woken>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, AcqRel) {
            self.woken.lock().numbers.push_back(self.number);
            self.woken.tell();
        }
    }
}
