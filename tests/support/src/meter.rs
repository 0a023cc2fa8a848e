//! An allocator that counts the memory of each thread.

#![allow(unsafe_code, reason = "there is no safe way to be an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// Counts the memory of each thread. A test target that measures declares it:
///
/// ```
/// # use amqp_test_support::meter::Counting;
/// #[global_allocator]
/// static COUNTING: Counting = Counting;
/// ```
#[derive(Debug)]
pub struct Counting;

thread_local! {
    /// Bytes held, and the most that were held since the peak was reset.
    static HELD: Cell<(isize, isize)> = const { Cell::new((0, 0)) };
    /// The number of blocks that were allocated.
    static BLOCKS: Cell<u64> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // Threads that come to their end count no more.
    let _ = HELD.try_with(|held| {
        let (now, peak) = held.get();
        let now = now + bytes;
        held.set((now, peak.max(now)));
    });
}

// SAFETY: everything is left to the system's allocator, and counting does not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        let _ = BLOCKS.try_with(|blocks| blocks.set(blocks.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// The bytes that this thread has allocated and not given back. Bytes that another thread gives back
/// do not count.
pub fn held() -> usize {
    HELD.with(Cell::get).0.max(0).cast_unsigned()
}

/// The number of blocks that this thread has allocated. A block that grows counts again.
pub fn blocks() -> u64 {
    BLOCKS.with(Cell::get)
}

/// The result of a function, and the most bytes by which the memory held by this thread grew while
/// it ran. A block that grows counts with its old and its new size while it is moved.
pub fn peak_of<T>(run: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.with(|held| {
        let (now, _) = held.get();
        held.set((now, now));
        now
    });
    let returned = run();
    let (_, peak) = HELD.with(Cell::get);
    (returned, (peak - before).cast_unsigned())
}
