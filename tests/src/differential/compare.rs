//! Many programs on two brokers, several at a time.

use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    generate::generate,
    lane::{Kept, Lane, all},
    program::{Program, Step, Traits},
    trace::Trace,
};
use crate::harness::Failure;

/// How often the reference runs a program of which something else came elsewhere, to see whether
/// it agrees with itself.
const RERUNS: usize = 2;

/// The options of a comparison.
#[derive(Clone, Debug)]
pub struct Options {
    /// The broker that is right.
    pub reference: String,
    /// The other one.
    pub other: String,
    /// The first program's seed; the next one's is the next number.
    pub seed: u64,
    /// How many programs.
    pub programs: u64,
    /// How many steps each has.
    pub steps: usize,
    /// How many run at a time.
    pub lanes: usize,
    /// How many differences are made small, which takes a hundred runs each.
    pub shrink: u64,
    /// After how many differences to stop.
    pub enough: usize,
    /// Whether the brokers have the [policies](super::policies).
    pub policies: bool,
}

impl Options {
    /// 200 programs of 30 steps.
    #[must_use]
    pub fn new(reference: impl Into<String>, other: impl Into<String>) -> Self {
        Self {
            reference: reference.into(),
            other: other.into(),
            seed: 1,
            programs: 200,
            steps: 30,
            lanes: 12,
            shrink: 5,
            enough: 20,
            policies: false,
        }
    }
}

/// The results of a comparison.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// How many programs ran.
    pub programs: u64,
    /// How many steps they had.
    pub steps: u64,
    /// How long that took.
    pub time: Duration,
    /// Where the brokers differ.
    pub differences: Vec<Difference>,
    /// Where the reference differs from itself.
    pub undetermined: Vec<Difference>,
}

/// A program of which different things came.
#[derive(Clone, Debug)]
pub struct Difference {
    /// The program, made small.
    pub program: Program,
    /// The first step of which different things came.
    pub at: usize,
    /// The trace of the reference.
    pub reference: Trace,
    /// The trace of the other broker.
    pub other: Trace,
}

impl Difference {
    fn of(program: &Program, reference: Trace, other: Trace) -> Option<Self> {
        Some(Self {
            program: program.clone(),
            at: reference.first_difference(&other)?,
            reference,
            other,
        })
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            program,
            at,
            reference,
            other,
        } = self;
        writeln!(f, "seed {}, step {at}", program.seed)?;
        for (number, step) in program.steps.iter().enumerate().take(at + 1) {
            let mark = if number == *at { '>' } else { ' ' };
            writeln!(f, "{mark} {number:2} {step:?},")?;
            if number < *at {
                for line in reference.step(number) {
                    writeln!(f, "        {line}")?;
                }
            }
        }
        if *at >= program.steps.len() {
            writeln!(f, ">  the end")?;
        }
        writeln!(f, "  reference:")?;
        for line in reference.step(*at) {
            writeln!(f, "        {line}")?;
        }
        writeln!(f, "  other:")?;
        for line in other.step(*at) {
            writeln!(f, "        {line}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in &self.undetermined {
            writeln!(f, "the reference differs from itself: {difference}")?;
        }
        for difference in &self.differences {
            writeln!(f, "DIFFERENCE: {difference}")?;
        }
        write!(
            f,
            "{} programs, {} steps, in {:.1} s: {} differences, {} undetermined",
            self.programs,
            self.steps,
            self.time.as_secs_f64(),
            self.differences.len(),
            self.undetermined.len()
        )
    }
}

/// Two lanes, one to each broker.
#[derive(Debug)]
pub struct Pair {
    reference: Lane,
    other: Lane,
    /// Both lanes go to the reference.
    is_one_broker: bool,
}

impl Pair {
    /// Lanes to the two brokers. Pairs that are used at the same time need different names.
    #[must_use]
    pub fn new(reference: &str, other: &str, name: &str) -> Self {
        Self {
            reference: Lane::new(reference, format!("{name}r")),
            other: Lane::new(other, format!("{name}o")),
            is_one_broker: reference == other,
        }
    }

    /// Sets whether the brokers have the [policies](super::policies).
    #[must_use]
    pub fn with_policies(self, policies: bool) -> Self {
        Self {
            reference: self.reference.with_policies(policies),
            other: self.other.with_policies(policies),
            ..self
        }
    }

