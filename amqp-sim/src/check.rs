//! Many seeds, and the reduction of a failure.

use std::{
    collections::BTreeSet,
    env, fmt,
    io::{self, IsTerminal as _, Write as _},
    thread,
    time::{Duration, Instant},
};

use crate::{
    fault::Step,
    panics,
    sim::{Bounds, Sim},
};

/// The variables of the environment.
const SEED: &str = "AMQP_SIM_SEED";
const SEEDS: &str = "AMQP_SIM_SEEDS";
const STEPS: &str = "AMQP_SIM_STEPS";

/// The lines of the trace that a failure shows before its last fault, and after.
const BEFORE: usize = 15;
const AFTER: usize = 40;

/// The most runs to reduce a failure.
const REDUCTIONS: usize = 500;

/// Simulates a world with each of many seeds, from 0 on, and prints how many worlds and hours that
/// were. `world` builds the world, runs it, and asserts that all is as it has to be.
///
/// The variable `AMQP_SIM_SEEDS` sets another number of seeds. `AMQP_SIM_SEED` replays one, and
/// prints its frames; `AMQP_SIM_STEPS` with it takes only some of its faults, by their numbers. A
/// failure prints the command for that.
///
/// ```
/// use amqp_sim::{Connector, Faults};
/// use std::{error::Error, time::Duration};
///
/// async fn greet(connector: Connector) -> Result<(), Box<dyn Error>> {
///     while let Err(error) = connector.connect().await {
///         println!("again in a second: {error}");
///         connector.sleep(Duration::from_secs(1)).await;
///     }
///     Ok(())
/// }
///
/// amqp_sim::check(20, |sim| {
///     sim.node("rabbit");
///     sim.spawn("greeter", greet(sim.connector("amqp://rabbit")));
///     sim.faults(Faults::all().until(Duration::from_secs(30)));
///     sim.run();
/// });
/// ```
///
/// # Panics
/// If a seed fails: with the seed, the faults that it needs, its frames, and the command that
/// replays it.
pub fn check(seeds: u64, world: impl Fn(&Sim)) -> Summary {
    Check::new().seeds(seeds).run(world)
}

/// Simulates a world with many seeds, as [`check`] does, with settings.
///
/// ```
/// use amqp_sim::Check;
/// use std::time::Duration;
///
/// let summary = Check::new().seeds(10).max_time(Duration::from_secs(3600)).run(|sim| {
///     sim.node("rabbit");
///     sim.advance(Duration::from_secs(60));
/// });
/// assert_eq!((summary.worlds, summary.simulated), (10, Duration::from_secs(600)));
/// ```
#[derive(Clone, Debug)]
pub struct Check {
    seeds: u64,
    first: u64,
    bounds: Bounds,
    from_environment: bool,
}

impl Default for Check {
    fn default() -> Self {
        Self::new()
    }
}

impl Check {
    /// Creates a check of 1000 seeds.
    #[must_use]
    pub fn new() -> Self {
        Self {
            seeds: 1000,
            first: 0,
            bounds: Bounds::default(),
            from_environment: true,
        }
    }

    /// Sets the number of seeds. The variable `AMQP_SIM_SEEDS` takes precedence.
    #[must_use]
    pub const fn seeds(mut self, seeds: u64) -> Self {
        self.seeds = seeds;
        self
    }

    /// Sets the first seed. Default 0.
    #[must_use]
    pub const fn first_seed(mut self, first: u64) -> Self {
        self.first = first;
        self
    }

    /// Sets the most polls of tasks in a world: more are a failure. Default 1,000,000.
    #[must_use]
    pub const fn max_steps(mut self, steps: u64) -> Self {
        self.bounds.steps = steps;
        self
    }

    /// Sets the most virtual time of a world: more is a failure. Default a day.
    #[must_use]
    pub const fn max_time(mut self, time: Duration) -> Self {
        self.bounds.time = time;
        self
    }

    /// Sets how often wake-ups are checked: each `rests` times that no task has work, all tasks are
    /// polled without a wake-up, and one that ends or moves bytes by it is a failure. Default 64; 0
    /// for never.
    #[must_use]
    pub const fn wakeups(mut self, rests: u64) -> Self {
        self.bounds.wakeups = rests;
        self
    }

    /// Ignores the variables of the environment: for a world within a test of another.
    #[must_use]
    pub const fn isolated(mut self) -> Self {
        self.from_environment = false;
        self
    }

    /// Runs the seeds.
    ///
    /// # Panics
    /// As [`check`].
    pub fn run(&self, world: impl Fn(&Sim)) -> Summary {
        match self.try_run(world) {
            Ok(summary) => {
                println!("{summary}");
                summary
            }
            Err(failure) => {
                println!("{failure}");
                panic!("seed {} fails: {}", failure.seed, failure.message);
            }
        }
    }

