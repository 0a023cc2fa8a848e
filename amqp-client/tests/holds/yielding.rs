//! A loop that only awaits yields to other tasks, though there is always something ready.

use std::{future::Future, pin::pin, task::Poll};

use amqp_client::protocol::basic;

use crate::{
    none,
    support::{Probe, Rig},
    to_queue,
};

/// The most polls of a loop, one after the other, that were all ready.
fn longest_run(polls: impl IntoIterator<Item = bool>) -> usize {
    let (mut longest, mut run) = (0, 0);
    for ready in polls {
        run = if ready { run + 1 } else { 0 };
        longest = longest.max(run);
    }
    longest
}

/// Polls a future to its end, and notes each poll. Pending without a wake-up fails.
fn polls<T>(notes: &mut Vec<bool>, future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let probe = Probe::new();
    loop {
        match probe.poll(future.as_mut()) {
            Poll::Ready(output) => {
                notes.push(true);
                return output;
            }
            Poll::Pending => {
                notes.push(false);
                assert!(probe.take(), "it waits in place of yielding");
            }
        }
    }
}

#[test]
fn a_consumer_yields() {
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    for _ in 0..500 {
        assert!(rig.peer().deliver(1, &tag, "x"));
    }
    rig.run();
    let mut notes = Vec::new();
    for _ in 0..500 {
        let delivery = polls(&mut notes, consumer.next()).unwrap().unwrap();
        delivery.ack().unwrap();
    }
    assert!(longest_run(notes) <= 32);
    drop((consumer, channel));
    rig.finish(connection);
}

#[test]
fn confirms_yield() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    let confirms: Vec<_> = (0..500)
        .map(|_| {
            rig.wait(channel.publish(&to_queue(), &none(), "x"))
                .unwrap()
        })
        .collect();
    rig.run();
    rig.peer().ack(1, 500, true);
    rig.run();
    let mut notes = Vec::new();
    for confirm in confirms {
        assert_eq!(polls(&mut notes, confirm), Ok(()));
    }
    assert!(longest_run(notes) <= 64);
    drop(channel);
    rig.finish(connection);
}

#[test]
fn returns_yield() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().unroutable = true;
    let mut returns = channel.returns();
    let mandatory = to_queue().mandatory(true);
    for _ in 0..200 {
        rig.wait(channel.publish(&mandatory, &none(), "x")).unwrap();
    }
    rig.run();
    let mut notes = Vec::new();
    for _ in 0..200 {
        assert!(polls(&mut notes, returns.next()).is_some());
    }
    assert!(longest_run(notes) <= 32);
    drop((returns, channel));
    rig.finish(connection);
}

#[test]
fn publishing_yields() {
    let (rig, connection, channel) = Rig::with_channel();
    let mut notes = Vec::new();
    for _ in 0..500 {
        polls(&mut notes, channel.publish(&to_queue(), &none(), "x")).unwrap();
    }
    assert!(longest_run(notes) <= 64);
    drop(channel);
    rig.finish(connection);
}
