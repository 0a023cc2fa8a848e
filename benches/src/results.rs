//! The measurements, and whether they hold the claims.

use crate::cases::{Case, Client};
use crate::clock::Sample;
use crate::embedded::{Figures, Queued};
use crate::fleet::Fleet;
use crate::load::{ACK_EVERY, MANY_CHANNELS, Shape};
use crate::memory::Footprint;
use crate::stats::Series;

/// The figures of the embedded broker that claims are about.
const FLEET: &str = "embedded broker, 1000 connections with 10000 channels";
const GROWTH: &str = "embedded broker, growth by 900000 messages";
const UNIT_TEST: &str = "embedded broker, a unit test";

/// The measurements of a case.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) case: Case,
    /// Messages per second.
    pub(crate) rate: Series,
    /// Nanoseconds of work per message.
    pub(crate) worked: Series,
    /// Heap allocations per message, of a client in this process.
    pub(crate) allocations: Option<f64>,
    /// System calls per message.
    pub(crate) syscalls: Option<f64>,
}

impl Measured {
    pub(crate) fn new(case: Case) -> Self {
        Self {
            case,
            rate: Series::default(),
            worked: Series::default(),
            allocations: None,
            syscalls: None,
        }
    }

    pub(crate) fn add(&mut self, sample: &Sample) {
        self.rate.push(sample.rate());
        self.worked.push(sample.worked_nanos());
    }

    /// Messages per second of work.
    fn thrift(&self) -> Series {
        let nanos = [1e9].into_iter().cycle();
        nanos
            .take(self.worked.len())
            .collect::<Series>()
            .over(&self.worked)
    }
}

/// All measurements. Those that were not selected are absent.
#[derive(Clone, Debug, Default)]
pub(crate) struct Results {
    pub(crate) cases: Vec<Measured>,
    pub(crate) footprints: Vec<Footprint>,
    pub(crate) fleets: Vec<Fleet>,
    pub(crate) queued: Vec<Queued>,
    /// Heap allocations in the core per message: published, and received.
    pub(crate) allocations: Option<(f64, f64)>,
    pub(crate) instructions: Vec<Instructions>,
    pub(crate) embedded: Option<Figures>,
}

/// Instructions in the core per message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Instructions {
    pub(crate) name: &'static str,
    pub(crate) one_channel: f64,
    pub(crate) many_channels: f64,
}

/// Where a number has to lie.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Something that is said of these crates.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) bound: Bound,
    pub(crate) found: Series,
    /// For a ratio of speeds: the ratio of the messages per second of work, which other programs
    /// disturb less.
    pub(crate) of_work: Option<Series>,
}

impl Claim {
    /// Whether the median is within the bound.
    pub(crate) fn holds(&self) -> bool {
        match self.bound {
            Bound::AtLeast(least) => self.found.median() >= least,
            Bound::AtMost(most) => self.found.median() <= most,
        }
    }
}

impl Results {
    /// The claims that these results say anything of.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        use Against::{Best, Only};
        use Bound::{AtLeast, AtMost};

