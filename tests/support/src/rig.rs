//! A little executor: it polls woken tasks, and notices missing wake-ups.

use std::{
    cell::RefCell,
    future::Future,
    pin::{Pin, pin},
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};

use amqp_driver::{
    BaseChannel, Channel, Config, ConfirmChannel, Connection, Consumer, ManualAck, TxChannel,
    core::{Instant, Limits, Timeouts, server},
    io::{ClientEndpoint, Driver},
    protocol::{basic, queue},
};

use super::{
    peer::Peer,
    world::{Clock, Hook, Shared, Wire, World},
};

/// After this many steps without coming to rest, and so many more for each byte that the transport
/// has moved, something runs in circles. A byte that moves alone takes a step of the driver and one of
/// the server, each twice if it has to be asked for again.
const STEPS_MAX: usize = 300_000;
const STEPS_PER_BYTE: u64 = 4;

/// The bytes that steps are added for: more than all buffers hold, so that frames which are answered
/// for ever are a circle too.
const BYTES_MAX: u64 = 1 << 20;

/// Remembers that it was woken, and how often.
#[derive(Debug, Default)]
pub struct Probe {
    woken: AtomicBool,
    count: AtomicUsize,
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Probe {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether it was woken since this was last asked.
    pub fn take(&self) -> bool {
        self.woken.swap(false, Ordering::SeqCst)
    }

    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    pub fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }

    pub fn poll<F: Future + ?Sized>(self: &Arc<Self>, future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(&Waker::from(Arc::clone(self))))
    }
}

/// The configuration of both sides.
#[derive(Debug)]
pub struct Setup {
    pub client: Config,
    pub server: server::Config,
    /// The seed of the order in which things happen; round robin without one.
    pub seed: Option<u64>,
}

impl Default for Setup {
    /// No heartbeats, so that nothing happens by itself.
    fn default() -> Self {
        let server = server::Config::default()
            .heartbeat(0)
            .timeouts(Timeouts::default().handshake(Duration::from_secs(100_000)))
            .limits(Limits::default().body(1 << 30));
        Self {
            client: Config::default(),
            server,
            seed: None,
        }
    }
}

/// The choice of the next task, when several have work.
#[derive(Clone, Debug)]
pub enum Order {
    RoundRobin,
    /// The state of a generator of numbers.
    Random(u64),
    /// The given choices, then always the first. Each choice is noted, with the number of
    /// alternatives.
    Script {
        choices: Vec<usize>,
        taken: Vec<(usize, usize)>,
    },
}

impl Order {
    pub const fn script(choices: Vec<usize>) -> Self {
        Self::Script {
            choices,
            taken: Vec::new(),
        }
    }

    /// The script that comes next when all are tried; none after the last.
    pub fn next_script(&self) -> Option<Vec<usize>> {
        let Self::Script { taken, .. } = self else {
            return None;
        };
        let last = taken.iter().rposition(|&(choice, of)| choice + 1 < of)?;
        let mut choices: Vec<usize> = taken[..=last].iter().map(|&(choice, _)| choice).collect();
        choices[last] += 1;
        Some(choices)
    }
}

struct Slot {
    /// None when it has ended, or was dropped.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    probe: Arc<Probe>,
}

/// A future that was spawned, and its output.
#[derive(Debug)]
pub struct Task<T> {
    at: usize,
    output: Rc<RefCell<Option<T>>>,
}

impl<T> Task<T> {
    /// Takes its output; `Some` once, when it has ended.
    pub fn take(&self) -> Option<T> {
        self.output.borrow_mut().take()
    }

    pub fn is_done(&self) -> bool {
        self.output.borrow().is_some()
    }
}

/// A driver that no rig runs.
pub type Apart = Driver<ClientEndpoint, Wire, Clock>;

/// A client and a server, and all that runs.
pub struct Rig {
    world: Shared,
    pub hook: Arc<Hook>,
    /// The driver is the first.
    tasks: Vec<Slot>,
    /// The task of the last turn.
    turn: usize,
    pub order: Order,
    /// How many steps were taken.
    pub steps: usize,
    /// How many futures have ended.
    ended: usize,
}

impl Rig {
    /// A connection that has just been made: nothing was polled yet.
    pub fn start(setup: Setup) -> (Self, Connection) {
        let world = Arc::new(Mutex::new(World::new(setup.server)));
        let hook = Arc::<Hook>::default();
        let wire = Wire(Arc::clone(&world), Arc::clone(&hook));
        let clock = Clock(Arc::clone(&world), Arc::clone(&hook));
        let (connection, driver) = Connection::start(setup.client, wire, clock).unwrap();
        let mut rig = Self {
            world,
            hook,
            tasks: Vec::new(),
            turn: 0,
            order: setup.seed.map_or(Order::RoundRobin, Order::Random),
            steps: 0,
            ended: 0,
        };
        rig.spawn(driver);
        (rig, connection)
    }