    /// Runs the seeds, and returns the first failure, reduced.
    ///
    /// # Errors
    /// The failure.
    pub fn try_run(&self, world: impl Fn(&Sim)) -> Result<Summary, Box<Failure>> {
        let replayed = self.variable(SEED).and_then(|seed| seed.parse().ok());
        if let Some(seed) = replayed {
            return self.replay(seed, &world);
        }
        let seeds = self.variable(SEEDS).and_then(|seeds| seeds.parse().ok());
        let seeds: u64 = seeds.unwrap_or(self.seeds);
        let mut progress = Progress::new(seeds);
        let mut simulated = Duration::ZERO;
        for seed in self.first..self.first + seeds {
            let run = self.run_one(seed, None, false, &world);
            simulated += run.time;
            if let Some(message) = &run.failure {
                progress.clear();
                return Err(self.reduce(seed, &run, message, &world).into());
            }
            progress.advance(simulated);
        }
        progress.clear();
        Ok(Summary {
            worlds: seeds,
            simulated,
            elapsed: progress.start.elapsed(),
        })
    }

    fn variable(&self, name: &str) -> Option<String> {
        let value = self.from_environment.then(|| env::var(name).ok());
        value.flatten()
    }

    /// Runs one seed as the environment says, with its trace.
    fn replay(&self, seed: u64, world: &impl Fn(&Sim)) -> Result<Summary, Box<Failure>> {
        let start = Instant::now();
        let kept = self.variable(STEPS).map(|steps| {
            let numbers = steps.split(',');
            numbers.filter_map(|it| it.trim().parse().ok()).collect()
        });
        let run = self.run_one(seed, kept, true, world);
        match run.failure.clone() {
            Some(message) => Err(run.into_failure(seed, message, true).into()),
            None => {
                print!("{}", run.trace.join("\n"));
                println!("\nseed {seed} passes");
                Ok(Summary {
                    worlds: 1,
                    simulated: run.time,
                    elapsed: start.elapsed(),
                })
            }
        }
    }

    fn run_one(
        &self,
        seed: u64,
        kept: Option<BTreeSet<usize>>,
        traced: bool,
        world: &impl Fn(&Sim),
    ) -> Run {
        let sim = Sim::with(seed, traced, kept.clone(), self.bounds);
        let failure = panics::quietly(|| world(&sim)).err();
        let (time, count) = (sim.now(), sim.step_count());
        let trace = sim.trace().lines().to_vec();
        let numbers = (0..count).filter(|it| kept.as_ref().is_none_or(|kept| kept.contains(it)));
        let steps = numbers.zip(sim.steps()).collect();
        let ended = panics::quietly(|| sim.end()).err();
        Run {
            failure: failure.or(ended),
            time,
            steps,
            count,
            trace,
        }
    }

    /// Removes faults while the seed still fails: halves first, then smaller parts.
    fn reduce(&self, seed: u64, run: &Run, message: &str, world: &impl Fn(&Sim)) -> Failure {
        let mut kept: Vec<usize> = run.steps.iter().map(|(number, _)| *number).collect();
        let mut left = REDUCTIONS;
        let mut fails = |kept: &[usize]| {
            left = left.saturating_sub(1);
            let kept = Some(kept.iter().copied().collect());
            left > 0 && self.run_one(seed, kept, false, world).failure.is_some()
        };
        let mut size = kept.len();
        while size > 0 {
            let mut at = 0;
            while at < kept.len() {
                let mut fewer = kept.clone();
                fewer.drain(at..(at + size).min(fewer.len()));
                if fails(&fewer) {
                    kept = fewer;
                } else {
                    at += size;
                }
            }
            size /= 2;
        }
        let last = self.run_one(seed, Some(kept.into_iter().collect()), true, world);
        match last.failure.clone() {
            Some(message) => last.into_failure(seed, message, false),
            None => {
                let text = "it does not fail again: the world depends on something else than \
                            its seed, such as the system's time or the order of a HashMap";
                last.into_failure(seed, format!("{message}\n    {text}"), false)
            }
        }
    }
}

/// One run of a world.
struct Run {
    failure: Option<String>,
    time: Duration,
    /// The faults with their numbers.
    steps: Vec<(usize, Step)>,
    /// The number of all faults.
    count: usize,
    trace: Vec<String>,
}

impl Run {
    fn into_failure(self, seed: u64, message: String, whole: bool) -> Failure {
        Failure {
            seed,
            message,
            command: command(seed, &self.steps, self.count),
            steps: self.steps.into_iter().map(|(_, step)| step).collect(),
            count: self.count,
            trace: if whole {
                self.trace
            } else {
                excerpt(self.trace)
            },
        }
    }
}