        let mut claims = Vec::new();
        for (what, least, this, other) in [
            (
                "publish, over lapin at its best".to_owned(),
                3.0,
                "publish, 16 B/amqp-tokio",
                Best("publish, 16 B/lapin"),
            ),
            (
                "publish, over lapin in the same loop".to_owned(),
                30.0,
                "publish, 16 B/amqp-tokio",
                Best("publish, 16 B/lapin, loop"),
            ),
            (
                format!("publish, {MANY_CHANNELS} channels over 1"),
                0.9,
                "publish, 16 B, 1000 channels/amqp-tokio",
                Only("publish, 16 B/amqp-tokio"),
            ),
            (
                format!("deliver with an ack per {ACK_EVERY}, over lapin at its best"),
                5.0,
                "deliver, 16 B/amqp-tokio",
                Best("deliver, 16 B/lapin"),
            ),
            (
                "deliver 16 B with acks, over rabbitmq-c".to_owned(),
                1.0,
                "deliver, 16 B/amqp-tokio",
                Only("deliver, 16 B/rabbitmq-c"),
            ),
            (
                "deliver 1 KiB with acks, over rabbitmq-c".to_owned(),
                1.0,
                "deliver, 1 KiB/amqp-tokio",
                Only("deliver, 1 KiB/rabbitmq-c"),
            ),
            (
                "deliver 64 KiB with acks, over rabbitmq-c".to_owned(),
                1.0,
                "deliver, 64 KiB/amqp-tokio",
                Only("deliver, 64 KiB/rabbitmq-c"),
            ),
            (
                "deliver 1 KiB without acks, over rabbitmq-c".to_owned(),
                1.0,
                "deliver without acks, 1 KiB/amqp-tokio",
                Only("deliver without acks, 1 KiB/rabbitmq-c"),
            ),
            (
                format!("core publish, {MANY_CHANNELS} channels over 1"),
                0.9,
                "core publish/1000 channels",
                Only("core publish/1 channel"),
            ),
            (
                format!("core deliver, 1 of {MANY_CHANNELS} channels over 1"),
                0.9,
                "core deliver/1 of 1000 channels",
                Only("core deliver/1 channel"),
            ),
            (
                format!("core deliver, {MANY_CHANNELS} channels over 1"),
                0.9,
                "core deliver/1000 channels",
                Only("core deliver/1 channel"),
            ),
        ] {
            let ratio = |speed: fn(&Measured) -> Series| {
                let this = self.highest(Only(this), speed)?;
                Some(this.over(&self.highest(other, speed)?))
            };
            if let Some(found) = ratio(|measured| measured.rate.clone()) {
                claims.push(Claim {
                    what,
                    unit: "x",
                    bound: AtLeast(least),
                    found,
                    of_work: ratio(Measured::thrift),
                });
            }
        }
        let mut claim = |what, unit, bound, found: f64| {
            claims.push(Claim {
                what,
                unit,
                bound,
                found: [found].into_iter().collect(),
                of_work: None,
            });
        };
        for counted in &self.instructions {
            claim(
                format!(
                    "{}, instructions of {MANY_CHANNELS} channels over 1",
                    counted.name
                ),
                "x",
                AtMost(1.02),
                counted.many_channels / counted.one_channel,
            );
        }
        if let Some((publish, deliver)) = self.allocations {
            for (name, count) in [("core publish", publish), ("core deliver", deliver)] {
                let what = format!("{name}, heap allocations per message");
                claim(what, "", AtMost(0.01), count);
            }
        }
        if let Some(figures) = &self.embedded {
            claim(FLEET.to_owned(), "MiB", AtMost(100.0), figures.fleet);
            claim(GROWTH.to_owned(), "KiB", AtMost(64.0), figures.growth);
        }
        for footprint in &self.footprints {
            let (_, whose) = footprint.name.split_once('/').unwrap_or_default();
            if whose.starts_with("amqp-tokio") {
                let kib = |bytes: f64| bytes / 1024.0;
                let (connection, channel) = (footprint.connection, footprint.channel);
                let what = format!("idle connection with its driver, {whose}");
                claim(what, "KiB", AtMost(64.0), kib(connection));
                let what = format!("idle channel, {whose}");
                claim(what, "KiB", AtMost(1.0), kib(channel));
            }
        }
        if let Some(figures) = &self.embedded {
            claims.push(Claim {
                what: UNIT_TEST.to_owned(),
                unit: "us",
                bound: AtMost(1000.0),
                found: figures.unit_test.clone(),
                of_work: None,
            });
        }
        claims
    }

    /// The figures of the embedded broker: a name, a number and its unit.
    pub(crate) fn embedded_figures(&self) -> Vec<(String, f64, &'static str)> {
        let mut figures: Vec<_> = self
            .queued
            .iter()
            .map(|queued| {
                let name = format!("{}, each beside its body", queued.name);
                (name, queued.overhead, "bytes")
            })
            .collect();
        if let Some(embedded) = &self.embedded {
            figures.extend([
                (FLEET.to_owned(), embedded.fleet, "MiB"),
                (GROWTH.to_owned(), embedded.growth, "KiB"),
                (UNIT_TEST.to_owned(), embedded.unit_test.median(), "us"),
            ]);
        }
        figures
    }

    /// The speed of a case over that of the raw socket, on one channel with bodies of the same size.
    pub(crate) fn over_raw(&self, measured: &Measured) -> Option<Series> {
        let Case::Client(shape, _) = measured.case else {
            return None;
        };
        let raw = self.of_client(&shape.over(1, 1), Client::Raw)?;
        Some(measured.rate.over(&raw.rate))
    }

    /// The measurements of a client in a shape.
    pub(crate) fn of_client(&self, shape: &Shape, client: Client) -> Option<&Measured> {
        self.cases.iter().find(|measured| {
            matches!(measured.case, Case::Client(its_shape, its) if (its_shape, its) == (*shape, client))
        })
    }

    /// The highest speed of each round; none if nothing was measured.
    fn highest(&self, against: Against, speed: fn(&Measured) -> Series) -> Option<Series> {
        self.cases
            .iter()
            .filter(|measured| match against {
                Against::Only(name) => measured.case.to_string() == name,
                Against::Best(prefix) => measured.case.to_string().starts_with(prefix),
            })
            .map(speed)
            .filter(|speed| speed.len() > 0)
            .reduce(|highest, speed| highest.larger(&speed))
    }
}

/// Which cases something is compared to.
#[derive(Clone, Copy, Debug)]
enum Against {
    /// The one of that name.
    Only(&'static str),
    /// The best of all those with that prefix.
    Best(&'static str),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::flavor::Flavor;
    use crate::load::Load;

    fn measured(client: Client, millis: u64) -> Measured {
        let shape = Shape::new(Load::Deliver, 16);
        let mut measured = Measured::new(Case::Client(shape, client));
        let elapsed = Duration::from_millis(millis);
        measured.add(&Sample {
            messages: 1000,
            elapsed,
            worked: elapsed,
            allocations: 0,
        });
        measured
    }

    #[test]
    fn a_claim_is_about_a_client_that_was_measured() {
        let ours = measured(Client::Ours(Flavor::Tokio), 10);
        let mut results = Results {
            cases: vec![ours],
            ..Results::default()
        };
        assert!(results.claims().is_empty());
        results.cases.push(measured(Client::RabbitmqC, 20));
        let claims = results.claims();
        let found: Vec<_> = claims.iter().map(|claim| claim.found.median()).collect();
        assert_eq!(found, [2.0]);
        assert!(claims[0].holds());
    }
}
