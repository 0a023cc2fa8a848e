//! The resources of this process in the course of a soak, and the check that they stay flat.

use std::{
    fmt::Write as _,
    fs, io,
    sync::{Arc, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{load::Shared, report::verdict};

const INTERVAL: Duration = Duration::from_secs(1);

/// The share of the run that warms up: buffers, arenas and the account of messages grow to their
/// size.
const WARM_UP: f64 = 0.25;

const WIDTH: f64 = 900.0;
const PANEL: f64 = 110.0;
const GAP: f64 = 46.0;
const LEFT: f64 = 70.0;

/// A resource, with the growth that is no leak.
struct Resource {
    name: &'static str,
    unit: &'static str,
    value: fn(&Sample) -> f64,
    /// The permitted growth from the beginning of the run to its end: a share, and a number.
    growth: Option<(f64, f64)>,
}

impl Resource {
    fn median(&self, samples: &[Sample]) -> f64 {
        let mut values: Vec<_> = samples.iter().map(self.value).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    }
}

const RESOURCES: [Resource; 4] = [
    Resource {
        name: "memory",
        unit: "MiB",
        value: |sample| sample.memory as f64 / f64::from(1 << 20),
        growth: Some((0.1, 4.0)),
    },
    Resource {
        name: "descriptors",
        unit: "",
        value: |sample| sample.descriptors as f64,
        growth: Some((0.0, 3.0)),
    },
    Resource {
        name: "threads",
        unit: "",
        value: |sample| sample.threads as f64,
        growth: Some((0.0, 3.0)),
    },
    Resource {
        name: "messages processed",
        unit: "per second",
        value: |sample| sample.rate as f64,
        growth: None,
    },
];

/// The state of this process at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Duration,
    /// The resident memory in bytes.
    memory: u64,
    descriptors: u64,
    threads: u64,
    /// The number of messages processed in the second before it.
    rate: u64,
    /// The number of faults so far.
    faults: u32,
}

/// Takes samples: one each second, in a thread of its own, and those that are asked for.
#[derive(Debug)]
pub(crate) struct Sampler {
    shared: Arc<Shared>,
    begun: Instant,
    settled: Vec<Sample>,
    stop: mpsc::Sender<()>,
    thread: JoinHandle<Vec<Sample>>,
}

impl Sampler {
    /// Starts it. An error if the system does not have the counts of a process under `/proc`.
    pub(crate) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let begun = Instant::now();
        Sample::take(begun, shared, 0)?;
        let (stop, stopped) = mpsc::channel();
        let seen = Arc::clone(shared);
        let thread = thread::spawn(move || {
            let mut samples = Vec::new();
            let mut before = seen.ledger().counts.processed;
            while stopped.recv_timeout(INTERVAL) == Err(mpsc::RecvTimeoutError::Timeout) {
                samples.extend(Sample::take(begun, &seen, before));
                before = seen.ledger().counts.processed;
            }
            samples
        });
        Ok(Self {
            shared: Arc::clone(shared),
            begun,
            settled: Vec::new(),
            stop,
            thread,
        })
    }

    /// Takes a sample while everything works.
    pub(crate) fn take_settled(&mut self) {
        self.settled
            .extend(Sample::take(self.begun, &self.shared, 0));
    }

    /// Returns all samples.
    pub(crate) fn stop(self) -> Samples {
        drop(self.stop);
        Samples {
            settled: self.settled,
            all: self.thread.join().unwrap_or_default(),
        }
    }
}

impl Sample {
    fn take(begun: Instant, shared: &Shared, processed_before: u64) -> io::Result<Self> {
        let [memory, descriptors, threads] = resources()?;
        let processed = shared.ledger().counts.processed;
        Ok(Self {
            at: begun.elapsed(),
            memory,
            descriptors,
            threads,
            rate: processed - processed_before,
            faults: shared.epoch(),
        })
    }
}

/// The memory in bytes, the descriptors and the threads of this process.
fn resources() -> io::Result<[u64; 3]> {
    let status = fs::read_to_string("/proc/self/status")?;
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|number| number.parse::<u64>().ok())
    };
    let missing = || io::Error::other("/proc/self/status lacks a field");
    let memory = field("VmRSS:").ok_or_else(missing)? << 10;
    let threads = field("Threads:").ok_or_else(missing)?;
    let descriptors = fs::read_dir("/proc/self/fd")?.count() as u64;
    Ok([memory, descriptors, threads])
}

