//! A run on one runtime, and its result.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use amqp_tests::{
    Runtime,
    harness::{Failure, Outcome},
};
use amqp_tokio::{
    Connection,
    protocol::{basic, queue},
    wire::ShortStr,
};

use crate::{
    ledger::Ledger,
    meter,
    random::Random,
    server::{Mischief, Server},
    session::{self, World},
    tick::Ticker,
    watch::{Label, SLACK, Watch},
};

/// How many connections there are at a time.
const SESSIONS: usize = 3;

/// The memory that the client and the test may take, in bytes. Each of three connections holds at
/// most eight times 256 KiB of deliveries that nothing puts back, twice 256 KiB of others, 1 MiB in
/// assembly, 80 KiB of output and a message of 256 KiB beyond each bound, thus some 5 MiB; of its
/// actors each may have a message of 220 KiB in hand.
const MEMORY_MAX: isize = 24 << 20;

/// The most memory that may be left at the end, in bytes: that of a runtime.
const LEFT_MAX: isize = 8 << 20;

/// For so much of the time nothing goes wrong with the server and the line.
const CALM_PERCENT: u32 = 40;

/// How much longer than a thread of the machine a task may wait.
const TICK_RATIO: u32 = 4;
/// ... and this.
const TICK_MAX: Duration = Duration::from_millis(1000);

/// The result of a run.
#[derive(Debug)]
pub(crate) struct Row {
    runtime: &'static str,
    operations: u64,
    counts: BTreeMap<&'static str, u64>,
    worst: (Duration, &'static str),
    tick: (Duration, Duration),
    peak: isize,
    left: isize,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: isize| bytes as f64 / f64::from(1 << 20);
        let (over, operation) = self.worst;
        write!(
            f,
            "{:20}  {:>10}  {:>9.1?} {:16}  {:>9.1?} {:>9.1?}  {:>6.1} MiB {:>6.1} MiB ",
            self.runtime,
            self.operations,
            over,
            operation,
            self.tick.0,
            self.tick.1,
            mib(self.peak),
            mib(self.left),
        )?;
        let mut separator = "";
        for (outcome, count) in &self.counts {
            write!(f, "{separator} {outcome} {count}")?;
            separator = ",";
        }
        Ok(())
    }
}

pub(crate) const HEAD: &str = "runtime               operations  worst over its bound        tick: task   thread  memory: peak  left       publishes by outcome";

/// Runs on one runtime for so long.
pub(crate) fn on(
    runtime: &'static dyn Runtime,
    seed: u64,
    seconds: u64,
    rows: &Mutex<Vec<Row>>,
) -> Outcome {
    let label = Label {
        seed,
        seconds,
        runtime: runtime.name(),
    };
    println!("{}: seed {seed}; {}", label.runtime, label.again());
    let again = label.again();
    let server = Arc::new(Server::start(seed)?);
    let watch = Watch::start(label);
    let before = meter::reset();
    let ticks = Arc::new(Mutex::new(None));
    let world = Arc::new(World {
        runtime,
        watch: Arc::clone(&watch),
        uri: server.uri(),
        seed,
        ledgers: (0..SESSIONS).map(|_| Ledger::default()).collect(),
        stop: AtomicBool::new(false),
        calm: AtomicBool::new(true),
        in_calm: AtomicUsize::new(0),
    });
    let scenario = {
        let (world, ticks) = (Arc::clone(&world), Arc::clone(&ticks));
        // The runtime ends before the server does.
        let server = Arc::clone(&server);
        runtime.block_on(Box::pin(async move {
            let time = Duration::from_secs(seconds);
            live(&world, time, &server, &ticks).await?;
            server.calm();
            // What a lost connection has not acknowledged is in its queue once the server has
            // dropped it.
            gone(&world, &server).await?;
            drain(&world).await?;
            gone(&world, &server).await
        }))
    };
    watch.end();
    scenario.map_err(|error| format!("{error}\n{again}"))?;
    let (_, peak) = meter::read();
    let mut faults = watch.faults();
    let mut counts = BTreeMap::new();
    for ledger in &world.ledgers {
        faults.extend(ledger.settle());
        for (outcome, count) in ledger.counts().0 {
            *counts.entry(outcome).or_default() += count;
        }
        ledger.clear();
    }
    let tick = ticks
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .unwrap_or_default();
    let (held, _) = meter::read();
    let row = Row {
        runtime: runtime.name(),
        operations: watch.done(),
        counts,
        worst: watch.worst(),
        tick,
        peak: peak - before,
        left: held - before,
    };
    faults.extend(judge(&row));
    println!("{HEAD}\n{row}");
    rows.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(row);
    if faults.is_empty() {
        return Ok(());
    }
    Err(format!(
        "{} faults with seed {seed}:\n{}\n{again}",
        faults.len(),
        faults.join("\n")
    )
    .into())
}

