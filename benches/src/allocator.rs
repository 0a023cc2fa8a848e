//! An allocator that counts, while it is asked to.

#![allow(unsafe_code, reason = "an allocator has no other way to be written")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// While false, an allocation costs no more than without the counter.
static COUNTING: AtomicBool = AtomicBool::new(false);
/// How many allocations were made, counting growth of one as another.
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// How many more bytes were allocated than given back.
static LIVE: AtomicI64 = AtomicI64::new(0);

/// The system's allocator, with a count.
struct Counting;

/// The counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counted {
    /// How many allocations were made.
    pub(crate) allocations: u64,
    /// How many more bytes were allocated than given back.
    pub(crate) live: i64,
}

/// Begins to count, from zero.
pub(crate) fn start() {
    ALLOCATIONS.store(0, Relaxed);
    LIVE.store(0, Relaxed);
    COUNTING.store(true, Relaxed);
}

/// The counts since [`start`], of all threads.
pub(crate) fn counted() -> Counted {
    Counted {
        allocations: ALLOCATIONS.load(Relaxed),
        live: LIVE.load(Relaxed),
    }
}

/// Ends counting; returns the counts.
pub(crate) fn stop() -> Counted {
    COUNTING.store(false, Relaxed);
    counted()
}

/// Waits until no other test counts, or reads a count, and holds the others up: a count is one of the
/// whole process.
#[cfg(test)]
pub(crate) fn alone() -> std::sync::MutexGuard<'static, ()> {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn count(allocations: u64, more: usize, less: usize) {
    if COUNTING.load(Relaxed) {
        ALLOCATIONS.fetch_add(allocations, Relaxed);
        // No object is half as large as the address space.
        LIVE.fetch_add(more.wrapping_sub(less).cast_signed() as i64, Relaxed);
    }
}

// SAFETY: everything is passed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(1, layout.size(), 0);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(1, size, layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(0, 0, layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(old, layout) }
    }
}
