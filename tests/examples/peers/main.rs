//! Peers in processes of their own, over real sockets: killed at random points, two hundred at once, and
//! measured with small messages and a large one.
//!
//! ```text
//! cargo run --release -p amqp-tests --example peers -- kill --rounds 200 --seed 1
//! cargo run --release -p amqp-tests --example peers -- small --messages 100000
//! ```

mod kill;
mod large;
mod options;
mod parallel;
mod process;
mod random;
mod small;
mod snake;

use std::{env, process::ExitCode};

use self::options::{HELP, Mode};

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Result<T = (), E = Failure> = std::result::Result<T, E>;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((first, rest)) if first == process::CHILD => child(rest),
        _ => options::parse().and_then(|mode| match mode {
            Some(mode) => show(mode),
            None => {
                print!("{HELP}");
                Ok(())
            }
        }),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Shows the wanted thing. Fails if a check does.
fn show(mode: Mode) -> Result {
    match mode {
        Mode::Kill(options) => kill::show(options),
        Mode::Parallel(options) => parallel::show(options),
        Mode::Small(options) => small::show(options),
        Mode::Large(options) => large::show(options),
    }
}

/// Runs one of the processes that the others start.
fn child(arguments: &[String]) -> Result {
    let (part, arguments) = arguments.split_first().ok_or("which process?")?;
    match part.as_str() {
        kill::SENDER => kill::sender::run(arguments),
        kill::RECEIVER => kill::receiver::run(arguments),
        parallel::HUB => parallel::hub(arguments),
        parallel::PEERS => parallel::peers(arguments),
        small::SENDER => small::sender(arguments),
        small::RECEIVER => small::receiver(arguments),
        large::SENDER => large::sender(arguments),
        large::RECEIVER => large::receiver(arguments),
        other => Err(format!("no process {other}").into()),
    }
}
