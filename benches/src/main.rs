//! Benchmarks: these crates, other clients and a raw socket in one run, on one machine, against
//! one small server.
//!
//! ```text
//! cargo run --release -p amqp-bench -- --help
//! ```
//!
//! A speed says little without one to compare it to: machines differ, and one machine differs from
//! minute to minute. So everything is measured in turn, in several rounds, and the claims are about
//! ratios within the same round. They are printed with the median, the least and the most of the
//! rounds, and with the other load of the machine. Beside the ratio of the speeds stands that of
//! the processor time per message, in the client's whole process and in the system for it, which
//! holds its own on a busy machine.

mod allocator;
mod arrivals;
mod cases;
mod clock;
mod embedded;
mod files;
mod flavor;
mod fleet;
mod instructions;
mod load;
mod machine;
mod markdown;
mod memory;
mod options;
mod ours;
mod ours_blocking;
mod parts;
mod peer_amqprs;
mod peer_lapin;
mod peer_rabbitmq_c;
mod plot;
mod raw;
mod report;
mod results;
mod sink;
mod stats;
mod syscalls;
mod target;
mod watchdog;
mod wire;

use std::fs;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use self::{
    cases::{Case, Client},
    options::{Options, Task},
    results::{Measured, Results},
    sink::Sink,
    stats::Series,
    target::Target,
    watchdog::LIMIT,
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// How far the same work may lie apart in time, as a part of its median, on a machine that does
/// nothing else.
const BUSY: f64 = 0.5;

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("amqp-bench: {error}");
            ExitCode::from(2)
        }
    }
}

/// Gives back whether all is as it should be.
fn run() -> Result<bool> {
    match options::parse()? {
        Task::Help => print!("{}", options::HELP),
        Task::Serve => sink::serve()?,
        Task::Drive(drive) => drive.run()?,
        Task::Pass(pass) => pass.run()?,
        Task::Fleet(fleet) => watchdog::watch(&fleet.name, LIMIT, || fleet.run())?,
        Task::Measure(options) => return measure(&options),
    }
    Ok(true)
}

fn measure(options: &Options) -> Result<bool> {
    // Not started for a broker, nor for a list of names.
    let is_needed = options.rabbitmq.is_none() && !options.list;
    let sink = is_needed.then(Sink::start).transpose()?;
    let target = match &options.rabbitmq {
        Some(uri) => Target::broker(uri.clone())?,
        None => Target::sink(sink.as_ref().map_or(0, Sink::port))?,
    };
    let cases = selected(options, &target);
    if options.list {
        for case in cases {
            println!("{case}");
        }
        if target.counts() {
            for name in parts::names(options) {
                println!("{name}");
            }
        }
        return Ok(true);
    }
    if cfg!(debug_assertions) {
        eprintln!("amqp-bench: built without --release, which says nothing of the speed");
    }
    if options.syscalls {
        syscalls::check()?;
    }
    let mut about = vec![
        clock::machine(),
        format!("{} rounds of {:?} each", options.rounds, options.duration),
    ];
    if !target.counts() {
        about.push("against a broker, which shares the machine if it runs on it".to_owned());
    }
    for line in &about {
        println!("{line}");
    }
    let mut results = Results::default();
    if !cases.is_empty() {
        let (measured, noise) = time(&cases, options, &target)?;
        println!("{noise}");
        about.push(noise);
        results.cases = measured;
    }
    if target.counts() {
        parts::measure(&mut results, options, &target)?;
    }

    print!("{results}");
    if let Some(path) = &options.plot {
        fs::write(path, plot::svg(&results))?;
    }
    if let Some(path) = &options.markdown {
        fs::write(path, markdown::tables(&results, &about))?;
    }
    let kept = results.claims().iter().all(results::Claim::holds);
    Ok(kept || !options.check)
}

