//! The thread that writes changes to the file.

use std::{
    fmt, io,
    sync::Arc,
    task::{Wake, Waker},
    thread::{self, JoinHandle, Thread},
};

use amqp_broker::Change;

use super::{StoreError, file::StoreFile};
use crate::shared::Shared;

/// The maximum number of changes in a batch. A batch is one transaction.
const BATCH: usize = 10_000;

/// The thread's side.
pub(super) struct Writer {
    shared: Arc<Shared>,
    file: StoreFile,
}

/// The broker's side.
pub(crate) struct StoreGuard {
    thread: JoinHandle<()>,
}

impl fmt::Debug for StoreGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreGuard")
    }
}

impl StoreGuard {
    /// Stops the broker, and waits until everything is written and the file is closed.
    pub(crate) fn end(self, shared: &Shared) {
        let waker = {
            let mut state = shared.lock();
            let now = state.now;
            state.broker.stop(now);
            state.store_ending = true;
            state.store_waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
        // The last owner may be dropped by a waker that the thread itself calls.
        if self.thread.thread().id() != thread::current().id() {
            let _panicked = self.thread.join();
        }
    }
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Stops a broker without a store, unless all changes are stored: its confirms could wait for ever.
struct Failing<'a>(&'a Shared, Option<StoreError>);

impl Drop for Failing<'_> {
    fn drop(&mut self) {
        let panicked = || StoreError::Thread(io::Error::other("it has panicked"));
        let error = self.1.take();
        let error = error.or_else(|| thread::panicking().then(panicked));
        self.0.with(|state| {
            if !state.store_ending {
                state.store_error = error.map(Arc::new);
                let now = state.now;
                state.broker.stop(now);
            }
        });
    }
}

impl Writer {
    pub(super) fn start(shared: Arc<Shared>, file: StoreFile) -> io::Result<StoreGuard> {
        let writer = Self { shared, file };
        let thread = thread::Builder::new().name("amqp-store".into());
        let thread = thread.spawn(move || writer.run())?;
        Ok(StoreGuard { thread })
    }

    fn run(self) {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut failing = Failing(&self.shared, None);
        while let Some((number, batch)) = self.next_batch(&waker) {
            if batch.is_empty() {
                thread::park();
            } else if let Err(error) = self.file.write(&batch) {
                failing.1 = Some(error);
                return;
            } else {
                self.shared.with(|state| {
                    let now = state.now;
                    state.broker.handle_stored(number, now);
                });
            }
        }
    }

    /// Takes the next changes, and the number of the last one. There may be none yet, and then the
    /// thread is woken for the next one. `None` if there will be none.
    fn next_batch(&self, waker: &Waker) -> Option<(u64, Vec<Change>)> {
        let waker = waker.clone();
        let mut number = 0;
        let mut batch = Vec::new();
        let mut state = self.shared.lock();
        while batch.len() < BATCH
            && let Some((next, change)) = state.broker.poll_change()
        {
            number = next;
            batch.push(change);
        }
        if batch.is_empty() {
            if state.store_ending {
                return None;
            }
            state.store_waker = Some(waker);
        }
        Some((number, batch))
    }
}
