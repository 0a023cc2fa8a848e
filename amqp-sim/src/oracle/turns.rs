//! Fairness.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Wake, Waker},
};

/// The most times that one is woken without having its turn: as often as an executor polls it too
/// late for the room that was kept for it.
const MISSES: u64 = 20;

/// Checks that no participant starves: between the time at which one begins to wait and its turn, every
/// other one has a bounded number of turns.
///
/// Once one is [woken](Self::woken), it is up to the executor when it runs: until it
/// [waits](Self::wait) again, the turns of others do not count.
///
/// ```
/// use amqp_sim::oracle::Turns;
///
/// let turns = Turns::new(2);
/// turns.wait("slow");
/// for _ in 0..3 {
///     turns.wait("quick");
///     turns.served("quick");
/// }
/// assert!(turns.check().is_err());
/// ```
#[derive(Clone, Debug)]
pub struct Turns(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    bound: u64,
    waiting: BTreeMap<String, Waiting>,
    violation: Option<String>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// The turns of the others since.
    turns: BTreeMap<String, u64>,
    is_woken: bool,
    /// The number of wake-ups.
    wakes: u64,
}

impl Turns {
    /// Creates a check: each of the others may overtake so often.
    #[must_use]
    pub fn new(bound: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            bound,
            waiting: BTreeMap::new(),
            violation: None,
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One waits from now on, unless it does already.
    pub fn wait(&self, name: impl fmt::Display) {
        let mut state = self.lock();
        let waiting = state.waiting.entry(name.to_string()).or_default();
        if std::mem::take(&mut waiting.is_woken) {
            waiting.turns.clear();
        }
    }

    /// One that waits may have its turn, as soon as it runs.
    pub fn woken(&self, name: impl fmt::Display) {
        let name = name.to_string();
        let mut state = self.lock();
        let Some(waiting) = state.waiting.get_mut(&name) else {
            return;
        };
        waiting.wakes += u64::from(!std::mem::replace(&mut waiting.is_woken, true));
        if waiting.wakes > MISSES {
            let text = || format!("{name} was woken {MISSES} times without a turn");
            state.violation.get_or_insert_with(text);
        }
    }

    /// Runs the wait for a turn to its end: it waits at each poll, and is woken in between.
    ///
    /// # Cancel safety
    /// Dropping this drops the wait, which has [gone](Self::gone) then.
    pub async fn track<T>(&self, name: impl fmt::Display, turn: impl Future<Output = T>) -> T {
        let tracked = Tracked {
            turns: self,
            name: name.to_string(),
        };
        let mut turn = pin!(turn);
        let output = poll_fn(|cx| {
            self.wait(&tracked.name);
            let waker = Waker::from(Arc::new(Woken {
                turns: self.clone(),
                name: tracked.name.clone(),
                waker: cx.waker().clone(),
            }));
            turn.as_mut().poll(&mut Context::from_waker(&waker))
        });
        let output = output.await;
        self.served(&tracked.name);
        output
    }

    /// One had its turn, and waits no more.
    pub fn served(&self, name: impl fmt::Display) {
        let name = name.to_string();
        let mut state = self.lock();
        state.waiting.remove(&name);
        let bound = state.bound;
        let mut overtaken = None;
        for (waiting, state) in &mut state.waiting {
            if state.is_woken {
                continue;
            }
            let count = state.turns.entry(name.clone()).or_default();
            *count += 1;
            if *count > bound {
                overtaken.get_or_insert_with(|| {
                    format!("{waiting} waits while {name} had {count} turns")
                });
            }
        }
        if state.violation.is_none() {
            state.violation = overtaken;
        }
    }

    /// One waits no more, without a turn: its connection was lost.
    pub fn gone(&self, name: impl fmt::Display) {
        self.lock().waiting.remove(&name.to_string());
    }

    /// Forgets all turns so far: faults may have held some of them up.
    pub fn reset(&self) {
        self.lock().waiting.clear();
    }

    /// Succeeds if none was overtaken too often so far.
    ///
    /// # Errors
    /// The first violation in words.
    pub fn check(&self) -> Result<(), String> {
        self.lock().violation.clone().map_or(Ok(()), Err)
    }
}

/// A wait that is being tracked.
struct Tracked<'a> {
    turns: &'a Turns,
    name: String,
}

impl Drop for Tracked<'_> {
    fn drop(&mut self) {
        self.turns.gone(&self.name);
    }
}

/// The waker of a tracked wait.
struct Woken {
    turns: Turns,
    name: String,
    waker: Waker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.turns.woken(&self.name);
        self.waker.wake_by_ref();
    }
}
