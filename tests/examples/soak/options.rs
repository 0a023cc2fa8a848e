//! The command line.

use std::path::PathBuf;

use lexopt::{Arg, Parser, ValueExt as _};

use crate::Result;

/// The text of `--help`.
pub(crate) const HELP: &str = "\
The long run: messages of all sizes through RabbitMQ and back, each of them checked.

Usage: cargo run --release -p amqp-tests --example soak -- [OPTIONS]

Options:
      --messages N         how many messages [default: 200000]
      --seed N             which messages [default: 1]
      --capture FILE.pcap  record what passes on the loopback interface, and have it decoded by
                           tshark; for some thousand messages
  -h, --help               say this

The server is the one that the environment variable AMQP_URL names, or else a RabbitMQ that is
started for it. Progress goes to standard error, the results to standard output.
";

/// The command.
#[derive(Debug)]
pub(crate) struct Options {
    /// How many messages.
    pub(crate) messages: u64,
    /// Which messages.
    pub(crate) seed: u64,
    /// The file of the recording.
    pub(crate) capture: Option<PathBuf>,
}

/// Reads the command line; none if it asks for help.
pub(crate) fn parse() -> Result<Option<Options>> {
    let mut options = Options {
        messages: 200_000,
        seed: 1,
        capture: None,
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("messages") => options.messages = parser.value()?.parse()?,
            Arg::Long("seed") => options.seed = parser.value()?.parse()?,
            Arg::Long("capture") => options.capture = Some(parser.value()?.into()),
            Arg::Short('h') | Arg::Long("help") => return Ok(None),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Some(options))
}
