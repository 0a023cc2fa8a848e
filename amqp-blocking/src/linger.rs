//! Handles that wait for their connection to end.

use std::{cell::Cell, future::Future, pin::Pin};

use crate::executor::run;

thread_local! {
    /// The thread works for others, and may be the one that drives the connection.
    static WORKS: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that never waits for a connection to end.
pub(crate) fn never_here() {
    WORKS.set(true);
}

/// Waits until a connection has ended, where that does not stop the thread that drives it.
pub(crate) fn linger(ended: Pin<&mut dyn Future<Output = ()>>) {
    if !WORKS.get() && !std::thread::panicking() {
        let _ended = run(ended, None);
    }
}
