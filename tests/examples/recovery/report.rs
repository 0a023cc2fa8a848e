//! The table of the faults, and the checks.

use std::{
    fmt,
    time::{Duration, Instant},
};

use crate::{
    ledger::{Balance, Counts},
    load::DELAYS,
    options::{Length, Options},
};

/// The measurements of the faults of a kind.
#[derive(Debug)]
struct Row {
    kind: &'static str,
    /// The times without a broker.
    down: Vec<Duration>,
    /// The times from the broker until everything works.
    back: Vec<Duration>,
    redelivered: u64,
    returned: u64,
    not_sent: u64,
    unknown: u64,
    stale: u64,
}

impl Row {
    const fn new(kind: &'static str) -> Self {
        Self {
            kind,
            down: Vec::new(),
            back: Vec::new(),
            redelivered: 0,
            returned: 0,
            not_sent: 0,
            unknown: 0,
            stale: 0,
        }
    }
}

/// The results so far.
#[derive(Debug)]
pub(crate) struct Report {
    begun: Instant,
    length: Length,
    seed: u64,
    within: Duration,
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new(options: &Options, length: Length) -> Self {
        Self {
            begun: Instant::now(),
            length,
            seed: options.seed,
            within: options.within(),
            rows: Vec::new(),
        }
    }

    pub(crate) fn goes_on(&self) -> bool {
        self.length.goes_on(self.count(), self.begun.elapsed())
    }

    /// The number of faults so far.
    fn count(&self) -> usize {
        self.rows.iter().map(|row| row.back.len()).sum()
    }

    /// Adds a fault, with the counts before it and after it. Returns whether it was over in time.
    pub(crate) fn add(
        &mut self,
        kind: &'static str,
        down: Duration,
        back: Duration,
        [before, after]: [Counts; 2],
    ) -> bool {
        let at = self.rows.iter().position(|row| row.kind == kind);
        let at = at.unwrap_or_else(|| {
            self.rows.push(Row::new(kind));
            self.rows.len() - 1
        });
        let row = &mut self.rows[at];
        row.down.push(down);
        row.back.push(back);
        row.redelivered += after.redelivered - before.redelivered;
        row.returned += after.returned - before.returned;
        row.not_sent += after.not_sent - before.not_sent;
        row.unknown += after.unknown - before.unknown;
        row.stale += after.stale - before.stale;
        let late = if back > self.within { "  LATE" } else { "" };
        let of = match self.length {
            Length::Faults(count) => format!("of {count}"),
            Length::Time(time) => {
                let left = time.saturating_sub(self.begun.elapsed()).as_secs();
                format!("{:>3}:{:02} left", left / 60, left % 60)
            }
        };
        eprintln!(
            "{:>4} {of}  {kind:28} down {:>7}  back after {:>7}{late}",
            self.count(),
            seconds(down),
            seconds(back)
        );
        back <= self.within
    }

    /// Prints the table and the checks. Returns whether all hold.
    pub(crate) fn finish(&mut self, counts: &Counts, balance: &Balance, hang: bool) -> bool {
        self.rows.sort_by_key(|row| row.kind);
        let done = self.count();
        let minutes = self.begun.elapsed().as_secs_f64() / 60.0;
        let [first, max] = DELAYS;
        println!(
            "{done} faults in {minutes:.1} minutes, seed {}, delays from {first:?} to {max:?}\n",
            self.seed
        );
        print!("{}", Table(&self.rows));
        println!("\n{}", Totals(counts, balance));
        let latest = self.rows.iter().flat_map(|row| &row.back).max();
        let latest = latest.copied().unwrap_or_default();
        let late = self.rows.iter().flat_map(|row| &row.back);
        let late = late.filter(|back| **back > self.within).count() as u64;
        // After a hang, outcomes and deliveries may still come.
        let settled = |number: u64| if hang { 0 } else { number };
        let checks = [
            ("confirmed messages lost", settled(balance.lost)),
            ("outcomes missing", settled(balance.missing)),
            ("outcomes double or false", counts.false_outcomes),
            ("stale acknowledgements accepted", counts.false_acks),
            ("handles ended, deleted queues apart", counts.ended),
            ("steps of recoveries failed", counts.failed_steps),
            ("hangs", u64::from(hang)),
        ];
        for (name, number) in checks {
            println!("{number:>9} {name}{}", verdict(number == 0));
        }
        println!(
            "{late:>9} back later than {} after the broker, the latest after {}{}",
            seconds(self.within),
            seconds(latest),
            verdict(late == 0)
        );
        late == 0 && checks.iter().all(|(_, number)| *number == 0)
    }
}

pub(crate) const fn verdict(holds: bool) -> &'static str {
    if holds { "" } else { "  FAILED" }
}

struct Table<'a>(&'a [Row]);

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:28} {:>5}  {:>17}  {:>17}  {:>11} {:>8} {:>8} {:>7} {:>6}",
            "fault",
            "count",
            "broker down",
            "back after it",
            "redelivered",
            "returned",
            "not sent",
            "unknown",
            "stale"
        )?;
        writeln!(
            f,
            "{:28} {:>5}  {:>17}  {:>17}",
            "", "", "median    max", "median    max"
        )?;
        for row in self.0 {
            let (down, back) = (Spread::of(&row.down), Spread::of(&row.back));
            writeln!(
                f,
                "{:28} {:>5}  {down}  {back}  {:>11} {:>8} {:>8} {:>7} {:>6}",
                row.kind,
                row.back.len(),
                row.redelivered,
                row.returned,
                row.not_sent,
                row.unknown,
                row.stale
            )?;
        }
        Ok(())
    }
}

/// The median and the maximum.
struct Spread(Duration, Duration);

impl Spread {
    fn of(times: &[Duration]) -> Self {
        let mut times = times.to_vec();
        times.sort_unstable();
        let at = |at: usize| times.get(at).copied().unwrap_or_default();
        Self(at(times.len() / 2), at(times.len().saturating_sub(1)))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8} {:>8}", seconds(self.0), seconds(self.1))
    }
}

struct Totals<'a>(&'a Counts, &'a Balance);

impl fmt::Display for Totals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (counts, balance) = (self.0, self.1);
        for (number, name) in [
            (counts.messages, "messages"),
            (counts.attempts, "attempts to publish them, of which"),
            (counts.confirmed, "  confirmed"),
            (counts.returned, "  returned"),
            (counts.nacked, "  refused by the broker"),
            (counts.not_sent, "  not sent"),
            (counts.unknown, "  unknown"),
            (counts.refused, "  refused by the client"),
            (counts.received, "deliveries, of which"),
            (counts.redelivered, "  redelivered"),
            (counts.stale, "  stale when they were acknowledged"),
            (balance.deleted, "messages deleted with their queue"),
            (counts.lost_connections, "connections lost"),
            (counts.interruptions, "interruptions of consumers reported"),
            (counts.cancelled, "consumers cancelled with their queue"),
            (
                counts.reopened,
                "channels replaced because the broker refused all publishes",
            ),
        ] {
            writeln!(f, "{number:>9} {name}")?;
        }
        Ok(())
    }
}

pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}
