//! A driver that a command uses on its own thread.

use std::{fmt, sync::Arc, task::Waker};

/// A driver that writes when a command calls it, and may be lent to a thread that waits.
///
/// A command that is awaited, beside no other, is answered soonest if its bytes leave at once: the
/// task of the driver may be on another thread, and waking that takes longer than the write.
pub(crate) trait InlineDriver: fmt::Debug + Send + Sync {
    /// Writes the output and parks the driver again, or wakes `task`, the waker that it was parked
    /// with: if the driver is in use, or anything is left to do.
    fn write(&self, task: Waker);

    /// Whether [`lend`](Self::lend) does anything.
    fn is_lending(&self) -> bool;

    /// Lends the parked driver to this thread, unless another one has it.
    fn lend(self: Arc<Self>);
}
