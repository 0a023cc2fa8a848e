//! The table of results.

use std::{fmt, time::Duration};

use crate::probe::Times;

/// The longest round trip of another client, whatever the load.
const LONGEST: Duration = Duration::from_secs(2);

/// The results so far.
pub(crate) struct Report {
    /// Whether the bounds are checked.
    checks: bool,
    /// The number of bounds that did not hold.
    pub(crate) exceeded: usize,
}

/// A measured case.
pub(crate) struct Row {
    name: String,
    figure: String,
    bound: &'static str,
    holds: bool,
    probe: Option<Times>,
}

impl Row {
    pub(crate) fn new(name: String) -> Self {
        Self {
            name,
            figure: String::new(),
            bound: "",
            holds: true,
            probe: None,
        }
    }

    pub(crate) fn figure(mut self, figure: String) -> Self {
        self.figure = figure;
        self
    }

    /// Sets the bound, and whether it holds.
    pub(crate) fn bound(mut self, bound: &'static str, holds: bool) -> Self {
        (self.bound, self.holds) = (bound, holds);
        self
    }

    /// Sets the round trips of another client meanwhile.
    pub(crate) fn probe(mut self, times: Times) -> Self {
        self.holds &= times.longest() <= LONGEST;
        self.probe = Some(times);
        self
    }
}

impl Report {
    pub(crate) fn new(checks: bool) -> Self {
        println!(
            "{:50} {:34} {:28} {:24} bound holds",
            "case", "measured", "bound", "probe p50 / p99 / max, ms"
        );
        Self {
            checks,
            exceeded: 0,
        }
    }

    pub(crate) fn progress(&self, text: fmt::Arguments<'_>) {
        eprintln!("... {text}");
    }

    pub(crate) fn row(&mut self, row: Row) {
        let verdict = match (self.checks, row.holds) {
            (false, _) => "",
            (true, true) => "yes",
            (true, false) => "NO",
        };
        self.exceeded += usize::from(self.checks && !row.holds);
        let probe = row.probe.map(|times| times.to_string());
        println!(
            "{:50} {:34} {:28} {:24}  {verdict}",
            row.name,
            row.figure,
            row.bound,
            probe.unwrap_or_default()
        );
    }
}

pub(crate) fn mib(bytes: i64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}
