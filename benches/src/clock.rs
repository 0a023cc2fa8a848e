//! Time that passes, and time that the processor works.

use std::hint::black_box;
use std::time::{Duration, Instant};
use std::{fs, thread};

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::allocator;

/// A measurement that is under way.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    start: Instant,
    worked: Duration,
    allocations: u64,
}

/// The work of a run, and its time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// How many messages passed.
    pub(crate) messages: u64,
    /// The time that passed.
    pub(crate) elapsed: Duration,
    /// The time that processors worked for this process.
    pub(crate) worked: Duration,
    /// The heap allocations, where they are counted.
    pub(crate) allocations: u64,
}

impl Sample {
    /// Messages per second.
    pub(crate) fn rate(&self) -> f64 {
        self.messages as f64 / self.elapsed.as_secs_f64()
    }

    /// Nanoseconds of work per message.
    pub(crate) fn worked_nanos(&self) -> f64 {
        self.worked.as_nanos() as f64 / self.messages as f64
    }

    /// Heap allocations per message.
    pub(crate) fn allocated(&self) -> f64 {
        self.allocations as f64 / self.messages as f64
    }
}

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self {
            worked: worked(),
            allocations: allocator::counted().allocations,
            start: Instant::now(),
        }
    }

    /// Ends the measurement, in which that many messages passed.
    pub(crate) fn stop(self, messages: u64) -> Sample {
        let elapsed = self.start.elapsed();
        let worked = worked().saturating_sub(self.worked);
        Sample {
            messages,
            elapsed,
            worked,
            allocations: allocator::counted().allocations - self.allocations,
        }
    }
}

/// How long processors have worked for this process, in the program and for it in the system.
fn worked() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

/// The processor time of this thread. Other load of the machine affects it only through the caches.
pub(crate) fn thread_worked() -> Duration {
    duration(clock_gettime(ClockId::ThreadCPUTime))
}

fn duration(time: Timespec) -> Duration {
    Duration::try_from(time).unwrap_or_default()
}

/// The time of a fixed piece of work that touches no memory and no system call: a measure of the
/// other load of the machine.
pub(crate) fn yardstick() -> Duration {
    let start = Instant::now();
    let mut state = black_box(1_u64);
    for _ in 0..20_000_000 {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
    }
    black_box(state);
    start.elapsed()
}

/// One line on the machine.
pub(crate) fn machine() -> String {
    let of_file = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = of_file("/proc/cpuinfo");
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown processor", |line| {
            line.trim_start_matches([' ', '\t', ':'])
        });
    let cores = thread::available_parallelism().map_or(0, usize::from);
    let kernel = of_file("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, Linux {}", kernel.trim())
}

/// The load of the machine in the last minute; `Some` where the system reports it.
pub(crate) fn load() -> Option<f64> {
    let loadavg = fs::read_to_string("/proc/loadavg").ok()?;
    loadavg.split_whitespace().next()?.parse().ok()
}
