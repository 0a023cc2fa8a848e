//! AMQP 0-9-1 on the command line. `README.md` has its use.
#![forbid(unsafe_code)]

mod cli;
mod commands;
mod config;
mod connection;
mod consuming;
mod duration;
mod entity;
mod failure;
mod frames;
mod message;
mod progress;
mod signals;
mod terminal;

use std::process::ExitCode;

use self::{
    cli::{Cli, Command},
    failure::{Failure, Outcome},
};

/// The threads beside the main one, which may block in a write. They move the bytes of the
/// connection meanwhile, heartbeats included.
const WORKERS: usize = 2;

fn main() -> ExitCode {
    let cli = match cli::parse() {
        Ok(cli) => cli,
        Err(error) => {
            let code = ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
            // The help goes to the standard output.
            return match error.print() {
                Err(unwritten) if !error.use_stderr() => Failure::from(unwritten).report(),
                Err(_) | Ok(()) => code,
            };
        }
    };
    terminal::set_color(cli.color);
    progress::set_quiet(cli.quiet);
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

fn run(cli: Cli) -> Outcome {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format_args!("cannot start: {error}")))?;
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Publish(args) => args.run().await,
            Command::Consume(args) => args.run().await,
            Command::Get(args) => args.run().await,
            Command::Declare(args) => args.run().await,
            Command::Delete(args) => args.run().await,
            Command::Bind(args) => args.run().await,
            Command::Unbind(args) => args.run().await,
            Command::Purge(args) => args.run().await,
            Command::Ping(args) => args.run().await,
            Command::Rpc(args) => args.run().await,
            Command::Bench(args) => args.run().await,
            Command::Tail(args) => args.run().await,
            Command::Proxy(args) => args.run().await,
            Command::Broker(args) => args.run().await,
            Command::Completions(args) => args.run(cli::definition()),
            Command::Man(args) => args.run(cli::definition()),
        }
    });
    // Does not wait for a lookup of a name.
    runtime.shutdown_background();
    ended
}
