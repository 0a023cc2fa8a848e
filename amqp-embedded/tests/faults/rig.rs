//! A broker and its clients in one thread, joined by pipes, under a clock that goes on to the next
//! alarm whenever nothing is left to do.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    future::Future,
    io,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker, ready},
    time::Duration,
};

use amqp_driver::{
    Config, Connection,
    core::{Instant, Transmit},
    io::{Pipe, Timer, Transport, pipe},
};
use amqp_embedded::{
    SharedBroker,
    broker::{self, Broker, ByteFaults, ConnectionKey},
};
use bytes::BytesMut;

/// After this many polls without coming to rest, something runs in circles.
const POLLS_MAX: usize = 2_000_000;

/// The common clock; clones have alarms of their own.
pub(crate) struct Clock {
    time: Arc<Mutex<Time>>,
    alarm: u64,
}

#[derive(Default)]
struct Time {
    now: Instant,
    alarms: BTreeMap<u64, (Instant, Waker)>,
}

static ALARMS: AtomicU64 = AtomicU64::new(0);

impl Clock {
    fn new() -> Self {
        let time = Time {
            // Not the origin, so that nothing is right by chance.
            now: Instant::ORIGIN + Duration::from_secs(1000),
            ..Time::default()
        };
        Self {
            time: Arc::new(Mutex::new(time)),
            alarm: 0,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Time> {
        self.time.lock().unwrap()
    }

    /// Lets the time go on to the next alarm; false if there is none until `end`.
    fn go_on(&self, end: Instant) -> bool {
        let mut time = self.lock();
        let due = time.alarms.iter().map(|(id, (at, _))| (*at, *id)).min();
        let Some((at, id)) = due.filter(|(at, _)| *at <= end) else {
            return false;
        };
        time.now = time.now.max(at);
        let (_, waker) = time.alarms.remove(&id).unwrap();
        drop(time);
        waker.wake();
        true
    }
}

impl Clone for Clock {
    fn clone(&self) -> Self {
        Self {
            time: Arc::clone(&self.time),
            alarm: ALARMS.fetch_add(1, SeqCst) + 1,
        }
    }
}

impl Drop for Clock {
    fn drop(&mut self) {
        self.lock().alarms.remove(&self.alarm);
    }
}

impl Timer for Clock {
    fn now(&self) -> Instant {
        self.lock().now
    }

    fn clock(&self) -> amqp_driver::io::Clock {
        let clock = self.clone();
        Arc::new(move || clock.now())
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>, at: Option<Instant>) -> Poll<()> {
        let mut time = self.time.lock().unwrap();
        time.alarms.remove(&self.alarm);
        let Some(at) = at else {
            return Poll::Pending;
        };
        if at <= time.now {
            return Poll::Ready(());
        }
        time.alarms.insert(self.alarm, (at, cx.waker().clone()));
        Poll::Pending
    }
}

/// A client's view of its transport: times and byte counts; 0 is the end.
pub(crate) type Trace = Arc<Mutex<Vec<(Instant, Seen)>>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Read(usize),
    Wrote(usize),
}

/// How many bytes a client has read, and the largest number of them at a time.
pub(crate) fn read(trace: &Trace) -> (usize, usize) {
    let trace = trace.lock().unwrap();
    let reads = trace.iter().map(|(_, seen)| match seen {
        Seen::Read(count) => *count,
        Seen::Wrote(_) => 0,
    });
    (reads.clone().sum(), reads.max().unwrap_or(0))
}

pub(crate) fn written(trace: &Trace) -> usize {
    let trace = trace.lock().unwrap();
    let writes = trace.iter().map(|(_, seen)| match seen {
        Seen::Wrote(count) => *count,
        Seen::Read(_) => 0,
    });
    writes.sum()
}

/// A client's end of a pipe, with a record of the bytes.
struct Recorded {
    pipe: Pipe,
    clock: Clock,
    trace: Trace,
    deaf: Arc<Deaf>,
}

impl Recorded {
    fn note(&self, seen: Seen) {
        let mut trace = self.trace.lock().unwrap();
        trace.push((self.clock.now(), seen));
    }
}

/// Whether a client reads nothing.
#[derive(Default)]
pub(crate) struct Deaf(AtomicBool, Mutex<Option<Waker>>);

impl Deaf {
    pub(crate) fn set(&self, deaf: bool) {
        self.0.store(deaf, SeqCst);
        if let Some(waker) = self.1.lock().unwrap().take() {
            waker.wake();
        }
    }
}

/// The broker's end of a pipe: it keeps written bytes until it is flushed, as TLS does.
struct Buffered {
    pipe: Pipe,
    held: Transmit,
    /// The action at its first write.
    hook: Option<Hook>,
    of: Arc<OnceLock<(SharedBroker, ConnectionKey)>>,
}

/// Something that another thread could do at any time.
pub(crate) type Hook = Box<dyn FnOnce(&SharedBroker, ConnectionKey) + Send>;

impl Transport for Recorded {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        if self.deaf.0.load(SeqCst) {
            *self.deaf.1.lock().unwrap() = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let read = self.pipe.poll_read(cx, buf);
        if let Poll::Ready(Ok(count)) = &read {
            self.note(Seen::Read(*count));
        }
        read
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        let written = self.pipe.poll_write(cx, out);
        if let Poll::Ready(Ok(count)) = &written {
            self.note(Seen::Wrote(*count));
        }
        written
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pipe.poll_close(cx)
    }
}

/// How much the broker's end keeps.
const HELD_MAX: usize = 16 << 10;

impl Transport for Buffered {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.pipe.poll_read(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        if let Some(hook) = self.hook.take() {
            let (broker, key) = self.of.get().unwrap();
            hook(broker, *key);
        }
        if self.held.len() >= HELD_MAX {
            ready!(self.poll_flush(cx))?;
        }
        let count = out.len().min(HELD_MAX - self.held.len());
        out.move_front(count, &mut self.held);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.held.is_empty() {
            ready!(self.pipe.poll_write(cx, &mut self.held))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        self.pipe.poll_close(cx)
    }
}

#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

struct Running {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    woken: Arc<Woken>,
}

/// The output of a task.
pub(crate) struct Task<T>(Rc<RefCell<Option<T>>>);

impl<T> Task<T> {
    pub(crate) fn is_done(&self) -> bool {
        self.0.borrow().is_some()
    }

