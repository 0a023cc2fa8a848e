//! No memory that is given back has a password in it.

#![allow(unsafe_code, reason = "there is no safe way to be an allocator")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    slice,
};

use amqp_core::sasl::{AmqPlain, Mechanism, Plain, parse_amqplain, parse_plain};

const PASSWORD: &str = "correct-horse-battery-staple";

#[global_allocator]
static LOOKING: Looking = Looking;

struct Looking;

thread_local! {
    /// How many blocks were given back with the password in them.
    static FOUND: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: everything is left to the system's allocator, and looking does not allocate. A block that
// grows is a new one and an old one that is given back.
unsafe impl GlobalAlloc for Looking {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are passed on. All of it can be looked at when it comes back.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the block is the caller's to give back, and that long.
        let block = unsafe { slice::from_raw_parts(pointer, layout.size()) };
        let mut places = block.windows(PASSWORD.len());
        if places.any(|place| place == PASSWORD.as_bytes()) {
            // Threads that come to their end look no more.
            let _ = FOUND.try_with(|found| found.set(found.get() + 1));
        }
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// How many blocks that something gives back have the password in them.
fn left_by(run: impl FnOnce()) -> usize {
    let before = FOUND.get();
    run();
    FOUND.get() - before
}

#[test]
fn a_text_that_is_no_secret_is_left() {
    assert_eq!(left_by(|| drop(String::from(PASSWORD))), 1);
    let grown = left_by(|| drop(String::from(PASSWORD) + "!"));
    assert_eq!(grown, 2);
}

/// Users with short names and long ones, so that the buffers grow at one place or another.
fn users() -> impl Iterator<Item = String> {
    (0..100).map(|len| "u".repeat(len))
}

#[test]
fn a_client_leaves_no_password() {
    for user in users() {
        let plain = left_by(|| {
            let mut plain = Plain::new(&user, PASSWORD).unwrap();
            assert!(plain.boxed().initial_response().len() > PASSWORD.len());
            assert!(plain.initial_response().len() > PASSWORD.len());
        });
        let amqplain = left_by(|| {
            let mut amqplain = AmqPlain::new(&user, PASSWORD);
            assert!(amqplain.boxed().initial_response().len() > PASSWORD.len());
            assert!(amqplain.initial_response().len() > PASSWORD.len());
        });
        assert_eq!((plain, amqplain), (0, 0), "{}", user.len());
    }
}

#[test]
fn a_server_leaves_no_password() {
    for user in users() {
        let plain = Plain::new(&user, PASSWORD).unwrap().initial_response();
        let amqplain = AmqPlain::new(&user, PASSWORD).initial_response();
        let plain = left_by(|| {
            let credentials = parse_plain(plain.expose()).unwrap();
            assert_eq!(credentials.password.expose(), PASSWORD.as_bytes());
        });
        let amqplain = left_by(|| {
            let credentials = parse_amqplain(amqplain.expose()).unwrap();
            assert_eq!(credentials.password.expose(), PASSWORD.as_bytes());
        });
        assert_eq!((plain, amqplain), (0, 0), "{}", user.len());
    }
}
