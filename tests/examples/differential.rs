//! Runs random programs on RabbitMQ and on another broker, and prints where they differ.
//!
//! ```text
//! cargo run --release -p amqp-tests --example differential -- --programs 2000 --seed 1
//! ```

use std::{env, process::ExitCode};

use amqp_tests::{
    Embedded,
    differential::{
        Lane,
        compare::{Options, compare},
        generate::generate,
        policies,
    },
    harness::Failure,
    rabbitmq::Node,
};

const HELP: &str = "\
Runs random programs on RabbitMQ and on another broker, and tells where they differ.

  --programs N       how many programs (200)
  --seed N           the first one's seed (1)
  --steps N          how many steps each has (30)
  --lanes N          how many run at a time (12)
  --shrink N         how many differences are made small (5)
  --enough N         after how many differences to stop (20)
  --reference URI    the broker that is right, otherwise a RabbitMQ is started
  --broker URI       the broker to compare it with, otherwise the embedded one
  --policies         set policies on both brokers, which are started for it
  --only BROKER      compare that one with itself: rabbitmq or embedded
  --show             print what comes of the program of the seed on the reference, no more; with
                     --only embedded on the embedded broker
  --help             print this
";

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = match runtime {
        Ok(runtime) => runtime.block_on(run()),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("differential: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<bool, Failure> {
    let mut options = Options::new("", "");
    let (mut only, mut show) = (String::new(), false);
    let mut arguments = env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || {
            let missing = format!("{argument} needs a value");
            arguments.next().ok_or(missing)
        };
        match argument.as_str() {
            "--programs" => options.programs = value()?.parse()?,
            "--seed" => options.seed = value()?.parse()?,
            "--steps" => options.steps = value()?.parse()?,
            "--lanes" => options.lanes = value()?.parse()?,
            "--shrink" => options.shrink = value()?.parse()?,
            "--enough" => options.enough = value()?.parse()?,
            "--reference" => options.reference = value()?,
            "--broker" => options.other = value()?,
            "--only" => only = value()?,
            "--show" => show = true,
            "--policies" => options.policies = true,
            "--help" => {
                print!("{HELP}");
                return Ok(true);
            }
            other => return Err(format!("what is {other}? See --help").into()),
        }
    }
    let embedded = Embedded::start()?;
    if options.policies {
        policies::set_at_embedded(&embedded)?;
    }
    let mut node = None;
    match only.as_str() {
        "embedded" => options.reference = embedded.uri(),
        _ if options.reference.is_empty() => {
            let started = node.insert(Node::start()?);
            options.reference = started.uri();
            if options.policies {
                policies::set_at_rabbitmq(started, "/")?;
            }
        }
        _ => {}
    }
    if !only.is_empty() {
        options.other.clone_from(&options.reference);
    } else if options.other.is_empty() {
        options.other = embedded.uri();
    }
    if show {
        let program = generate(options.seed, options.steps);
        let trace = Lane::new(options.reference, "show").run(&program).await?;
        for (at, step) in program.steps.iter().enumerate() {
            println!("{at:2} {step:?}");
            for line in trace.step(at) {
                println!("        {line}");
            }
        }
        println!("   the end");
        for line in trace.step(program.steps.len()) {
            println!("        {line}");
        }
        return Ok(true);
    }
    let mut reported = 0;
    let report = compare(&options, |done| {
        if done / 100 > reported {
            reported = done / 100;
            eprintln!("{done} programs");
        }
    })
    .await?;
    println!("{report}");
    Ok(report.differences.is_empty())
}
