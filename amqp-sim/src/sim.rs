//! A simulation.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use amqp_driver::{Connector, Options, core::Instant, core::dial::Order};
use amqp_embedded::{LocalBroker, broker};

use crate::{
    actions::Action,
    disk::Disk,
    executor::Executor,
    fault::{Fault, Step},
    faults::{Faults, Targets},
    node::Node,
    outcome::Outcome,
    random::Random,
    runtime::SimRuntime,
    trace::Trace,
    world::{NodeId, NodeState, ProcessId, ProcessKind, Shared},
};

/// The time of day at the start of a simulation: 2023-11-14 22:13:20 UTC.
const EPOCH: u64 = 1_700_000_000;

/// The bounds of a simulation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) steps: u64,
    pub(crate) time: Duration,
    /// Wake-ups are checked each so many times that no task has work; never if 0.
    pub(crate) wakeups: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            steps: 1_000_000,
            time: Duration::from_secs(24 * 3600),
            wakeups: 64,
        }
    }
}

/// A simulation: programs, broker nodes and the network between them, in one thread and in virtual
/// time. All that happens in it follows from its seed.
///
/// [`check`](crate::check()) makes one for each seed. Clones are the same simulation: a task may
/// have one. The time passes only when no task has work, and then at once to the next event.
///
/// A failure is a panic with the reason: of an assertion in a task or behind [`run`](Self::run), of
/// a [program](Self::spawn) that returns an error, and of a simulation that does not end.
#[derive(Clone)]
pub struct Sim(pub(crate) Rc<Inner>);

pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    pub(crate) executor: Executor,
    pub(crate) actions: RefCell<BTreeMap<(Instant, u64), Action>>,
    last_action: Cell<u64>,
    pub(crate) seed: u64,
    pub(crate) bounds: Bounds,
    /// The number of times that no task had work.
    pub(crate) rests: Cell<u64>,
    random: RefCell<Random>,
    /// The kinds of random faults, to be drawn when the simulation begins to run.
    faults: RefCell<Vec<Faults>>,
    /// The generator of the faults, which nothing else disturbs.
    fault_random: RefCell<Random>,
    /// All steps that were drawn or given.
    steps: RefCell<Vec<Step>>,
    /// `Some` to take only the steps with these numbers.
    kept: Option<BTreeSet<usize>>,
    /// The main tasks that have ended.
    pub(crate) ends: Rc<RefCell<Vec<MainEnd>>>,
    /// The programs that have not ended.
    pub(crate) programs: RefCell<Vec<ProcessId>>,
    pub(crate) services: RefCell<BTreeMap<ProcessId, Rc<Factory>>>,
    pub(crate) checks: RefCell<Vec<(String, Box<Check>)>>,
}

/// The end of a main task, with the reason for a failure.
type MainEnd = (ProcessId, Option<String>);
type Factory = dyn Fn(&Sim);
type Check = dyn FnMut() -> Result<(), String>;

