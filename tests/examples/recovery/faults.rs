//! Random faults of a node and of the network before it.

use std::{
    thread,
    time::{Duration, Instant},
};

use amqp_tests::{Relay, differential::generate::Random, rabbitmq::Node};
use amqp_tokio::{core::dial::Address, protocol::queue};
use tokio::runtime::Runtime;

use crate::{
    Result,
    load::{Load, PATIENCE, QUEUES, queue_name},
    options::{Length, Options},
    run::Run,
};

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Restart,
    Pause,
    Cut,
    Reset,
    CutAgain,
    BlackHole,
    Operator,
    Alarm,
    Delete,
}

/// The kinds with their shares of a hundred faults. Those that take long are rare.
const SHARES: [(Kind, u64); 10] = [
    (Kind::Kill, 5),
    (Kind::Restart, 5),
    (Kind::Pause, 3),
    (Kind::Cut, 18),
    (Kind::Reset, 18),
    (Kind::CutAgain, 12),
    (Kind::BlackHole, 9),
    (Kind::Operator, 9),
    (Kind::Alarm, 8),
    (Kind::Delete, 13),
];

/// The duration of a pause of the broker.
const PAUSE: Duration = Duration::from_secs(10);

/// The number of bytes within which a recovery is cut again: its handshake, its topology and the
/// first deliveries.
const RECOVERY_BYTES: u64 = 2500;

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill -9",
            Self::Restart => "stop and start",
            Self::Pause => "paused for ten seconds",
            Self::Cut => "TCP cut",
            Self::Reset => "TCP reset",
            Self::CutAgain => "TCP cut, recoveries too",
            Self::BlackHole => "black hole",
            Self::Operator => "closed by the operator",
            Self::Alarm => "memory alarm",
            Self::Delete => "queue deleted",
        }
    }
}

/// Runs the faults. Returns whether all checks hold.
pub(crate) fn run(options: &Options, length: Length) -> Result<bool> {
    let is_wanted = |kind: Kind| match &options.only {
        Some(word) => kind.name().contains(word),
        None => true,
    };
    let shares: Vec<_> = SHARES.into_iter().filter(|it| is_wanted(it.0)).collect();
    if shares.is_empty() {
        let names = SHARES.map(|(kind, _)| kind.name()).join(", ");
        return Err(format!("no fault has such a name; there are: {names}").into());
    }
    eprintln!("starting a RabbitMQ");
    let node = Node::start()?;
    let relay = Relay::start(node.address())?;
    let address = Address::tcp("127.0.0.1", relay.address().port());
    let mut run = Run::start(options, length, vec![address], "classic")?;
    let faults = Faults { node, relay };
    let mut outcome = Ok(());
    while outcome.is_ok() && run.goes_on() {
        let kind = pick(&shares, &mut run.random);
        outcome = run.fault(kind.name(), |runtime, load, random| {
            faults.inject(kind, runtime, load, random)
        });
    }
    run.finish(outcome.map_err(|error| {
        let log = faults.node.log_tail(10);
        format!("{error}\nthe end of the broker's log:\n{log}").into()
    }))
}

fn pick(shares: &[(Kind, u64)], random: &mut Random) -> Kind {
    let mut lot = random.below(shares.iter().map(|(_, share)| share).sum());
    for &(kind, share) in shares {
        if lot < share {
            return kind;
        }
        lot -= share;
    }
    Kind::Cut
}

/// The things that faults happen to.
struct Faults {
    node: Node,
    relay: Relay,
}

impl Faults {
    /// Injects a fault. Returns the time without a broker, as soon as it is back.
    fn inject(
        &self,
        kind: Kind,
        runtime: &Runtime,
        load: &Load,
        random: &mut Random,
    ) -> Result<Duration> {
        let (node, relay) = (&self.node, &self.relay);
        let begun = Instant::now();
        match kind {
            Kind::Kill => {
                node.kill()?;
                node.restart()?;
            }
            Kind::Restart => node.restart()?,
            Kind::Pause => {
                node.pause()?;
                thread::sleep(PAUSE);
                node.resume()?;
            }
            Kind::Cut => relay.cut(),
            Kind::Reset => relay.reset(),
            Kind::CutAgain => {
                let times = 1 + random.below(8);
                let bytes: Vec<_> = (0..times).map(|_| random.below(RECOVERY_BYTES)).collect();
                relay.cut_next(bytes);
                relay.cut();
                while relay.cuts_due() > 0 {
                    if begun.elapsed() > PATIENCE {
                        return Err("the connections do not come back to be cut".into());
                    }
                    thread::sleep(Duration::from_millis(1));
                }
            }
            Kind::BlackHole => {
                relay.pause();
                thread::sleep(Duration::from_millis(500 + random.below(4500)));
                relay.resume();
            }
            Kind::Operator => {
                node.ctl(&["close_all_connections", "--global", "a fault of the test"])?;
                return Ok(Duration::ZERO);
            }
            Kind::Alarm => {
                node.ctl(&["set_vm_memory_high_watermark", "absolute", "1"])?;
                thread::sleep(Duration::from_millis(random.below(1000)));
                node.ctl(&["set_vm_memory_high_watermark", "0.4"])?;
            }
            Kind::Delete => {
                let queue = random.below(QUEUES as u64) as usize;
                runtime.block_on(self.delete(queue))?;
                load.shared
                    .ledger()
                    .delete(|number| number % QUEUES == queue);
                return Ok(Duration::ZERO);
            }
        }
        Ok(match kind {
            Kind::Cut | Kind::Reset => Duration::ZERO,
            _ => begun.elapsed(),
        })
    }

    /// Deletes a queue from a connection of its own.
    async fn delete(&self, queue: usize) -> Result {
        let connection = amqp_tokio::connect(&self.node.uri()).await?;
        let channel = connection.open_channel().await?;
        let delete = queue::Delete::default().queue(queue_name(queue));
        channel.call(delete).await?;
        connection.close().await?;
        Ok(())
    }
}
