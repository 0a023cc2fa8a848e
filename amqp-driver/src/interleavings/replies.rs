//! A reply finds the future that waits in its slot. Without one, its effect is undone.

use std::{future::poll_fn, pin::pin, task::Poll};

use amqp_core::protocol::{basic, queue};
use shuttle::{future::block_on, thread};

use super::{
    explore::explore,
    world::{World, untimed},
};
use crate::{Channel, Requeue};

/// Declares a queue with that name, and checks that the reply is the one to it.
fn declare(channel: &Channel, name: &str) {
    let declare = queue::Declare::default().queue(name);
    let declared = block_on(channel.call(declare)).expect("the server replies");
    assert_eq!(declared.queue, name);
}

/// Polls a future once, and drops it.
fn poll_and_drop<F: Future>(future: F) -> Poll<F::Output> {
    let mut future = pin!(future);
    block_on(poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))))
}

#[test]
fn each_of_two_threads_gets_its_own_reply() {
    explore("two calls on one channel", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        let channel = std::sync::Arc::new(channel);
        let driven = world.drive();
        let other = std::sync::Arc::clone(&channel);
        let calling = thread::spawn(move || declare(&other, "one"));
        declare(&channel, "two");
        calling.join().expect("it calls");
        drop(channel);
        driven.close();
    });
}

#[test]
fn a_dropped_call_leaves_the_replies_of_others() {
    explore("a call beside one that is dropped", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        let channel = std::sync::Arc::new(channel);
        let driven = world.drive();
        let other = std::sync::Arc::clone(&channel);
        let dropping = thread::spawn(move || {
            let _either = poll_and_drop(other.call(queue::Declare::default()));
        });
        declare(&channel, "kept");
        dropping.join().expect("it drops");
        drop(channel);
        driven.close();
    });
}

/// The message goes to the future, or back to its queue, whichever comes first: the reply or the
/// drop.
#[test]
fn a_message_for_a_dropped_get_is_requeued() {
    explore("a get that is dropped", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        let server = world.server.clone();
        server.lock().gettable = 1;
        let driven = world.drive();
        if let Poll::Ready(fetched) = poll_and_drop(channel.get(basic::Get::default())) {
            let fetched = fetched.expect("the server replies").expect("there is one");
            fetched.reject(Requeue::Yes).expect("it is unsettled");
        }
        // The server has seen all before.
        declare(&channel, "behind");
        block_on(driven.connection.flush()).expect("the transport takes it");
        let settled = server.lock().settled.clone();
        assert_eq!(settled, [(1, false)], "requeued once");
        drop(channel);
        driven.close();
    });
}

#[test]
fn a_reply_that_races_the_end_of_the_connection_ends_the_call() {
    explore("a call while another thread closes", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        let driven = world.drive();
        let calling = thread::spawn(move || {
            // The reply, or the end of the connection.
            let _either = block_on(channel.call(queue::Declare::default()));
        });
        block_on(driven.connection.close()).expect("it closes in good order");
        calling.join().expect("the call ends");
        driven.join();
    });
}

#[test]
fn a_delivery_is_settled_once() {
    explore("an ack beside the drop of its consumer", 1, || {
        let mut world = World::open(untimed());
        let channel = world.open_channel();
        let server = world.server.clone();
        server.lock().deliveries = 2;
        let driven = world.drive();
        let consumed = block_on(channel.consume(basic::Consume::default()));
        let mut consumer = consumed.expect("it consumes");
        let next = block_on(consumer.next()).expect("two are delivered");
        let delivery = next.expect("two are delivered");
        let acking = thread::spawn(move || delivery.nack(Requeue::Yes));
        drop(consumer);
        acking.join().expect("it settles").expect("it is unsettled");
        block_on(channel.close()).expect("it closes in good order");
        let mut settled = server.lock().settled.clone();
        settled.sort_unstable();
        settled.dedup();
        assert!(settled.contains(&(1, false)), "{settled:?}");
        drop(channel);
        driven.close();
    });
}
