//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt as _};

use crate::{Result, instructions, sink};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Benchmarks of the AMQP crates, beside other clients and a raw socket, all in one run, against a
small server that swallows publishes and blasts deliveries.

Usage: cargo run --release -p amqp-bench -- [OPTIONS]

Options:
      --rounds N      how often everything is measured, in turn [default: 5]
      --seconds S     how long each measurement takes, about [default: 0.5]
      --only NAME     only what has NAME in its name; may be given several times
      --quick         short for --rounds 3 --seconds 0.1
      --instructions  count the core's instructions too, which needs valgrind
      --plot FILE     draw the speeds as an SVG
      --check         fail if a claim does not hold
      --list          only name what would be measured
  -h, --help          say this

Progress goes to standard error, the results to standard output.
";

/// The command.
#[derive(Debug)]
pub(crate) enum Task {
    /// Say how to use the program.
    Help,
    /// Be the small server.
    Serve,
    /// DrivenEndpoint the core, for a profiler to watch.
    Drive(instructions::DrivenEndpoint),
    /// Measure.
    Measure(Options),
}

/// The selected measurements, and their settings.
#[derive(Debug)]
pub(crate) struct Options {
    /// How often everything is measured, at least once.
    pub(crate) rounds: u32,
    /// How long each measurement takes, about.
    pub(crate) duration: Duration,
    /// Parts of the names to measure; all when there are none.
    pub(crate) only: Vec<String>,
    /// Count instructions too.
    pub(crate) instructions: bool,
    /// Where to draw.
    pub(crate) plot: Option<PathBuf>,
    /// Fail if a claim does not hold.
    pub(crate) check: bool,
    /// Only print the names of the selected measurements.
    pub(crate) list: bool,
}

impl Options {
    /// Whether something of that name is to be measured.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| name.contains(only.as_str()))
    }
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Task> {
    let mut options = Options {
        rounds: 5,
        duration: Duration::from_millis(500),
        only: Vec::new(),
        instructions: false,
        plot: None,
        check: false,
        list: false,
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("rounds") => options.rounds = parser.value()?.parse::<u32>()?.max(1),
            Arg::Long("seconds") => {
                let seconds: f64 = parser.value()?.parse()?;
                options.duration = Duration::try_from_secs_f64(seconds)?;
            }
            Arg::Long("only") => options.only.push(parser.value()?.string()?),
            Arg::Long("quick") => {
                options.rounds = 3;
                options.duration = Duration::from_millis(100);
            }
            Arg::Long("instructions") => options.instructions = true,
            Arg::Long("plot") => options.plot = Some(parser.value()?.into()),
            Arg::Long("check") => options.check = true,
            Arg::Long("list") => options.list = true,
            Arg::Short('h') | Arg::Long("help") => return Ok(Task::Help),
            Arg::Value(word) if word == sink::COMMAND => return Ok(Task::Serve),
            Arg::Value(word) if word == instructions::COMMAND => {
                let mut number = || -> Result<u64> { Ok(parser.value()?.parse()?) };
                let (channels, count, deliver) = (number()?, number()?, number()? == 1);
                return Ok(Task::Drive(instructions::DrivenEndpoint {
                    channels: u16::try_from(channels)?,
                    count,
                    deliver,
                }));
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Task::Measure(options))
}