/// The cases that are selected. Those of rabbitmq-c are left out where it is not installed, and a
/// line says so.
fn selected(options: &Options, target: &Target) -> Vec<Case> {
    let mut cases = cases::cases(target, options.all);
    cases.retain(|case| options.wants(&case.to_string()));
    if cases.iter().any(|case| case.is_of(Client::RabbitmqC))
        && let Err(error) = peer_rabbitmq_c::compile()
    {
        eprintln!("amqp-bench: rabbitmq-c is not measured: {error}");
        cases.retain(|case| !case.is_of(Client::RabbitmqC));
    }
    cases
}

/// Measures the cases in turn, round by round, each round beginning with another one; returns a
/// line on the noise, too.
fn time(cases: &[Case], options: &Options, target: &Target) -> Result<(Vec<Measured>, String)> {
    let mut results = Vec::new();
    let mut counts = Vec::new();
    let mut progress = Progress::new(cases.len());
    for case in cases {
        progress.step(&format!("trying {case}"));
        let count = guess(case, options.duration, target);
        counts.push(count.map_err(|error| format!("{case}: {error}"))?);
        results.push(Measured::new(*case));
    }
    let mut yardstick = Series::default();
    progress = Progress::new(cases.len() * options.rounds as usize);
    for round in 0..options.rounds {
        for turn in 0..cases.len() {
            let at = (turn + round as usize) % cases.len();
            yardstick.push(clock::yardstick().as_secs_f64() * 1e3);
            let (case, rounds) = (&cases[at], options.rounds);
            progress.step(&format!("round {} of {rounds}, {case}", round + 1));
            let sample = case.run(target, counts[at]);
            results[at].add(&sample.map_err(|error| format!("{case}: {error}"))?);
        }
    }
    progress = Progress::new(cases.len());
    for (measured, &count) in results.iter_mut().zip(&counts) {
        let case = measured.case;
        progress.step(&format!("counting in {case}"));
        allocator::start();
        let sample = case.run(target, (count / 4).max(case.first_try()));
        allocator::stop();
        let allocated = sample?.allocated();
        measured.allocations = (!case.is_of(Client::RabbitmqC)).then_some(allocated);
        if options.syscalls && matches!(case, Case::Client(..)) {
            measured.syscalls = Some(syscalls::count(&case, target, count)?);
        }
    }
    target.clean()?;
    let noise = format!(
        "noise: the same work took {:.1} ms, {:.1} to {:.1}{}{}",
        yardstick.median(),
        yardstick.min(),
        yardstick.max(),
        clock::load().map_or(String::new(), |load| format!(", load {load:.1}")),
        if yardstick.spread() > BUSY {
            "; THE MACHINE WAS BUSY: what the speeds say is little, believe the times of work"
        } else {
            ""
        },
    );
    Ok((results, noise))
}

/// How many messages take about that long.
fn guess(case: &Case, duration: Duration, target: &Target) -> Result<u64> {
    let limit = case.limit(target);
    let mut count = case.first_try().min(limit);
    loop {
        let sample = case.run(target, count)?;
        // A short run is mostly its beginning.
        let share = sample.elapsed.as_secs_f64() / duration.as_secs_f64();
        if share >= 0.2 || count == limit {
            return Ok(((count as f64 / share) as u64).clamp(1, limit));
        }
        count *= if share < 0.02 { 10 } else { 4 };
        count = count.min(limit);
    }
}

/// Lines on standard error, with the time that is left.
struct Progress {
    start: Instant,
    steps: usize,
    done: usize,
}

impl Progress {
    fn new(steps: usize) -> Self {
        Self {
            start: Instant::now(),
            steps,
            done: 0,
        }
    }

    fn step(&mut self, what: &str) {
        let Self { start, steps, done } = *self;
        let left = match done {
            0 => String::new(),
            _ => {
                let each = start.elapsed().as_secs_f64() / done as f64;
                format!(", {:.0} s left", each * (steps - done) as f64)
            }
        };
        self.done += 1;
        eprintln!("[{}/{steps}{left}] {what}", self.done);
    }
}
