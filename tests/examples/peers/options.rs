//! The command line.

use lexopt::{Arg, Parser, ValueExt as _};

use crate::Result;

/// The text of `--help`.
pub(crate) const HELP: &str = "\
Peers in processes of their own, over TCP on this machine. Ends with 1 if a check fails.

Usage: cargo run --release -p amqp-tests --example peers -- MODE [OPTIONS]

Modes:
  kill                     A sender and a receiver of persistent messages, both with SQLite, one of which
                           is killed (SIGKILL) at a random point, again and again; half of the rounds with
                           the roles of listener and connector swapped. No message is lost, none is
                           accepted twice, and their order holds.
      --rounds N           the number of kills [default: 200]
      --seed N             which side is killed, and when [default: 1]

  parallel                 Many peers with a link each to one, and messages over all of them at once; then
                           with the roles swapped.
      --peers N            [default: 200]
      --messages N         of each peer [default: 1000]

  small                    Messages of 5 bytes over one link between two processes, per second; beside
                           snakeMQ 1.6 in the same run.
      --messages N         [default: 100000]
      --runs N             of which the median counts [default: 5]
      --threads N          of the runtime in each process [default: 1]
      --no-snake           peers alone
      --at-least N         fail below so many times snakeMQ's messages

  large                    One message between two processes, with the peak of their memory.
      --mib N              [default: 300]

  -h, --help               print this

How `kill` counts: the receiver writes a record of each message to a file, and accepts it then. A process
that is killed in between is given that message again, marked as repeated; it looks the message up in the
file, and only accepts it. So a message has one record although the file and the storage of the peer are
two. Without the look-up the record would be written again for the messages that `kill` prints as
`again after a kill`. It fails if a message that is not marked has a record, if one is given twice to
one process, or if one is given again of which the sender knew before that it was accepted.

Progress goes to standard error, the results to standard output.
";

/// The thing to show.
pub(crate) enum Mode {
    Kill(Kill),
    Parallel(Parallel),
    Small(Small),
    Large(Large),
}

#[derive(Clone, Copy)]
pub(crate) struct Kill {
    pub(crate) rounds: usize,
    pub(crate) seed: u64,
}

#[derive(Clone, Copy)]
pub(crate) struct Parallel {
    pub(crate) peers: usize,
    pub(crate) messages: usize,
}

#[derive(Clone, Copy)]
pub(crate) struct Small {
    pub(crate) messages: usize,
    pub(crate) runs: usize,
    pub(crate) threads: usize,
    pub(crate) snake: bool,
    /// The least ratio to snakeMQ's messages.
    pub(crate) at_least: f64,
}

#[derive(Clone, Copy)]
pub(crate) struct Large {
    pub(crate) mib: usize,
}

/// Reads the command line. `None` if it asks for help.
pub(crate) fn parse() -> Result<Option<Mode>> {
    let mut parser = Parser::from_env();
    let mode = match parser.next()? {
        Some(Arg::Value(mode)) => mode.string()?,
        Some(Arg::Short('h') | Arg::Long("help")) => return Ok(None),
        Some(other) => return Err(other.unexpected().into()),
        None => return Err("no mode: see --help".into()),
    };
    let mut kill = Kill {
        rounds: 200,
        seed: 1,
    };
    let mut parallel = Parallel {
        peers: 200,
        messages: 1000,
    };
    let mut small = Small {
        messages: 100_000,
        runs: 5,
        threads: 1,
        snake: true,
        at_least: 0.0,
    };
    let mut large = Large { mib: 300 };
    while let Some(argument) = parser.next()? {
        match (mode.as_str(), argument) {
            (_, Arg::Short('h') | Arg::Long("help")) => return Ok(None),
            ("kill", Arg::Long("rounds")) => kill.rounds = number(&mut parser)?,
            ("kill", Arg::Long("seed")) => kill.seed = parser.value()?.parse()?,
            ("parallel", Arg::Long("peers")) => parallel.peers = number(&mut parser)?,
            ("parallel", Arg::Long("messages")) => parallel.messages = number(&mut parser)?,
            ("small", Arg::Long("messages")) => small.messages = number(&mut parser)?,
            ("small", Arg::Long("runs")) => small.runs = number(&mut parser)?,
            ("small", Arg::Long("threads")) => small.threads = number(&mut parser)?,
            ("small", Arg::Long("no-snake")) => small.snake = false,
            ("small", Arg::Long("at-least")) => small.at_least = parser.value()?.parse()?,
            ("large", Arg::Long("mib")) => large.mib = number(&mut parser)?,
            (_, other) => return Err(other.unexpected().into()),
        }
    }
    match mode.as_str() {
        "kill" => Ok(Some(Mode::Kill(kill))),
        "parallel" => Ok(Some(Mode::Parallel(parallel))),
        "small" => Ok(Some(Mode::Small(small))),
        "large" => Ok(Some(Mode::Large(large))),
        other => Err(format!("no mode {other}: see --help").into()),
    }
}

fn number(parser: &mut Parser) -> Result<usize> {
    match parser.value()?.parse()? {
        0 => Err("there must be at least one".into()),
        number => Ok(number),
    }
}
