//! Random operations with tiny limits on every runtime, while the server and the line misbehave:
//! everything ends within its bound, each publish has one outcome, messages keep their order, memory
//! stays bounded, and no other task starves. Publishers that never pause get the same share.
//!
//! `STRESS_SEED` and `STRESS_SECONDS` (per runtime) set the seed and the time. Without them each run has
//! the same seed.

mod consume;
mod fair;
mod ledger;
mod meter;
mod publish;
mod random;
mod run;
mod server;
mod session;
mod tick;
mod watch;

use std::{
    env,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use amqp_tests::{
    harness::{self, Outcome, Scenario},
    scenarios::RUNTIMES,
};

/// The seed, unless another is asked for.
const SEED: u64 = 1;

/// For each runtime.
const SECONDS: u64 = 5;

fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

fn main() -> ExitCode {
    let seed = number("STRESS_SEED").unwrap_or(SEED);
    let seconds = number("STRESS_SECONDS").unwrap_or(SECONDS);
    let rows = Arc::new(Mutex::new(Vec::new()));
    // They measure the whole process.
    let turn = Arc::new(Mutex::new(()));
    // A scenario waits for all before it.
    let limit = Duration::from_secs(60 * (seconds + 60));
    let mut scenarios = Vec::new();
    for runtime in RUNTIMES {
        let name = runtime.name();
        let mut add = |what: &str, run: Box<dyn FnOnce() -> Outcome + Send>| {
            let turn = Arc::clone(&turn);
            let scenario = Scenario::local(format!("{what}_{name}"), move || {
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                run()
            });
            scenarios.push(scenario.limit(limit));
        };
        let rows = Arc::clone(&rows);
        add(
            "random",
            Box::new(move || run::on(runtime, seed, seconds, &rows)),
        );
        add("fair", Box::new(move || fair::publishers(runtime)));
        // With blocking calls each takes a thread.
        if name != "blocking" {
            add("waiting", Box::new(move || fair::waiting(runtime)));
        }
    }
    let code = harness::run(scenarios);
    let rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
    if !rows.is_empty() {
        println!("{}", run::HEAD);
        for row in rows.iter() {
            println!("{row}");
        }
    }
    code
}
