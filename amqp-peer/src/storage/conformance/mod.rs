//! The suite that a storage passes: named cases of all that a peer relies on.
//!
//! [`check`] runs all cases, [`cases`] lists them. Each case has a storage of its own, which it
//! closes and opens again; the contents must equal those that were stored, field by field. The suite
//! needs no feature, and has no asynchronous part.
//!
//! Faults of the medium are not among the cases, as each medium has its own: a full disk, a lost
//! connection, a kill of the process in the midst of [`apply`](Storage::apply). A storage tests
//! these by itself, against the promises of [`Storage`].
//!
//! ```
//! use amqp_peer::storage::{MemoryStorage, conformance};
//!
//! // Called for each case: an empty storage, as the function that opens it.
//! let passed = conformance::check(|| {
//!     let kept = MemoryStorage::new();
//!     // Called again when the storage that it returned was dropped.
//!     move || Ok(kept.clone())
//! });
//! assert_eq!(passed.map_err(|failures| failures.to_string()), Ok(()));
//! ```

mod accepted;
mod batches;
mod bench;
mod clocks;
mod messages;
mod removal;
mod sizes;

use std::{error::Error, fmt};

use self::bench::{Bench, Verdict};
use super::{Storage, StorageError};

/// A case of the suite.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    name: &'static str,
    about: &'static str,
    run: fn(&mut Bench<'_>) -> Verdict,
}

impl Case {
    const fn new(
        name: &'static str,
        about: &'static str,
        run: fn(&mut Bench<'_>) -> Verdict,
    ) -> Self {
        Self { name, about, run }
    }

    /// Returns the name, such as `order_of_sequences`.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// Returns the sentence that the case checks.
    #[must_use]
    pub const fn about(&self) -> &'static str {
        self.about
    }

    /// Runs the case. `open` opens one storage, which is empty at the first call, and is called
    /// again after the storage that it returned was dropped.
    ///
    /// # Errors
    /// The first difference from the contents that the case expects.
    pub fn check<S: Storage>(
        &self,
        mut open: impl FnMut() -> Result<S, StorageError>,
    ) -> Result<(), Failure> {
        let mut open = || open().map(|storage| Box::new(storage) as Box<dyn Storage>);
        (self.run)(&mut Bench::new(&mut open)).map_err(|text| Failure {
            case: self.name,
            about: self.about,
            text,
        })
    }
}

/// Returns all cases.
#[must_use]
pub fn cases() -> Vec<Case> {
    [
        messages::CASES,
        removal::CASES,
        batches::CASES,
        clocks::CASES,
        accepted::CASES,
        sizes::CASES,
    ]
    .concat()
}

/// Runs all cases. `fresh` is called once for each, and returns the argument of [`Case::check`].
///
/// # Errors
/// The failures of all cases that fail.
pub fn check<O, S>(mut fresh: impl FnMut() -> O) -> Result<(), Failures>
where
    O: FnMut() -> Result<S, StorageError>,
    S: Storage,
{
    let all = cases();
    let failures: Vec<Failure> = all
        .iter()
        .filter_map(|case| case.check(fresh()).err())
        .collect();
    if failures.is_empty() {
        Ok(())
    } else {
        Err(Failures {
            failures,
            cases: all.len(),
        })
    }
}

/// A case that has failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    case: &'static str,
    about: &'static str,
    text: String,
}

impl Failure {
    /// Returns the name of the case.
    #[must_use]
    pub const fn case(&self) -> &'static str {
        self.case
    }

    /// Returns the difference.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}) {}", self.case, self.about, self.text)
    }
}

impl Error for Failure {}

/// The cases that have failed, in the order of the suite.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failures {
    failures: Vec<Failure>,
    cases: usize,
}

impl Failures {
    /// Returns the failures, in the order of the suite.
    pub fn iter(&self) -> impl Iterator<Item = &Failure> {
        self.failures.iter()
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} of {} cases of the storage's conformance fail:",
            self.failures.len(),
            self.cases
        )?;
        for failure in &self.failures {
            write!(f, "\n- {failure}")?;
        }
        Ok(())
    }
}

impl Error for Failures {}