/// The samples of a run.
#[derive(Debug)]
pub(crate) struct Samples {
    /// Those of each second.
    all: Vec<Sample>,
    /// Those before each fault: all connections are open, and nothing is on its way down.
    settled: Vec<Sample>,
}

impl Samples {
    /// Prints the resources at the beginning and at the end. Returns whether they are flat.
    pub(crate) fn report(&self) -> bool {
        let warm = (self.settled.len() as f64 * WARM_UP) as usize;
        let rest = &self.settled[warm..];
        let third = rest.len() / 3;
        if third == 0 {
            println!("\ntoo few faults to tell a growth{}", verdict(false));
            return false;
        }
        let (first, last) = (&rest[..third], &rest[rest.len() - third..]);
        println!("\nbefore a fault, in the first third after the warm-up and in the last:");
        let mut flat = true;
        for resource in &RESOURCES {
            let Some((share, number)) = resource.growth else {
                continue;
            };
            let (from, to) = (resource.median(first), resource.median(last));
            let holds = to <= from * (1.0 + share) + number;
            flat &= holds;
            let (name, unit) = (resource.name, resource.unit);
            println!("{from:>9.1} -> {to:.1} {name} {unit}{}", verdict(holds));
        }
        flat
    }

    /// Draws the resources over the time, with a tick for each fault.
    pub(crate) fn svg(&self) -> String {
        let end = self.all.last().map_or(1.0, |last| last.at.as_secs_f64());
        let x = |at: Duration| LEFT + at.as_secs_f64() / end * WIDTH;
        let mut body = String::new();
        for (number, resource) in RESOURCES.iter().enumerate() {
            let top = 50.0 + number as f64 * (PANEL + GAP);
            self.draw(&mut body, resource, top, &x);
        }
        let bottom = 50.0 + RESOURCES.len() as f64 * (PANEL + GAP);
        let mut faults = 0;
        for sample in &self.all {
            if sample.faults > faults {
                let x = x(sample.at);
                let _infallible = writeln!(
                    body,
                    "<line x1='{x:.1}' x2='{x:.1}' y1='{:.1}' y2='{bottom:.1}' stroke='#c53030'/>",
                    bottom - 10.0
                );
            }
            faults = sample.faults;
        }
        for tick in 0..=10_u32 {
            let at = Duration::from_secs_f64(end * f64::from(tick) / 10.0);
            let _infallible = writeln!(
                body,
                "<text x='{:.1}' y='{:.1}' text-anchor='middle'>{:.1} min</text>",
                x(at),
                bottom + 16.0,
                at.as_secs_f64() / 60.0
            );
        }
        format!(
            "<svg xmlns='http://www.w3.org/2000/svg' width='{:.0}' height='{:.0}' \
             font-family='sans-serif' font-size='12'>\n\
             <title>A soak</title>\n<rect width='100%' height='100%' fill='white'/>\n\
             <text x='{LEFT}' y='22' font-size='14'>The clients through {faults} faults: a red tick \
             for each</text>\n{body}</svg>\n",
            LEFT + WIDTH + 40.0,
            bottom + 30.0
        )
    }

    fn draw(&self, body: &mut String, resource: &Resource, top: f64, x: &impl Fn(Duration) -> f64) {
        let value = resource.value;
        let most = self.all.iter().map(value).fold(1.0, f64::max);
        let y = |it: f64| top + PANEL - it / most * PANEL;
        for part in [0.0, 0.5, 1.0] {
            let _infallible = writeln!(
                body,
                "<line x1='{LEFT}' x2='{}' y1='{y:.1}' y2='{y:.1}' stroke='#e2e8f0'/>\
                 <text x='{}' y='{:.1}' text-anchor='end'>{:.0}</text>",
                LEFT + WIDTH,
                LEFT - 6.0,
                y(part * most) + 4.0,
                part * most,
                y = y(part * most)
            );
        }
        let points: Vec<_> = self
            .all
            .iter()
            .map(|sample| format!("{:.1},{:.1}", x(sample.at), y(value(sample))))
            .collect();
        let (name, unit) = (resource.name, resource.unit);
        let _infallible = writeln!(
            body,
            "<text x='{LEFT}' y='{:.1}' font-weight='bold'>{name} {unit}</text>\
             <polyline points='{}' fill='none' stroke='#2b6cb0' stroke-width='1.5'/>",
            top - 8.0,
            points.join(" ")
        );
    }
}
