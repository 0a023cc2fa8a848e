//! The load: three publishers and two consumers, each with a connection of its own.

use std::{
    collections::VecDeque,
    fmt::Write as _,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use amqp_tokio::{
    BaseChannel, Config, Connection, Options, connect_with,
    core::dial::{Address, Order},
    protocol::{exchange, queue},
    recovery::{Backoff, Policy, RecoveryEvent, RecoveryEvents},
    wire::FieldTable,
};
use tokio::runtime::Runtime;

use crate::{
    Result, consumer,
    ledger::{Balance, Counts, Ledger},
    publisher,
};

pub(crate) const PUBLISHERS: usize = 3;
pub(crate) const QUEUES: usize = 2;

/// The exchange that all messages are published to.
pub(crate) const EXCHANGE: &str = "recovery";

/// The heartbeat interval in seconds: a silent peer is given up after two of them.
const HEARTBEAT: u16 = 1;

/// The least and the greatest delay between attempts to connect.
pub(crate) const DELAYS: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(500)];

/// The number of changes of a connection that are kept.
const CHANGES: usize = 40;

/// The time without any progress after which the load hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The settings of the load.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) addresses: Vec<Address>,
    /// The type of the queues.
    pub(crate) queue_type: &'static str,
    pub(crate) seed: u64,
    /// The interval between two messages of a publisher.
    pub(crate) interval: Duration,
}

/// The state that publishers and consumers share with the faults.
#[derive(Debug)]
pub(crate) struct Shared {
    ledger: Mutex<Ledger>,
    /// The number of faults so far. A message carries that of its publish, so that its confirm and
    /// its delivery prove that everything works since.
    epoch: AtomicU32,
    /// No new messages are published.
    stopping: AtomicBool,
    /// The connections are to be closed: ends are no faults.
    closing: AtomicBool,
    workers: Vec<Worker>,
}

/// A publisher or a consumer, as the faults see it.
#[derive(Debug)]
pub(crate) struct Worker {
    name: String,
    /// The latest epoch that has come through.
    reached: AtomicU32,
    /// The latest changes of its connection.
    changes: Mutex<VecDeque<String>>,
}

impl Worker {
    /// The latest changes of its connection.
    pub(crate) fn tell(&self, count: usize) -> String {
        let mut text = format!("      {}:", self.name);
        let changes = lock(&self.changes);
        for change in changes.iter().skip(changes.len().saturating_sub(count)) {
            let _infallible = write!(text, "\n        {change}");
        }
        text
    }
}

impl Shared {
    fn new() -> Self {
        let names = (0..PUBLISHERS).map(|it| format!("publisher {it}"));
        let names = names.chain((0..QUEUES).map(|it| format!("consumer {it}")));
        let worker = |name| Worker {
            name,
            reached: AtomicU32::default(),
            changes: Mutex::default(),
        };
        Self {
            ledger: Mutex::new(Ledger::new(PUBLISHERS)),
            epoch: AtomicU32::default(),
            stopping: AtomicBool::default(),
            closing: AtomicBool::default(),
            workers: names.map(worker).collect(),
        }
    }

    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch.load(SeqCst)
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(SeqCst)
    }

    pub(crate) fn is_closing(&self) -> bool {
        self.closing.load(SeqCst)
    }

    /// Records that a message of that epoch has come through.
    pub(crate) fn reach(&self, worker: usize, epoch: u32) {
        self.workers[worker].reached.fetch_max(epoch, SeqCst);
    }
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    pub(crate) shared: Arc<Shared>,
    connections: Vec<Connection>,
}

impl Load {
    /// Opens the connections, and starts publishers and consumers on them.
    pub(crate) async fn start(settings: &Settings) -> Result<Self> {
        let shared = Arc::new(Shared::new());
        let mut connections = Vec::new();
        for worker in 0..PUBLISHERS + QUEUES {
            let connection = connect_with(&options(settings, worker)).await?;
            let events = connection.recovery_events();
            tokio::spawn(watch(Arc::clone(&shared), worker, events));
            connections.push(connection);
        }
        for (queue, connection) in connections[PUBLISHERS..].iter().enumerate() {
            let (shared, connection) = (Arc::clone(&shared), connection.clone());
            let declares = Declares::of(&[queue], settings.queue_type)?;
            declares.declare(&*connection.open_channel().await?).await?;
            tokio::spawn(consumer::run(shared, connection, queue, declares));
        }
        for (publisher, connection) in connections[..PUBLISHERS].iter().enumerate() {
            let (shared, connection) = (Arc::clone(&shared), connection.clone());
            let declares = Declares::of(&[0, 1], settings.queue_type)?;
            declares.declare(&*connection.open_channel().await?).await?;
            let interval = settings.interval;
            tokio::spawn(publisher::run(shared, publisher, connection, interval));
        }
        Ok(Self {
            shared,
            connections,
        })
    }

