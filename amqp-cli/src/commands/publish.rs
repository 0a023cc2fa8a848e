//! `amqp publish`.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsString,
    fs::File,
    future::{Future as _, poll_fn},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    pin::Pin,
    task::Poll,
};

use amqp_tokio::{
    Body, Connection, Error,
    core::text::Escaped,
    protocol::{ReplyCode, basic, basic::Properties},
    publishing::{
        Acknowledgements, Outcome as Published, OutgoingMessage, Publisher, PublisherOptions,
        Receipt, Republish, Window,
    },
};
use clap::Args;
use indicatif::ProgressBar;
use tokio::sync::mpsc;

use crate::{
    connection::{ConnectionArgs, Recovery, UNCONFIRMED_MAX, abort_if_lost, close, note_losses},
    failure::{Code, Failure, Outcome},
    message::{
        Format,
        input::{self, Batch, Record},
        json::JsonMessage,
        output::write_json,
        properties::PropertyArgs,
    },
    note,
    progress::{self, Unit},
    signals::Stop,
};

/// The number of messages without a confirm that are printed one by one.
const SHOWN: u64 = 10;

/// Publishes messages, and waits until the broker has confirmed each.
///
/// The messages are the body of --body, or the standard input: all of it, or a message per line, NUL or
/// JSON object. A message that no queue accepts, that the broker refuses or that is lost with the
/// connection is reported with the reason, and the exit code is not 0.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct PublishArgs {
    /// The exchange. Default: the one that routes to the queue of the name of the routing key.
    #[arg(short, long)]
    exchange: Option<String>,
    /// The routing key.
    #[arg(short, long, value_name = "KEY")]
    routing_key: Option<String>,
    /// The body, in place of the standard input.
    #[arg(short, long, allow_hyphen_values = true, conflicts_with_all = ["line_buffered", "null", "format"])]
    body: Option<OsString>,
    /// Publishes each line as a message: --format lines.
    #[arg(short, long, conflicts_with_all = ["null", "format"])]
    line_buffered: bool,
    /// Publishes each text that ends with a NUL: --format nul.
    #[arg(short = '0', long, conflicts_with = "format")]
    null: bool,
    /// The form of the input.
    #[arg(long, value_enum, default_value = "raw", hide_default_value = true)]
    format: Format,
    /// Accepts that no queue gets a message.
    #[arg(long)]
    no_mandatory: bool,
    /// Reports a message that no queue takes: the default.
    #[arg(long, conflicts_with = "no_mandatory", hide = true)]
    mandatory: bool,
    /// Does not wait for confirms: a lost message stays unnoticed.
    #[arg(long, conflicts_with_all = ["recover", "unconfirmed"])]
    no_confirm: bool,
    /// Opens a lost connection again, and publishes unconfirmed messages once more. Messages without an
    /// id get one, for some may arrive twice.
    #[arg(long)]
    recover: bool,
    /// The most messages that wait for their confirms.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=UNCONFIRMED_MAX as i64))]
    window: u32,
    /// Writes the messages that were not confirmed to a file, as JSON for --format json.
    #[arg(long, value_name = "FILE")]
    unconfirmed: Option<PathBuf>,
    #[command(flatten)]
    properties: PropertyArgs,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXAMPLES: &str = "Examples:
  amqp publish -r jobs -b 'sweep the yard'
  seq 1000000 | amqp publish -r jobs -l
  amqp publish -e events -r order.new -C application/json -H 'attempt: 1' < order.json
  amqp consume -q failed -c 10 --format json | amqp publish -e '' -r jobs --format json";

impl PublishArgs {
    const fn format(&self) -> Format {
        if self.line_buffered {
            Format::Lines
        } else if self.null {
            Format::Nul
        } else {
            self.format
        }
    }

    /// The place of all messages, or of JSON without one.
    fn place(&self) -> Outcome<basic::Publish> {
        if self.exchange.is_none() && self.routing_key.is_none() && self.format() != Format::Json {
            return Err(Failure::usage("give --routing-key, or --exchange, or both"));
        }
        Ok(basic::Publish::default()
            .exchange(self.exchange.as_deref().unwrap_or_default())
            .routing_key(self.routing_key.as_deref().unwrap_or_default())
            .mandatory(!self.no_mandatory))
    }

