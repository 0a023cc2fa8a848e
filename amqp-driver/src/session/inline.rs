//! Writes on the thread of a command.

use std::{fmt, task::Waker};

/// A driver that writes when a command calls it.
///
/// A request that is alone in flight is answered soonest if its bytes leave at once: the task of the
/// driver may be on another thread, and waking that takes longer than the write.
pub(crate) trait InlineWrite: fmt::Debug + Send + Sync {
    /// Writes the output, and parks the driver again, unless it is in use. Wakes `task`, the waker
    /// that the driver was parked with, if anything else is to be done.
    fn write(&self, task: Waker);
}
