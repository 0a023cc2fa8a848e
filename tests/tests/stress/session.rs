//! The life of connections: opened with random limits, used by actors, ended in some way, again.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use amqp_tests::{Boxed, Runtime};
use amqp_tokio::{
    Channel, Config, Connection, Error, Prefetch,
    core::{ApiMisuse, Limits, Timeouts},
    protocol::ReplyCode,
};

use crate::{consume, ledger::Ledger, publish, random::Random, watch::Watch};

/// The deadlines of one connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadlines {
    pub(crate) request: Duration,
    /// With the eighth that it may be late.
    pub(crate) confirm: Duration,
    pub(crate) publish: Duration,
    pub(crate) flush: Duration,
    pub(crate) checkout: Duration,
}

/// Where much goes wrong.
const WILD: Deadlines = Deadlines {
    request: Duration::from_secs(2),
    confirm: Duration::from_millis(1125),
    publish: Duration::from_millis(400),
    flush: Duration::from_millis(1500),
    checkout: Duration::from_millis(1500),
};

/// Where nothing goes wrong: no call is to take as long, however busy the machine is. A deadline
/// that is reached hides a wake-up that was lost.
const CALM: Deadlines = Deadlines {
    request: Duration::from_secs(10),
    confirm: Duration::from_secs(9),
    publish: Duration::from_secs(10),
    flush: Duration::from_secs(10),
    checkout: Duration::from_secs(10),
};

/// No operation takes as long where nothing goes wrong: an alarm that is kept for its deadline wakes
/// it, even if nothing else has.
const PATIENCE: Duration = Duration::from_secs(8);

/// The deadline of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(4);
/// The deadline of a close, which begins anew with each progress of the output.
const CLOSE: Duration = Duration::from_millis(1500);
/// By then all that waits on a connection that has ended has to know.
const ENDED: Duration = Duration::from_secs(1);

/// The state that all actors of a run share.
pub(crate) struct World {
    pub(crate) runtime: &'static dyn Runtime,
    pub(crate) watch: Arc<Watch>,
    pub(crate) uri: String,
    pub(crate) seed: u64,
    /// A ledger for each session.
    pub(crate) ledgers: Vec<Ledger>,
    pub(crate) stop: AtomicBool,
    /// The server and the line behave.
    pub(crate) calm: AtomicBool,
    /// How many sessions count on that.
    pub(crate) in_calm: AtomicUsize,
}

/// The state that the actors of one connection share.
pub(crate) struct Session {
    pub(crate) world: Arc<World>,
    /// Which of the sessions it is, which has a queue of its own.
    pub(crate) number: usize,
    pub(crate) queue: String,
    pub(crate) frame_max: u32,
    pub(crate) deadlines: Deadlines,
    /// It began while the server and the line behaved, and ends so.
    pub(crate) calm: bool,
    stop: AtomicBool,
    actors: AtomicUsize,
}

impl Session {
    pub(crate) fn watch(&self) -> &Watch {
        &self.world.watch
    }

    pub(crate) fn ledger(&self) -> &Ledger {
        &self.world.ledgers[self.number]
    }

    pub(crate) fn is_over(&self, connection: &Connection) -> bool {
        self.stop.load(Ordering::Relaxed) || connection.close_reason().is_some()
    }

    pub(crate) async fn sleep(&self, millis: u64) {
        let time = Duration::from_millis(millis);
        self.world.runtime.sleep(time).await;
    }

    /// Notes an error that no course of events explains.
    pub(crate) fn check(&self, actor: &str, operation: &str, error: &Error) {
        let explained = match error {
            Error::Misuse(misuse) => matches!(
                misuse,
                ApiMisuse::ConnectionNotOpen | ApiMisuse::ChannelNotOpen
            ),
            Error::Internal(_) => false,
            Error::Unanswered { .. } | Error::TimedOut { .. } => !self.calm,
            Error::ChannelClosed(_) | Error::ConnectionClosed(_) => {
                // Queues are deleted.
                let usual = matches!(
                    error.code(),
                    None | Some(ReplyCode::SUCCESS | ReplyCode::NOT_FOUND)
                );
                usual || !self.calm
            }
            _ => true,
        };
        if !explained {
            self.watch()
                .fault(format!("{actor}: {operation} failed: {error:?}"));
        }
    }
}

/// One actor's part.
pub(crate) struct Actor {
    pub(crate) session: Arc<Session>,
    pub(crate) connection: Connection,
    pub(crate) random: Random,
    pub(crate) name: String,
}

impl Actor {
    pub(crate) fn is_over(&self) -> bool {
        self.session.is_over(&self.connection)
    }

