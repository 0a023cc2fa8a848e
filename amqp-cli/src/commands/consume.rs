//! `amqp consume`.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::Stdio,
    time::Duration,
};

use amqp_tokio::{
    BaseChannel, Connection, Message,
    protocol::{basic, queue},
    wire::ShortStr,
};
use clap::{Args, ValueEnum};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::{
    connection::{ConnectionArgs, Recovery, abort_if_lost, close, close_after, note_losses},
    consuming::{Handled, Limits, Sink, Source, run},
    duration,
    entity::{Argument, exists, table},
    failure::{Code, Failure, Outcome},
    message::{Format, output::write_delivered},
    note,
    progress::{self, Unit},
    signals::Stop,
    terminal::Output,
};

/// The prefetch without --prefetch-count: of messages that are printed, and that a command takes.
const PREFETCH_PRINTED: u16 = 256;
const PREFETCH_COMMAND: u16 = 1;

/// The time in which a signal must come that has ended a command.
const GRACE: Duration = Duration::from_millis(50);

/// Consumes the messages of a queue: prints them, or runs a command for each.
///
/// A message is acknowledged once it is printed, or once its command has ended with 0; the command has
/// the body on its standard input. A lost connection is opened again. SIGINT and SIGTERM end it in good
/// order, and a second one at once: a message that is not acknowledged stays in the queue.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConsumeArgs {
    /// The queue. Without it, an exclusive queue with a name of the broker.
    #[arg(short, long)]
    queue: Option<String>,
    /// Binds the queue to this exchange.
    #[arg(short, long)]
    exchange: Option<String>,
    /// The binding key. May be repeated.
    #[arg(short, long, value_name = "KEY", requires = "exchange")]
    routing_key: Vec<String>,
    /// Declares the queue, durable, if there is none. With --exchange it is declared as well.
    #[arg(short, long, conflicts_with = "exclusive")]
    declare: bool,
    /// Declares the queue as exclusive: it is gone with the connection.
    #[arg(short = 'x', long)]
    exclusive: bool,
    /// Takes messages as acknowledged when the broker sends them: those on their way may be lost.
    #[arg(short = 'A', long)]
    no_ack: bool,
    /// Ends after so many messages.
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Ends after a time without a message; with 3, if there was none at all.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    idle: Option<Duration>,
    /// The most messages on their way. Default: 256, or 1 with a command.
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    prefetch_count: Option<u16>,
    /// The form of the output, or of the input of the command. Default: lines, or raw for a command.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The treatment of a message after its command has failed.
    #[arg(long, value_enum, default_value = "stop", requires = "command")]
    on_failure: OnFailure,
    /// Ends when the connection is lost.
    #[arg(long)]
    no_recover: bool,
    /// Opens a lost connection again: the default.
    #[arg(long, conflicts_with = "no_recover", hide = true)]
    recover: bool,
    /// An argument of the consumer, such as x-stream-offset=first. May be repeated.
    #[arg(short, long, value_name = "NAME=VALUE")]
    argument: Vec<Argument>,
    #[command(flatten)]
    connection: ConnectionArgs,
    /// The command for each message, and its arguments.
    #[arg(
        trailing_var_arg = true,
        value_name = "COMMAND",
        allow_hyphen_values = true
    )]
    command: Vec<String>,
}

const EXAMPLES: &str = "Examples:
  amqp consume -q jobs
  amqp consume -q jobs -c 100 --format json > jobs.json
  amqp consume -q jobs --on-failure reject ./handle --verbose
  amqp consume -e events -r 'order.*' -x
  amqp consume -q log -a x-stream-offset=first --idle 2s

The environment of a command has AMQP_EXCHANGE, AMQP_ROUTING_KEY and AMQP_REDELIVERED (0 or 1).";

/// The treatment of a message after its command has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnFailure {
    /// Returns it to the queue, and ends with 1.
    Stop,
    /// Returns it to the queue, from where it comes again.
    Requeue,
    /// Rejects it: dead-lettered if the queue has a dead-letter exchange, otherwise dropped.
    Reject,
}

impl ConsumeArgs {
    pub(crate) async fn run(self) -> Outcome {
        let recovery = match self.no_recover {
            true => Recovery::Off,
            false => Recovery::On,
        };
        let connection = self
            .connection
            .connect_recovering("consume", recovery)
            .await?;
        let channel = connection.open_channel().await?;
        let mut stop = Stop::install().map_err(Failure::failed)?;
        abort_if_lost(&connection, &stop);
        let queue = self.set_up(&connection, &channel).await?;
        if self.count == Some(0) {
            // A consumer would take messages.
            return close(&connection).await;
        }
        let consume = basic::Consume::default()
            .queue(queue)
            .no_ack(self.no_ack)
            .arguments(table(&self.argument));
        let mut prefetch = self
            .prefetch_count
            .unwrap_or(match self.command.is_empty() {
                true => PREFETCH_PRINTED,
                false => PREFETCH_COMMAND,
            });
        if let Some(count) = self.count {
            // More would be returned to the queue at the end.
            prefetch = u16::try_from(count).map_or(prefetch, |count| count.clamp(1, prefetch));
        }
        let mut source = Source::start(&channel, consume, prefetch).await?;
        note_losses(&connection);
        let limits = Limits {
            count: self.count,
            idle: self.idle,
        };
        let has_bar =
            self.count.is_some() && self.command.is_empty() && !io::stdout().is_terminal();
        let bar = match has_bar {
            true => progress::bar(self.count, Unit::Messages),
            false => indicatif::ProgressBar::hidden(),
        };
        let ended = if self.command.is_empty() {
            let mut sink = Printed {
                out: Output::new(),
                format: self.format.unwrap_or(Format::Lines),
            };
            run(&mut source, &mut sink, limits, &mut stop, &bar).await
        } else {
            let mut sink = Commanded {
                command: &self.command,
                format: self.format.unwrap_or(Format::Raw),
                on_failure: self.on_failure,
                stop: stop.clone(),
            };
            run(&mut source, &mut sink, limits, &mut stop, &bar).await
        };
        drop(source);
        close_after(ended.map(|_| ()), &connection).await
    }

