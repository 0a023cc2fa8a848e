//! The small version of the example `fairness`, with bounds that a busy machine keeps to.

use std::time::Duration;

use amqp_tests::{
    Embedded, Runtime,
    fairness::{CASES, cost_of_waiting, run, shares},
    harness::Outcome,
};

/// How long each ten of the publishers of a case publish, at least: a turn of each takes milliseconds in
/// a build without optimisations, and shares are even after many turns only.
const TIME: Duration = Duration::from_millis(200);

/// Bodies of such a size fill the output with many messages, so that a short time is enough.
const SMALL: usize = 100;

/// The most that one publisher may do for each that another does.
const RATIO_MAX: f64 = 3.0;

/// How many publishes wait at the same time.
const WAITING: [usize; 2] = [500, 8000];

/// How much more a publish may cost with the most waiting than with the fewest. If it cost as much
/// more as there are more, that would be 16.
const GROWTH_MAX: f64 = 5.0;

/// How often something is measured before it counts: the machine may have been busy elsewhere.
const ATTEMPTS: usize = 10;

/// Publishers that never pause get the same share.
pub(crate) fn publishers(runtime: &'static dyn Runtime) -> Outcome {
    let server = Embedded::start()?;
    let mut unfair = Vec::new();
    // Where there are more threads than processors, the line shares the output out only if it is the
    // output that is short.
    let threads = runtime.name() == "blocking";
    let cases = CASES.into_iter().filter(|case| {
        let large = threads && case.publishers > 3;
        (case.body == SMALL) != large
    });
    for case in cases {
        let mut least = f64::INFINITY;
        for _ in 0..ATTEMPTS {
            let time = TIME * u32::try_from(case.publishers.div_ceil(10))?;
            let shares = run(runtime, shares(runtime, server.uri(), case, time))?;
            least = least.min(shares.ratio());
            println!(
                "{case:42} {:20} least {:>6} most {:>6} ratio {:.2}",
                runtime.name(),
                shares.least,
                shares.most,
                shares.ratio(),
            );
            if least <= RATIO_MAX {
                break;
            }
        }
        if least > RATIO_MAX {
            unfair.push(format!("{case}: {least:.2}"));
        }
    }
    if unfair.is_empty() {
        return Ok(());
    }
    Err(format!("the ratio of most to least is above {RATIO_MAX}: {unfair:?}").into())
}

/// A publish costs the same however many wait beside it.
pub(crate) fn waiting(runtime: &'static dyn Runtime) -> Outcome {
    let server = Embedded::start()?;
    let mut least = f64::INFINITY;
    for _ in 0..ATTEMPTS {
        let mut costs = [Duration::ZERO; WAITING.len()];
        for (cost, publishers) in costs.iter_mut().zip(WAITING) {
            *cost = run(runtime, cost_of_waiting(runtime, server.uri(), publishers))?;
        }
        let [few, many] = costs;
        let growth = many.as_secs_f64() / few.as_secs_f64();
        println!(
            "cost of a publish on {}: {few:.1?} of {}, {many:.1?} of {}, growth {growth:.2}",
            runtime.name(),
            WAITING[0],
            WAITING[1],
        );
        least = least.min(growth);
        if least <= GROWTH_MAX {
            return Ok(());
        }
    }
    Err(format!("a publish costs {least:.1} times as much if sixteen times as many wait").into())
}