    /// A connection that is open.
    pub fn open_with(setup: Setup) -> (Self, Connection) {
        let (mut rig, connection) = Self::start(setup);
        rig.wait(connection.opened()).unwrap();
        (rig, connection)
    }

    pub fn open() -> (Self, Connection) {
        Self::open_with(Setup::default())
    }

    /// A connection that is open, with one channel.
    pub fn with_channel() -> (Self, Connection, Channel) {
        let (mut rig, connection) = Self::open();
        let channel = rig.channel(&connection);
        (rig, connection, channel)
    }

    /// A connection that is open, with one channel and its consumer. The client keeps so many bytes that are
    /// not taken.
    pub fn with_consumer(undelivered: usize) -> (Self, Connection, Channel, Consumer<ManualAck>) {
        let mut setup = Setup::default();
        setup.client.limits.undelivered = undelivered;
        let (mut rig, connection) = Self::open_with(setup);
        let channel = rig.channel(&connection);
        let consumer = rig.wait(channel.consume(basic::Consume::default()));
        (rig, connection, channel, consumer.unwrap())
    }

    /// A connection that is open, with one channel that confirms when the test says so.
    pub fn with_confirms() -> (Self, Connection, ConfirmChannel) {
        let (mut rig, connection) = Self::open();
        let channel = rig.confirm_channel(&connection);
        rig.peer().confirming = super::Confirming::ByHand;
        (rig, connection, channel)
    }

    pub fn channel(&mut self, connection: &Connection) -> Channel {
        self.wait(connection.open_channel()).unwrap()
    }

    pub fn confirm_channel(&mut self, connection: &Connection) -> ConfirmChannel {
        let channel = self.channel(connection);
        self.wait(channel.confirm_select()).unwrap()
    }

    pub fn tx_channel(&mut self, connection: &Connection) -> TxChannel {
        let channel = self.channel(connection);
        self.wait(channel.tx_select()).unwrap()
    }

    /// A transport and a clock for a connection that is not made.
    pub fn another(&self) -> (Wire, Clock) {
        let world = Arc::new(Mutex::new(World::new(Setup::default().server)));
        let hook = Arc::clone(&self.hook);
        (
            Wire(Arc::clone(&world), Arc::clone(&hook)),
            Clock(world, hook),
        )
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world
            .try_lock()
            .expect("the test does not hold it already")
    }

