//! Waiting for the end of a connection when its last handle is dropped.

use std::{cell::Cell, future::Future, pin::Pin};

use crate::executor::{release_spare, run};

thread_local! {
    /// Whether this is a worker thread, which may drive the connection.
    static IS_WORKER: Cell<bool> = const { Cell::new(false) };
}

/// Marks this as a worker thread, which never waits for the end of a connection.
pub(crate) fn mark_worker_thread() {
    IS_WORKER.set(true);
}

/// Waits for the end of a connection. Returns at once while unwinding, and on a worker thread: a
/// driver that waits for its own connection would deadlock.
pub(crate) fn linger(ended: Pin<&mut dyn Future<Output = ()>>) {
    if !IS_WORKER.get() && !std::thread::panicking() {
        let _ended = run(ended, None);
        // This thread may have no further connection.
        release_spare();
    }
}
