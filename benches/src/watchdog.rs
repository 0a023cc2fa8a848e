//! The end of a measurement that has none of its own.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;
use std::{process, thread};

/// How long a measurement may take at most: many times as long as any does on a busy machine.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// Does something that has a name. If it does not end within the limit, the program does, with an
/// error: there is no other way to end a thread that waits for ever.
pub(crate) fn watch<T>(name: &str, limit: Duration, work: impl FnOnce() -> T) -> T {
    let (done, watched) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            if watched.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                eprintln!("amqp-bench: {name}: no end within {} s", limit.as_secs());
                process::exit(2);
            }
        });
        let result = work();
        drop(done);
        result
    })
}