fn judge(row: &Row) -> Vec<String> {
    let mut faults = Vec::new();
    let (task, thread) = row.tick;
    let tick_max = TICK_MAX + thread * TICK_RATIO;
    if task > tick_max {
        faults.push(format!(
            "a task that sleeps waited {task:?} longer, a thread {thread:?}; the bound is {tick_max:?}"
        ));
    }
    if row.peak > MEMORY_MAX {
        faults.push(format!(
            "{} bytes were held at once; the bound is {MEMORY_MAX}",
            row.peak
        ));
    }
    if row.left > LEFT_MAX {
        faults.push(format!(
            "{} bytes are left when all has ended; the bound is {LEFT_MAX}",
            row.left
        ));
    }
    let count = |outcome| row.counts.get(outcome).copied().unwrap_or_default();
    let reported: u64 = [
        "confirmed",
        "nacked",
        "returned",
        "possibly returned",
        "not sent",
        "unknown",
        "another",
        "left",
    ]
    .map(count)
    .iter()
    .sum();
    if reported != count("accepted") {
        faults.push(format!(
            "{} publishes with confirms were accepted, and {reported} outcomes reported or left",
            count("accepted")
        ));
    }
    faults
}

/// Lets all sessions live for so long, and end.
async fn live(
    world: &Arc<World>,
    time: Duration,
    server: &Server,
    ticks: &Mutex<Option<(Duration, Duration)>>,
) -> Outcome {
    let connection = connect(world).await?;
    declare(&connection).await?;
    connection.close().await?;
    let ticker = Ticker::start(world.runtime);
    let running = Arc::new(());
    for number in 0..SESSIONS {
        let (world, running) = (Arc::clone(world), Arc::clone(&running));
        world.runtime.spawn({
            let world = Arc::clone(&world);
            Box::pin(async move {
                let _running = running;
                session::run(world, number).await;
            })
        });
    }
    // Sessions that began in calm end so.
    world.runtime.sleep(time * CALM_PERCENT / 100).await;
    world.calm.store(false, Ordering::SeqCst);
    while world.in_calm.load(Ordering::SeqCst) > 0 {
        world.runtime.sleep(Duration::from_millis(10)).await;
    }
    let mischief = Mischief::start(server, Random::part(world.seed, &[3]));
    world.runtime.sleep(time * (100 - CALM_PERCENT) / 100).await;
    world.stop.store(true, Ordering::Relaxed);
    // Each operation has a bound of its own.
    while Arc::strong_count(&running) > 1 {
        world.runtime.sleep(Duration::from_millis(10)).await;
    }
    let mut measured = ticks.lock().unwrap_or_else(PoisonError::into_inner);
    *measured = Some(ticker.end());
    mischief.end();
    Ok(())
}

/// Connects without tiny limits, while nothing goes wrong.
async fn connect(world: &World) -> Result<Connection, Failure> {
    let connecting = world.runtime.connect(world.uri.clone(), Box::new(|_| ()));
    let limit = Duration::from_secs(10);
    world
        .watch
        .bounded("the test", "connect", limit, connecting)
        .await
}

async fn declare(connection: &Connection) -> Outcome {
    let channel = connection.open_channel().await?;
    for session in 0..SESSIONS {
        let declare = queue::Declare {
            queue: ShortStr::try_from(session::queue(session))?,
            ..Default::default()
        };
        channel.call(declare).await?;
    }
    Ok(())
}

/// Takes the remaining messages of the queues.
async fn drain(world: &World) -> Outcome {
    let connection = connect(world).await?;
    let channel = connection.open_channel().await?;
    for (session, ledger) in world.ledgers.iter().enumerate() {
        let get = basic::Get {
            queue: ShortStr::try_from(session::queue(session))?,
            no_ack: true,
        };
        let getting = async {
            while let Some(fetched) = channel.get(get.clone()).await? {
                let arrived = ledger.arrived(&fetched.body, fetched.method.redelivered);
                if let Err(wrong) = arrived {
                    world.watch.fault(format!("what was left: {wrong}"));
                }
            }
            Ok::<_, Failure>(())
        };
        let limit = Duration::from_secs(10);
        world
            .watch
            .bounded("the end", "drain", limit, getting)
            .await?;
    }
    let limit = Duration::from_secs(10);
    world
        .watch
        .bounded("the end", "close", limit, connection.close())
        .await?;
    Ok(())
}

/// Waits until the server has no connection.
async fn gone(world: &World, server: &Server) -> Outcome {
    let begun = Instant::now();
    while server.connections() > 0 {
        if begun.elapsed() > SLACK {
            let count = server.connections();
            return Err(format!("{count} connections are left with the server").into());
        }
        world.runtime.sleep(Duration::from_millis(10)).await;
    }
    Ok(())
}
