//! The parts of a Cortex-M program that a library needs: a heap, and the end of a panic.

use cortex_m as _; // critical sections, for the heap
use embedded_alloc::LlffHeap;
use panic_halt as _;

/// The heap, in bytes: a client, a broker, and a hundred messages.
const HEAP_SIZE: usize = 256 << 10;

#[global_allocator]
static HEAP: LlffHeap = LlffHeap::empty();

/// Sets the heap up. Later calls have no effect.
#[expect(unsafe_code, reason = "the heap is told its memory")]
pub(crate) fn begin() {
    use core::{
        mem::MaybeUninit,
        sync::atomic::{AtomicBool, Ordering},
    };

    static BEGUN: AtomicBool = AtomicBool::new(false);
    static mut MEMORY: [MaybeUninit<u8>; HEAP_SIZE] = [MaybeUninit::uninit(); HEAP_SIZE];

    if !BEGUN.swap(true, Ordering::AcqRel) {
        // SAFETY: this runs once, and nothing else refers to the memory.
        unsafe { HEAP.init(&raw mut MEMORY as usize, HEAP_SIZE) }
    }
}
