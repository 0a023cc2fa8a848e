//! The long run: many messages of all sizes through RabbitMQ and back, on four channels, with
//! confirms and with acknowledgements in batches. Each has to arrive whole, once, and in order.
//!
//! ```text
//! cargo run --release -p amqp-tests --example soak -- --help
//! ```

mod capture;
mod lane;
mod message;
mod options;

use std::{
    env,
    fmt::{self, Write as _},
    io::{self, IsTerminal as _},
    process::{self, ExitCode},
    sync::Arc,
    time::{Duration, Instant},
};

use amqp_tests::rabbitmq::Node;
use tokio::{runtime::Runtime, task::JoinSet, time};

use self::{
    capture::Capture,
    lane::{Lane, Progress},
    message::Plan,
    options::{HELP, Options},
};

type Result<T = (), E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

/// How many queues there are, each with a channel that publishes to it and one that consumes.
const LANES: u16 = 4;

/// After how long without any progress the run has failed.
const PATIENCE: Duration = Duration::from_secs(60);

/// How many lines of the broker's log a failure shows.
const LOG_LINES: usize = 10;

fn main() -> ExitCode {
    let outcome = options::parse().and_then(|options| match options {
        Some(options) => run(&options),
        None => {
            print!("{HELP}");
            Ok(())
        }
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result {
    let node = match env::var("AMQP_URL") {
        Ok(_) => None,
        Err(_) => {
            eprintln!("starting a RabbitMQ");
            Some(Node::start()?)
        }
    };
    let url = match &node {
        Some(node) => node.uri(),
        None => env::var("AMQP_URL")?,
    };
    let capture = options.capture.as_deref();
    let capture = capture.map(|file| Capture::start(file, &url)).transpose()?;
    let outcome = Runtime::new()?.block_on(soak(&url, options));
    let recorded = capture.map(Capture::stop).transpose();
    let summary = outcome.map_err(|error| match &node {
        Some(node) => {
            let log = node.log_tail(LOG_LINES);
            format!("{error}\nthe end of the broker's log:\n{log}").into()
        }
        None => error,
    })?;
    print!("{summary}");
    if let Some(recorded) = recorded? {
        let decoded = recorded.decode()?;
        print!("{decoded}");
        decoded.check(options.messages)?;
    }
    Ok(())
}

/// Publishes and consumes it all.
async fn soak(url: &str, options: &Options) -> Result<Summary> {
    let publishing = amqp_tokio::connect(url).await?;
    let consuming = amqp_tokio::connect(url).await?;
    let plan = Arc::new(Plan::new(options.seed, &publishing.tuning()));
    let run = process::id().to_string();
    let mut lanes = Vec::new();
    let mut tasks = JoinSet::new();
    let started = Instant::now();
    for index in 0..LANES {
        let more = options.messages % u64::from(LANES) > u64::from(index);
        let count = options.messages / u64::from(LANES) + u64::from(more);
        let lane = Arc::new(Lane::new(index, &run, count, &plan)?);
        let to = publishing.open_channel().await?.confirm_select().await?;
        let from = consuming.open_channel().await?;
        lane.declare(&to).await?;
        tasks.spawn(Arc::clone(&lane).publish(to));
        tasks.spawn(Arc::clone(&lane).consume(from));
        lanes.push(lane);
    }
    watch(&mut tasks, &lanes).await?;
    let elapsed = started.elapsed();

    let channel = publishing.open_channel().await?;
    for lane in &lanes {
        lane.delete(&channel).await?;
    }
    publishing.close().await?;
    consuming.close().await?;
    Ok(Summary::new(&plan, &lanes, elapsed))
}

/// Waits for the lanes, prints their progress, and ends with the first fault.
async fn watch(tasks: &mut JoinSet<Result>, lanes: &[Arc<Lane>]) -> Result {
    let terminal = io::stderr().is_terminal();
    let period = Duration::from_millis(if terminal { 200 } else { 5000 });
    let total: u64 = lanes.iter().map(|lane| lane.count).sum();
    let mut last = Progress::default();
    let (mut moved, mut reported) = (Instant::now(), Instant::now());
    loop {
        match time::timeout(period / 10, tasks.join_next()).await {
            Ok(None) => break,
            Ok(Some(ended)) => ended??,
            Err(_) => {}
        }
        let now: Progress = lanes.iter().map(|lane| lane.progress()).sum();
        if now != last {
            (last, moved) = (now, Instant::now());
        } else if moved.elapsed() > PATIENCE {
            let mut stuck = format!("nothing has moved for {PATIENCE:?}");
            for lane in lanes {
                let (queue, progress) = (lane.queue(), lane.progress());
                write!(stuck, "\n{queue}, of {}: {progress}", Grouped(lane.count))?;
            }
            return Err(stuck.into());
        }
        if reported.elapsed() > period {
            reported = Instant::now();
            let start = if terminal { "\r\x1b[K" } else { "" };
            let end = if terminal { "" } else { "\n" };
            eprint!("{start}of {}: {now}{end}", Grouped(total));
        }
    }
    if terminal {
        eprint!("\r\x1b[K");
    }
    Ok(())
}

/// The totals.
struct Summary {
    /// How many messages of each size, in bytes.
    sizes: Vec<(usize, u64)>,
    progress: Progress,
    elapsed: Duration,
}

impl Summary {
    fn new(plan: &Plan, lanes: &[Arc<Lane>], elapsed: Duration) -> Self {
        let mut sizes: Vec<_> = plan.sizes().iter().map(|size| (size.len, 0)).collect();
        for (index, lane) in (0..).zip(lanes) {
            for number in 1..=lane.count {
                sizes[plan.size(index, number)].1 += 1;
            }
        }
        Self {
            sizes,
            progress: lanes.iter().map(|lane| lane.progress()).sum(),
            elapsed,
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress {
            received, bytes, ..
        } = self.progress;
        for &(len, count) in &self.sizes {
            let (count, len) = (Grouped(count), Grouped(len as u64));
            writeln!(f, "{count:>9} messages of {len:>9} bytes")?;
        }
        writeln!(f, "{}, {} bytes", self.progress, Grouped(bytes))?;
        let seconds = self.elapsed.as_secs_f64();
        writeln!(
            f,
            "{seconds:.1} s: {:.0} messages/s, {:.1} MB/s, each way",
            received as f64 / seconds,
            bytes as f64 / seconds / 1e6
        )?;
        writeln!(f, "all there, once, in order")
    }
}

/// A number with commas.
struct Grouped(u64);

impl fmt::Display for Grouped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let digits = self.0.to_string();
        let mut text = String::new();
        for (at, digit) in digits.char_indices() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                text.push(',');
            }
            text.push(digit);
        }
        f.pad(&text)
    }
}
