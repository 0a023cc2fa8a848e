//! Programs that once showed a difference.

use super::program::Program;

/// Every program that is run each time, with a name for it.
#[must_use]
pub fn kept() -> Vec<(&'static str, Program)> {
    Vec::new()
}
