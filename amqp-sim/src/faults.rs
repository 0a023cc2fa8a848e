//! Random faults.

use std::{sync::Arc, time::Duration};

use amqp_driver::protocol::ReplyCode;

use crate::{
    fault::{Direction, Fault, Link, Step},
    random::Random,
};

/// A kind of fault, by which [`Faults`] are weighted. Each is a variant of [`Fault`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
#[allow(missing_docs)]
pub enum FaultKind {
    Latency,
    Split,
    Bandwidth,
    SlowReader,
    Cut,
    Reset,
    Eof,
    Stall,
    HalfOpen,
    Refuse,
    Restart,
    Kill,
    Suspend,
    Crash,
    Close,
    Alarm,
    DeleteQueue,
    LoseConfirms,
    Nack,
    SlowDisk,
    Jump,
}

/// Those of the network, with their weights.
const NETWORK: [(FaultKind, u32); 10] = [
    (FaultKind::Latency, 10),
    (FaultKind::Split, 10),
    (FaultKind::Bandwidth, 6),
    (FaultKind::SlowReader, 6),
    (FaultKind::Cut, 24),
    (FaultKind::Reset, 12),
    (FaultKind::Eof, 8),
    (FaultKind::Stall, 8),
    (FaultKind::HalfOpen, 4),
    (FaultKind::Refuse, 6),
];

/// Those of the broker, with their weights.
const BROKER: [(FaultKind, u32); 7] = [
    (FaultKind::Restart, 6),
    (FaultKind::Kill, 6),
    (FaultKind::Close, 6),
    (FaultKind::Alarm, 4),
    (FaultKind::LoseConfirms, 3),
    (FaultKind::Nack, 3),
    (FaultKind::SlowDisk, 3),
];

/// Those of programs and of time, with their weights.
const PROGRAMS: [(FaultKind, u32); 3] = [
    (FaultKind::Suspend, 6),
    (FaultKind::Crash, 8),
    (FaultKind::Jump, 2),
];

/// Random faults: their kinds by weight, their rate and their end.
///
/// The faults are drawn from the seed when the simulation begins to run, for the programs and nodes
/// that exist then. None begins, and none with a duration lasts, beyond [`until`](Self::until): so
/// everything has to end at some time after.
///
/// ```
/// use amqp_sim::{FaultKind, Faults};
/// use std::time::Duration;
///
/// let faults = Faults::all()
///     .every(Duration::from_secs(2))
///     .until(Duration::from_secs(30))
///     .weight(FaultKind::Jump, 0);
/// ```
#[derive(Clone, Debug)]
pub struct Faults {
    weights: Vec<(FaultKind, u32)>,
    every: Duration,
    until: Duration,
    queues: Vec<Arc<str>>,
}

/// The processes that faults may strike.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    /// All programs.
    pub(crate) programs: Vec<Arc<str>>,
    pub(crate) services: Vec<Arc<str>>,
    pub(crate) nodes: Vec<Arc<str>>,
}

impl Default for Faults {
    /// The same as [`all`](Self::all).
    fn default() -> Self {
        Self::all()
    }
}

impl Faults {
    fn of(weights: impl Into<Vec<(FaultKind, u32)>>) -> Self {
        Self {
            weights: weights.into(),
            every: Duration::from_secs(5),
            until: Duration::from_secs(60),
            queues: Vec::new(),
        }
    }

    /// Faults of the network: latency, pieces, bandwidth, slow readers, cuts, resets, ends of
    /// streams, stalls, half-open connections, refused connects. On average one in 5 s, for 60 s.
    #[must_use]
    pub fn network() -> Self {
        Self::of(NETWORK)
    }

    /// Faults of the broker: restarts, kills, closes, memory alarms, lost confirms, refused
    /// publishes.
    #[must_use]
    pub fn broker() -> Self {
        Self::of(BROKER)
    }

    /// Faults of programs and of time: suspended programs and nodes, services that are killed,
    /// jumps of the time.
    #[must_use]
    pub fn programs() -> Self {
        Self::of(PROGRAMS)
    }

    /// All of them. Only queues are not deleted, unless [`delete_queues`](Self::delete_queues) says
    /// which.
    #[must_use]
    pub fn all() -> Self {
        Self::of([&NETWORK[..], &BROKER, &PROGRAMS].concat())
    }

    /// No faults, to set the [weights](Self::weight) of some.
    #[must_use]
    pub fn none() -> Self {
        Self::of([])
    }

    /// Sets the average time between two faults. Default 5 s.
    #[must_use]
    pub const fn every(mut self, every: Duration) -> Self {
        self.every = every;
        self
    }

    /// Sets the end of the last fault, since the start of the simulation. Default 60 s.
    #[must_use]
    pub const fn until(mut self, until: Duration) -> Self {
        self.until = until;
        self
    }

    /// Sets the weight of a kind; 0 for never.
    #[must_use]
    pub fn weight(mut self, kind: FaultKind, weight: u32) -> Self {
        self.weights.retain(|(other, _)| *other != kind);
        self.weights.push((kind, weight));
        self
    }

