//! The shares of publishers that never pause on one connection, and the cost of each of many waits.
//!
//! It is written once, for every [`Runtime`].

use std::{
    fmt,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use amqp_tokio::{
    Channel, ConfirmChannel, Connection, Error,
    core::bytes::Bytes,
    protocol::basic::{Properties, Publish},
};

use crate::{
    harness::{Failure, Outcome},
    runtime::Runtime,
};

/// How long the publishers run before they are counted.
const WARM_UP: Duration = Duration::from_millis(300);

/// The body of each of many publishes that wait, in bytes: some sixteen of them fill the output.
const WAITING_BODY: usize = 16 << 10;

/// Where publishers publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum On {
    /// On a channel each.
    Own,
    /// On a channel each, in confirm mode, with as many publishes in flight as may be.
    OwnConfirmed,
    /// On one channel.
    One,
    /// On one channel in confirm mode.
    OneConfirmed,
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Own => "own channels",
            Self::OwnConfirmed => "own channels, confirmed",
            Self::One => "one channel",
            Self::OneConfirmed => "one channel, confirmed",
        })
    }
}

/// Publishers that share a connection.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// How many.
    pub publishers: usize,
    /// Where they publish.
    pub on: On,
    /// The body of each message, in bytes.
    pub body: usize,
}

/// The publishers, from 3 on one channel to 64 on channels of their own.
pub const CASES: [Case; 8] = [
    Case {
        publishers: 3,
        on: On::Own,
        body: 100,
    },
    Case {
        publishers: 3,
        on: On::Own,
        body: 16 << 10,
    },
    Case {
        publishers: 3,
        on: On::OwnConfirmed,
        body: 100,
    },
    Case {
        publishers: 3,
        on: On::One,
        body: 100,
    },
    Case {
        publishers: 3,
        on: On::OneConfirmed,
        body: 100,
    },
    Case {
        publishers: 64,
        on: On::Own,
        body: 100,
    },
    Case {
        publishers: 64,
        on: On::Own,
        body: 16 << 10,
    },
    Case {
        publishers: 64,
        on: On::OwnConfirmed,
        body: 100,
    },
];

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            publishers,
            on,
            body,
        } = self;
        f.pad(&format!("{publishers:2} on {on}, {body} bytes"))
    }
}

/// How many publishes the publishers did in the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shares {
    /// By the publisher with the fewest.
    pub least: u64,
    /// By the publisher with the most.
    pub most: u64,
}

impl Shares {
    /// How many times as much as the least the most is; infinite if the least is nothing.
    #[must_use]
    pub fn ratio(self) -> f64 {
        self.most as f64 / self.least as f64
    }
}

/// The channel of a publisher.
#[derive(Clone)]
enum Either {
    Plain(Channel),
    Confirmed(ConfirmChannel),
}

impl Either {
    async fn open(connection: &Connection, on: On) -> Result<Self, Error> {
        let channel = connection.open_channel().await?;
        Ok(match on {
            On::Own | On::One => Self::Plain(channel),
            On::OwnConfirmed | On::OneConfirmed => Self::Confirmed(channel.confirm_select().await?),
        })
    }

    async fn publish(&self, publish: &Publish, body: Bytes) -> Result<(), Error> {
        let properties = Properties::default();
        match self {
            Self::Plain(channel) => channel.publish(publish, &properties, body).await,
            Self::Confirmed(channel) => {
                drop(channel.publish(publish, &properties, body).await?);
                Ok(())
            }
        }
    }
}