    fn publisher_options(&self) -> Outcome<PublisherOptions> {
        let mut window = Window::default();
        window.messages = self.window as usize;
        let options = PublisherOptions::default().window(window);
        if !self.recover {
            return Ok(options);
        }
        // Unique among publishers and over time.
        let since_epoch = std::time::SystemTime::now()
            .duration_since(std::time::SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let prefix = format!(
            "amqp-{:x}-{:x}-",
            since_epoch.as_nanos(),
            std::process::id()
        );
        Ok(options.republish(Republish::new(&prefix)?))
    }

    pub(crate) async fn run(self) -> Outcome {
        let message = Template {
            publish: self.place()?,
            properties: self.properties.properties()?,
            args: self.clone(),
        };
        let options = self.publisher_options()?;
        let rejects = match &self.unconfirmed {
            None => None,
            Some(path) => Some(open_unconfirmed(path)?),
        };
        let recovery = match self.recover {
            true => Recovery::On,
            false => Recovery::Off,
        };
        let connection = self
            .connection
            .connect_recovering("publish", recovery)
            .await?;
        let channel = connection.open_channel().await?;
        let acknowledgements = match self.no_confirm {
            true => Acknowledgements::Off,
            false => Acknowledgements::On,
        };
        let publisher = Publisher::open(channel, acknowledgements, options).await?;
        note_losses(&connection);
        if let Some(file) = &rejects {
            // What an earlier run has left is of no use any more. A pipe or a terminal has no length.
            let _no_file = file.set_len(0);
        }
        let run = Run {
            publisher,
            window: self.window as usize,
            template: message,
            keeps: rejects.is_some(),
            in_flight: VecDeque::new(),
            last: 0,
            tally: Tally {
                confirmed: 0,
                failed: 0,
                reasons: BTreeMap::new(),
                rejects: rejects.map(BufWriter::new),
                code: Code::Failed,
            },
        };
        let ended = run
            .publish(&connection, self.body.map(OsString::into_encoded_bytes))
            .await;
        let closed = close(&connection).await;
        ended.and(closed)
    }
}

/// Opens the file of messages that are not confirmed, with its contents in place.
fn open_unconfirmed(path: &Path) -> Outcome<File> {
    let shown = path.display();
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(|error| Failure::usage(format_args!("cannot create {shown}: {error}")))?;
    if input::is_file(&file) {
        return Err(Failure::usage(format_args!("{shown} is the input")));
    }
    Ok(file)
}

/// The parts that the messages have in common.
struct Template {
    publish: basic::Publish,
    properties: Properties,
    args: PublishArgs,
}

impl Template {
    fn message(&self, record: Record) -> Outcome<OutgoingMessage> {
        if self.args.format() != Format::Json {
            return Ok(OutgoingMessage::new(self.publish.clone(), record.bytes)
                .properties(self.properties.clone()));
        }
        let mut json = JsonMessage::parse(&record.bytes)?;
        let body = json.take_body()?;
        let mut publish = self.publish.clone();
        if let (None, Some(exchange)) = (&self.args.exchange, json.exchange) {
            publish = publish.exchange(exchange);
        }
        if let (None, Some(key)) = (&self.args.routing_key, json.routing_key) {
            publish = publish.routing_key(key);
        }
        let mut properties = Properties::from(json.properties);
        self.args.properties.apply(&mut properties)?;
        if properties.delivery_mode.is_none() {
            properties = properties.persistent();
        }
        Ok(OutgoingMessage::new(publish, body).properties(properties))
    }
}

/// A message without an outcome.
struct Sent {
    number: u64,
    receipt: Receipt,
    /// `Some` if those that fail are written to a file. Shares the body.
    copy: Option<(basic::Publish, Properties, Body)>,
}

struct Run {
    publisher: Publisher,
    window: usize,
    template: Template,
    keeps: bool,
    /// In the order of publishing.
    in_flight: VecDeque<Sent>,
    /// The number of the last message.
    last: u64,
    tally: Tally,
}

/// The outcomes so far.
struct Tally {
    confirmed: u64,
    failed: u64,
    /// The number of failed messages by reason.
    reasons: BTreeMap<String, u64>,
    rejects: Option<BufWriter<File>>,
    /// The exit code, if messages have failed.
    code: Code,
}

impl Run {
    /// Publishes the body, or the standard input, and reports the outcomes.
    async fn publish(mut self, connection: &Connection, body: Option<Vec<u8>>) -> Outcome {
        let is_single = body.is_some() || self.template.args.format() == Format::Raw;
        let returned = self.template.args.no_confirm.then(|| {
            let mut returns = self.publisher.channel().returns();
            tokio::spawn(async move {
                let mut reasons: BTreeMap<String, u64> = BTreeMap::new();
                while let Some(message) = returns.next().await {
                    let text = Escaped(&message.text).to_string();
                    let reason = format!("the message was returned: {} {text}", message.code);
                    *reasons.entry(reason).or_default() += 1;
                }
                reasons
            })
        });
        let ended = match body {
            Some(bytes) => {
                let record = Record {
                    number: 1,
                    consumed: bytes.len(),
                    bytes,
                };
                self.send(record).await
            }
            None => self.publish_input(connection).await,
        };
        while let Some(sent) = self.in_flight.pop_front() {
            let outcome = sent.receipt.await;
            self.tally.count(sent.number, sent.copy, outcome)?;
        }
        if let Some(returned) = returned {
            let channel = self.publisher.channel();
            // Returned messages precede the answer, and the stream of them ends with the channel.
            channel.call(basic::Qos::default()).await?;
            channel.close().await?;
            for (reason, count) in returned.await.map_err(Failure::failed)? {
                note!("{count}: {reason}");
                self.tally.returned(reason, count);
            }
        }
        match (self.tally.finish(is_single), ended) {
            (Ok(()), ended) => ended,
            // The exit code is that of the messages.
            (Err(failed), ended) => {
                if let Err(end) = ended {
                    note!("{end}");
                }
                Err(failed)
            }
        }
    }