impl Sim {
    /// Creates a simulation with a seed. [`check`](crate::check()) makes one for each of many.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with(seed, false, None, Bounds::default())
    }

    /// Creates a simulation with a seed that keeps its [trace](Self::trace).
    #[must_use]
    pub fn traced(seed: u64) -> Self {
        Self::with(seed, true, None, Bounds::default())
    }

    pub(crate) fn with(
        seed: u64,
        traced: bool,
        kept: Option<BTreeSet<usize>>,
        bounds: Bounds,
    ) -> Self {
        let mut random = Random::new(seed);
        Self(Rc::new(Inner {
            executor: Executor::new(random.fork()),
            fault_random: RefCell::new(random.fork()),
            shared: Shared::new(random.next(), traced),
            random: RefCell::new(random),
            actions: RefCell::default(),
            last_action: Cell::new(0),
            seed,
            bounds,
            rests: Cell::new(0),
            faults: RefCell::default(),
            steps: RefCell::default(),
            kept,
            ends: Rc::default(),
            programs: RefCell::default(),
            services: RefCell::default(),
            checks: RefCell::default(),
        }))
    }

    /// The seed.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The virtual time since the start.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.instant() - Instant::ORIGIN
    }

    pub(crate) fn instant(&self) -> Instant {
        self.0.shared.now()
    }

    /// Returns a generator of random numbers from the seed, another one at each call.
    #[must_use]
    pub fn random(&self) -> Random {
        self.0.random.borrow_mut().fork()
    }

    // The world.

    /// Starts a broker node, with the configuration of a fresh RabbitMQ.
    ///
    /// # Panics
    /// If the name is in use.
    pub fn node(&self, name: &str) -> Node {
        self.node_with(name, broker::Config::default())
    }

    /// Starts a broker node. Its seed is that of the simulation; so is its time of day, unless
    /// [`epoch`](broker::Config::epoch) is set. With [`journal`](broker::Config::journal) it has a
    /// disk: confirms of persistent messages wait for it, [`Fault::SlowDisk`] makes it slow, and a
    /// node that was killed starts with what the disk had stored.
    ///
    /// # Panics
    /// If the name is in use, or the configuration contradicts itself.
    pub fn node_with(&self, name: &str, config: broker::Config) -> Node {
        let (seed, epoch) = (self.random().next(), config.epoch.unwrap_or(EPOCH));
        let config = config.seed(seed).epoch(epoch);
        let disk = config.journal.then(|| Disk::new(config.clone()));
        let has_disk = disk.is_some();
        let shared = &self.0.shared;
        let process = shared.with(|world, _| {
            let node = NodeId(world.nodes.len());
            let taken = world.find(name).is_some();
            (!taken).then(|| world.process(name, ProcessKind::Node(node)))
        });
        let Some(process) = process else {
            panic!("the name {name:?} is in use");
        };
        let runtime = SimRuntime::new(Arc::clone(shared), Some(process));
        let broker = match LocalBroker::on(runtime, config) {
            Ok(broker) => broker,
            Err(error) => panic!("the node {name:?} cannot start: {error}"),
        };
        let kept = broker.clone();
        shared.with(|world, _| {
            world.nodes.push(NodeState {
                process,
                broker: kept,
                disk,
            });
        });
        if has_disk {
            self.start_disk(process, &broker);
        }
        Node::new(name.into(), broker)
    }

    /// Returns a connector for a URI with names of nodes as hosts: `amqp://rabbit1,rabbit2`.
    ///
    /// # Panics
    /// If the URI is malformed.
    #[must_use]
    pub fn connector(&self, uri: &str) -> Connector {
        match Options::from_uri(uri) {
            Ok(options) => self.connector_with(options),
            Err(error) => panic!("{error}"),
        }
    }

    /// Returns a connector for options. The seeds in it, of the recovery and of a shuffled order of
    /// addresses, become those of the simulation.
    #[must_use]
    pub fn connector_with(&self, mut options: Options) -> Connector {
        let mut random = self.random();
        if let Some(policy) = &mut options.recovery {
            policy.seed = random.next();
        }
        if let Order::Shuffled { seed } = &mut options.order {
            *seed = random.next();
        }
        Connector::new(self.runtime(), options)
    }

    /// Returns the runtime, for what a connector does not do.
    #[must_use]
    pub fn runtime(&self) -> SimRuntime {
        SimRuntime::new(Arc::clone(&self.0.shared), None)
    }

    /// Starts a program that is to end: [`run`](Self::run) waits for it. An error that it returns
    /// fails the simulation. It needs not be [`Send`].
    ///
    /// Programs of one name are one process: [`Fault`]s strike all of it.
    pub fn spawn<T: Outcome>(&self, name: &str, program: impl Future<Output = T> + 'static) {
        let process = self.process(name, ProcessKind::Program);
        self.0.programs.borrow_mut().push(process);
        self.start(process, program);
    }

    /// Starts a program that runs for ever, by a function that starts it. When it ends, for whatever
    /// reason but a panic, or is killed by [`Fault::Crash`], it is started again, as by a
    /// supervisor.
    ///
    /// # Panics
    /// If a service of that name exists.
    pub fn service<F>(&self, name: &str, start: impl Fn() -> F + 'static)
    where
        F: Future + 'static,
        F::Output: Outcome,
    {
        let process = self.process(name, ProcessKind::Service);
        let factory = move |sim: &Self| sim.start(process, start());
        let factory: Rc<Factory> = Rc::new(factory);
        let before = self
            .0
            .services
            .borrow_mut()
            .insert(process, Rc::clone(&factory));
        assert!(before.is_none(), "the name {name:?} is in use");
        factory(self);
    }

    fn process(&self, name: &str, kind: ProcessKind) -> ProcessId {
        let (process, found) = self.0.shared.with(|world, _| {
            let process = world.process(name, kind);
            (process, world.processes[process.0].kind)
        });
        assert!(found == kind, "the name {name:?} is in use");
        process
    }

    /// Starts the main task of a process.
    fn start<T: Outcome>(&self, process: ProcessId, program: impl Future<Output = T> + 'static) {
        let ends = Rc::clone(&self.0.ends);
        let main = async move {
            let failure = program.await.failure();
            ends.borrow_mut().push((process, failure));
        };
        self.0
            .executor
            .spawn(&self.0.shared, process, Box::pin(main));
    }

    /// Adds random faults, which are drawn from the seed when the simulation begins to run.
    pub fn faults(&self, faults: Faults) {
        self.0.faults.borrow_mut().push(faults);
    }

    /// Adds a fault at a time since the start. It is one of the steps to which a failure is
    /// reduced.
    pub fn at(&self, at: Duration, fault: Fault) {
        self.add_step(Step { at, fault });
    }

    /// Lets a fault occur now.
    ///
    /// # Panics
    /// If the fault names a process, node or link that does not exist.
    pub fn inject(&self, fault: Fault) {
        self.apply(&fault);
    }

    /// Sets the latency of the network without faults. Default 0.1 to 1 ms.
    pub fn latency(&self, min: Duration, max: Duration) {
        self.0
            .shared
            .with(|world, _| world.network.latency = (min, max));
    }

    /// Adds a condition that has to hold always: it is checked each time that no task has work. An
    /// error fails the simulation.
    pub fn always(&self, name: &str, check: impl FnMut() -> Result<(), String> + 'static) {
        let mut checks = self.0.checks.borrow_mut();
        checks.push((name.into(), Box::new(check)));
    }

    // Running.

    /// Runs until all [programs](Self::spawn) have ended.
    ///
    /// # Panics
    /// If the simulation fails: see [`Sim`].
    pub fn run(&self) {
        self.begin();
        while !self.0.programs.borrow().is_empty() {
            if !self.turn(None) {
                self.fail("nothing can happen any more");
            }
        }
    }

    /// Runs until a future is ready, and returns its output. The future belongs to the test itself,
    /// which no fault strikes.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn block_on<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> T {
        self.begin();
        let output = Rc::new(RefCell::new(None));
        let place = Rc::clone(&output);
        let task = async move {
            let output = future.await;
            *place.borrow_mut() = Some(output);
        };
        let shared = &self.0.shared;
        self.0
            .executor
            .spawn(shared, ProcessId::TEST, Box::pin(task));
        loop {
            if let Some(output) = output.borrow_mut().take() {
                return output;
            }
            if !self.turn(None) {
                self.fail("nothing can happen any more");
            }
        }
    }

    /// Lets a time pass.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn advance(&self, time: Duration) {
        self.begin();
        let end = self.instant() + time;
        while self.turn(Some(end)) {}
        self.0.shared.set_now(end);
    }

    /// Runs until a condition holds, which is checked each time that no task has work.
    ///
    /// # Panics
    /// As [`run`](Self::run), and if it does not hold after `limit`.
    pub fn wait_until(&self, limit: Duration, mut condition: impl FnMut() -> bool) {
        self.begin();
        let end = self.instant() + limit;
        while !condition() {
            if !self.turn(Some(end)) {
                self.fail(&format!("the condition does not hold after {limit:?}"));
            }
        }
    }

    /// Draws the random faults.
    fn begin(&self) {
        let all = std::mem::take(&mut *self.0.faults.borrow_mut());
        if all.is_empty() {
            return;
        }
        let targets = self.0.shared.with(|world, _| {
            let mut targets = Targets::default();
            for process in &world.processes {
                let name = Arc::clone(&process.name);
                match process.kind {
                    ProcessKind::Test => {}
                    ProcessKind::Program => targets.programs.push(name),
                    ProcessKind::Service => {
                        targets.services.push(Arc::clone(&name));
                        targets.programs.push(name);
                    }
                    ProcessKind::Node(_) => targets.nodes.push(name),
                }
            }
            targets
        });
        for faults in all {
            let random = &mut self.0.fault_random.borrow_mut();
            for step in faults.draw(self.now(), &targets, random) {
                self.add_step(step);
            }
        }
    }

    fn add_step(&self, step: Step) {
        let mut steps = self.0.steps.borrow_mut();
        let number = steps.len();
        let is_kept = self
            .0
            .kept
            .as_ref()
            .is_none_or(|kept| kept.contains(&number));
        if is_kept {
            let action = Action::Fault(step.fault.clone());
            self.schedule(Instant::from_origin(step.at), action);
        }
        steps.push(step);
    }

    pub(crate) fn schedule(&self, at: Instant, action: Action) {
        self.0.last_action.set(self.0.last_action.get() + 1);
        let key = (at, self.0.last_action.get());
        self.0.actions.borrow_mut().insert(key, action);
    }

    // What was.

    /// The faults so far, those to come included: their numbers, and the faults.
    #[must_use]
    pub fn steps(&self) -> Vec<Step> {
        let steps = self.0.steps.borrow();
        let kept = |number| {
            self.0
                .kept
                .as_ref()
                .is_none_or(|kept| kept.contains(&number))
        };
        let numbered = steps.iter().enumerate();
        let steps = numbered.filter(|(number, _)| kept(*number));
        steps.map(|(_, step)| step.clone()).collect()
    }

    /// The number of all steps, with those that were not kept.
    pub(crate) fn step_count(&self) -> usize {
        self.0.steps.borrow().len()
    }

    /// The trace so far: empty unless the simulation keeps one.
    #[must_use]
    pub fn trace(&self) -> Trace {
        self.0.shared.with(|world, _| world.trace.clone())
    }

    /// The number of times that a task has run.
    #[must_use]
    pub fn polls(&self) -> u64 {
        self.0.executor.steps()
    }

    /// Ends all tasks and nodes.
    pub(crate) fn end(&self) {
        let shared = &self.0.shared;
        shared.with(|world, _| world.ended = true);
        self.0.executor.clear();
        self.0.services.borrow_mut().clear();
        self.0.checks.borrow_mut().clear();
        let rest = shared.with(|world, later| {
            world.alarms.take_all(later);
            (
                std::mem::take(&mut world.nodes),
                std::mem::take(&mut world.spawned),
            )
        });
        drop(rest);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let shared = &self.shared;
        self.executor.clear();
        let rest = shared.with(|world, later| {
            world.ended = true;
            world.alarms.take_all(later);
            (
                std::mem::take(&mut world.nodes),
                std::mem::take(&mut world.spawned),
            )
        });
        drop(rest);
    }
}

impl fmt::Debug for Sim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sim")
            .field("seed", &self.0.seed)
            .field("now", &self.now())
            .finish_non_exhaustive()
    }
}
