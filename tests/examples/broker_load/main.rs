//! Prints the memory and the latency of a broker under load, and whether they are within their
//! bounds. Ends with 1 where one does not hold.
//!
//! ```text
//! cargo build --release -p amqp-broker-server
//! cargo run --release -p amqp-tests --example broker_load -- [--quick]
//! ```

mod broker;
mod cases;
mod hostile;
mod probe;
mod report;
mod wire;

use std::{path::PathBuf, process::ExitCode};

use amqp_tests::harness::Failure;
use lexopt::{Arg, Parser, ValueExt as _};
use rustix::process::{Resource, getrlimit, setrlimit};

use self::{broker::Broker, report::Report};

const HELP: &str = "\
The memory and the latency of a broker under load: many connections, channels and messages, and
clients that cost more than they should. Ends with 1 if a bound does not hold.

  --quick          a tenth of most
  --only WORD      the cases whose names contain this: connections, channels, come-and-go, messages,
                   acknowledged, slow-reader, strangers, slow-logins, channel-hog, halves, replies,
                   failed-logins
  --broker PATH    the program amqp-broker (beside this one)
  --at HOST:PORT   another broker, such as RabbitMQ; no bound is checked
  --pid NUMBER     its process, whose memory is measured
  --help           print this
";

/// The limits of memory that the program runs with, in bytes.
const LARGE: usize = 4 << 30;
const SMALL: usize = 256 << 20;

/// The sockets that this process needs beside those of the largest case.
const SPARE_FILES: u64 = 100;

struct Options {
    quick: bool,
    only: Option<String>,
    program: Option<PathBuf>,
    at: Option<String>,
    process: Option<u32>,
}

fn main() -> Result<ExitCode, Failure> {
    let Some(options) = parse()? else {
        print!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    };
    let scale = if options.quick { 10 } else { 1 };
    let connections = raise_files(10_000 / scale)?;
    let start = |memory| match &options.at {
        Some(at) => Broker::at(at, options.process),
        None => Broker::start(&broker::program(options.program.clone())?, memory),
    };
    let is_wanted = |name: &str| options.only.as_ref().is_none_or(|only| name.contains(only));
    let mut report = Report::new(options.at.is_none());

    // A broker of its own for each case, unless one is given: no case has the memory of another.
    if is_wanted("connections") {
        cases::connections(&mut report, &start(LARGE)?, connections)?;
    }
    if is_wanted("channels") {
        cases::channels(&mut report, &start(LARGE)?, 20 / scale)?;
    }
    if is_wanted("come-and-go") {
        cases::come_and_go(&mut report, &start(LARGE)?, connections / 2)?;
    }
    if is_wanted("messages") {
        for size in [16, 1024] {
            cases::messages(&mut report, &start(LARGE)?, 1_000_000 / scale, size)?;
        }
    }
    if is_wanted("acknowledged") {
        cases::acknowledged(&mut report, &start(LARGE)?, 500_000 / scale)?;
    }
    if is_wanted("slow-reader") {
        hostile::slow_reader(&mut report, &start(LARGE)?, 100_000)?;
    }
    if is_wanted("strangers") {
        hostile::strangers(&mut report, &start(LARGE)?, 1000 / scale)?;
    }
    if is_wanted("slow-logins") {
        // Not fewer: the first client costs a mebibyte.
        hostile::slow_logins(&mut report, &start(LARGE)?, 500)?;
    }
    if is_wanted("channel-hog") {
        hostile::channel_hog(&mut report, &start(LARGE)?)?;
    }
    if is_wanted("replies") {
        hostile::unread_replies(&mut report, &start(LARGE)?, 256 << 20)?;
    }
    if is_wanted("failed-logins") {
        hostile::failed_logins(&mut report, &start(LARGE)?, connections)?;
    }
    if is_wanted("halves") {
        let limit = options.at.is_none().then_some(SMALL as i64);
        hostile::halves(&mut report, &start(SMALL)?, 200 / scale, limit)?;
    }
    Ok(if report.exceeded == 0 {
        ExitCode::SUCCESS
    } else {
        eprintln!("{} bounds do not hold", report.exceeded);
        ExitCode::FAILURE
    })
}

/// Parses the command line. `None` if it asks for help.
fn parse() -> Result<Option<Options>, Failure> {
    let mut options = Options {
        quick: false,
        only: None,
        program: None,
        at: None,
        process: None,
    };
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Long("quick") => options.quick = true,
            Arg::Long("only") => options.only = Some(parser.value()?.string()?),
            Arg::Long("broker") => options.program = Some(parser.value()?.into()),
            Arg::Long("at") => options.at = Some(parser.value()?.string()?),
            Arg::Long("pid") => options.process = Some(parser.value()?.parse()?),
            Arg::Long("help") => return Ok(None),
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(Some(options))
}

/// Raises the limit of open files to that of the system. Returns the number of connections that fit,
/// at most `wanted`.
fn raise_files(wanted: usize) -> Result<usize, Failure> {
    let mut limits = getrlimit(Resource::Nofile);
    limits.current = limits.maximum;
    setrlimit(Resource::Nofile, limits)?;
    let most = limits.current.unwrap_or(u64::MAX);
    let fit = usize::try_from(most.saturating_sub(SPARE_FILES))?;
    if fit < wanted {
        eprintln!("{fit} connections instead of {wanted}: only {most} files may be open");
    }
    Ok(fit.min(wanted))
}
