//! A thread that waits for an answer reads it itself.

use std::{
    cell::RefCell,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use amqp_core::protocol::{basic, queue};
use shuttle::{
    future::block_on,
    thread::{self, Thread},
};

use super::{
    explore::explore,
    world::{World, Writes, untimed},
};
use crate::{Channel, Error, io::LentDriver};

shuttle::thread_local! {
    /// The driver that is lent to this thread.
    static LENT: RefCell<Option<LentDriver>> = const { RefCell::new(None) };
}

/// Takes a driver, unless the thread has one.
pub(super) fn take(driver: LentDriver) {
    let declined = LENT.with(|lent| {
        let mut lent = lent.borrow_mut();
        if lent.is_some() {
            return Some(driver);
        }
        *lent = Some(driver);
        None
    });
    drop(declined);
}

/// Wakes a thread.
struct Parker {
    woken: AtomicBool,
    thread: Thread,
}

impl Parker {
    fn is_woken(&self) -> bool {
        self.woken.load(Ordering::SeqCst)
    }

    fn park(&self) {
        while !self.woken.swap(false, Ordering::SeqCst) {
            thread::park();
        }
    }
}

impl Wake for Parker {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

/// Runs a future on this thread, with the driver that its commands are lent.
fn run<F: Future>(future: F) -> F::Output {
    let parker = Arc::new(Parker {
        woken: AtomicBool::new(false),
        thread: thread::current(),
    });
    let waker = Waker::from(Arc::clone(&parker));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    loop {
        let polled = future.as_mut().poll(&mut context);
        let lent = LENT.with(|lent| lent.borrow_mut().take());
        if let Poll::Ready(output) = polled {
            drop(lent);
            return output;
        }
        if let Some(mut driver) = lent
            && driver.poll(&mut context)
            && !parker.is_woken()
        {
            parker.park();
            driver.poll(&mut context);
            continue;
        }
        parker.park();
    }
}

fn lending() -> World {
    World::open_over(Writes::Lent, untimed())
}

async fn declare(channel: &Channel) -> Result<(), Error> {
    channel.call(queue::Declare::default()).await.map(drop)
}

#[test]
fn an_answer_is_read_by_the_thread_that_waits() {
    explore("a call with the driver lent", 1, || {
        let mut world = lending();
        let channel = world.open_channel();
        let driven = world.drive_and_serve();
        run(declare(&channel)).expect("the server replies");
        run(declare(&channel)).expect("the server replies again");
        drop(channel);
        driven.close();
    });
}

#[test]
fn a_call_of_a_thread_that_is_lent_nothing_is_answered_too() {
    explore("a call beside one with the driver lent", 1, || {
        let mut world = lending();
        let channel = world.open_channel();
        let driven = world.drive();
        let shared = channel.clone();
        let other = thread::spawn(move || block_on(declare(&shared)).expect("the server replies"));
        run(declare(&channel)).expect("the server replies");
        other.join().expect("it ends");
        drop(channel);
        driven.close();
    });
}

#[test]
fn a_confirm_is_read_by_the_thread_that_waits() {
    explore("a confirmed publish with the driver lent", 1, || {
        let mut world = lending();
        let channel = world.open_channel();
        let channel = world
            .run(channel.confirm_select())
            .expect("it is confirmed");
        let driven = world.drive_and_serve();
        let publish = basic::Publish::default();
        let none = basic::Properties::default();
        let published = channel.publish(&publish, &none, "one");
        let confirm = run(published).expect("there is room");
        run(confirm).expect("the server confirms");
        drop(channel);
        driven.close();
    });
}

#[test]
fn a_call_that_is_given_up_gives_the_driver_back() {
    explore("a call that is dropped with the driver lent", 1, || {
        let mut world = lending();
        let channel = world.open_channel();
        let driven = world.drive_and_serve();
        {
            let mut declaring = pin!(declare(&channel));
            let mut cx = Context::from_waker(Waker::noop());
            let _either = declaring.as_mut().poll(&mut cx);
            let lent = LENT.with(|lent| lent.borrow_mut().take());
            if let Some(mut driver) = lent {
                driver.poll(&mut cx);
            }
        }
        // The late answer, and the next one, wake the task of the driver.
        block_on(declare(&channel)).expect("the server replies");
        drop(channel);
        driven.close();
    });
}

#[test]
fn input_after_a_call_wakes_the_task() {
    explore("deliveries after a call with the driver lent", 1, || {
        let mut world = lending();
        let channel = world.open_channel();
        let consume = basic::Consume::default().no_ack(true);
        let consuming = channel.consume(consume);
        let mut consumer = world.run(consuming).expect("the server replies");
        let server = world.server.clone();
        let driven = world.drive();
        let delivering = thread::spawn(move || server.deliver(1));
        run(declare(&channel)).expect("the server replies");
        let delivery = block_on(consumer.next()).expect("it goes on");
        drop(delivery.expect("it is delivered"));
        delivering.join().expect("it ends");
        drop((channel, consumer));
        driven.close();
    });
}

#[test]
fn a_command_of_another_thread_is_sent_while_the_driver_is_lent() {
    explore("a publish beside a call with the driver lent", 1, || {
        let mut world = lending();
        let channel = world.open_channel();
        let driven = world.drive();
        let publisher = channel.clone();
        let publishing = thread::spawn(move || {
            let publish = basic::Publish::default();
            let none = basic::Properties::default();
            let published = publisher.publish(&publish, &none, "one");
            block_on(published).expect("there is room");
        });
        run(declare(&channel)).expect("the server replies");
        publishing.join().expect("it ends");
        drop(channel);
        driven.close();
    });
}

#[test]
fn a_driver_that_is_dropped_while_it_is_lent_ends_the_call() {
    explore("the drop of a driver that is lent", 1, || {
        let mut world = lending();
        let channel = world.open_channel();
        world.server.lock().mute = true;
        let dropping = thread::spawn(move || drop(world));
        run(declare(&channel)).expect_err("nothing drives it");
        dropping.join().expect("it drops");
    });
}

#[test]
fn a_loan_that_has_ended_takes_no_later_one() {
    explore("two loans", 0, || {
        let mut world = lending();
        let channel = world.open_channel();
        let mut cx = Context::from_waker(Waker::noop());
        let mut borrow = |declaring: Pin<&mut dyn Future<Output = Result<(), Error>>>| {
            assert!(declaring.poll(&mut cx).is_pending());
            LENT.with(|lent| lent.borrow_mut().take())
                .expect("it is lent")
        };
        {
            let mut declaring = pin!(declare(&channel));
            let mut first = borrow(declaring.as_mut());
            // The driver's task ends the loan.
            world.run(declaring).expect("the server replies");
            drop(LENT.with(|lent| lent.borrow_mut().take()));
            let mut declaring = pin!(declare(&channel));
            let mut second = borrow(declaring.as_mut());
            let mut cx = Context::from_waker(Waker::noop());
            assert!(!first.poll(&mut cx));
            drop(first);
            let unread = declaring.as_mut().poll(&mut cx).is_pending();
            assert!(unread, "the second loan is for that");
            second.poll(&mut cx);
            assert!(declaring.poll(&mut cx).is_ready());
        }
        drop(channel);
        world.drive().close();
    });
}
