//! The account of requests.

use std::{
    collections::BTreeMap,
    fmt,
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use amqp_driver::core::Instant;

use crate::sim::Sim;

/// The account of all requests of a world: each has one outcome, and has it in time. That the
/// future was dropped is an outcome.
///
/// ```
/// use amqp_sim::{Sim, oracle::Requests};
/// use std::time::Duration;
///
/// let sim = Sim::new(0);
/// sim.node("rabbit");
/// let requests = Requests::new(&sim, Duration::from_secs(60));
/// let checked = requests.clone();
/// sim.always("requests", move || checked.check());
/// let (connector, tracked) = (sim.connector("amqp://rabbit"), requests.clone());
/// sim.spawn("program", async move {
///     let connection = connector.connect().await.map_err(|error| error.to_string())?;
///     let channel = tracked.track("channel.open", connection.open_channel()).await;
///     channel.map(drop).map_err(|error| error.to_string())
/// });
/// sim.run();
/// assert_eq!(requests.finish(), Ok(()));
/// assert_eq!((requests.answered(), requests.dropped()), (1, 0));
/// ```
#[derive(Clone, Debug)]
pub struct Requests {
    state: Arc<Mutex<State>>,
    now: Arc<AtomicU64>,
    limit: Duration,
}

#[derive(Debug, Default)]
struct State {
    /// The number of requests so far.
    last: u64,
    /// Those without an outcome, with the time at which they began.
    waiting: BTreeMap<u64, (String, Instant)>,
    answered: u64,
    dropped: u64,
}

impl Requests {
    /// Creates an account without requests. Each may wait for `limit`: longer than the timeout of a
    /// request by the time that a fault may suspend its program.
    #[must_use]
    pub fn new(sim: &Sim, limit: Duration) -> Self {
        Self {
            state: Arc::default(),
            now: Arc::clone(&sim.0.shared.now),
            limit,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(self.now.load(Relaxed))
    }

    /// Runs a request, and returns its outcome. It is entered at the first poll.
    ///
    /// # Cancel safety
    /// Dropping this drops the request.
    pub async fn track<T>(&self, name: impl fmt::Display, request: impl Future<Output = T>) -> T {
        let begun = self.begin(name.to_string());
        let outcome = request.await;
        begun.answer();
        outcome
    }

    fn begin(&self, name: String) -> Begun<'_> {
        let now = self.now();
        let mut state = self.lock();
        state.last += 1;
        let number = state.last;
        state.waiting.insert(number, (name, now));
        Begun {
            requests: self,
            number,
            is_answered: false,
        }
    }

    /// Succeeds if no request waits for too long.
    ///
    /// # Errors
    /// The first one that does, in words.
    pub fn check(&self) -> Result<(), String> {
        let now = self.now();
        match self.lock().waiting.values().next() {
            Some((name, since)) if now - *since > self.limit => {
                Err(format!("{name} has waited for {:?}", now - *since))
            }
            _ => Ok(()),
        }
    }

    /// Succeeds if all requests have an outcome, at the end of the world.
    ///
    /// # Errors
    /// The first one that has none, in words.
    pub fn finish(&self) -> Result<(), String> {
        match self.lock().waiting.values().next() {
            Some((name, since)) => Err(format!("{name} waits since {since:?}")),
            None => Ok(()),
        }
    }

    /// The number of requests that have ended by themselves.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.lock().answered
    }

    /// The number of requests that were dropped before their end.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.lock().dropped
    }
}

/// A request without an outcome.
struct Begun<'a> {
    requests: &'a Requests,
    number: u64,
    is_answered: bool,
}

impl Begun<'_> {
    fn answer(mut self) {
        self.is_answered = true;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut state = self.requests.lock();
        state.waiting.remove(&self.number);
        if self.is_answered {
            state.answered += 1;
        } else {
            state.dropped += 1;
        }
    }
}
