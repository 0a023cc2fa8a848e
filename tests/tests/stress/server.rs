//! The embedded broker, on threads that do not count, and its faults.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use amqp_tests::harness::Failure;
use amqp_tokio::{
    LocalBroker,
    broker::{ByteFaults, Config, ConfirmFault, ConnectionKey, Impairment},
    protocol::ReplyCode,
    serve,
};
use tokio::{net::TcpListener, runtime::Builder, sync::oneshot};

use crate::{meter, random::Random};

/// The broker in a thread of its own.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    broker: LocalBroker,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(seed: u64) -> Result<Self, Failure> {
        let (tell, reported) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::Builder::new()
            .name("broker".into())
            .spawn(move || {
                meter::exempt_thread();
                let _told = run(seed, &tell, stopped).map_err(|error| tell.send(Err(error)));
            })?;
        let (address, broker) = reported.recv()??;
        Ok(Self {
            address,
            broker,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    pub(crate) fn uri(&self) -> String {
        format!("amqp://guest:guest@{}/%2f", self.address)
    }

    pub(crate) fn connections(&self) -> usize {
        meter::uncounted(|| self.broker.inspect().connections.len())
    }

    /// Closes the remaining connections, and ends all faults.
    pub(crate) fn calm(&self) {
        meter::uncounted(|| {
            self.broker.with(|broker| {
                broker.faults().memory_alarm(false);
                broker.faults().confirms(ConfirmFault::None);
                broker.faults().bytes_of_next(0, ByteFaults::new());
            });
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

type Told = Result<(SocketAddr, LocalBroker), Failure>;

fn run(
    seed: u64,
    tell: &mpsc::Sender<Told>,
    stopped: oneshot::Receiver<()>,
) -> Result<(), Failure> {
    let mut config = Config::default().seed(seed);
    config.server.frame_min = 4096;
    config.server.heartbeat = 1;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = LocalBroker::new(config)?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let server = serve(listener, broker.clone())?;
        tell.send(Ok((server.local_addr(), broker)))
            .map_err(|_| io::Error::other("the test is gone"))?;
        let _dropped = stopped.await;
        drop(server);
        Ok(())
    })
}

/// The thread that lets things go wrong.
#[derive(Debug)]
pub(crate) struct Mischief {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mischief {
    pub(crate) fn start(server: &Server, mut random: Random) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let (broker, until) = (server.broker.clone(), Arc::clone(&over));
        let thread = thread::spawn(move || {
            meter::exempt_thread();
            let mut stalled = Vec::new();
            while !until.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_millis(random.within(5, 80)));
                act(&broker, &mut random, &mut stalled);
                lift(&broker, &mut stalled, Instant::now());
            }
            for (_, key) in stalled {
                broker.with(|broker| broker.faults().bytes(key, ByteFaults::new()));
            }
        });
        Self {
            over,
            thread: Some(thread),
        }
    }

    /// Ends all that goes wrong.
    pub(crate) fn end(mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

/// Connections with disturbed bytes, and the end of the disturbance.
type Stalled = Vec<(Instant, ConnectionKey)>;

fn lift(broker: &LocalBroker, stalled: &mut Stalled, now: Instant) {
    stalled.retain(|&(until, key)| {
        if until > now {
            return true;
        }
        broker.with(|broker| broker.faults().bytes(key, ByteFaults::new()));
        false
    });
}

fn act(broker: &LocalBroker, random: &mut Random, stalled: &mut Stalled) {
    let connections = broker.inspect().connections;
    let Some(connection) = connections
        .get(usize::try_from(random.below(connections.len().max(1) as u64)).unwrap_or_default())
    else {
        return;
    };
    let key = connection.key;
    match random.below(100) {
        0..=5 => broker.with(|broker| {
            let code = random.pick(&[
                ReplyCode::CONNECTION_FORCED,
                ReplyCode::INTERNAL_ERROR,
                ReplyCode::RESOURCE_ERROR,
            ]);
            broker
                .faults()
                .close_connection(key, code, "closed for a test");
        }),
        6..=9 => broker.with(|broker| {
            let cut = Impairment::new().cut_after(random.below(3000));
            broker.faults().bytes(key, ByteFaults::both(cut));
        }),
        10..=16 => {
            broker.with(|broker| broker.faults().memory_alarm(true));
            // Seldom as long as publishers wait.
            let limit = if random.percent(15) { 900 } else { 60 };
            thread::sleep(Duration::from_millis(random.within(1, limit)));
            broker.with(|broker| broker.faults().memory_alarm(false));
        }
        17..=22 => {
            let next = random.within(1, 4);
            let fault = random.pick(&[
                ConfirmFault::DropNext(next),
                ConfirmFault::NackNext(next),
                ConfirmFault::NackNext(next),
                ConfirmFault::None,
            ]);
            broker.with(|broker| broker.faults().confirms(fault));
        }
        23..=34 => {
            // Seldom long enough that heartbeats notice.
            let limit = if random.percent(8) { 3500 } else { 300 };
            let time = Duration::from_millis(random.within(10, limit));
            let fault = match random.below(3) {
                0 => ByteFaults::both(Impairment::new().split(7)),
                1 => ByteFaults::new().from_client(Impairment::new().stall_after(0)),
                _ => ByteFaults::new().to_client(Impairment::new().stall_after(0)),
            };
            broker.with(|broker| broker.faults().bytes(key, fault));
            stalled.push((Instant::now() + time, key));
        }
        _ => {
            let channels = &connection.channels;
            let index = random.below(channels.len().max(1) as u64);
            if let Some(channel) = channels.get(usize::try_from(index).unwrap_or_default()) {
                let number = channel.number;
                broker.with(|broker| {
                    broker.faults().close_channel(
                        key,
                        number,
                        ReplyCode::PRECONDITION_FAILED,
                        "closed for a test",
                    );
                });
            }
        }
    }
}
