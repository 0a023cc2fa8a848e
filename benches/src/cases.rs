//! The cases that are measured in time.

use std::fmt;

use crate::clock::Sample;
use crate::flavor::Flavor;
use crate::load::{Load, MANY_CHANNELS, Shape};
use crate::machine::Machine;
use crate::peer_lapin::Style;
use crate::target::Target;
use crate::{
    Result, embedded, ours, ours_blocking, peer_amqprs, peer_lapin, peer_rabbitmq_c, raw, watchdog,
};

/// The program on this side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Client {
    Raw,
    Ours(Flavor),
    Blocking,
    Lapin(Style, Flavor),
    Amqprs(Flavor),
    RabbitmqC,
}

/// All of them, in the order of a table.
pub(crate) const CLIENTS: &[Client] = &[
    Client::Raw,
    Client::Ours(Flavor::Tokio),
    Client::Ours(Flavor::TokioThread),
    Client::Ours(Flavor::AsyncStd),
    Client::Ours(Flavor::Smol),
    Client::Blocking,
    Client::Lapin(Style::InFlight, Flavor::Tokio),
    Client::Lapin(Style::InFlight, Flavor::TokioThread),
    Client::Lapin(Style::Loop, Flavor::Tokio),
    Client::Lapin(Style::Loop, Flavor::TokioThread),
    Client::Lapin(Style::Tasks, Flavor::Tokio),
    Client::Amqprs(Flavor::Tokio),
    Client::Amqprs(Flavor::TokioThread),
    Client::RabbitmqC,
];

impl Client {
    /// Whether this is one of these crates.
    pub(crate) const fn is_ours(self) -> bool {
        matches!(self, Self::Ours(_) | Self::Blocking)
    }

    /// Whether this is the raw socket.
    pub(crate) const fn is_raw(self) -> bool {
        matches!(self, Self::Raw)
    }

    /// Whether it is measured in that shape.
    const fn does(self, shape: &Shape) -> bool {
        match self {
            Self::Raw | Self::RabbitmqC => shape.channels == 1 && shape.tasks == 1,
            Self::Lapin(Style::Loop, _) => matches!(shape.load, Load::Publish),
            Self::Lapin(Style::Tasks, _) => matches!(shape.load, Load::Publish) && shape.tasks == 1,
            _ => true,
        }
    }

    fn run(self, target: &Target, shape: &Shape, count: u64) -> Result<Sample> {
        match self {
            Self::Raw => raw::run(target, shape, count),
            Self::Ours(flavor) => flavor.block_on(ours::run(flavor, target, shape, count)),
            Self::Blocking => ours_blocking::run(target, shape, count),
            Self::Lapin(style, flavor) => {
                flavor.block_on(peer_lapin::run(style, target, shape, count))
            }
            Self::Amqprs(flavor) => flavor.block_on(peer_amqprs::run(target, shape, count)),
            Self::RabbitmqC => peer_rabbitmq_c::run(target, shape, count),
        }
    }
}

impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let flavor = match *self {
            Self::Raw => return write!(f, "raw socket"),
            Self::Blocking => return write!(f, "amqp-blocking"),
            Self::RabbitmqC => return write!(f, "rabbitmq-c"),
            Self::Ours(Flavor::AsyncStd) => return write!(f, "amqp-async-std"),
            Self::Ours(Flavor::Smol) => return write!(f, "amqp-smol"),
            Self::Ours(flavor) => {
                write!(f, "amqp-tokio")?;
                flavor
            }
            Self::Lapin(style, flavor) => {
                write!(f, "lapin")?;
                match style {
                    Style::Loop => write!(f, ", loop")?,
                    Style::InFlight => {}
                    Style::Tasks => write!(f, ", 1000 tasks")?,
                }
                flavor
            }
            Self::Amqprs(flavor) => {
                write!(f, "amqprs")?;
                flavor
            }
        };
        if flavor == Flavor::TokioThread {
            write!(f, ", 1 thread")?;
        }
        Ok(())
    }
}

/// Something that is measured.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Case {
    /// A client, on a socket.
    Client(Shape, Client),
    /// A part, in memory, by its name.
    Part(&'static str, fn(count: u64) -> Result<Sample>),
}

impl Case {
    /// Passes at least that many messages; returns the measurement.
    pub(crate) fn run(&self, target: &Target, count: u64) -> Result<Sample> {
        watchdog::watch(&self.to_string(), watchdog::LIMIT, || match self {
            Self::Client(shape, client) => {
                let count = count.next_multiple_of(shape.channels.into());
                target.prepare(shape, count)?;
                client.run(target, shape, count)
            }
            Self::Part(_, run) => run(count),
        })
    }

    /// Whether it is one of that client.
    pub(crate) fn is_of(&self, client: Client) -> bool {
        matches!(*self, Self::Client(_, its) if its == client)
    }

    /// How many messages the first try has, from which the speed is guessed.
    pub(crate) const fn first_try(&self) -> u64 {
        match self {
            Self::Client(shape, _) => shape.first_try(),
            Self::Part(..) => 5000,
        }
    }

