//! The driver parks under the lock of the session, once there is nothing left to do.

use std::{future::pending, time::Duration};

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
        let channel = world.open_channel();
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
        let channel = world.open_channel();
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
        let channel = world.open_channel();
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
fn an_abort_wakes_the_driver() {
    explore("an abort", 3, || {
        let driven = World::open(untimed()).drive();
        driven.connection.abort();
        driven.join();
    });
}

/// Messages without acknowledgements pause reading at the bound, and each that is taken may be the
/// one that makes room while the driver parks.
#[test]
fn a_message_that_is_taken_resumes_reading() {
    const MESSAGES: u64 = 4;
    explore("messages that are taken", 1, || {
        let limits = Limits::default().undelivered(250);
        let mut world = World::open(untimed().limits(limits));
        let channel = world.open_channel();
        let consumed = channel.consume_no_ack(basic::Consume::default());
        let mut consumer = world.run(consumed).expect("it consumes");
        let server = world.server.clone();
        server.lock().read_max = 100;
        let driven = world.drive();
        server.deliver(MESSAGES);
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
        let world = World::open(untimed());
        let clock = world.clock.clone();
        let driven = world.drive();
        let passing = thread::spawn(move || block_on(clock.pass(LIMIT)));
        let connection = driven.connection.clone();
        // In a thread, so that the driver may be the first to run.
        let waiting = thread::spawn(move || {
            let waited = block_on(connection.within(LIMIT, pending::<()>()));
            assert_eq!(waited, None);
        });
        waiting.join().expect("the time passes");
        passing.join().expect("the driver has set its alarm");
        driven.close();
    });
}
