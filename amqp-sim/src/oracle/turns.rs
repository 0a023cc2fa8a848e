//! Fairness.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Checks that no participant starves: between the time at which one begins to wait and its turn, every
/// other one has a bounded number of turns.
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
    /// By each that waits, the turns of the others since.
    waiting: BTreeMap<String, BTreeMap<String, u64>>,
    violation: Option<String>,
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
        self.lock().waiting.entry(name.to_string()).or_default();
    }

    /// One had its turn, and waits no more.
    pub fn served(&self, name: impl fmt::Display) {
        let name = name.to_string();
        let mut state = self.lock();
        state.waiting.remove(&name);
        let bound = state.bound;
        let mut overtaken = None;
        for (waiting, turns) in &mut state.waiting {
            let count = turns.entry(name.clone()).or_default();
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
