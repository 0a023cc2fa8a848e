//! `amqp bench`.

use std::{
    collections::VecDeque,
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::{Duration, Instant},
};

use amqp_tokio::{
    Connection, Message,
    protocol::{basic, basic::Properties, queue},
    publishing::{
        Acknowledgements, Outcome as Published, OutgoingMessage, Publisher, PublisherOptions,
        Receipt, Window,
    },
};
use clap::Args;
use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    connection::{CLOSE, ConnectionArgs, UNCONFIRMED_MAX, close},
    consuming::Source,
    duration,
    entity::QueueType,
    failure::{Code, Failure, Outcome},
    message::input::MESSAGE_MAX,
    note,
    progress::{self, Unit},
    signals::Stop,
    terminal::print,
};

/// The time after which the broker deletes the queue of a run that was killed, in milliseconds.
const EXPIRES: i32 = 10 * 60 * 1000;

/// Publishes and consumes messages as fast as the broker goes, and prints rates and latencies.
///
/// The queue is one of its own, deleted at the end.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct BenchArgs {
    /// The number of messages.
    #[arg(short, long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..))]
    messages: u64,
    /// The size of a body, in bytes.
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=MESSAGE_MAX as i64))]
    size: u32,
    /// The publishers, each with a connection.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    publishers: u16,
    /// The consumers, each with a connection. With 0 the messages are only published.
    #[arg(long, value_name = "N", default_value_t = 1)]
    consumers: u16,
    /// The most messages of a publisher that wait for their confirms.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=UNCONFIRMED_MAX as i64))]
    window: u32,
    /// The most messages on their way to a consumer.
    #[arg(long, value_name = "N", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..))]
    prefetch_count: u16,
    /// The type of the queue.
    #[arg(long = "type", value_enum, value_name = "TYPE")]
    kind: Option<QueueType>,
    /// Publishes messages that a restart of the broker may drop.
    #[arg(long)]
    transient: bool,
    /// Does not wait for confirms.
    #[arg(long)]
    no_confirm: bool,
    /// Consumes without acknowledgements.
    #[arg(short = 'A', long)]
    no_ack: bool,
    /// Ends the run with 5 after that time.
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = duration::parse)]
    timeout: Duration,
    /// Prints the result as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    connection: ConnectionArgs,
}

const EXAMPLES: &str = "Examples:
  amqp bench
  amqp bench -m 1000000 --size 1000 --publishers 4 --consumers 4
  amqp bench --type quorum --json";

impl BenchArgs {
    pub(crate) async fn run(self) -> Outcome {
        let (connection, channel) = self.connection.open("bench").await?;
        let since_epoch = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or_default();
        let name = format!(
            "amqp-bench-{}-{}",
            std::process::id(),
            since_epoch.as_nanos()
        );
        let mut declare = queue::Declare::default().queue(name.as_str()).durable(true);
        if self.kind != Some(QueueType::Stream) {
            declare.arguments.insert("x-expires", EXPIRES);
        }
        if let Some(kind) = self.kind {
            declare.arguments.insert("x-queue-type", kind.name());
        }
        // Until then a signal leaves nothing that lasts.
        let mut stop = Stop::install().map_err(Failure::failed)?;
        let measuring = async {
            channel.call(declare).await?;
            self.measure(&name).await
        };
        let ended = tokio::select! {
            measured = tokio::time::timeout(self.timeout, measuring) => {
                let late = || Failure::new(Code::TimedOut, "the run has not ended in time");
                measured.unwrap_or_else(|_| Err(late()))
            }
            () = stop.requested() => Err(Failure::failed("interrupted")),
        };
        let delete = queue::Delete::default().queue(name.as_str());
        let deleted = match tokio::time::timeout(CLOSE, channel.call(delete)).await {
            Ok(deleted) => deleted.map(|_| ()).map_err(Failure::from),
            Err(_) => {
                connection.abort();
                let text = format!("no answer came in time: the queue {name} may be left");
                Err(Failure::new(Code::TimedOut, text))
            }
        };
        let shown = ended.and_then(|measured| self.show(&measured));
        let closed = close(&connection).await;
        match (shown, deleted) {
            (Ok(()), deleted) => deleted.and(closed),
            (Err(failure), Ok(())) => Err(failure),
            (Err(failure), Err(left)) => {
                note!("{left}");
                Err(failure)
            }
        }
    }

