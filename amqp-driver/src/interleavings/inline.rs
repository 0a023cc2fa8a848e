//! A command that is awaited, and no other, is written on its own thread.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    task::Poll,
};

use amqp_core::protocol::queue;
use shuttle::{future::block_on, thread};

use super::{
    explore::explore,
    world::{World, Writes, untimed},
};
use crate::{Channel, Error};

/// Polls the future once.
fn poll<F: Future>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    block_on(poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))))
}

async fn declare(channel: &Channel) -> Result<(), Error> {
    channel.call(queue::Declare::default()).await.map(drop)
}

#[test]
fn a_call_that_is_alone_is_written_by_its_own_thread() {
    explore("a call beside a driver that does not run", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        {
            let mut declaring = pin!(declare(&channel));
            let declared = poll(declaring.as_mut());
            assert!(declared.is_pending(), "the driver has not read the reply");
            assert_eq!(world.server.lock().declared, 1);
            world.run(declaring).expect("the server replies");
        }
        drop(channel);
        world.drive().close();
    });
}

#[test]
fn a_driver_that_is_dropped_during_a_call_ends_it() {
    explore("a call beside the drop of the driver", 2, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        let dropping = thread::spawn(move || drop(world));
        // The reply never comes: nothing reads it.
        block_on(declare(&channel)).expect_err("nothing drives it");
        dropping.join().expect("it drops");
    });
}

#[test]
fn calls_beside_each_other_leave_with_the_driver() {
    explore("three calls in one turn", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        {
            let mut calls = [(); 3].map(|()| Box::pin(declare(&channel)));
            for call in &mut calls {
                assert!(poll(call.as_mut()).is_pending());
            }
            assert_eq!(world.server.lock().declared, 1, "the first is alone");
            for call in calls {
                world.run(call).expect("the server replies");
            }
        }
        drop(channel);
        world.drive().close();
    });
}

#[test]
fn a_transport_that_is_not_inline_is_left_to_the_driver() {
    explore("a call on a transport of the task", 1, || {
        let mut world = World::open_over(Writes::ByTheTask, untimed());
        let channel = world.open_channel();
        {
            let mut declaring = pin!(declare(&channel));
            assert!(poll(declaring.as_mut()).is_pending());
            assert_eq!(world.server.lock().declared, 0);
            world.run(declaring).expect("the server replies");
        }
        drop(channel);
        world.drive().close();
    });
}

#[test]
fn a_transport_without_room_is_left_to_the_driver() {
    explore("a call on a full transport", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        let server = world.server.clone();
        server.lock().writes = Writes::Full;
        let driven = world.drive();
        let emptying = thread::spawn(move || server.make_room());
        block_on(declare(&channel)).expect("the server replies");
        emptying.join().expect("it makes room");
        drop(channel);
        driven.close();
    });
}

#[test]
fn a_write_that_panics_ends_the_connection_and_not_the_caller() {
    explore("a call on a transport that panics", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        world.server.lock().writes = Writes::Panic;
        let driven = world.drive();
        // It is written by the task in some orders.
        if block_on(declare(&channel)).is_err() {
            block_on(driven.connection.closed());
        }
        drop(channel);
        driven.join();
    });
}

#[test]
fn a_flush_beside_a_call_ends_with_its_write() {
    explore("a flush beside a call without an answer", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        let server = world.server.clone();
        let driven = world.drive();
        // The driver has run, and another answer would wake it.
        block_on(declare(&channel)).expect("the server replies");
        server.lock().mute = true;
        let connection = driven.connection.clone();
        let flushing = thread::spawn(move || {
            block_on(connection.flush()).expect("the transport takes it");
        });
        let mut declaring = Box::pin(declare(&channel));
        let _either = poll(declaring.as_mut());
        flushing.join().expect("it is flushed");
        server.lock().mute = false;
        drop(declaring);
        drop(channel);
        driven.connection.abort();
        driven.join();
    });
}
