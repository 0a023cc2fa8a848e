//! Writes on the thread of a command.

use std::{fmt, task::Waker};

/// A driver that writes when a command calls it.
///
/// A command that is awaited, beside no other, is answered soonest if its bytes leave at once: the
/// task of the driver may be on another thread, and waking that takes longer than the write.
pub(crate) trait InlineWrite: fmt::Debug + Send + Sync {
    /// Writes the output and parks the driver again, or wakes `task`, the waker that it was parked
    /// with: if the driver is in use, or anything is left to do.
    fn write(&self, task: Waker);
}
