//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use lexopt::{Arg, Parser, ValueExt as _};

use crate::syscalls::{self, Pass};
use crate::target::Target;
use crate::{Result, fleet, instructions, sink};

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Benchmarks of the AMQP crates, beside other clients and a raw socket, all in one run, against a
small server that counts publishes and sends deliveries as fast as it can.

Usage: cargo run --release -p amqp-bench -- [OPTIONS]

Options:
      --rounds N      how often everything is measured, in turn [default: 5]
      --seconds S     how long each measurement takes, about, at most 60 [default: 0.2]
      --only NAME     only what has NAME in its name; may be given several times
      --all           the whole grid of loads, sizes, channels and tasks, which takes an hour
      --quick         short for --rounds 3 --seconds 0.1
      --rabbitmq URI  measure the clients against that broker, whose queue amqp-bench it makes,
                      fills and deletes
      --syscalls      count the system calls too, which needs strace; not with --rabbitmq
      --instructions  count the core's instructions too, which needs valgrind
      --markdown FILE write the measurements as tables in Markdown
      --plot FILE     draw the speeds as an SVG
      --check         fail if a claim does not hold; not with --rabbitmq
      --list          only name what would be measured
  -h, --help          say this

A name is a load with its dimensions, and a client: \"publish, 1 KiB, 8 channels, 8 tasks/lapin\".
Without dimensions there is one channel, used by the main task. Several tasks share the channels.
  round trip          a passive queue.declare and its reply, one after the other
  connect             connections opened and closed, one after the other
  confirm, window N   publishing, with at most N confirms outstanding in each task
  publish             publishing without confirms, until the server has counted all
  deliver             consuming, with an acknowledgement per 100 deliveries
  deliver without acks
  get                 basic.get without acknowledgements, one after the other
lapin publishes with 1000 messages in flight, which it needs for its speed; \"lapin, 1000 tasks\"
has a task for each, and \"lapin, loop\" is the plain loop that the other clients are measured in.
rabbitmq-c is a program in C, compiled by cc at the start, with one channel. Where cc or the package
(librabbitmq-dev) is not installed, a line says so, and the rest is measured.

Beside the loads there are the memory of idle connections and channels (\"memory\"), of 10000
connections in one process with amqp-tokio and of 1000 with amqp-blocking, all of which have to
answer; the embedded broker (\"embedded\"): the speed and the memory of a million queued messages, for
which it takes 2 GiB, and of 5000 connections; and the core alone (\"core\"). Not with --rabbitmq.

A measurement that has no end within five minutes ends the program with its name.

Progress goes to standard error, the results to standard output.
";

/// How long a measurement takes at most: far less than the limit that ends one that hangs.
const LONGEST: Duration = Duration::from_secs(60);

/// The command.
#[derive(Debug)]
pub(crate) enum Task {
    /// Say how to use the program.
    Help,
    /// Be the small server.
    Serve,
    /// Drive the core, for a profiler to watch.
    Drive(instructions::Drive),
    /// Run one case, for strace to watch.
    Pass(Pass),
    /// Open many connections of one client.
    Fleet(fleet::Drive),
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
    /// Measure the whole grid.
    pub(crate) all: bool,
    /// The URI of a broker to measure against.
    pub(crate) rabbitmq: Option<String>,
    /// Count system calls too.
    pub(crate) syscalls: bool,
    /// Count instructions too.
    pub(crate) instructions: bool,
    /// Where to write tables.
    pub(crate) markdown: Option<PathBuf>,
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
        duration: Duration::from_millis(200),
        only: Vec::new(),
        all: false,
        rabbitmq: None,
        syscalls: false,
        instructions: false,
        markdown: None,
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
                if options.duration > LONGEST {
                    return Err(format!("--seconds is at most {}", LONGEST.as_secs()).into());
                }
            }
            Arg::Long("only") => options.only.push(parser.value()?.string()?),
            Arg::Long("all") => options.all = true,
            Arg::Long("rabbitmq") => options.rabbitmq = Some(parser.value()?.string()?),
            Arg::Long("syscalls") => options.syscalls = true,
            Arg::Long("markdown") => options.markdown = Some(parser.value()?.into()),
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
                return Ok(Task::Drive(instructions::Drive {
                    channels: u16::try_from(channels)?,
                    count,
                    deliver,
                }));
            }
            Arg::Value(word) if word == fleet::COMMAND => {
                return Ok(Task::Fleet(fleet::Drive {
                    name: parser.value()?.string()?,
                    uri: parser.value()?.string()?,
                }));
            }
            Arg::Value(word) if word == syscalls::COMMAND => {
                let name = parser.value()?.string()?;
                let uri = parser.value()?.string()?;
                let target = match parser.value()?.string()?.as_str() {
                    "sink" => Target::small(uri),
                    _ => Target::broker(uri),
                };
                return Ok(Task::Pass(Pass {
                    name,
                    target: target?,
                    count: parser.value()?.parse()?,
                }));
            }
            _ => return Err(argument.unexpected().into()),
        }
    }
    if options.rabbitmq.is_some() && (options.syscalls || options.check) {
        return Err("--syscalls and --check are for the small server, not for --rabbitmq".into());
    }
    Ok(Task::Measure(options))
}