    /// Runs publishers and consumers until each message was confirmed and consumed.
    async fn measure(&self, queue: &str) -> Outcome<Measured> {
        let parts = 1 + u64::from(self.consumers > 0);
        let (done, all_consumed) = watch::channel(self.consumers == 0);
        let shared = Arc::new(Shared {
            args: self.clone(),
            queue: queue.to_owned(),
            began: Instant::now(),
            bar: progress::bar(Some(self.messages * parts), Unit::Messages),
            consumed: AtomicU64::new(0),
            done,
            all_consumed,
            measured: Mutex::new(Measured::new()?),
        });
        // Consumers first, so that all latencies are those of a queue that is consumed.
        let mut consumers = JoinSet::new();
        for _ in 0..self.consumers {
            let connection = self.connection.connect("bench").await?;
            let channel = connection.open_channel().await?;
            let consume = basic::Consume::default().queue(queue).no_ack(self.no_ack);
            let source = Source::start(&channel, consume, self.prefetch_count).await?;
            let shared = Arc::clone(&shared);
            consumers.spawn(async move { shared.consume(&connection, source).await });
        }
        let mut publishers = JoinSet::new();
        let (each, rest) = (
            self.messages / u64::from(self.publishers),
            self.messages % u64::from(self.publishers),
        );
        for number in 0..u64::from(self.publishers) {
            let connection = self.connection.connect("bench").await?;
            let shared = Arc::clone(&shared);
            let count = each + u64::from(number < rest);
            publishers.spawn(async move { shared.publish(connection, count).await });
        }
        let mut open = Vec::new();
        while let Some(joined) = publishers.join_next().await {
            open.push(joined.map_err(Failure::failed)??);
        }
        shared.lock().published_in = shared.began.elapsed();
        while let Some(joined) = consumers.join_next().await {
            joined.map_err(Failure::failed)??;
        }
        // Not before: what RabbitMQ has not confirmed on its way to a quorum queue is lost with its
        // channel.
        for (connection, _publisher) in open {
            close(&connection).await?;
        }
        shared.bar.finish_and_clear();
        Ok(shared.lock().clone())
    }

    fn show(&self, measured: &Measured) -> Outcome {
        let published = Rate::of(self.messages, measured.published_in, self.size);
        let consumed = Rate::of(self.messages, measured.consumed_in, self.size);
        if self.json {
            let latency = |it: &Histogram<u64>| {
                (!it.is_empty()).then(|| {
                    json!({
                        "median": it.value_at_quantile(0.5),
                        "p99": it.value_at_quantile(0.99),
                        "max": it.max(),
                    })
                })
            };
            let part = |rate: &Rate, it: &Histogram<u64>| {
                json!({
                    "messages": self.messages,
                    "seconds": rate.seconds,
                    "messages_per_second": rate.messages,
                    "bytes_per_second": rate.bytes,
                    "latency_microseconds": latency(it),
                })
            };
            let mut result = json!({ "published": part(&published, &measured.confirms) });
            if self.consumers > 0 {
                result["consumed"] = part(&consumed, &measured.deliveries);
            }
            return Ok(print(result)?);
        }
        print(format_args!("published  {published}"))?;
        if let Some(latency) = latency(&measured.confirms) {
            print(format_args!("confirmed  {latency}"))?;
        }
        if self.consumers > 0 {
            print(format_args!("consumed   {consumed}"))?;
            if let Some(latency) = latency(&measured.deliveries) {
                print(format_args!("delivered  {latency}"))?;
            }
        }
        Ok(())
    }
}

/// Latencies in words. `Some` if there are any.
fn latency(histogram: &Histogram<u64>) -> Option<String> {
    let at = |quantile| Duration::from_micros(histogram.value_at_quantile(quantile));
    let max = Duration::from_micros(histogram.max());
    (!histogram.is_empty()).then(|| {
        format!(
            "after {:.1?} (median), {:.1?} (99 %), {max:.1?} (all)",
            at(0.5),
            at(0.99)
        )
    })
}

/// A rate by messages and bytes.
struct Rate {
    count: u64,
    seconds: f64,
    messages: f64,
    bytes: f64,
}

impl Rate {
    fn of(count: u64, time: Duration, size: u32) -> Self {
        let seconds = time.as_secs_f64().max(1e-9);
        let messages = count as f64 / seconds;
        Self {
            count,
            seconds,
            messages,
            bytes: messages * f64::from(size),
        }
    }
}

impl std::fmt::Display for Rate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mebibytes = self.bytes / f64::from(1 << 20);
        let Self {
            count,
            seconds,
            messages,
            ..
        } = self;
        write!(
            f,
            "{count} messages in {seconds:.2} s: {messages:.0}/s, {mebibytes:.1} MiB/s"
        )
    }
}

/// The longest latency that is recorded as it is: an hour, in microseconds.
const LATENCY_MAX: u64 = 3_600_000_000;

/// Latencies in microseconds, to three digits.
fn histogram() -> Outcome<Histogram<u64>> {
    Histogram::new_with_max(LATENCY_MAX, 3).map_err(Failure::failed)
}

/// The result of a run. Latencies are in microseconds.
#[derive(Clone)]
struct Measured {
    published_in: Duration,
    consumed_in: Duration,
    confirms: Histogram<u64>,
    deliveries: Histogram<u64>,
}

impl Measured {
    fn new() -> Outcome<Self> {
        Ok(Self {
            published_in: Duration::ZERO,
            consumed_in: Duration::ZERO,
            confirms: histogram()?,
            deliveries: histogram()?,
        })
    }
}

