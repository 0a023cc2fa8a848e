//! `amqp tail`.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, SystemTime},
};

use amqp_tokio::{
    Message,
    core::text::{Escaped, Quoted},
    protocol::{basic, queue},
};
use clap::Args;

use super::consume::{Printed, bind};
use crate::{
    connection::{ConnectionArgs, Recovery, abort_if_lost, close_after, note_losses},
    consuming::{Handled, Limits, Sink, Source, run},
    duration,
    failure::{Failure, Outcome},
    frames::{octets_in_words, put_properties},
    message::{Format, output::write_delivered},
    signals::Stop,
    terminal::{Output, Styles},
};

/// The most messages that wait at the broker: the oldest are dropped beyond that.
const QUEUE_MAX: i32 = 100_000;

/// The prefetch.
const PREFETCH: u16 = 256;

/// The part of a body that is shown, in bytes.
const SHOWN: usize = 2048;

/// Watches the messages of an exchange, through a queue that is gone with the connection.
///
/// Messages are shown with their routing key, properties and body. They go to their queues as ever. If
/// more than 100,000 wait to be shown, the oldest are left out.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct TailArgs {
    /// The exchange.
    #[arg(value_name = "EXCHANGE")]
    exchange: String,
    /// The binding key. May be repeated. Default: "#", which on a topic exchange is every message. A direct
    /// exchange takes keys as they are.
    #[arg(
        short,
        long,
        value_name = "KEY",
        default_value = "#",
        hide_default_value = true
    )]
    routing_key: Vec<String>,
    /// Ends after so many messages.
    #[arg(short, long, value_name = "N")]
    count: Option<u64>,
    /// Ends after a time without a message; with 3, if there was none at all.
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    idle: Option<Duration>,
    /// Prints bodies or JSON, as consume does.
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// Ends when the connection is lost.
    #[arg(long)]
    no_recover: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXAMPLES: &str = "Examples:
  amqp tail amq.topic
  amqp tail events -r 'order.*' -r 'refund.#'
  amqp tail amq.rabbitmq.trace --format json";

impl TailArgs {
    pub(crate) async fn run(self) -> Outcome {
        if self.exchange.is_empty() {
            return Err(Failure::usage(
                "the default exchange has no bindings to watch it by",
            ));
        }
        let recovery = match self.no_recover {
            true => Recovery::Off,
            false => Recovery::On,
        };
        let connection = self.connection.connect_recovering("tail", recovery).await?;
        let channel = connection.open_channel().await?;
        let mut stop = Stop::install().map_err(Failure::failed)?;
        abort_if_lost(&connection, &stop);
        let mut own = queue::Declare::default().exclusive(true).auto_delete(true);
        own.arguments.insert("x-max-length", QUEUE_MAX);
        let queue = channel.call(own).await?.queue;
        bind(&channel, &queue, &self.exchange, &self.routing_key).await?;
        let consume = basic::Consume::default().queue(queue);
        let mut source = Source::start(&channel, consume, PREFETCH).await?;
        note_losses(&connection);
        let limits = Limits {
            count: self.count,
            idle: self.idle,
        };
        let out = Output::new();
        let hidden = indicatif::ProgressBar::hidden();
        let ended = match self.format {
            Some(format) => {
                let mut sink = Printed { out, format };
                run(&mut source, &mut sink, limits, &mut stop, &hidden).await
            }
            None => {
                let mut sink = Shown {
                    out,
                    styles: Styles::of_output(),
                };
                run(&mut source, &mut sink, limits, &mut stop, &hidden).await
            }
        };
        drop(source);
        close_after(ended.map(|_| ()), &connection).await
    }
}

/// Prints messages in words.
struct Shown {
    out: Output,
    styles: Styles,
}

impl Sink for Shown {
    async fn take(&mut self, message: Message) -> Outcome<Handled> {
        let Styles { dim, name, key, .. } = self.styles;
        let method = &message.method;
        let mut line = format!(
            "{dim}{}{dim:#} {name}{}{name:#} {key}{}{key:#}",
            time_of_day(),
            Escaped(&method.exchange),
            Quoted(&method.routing_key)
        );
        match message.properties() {
            Ok(properties) => put_properties(&mut line, &properties),
            Err(_) => line.push_str(" (unreadable properties)"),
        }
        let _infallible = write!(line, " {dim}{} bytes{dim:#}", message.body.len());
        writeln!(self.out, "{line}")?;
        let mut body = Vec::new();
        let mut shown = Shortened(&mut body);
        // Fails where it is cut.
        let _cut = write_delivered(&mut shown, Format::Raw, &message);
        if !body.is_empty() {
            writeln!(
                self.out,
                "    {}",
                octets_in_words(&body, message.body.len())
            )?;
        }
        Ok(Handled::Accepted)
    }

    fn flush(&mut self) -> Outcome {
        Ok(self.out.flush()?)
    }
}

/// Takes the front of a body.
struct Shortened<'a>(&'a mut Vec<u8>);

impl std::io::Write for Shortened<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let room = SHOWN - self.0.len();
        let taken = bytes.len().min(room);
        self.0.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The time of day in UTC, to the millisecond.
fn time_of_day() -> String {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.unwrap_or_default();
    let seconds = now.as_secs();
    let (hours, minutes) = (seconds / 3600 % 24, seconds / 60 % 60);
    format!(
        "{hours:02}:{minutes:02}:{:02}.{:03}Z",
        seconds % 60,
        now.subsec_millis()
    )
}
