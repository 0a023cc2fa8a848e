//! No code of the application runs under the lock of a pipe: wakers may use it.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::SeqCst},
    task::{Context, Waker},
};

use amqp_driver::{
    core::{Instant, Transmit, client},
    io::{Pipe, Transport, pipe},
};
use amqp_test_support::foreign::{Calls, ends, foreign_waker};
use bytes::BytesMut;

/// Takes both locks of a pipe, unless the end is in use.
fn use_end(end: &Mutex<Pipe>) {
    if let Ok(mut end) = end.try_lock() {
        let mut cx = Context::from_waker(Waker::noop());
        let _nothing_fits = end.poll_read(&mut cx, &mut BytesMut::new());
        let _nothing_to_write = end.poll_write(&mut cx, &mut Transmit::new());
    }
}

/// A pipe, and a function that returns wakers which use its other end.
fn foreign() -> (Pipe, Arc<Calls>, impl Fn() -> Waker) {
    let (one, other) = pipe();
    let other = Arc::new(Mutex::new(other));
    let calls = Arc::<Calls>::default();
    let counted = Arc::clone(&calls);
    let waker = move || {
        let other = Arc::clone(&other);
        foreign_waker(&counted, move || use_end(&other))
    };
    (one, calls, waker)
}

/// The protocol header.
fn output() -> Transmit {
    let now = Instant::ORIGIN;
    let mut machine = client::Connection::new(client::Config::default(), now).unwrap();
    let mut out = Transmit::new();
    machine.poll_transmit(now, &mut out);
    out
}

#[test]
fn wakers_of_readers_are_cloned_and_dropped_without_the_lock() {
    ends(|| {
        let (mut one, calls, waker) = foreign();
        for _ in 0..2 {
            let waker = waker();
            let mut cx = Context::from_waker(&waker);
            let mut buf = BytesMut::with_capacity(8);
            assert!(one.poll_read(&mut cx, &mut buf).is_pending());
            assert!(one.poll_read(&mut cx, &mut buf).is_pending());
        }
        assert_eq!(calls.clones.load(SeqCst), 2);
        drop(one);
        assert_eq!(calls.wakes.load(SeqCst), 1);
        // Both of the test, and the one that the second has replaced.
        assert_eq!(calls.drops.load(SeqCst), 3);
    });
}

#[test]
fn wakers_of_writers_are_cloned_and_dropped_without_the_lock() {
    ends(|| {
        let (mut one, calls, waker) = foreign();
        let mut full = false;
        while !full {
            let mut cx = Context::from_waker(Waker::noop());
            full = one.poll_write(&mut cx, &mut output()).is_pending();
        }
        for _ in 0..2 {
            let waker = waker();
            let mut cx = Context::from_waker(&waker);
            assert!(one.poll_write(&mut cx, &mut output()).is_pending());
        }
        assert_eq!(calls.clones.load(SeqCst), 2);
        // Each was woken by a read from the other end, when the test dropped its own.
        assert_eq!(calls.wakes.load(SeqCst), 2);
        assert_eq!(calls.drops.load(SeqCst), 2);
    });
}