    /// Runs a program on both.
    ///
    /// # Errors
    /// When the reference cannot be reached.
    pub async fn run(&mut self, program: &Program) -> Result<Option<Difference>, Failure> {
        let runs: Vec<Kept<'_, Result<Trace, Failure>>> = vec![
            Box::pin(self.reference.run(program)),
            Box::pin(self.other.run(program)),
        ];
        let mut traces = all(runs).await.into_iter();
        let mut next = || {
            traces
                .next()
                .unwrap_or_else(|| Err("it did not run".into()))
        };
        let (reference, other) = (next()?, next());
        let other = other.unwrap_or_else(|fault| Trace(vec![vec![format!("FAILED: {fault}")]]));
        Ok(Difference::of(program, reference, other))
    }

    /// Whether the reference does the same each time.
    async fn is_determined(&mut self, difference: &Difference) -> Result<bool, Failure> {
        for _ in 0..RERUNS {
            if self.reference.run(&difference.program).await? != difference.reference {
                return Ok(false);
            }
            // It may be the other run that the reference does not repeat.
            if self.is_one_broker && self.other.run(&difference.program).await? != difference.other
            {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Leaves out the steps that the difference does not need.
    async fn shrink(&mut self, mut found: Difference) -> Result<Difference, Failure> {
        // Steps behind the first difference are not needed.
        let mut size = found.program.steps.len();
        while size > 0 {
            let mut from = 0;
            let mut smaller = false;
            while from < found.program.steps.len() {
                let mut program = found.program.clone();
                let to = (from + size).min(program.steps.len());
                program.steps.drain(from..to);
                match self.run(&program).await? {
                    Some(still) => {
                        found = still;
                        smaller = true;
                    }
                    None => from += size,
                }
            }
            if size > 1 || !smaller {
                size /= 2;
            }
        }
        for at in 0..found.program.steps.len() {
            for simpler in simpler(&found.program.steps[at]) {
                let mut program = found.program.clone();
                program.steps[at] = simpler;
                if program != found.program
                    && let Some(still) = self.run(&program).await?
                {
                    found = still;
                }
            }
        }
        Ok(found)
    }
}

/// Steps that do less.
fn simpler(step: &Step) -> Vec<Step> {
    let mut simpler = Vec::new();
    let mut without = |change: fn(&mut Step)| {
        let mut step = step.clone();
        change(&mut step);
        simpler.push(step);
    };
    without(|step| {
        if let Step::Queue { arguments, .. } = step {
            arguments.clear();
        }
    });
    without(|step| {
        if let Step::Publish { traits, .. } = step {
            *traits = Traits::default();
        }
    });
    without(|step| {
        if let Step::Publish { count, .. } = step {
            *count = 1;
        }
    });
    simpler
}

/// Compares, and reports each program that is done.
///
/// # Errors
/// When the reference cannot be reached.
pub async fn compare(options: &Options, mut progress: impl FnMut(u64)) -> Result<Report, Failure> {
    let begun = Instant::now();
    let shared = Arc::new(Shared {
        options: options.clone(),
        next: AtomicU64::new(0),
        shrunk: AtomicU64::new(0),
        report: Mutex::default(),
    });
    let mut tasks = Vec::new();
    for number in 0..options.lanes.max(1) {
        let shared = Arc::clone(&shared);
        tasks.push(tokio::spawn(async move { shared.work(number).await }));
    }
    while tasks.iter().any(|it| !it.is_finished()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        progress(shared.report().programs);
    }
    for task in tasks {
        task.await??;
    }
    let mut report = shared.report().clone();
    report.time = begun.elapsed();
    Ok(report)
}

/// The state that the lanes share.
struct Shared {
    options: Options,
    next: AtomicU64,
    shrunk: AtomicU64,
    report: Mutex<Report>,
}

impl Shared {
    fn report(&self) -> std::sync::MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self, number: usize) -> Result<(), Failure> {
        let options = &self.options;
        let name = format!("d{}l{number}", std::process::id());
        let mut pair =
            Pair::new(&options.reference, &options.other, &name).with_policies(options.policies);
        loop {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            if at >= options.programs || self.report().differences.len() >= options.enough {
                return Ok(());
            }
            let program = generate(options.seed + at, options.steps);
            let difference = pair.run(&program).await?;
            if let Some(difference) = difference {
                self.look_into(&mut pair, difference).await?;
            }
            let mut report = self.report();
            report.programs += 1;
            report.steps += program.steps.len() as u64;
        }
    }

    async fn look_into(&self, pair: &mut Pair, found: Difference) -> Result<(), Failure> {
        if !pair.is_determined(&found).await? {
            self.report().undetermined.push(found);
            return Ok(());
        }
        let mut found = found;
        if self.shrunk.fetch_add(1, Ordering::Relaxed) < self.options.shrink {
            found = pair.shrink(found).await?;
        }
        self.report().differences.push(found);
        Ok(())
    }
}
