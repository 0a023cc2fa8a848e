//! Code of the application: wakers that run a closure wherever they are used.

#![allow(
    unsafe_code,
    reason = "there is no safe way to see a waker being cloned"
)]

use std::{
    mem::ManuallyDrop,
    panic::resume_unwind,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::{self, RecvTimeoutError},
    },
    task::{RawWaker, RawWakerVTable, Waker},
    thread,
    time::Duration,
};

/// The number of calls that the wakers of a [`foreign_waker`] have seen.
#[derive(Debug, Default)]
pub struct Calls {
    pub clones: AtomicUsize,
    pub drops: AtomicUsize,
    pub wakes: AtomicUsize,
}

struct Foreign {
    act: Box<dyn Fn() + Send + Sync>,
    acting: AtomicBool,
    calls: Arc<Calls>,
}

impl Foreign {
    fn call(&self, count: &AtomicUsize) {
        count.fetch_add(1, SeqCst);
        // The closure may use the waker in its turn.
        if !self.acting.swap(true, SeqCst) {
            (self.act)();
            self.acting.store(false, SeqCst);
        }
    }
}

/// Returns a waker that calls `act` whenever it is cloned, dropped or woken, but not within `act`.
pub fn foreign_waker(calls: &Arc<Calls>, act: impl Fn() + Send + Sync + 'static) -> Waker {
    let foreign = Foreign {
        act: Box::new(act),
        acting: AtomicBool::new(false),
        calls: Arc::clone(calls),
    };
    // SAFETY: the functions of `VTABLE` keep the contract of `RawWaker`, each clone is one owner of the
    // `Arc`, and `Foreign` can be used by any thread.
    unsafe { Waker::from_raw(raw(Arc::new(foreign))) }
}

fn raw(foreign: Arc<Foreign>) -> RawWaker {
    RawWaker::new(Arc::into_raw(foreign).cast(), &VTABLE)
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake_by_ref, drop_waker);

/// # Safety
/// The pointer is that of a waker of this module.
unsafe fn borrow(pointer: *const ()) -> ManuallyDrop<Arc<Foreign>> {
    // SAFETY: it was made by `raw`, and the owner that it stands for is not dropped here.
    ManuallyDrop::new(unsafe { Arc::from_raw(pointer.cast()) })
}

unsafe fn clone(pointer: *const ()) -> RawWaker {
    // SAFETY: as the caller promises.
    let foreign = unsafe { borrow(pointer) };
    foreign.call(&foreign.calls.clones);
    raw(Arc::clone(&foreign))
}

unsafe fn wake(pointer: *const ()) {
    // SAFETY: as the caller promises. It gives its owner away.
    let foreign = ManuallyDrop::into_inner(unsafe { borrow(pointer) });
    foreign.call(&foreign.calls.wakes);
}

unsafe fn wake_by_ref(pointer: *const ()) {
    // SAFETY: as the caller promises.
    let foreign = unsafe { borrow(pointer) };
    foreign.call(&foreign.calls.wakes);
}

unsafe fn drop_waker(pointer: *const ()) {
    // SAFETY: as the caller promises. It gives its owner away.
    let foreign = ManuallyDrop::into_inner(unsafe { borrow(pointer) });
    foreign.call(&foreign.calls.drops);
}

/// Runs a scenario that would stand still with a lock held, and fails if it does.
pub fn ends(scenario: impl FnOnce() + Send + 'static) {
    let (done, ended) = mpsc::channel();
    let running = thread::spawn(move || {
        scenario();
        done.send(()).expect("the test waits");
    });
    let ended = ended.recv_timeout(Duration::from_secs(120));
    assert!(
        ended != Err(RecvTimeoutError::Timeout),
        "it stands still: code of the application runs under the lock"
    );
    if let Err(panic) = running.join() {
        resume_unwind(panic);
    }
}
