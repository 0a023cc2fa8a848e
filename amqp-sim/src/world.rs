//! The state of a simulation that its tasks share.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    task::Wake,
};

use amqp_driver::core::Instant;
use amqp_embedded::LocalBroker;

use crate::{
    alarms::{Alarms, Later},
    disk::Disk,
    network::Network,
    random::Random,
    runtime::SimRuntime,
    trace::Trace,
};

/// The number of a task.
pub(crate) type TaskId = usize;

/// A program, a broker node, or the test itself: what fails as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ProcessId(pub(crate) usize);

impl ProcessId {
    /// The test itself, which no fault strikes.
    pub(crate) const TEST: Self = Self(0);
}

/// A broker node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId(pub(crate) usize);

pub(crate) type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A world, and the parts of it that are used without its lock.
pub(crate) struct Shared {
    /// The virtual time, in nanoseconds.
    pub(crate) now: Arc<AtomicU64>,
    /// The process of the running task.
    current: AtomicUsize,
    /// The number of processes that are suspended.
    pub(crate) suspended: AtomicUsize,
    /// The tasks that were woken and are not in the executor's list yet.
    pub(crate) woken: Arc<Mutex<Vec<TaskId>>>,
    world: Mutex<World>,
}

/// The state behind the lock.
pub(crate) struct World {
    /// The source of what the network and the seeds depend on.
    pub(crate) random: Random,
    pub(crate) alarms: Alarms,
    pub(crate) processes: Vec<Process>,
    pub(crate) nodes: Vec<NodeState>,
    pub(crate) network: Network,
    /// The tasks that the executor has not taken yet.
    pub(crate) spawned: Vec<(ProcessId, Boxed)>,
    /// The world has ended: nothing is spawned any more.
    pub(crate) ended: bool,
    pub(crate) trace: Trace,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) name: Arc<str>,
    /// None of its tasks runs.
    pub(crate) suspended: bool,
    pub(crate) kind: ProcessKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProcessKind {
    /// The test itself.
    Test,
    /// A program that is to end.
    Program,
    /// A program that is started again.
    Service,
    Node(NodeId),
}

/// A broker node.
pub(crate) struct NodeState {
    pub(crate) process: ProcessId,
    pub(crate) broker: LocalBroker<SimRuntime>,
    /// `Some` with a journal.
    pub(crate) disk: Option<Disk>,
}

impl Shared {
    pub(crate) fn new(seed: u64, traced: bool) -> Arc<Self> {
        let test = Process {
            name: "test".into(),
            suspended: false,
            kind: ProcessKind::Test,
        };
        let mut random = Random::new(seed);
        Arc::new(Self {
            now: Arc::default(),
            current: AtomicUsize::new(ProcessId::TEST.0),
            suspended: AtomicUsize::new(0),
            woken: Arc::default(),
            world: Mutex::new(World {
                network: Network::new(random.fork()),
                random,
                alarms: Alarms::default(),
                processes: vec![test],
                nodes: Vec::new(),
                spawned: Vec::new(),
                ended: false,
                trace: Trace::new(traced),
            }),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(self.now.load(Relaxed))
    }

    pub(crate) fn set_now(&self, now: Instant) {
        self.now.store(now.as_nanos(), Relaxed);
    }

    pub(crate) fn current(&self) -> ProcessId {
        ProcessId(self.current.load(Relaxed))
    }

    /// Sets the process of the running task. Returns the one before.
    pub(crate) fn replace_current(&self, process: ProcessId) -> ProcessId {
        ProcessId(self.current.swap(process.0, Relaxed))
    }

    /// Suspends a process, or lets it go on.
    pub(crate) fn suspend(&self, process: ProcessId, suspended: bool) {
        let mut world = self.lock();
        if let Some(process) = world.processes.get_mut(process.0) {
            process.suspended = suspended;
        }
        let count = world.processes.iter().filter(|it| it.suspended).count();
        self.suspended.store(count, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` under the lock, and then wakes the tasks that it affects.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut World, &mut Later) -> T) -> T {
        let mut later = Later::default();
        let result = act(&mut self.lock(), &mut later);
        later.run();
        result
    }

    /// Writes a line into the trace, if there is one.
    pub(crate) fn note(&self, text: impl FnOnce(&World) -> String) {
        let now = self.now();
        let mut world = self.lock();
        if world.trace.is_on() {
            let text = text(&world);
            world.trace.note(now, text);
        }
    }
}

impl World {
    pub(crate) fn process_name(&self, process: ProcessId) -> &str {
        self.processes
            .get(process.0)
            .map_or("?", |process| &*process.name)
    }

    pub(crate) fn node_name(&self, node: NodeId) -> &str {
        let process = self.nodes.get(node.0).map(|node| node.process);
        process.map_or("?", |process| self.process_name(process))
    }

    /// The process of that name.
    pub(crate) fn find(&self, name: &str) -> Option<ProcessId> {
        let at = self.processes.iter().position(|it| &*it.name == name)?;
        Some(ProcessId(at))
    }

    /// The node of that name.
    pub(crate) fn find_node(&self, name: &str) -> Option<NodeId> {
        match self.processes.get(self.find(name)?.0)?.kind {
            ProcessKind::Node(node) => Some(node),
            _ => None,
        }
    }

    /// Adds a process, or returns that of the name.
    pub(crate) fn process(&mut self, name: &str, kind: ProcessKind) -> ProcessId {
        if let Some(process) = self.find(name) {
            return process;
        }
        self.processes.push(Process {
            name: name.into(),
            suspended: false,
            kind,
        });
        ProcessId(self.processes.len() - 1)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}

/// The waker of a task: adds it to the woken ones, once.
#[derive(Debug)]
pub(crate) struct TaskWaker {
    task: TaskId,
    woken: AtomicBool,
    list: Arc<Mutex<Vec<TaskId>>>,
}

impl TaskWaker {
    pub(crate) fn new(task: TaskId, shared: &Shared) -> Arc<Self> {
        Arc::new(Self {
            task,
            woken: AtomicBool::new(false),
            list: Arc::clone(&shared.woken),
        })
    }

    /// The task runs: from now on a wake-up counts again.
    pub(crate) fn reset(&self) {
        self.woken.store(false, Relaxed);
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.woken.swap(true, Relaxed) {
            let mut list = self.list.lock().unwrap_or_else(PoisonError::into_inner);
            list.push(self.task);
        }
    }
}
