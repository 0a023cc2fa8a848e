//! The measurements, and whether they hold the claims.

use std::fmt;

use crate::clock::Sample;
use crate::embedded::Figures;
use crate::load::{ACK_EVERY, MANY_CHANNELS};
use crate::memory::Footprint;
use crate::stats::Series;

/// The measurements of a case.
#[derive(Clone, Debug, Default)]
pub(crate) struct Measured {
    pub(crate) name: &'static str,
    /// Messages per second.
    pub(crate) rate: Series,
    /// Nanoseconds of work per message.
    pub(crate) worked: Series,
}

impl Measured {
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
                "publish/amqp-tokio",
                Best("publish/lapin"),
            ),
            (
                "publish, over lapin in the same loop".to_owned(),
                30.0,
                "publish/amqp-tokio",
                Best("publish/lapin, loop"),
            ),
            (
                format!("publish, {MANY_CHANNELS} channels over 1"),
                0.9,
                "publish on 1000 channels/amqp-tokio",
                Only("publish/amqp-tokio"),
            ),
            (
                format!("deliver with an ack per {ACK_EVERY}, over lapin at its best"),
                5.0,
                "deliver/amqp-tokio",
                Best("deliver/lapin"),
            ),
            (
                format!("deliver, 1 of {MANY_CHANNELS} channels over 1"),
                0.9,
                "deliver on 1 of 1000 channels/amqp-tokio",
                Only("deliver/amqp-tokio"),
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
            let what = "embedded broker, 1000 connections with 10000 channels".to_owned();
            claim(what, "MiB", AtMost(100.0), figures.fleet);
            let what = "embedded broker, growth by 900000 messages".to_owned();
            claim(what, "KiB", AtMost(64.0), figures.growth);
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
                what: "embedded broker, a unit test".to_owned(),
                unit: "us",
                bound: AtMost(1000.0),
                found: figures.unit_test.clone(),
                of_work: None,
            });
        }
        claims
    }

    /// The highest speed of each round; none if nothing was measured.
    fn highest(&self, against: Against, speed: fn(&Measured) -> Series) -> Option<Series> {
        self.cases
            .iter()
            .filter(|measured| match against {
                Against::Only(name) => measured.name == name,
                Against::Best(prefix) => measured.name.starts_with(prefix),
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

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtLeast(least) => write!(f, ">= {least}"),
            Self::AtMost(most) => write!(f, "<= {most}"),
        }
    }
}

impl fmt::Display for Results {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.cases.is_empty() {
            writeln!(
                f,
                "\n{:<48}{:>12}{:>12}{:>12}{:>8}{:>10}{:>10}",
                "messages per second", "median", "min", "max", "spread", "ns", "of CPU"
            )?;
        }
        for measured in &self.cases {
            let rate = &measured.rate;
            writeln!(
                f,
                "{:<48}{:>12.0}{:>12.0}{:>12.0}{:>7.0}%{:>10.1}{:>10.1}",
                measured.name,
                rate.median(),
                rate.min(),
                rate.max(),
                rate.spread() * 100.0,
                1e9 / rate.median(),
                measured.worked.median(),
            )?;
        }
        if !self.footprints.is_empty() {
            let (connection, channel) = ("a connection", "a channel");
            writeln!(f, "\n{:<48}{connection:>12}{channel:>12}", "bytes, idle")?;
        }
        for footprint in &self.footprints {
            let Footprint {
                name,
                connection,
                channel,
            } = footprint;
            writeln!(f, "{name:<48}{connection:>12.0}{channel:>12.0}")?;
        }
        if !self.instructions.is_empty() {
            let (one, many) = ("1 channel", format!("{MANY_CHANNELS} channels"));
            writeln!(f, "\n{:<48}{one:>12}{many:>15}", "instructions per message")?;
        }
        for counted in &self.instructions {
            let Instructions {
                name,
                one_channel,
                many_channels,
            } = counted;
            writeln!(f, "{name:<48}{one_channel:>12.1}{many_channels:>15.1}")?;
        }
        let claims = self.claims();
        if !claims.is_empty() {
            writeln!(
                f,
                "\n{:<62}{:>8}{:>10}{:>10}{:>10}{:>10}",
                "claim", "wanted", "median", "min", "max", "of CPU"
            )?;
        }
        for claim in claims {
            let Claim {
                what,
                unit,
                bound,
                found,
                of_work,
            } = &claim;
            let of_work = of_work.as_ref();
            let of_unit = if unit.is_empty() { "" } else { ", " };
            writeln!(
                f,
                "{:<62}{:>8}{:>10.3}{:>10.3}{:>10.3}{:>10}  {}",
                format!("{what}{of_unit}{unit}"),
                bound.to_string(),
                found.median(),
                found.min(),
                found.max(),
                of_work.map_or(String::new(), |ratio| format!("{:.3}", ratio.median())),
                if claim.holds() {
                    "holds"
                } else {
                    "DOES NOT HOLD"
                },
            )?;
        }
        Ok(())
    }
}
