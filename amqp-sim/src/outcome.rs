//! How a program ends.

use std::fmt;

/// The output of a program: `()`, or a `Result`: its error fails the simulation.
pub trait Outcome {
    /// The failure in words; `Some` if it is one.
    fn failure(self) -> Option<String>;
}

impl Outcome for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<T, E: fmt::Display> Outcome for Result<T, E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}