    pub fn peer(&self) -> PeerGuard<'_> {
        PeerGuard(self.world())
    }

    /// The driver, to be run elsewhere, and the world that it runs in.
    pub fn apart(setup: Setup) -> (Connection, Apart, Shared) {
        let world = Arc::new(Mutex::new(World::new(setup.server)));
        let hook = Arc::<Hook>::default();
        let wire = Wire(Arc::clone(&world), Arc::clone(&hook));
        let clock = Clock(Arc::clone(&world), hook);
        let (connection, driver) = Connection::start(setup.client, wire, clock).unwrap();
        (connection, driver, world)
    }

    // Running.

    pub fn spawn<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> Task<T> {
        let output = Rc::new(RefCell::new(None));
        let place = Rc::clone(&output);
        let probe = Probe::new();
        probe.woken.store(true, Ordering::SeqCst);
        self.tasks.push(Slot {
            future: Some(Box::pin(async move {
                let output = future.await;
                *place.borrow_mut() = Some(output);
            })),
            probe,
        });
        let at = self.tasks.len() - 1;
        Task { at, output }
    }

    /// Drops a future that was spawned.
    pub fn cancel<T>(&mut self, task: &Task<T>) {
        self.tasks[task.at].future = None;
    }

    /// Drops the driver.
    pub fn drop_driver(&mut self) {
        self.tasks[0].future = None;
    }

    /// Whether the driver has ended, or was dropped.
    pub fn driver_ended(&self) -> bool {
        self.tasks[0].future.is_none()
    }

    /// How often the driver was woken.
    pub fn driver_wakes(&self) -> usize {
        self.tasks[0].probe.count()
    }

    /// Polls the driver, whether it was woken or not.
    pub fn poll_driver(&mut self) {
        self.poll_task(0);
    }

    fn poll_task(&mut self, at: usize) {
        let slot = &mut self.tasks[at];
        slot.probe.take();
        let probe = Arc::clone(&slot.probe);
        if let Some(future) = &mut slot.future
            && probe.poll(future.as_mut()).is_ready()
        {
            slot.future = None;
            self.ended += 1;
        }
    }

    /// Lets one of the tasks with work run; false if there is none.
    pub fn step(&mut self) -> bool {
        let server = self.tasks.len();
        let mut ready: Vec<usize> = (0..server)
            .filter(|&at| self.tasks[at].future.is_some() && self.tasks[at].probe.is_woken())
            .collect();
        if self.world().server_ready() {
            ready.push(server);
        }
        if ready.is_empty() {
            return false;
        }
        let next = match &mut self.order {
            Order::Random(state) => {
                *state ^= *state << 13;
                *state ^= *state >> 7;
                *state ^= *state << 17;
                ready[usize::try_from(*state % ready.len() as u64).unwrap()]
            }
            Order::Script { choices, taken } if ready.len() > 1 => {
                let choice = choices.get(taken.len()).copied().unwrap_or(0);
                taken.push((choice, ready.len()));
                ready[choice]
            }
            Order::Script { .. } => ready[0],
            Order::RoundRobin => {
                let behind = ready.iter().find(|&&at| at > self.turn);
                *behind.unwrap_or(&ready[0])
            }
        };
        self.turn = next;
        self.steps += 1;
        if next == server {
            self.world().step_server();
        } else {
            self.poll_task(next);
        }
        true
    }

    /// Runs until no task has work, and checks that no task with work was left unwoken.
    pub fn run(&mut self) {
        self.settle();
        let hooked = self.hook.take();
        let before = self.progress();
        let alarm = self.alarm();
        for at in 0..self.tasks.len() {
            self.poll_task(at);
        }
        self.settle();
        assert_eq!(before, self.progress(), "a wake-up was lost");
        assert!(self.alarm() >= alarm, "the alarm was set too late");
        self.hook.put_back(hooked);
    }

    fn settle(&mut self) {
        let start = self.mark();
        while self.step() {
            self.check_circles(start);
        }
    }

    /// The steps and the bytes so far.
    fn mark(&self) -> (usize, u64) {
        let world = self.world();
        (self.steps, world.read + world.written)
    }

    /// Checks that there were not too many steps since the mark.
    fn check_circles(&self, (steps, bytes): (usize, u64)) {
        let taken = self.steps - steps;
        if taken >= STEPS_MAX {
            let moved = (self.mark().1 - bytes).min(BYTES_MAX);
            let more = usize::try_from(STEPS_PER_BYTE * moved).unwrap();
            assert!(taken < STEPS_MAX + more, "it runs in circles");
        }
    }

    /// When the driver wants to be woken at the latest.
    fn alarm(&self) -> Instant {
        let never = Instant::from_nanos(u64::MAX);
        self.world().alarm.as_ref().map_or(never, |&(at, _)| at)
    }

    /// A number for each kind of progress.
    fn progress(&self) -> (u64, u64, usize, usize) {
        let world = self.world();
        (world.read, world.written, self.ended, world.peer.saw.len())
    }

    /// Runs a future to its end, with everything else.
    pub fn wait<T>(&mut self, future: impl Future<Output = T>) -> T {
        let probe = Probe::new();
        let mut future = pin!(future);
        let start = self.mark();
        loop {
            if let Poll::Ready(output) = probe.poll(future.as_mut()) {
                return output;
            }
            while !probe.take() {
                self.check_circles(start);
                if !self.step() {
                    let forgotten = probe.poll(future.as_mut()).is_ready();
                    panic!("it hangs; ready without a wake-up: {forgotten}");
                }
            }
        }
    }

    /// The output of a future at its first poll; `Some` if it does not wait.
    pub fn ready<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        match Probe::new().poll(pin!(future)) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    /// Lets time pass, from deadline to deadline.
    pub fn advance(&mut self, span: Duration) {
        self.run();
        let end = self.world().now + span;
        loop {
            let next = self.world().next_deadline().filter(|&at| at <= end);
            let Some(at) = next else { break };
            self.world().set_now(at);
            self.run();
        }
        self.world().set_now(end);
        self.run();
    }

    // The end of every test.

    /// Makes sure that the connection can still be used.
    pub fn check_usable(&mut self, connection: &Connection) {
        let channel = self.channel(connection);
        self.check_channel(&channel);
        self.wait(channel.close()).unwrap();
    }

    pub fn check_channel(&mut self, channel: &BaseChannel) {
        let declare = queue::Declare::default().queue("usable");
        let declared = self.wait(channel.call(declare)).unwrap();
        assert_eq!(declared.queue, "usable");
    }

    /// Drops the last handle, and checks that all ends well: the server received the close, lost
    /// nothing, and noted no violation.
    pub fn finish(mut self, connection: Connection) {
        drop(connection);
        self.run();
        assert!(self.driver_ended(), "the driver has not ended");
        let peer = self.peer();
        assert_eq!(peer.violations, [""; 0]);
        assert!(peer.closed_in_good_order(), "{:?}", peer.closed());
    }
}

/// The server, while the world is locked.
pub struct PeerGuard<'a>(MutexGuard<'a, World>);

impl std::ops::Deref for PeerGuard<'_> {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.0.peer
    }
}

impl std::ops::DerefMut for PeerGuard<'_> {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.0.peer
    }
}
