//! The command line.

use std::{path::PathBuf, time::Duration};

use lexopt::{Arg, Parser, ValueExt as _};

use crate::Result;

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Recovery on a real RabbitMQ: three publishers with confirms and two consumers go on through random
faults, and each message is accounted for. Ends with 1 if a check fails.

Usage: cargo run --release -p amqp-tests --example recovery -- [OPTIONS]

One of:
      --faults N           that many faults of all kinds, the default [default: 300]
      --minutes N          a soak: faults of all kinds for so long; memory, descriptors and threads of
                           the clients have to stay flat
      --cluster N          kill the leader of a quorum queue that often, in a cluster of three nodes
      --topology N         recover N queues, N bindings and N / 10 consumers after a cut
      --storm N            N clients lose their broker together; the curve of their connects
      --events             print all changes of one recovery

Options:
      --seed N             which faults, when, and all delays [default: 1]
      --rate N             published messages per second, of all publishers [default: 1500]
      --within SECONDS     the longest time from the broker until everything works [default: 1; 15 for
                           --cluster, which elects a leader meanwhile]
      --only WORD          only the faults whose names contain this
      --down SECONDS       how long the broker of --storm is away [default: 3]
      --plot FILE.svg      draw the curve of --storm, or those of --minutes
  -h, --help               print this

The brokers are private ones that are started for it; RabbitMQ has to be installed. Progress goes to
standard error, the results to standard output.
";

/// The bound of the time in which a cluster elects a leader, and the clients are back.
const ELECTION: Duration = Duration::from_secs(15);

/// The command.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) seed: u64,
    /// The published messages per second.
    pub(crate) rate: u32,
    /// The bound of the time from the broker until everything works; `None` for that of the mode.
    pub(crate) within: Option<Duration>,
    pub(crate) only: Option<String>,
    /// The time without the broker in a storm.
    pub(crate) down: Duration,
    pub(crate) plot: Option<PathBuf>,
}

/// The things that can be shown, with their numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    Faults(Length),
    Cluster(usize),
    Topology(usize),
    Storm(usize),
    Events,
}

impl Options {
    /// The longest time from the broker until everything works.
    pub(crate) fn within(&self) -> Duration {
        let default = match self.mode {
            Mode::Cluster(_) => ELECTION,
            _ => Duration::from_secs(1),
        };
        self.within.unwrap_or(default)
    }
}

/// The number of faults that tell a growth. A run for a time takes longer on a busy machine.
const FAULTS_MIN: usize = 16;

/// The length of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Length {
    Faults(usize),
    Time(Duration),
}

impl Length {
    /// Whether a run of that length goes on after so many faults and so much time.
    pub(crate) fn goes_on(self, faults: usize, elapsed: Duration) -> bool {
        match self {
            Self::Faults(count) => faults < count,
            Self::Time(time) => elapsed < time || faults < FAULTS_MIN,
        }
    }
}

/// Reads the command line. `None` if it asks for help.
pub(crate) fn parse() -> Result<Option<Options>> {
    let mut options = Options {
        mode: Mode::Faults(Length::Faults(300)),
        seed: 1,
        rate: 1500,
        within: None,
        only: None,
        down: Duration::from_secs(3),
        plot: None,
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("faults") => {
                options.mode = Mode::Faults(Length::Faults(number(&mut parser)?));
            }
            Arg::Long("minutes") => {
                let minutes: f64 = parser.value()?.parse()?;
                let time = Duration::try_from_secs_f64(60.0 * minutes)?;
                options.mode = Mode::Faults(Length::Time(time));
            }
            Arg::Long("cluster") => options.mode = Mode::Cluster(number(&mut parser)?),
            Arg::Long("topology") => options.mode = Mode::Topology(number(&mut parser)?),
            Arg::Long("storm") => options.mode = Mode::Storm(number(&mut parser)?),
            Arg::Long("events") => options.mode = Mode::Events,
            Arg::Long("seed") => options.seed = parser.value()?.parse()?,
            Arg::Long("rate") => options.rate = parser.value()?.parse()?,
            Arg::Long("within") => options.within = Some(seconds(&mut parser)?),
            Arg::Long("only") => options.only = Some(parser.value()?.string()?),
            Arg::Long("down") => options.down = seconds(&mut parser)?,
            Arg::Long("plot") => options.plot = Some(parser.value()?.into()),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(argument.unexpected().into()),
        }
    }
    if !(1..=100_000).contains(&options.rate) {
        return Err("--rate is from 1 to 100000".into());
    }
    Ok(Some(options))
}

fn number(parser: &mut Parser) -> Result<usize> {
    match parser.value()?.parse()? {
        0 => Err("there must be at least one".into()),
        number => Ok(number),
    }
}

fn seconds(parser: &mut Parser) -> Result<Duration> {
    Ok(Duration::try_from_secs_f64(parser.value()?.parse()?)?)
}