/// Lets the publishers of a case publish without a pause for so long, and counts, inside of the
/// runtime. The messages go nowhere.
///
/// # Errors
/// When the broker cannot be reached, or a publish fails.
pub async fn shares(
    runtime: &'static dyn Runtime,
    uri: String,
    case: Case,
    time: Duration,
) -> Result<Shares, Failure> {
    let connection = runtime.connect(uri, Box::new(|_| ())).await?;
    let to = Publish::default().routing_key("nowhere");
    let stop = Arc::new(AtomicBool::new(false));
    let running = Arc::new(AtomicUsize::new(case.publishers));
    let failed = Arc::new(AtomicBool::new(false));
    let body = Bytes::from(vec![0; case.body]);
    // All before the first publish: an answer comes behind the contents of the socket.
    let one = matches!(case.on, On::One | On::OneConfirmed);
    let mut channels: Vec<Either> = Vec::new();
    for _ in 0..case.publishers {
        channels.push(match channels.first() {
            Some(first) if one => first.clone(),
            _ => Either::open(&connection, case.on).await?,
        });
    }
    let mut counters = Vec::new();
    for channel in channels {
        let counter = Arc::new(AtomicU64::new(0));
        counters.push(Arc::clone(&counter));
        let (stop, running, failed) =
            (Arc::clone(&stop), Arc::clone(&running), Arc::clone(&failed));
        let (to, body) = (to.clone(), body.clone());
        runtime.spawn(Box::pin(async move {
            while !stop.load(Ordering::Relaxed) {
                if channel.publish(&to, body.clone()).await.is_err() {
                    failed.store(true, Ordering::Relaxed);
                    break;
                }
                counter.fetch_add(1, Ordering::Relaxed);
            }
            running.fetch_sub(1, Ordering::Relaxed);
        }));
    }
    let count = || {
        counters
            .iter()
            .map(|counter| counter.load(Ordering::Relaxed))
    };
    runtime.sleep(WARM_UP).await;
    let before: Vec<u64> = count().collect();
    runtime.sleep(time).await;
    let done: Vec<u64> = count().zip(before).map(|(now, then)| now - then).collect();
    stop.store(true, Ordering::Relaxed);
    while running.load(Ordering::Relaxed) > 0 {
        runtime.sleep(Duration::from_millis(5)).await;
    }
    connection.close().await?;
    if failed.load(Ordering::Relaxed) {
        return Err("a publish failed".into());
    }
    Ok(Shares {
        least: done.iter().copied().min().unwrap_or_default(),
        most: done.iter().copied().max().unwrap_or_default(),
    })
}

/// The cost of each of so many publishes that begin at the same time on as many tasks, inside of
/// the runtime.
///
/// # Errors
/// When the broker cannot be reached, or a publish fails.
pub async fn cost_of_waiting(
    runtime: &'static dyn Runtime,
    uri: String,
    publishers: usize,
) -> Result<Duration, Failure> {
    let connection = runtime.connect(uri, Box::new(|_| ())).await?;
    let channel = connection.open_channel().await?;
    let to = Publish::default().routing_key("nowhere");
    let body = Bytes::from(vec![0; WAITING_BODY]);
    let left = Arc::new(AtomicUsize::new(publishers));
    let failed = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    for _ in 0..publishers {
        let (left, failed) = (Arc::clone(&left), Arc::clone(&failed));
        let (channel, to, body) = (channel.clone(), to.clone(), body.clone());
        runtime.spawn(Box::pin(async move {
            let published = channel.publish(&to, &Properties::default(), body).await;
            if published.is_err() {
                failed.store(true, Ordering::Relaxed);
            }
            left.fetch_sub(1, Ordering::Relaxed);
        }));
    }
    while left.load(Ordering::Relaxed) > 0 {
        runtime.sleep(Duration::from_millis(1)).await;
    }
    let taken = begun.elapsed();
    drop(channel);
    connection.close().await?;
    if failed.load(Ordering::Relaxed) {
        return Err("a publish failed".into());
    }
    Ok(taken / u32::try_from(publishers)?)
}

/// Runs a function on a runtime, and returns its result.
///
/// # Errors
/// The error of the function.
pub fn run<T: Send + Sync + 'static>(
    runtime: &'static dyn Runtime,
    measure: impl Future<Output = Result<T, Failure>> + 'static,
) -> Result<T, Failure> {
    let (tell, reported) = std::sync::mpsc::channel();
    let scenario = async move {
        let measured = measure.await?;
        tell.send(measured)?;
        Outcome::Ok(())
    };
    runtime.block_on(Box::pin(scenario))?;
    Ok(reported.recv()?)
}
