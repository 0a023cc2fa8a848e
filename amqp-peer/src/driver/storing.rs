//! The thread of a storage.

use std::{
    io,
    sync::Arc,
    task::{Wake, Waker},
    thread::{self, Thread},
    time::Duration,
};

use super::{
    shared::Shared,
    state::{State, StoreThread},
};
use crate::storage::{Batch, Storage};

/// The first pause after a failure, doubled up to the maximum: the disk may have room again.
const PAUSE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(3);

/// Starts the thread that stores the batches of a peer, and ends when the peer has ended.
pub(super) fn start(shared: &Arc<Shared>, storage: Box<dyn Storage>) -> io::Result<()> {
    shared.lock().store.thread = StoreThread::Running;
    let ending = Ending(Arc::clone(shared));
    let run = move || store(&ending.0, storage);
    thread::Builder::new()
        .name("amqp-peer-store".into())
        .spawn(run)
        .map(drop)
}

/// Wakes a parked thread.
struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Notes the end of the thread, also after a panic.
struct Ending(Arc<Shared>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.at_now(|state, now| {
            state.store.thread = StoreThread::Ended;
            let untaken = state.store.batch.take();
            state.after.batches.extend(untaken);
            if !state.store.is_ending {
                state.fail_store("the thread of the storage has ended");
                state.begin_stop(now);
            }
            state.after.wakes.extend(state.keeper.take());
        });
    }
}

impl State {
    fn fail_store(&mut self, message: &str) {
        let is_first = self.store.failure.is_none();
        self.after.notes.store_failed(message, is_first);
        self.machine.handle_store_failed(self.now, message);
        self.store.failure = Some(message.into());
        self.stored.wake_all(&mut self.after.wakes);
    }
}

fn store(shared: &Shared, mut storage: impl Storage) {
    let mut batch: Option<Batch> = None;
    let mut pause = PAUSE;
    loop {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        let mut state = shared.lock();
        if batch.is_none() {
            batch = state.store.batch.take();
        }
        let is_ending = state.store.is_ending;
        let replaced = state.store.waker.replace(waker);
        drop(state);
        drop(replaced);
        let Some(Batch { id, changes }) = &batch else {
            if is_ending {
                return;
            }
            thread::park();
            continue;
        };
        match storage.apply(changes) {
            Ok(()) => {
                let id = *id;
                pause = PAUSE;
                batch = None;
                shared.at_now(|state, now| {
                    if state.store.failure.take().is_some() {
                        state.after.notes.store_works();
                    }
                    state.machine.handle_stored(now, id);
                    state.stored.wake_all(&mut state.after.wakes);
                });
            }
            Err(error) => {
                shared.with(|state| state.fail_store(&error.to_string()));
                if is_ending {
                    return;
                }
                thread::park_timeout(pause);
                pause = (pause * 2).min(PAUSE_MAX);
            }
        }
    }
}