    /// Deletes these queues now and then, in the virtual host `/` of each node.
    #[must_use]
    pub fn delete_queues<'a>(mut self, queues: impl IntoIterator<Item = &'a str>) -> Self {
        self.queues = queues.into_iter().map(Arc::from).collect();
        self.weight(FaultKind::DeleteQueue, 4)
    }

    /// Draws the faults of a simulation, the first at `from` at the earliest.
    pub(crate) fn draw(&self, from: Duration, targets: &Targets, random: &mut Random) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut at = from;
        loop {
            // Evenly between almost at once and twice the average.
            let most = u64::try_from(2 * self.every.as_millis()).unwrap_or(u64::MAX);
            at += Duration::from_millis(1 + random.below(most));
            if at >= self.until {
                return steps;
            }
            let left = self.until - at;
            if let Some(fault) = self.draw_one(left, targets, random) {
                steps.push(Step { at, fault });
            }
        }
    }

    fn draw_kind(&self, random: &mut Random) -> Option<FaultKind> {
        let total: u64 = self
            .weights
            .iter()
            .map(|(_, weight)| u64::from(*weight))
            .sum();
        let mut drawn = random.below(total);
        for &(kind, weight) in &self.weights {
            match drawn.checked_sub(u64::from(weight)) {
                Some(rest) => drawn = rest,
                None => return Some(kind),
            }
        }
        None
    }

    fn draw_one(&self, left: Duration, targets: &Targets, random: &mut Random) -> Option<Fault> {
        let kind = self.draw_kind(random)?;
        let node = || targets.nodes.first().map(Arc::clone);
        let _has_node = node()?;
        let node = random.pick(&targets.nodes)?.clone();
        let link = |random: &mut Random| {
            let client = random.pick(&targets.programs)?.clone();
            let node = node.clone();
            Some(Link { client, node })
        };
        let direction = match random.percent(50) {
            true => Direction::FromClient,
            false => Direction::ToClient,
        };
        let millis = Duration::from_millis;
        let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        let mut time = |min: u64, max: u64| millis((min + random.below(max - min)).min(left));
        Some(match kind {
            FaultKind::Latency => {
                let time = time(100, 20_000);
                let min = millis(random.below(100));
                let max = min + millis(random.below(500));
                let link = link(random)?;
                Fault::Latency {
                    link,
                    min,
                    max,
                    time,
                }
            }
            FaultKind::Split => Fault::Split {
                time: time(100, 20_000),
                max: 1 + random.index(40),
                link: link(random)?,
            },
            FaultKind::Bandwidth => Fault::Bandwidth {
                time: time(100, 10_000),
                rate: 200 + random.below(20_000),
                link: link(random)?,
                direction,
            },
            FaultKind::SlowReader => Fault::SlowReader {
                time: time(100, 10_000),
                window: 16 + random.index(500),
                link: link(random)?,
                direction,
            },
            FaultKind::Cut => {
                // Within a handshake, or within some frames of it.
                let most = if random.percent(50) { 200 } else { 3000 };
                Fault::Cut {
                    after: 1 + random.below(most),
                    link: link(random)?,
                    direction,
                }
            }
            FaultKind::Reset => Fault::Reset {
                link: link(random)?,
            },
            FaultKind::Eof => Fault::Eof {
                link: link(random)?,
            },
            FaultKind::Stall => Fault::Stall {
                time: time(100, 30_000),
                direction: [None, Some(direction)][random.index(2)],
                link: link(random)?,
            },
            FaultKind::HalfOpen => Fault::HalfOpen {
                link: link(random)?,
                deaf: direction,
            },
            FaultKind::Refuse => Fault::Refuse {
                time: time(100, 15_000),
                link: link(random)?,
            },
            FaultKind::Restart => Fault::Restart {
                down: time(1, 10_000),
                node,
            },
            FaultKind::Kill => Fault::Kill {
                down: time(1, 10_000),
                node,
            },
            FaultKind::Suspend => {
                let time = time(100, 40_000);
                let all = [&targets.programs[..], &targets.nodes].concat();
                let process = random.pick(&all)?.clone();
                Fault::Suspend { process, time }
            }
            FaultKind::Crash => Fault::Crash {
                down: time(1, 10_000),
                process: random.pick(&targets.services)?.clone(),
            },
            FaultKind::Close => {
                let codes = [ReplyCode::CONNECTION_FORCED, ReplyCode::INTERNAL_ERROR];
                let code = codes[random.index(codes.len())];
                Fault::Close { node, code }
            }
            FaultKind::Alarm => Fault::Alarm {
                time: time(100, 20_000),
                node,
            },
            FaultKind::DeleteQueue => Fault::DeleteQueue {
                queue: random.pick(&self.queues)?.clone(),
                node,
            },
            FaultKind::LoseConfirms => Fault::LoseConfirms {
                count: 1 + random.below(5),
                node,
            },
            FaultKind::Nack => Fault::Nack {
                count: 1 + random.below(5),
                node,
            },
            FaultKind::SlowDisk => Fault::SlowDisk {
                time: time(100, 20_000),
                delay: millis(10 + random.below(3000)),
                node,
            },
            FaultKind::Jump => Fault::Jump {
                time: time(10, 120_000),
            },
        })
    }
}
