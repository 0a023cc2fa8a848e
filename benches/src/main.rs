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
mod cases;
mod clock;
mod embedded;
mod instructions;
mod load;
mod machine;
mod memory;
mod options;
mod ours;
mod peer_amqprs;
mod peer_lapin;
mod plot;
mod raw;
mod results;
mod sink;
mod stats;
mod wire;

use std::fs;
use std::process::ExitCode;
use std::time::Duration;

use self::{
    cases::{CASES, Case},
    load::MANY_CHANNELS,
    options::{Options, Task},
    results::{Instructions, Measured, Results},
    sink::Sink,
    stats::Series,
};

type Error = Box<dyn std::error::Error + Send + Sync>;
type Result<T> = std::result::Result<T, Error>;

/// How many messages the first try has, from which the speed is guessed.
const FIRST_TRY: u64 = 5000;

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
        Task::Measure(options) => return measure(&options),
    }
    Ok(true)
}

fn measure(options: &Options) -> Result<bool> {
    let cases: Vec<&Case> = CASES
        .iter()
        .filter(|case| options.wants(case.name))
        .collect();
    if options.list {
        for case in cases {
            println!("{}", case.name);
        }
        return Ok(true);
    }
    if cfg!(debug_assertions) {
        eprintln!("amqp-bench: built without --release, which says nothing of the speed");
    }
    let sink = Sink::start()?;
    println!("{}", clock::machine());
    println!(
        "{} rounds of {:?} each, 16 B messages",
        options.rounds, options.duration
    );

    let mut results = Results {
        cases: time(&cases, options, sink.port())?,
        ..Results::default()
    };
    results.footprints = memory::footprints(sink.port(), |name| options.wants(name))?;
    if options.wants("core allocations") {
        results.allocations = Some(machine::allocations()?);
    }
    if options.wants("embedded figures") {
        results.embedded = Some(embedded::figures()?);
    }
    if options.instructions {
        for (name, deliver) in [("core publish", false), ("core deliver", true)] {
            if options.wants(name) {
                eprintln!("instructions of {name}");
                results.instructions.push(Instructions {
                    name,
                    one_channel: instructions::count(1, deliver)?,
                    many_channels: instructions::count(MANY_CHANNELS, deliver)?,
                });
            }
        }
    }

    print!("{results}");
    if let Some(path) = &options.plot {
        fs::write(path, plot::svg(&results))?;
    }
    let kept = results.claims().iter().all(results::Claim::holds);
    Ok(kept || !options.check)
}

/// Measures the cases in turn, round by round, each round beginning with another one.
fn time(cases: &[&Case], options: &Options, port: u16) -> Result<Vec<Measured>> {
    let mut results = Vec::new();
    let mut counts = Vec::new();
    for case in cases {
        eprintln!("trying {}", case.name);
        counts.push(guess(case, options.duration, port)?);
        results.push(Measured {
            name: case.name,
            ..Measured::default()
        });
    }
    let mut yardstick = Series::default();
    for round in 0..options.rounds {
        for turn in 0..cases.len() {
            let at = (turn + round as usize) % cases.len();
            yardstick.push(clock::yardstick().as_secs_f64() * 1e3);
            let name = cases[at].name;
            eprint!("round {} of {}, {name}: ", round + 1, options.rounds);
            let sample = (cases[at].run)(port, counts[at])?;
            eprintln!("{:.0}/s", sample.rate());
            results[at].add(&sample);
        }
    }
    if !cases.is_empty() {
        println!(
            "noise: the same work took {:.1} ms, {:.1} to {:.1}{}",
            yardstick.median(),
            yardstick.min(),
            yardstick.max(),
            clock::load().map_or(String::new(), |load| format!(", load {load:.1}")),
        );
        if yardstick.spread() > BUSY {
            println!(
                "THE MACHINE WAS BUSY: what the speeds say is little, believe the times of work"
            );
        }
    }
    Ok(results)
}

/// How many messages take about that long.
fn guess(case: &Case, duration: Duration, port: u16) -> Result<u64> {
    let mut count = FIRST_TRY;
    loop {
        let sample = (case.run)(port, count)?;
        // A short run is mostly its beginning.
        let share = sample.elapsed.as_secs_f64() / duration.as_secs_f64();
        if share >= 0.2 {
            let count = (count as f64 / share) as u64;
            // Whole acknowledgements, and not more than the answers of the server can count.
            return Ok(count.next_multiple_of(load::ACK_EVERY).min(4_000_000_000));
        }
        count *= if share < 0.02 { 10 } else { 4 };
    }
}