    /// Runs an operation that is to end within its bound, and gives it up at times.
    pub(crate) async fn attempt<T>(
        &mut self,
        operation: &'static str,
        bound: Duration,
        future: impl Future<Output = T>,
    ) -> Option<T> {
        let begun = Instant::now();
        let output = self
            .session
            .world
            .watch
            .attempt(
                &self.name,
                &mut self.random,
                &self.connection,
                operation,
                bound,
                future,
            )
            .await;
        self.check_patience(operation, begun);
        output
    }

    /// Where nothing goes wrong, nothing takes long.
    fn check_patience(&self, operation: &str, begun: Instant) {
        let taken = begun.elapsed();
        if self.session.calm && taken > PATIENCE {
            self.session
                .watch()
                .fault(format!("{}: {operation} took {taken:?}", self.name));
        }
    }

    /// Runs an operation that is to end within its bound.
    pub(crate) async fn bounded<T>(
        &self,
        operation: &'static str,
        bound: Duration,
        future: impl Future<Output = T>,
    ) -> T {
        let begun = Instant::now();
        let watch = self.session.watch();
        let output = watch.bounded(&self.name, operation, bound, future).await;
        self.check_patience(operation, begun);
        output
    }

    /// Opens a channel, which may fail and is given up at times.
    pub(crate) async fn open_channel(&mut self) -> Option<Channel> {
        let (connection, bound) = (self.connection.clone(), self.session.deadlines.request);
        self.tried("open_channel", bound, connection.open_channel())
            .await
    }

    /// Runs an operation that may fail, and gives it up at times.
    pub(crate) async fn tried<T>(
        &mut self,
        operation: &'static str,
        bound: Duration,
        future: impl Future<Output = Result<T, Error>>,
    ) -> Option<T> {
        match self.attempt(operation, bound, future).await? {
            Ok(output) => Some(output),
            Err(error) => {
                self.session.check(&self.name, operation, &error);
                // A failing call fails at once, again and again.
                self.session.sleep(1).await;
                None
            }
        }
    }
}

/// Counts an actor until it is dropped.
struct Counted(Arc<Session>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.actors.fetch_sub(1, Ordering::Release);
    }
}

/// Limits that are reached all the time.
fn configure(config: &mut Config, calm: bool, random: &mut Random) {
    let high = random.pick(&[4096, 8192, 16 << 10]);
    config.limits = Limits::default()
        .body(256 << 10)
        .output_high(high)
        .output_low(high / 4)
        .output_backlog(random.pick(&[1, 4096, 64 << 10]))
        .unconfirmed(usize::try_from(random.within(1, 5)).unwrap_or(1))
        .undelivered(random.pick(&[64 << 10, 128 << 10, 256 << 10]));
    config.limits.assembly = 1 << 20;
    let deadlines = if calm { CALM } else { WILD };
    config.heartbeat = calm.then_some(0);
    config.timeouts = Timeouts::default()
        .request(deadlines.request)
        .confirm(deadlines.confirm * 8 / 9)
        .publish(deadlines.publish)
        .flush(deadlines.flush)
        .checkout(deadlines.checkout)
        .handshake(HANDSHAKE)
        .close(CLOSE)
        .unread(Duration::from_millis(300));
    config.prefetch = random.pick(&[
        Prefetch::Count(1),
        Prefetch::OfBuffer(30),
        Prefetch::Unlimited,
    ]);
}

/// Runs a session until the world stops.
pub(crate) async fn run(world: Arc<World>, number: usize) {
    let mut random = Random::part(world.seed, &[1, number as u64]);
    let mut round = 0;
    while !world.stop.load(Ordering::Relaxed) {
        round += 1;
        world.in_calm.fetch_add(1, Ordering::SeqCst);
        let mut leave = Some(Leave(&world.in_calm));
        let calm = world.calm.load(Ordering::SeqCst);
        if !calm {
            leave = None;
        }
        let mood = if calm { "calm" } else { "wild" };
        let name = format!("{mood} session {number}, round {round}");
        let frame_max = random.pick(&[4096, 8192, 128 << 10]);
        let mut limits = random.clone();
        random.next();
        let connecting = world.runtime.connect(
            world.uri.clone(),
            Box::new(move |options| {
                let config = &mut options.config;
                config.frame_max = frame_max;
                configure(config, calm, &mut limits);
            }),
        );
        let connected = world
            .watch
            .bounded(&name, "connect", HANDSHAKE, connecting)
            .await;
        let Ok(connection) = connected else {
            world.runtime.sleep(Duration::from_millis(5)).await;
            continue;
        };
        let session = Arc::new(Session {
            world: Arc::clone(&world),
            number,
            queue: queue(number),
            frame_max,
            deadlines: if calm { CALM } else { WILD },
            calm,
            stop: AtomicBool::new(false),
            actors: AtomicUsize::new(0),
        });
        let path = [2, number as u64, round];
        act(&session, connection, &name, &mut random, &path).await;
        drop(leave);
    }
}