    pub(crate) fn take(&self) -> Option<T> {
        self.0.borrow_mut().take()
    }
}

/// A client of the broker, and both ends' drivers.
pub(crate) struct Client {
    pub(crate) connection: Connection,
    pub(crate) key: ConnectionKey,
    pub(crate) trace: Trace,
    pub(crate) deaf: Arc<Deaf>,
    /// The drivers.
    pub(crate) ours: Task<()>,
    pub(crate) theirs: Task<()>,
}

pub(crate) struct Rig {
    pub(crate) broker: SharedBroker,
    clock: Clock,
    tasks: Vec<Running>,
}

impl Rig {
    pub(crate) fn new(seed: u64) -> Self {
        let mut config = broker::Config::default().seed(seed);
        config.server.heartbeat = 10;
        Self {
            broker: SharedBroker::new(Broker::new(config).unwrap()),
            clock: Clock::new(),
            tasks: Vec::new(),
        }
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.now()
    }

    pub(crate) fn clock(&self) -> Clock {
        self.clock.clone()
    }

    /// Sets the faults of a connection's bytes.
    pub(crate) fn faults(&self, key: ConnectionKey, faults: ByteFaults) {
        self.broker
            .with(|broker| broker.faults().bytes(key, faults));
    }

    /// Sets the faults of the next connection's bytes.
    pub(crate) fn faults_of_next(&self, faults: ByteFaults) {
        self.broker
            .with(|broker| broker.faults().bytes_of_next(1, faults));
    }

    pub(crate) fn spawn<T: 'static>(
        &mut self,
        future: impl Future<Output = T> + 'static,
    ) -> Task<T> {
        let result = Rc::new(RefCell::new(None));
        let done = Rc::clone(&result);
        let woken = Arc::<Woken>::default();
        woken.0.store(true, SeqCst);
        self.tasks.push(Running {
            future: Some(Box::pin(async move {
                let value = future.await;
                *done.borrow_mut() = Some(value);
            })),
            woken,
        });
        Task(result)
    }

    /// Begins a connection.
    pub(crate) fn begin(&mut self) -> Client {
        self.begin_with(None)
    }

    /// Begins a connection; the hook is called when the broker first writes to it.
    pub(crate) fn begin_with(&mut self, hook: Option<Hook>) -> Client {
        let (ours, theirs) = pipe();
        let of = Arc::<OnceLock<_>>::default();
        let theirs = Buffered {
            pipe: theirs,
            held: Transmit::new(),
            hook,
            of: Arc::clone(&of),
        };
        let driver = self.broker.accept(theirs, self.clock.clone()).unwrap();
        let key = driver.endpoint().key();
        of.get_or_init(|| (self.broker.clone(), key));
        let theirs = self.spawn(driver);
        let (trace, deaf) = (Trace::default(), Arc::<Deaf>::default());
        let transport = Recorded {
            pipe: ours,
            clock: self.clock.clone(),
            trace: Arc::clone(&trace),
            deaf: Arc::clone(&deaf),
        };
        let (connection, driver) =
            Connection::start(Config::default(), transport, self.clock.clone()).unwrap();
        let ours = self.spawn(driver);
        Client {
            connection,
            key,
            trace,
            deaf,
            ours,
            theirs,
        }
    }

    /// A connection that is open.
    pub(crate) fn connect(&mut self) -> Client {
        let client = self.begin();
        let connection = client.connection.clone();
        let opened = async move { connection.opened().await };
        self.complete(opened).unwrap();
        client
    }

    /// Runs until nothing is left to do at this time.
    pub(crate) fn settle(&mut self) {
        for _ in 0..POLLS_MAX {
            let mut rested = true;
            for task in &mut self.tasks {
                if !task.woken.0.swap(false, SeqCst) {
                    continue;
                }
                let waker = Waker::from(Arc::clone(&task.woken));
                if let Some(future) = &mut task.future {
                    rested = false;
                    if future
                        .as_mut()
                        .poll(&mut Context::from_waker(&waker))
                        .is_ready()
                    {
                        task.future = None;
                    }
                }
            }
            if rested {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// Lets that much time pass.
    pub(crate) fn pass(&mut self, time: Duration) {
        let end = self.now() + time;
        self.settle();
        while self.clock.go_on(end) {
            self.settle();
        }
        self.clock.lock().now = end;
    }

    /// Runs until a task is done, for as long as it takes.
    pub(crate) fn wait<T>(&mut self, task: &Task<T>) -> T {
        let end = self.now() + Duration::from_secs(1000);
        loop {
            self.settle();
            if let Some(result) = task.take() {
                return result;
            }
            assert!(self.clock.go_on(end), "it waits for ever");
        }
    }

    pub(crate) fn complete<T: 'static>(&mut self, future: impl Future<Output = T> + 'static) -> T {
        let task = self.spawn(future);
        self.wait(&task)
    }
}
