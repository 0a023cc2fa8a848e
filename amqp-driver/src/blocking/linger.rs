//! Handles that wait for their connection to end.

use std::cell::Cell;

use super::executor::run;
use crate::session::shared::{Shared, wait_for};

thread_local! {
    /// The thread works for others, and may be the one that drives the connection.
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that never waits for a connection to end.
pub(super) fn never_here() {
    WORKS.set(true);
}

/// Waits until a connection that is closing has ended. Its machine sees to it that it does: at the
/// latest when its output has made no progress for the close timeout.
pub(crate) fn linger(shared: &Shared) {
    if WORKS.get() || std::thread::panicking() {
        return;
    }
    let ended = wait_for(
        shared,
        |state| &mut state.life,
        |state| state.closed.as_ref().map(|_| ()),
    );
    let _closed = run(ended, None);
}