    async fn publish_input(&mut self, connection: &Connection) -> Outcome {
        let mut input = input::read(self.template.args.format())?;
        let mut stop = Stop::install().map_err(Failure::failed)?;
        abort_if_lost(connection, &stop);
        let length = input::length();
        let bar = match length {
            Some(length) => progress::bar(Some(length), Unit::Bytes),
            None => progress::bar(None, Unit::Messages),
        };
        let ended = loop {
            let batch = match self.next_batch(connection, &mut input, &mut stop).await? {
                Some(batch) => batch?,
                None if stop.is_requested() => break Err(self.interrupted()),
                None => break self.lost(connection).map_or(Ok(()), Err),
            };
            for record in batch {
                let consumed = record.consumed as u64;
                let number = record.number;
                if let Err(error) = self.send(record).await {
                    return Err(error.while_doing(format_args!("message {number} of the input")));
                }
                bar.inc(if length.is_some() { consumed } else { 1 });
            }
            self.show(&bar);
            if stop.is_requested() {
                break Err(self.interrupted());
            }
            if let Some(failure) = self.lost(connection) {
                break Err(failure);
            }
        };
        bar.finish_and_clear();
        ended
    }

    /// Waits for input, while outcomes are counted. `None` at the end of the input, or of the run.
    async fn next_batch(
        &mut self,
        connection: &Connection,
        input: &mut mpsc::Receiver<Outcome<Batch>>,
        stop: &mut Stop,
    ) -> Outcome<Option<Outcome<Batch>>> {
        let recovers = self.template.args.recover;
        loop {
            let settled = tokio::select! {
                batch = input.recv() => return Ok(batch),
                () = stop.requested() => return Ok(None),
                _ = connection.closed(), if !recovers => return Ok(None),
                settled = front(&mut self.in_flight) => settled,
            };
            self.settle(settled)?;
            if self.lost(connection).is_some() {
                return Ok(None);
            }
        }
    }

    /// The reason why the rest of the input is not read: the channel is not opened again, and all
    /// messages would fail.
    fn lost(&self, connection: &Connection) -> Option<Failure> {
        let channel = self.publisher.channel();
        let error = match (connection.close_reason(), channel.close_reason()) {
            (Some(reason), _) => Error::ConnectionClosed(reason),
            (None, Some(reason)) => Error::ChannelClosed(reason),
            (None, None) => return None,
        };
        Some(self.unread(Failure::from(error)))
    }

    /// Says where the input was left, so that a next run can go on from there.
    fn unread(&self, failure: Failure) -> Failure {
        let next = self.last + 1;
        failure.while_doing(format_args!(
            "the input from message {next} on was not published"
        ))
    }

