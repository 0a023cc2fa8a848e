//! The parts that wait and wake by themselves.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

use amqp_core::{Instant, Transmit, client};
use bytes::BytesMut;
use shuttle::{
    future::block_on,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    thread,
};

use super::{
    explore::explore,
    world::{World, untimed},
};
use crate::{
    background::Background,
    io::{Transport as _, pipe, poll_locked, wake_all},
    sync::Mutex,
};

/// A value that one thread sets, and another waits for.
#[derive(Default)]
struct Cell {
    value: Option<u32>,
    waiting: Option<Waker>,
}

fn set(cell: &Mutex<Cell>, value: u32) {
    let mut state = cell.lock().unwrap_or_else(PoisonError::into_inner);
    state.value = Some(value);
    let waiting = state.waiting.take();
    drop(state);
    wake_all(waiting);
}

async fn take(cell: &Mutex<Cell>) -> u32 {
    let take = |cell: &mut Cell| cell.value.take();
    poll_fn(|cx| poll_locked(cell, cx.waker(), take, |cell| &mut cell.waiting)).await
}

#[test]
fn poll_locked_sees_a_change_between_its_two_looks() {
    explore("poll_locked", 3, || {
        let (there, back) = (Arc::new(Mutex::default()), Arc::new(Mutex::default()));
        let (echo_there, echo_back) = (Arc::clone(&there), Arc::clone(&back));
        let echoing = thread::spawn(move || {
            for _ in 0..2 {
                let value = block_on(take(&echo_there));
                set(&echo_back, value + 1);
            }
        });
        for value in [1, 5] {
            set(&there, value);
            assert_eq!(block_on(take(&back)), value + 1);
        }
        echoing.join().expect("it echoes");
    });
}

/// The future moves to another task, and its waker replaces the first.
#[test]
fn poll_locked_wakes_the_task_that_polled_last() {
    explore("poll_locked by two tasks in turn", 4, || {
        let cell = Arc::new(Mutex::default());
        let setting = Arc::clone(&cell);
        let setting = thread::spawn(move || set(&setting, 7));
        let mut taking = pin!(take(&cell));
        let mut cx = Context::from_waker(Waker::noop());
        let value = match taking.as_mut().poll(&mut cx) {
            Poll::Ready(value) => value,
            Poll::Pending => block_on(taking),
        };
        assert_eq!(value, 7);
        setting.join().expect("it sets");
    });
}

/// Wakes the next, and panics.
struct Rude(Waker);

impl Wake for Rude {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
        std::panic::resume_unwind(Box::new("rude"));
    }
}

/// Takes the lock of the session when it is woken, as an executor may that polls at once.
struct Looks(crate::Connection, AtomicUsize);

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        let _state = self.0.state();
        self.1.fetch_add(1, SeqCst);
    }
}

#[test]
fn every_waiter_of_an_end_is_woken() {
    explore("the end of a connection, which many await", 1, || {
        let world = World::open(untimed());
        let connection = world.connection.clone();
        let driven = world.drive();
        let looks = Arc::new(Looks(connection.clone(), AtomicUsize::new(0)));
        let waker = Waker::from(Arc::clone(&looks));
        let mut looking = pin!(connection.closed());
        let looked = looking.as_mut().poll(&mut Context::from_waker(&waker));
        let waker = Waker::from(Arc::new(Rude(Waker::noop().clone())));
        let mut rude = pin!(connection.closed());
        assert!(
            rude.as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        let other = connection.clone();
        let waiting = thread::spawn(move || block_on(other.closed()));
        block_on(connection.close()).expect("it closes in good order");
        let reason = waiting.join().expect("it is woken");
        assert!(reason.is_clean());
        assert_eq!(looks.1.load(SeqCst), 1);
        assert!(looked.is_pending());
        // The waker holds a handle.
        driven.close();
    });
}

#[test]
fn both_ends_of_a_pipe_go_on() {
    explore("a pipe that is full, and empty", 3, || {
        let (mut one, mut other) = pipe();
        let sending = thread::spawn(move || {
            let mut out = header();
            block_on(poll_fn(|cx| one.poll_write(cx, &mut out))).expect("it is read");
            block_on(poll_fn(|cx| one.poll_close(cx))).expect("it closes");
            one
        });
        let mut received = 0;
        loop {
            let mut buf = BytesMut::with_capacity(3);
            let read = block_on(poll_fn(|cx| other.poll_read(cx, &mut buf)));
            match read.expect("it is written") {
                0 => break,
                count => received += count,
            }
        }
        assert_eq!(received, header().len());
        sending.join().expect("it sends");
    });
}

/// The protocol header.
fn header() -> Transmit {
    let machine = client::Connection::new(client::Config::default(), Instant::ORIGIN);
    let mut out = Transmit::new();
    machine
        .expect("the default is good")
        .poll_transmit(Instant::ORIGIN, &mut out);
    out
}

#[test]
fn background_work_runs_after_each_wake_up() {
    explore("background work that two threads wake", 3, || {
        let wakers = Arc::new(std::sync::Mutex::new(None::<Waker>));
        let events = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let seen = Arc::new(AtomicUsize::new(0));
        let (keeping, looking, counting) =
            (Arc::clone(&wakers), Arc::clone(&events), Arc::clone(&seen));
        let work = Background::start(poll_fn(move |cx| {
            *keeping.lock().expect("no panic") = Some(cx.waker().clone());
            let happened = looking.iter().filter(|it| it.load(SeqCst)).count();
            counting.store(happened, SeqCst);
            Poll::Pending
        }));
        let waking: Vec<_> = (0..2)
            .map(|at| {
                let (wakers, events) = (Arc::clone(&wakers), Arc::clone(&events));
                thread::spawn(move || {
                    events[at].store(true, SeqCst);
                    let waker = wakers.lock().expect("no panic").clone();
                    wake_all(waker);
                })
            })
            .collect();
        for waking in waking {
            waking.join().expect("it wakes");
        }
        assert_eq!(seen.load(SeqCst), 2, "the work has seen both");
        drop(work);
    });
}

#[test]
fn a_channel_that_is_returned_goes_to_the_next() {
    explore("a pool of one channel", 1, || {
        let mut world = World::open(untimed());
        let connection = world.connection.clone();
        let pool = world.run(connection.channel_pool(1)).expect("it opens");
        drop(connection);
        let server = world.server.clone();
        let driven = world.drive();
        let other = pool.clone();
        let using = thread::spawn(move || {
            let channel = block_on(other.checkout()).expect("it is returned");
            assert_eq!(channel.number(), 1);
        });
        let channel = block_on(pool.checkout()).expect("it is returned");
        assert_eq!(channel.number(), 1, "the only one");
        drop(channel);
        using.join().expect("it returns the channel");
        assert_eq!(pool.idle(), 1);
        assert_eq!(server.lock().opened, 1);
        drop(pool);
        driven.close();
    });
}
