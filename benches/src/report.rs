//! The measurements as text.

use std::fmt;

use crate::load::MANY_CHANNELS;
use crate::memory::Footprint;
use crate::results::{Bound, Claim, Instructions, Results};

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
                "\n{:<56}{:>12}{:>12}{:>12}{:>8}{:>12}{:>8}{:>10}{:>10}",
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
                "{:<56}{:>12.0}{:>12.0}{:>12.0}{:>8}{:>12.1}{:>7.0}%{:>10.3}{:>10}",
                measured.case.to_string(),
                rate.median(),
                rate.min(),
                rate.max(),
                of_raw.map_or(String::new(), |ratio| format!("{:.3}", ratio.median())),
                measured.worked.median(),
                rate.spread() * 100.0,
                measured.allocations,
                measured
                    .syscalls
                    .map_or(String::new(), |count| format!("{count:.3}")),
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