    /// Begins the next epoch, and waits until each publisher and consumer has worked in it. Returns
    /// the time, and the last one of them.
    pub(crate) fn wait_until_back(&self) -> Result<(Duration, &Worker)> {
        let epoch = self.shared.epoch.fetch_add(1, SeqCst) + 1;
        let since = Instant::now();
        let mut last = &self.shared.workers[0];
        loop {
            let is_away = |worker: &&Worker| worker.reached.load(SeqCst) < epoch;
            let away: Vec<_> = self.shared.workers.iter().filter(is_away).collect();
            match away[..] {
                [] => return Ok((since.elapsed(), last)),
                [worker, ..] => last = worker,
            }
            if since.elapsed() > PATIENCE {
                return Err(hang(&away).into());
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub(crate) fn counts(&self) -> Counts {
        self.shared.ledger().counts
    }

    /// Ends the load: all messages are confirmed and consumed, then the connections closed.
    pub(crate) fn finish(self, runtime: &Runtime) -> Result<Balance> {
        self.shared.stopping.store(true, SeqCst);
        let (mut moved, mut last) = (Instant::now(), (0, 0));
        let balance = loop {
            let (balance, counts) = {
                let ledger = self.shared.ledger();
                (ledger.balance(), ledger.counts)
            };
            let now = (counts.confirmed, counts.processed);
            let is_confirmed = counts.confirmed >= counts.messages && balance.missing == 0;
            if now != last {
                (moved, last) = (Instant::now(), now);
            } else if is_confirmed && moved.elapsed() > Duration::from_millis(500) {
                // With messages left they are lost: nothing comes any more.
                if balance.lost == 0 || moved.elapsed() > PATIENCE / 6 {
                    break balance;
                }
            } else if moved.elapsed() > PATIENCE {
                let all: Vec<_> = self.shared.workers.iter().collect();
                let missing = balance.missing;
                let hang = hang(&all);
                return Err(format!("{missing} attempts have no outcome\n{hang}").into());
            }
            thread::sleep(Duration::from_millis(50));
        };
        self.shared.closing.store(true, SeqCst);
        for connection in self.connections {
            let closing = async { tokio::time::timeout(PATIENCE, connection.close()).await };
            let closed = runtime.block_on(closing);
            closed.map_err(|_| "a connection does not close")??;
        }
        Ok(balance)
    }
}

/// Options of a connection that recovers.
pub(crate) fn options(settings: &Settings, worker: usize) -> Options {
    let seed = settings.seed.wrapping_mul(1000) + worker as u64;
    let backoff = Backoff::default().first(DELAYS[0]).max(DELAYS[1]);
    Options::default()
        .addresses(settings.addresses.clone())
        .order(Order::Shuffled { seed })
        .recovery(Policy::new(seed).backoff(backoff))
        .config(Config::default().heartbeat(HEARTBEAT))
}

/// The declarations of a publisher or a consumer.
#[derive(Clone, Debug)]
pub(crate) struct Declares {
    exchange: exchange::Declare,
    queues: Vec<(queue::Declare, queue::Bind)>,
}

impl Declares {
    fn of(queues: &[usize], queue_type: &str) -> Result<Self> {
        let exchange = exchange::Declare::default().exchange(EXCHANGE);
        let queue = |queue: &usize| {
            let name = queue_name(*queue);
            let arguments = FieldTable::default().with("x-queue-type", queue_type);
            let declare = queue::Declare::default().queue(name.as_str());
            let bind = queue::Bind::default().queue(name.as_str());
            Ok((
                declare.durable(true).arguments(arguments),
                bind.exchange(EXCHANGE).routing_key(name),
            ))
        };
        Ok(Self {
            exchange: exchange.kind("direct").durable(true),
            queues: queues.iter().map(queue).collect::<Result<_>>()?,
        })
    }

    pub(crate) async fn declare(&self, channel: &BaseChannel) -> Result<(), amqp_tokio::Error> {
        channel.call(self.exchange.clone()).await?;
        for (declare, bind) in &self.queues {
            channel.call(declare.clone()).await?;
            channel.call(bind.clone()).await?;
        }
        Ok(())
    }
}

pub(crate) fn queue_name(queue: usize) -> String {
    format!("recovery-{queue}")
}

/// Counts the changes of a connection, and keeps the latest.
async fn watch(shared: Arc<Shared>, worker: usize, mut events: RecoveryEvents) {
    while let Some(change) = events.next().await {
        let mut ledger = shared.ledger();
        match &change.event {
            RecoveryEvent::Lost(_) => ledger.counts.lost_connections += 1,
            RecoveryEvent::Recovered(report) | RecoveryEvent::ChannelRecovered { report, .. } => {
                ledger.counts.recovered_connections += 1;
                ledger.counts.failed_steps += report.failures.len() as u64;
                for failure in &report.failures {
                    eprintln!("  a step of a recovery has failed: {failure}");
                }
            }
            _ => {}
        }
        drop(ledger);
        let worker = &shared.workers[worker];
        let mut changes = lock(&worker.changes);
        if changes.len() == CHANGES {
            changes.pop_front();
        }
        changes.push_back(change.to_string());
    }
}

/// The description of a hang.
fn hang(workers: &[&Worker]) -> String {
    let mut text = format!("nothing has moved for {PATIENCE:?}:");
    for worker in workers {
        let _infallible = write!(text, "\n{}", worker.tell(CHANGES));
    }
    text
}

/// A task that panicked leaves the account as good as it was.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
