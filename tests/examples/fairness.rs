//! Prints how evenly publishers that never pause share a connection, on each runtime, and the cost
//! of each of many waits. Ends with 1 if one publisher does more than one and a half times as much
//! as another, or if the cost grows with the number of waits.
//!
//! ```text
//! cargo run --release -p amqp-tests --example fairness [seconds]
//! ```

use std::{env, process::ExitCode, time::Duration};

use amqp_tests::{
    Embedded, Runtime,
    fairness::{self, CASES},
    harness::Failure,
    scenarios::RUNTIMES,
};

/// The most that one publisher may do for each that another does.
const RATIO_MAX: f64 = 1.5;

/// How much more a publish may cost if sixteen times as many wait.
const GROWTH_MAX: f64 = 1.5;

/// How often each is measured: the least counts, since a busy machine only adds to it.
const ROUNDS: usize = 3;

const WAITING: [usize; 3] = [1000, 4000, 16_000];

fn main() -> Result<ExitCode, Failure> {
    let seconds = match env::args().nth(1) {
        Some(seconds) => seconds.parse()?,
        None => 1.0,
    };
    let time = Duration::from_secs_f64(seconds);
    let server = Embedded::start()?;
    let mut good = true;
    println!(
        "publishers                                runtime                  least      most   ratio"
    );
    for case in CASES {
        for runtime in RUNTIMES {
            // Threads take turns on the processors, which is even only after many of them.
            let threads = runtime.name() == "blocking" && case.publishers > 3;
            let time = if threads { time * 5 } else { time };
            let measure = fairness::shares(runtime, server.uri(), case, time);
            let shares = fairness::run(runtime, measure)?;
            let ratio = shares.ratio();
            let mark = if ratio <= RATIO_MAX { "" } else { "  UNFAIR" };
            good &= ratio <= RATIO_MAX;
            println!(
                "{case:40}  {:20}  {:>8}  {:>8}  {ratio:>6.2}{mark}",
                runtime.name(),
                shares.least,
                shares.most,
            );
        }
    }
    println!("\ncost of each publish of 16 KiB, of so many at the same time");
    for runtime in RUNTIMES {
        good &= waiting(runtime, &server)?;
    }
    Ok(if good {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn waiting(runtime: &'static dyn Runtime, server: &Embedded) -> Result<bool, Failure> {
    print!("{:20}", runtime.name());
    if runtime.name() == "blocking" {
        println!("  a thread each: not so many");
        return Ok(true);
    }
    let mut costs = Vec::new();
    for publishers in WAITING {
        let mut cost = Duration::MAX;
        for _ in 0..ROUNDS {
            let measure = fairness::cost_of_waiting(runtime, server.uri(), publishers);
            cost = cost.min(fairness::run(runtime, measure)?);
        }
        print!("  {publishers}: {cost:.1?}");
        costs.push(cost.as_secs_f64());
    }
    let growth = match (costs.first(), costs.last()) {
        (Some(first), Some(last)) => last / first,
        _ => 1.0,
    };
    let mark = if growth <= GROWTH_MAX {
        ""
    } else {
        "  NOT LINEAR"
    };
    println!("  growth {growth:.2}{mark}");
    Ok(growth <= GROWTH_MAX)
}
