//! Publishers that wait for room: each gets it, whatever becomes of the others.

use std::{
    future::{Future as _, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use amqp_core::{Limits, protocol::basic};
use shuttle::{future::block_on, thread};

use super::{
    explore::explore,
    world::{World, untimed},
};
use crate::{Channel, Config};

/// The bytes of a message that takes all the room in the output.
const LARGE: usize = 5000;

/// Room for one large message at a time.
fn crowded() -> Config {
    untimed().limits(Limits::default().output_high(4096).output_low(0))
}

fn publish(channel: &Channel, len: usize) {
    let (to, none) = (basic::Publish::default(), basic::Properties::default());
    block_on(channel.publish(&to, &none, vec![0; len])).expect("there will be room");
}

#[test]
fn each_publisher_gets_room() {
    explore("two publishers in an output that is full", 1, || {
        let mut world = World::open(crowded());
        let connection = world.connection.clone();
        let one = world.run(connection.open_channel()).expect("it opens");
        let other = world.run(connection.open_channel()).expect("it opens");
        drop(connection);
        publish(&one, LARGE);
        let server = world.server.clone();
        let driven = world.drive();
        let publishing = thread::spawn(move || publish(&other, LARGE));
        publish(&one, LARGE);
        publishing.join().expect("it publishes");
        drop(one);
        driven.close();
        assert_eq!(server.lock().published.len(), 3);
    });
}

/// It keeps its place, with or without a grant, and is not polled again.
#[test]
fn a_publisher_that_is_not_polled_holds_up_no_other() {
    explore("a publisher beside one that is not polled", 1, || {
        let mut world = World::open(crowded());
        let channel = world.open_channel();
        let channel = Arc::new(channel);
        let driven = world.drive();
        let (to, none) = (basic::Publish::default(), basic::Properties::default());
        let mut idle = pin!(channel.publish(&to, &none, vec![0; LARGE]));
        publish(&channel, LARGE);
        let other = Arc::clone(&channel);
        let publishing = thread::spawn(move || publish(&other, LARGE));
        block_on(poll_fn(|cx| {
            let _waits = idle.as_mut().poll(cx);
            Poll::Ready(())
        }));
        publishing.join().expect("it publishes");
        driven.close();
    });
}

#[test]
fn a_publisher_that_is_dropped_passes_its_room_on() {
    explore("a publisher beside one that is dropped", 1, || {
        let mut world = World::open(crowded());
        let channel = world.open_channel();
        let channel = Arc::new(channel);
        let driven = world.drive();
        publish(&channel, LARGE);
        let other = Arc::clone(&channel);
        let dropping = thread::spawn(move || {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            let mut publish = pin!(other.publish(&to, &none, vec![0; LARGE]));
            // It waits, or is published.
            block_on(poll_fn(|cx| {
                Poll::Ready(publish.as_mut().poll(cx).is_ready())
            }));
        });
        publish(&channel, LARGE);
        dropping.join().expect("it drops");
        driven.close();
    });
}

#[test]
fn a_confirm_opens_the_window_for_the_next() {
    explore("two publishers in a window of one", 1, || {
        let config = untimed().limits(Limits::default().unconfirmed(1));
        let mut world = World::open(config);
        let channel = world.open_channel();
        let channel = Arc::new(world.run(channel.confirm_select()).expect("it confirms"));
        let server = world.server.clone();
        let driven = world.drive();
        let other = Arc::clone(&channel);
        let publish = |channel: &crate::ConfirmChannel| {
            let (to, none) = (basic::Publish::default(), basic::Properties::default());
            block_on(async {
                let confirm = channel
                    .publish(&to, &none, "a")
                    .await
                    .expect("the window opens");
                confirm.await.expect("the server confirms");
            });
        };
        let publishing = thread::spawn(move || publish(&other));
        publish(&channel);
        publishing.join().expect("it publishes");
        assert_eq!(server.lock().published.len(), 2);
        drop(channel);
        driven.close();
    });
}
