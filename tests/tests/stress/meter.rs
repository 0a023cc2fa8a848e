//! An allocator that counts the memory of the client, with the test around it, and not that of the
//! broker in the same process.

#![allow(unsafe_code, reason = "there is no safe way to be an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicIsize, Ordering},
};

#[global_allocator]
static COUNTING: Counting = Counting;

struct Counting;

/// Bytes held by all threads that count.
static HELD: AtomicIsize = AtomicIsize::new(0);

/// The most that were held since the peak was reset.
static PEAK: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    /// This thread does not count.
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

fn count(bytes: isize) {
    // Threads that come to their end count.
    if EXEMPT.try_with(Cell::get).unwrap_or(false) {
        return;
    }
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    if bytes > 0 {
        PEAK.fetch_max(held, Ordering::Relaxed);
    }
}

// SAFETY: everything is left to the system's allocator, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Lets this thread not count from now on.
pub(crate) fn exempt_thread() {
    EXEMPT.with(|exempt| exempt.set(true));
}

/// Runs something that allocates and frees on its own account.
pub(crate) fn uncounted<T>(run: impl FnOnce() -> T) -> T {
    let before = EXEMPT.with(|exempt| exempt.replace(true));
    let result = run();
    EXEMPT.with(|exempt| exempt.set(before));
    result
}

/// Begins to look for the peak anew; the bytes held now.
pub(crate) fn reset() -> isize {
    let held = HELD.load(Ordering::Relaxed);
    PEAK.store(held, Ordering::Relaxed);
    held
}

/// The bytes held now, and the most since the last reset.
pub(crate) fn read() -> (isize, isize) {
    (HELD.load(Ordering::Relaxed), PEAK.load(Ordering::Relaxed))
}