    /// How many messages it has at most.
    pub(crate) fn limit(&self, target: &Target) -> u64 {
        match self {
            Self::Client(shape, _) => target.limit(shape),
            Self::Part(..) => u64::MAX,
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(shape, client) => write!(f, "{shape}/{client}"),
            Self::Part(name, _) => write!(f, "{name}"),
        }
    }
}

const KIB: usize = 1 << 10;

/// The shapes that a few minutes suffice for.
fn few_shapes() -> Vec<Shape> {
    let one = Shape::new;
    vec![
        one(Load::RoundTrip, 0),
        one(Load::Connect, 0),
        one(Load::Confirm(1), KIB),
        one(Load::Confirm(1000), KIB),
        one(Load::Publish, 16),
        one(Load::Publish, 16).over(MANY_CHANNELS, 1),
        one(Load::Publish, KIB),
        one(Load::Publish, KIB).over(8, 8),
        one(Load::Publish, 64 * KIB),
        one(Load::Deliver, 16),
        one(Load::Deliver, KIB),
        one(Load::Deliver, KIB).over(8, 8),
        one(Load::Deliver, 64 * KIB),
        one(Load::DeliverNoAck, KIB),
        one(Load::Get, KIB),
    ]
}

/// The whole grid.
fn all_shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    for load in [
        Load::RoundTrip,
        Load::Connect,
        Load::Confirm(1),
        Load::Confirm(100),
        Load::Confirm(1000),
        Load::Publish,
        Load::Deliver,
        Load::DeliverNoAck,
        Load::Get,
    ] {
        let sizes: &[usize] = match load.has_messages() {
            true => &[16, KIB, 64 * KIB, KIB * KIB],
            false => &[0],
        };
        for &size in sizes {
            for (channels, tasks) in [
                (1, 1),
                (8, 1),
                (8, 8),
                (MANY_CHANNELS, 1),
                (MANY_CHANNELS, 8),
            ] {
                let shape = Shape::new(load, size).over(channels, tasks);
                let has_channels = load != Load::Connect || channels == tasks;
                if shape.has_room() && has_channels {
                    shapes.push(shape);
                }
            }
        }
    }
    shapes
}

/// The cases of a target: few of them or all.
pub(crate) fn cases(target: &Target, all: bool) -> Vec<Case> {
    let shapes = if all { all_shapes() } else { few_shapes() };
    let mut cases = Vec::new();
    for shape in shapes.into_iter().filter(|shape| target.serves(shape)) {
        let clients = CLIENTS.iter().filter(|client| client.does(&shape));
        cases.extend(clients.map(|&client| Case::Client(shape, client)));
    }
    if target.counts() {
        cases.extend(PARTS);
    }
    cases
}

/// The embedded broker with a client, and the core alone.
const PARTS: &[Case] = &[
    Case::Part(
        "publish, deliver and ack/embedded broker, 1 thread",
        |count| Flavor::TokioThread.block_on(embedded::round(count)),
    ),
    Case::Part(
        "publish to delivery by topic, 16 B/embedded broker",
        |count| Flavor::Tokio.block_on(embedded::route(count, 16)),
    ),
    Case::Part(
        "publish to delivery by topic, 16 B/embedded broker, 1 thread",
        |count| Flavor::TokioThread.block_on(embedded::route(count, 16)),
    ),
    Case::Part(
        "publish to delivery by topic, 1 KiB/embedded broker",
        |count| Flavor::Tokio.block_on(embedded::route(count, KIB)),
    ),
    Case::Part(
        "publish to delivery by topic, 1 KiB/embedded broker, 1 thread",
        |count| Flavor::TokioThread.block_on(embedded::route(count, KIB)),
    ),
    Case::Part("core publish/1 channel", |count| {
        Machine::open(1, false)?.publish(count)
    }),
    Case::Part("core publish/1000 channels", |count| {
        Machine::open(MANY_CHANNELS, false)?.publish(count)
    }),
    Case::Part("core deliver/1 channel", |count| {
        Machine::open(1, true)?.receive(1, count)
    }),
    Case::Part("core deliver/1 of 1000 channels", |count| {
        Machine::open(MANY_CHANNELS, true)?.receive(1, count)
    }),
    Case::Part("core deliver/1000 channels", |count| {
        Machine::open(MANY_CHANNELS, true)?.receive(MANY_CHANNELS.into(), count)
    }),
];

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    use super::*;
    use crate::{allocator, sink};

    #[test]
    fn every_case_passes_its_messages() {
        let _alone = allocator::alone();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || sink::accept(&listener));
        let target = Target::sink(port).unwrap();
        let mut cases = cases(&target, false);
        if let Err(error) = peer_rabbitmq_c::compile() {
            eprintln!("without rabbitmq-c: {error}");
            cases.retain(|case| !case.is_of(Client::RabbitmqC));
        }
        for case in cases {
            let count = case.first_try().min(1000);
            let sample = case
                .run(&target, count)
                .unwrap_or_else(|error| panic!("{case}: {error}"));
            assert!(sample.messages >= count, "{case}");
        }
    }
}
