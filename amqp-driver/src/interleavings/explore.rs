//! Every order of threads with at most so many preemptions.

use std::{
    io::{self, Write as _},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use shuttle::{
    Config, MaxSteps, Runner,
    scheduler::{Schedule, Scheduler, Task, TaskId},
};

use super::lock::exploring;

/// The stack of a thread, in bytes. Unoptimized futures are large.
const STACK: usize = 1 << 20;

/// The maximum number of steps of one order: beyond it, threads run in circles.
const STEPS_MAX: usize = 100_000;

/// Runs `world` in every order of its threads with at most `preemptions` of them, or as many as
/// `AMQP_PREEMPTIONS` says, and prints the number of orders.
///
/// A preemption is a switch away from a thread that could go on. Switches away from one that waits
/// are free, and all of them are tried. Few defects need more than two preemptions.
pub(crate) fn explore(name: &str, preemptions: usize, world: impl Fn() + Send + Sync + 'static) {
    let bound = std::env::var("AMQP_PREEMPTIONS")
        .ok()
        .map_or(preemptions, |it| it.parse().expect("a number"));
    let mut config = Config::new();
    config.stack_size = STACK;
    config.max_steps = MaxSteps::FailAfter(STEPS_MAX);
    let runner = Runner::new(Bounded::new(bound), config);
    let start = std::time::Instant::now();
    let order = Arc::new(AtomicUsize::new(0));
    let failing = Failing(Arc::clone(&order));
    let orders = exploring(|| {
        runner.run(move || {
            order.fetch_add(1, Ordering::Relaxed);
            world();
        })
    });
    drop(failing);
    let time = start.elapsed();
    let count = format!("{name}: {orders} orders with up to {bound} preemptions, in {time:.1?}\n");
    // Past the capture of the tests' output: the number is part of the result.
    let _unseen = io::stderr().write_all(count.as_bytes());
}

/// Names the number of the order that fails.
struct Failing(Arc<AtomicUsize>);

impl Drop for Failing {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("fails in order {}", self.0.load(Ordering::Relaxed));
        }
    }
}

/// Depth first, from the order without preemptions on.
struct Bounded {
    bound: usize,
    /// The choices of the present order.
    path: Vec<Step>,
    /// The number of choices made.
    depth: usize,
    /// The number of preemptions among them.
    preempted: usize,
}

struct Step {
    choices: Vec<TaskId>,
    at: usize,
    /// Whether each choice but the first preempts a thread.
    preempts: bool,
}

impl Bounded {
    const fn new(bound: usize) -> Self {
        Self {
            bound,
            path: Vec::new(),
            depth: 0,
            preempted: 0,
        }
    }

    fn step(&self, runnable: &[&Task], current: Option<TaskId>, yields: bool) -> Step {
        let mut choices: Vec<TaskId> = runnable.iter().map(|task| task.id()).collect();
        let current = current.filter(|it| choices.contains(it));
        let Some(current) = current else {
            return Step {
                choices,
                at: 0,
                preempts: false,
            };
        };
        choices.retain(|it| *it != current);
        if yields {
            // It waits for another thread by turns.
            if choices.is_empty() {
                choices.push(current);
            }
        } else {
            if self.preempted >= self.bound {
                choices.clear();
            }
            choices.insert(0, current);
        }
        Step {
            choices,
            at: 0,
            preempts: !yields,
        }
    }
}

impl Scheduler for Bounded {
    fn new_execution(&mut self) -> Option<Schedule> {
        if self.depth > 0 {
            while let Some(step) = self.path.last_mut() {
                step.at += 1;
                if step.at < step.choices.len() {
                    break;
                }
                self.path.pop();
            }
            if self.path.is_empty() {
                return None;
            }
        }
        (self.depth, self.preempted) = (0, 0);
        Some(Schedule::new(0))
    }

    fn next_task(
        &mut self,
        runnable: &[&Task],
        current: Option<TaskId>,
        yields: bool,
    ) -> Option<TaskId> {
        if self.depth == self.path.len() {
            let step = self.step(runnable, current, yields);
            self.path.push(step);
        }
        let step = &self.path[self.depth];
        self.depth += 1;
        self.preempted += usize::from(step.preempts && step.at > 0);
        let chosen = step.choices[step.at];
        let can_run = runnable.iter().any(|task| task.id() == chosen);
        assert!(can_run, "the world differs from run to run");
        Some(chosen)
    }

    fn next_u64(&mut self) -> u64 {
        0
    }
}