    async fn send(&mut self, record: Record) -> Outcome {
        let number = record.number;
        let message = self.template.message(record)?;
        self.last = number;
        while self.in_flight.len() >= self.window {
            let settled = front(&mut self.in_flight).await;
            self.settle(settled)?;
        }
        let copy = self.keeps.then(|| {
            let (publish, properties) = (message.publish.clone(), message.properties.clone());
            (publish, properties, message.body.clone())
        });
        let receipt = self.publisher.publish(message).await;
        self.in_flight.push_back(Sent {
            number,
            receipt,
            copy,
        });
        Ok(())
    }

    /// Counts the outcome of the front message, which it removes.
    fn settle(&mut self, outcome: Published) -> Outcome {
        match self.in_flight.pop_front() {
            Some(sent) => self.tally.count(sent.number, sent.copy, outcome),
            None => Ok(()),
        }
    }

    fn interrupted(&self) -> Failure {
        self.unread(Failure::failed("interrupted"))
    }

    fn show(&self, bar: &ProgressBar) {
        if self.tally.failed > 0 {
            bar.set_message(format!("({} failed)", self.tally.failed));
        }
    }
}

/// Waits for the outcome of the front message. Pending for ever if there is none. Cancel safe.
async fn front(in_flight: &mut VecDeque<Sent>) -> Published {
    poll_fn(|cx| match in_flight.front_mut() {
        Some(sent) => Pin::new(&mut sent.receipt).poll(cx),
        None => Poll::Pending,
    })
    .await
}

impl Tally {
    fn count(
        &mut self,
        number: u64,
        copy: Option<(basic::Publish, Properties, Body)>,
        outcome: Published,
    ) -> Outcome {
        let reason = match outcome {
            Published::Acked | Published::Unacknowledged => {
                self.confirmed += 1;
                return Ok(());
            }
            Published::NotSent { ref cause, .. } => {
                self.blame(Failure::from(cause.clone()).code);
                outcome.acked().err().map(|it| it.to_string())
            }
            Published::Unknown(ref reason) => {
                self.blame(match reason.code() {
                    Some(ReplyCode::NOT_FOUND) => Code::Nothing,
                    None | Some(ReplyCode::CONNECTION_FORCED) => Code::NoConnection,
                    Some(_) => Code::Failed,
                });
                outcome.acked().err().map(|it| it.to_string())
            }
            other => other.acked().err().map(|it| it.to_string()),
        };
        self.fail(number, reason.unwrap_or_default(), copy)
    }

    /// Sets the exit code by the first failure.
    const fn blame(&mut self, code: Code) {
        if self.failed == 0 {
            self.code = code;
        }
    }

    fn fail(
        &mut self,
        number: u64,
        reason: String,
        copy: Option<(basic::Publish, Properties, Body)>,
    ) -> Outcome {
        self.failed += 1;
        if let (Some(file), Some((publish, properties, body))) = (&mut self.rejects, copy) {
            let message = JsonMessage::unconfirmed(&publish, properties, &body, reason.clone());
            write_json(file, &message)?;
        }
        if self.failed <= SHOWN {
            note!("message {number}: {reason}");
        } else if self.failed == SHOWN + 1 {
            note!("more messages failed");
        }
        // Reasons differ by the texts of the broker, which are few.
        if self.reasons.len() < 100 || self.reasons.contains_key(&reason) {
            *self.reasons.entry(reason).or_default() += 1;
        }
        Ok(())
    }

    /// Counts messages without confirms that came back.
    fn returned(&mut self, reason: String, count: u64) {
        self.confirmed = self.confirmed.saturating_sub(count);
        self.failed += count;
        self.reasons.insert(reason, count);
    }

    /// Writes the rest of the file. Returns the failure, if messages have failed.
    fn finish(&mut self, is_single: bool) -> Outcome {
        if let Some(file) = &mut self.rejects {
            file.flush()?;
        }
        if self.failed == 0 {
            return Ok(());
        }
        if is_single {
            return Err(Failure::silent(self.code));
        }
        let mut text = format!(
            "{} of {} messages were not confirmed",
            self.failed,
            self.failed + self.confirmed
        );
        for (reason, count) in &self.reasons {
            text.push_str(&format!("\n  {count}: {reason}"));
        }
        Err(Failure::new(self.code, text))
    }
}
