//! The command line.

use std::ffi::OsString;

use clap::{
    ColorChoice, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum as _,
};

use crate::{
    commands::{
        bench::BenchArgs,
        bind::{BindArgs, UnbindArgs},
        broker::BrokerArgs,
        consume::ConsumeArgs,
        declare::DeclareArgs,
        delete::DeleteArgs,
        get::GetArgs,
        manual::{CompletionsArgs, ManArgs},
        ping::PingArgs,
        proxy::ProxyArgs,
        publish::PublishArgs,
        purge::PurgeArgs,
        rpc::RpcArgs,
        tail::TailArgs,
    },
    terminal::Color,
};

/// AMQP 0-9-1 on the command line.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "amqp",
    version,
    subcommand_required = true,
    arg_required_else_help = true,
    after_help = EPILOGUE
)]
pub(crate) struct Cli {
    /// The use of colours.
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "auto",
        hide_default_value = true,
        help_heading = "Output"
    )]
    pub(crate) color: Color,
    /// Shows no progress.
    #[arg(long, global = true, help_heading = "Output")]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EPILOGUE: &str =
    "The broker is that of --url, --profile, the variable AMQP_URL or the configuration file
~/.config/amqp/config.toml (AMQP_CONFIG names another), and otherwise guest at localhost.

Exit codes:
  0  done
  1  refused by the broker, or failed
  2  a wrong option, setting or input
  3  there is no such queue or exchange, no message, or no server of calls
  4  no connection: not reached, login refused, or lost
  5  no answer in time";

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum Command {
    Publish(Box<PublishArgs>),
    Consume(Box<ConsumeArgs>),
    Get(Box<GetArgs>),
    Declare(Box<DeclareArgs>),
    Delete(Box<DeleteArgs>),
    Bind(Box<BindArgs>),
    Unbind(Box<UnbindArgs>),
    Purge(Box<PurgeArgs>),
    Ping(Box<PingArgs>),
    Rpc(Box<RpcArgs>),
    Bench(Box<BenchArgs>),
    Tail(Box<TailArgs>),
    Proxy(Box<ProxyArgs>),
    Broker(BrokerArgs),
    Completions(CompletionsArgs),
    Man(ManArgs),
}

/// The definition of all commands.
pub(crate) fn definition() -> clap::Command {
    // As in amqp-delete-queue, where -u is --if-unused.
    Cli::command().mut_subcommand("delete", |delete| {
        delete.mut_subcommand("queue", |queue| queue.mut_arg("url", |url| url.short(None)))
    })
}

/// Reads the command line.
pub(crate) fn parse() -> Result<Cli, clap::Error> {
    let mut definition = definition().color(color_of_help(std::env::args_os().skip(1)));
    let mut matches = definition.try_get_matches_from_mut(std::env::args_os())?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut definition))
}

/// The colours of help and errors, which end the parsing before it returns `--color`.
fn color_of_help(arguments: impl Iterator<Item = OsString>) -> ColorChoice {
    let mut color = Color::Auto;
    let mut arguments = arguments.map(|it| it.into_string().unwrap_or_default());
    while let Some(argument) = arguments.next() {
        let value = match argument.strip_prefix("--color") {
            Some("") => arguments.next(),
            Some(rest) => rest.strip_prefix('=').map(str::to_owned),
            None => None,
        };
        if let Some(chosen) = value.and_then(|it| Color::from_str(&it, false).ok()) {
            color = chosen;
        }
    }
    match color {
        Color::Auto => ColorChoice::Auto,
        Color::Always => ColorChoice::Always,
        Color::Never => ColorChoice::Never,
    }
}

#[cfg(test)]
mod tests {
    use clap::{ColorChoice, Command};

    use super::{color_of_help, definition};

    #[test]
    fn the_help_has_the_colours_that_are_asked_for() {
        for (arguments, color) in [
            (&["--help"][..], ColorChoice::Auto),
            (&["--color", "never", "--help"], ColorChoice::Never),
            (&["ping", "--color=always", "--help"], ColorChoice::Always),
            (&["--color"], ColorChoice::Auto),
            (&["--color", "red", "--help"], ColorChoice::Auto),
        ] {
            let arguments = arguments.iter().map(Into::into);
            assert_eq!(color_of_help(arguments), color);
        }
    }

    #[test]
    fn the_definition_is_consistent() {
        definition().debug_assert();
    }

    fn check(command: &Command, path: &str) {
        let path = format!("{path} {}", command.get_name());
        assert!(command.get_about().is_some(), "{path} says nothing");
        for argument in command.get_arguments() {
            let id = argument.get_id();
            assert!(argument.get_help().is_some(), "{path}: {id} says nothing");
        }
        let mut subcommands = command.get_subcommands().peekable();
        if subcommands.peek().is_none() {
            let examples = command.get_after_help().map(ToString::to_string);
            assert!(
                examples.is_some_and(|it| it.contains("Examples:\n  ")),
                "{path} has no examples"
            );
        }
        subcommands.for_each(|it| check(it, &path));
    }

    #[test]
    fn every_command_has_help_with_examples() {
        check(&definition(), "");
    }
}
