//! The driver parks under the lock of the session, once there is nothing left to do.

use std::time::Duration;

use amqp_core::{
    Limits,
    protocol::{basic, queue},
};
use shuttle::{future::block_on, thread};

use super::{
    explore::explore,
    world::{World, untimed},
};

#[test]
fn a_call_wakes_the_driver() {
    explore("a call", 2, || {
        let mut world = World::open(untimed());
        let channel = world
            .run(world.connection.clone().open_channel())
            .expect("it opens");
        let driven = world.drive();
        let declared = block_on(channel.call(queue::Declare::default()));
        declared.expect("the server replies");
        drop(channel);
        driven.close();
    });
}

#[test]
fn a_reply_from_elsewhere_wakes_the_driver() {
    explore("a call to a server with a thread", 1, || {
        let mut world = World::open(untimed());
        let channel = world
            .run(world.connection.clone().open_channel())
            .expect("it opens");
        let driven = world.drive_and_serve();
        let declared = block_on(channel.call(queue::Declare::default()));
        declared.expect("the server replies");
        drop(channel);
        driven.close();
    });
}

#[test]
fn commands_of_two_threads_wake_the_driver() {
    explore("publishes and a flush by two threads", 1, || {
        let mut world = World::open(untimed());
        let channel = world
            .run(world.connection.clone().open_channel())
            .expect("it opens");
        let server = world.server.clone();
        let driven = world.drive();
        let connection = driven.connection.clone();
        let publishing = thread::spawn(move || {
            let to = basic::Publish::default();
            let published = channel.try_publish(&to, &basic::Properties::default(), "one");
            published.expect("there is room");
            block_on(connection.flush()).expect("the transport takes it");
        });
        block_on(driven.connection.flush()).expect("the transport takes it");
        publishing.join().expect("it publishes");
        assert_eq!(server.lock().published, [b"one"]);
        driven.close();
    });
}

#[test]
fn the_drop_of_the_last_handle_wakes_the_driver() {
    explore("the drop of the last handle", 3, || {
        let world = World::open(untimed());
        let server = world.server.clone();
        let driven = world.drive();
        driven.join();
        assert!(
            server.lock().machine.is_finished(),
            "it closes in good order"
        );
    });
}

#[test]
fn an_abort_ends_the_driver() {
    explore("an abort while another thread closes", 1, || {
        let world = World::open(untimed());
        let driven = world.drive();
        let connection = driven.connection.clone();
        let closing = thread::spawn(move || block_on(connection.close()));
        driven.connection.abort();
        // Either of the two.
        let _closed = closing.join().expect("the close ends");
        driven.join();
    });
}

/// Messages without acknowledgements pause reading at the bound, and each that is taken may be the
/// one that makes room while the driver parks.
#[test]
fn a_message_that_is_taken_resumes_reading() {
    const MESSAGES: u64 = 4;
    explore("messages that are taken", 1, || {
        let limits = Limits::default().undelivered(500);
        let mut world = World::open(untimed().limits(limits));
        let channel = world
            .run(world.connection.clone().open_channel())
            .expect("it opens");
        world.server.lock().deliveries = MESSAGES;
        let driven = world.drive();
        let mut consumer =
            block_on(channel.consume_no_ack(basic::Consume::default())).expect("it consumes");
        for _ in 0..MESSAGES {
            let message = block_on(consumer.next()).expect("it goes on");
            message.expect("it goes on");
        }
        drop((consumer, channel));
        driven.close();
    });
}

#[test]
fn a_deadline_that_is_set_wakes_the_driver() {
    const LIMIT: Duration = Duration::from_secs(1);
    explore("a deadline", 1, || {
        let mut world = World::open(untimed());
        let channel = world
            .run(world.connection.clone().open_channel())
            .expect("it opens");
        let (clock, server) = (world.clock.clone(), world.server.clone());
        server.lock().mute = true;
        let driven = world.drive();
        let passing = thread::spawn(move || block_on(clock.pass(LIMIT)));
        let call = channel.call(queue::Declare::default());
        let replied = block_on(driven.connection.within(LIMIT, call));
        assert_eq!(replied, None);
        passing.join().expect("the driver has set its alarm");
        driven.connection.abort();
        drop(channel);
        driven.join();
    });
}
