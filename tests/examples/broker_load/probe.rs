//! A client that publishes and gets a message again and again, to see how long others wait.

use std::{
    fmt,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use amqp_blocking::{
    core::bytes::BytesMut,
    protocol::{Method, basic, queue},
};
use amqp_test_support::frames::{announce, body, method};
use amqp_tests::harness::Failure;

use crate::wire::Client;

/// The pause between two round trips.
const PAUSE: Duration = Duration::from_millis(2);

/// The round trip: of a message, or without one while publishers are blocked.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trip {
    Message,
    Empty,
}

pub(crate) struct Probe {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Duration>, String>>,
}

/// The times of round trips, in ascending order.
pub(crate) struct Times(Vec<Duration>);

impl Probe {
    pub(crate) fn start(address: SocketAddr, trip: Trip) -> Result<Self, Failure> {
        let mut client = Client::with_channel(address)?;
        let mut declare = queue::Declare::default().queue("load-probe");
        declare.auto_delete = false;
        declare.exclusive = true;
        client.call(1, declare)?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut times = Vec::new();
            while !stopped.load(Relaxed) {
                times.push(round_trip(&mut client, trip).map_err(|error| error.to_string())?);
                thread::sleep(PAUSE);
            }
            Ok(times)
        });
        Ok(Self { stop, thread })
    }

    pub(crate) fn end(self) -> Result<Times, Failure> {
        self.stop.store(true, Relaxed);
        let ended = self.thread.join().map_err(|_| "the probe has panicked")?;
        let mut times = ended.map_err(|error| format!("the probe: {error}"))?;
        times.sort_unstable();
        Ok(Times(times))
    }
}

fn round_trip(client: &mut Client, trip: Trip) -> Result<Duration, Failure> {
    let mut output = BytesMut::new();
    if trip == Trip::Message {
        announce("load-probe", 1, &mut output);
        body(b"x", &mut output);
    }
    let get = basic::Get::default().queue("load-probe").no_ack(true);
    method(1, get, &mut output);
    let began = Instant::now();
    client.send(&output)?;
    match (client.next()?, trip) {
        (Method::BasicGetOk(_), Trip::Message) | (Method::BasicGetEmpty(_), Trip::Empty) => {
            Ok(began.elapsed())
        }
        (other, _) => Err(format!("{other:?}").into()),
    }
}

impl Times {
    fn at(&self, part: f64) -> Duration {
        let last = self.0.len().saturating_sub(1);
        let index = (last as f64 * part) as usize;
        self.0.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn longest(&self) -> Duration {
        self.at(1.0)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = |part| self.at(part).as_secs_f64() * 1e3;
        let (p50, p99, longest) = (millis(0.5), millis(0.99), millis(1.0));
        write!(f, "{p50:.1} / {p99:.1} / {longest:.1}")
    }
}
