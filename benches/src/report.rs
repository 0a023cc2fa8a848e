//! The measurements as text.

use std::fmt;

use crate::fleet::Fleet;
use crate::load::MANY_CHANNELS;
use crate::memory::Footprint;
use crate::results::{Bound, Claim, Instructions, Results};
use crate::stats::Series;

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
                "\n{:<60}{:>12}{:>12}{:>12}{:>8}{:>12}{:>8}{:>10}{:>10}",
                "messages per second",
                "median",
                "min",
                "max",
                "of raw",
                "CPU ns",
                "spread",
                "allocs",
                "syscalls"
            )?;
        }
        for measured in &self.cases {
            let rate = &measured.rate;
            let of_raw = self.over_raw(measured);
            writeln!(
                f,
                "{:<60}{:>12.0}{:>12.0}{:>12.0}{:>8}{:>12.1}{:>7.0}%{:>10}{:>10}",
                measured.case.to_string(),
                rate.median(),
                rate.min(),
                rate.max(),
                thousandths(of_raw.map(|ratio| ratio.median())),
                measured.worked.median(),
                rate.spread() * 100.0,
                thousandths(measured.allocations),
                thousandths(measured.syscalls),
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
        if !self.fleets.is_empty() {
            writeln!(
                f,
                "\n{:<48}{:>12}{:>12}{:>12}",
                "bytes of each of many", "connections", "heap", "resident"
            )?;
        }
        for fleet in &self.fleets {
            let Fleet {
                name,
                connections,
                heap,
                resident,
            } = fleet;
            let resident = resident.map_or(String::new(), |bytes| format!("{bytes:.0}"));
            writeln!(f, "{name:<48}{connections:>12}{heap:>12.0}{resident:>12}")?;
        }
        let figures = self.embedded_figures();
        if !figures.is_empty() {
            writeln!(f, "\nfigures of the embedded broker")?;
        }
        for (name, number, unit) in figures {
            writeln!(f, "{name:<60}{number:>12.1} {unit}")?;
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
            let of_work = of_work.as_ref().map(Series::median);
            let of_unit = if unit.is_empty() { "" } else { ", " };
            writeln!(
                f,
                "{:<62}{:>8}{:>10.3}{:>10.3}{:>10.3}{:>10}  {}",
                format!("{what}{of_unit}{unit}"),
                bound.to_string(),
                found.median(),
                found.min(),
                found.max(),
                thousandths(of_work),
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

/// A number with three places behind the point; nothing if there is none.
fn thousandths(number: Option<f64>) -> String {
    number.map_or(String::new(), |number| format!("{number:.3}"))
}