    /// Declares and binds the queue as the options say, and returns its name.
    async fn set_up(&self, connection: &Connection, channel: &BaseChannel) -> Outcome<ShortStr> {
        let mut name: ShortStr = self.queue.as_deref().unwrap_or_default().try_into()?;
        let declare = queue::Declare::default().queue(&name);
        if name.is_empty() || self.exclusive {
            let own = declare.exclusive(true).auto_delete(true);
            let declared = channel.call(own).await?;
            if name.is_empty() {
                note!("the queue is {}", declared.queue);
            }
            name = declared.queue;
        } else if (self.declare || self.exchange.is_some()) && !exists(connection, &name).await? {
            channel.call(declare.durable(true)).await?;
        }
        if let Some(exchange) = &self.exchange {
            bind(channel, &name, exchange, &self.routing_key).await?;
        }
        Ok(name)
    }
}

/// Binds a queue by each key, or by the empty one.
pub(crate) async fn bind(
    channel: &BaseChannel,
    queue: &ShortStr,
    exchange: &str,
    keys: &[String],
) -> Outcome {
    let bind = queue::Bind::default().queue(queue).exchange(exchange);
    if keys.is_empty() {
        channel.call(bind.clone()).await?;
    }
    for key in keys {
        channel.call(bind.clone().routing_key(key.as_str())).await?;
    }
    Ok(())
}

/// Prints the messages.
pub(crate) struct Printed {
    pub(crate) out: Output,
    pub(crate) format: Format,
}

impl Sink for Printed {
    async fn take(&mut self, message: Message) -> Outcome<Handled> {
        write_delivered(&mut self.out, self.format, &message)?;
        Ok(Handled::Accepted)
    }

    fn flush(&mut self) -> Outcome {
        Ok(self.out.flush()?)
    }
}

/// Runs a command for each message.
struct Commanded<'a> {
    command: &'a [String],
    format: Format,
    on_failure: OnFailure,
    stop: Stop,
}

impl Sink for Commanded<'_> {
    async fn take(&mut self, message: Message) -> Outcome<Handled> {
        let mut input = Vec::new();
        write_delivered(&mut input, self.format, &message)?;
        let method = &message.method;
        let variables = [
            ("AMQP_EXCHANGE", method.exchange.as_str()),
            ("AMQP_ROUTING_KEY", method.routing_key.as_str()),
            (
                "AMQP_REDELIVERED",
                if method.redelivered { "1" } else { "0" },
            ),
        ];
        let ended = run_command(self.command, &variables, &input, Stdio::inherit()).await?;
        if ended.status.success() {
            return Ok(Handled::Accepted);
        }
        note!("{}: {}", self.command.join(" "), ended.status);
        // It may have failed by the signal of a terminal, which all of its programs get.
        if self.on_failure != OnFailure::Stop
            && tokio::time::timeout(GRACE, self.stop.requested())
                .await
                .is_ok()
        {
            return Ok(Handled::Stopped);
        }
        Ok(match self.on_failure {
            OnFailure::Stop => Handled::Stopped,
            OnFailure::Requeue => Handled::Requeued,
            OnFailure::Reject => Handled::Rejected,
        })
    }

    fn flush(&mut self) -> Outcome {
        Ok(())
    }
}

/// Runs a command with a text as its standard input, which it need not read.
pub(crate) async fn run_command(
    command: &[String],
    variables: &[(&str, &str)],
    input: &[u8],
    output: Stdio,
) -> Outcome<std::process::Output> {
    let (program, arguments) = command
        .split_first()
        .ok_or_else(|| Failure::usage("there is no command"))?;
    let failed = |error: io::Error| {
        let code = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Code::Usage,
            _ => Code::Failed,
        };
        Failure::new(code, format_args!("cannot run {program}: {error}"))
    };
    // The system has no variables with a NUL.
    let variables = variables.iter().filter(|(_, value)| !value.contains('\0'));
    let mut child = Command::new(program)
        .args(arguments)
        .envs(variables.copied())
        .stdin(Stdio::piped())
        .stdout(output)
        .spawn()
        .map_err(failed)?;
    let stdin = child.stdin.take();
    let feed = async {
        if let Some(mut stdin) = stdin {
            match stdin.write_all(input).await {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(error),
                _ => {}
            }
        }
        Ok(())
    };
    let (fed, ended) = tokio::join!(feed, child.wait_with_output());
    fed.map_err(failed)?;
    ended.map_err(failed)
}