/// Counts a session in calm until it is dropped.
struct Leave<'a>(&'a AtomicUsize);

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The queue of a session.
pub(crate) fn queue(session: usize) -> String {
    format!("order.{session}")
}

/// Lets actors work on a connection until it ends, in one way or another.
async fn act(
    session: &Arc<Session>,
    connection: Connection,
    name: &str,
    random: &mut Random,
    path: &[u64],
) {
    let world = &session.world;
    let pool_size = usize::try_from(random.within(1, 3)).unwrap_or(1);
    let opening = connection.channel_pool(pool_size);
    let pool = world
        .watch
        .bounded(name, "channel_pool", 2 * session.deadlines.request, opening)
        .await;
    let mut number = 0;
    let mut spawn = |kind: &str, run: &dyn Fn(Actor) -> Boxed<()>| {
        number += 1;
        let mut path = path.to_vec();
        path.push(number);
        let actor = Actor {
            session: Arc::clone(session),
            connection: connection.clone(),
            random: Random::part(world.seed, &path),
            name: format!("{name}, {kind} {number}"),
        };
        session.actors.fetch_add(1, Ordering::Relaxed);
        let (counted, work) = (Counted(Arc::clone(session)), run(actor));
        world.runtime.spawn(Box::pin(async move {
            let _counted = counted;
            work.await;
        }));
    };
    spawn("taker", &|actor| Box::pin(consume::take(actor)));
    spawn("flooder", &|actor| Box::pin(publish::flood(actor)));
    for _ in 0..2 {
        spawn("publisher", &|actor| Box::pin(publish::plain(actor)));
        spawn("confirmer", &|actor| Box::pin(publish::confirmed(actor)));
        spawn("drifter", &|actor| Box::pin(consume::drift(actor)));
    }
    spawn("transactor", &|actor| Box::pin(publish::transacted(actor)));
    spawn("asker", &|actor| Box::pin(consume::ask(actor)));
    if let Ok(pool) = pool {
        for _ in 0..=pool_size {
            let pool = pool.clone();
            spawn("pooled", &move |actor| {
                Box::pin(publish::pooled(actor, pool.clone()))
            });
        }
    }
    let life = random.within(100, 1200);
    for _ in 0..life / 10 {
        let over = world.stop.load(Ordering::Relaxed)
            || session.calm != world.calm.load(Ordering::Relaxed);
        if over || connection.close_reason().is_some() {
            break;
        }
        session.sleep(10).await;
    }
    end(session, connection, name, random).await;
}

async fn end(session: &Session, connection: Connection, name: &str, random: &mut Random) {
    let watch = session.watch();
    // The end of a connection wakes all: a wake-up that was lost shows only without one.
    let way = if session.calm && random.percent(50) {
        3
    } else {
        random.below(4)
    };
    let deadlines = session.deadlines;
    match way {
        0 => {
            // The actors see it by themselves.
            let limit = CLOSE + deadlines.request;
            let _closed = watch
                .bounded(name, "close", limit, connection.close())
                .await;
        }
        1 => connection.abort(),
        2 => {
            let closing = connection.close();
            let limit = Duration::from_micros(random.below(5000));
            let closed = connection.within(limit, closing);
            let _closed = watch.bounded(name, "close within", limit, closed).await;
        }
        // The last handle is dropped.
        _ => session.stop.store(true, Ordering::Relaxed),
    }
    let states = connection.states();
    if way != 3 {
        let limit = CLOSE + deadlines.request;
        watch
            .bounded(name, "closed", limit, connection.closed())
            .await;
    }
    drop(connection);
    let gone = async {
        while session.actors.load(Ordering::Acquire) > 0 {
            session.sleep(2).await;
        }
    };
    // At the most an actor has a confirm to wait for, and a request behind it.
    let limit = if way == 3 {
        deadlines.confirm + deadlines.request + deadlines.publish
    } else {
        ENDED
    };
    watch
        .bounded(name, "the end of all actors", limit, gone)
        .await;
    let mut states = states;
    let last = async { while states.next().await.is_some() {} };
    watch
        .bounded(name, "the last state", CLOSE + deadlines.request, last)
        .await;
}