struct Shared {
    args: BenchArgs,
    queue: String,
    began: Instant,
    bar: ProgressBar,
    consumed: AtomicU64,
    done: watch::Sender<bool>,
    all_consumed: watch::Receiver<bool>,
    measured: Mutex<Measured>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Measured> {
        self.measured.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes that many messages. Returns the connection and the publisher, both open.
    async fn publish(
        &self,
        connection: Connection,
        count: u64,
    ) -> Outcome<(Connection, Publisher)> {
        let args = &self.args;
        let mut window = Window::default();
        window.messages = args.window as usize;
        let options = PublisherOptions::default().window(window);
        let acknowledgements = match args.no_confirm {
            true => Acknowledgements::Off,
            false => Acknowledgements::On,
        };
        let channel = connection.open_channel().await?;
        let publisher = Publisher::open(channel, acknowledgements, options).await?;
        let publish = basic::Publish::default().routing_key(self.queue.as_str());
        let properties = match args.transient {
            true => Properties::default().transient(),
            false => Properties::default().persistent(),
        };
        let mut latencies = histogram()?;
        let mut in_flight: VecDeque<(Instant, Receipt)> = VecDeque::new();
        for _ in 0..count {
            // As they come, or the time in the window would count as well.
            while let Some(outcome) = settled(&mut in_flight).await {
                check_front(outcome, &mut in_flight, &mut latencies)?;
            }
            if in_flight.len() >= args.window as usize
                && let Some((since, receipt)) = in_flight.pop_front()
            {
                check(receipt.await, since, &mut latencies)?;
            }
            let now = Instant::now();
            let body = stamped(args.size as usize, now.duration_since(self.began));
            let message = OutgoingMessage::new(publish.clone(), body);
            let receipt = publisher
                .publish(message.properties(properties.clone()))
                .await;
            in_flight.push_back((now, receipt));
            self.bar.inc(1);
        }
        for (since, receipt) in in_flight {
            check(receipt.await, since, &mut latencies)?;
        }
        if !args.no_confirm {
            let added = self.lock().confirms.add(&latencies);
            added.map_err(Failure::failed)?;
        }
        Ok((connection, publisher))
    }

    async fn consume(&self, connection: &Connection, mut source: Source) -> Outcome {
        let mut latencies = histogram()?;
        let mut all_consumed = self.all_consumed.clone();
        loop {
            let next = tokio::select! {
                next = source.next() => next,
                _ = all_consumed.wait_for(|done| *done) => break,
            };
            let Some(next) = next else {
                break;
            };
            let (message, acker) = next?;
            if let Some(sent) = stamp_of(&message) {
                let latency = self.began.elapsed().saturating_sub(sent);
                latencies.saturating_record(latency.as_micros() as u64);
            }
            if let Some(acker) = acker {
                acker.ack()?;
            }
            self.bar.inc(1);
            if self.consumed.fetch_add(1, Ordering::Relaxed) + 1 == self.args.messages {
                self.lock().consumed_in = self.began.elapsed();
                let _others = self.done.send(true);
            }
        }
        let added = self.lock().deliveries.add(&latencies);
        added.map_err(Failure::failed)?;
        close(connection).await
    }
}

/// The outcome of the front message, if there is one now.
async fn settled(in_flight: &mut VecDeque<(Instant, Receipt)>) -> Option<Published> {
    poll_fn(|cx| {
        let front = in_flight.front_mut();
        let polled = front.map(|(_, receipt)| Pin::new(receipt).poll(cx));
        Poll::Ready(match polled {
            Some(Poll::Ready(outcome)) => Some(outcome),
            Some(Poll::Pending) | None => None,
        })
    })
    .await
}

/// Records the latency of the front message, which it removes.
fn check_front(
    outcome: Published,
    in_flight: &mut VecDeque<(Instant, Receipt)>,
    latencies: &mut Histogram<u64>,
) -> Outcome {
    match in_flight.pop_front() {
        Some((since, _)) => check(outcome, since, latencies),
        None => Ok(()),
    }
}

/// Records the latency of a message that was confirmed.
fn check(outcome: Published, since: Instant, latencies: &mut Histogram<u64>) -> Outcome {
    match outcome {
        Published::Unacknowledged => Ok(()),
        other => {
            other.acked().map_err(Failure::failed)?;
            latencies.saturating_record(since.elapsed().as_micros() as u64);
            Ok(())
        }
    }
}

/// A body that begins with the time since the start of the run, as far as there is room.
fn stamped(size: usize, time: Duration) -> Vec<u8> {
    let mut body = vec![b'x'; size];
    let stamp = (time.as_nanos() as u64).to_be_bytes();
    if let Some(front) = body.first_chunk_mut::<8>() {
        *front = stamp;
    }
    body
}

/// The time at the front of a body.
fn stamp_of(message: &Message) -> Option<Duration> {
    let front = message.body.pieces().next()?.first_chunk::<8>()?;
    Some(Duration::from_nanos(u64::from_be_bytes(*front)))
}

#[cfg(test)]
mod tests {
    use super::histogram;

    #[test]
    fn latencies_of_seconds_are_recorded() {
        let mut latencies = histogram().expect("bounds");
        latencies.saturating_record(5_000_000);
        assert!(latencies.max() >= 5_000_000);
    }
}