/// The part of a trace around the last effect of a fault, without heartbeats and headers; the end
/// of it if there is none.
fn excerpt(mut trace: Vec<String>) -> Vec<String> {
    trace.retain(|line| !line.ends_with("  heartbeat") && !line.contains(": header, "));
    let is_effect = |line: &String| {
        let effects = ["s  *** ", "  lost: "];
        effects.iter().any(|it| line.contains(it)) || line.ends_with("  cut")
    };
    let last = trace.iter().rposition(is_effect);
    let middle = last.unwrap_or_else(|| trace.len().saturating_sub(AFTER));
    let (start, end) = (middle.saturating_sub(BEFORE), middle + AFTER);
    let omitted = |count: usize| (count > 0).then(|| format!("... {count} lines"));
    let after = omitted(trace.len().saturating_sub(end));
    let shown = trace.drain(start..end.min(trace.len()));
    let shown: Vec<String> = shown.collect();
    omitted(start)
        .into_iter()
        .chain(shown)
        .chain(after)
        .collect()
}

/// The command that replays a failure.
fn command(seed: u64, steps: &[(usize, Step)], count: usize) -> String {
    let mut command = format!("{SEED}={seed} ");
    if steps.len() < count {
        let numbers: Vec<String> = steps.iter().map(|(number, _)| number.to_string()).collect();
        // An empty list is a list of no numbers.
        let numbers = if numbers.is_empty() {
            "none".into()
        } else {
            numbers.join(",")
        };
        command.push_str(&format!("{STEPS}={numbers} "));
    }
    let package =
        env::var("CARGO_PKG_NAME").map_or_else(|_| String::new(), |it| format!(" -p {it}"));
    let program = env::current_exe().ok();
    let example = program.as_ref().filter(|it| {
        let folder = it.parent().and_then(|folder| folder.file_name());
        folder.is_some_and(|folder| folder == "examples")
    });
    match (
        example.and_then(|it| it.file_stem()),
        thread::current().name(),
    ) {
        (Some(example), _) => {
            command.push_str(&format!(
                "cargo run{package} --example {}",
                example.display()
            ));
        }
        (None, None | Some("main")) => command.push_str(&format!("cargo test{package}")),
        (None, Some(test)) => {
            command.push_str(&format!(
                "cargo test{package} {test} -- --exact --nocapture"
            ));
        }
    }
    command
}

/// The outcome of seeds that all passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The number of worlds.
    pub worlds: u64,
    /// Their virtual time together.
    pub simulated: Duration,
    /// The time that it took.
    pub elapsed: Duration,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hours = self.simulated.as_secs_f64() / 3600.0;
        let rate = self.worlds as f64 / self.elapsed.as_secs_f64().max(1e-9);
        let worlds = self.worlds;
        write!(
            f,
            "{worlds} worlds, {hours:.1} simulated hours, {rate:.0} seeds/s"
        )
    }
}

/// A seed that fails. Displayed, it has all that is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The reason.
    pub message: String,
    /// The faults without which it does not fail.
    pub steps: Vec<Step>,
    /// The number of faults before the reduction.
    pub count: usize,
    /// The lines of its [trace](crate::Trace) around the last fault; all of them in a replay.
    pub trace: Vec<String>,
    /// The command that replays it.
    pub command: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.trace {
            writeln!(f, "{line}")?;
        }
        writeln!(f, "\nseed {} fails: {}", self.seed, self.message)?;
        writeln!(
            f,
            "\nwith {} of its {} faults:",
            self.steps.len(),
            self.count
        )?;
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        write!(f, "\nreplay it with:\n    {}", self.command)
    }
}

impl std::error::Error for Failure {}

/// The progress on a terminal.
struct Progress {
    seeds: u64,
    done: u64,
    start: Instant,
    /// The time of the last line; `None` if there is no terminal.
    last: Option<Instant>,
    is_shown: bool,
}

impl Progress {
    fn new(seeds: u64) -> Self {
        let start = Instant::now();
        Self {
            seeds,
            done: 0,
            start,
            last: io::stderr().is_terminal().then_some(start),
            is_shown: false,
        }
    }

    fn advance(&mut self, simulated: Duration) {
        self.done += 1;
        let Some(last) = &mut self.last else {
            return;
        };
        if last.elapsed() > Duration::from_millis(500) {
            *last = Instant::now();
            self.is_shown = true;
            let hours = simulated.as_secs_f64() / 3600.0;
            let text = format!(
                "\r{} of {} worlds, {hours:.1} hours ",
                self.done, self.seeds
            );
            // Progress that cannot be shown is no failure.
            let _shown = io::stderr().write_all(text.as_bytes());
        }
    }

    fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _shown = io::stderr().write_all(b"\r\x1b[K");
        }
    }
}
