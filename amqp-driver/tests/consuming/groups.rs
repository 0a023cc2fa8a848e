//! Groups: turns, a prefetch that moves, and a common end.

use amqp_driver::{
    Channel, Connection, ConsumerGroup, Ended, Error, ForEachOptions, GroupDelivery, OnFailure,
    Stopper,
    core::protocol::ClientMethod,
    protocol::{ReplyCode, basic},
};
use amqp_test_support::{Rig, Saw, Task};

use super::tools::{Bodies, End, texts};

/// A group of two consumers, tagged `a` and `b`.
fn group(prefetch: u16) -> (Rig, Connection, Channel, ConsumerGroup) {
    let (mut rig, connection, channel) = Rig::with_channel();
    let consumes = ["a", "b"].map(|tag| basic::Consume::default().consumer_tag(tag));
    let group = rig
        .wait(ConsumerGroup::start(&channel, consumes, prefetch))
        .unwrap();
    (rig, connection, channel, group)
}

fn deliver(rig: &mut Rig, tag: &str, bodies: &[&'static str]) {
    for &body in bodies {
        assert!(rig.peer().deliver(1, tag, body));
    }
    rig.run();
}

fn next(rig: &mut Rig, group: &mut ConsumerGroup) -> GroupDelivery {
    rig.wait(group.next()).unwrap().unwrap()
}

fn text(delivery: &GroupDelivery) -> String {
    String::from_utf8(delivery.body.to_vec()).unwrap()
}

/// The prefetch counts that the server was asked for.
fn asked(rig: &Rig) -> Vec<u16> {
    let saw = |saw: &Saw| match saw {
        Saw::Request(_, ClientMethod::BasicQos(qos)) => Some(qos.prefetch_count),
        _ => None,
    };
    rig.peer().saw.iter().filter_map(saw).collect()
}

/// Delivers two messages on each queue to a group with a prefetch of two, and handles those that it
/// yields.
fn handle_two_of_four(
    rig: &mut Rig,
    group: ConsumerGroup,
) -> (Bodies, Stopper, Task<Ended<String>>) {
    deliver(rig, "a", &["a1", "a2"]);
    deliver(rig, "b", &["b1", "b2"]);
    let bodies = Bodies::default();
    let options = ForEachOptions::new(OnFailure::Reject);
    let body = bodies.clone();
    let work = group.for_each_concurrent(8, options, move |it| body.clone().handle(it));
    let stopper = work.stopper();
    let task = rig.spawn(work);
    rig.run();
    assert_eq!(bodies.called(), ["a1", "b1"]);
    (bodies, stopper, task)
}

#[test]
fn queues_take_turns() {
    let (mut rig, connection, channel, mut group) = group(0);
    deliver(&mut rig, "a", &["a1", "a2", "a3", "a4"]);
    deliver(&mut rig, "b", &["b1", "b2"]);
    let mut order = Vec::new();
    for _ in 0..6 {
        let delivery = next(&mut rig, &mut group);
        assert_eq!(
            delivery.index(),
            usize::from(text(&delivery).starts_with('b'))
        );
        order.push(text(&delivery));
        delivery.ack().unwrap();
    }
    assert_eq!(order, ["a1", "b1", "a2", "b2", "a3", "a4"]);
    drop((group, channel));
    rig.finish(connection);
}

#[test]
fn the_prefetch_bounds_what_is_handed_out_and_can_be_changed() {
    let (mut rig, connection, channel, mut group) = group(2);
    let prefetch = group.prefetch();
    deliver(&mut rig, "a", &["a1", "a2"]);
    deliver(&mut rig, "b", &["b1", "b2"]);
    let first = next(&mut rig, &mut group);
    let second = next(&mut rig, &mut group);
    assert!(rig.ready(group.next()).is_none());
    // Raised: at once, with what is there.
    prefetch.set(3);
    let third = next(&mut rig, &mut group);
    assert_eq!([&first, &second, &third].map(text), ["a1", "b1", "a2"]);
    assert!(rig.ready(group.next()).is_none());
    // Lowered: what was handed out stays.
    prefetch.set(1);
    first.ack().unwrap();
    second.nack(amqp_driver::Requeue::Yes).unwrap();
    assert!(rig.ready(group.next()).is_none());
    third.ack().unwrap();
    let fourth = next(&mut rig, &mut group);
    assert_eq!(text(&fourth), "b2");
    assert!(rig.ready(group.next()).is_none());
    drop(fourth);
    // The consumers are started again with the last prefetch.
    let task = rig.spawn(async move {
        let delivery = group.next().await.unwrap().unwrap();
        (delivery, group)
    });
    rig.run();
    assert_eq!(asked(&rig).last(), Some(&1));
    assert_eq!(rig.peer().consumers.len(), 2);
    // With another tag: RabbitMQ 3.10 fails if it is that of one with unacknowledged deliveries.
    let tags: Vec<_> = rig.peer().consumers.keys().map(|it| it.1.clone()).collect();
    assert!(
        tags[0].starts_with("a.") && tags[1].starts_with("b."),
        "{tags:?}"
    );
    deliver(&mut rig, &tags[1], &["b3"]);
    let (delivery, group) = task.take().unwrap();
    assert_eq!((text(&delivery).as_str(), delivery.index()), ("b3", 1));
    delivery.ack().unwrap();
    drop((group, channel));
    rig.finish(connection);
}

#[test]
fn a_change_wakes_a_group_that_waits_for_credit() {
    let (mut rig, connection, channel, mut group) = group(1);
    let prefetch = group.prefetch();
    deliver(&mut rig, "a", &["1"]);
    deliver(&mut rig, "b", &["2"]);
    let first = next(&mut rig, &mut group);
    let task = rig.spawn(async move {
        let delivery = group.next().await.unwrap().unwrap();
        (delivery, group)
    });
    rig.run();
    assert!(!task.is_done());
    prefetch.set(2);
    rig.run();
    let (second, mut group) = task.take().unwrap();
    let task = rig.spawn(async move {
        let end = group.next().await;
        (end.map(|it| it.map(drop)), group)
    });
    rig.run();
    // The end of the channel is noticed without credit.
    rig.peer().close_channel(1, ReplyCode::INTERNAL_ERROR, "");
    rig.run();
    let (end, mut group) = task.take().unwrap();
    assert!(matches!(end, Some(Err(Error::ChannelClosed(_)))), "{end:?}");
    assert!(rig.wait(group.next()).is_none());
    assert!(first.ack().is_err() && second.ack().is_err());
    drop((group, channel));
    rig.finish(connection);
}

#[test]
fn the_end_of_a_consumer_is_noticed_without_credit() {
    let (mut rig, connection, channel, mut group) = group(1);
    deliver(&mut rig, "a", &["1"]);
    let first = next(&mut rig, &mut group);
    let task = rig.spawn(async move {
        let end = group.next().await;
        (end.map(|it| it.map(drop)), group)
    });
    rig.run();
    rig.peer().cancel(1, "b");
    rig.run();
    let (end, group) = task.take().unwrap();
    assert!(
        matches!(end, Some(Err(Error::ConsumerCancelled { .. }))),
        "{end:?}"
    );
    assert_eq!(group.prefetch().used(), 1);
    first.ack().unwrap();
    assert_eq!(group.prefetch().used(), 0);
    drop((group, channel));
    rig.finish(connection);
}

#[test]
fn a_delivery_that_is_taken_apart_keeps_its_credit() {
    let (mut rig, connection, channel, mut group) = group(1);
    deliver(&mut rig, "a", &["1"]);
    deliver(&mut rig, "b", &["2"]);
    let (delivery, credit) = next(&mut rig, &mut group).into_parts();
    delivery.ack().unwrap();
    assert!(rig.ready(group.next()).is_none());
    drop(credit);
    next(&mut rig, &mut group).ack().unwrap();
    drop((group, channel));
    rig.finish(connection);
}

#[test]
fn consumers_end_together_and_the_rest_is_yielded_first() {
    let (mut rig, connection, channel, mut group) = group(0);
    deliver(&mut rig, "a", &["a1"]);
    deliver(&mut rig, "b", &["b1", "b2"]);
    rig.peer().cancel(1, "a");
    rig.run();
    let mut taken = Vec::new();
    let end = loop {
        match rig.wait(group.next()) {
            Some(Ok(delivery)) => {
                taken.push(text(&delivery));
                delivery.ack().unwrap();
            }
            Some(Err(error)) => break error,
            None => panic!("without a reason"),
        }
    };
    assert_eq!(taken, ["a1", "b1", "b2"]);
    assert_eq!(
        end,
        Error::ConsumerCancelled {
            tag: "a".try_into().unwrap(),
            channel: 1
        }
    );
    assert!(rig.wait(group.next()).is_none());
    assert!(rig.peer().consumers.is_empty());
    rig.check_channel(&channel);
    drop((group, channel));
    rig.finish(connection);
}

#[test]
fn a_cancelled_group_yields_the_rest_and_ends() {
    let (mut rig, connection, channel, mut group) = group(0);
    deliver(&mut rig, "b", &["1"]);
    group.prefetch().set(7);
    rig.wait(group.cancel());
    next(&mut rig, &mut group).ack().unwrap();
    assert!(rig.wait(group.next()).is_none());
    assert!(rig.peer().consumers.is_empty());
    drop((group, channel));
    rig.finish(connection);
}

#[test]
fn a_loop_over_a_group_is_bounded_by_its_prefetch() {
    let (mut rig, connection, channel, group) = group(2);
    let prefetch = group.prefetch();
    let (bodies, stopper, task) = handle_two_of_four(&mut rig, group);
    bodies.end("b1", End::Ok);
    rig.run();
    assert_eq!(bodies.called(), ["a1", "b1", "a2"]);
    prefetch.set(3);
    rig.run();
    assert_eq!(bodies.called(), ["a1", "b1", "a2", "b2"]);
    for text in ["a1", "a2", "b2"] {
        bodies.end(text, End::Ok);
    }
    rig.run();
    let draining = rig.spawn(async move { stopper.drain(std::time::Duration::from_secs(1)).await });
    rig.run();
    assert!(draining.is_done() && task.is_done());
    assert_eq!(texts(&rig.peer().acked), ["a1", "a2", "b1", "b2"]);
    assert!(rig.peer().consumers.is_empty());
    drop(channel);
    rig.finish(connection);
}

#[test]
fn a_cancelled_group_yields_the_rest_without_credit() {
    let (mut rig, connection, channel, mut group) = group(2);
    deliver(&mut rig, "a", &["a1", "a2"]);
    deliver(&mut rig, "b", &["b1", "b2"]);
    let mut taken = vec![next(&mut rig, &mut group), next(&mut rig, &mut group)];
    rig.wait(group.cancel());
    while let Some(delivery) = rig.wait(group.next()) {
        taken.push(delivery.unwrap());
    }
    let order: Vec<_> = taken.iter().map(text).collect();
    assert_eq!(order, ["a1", "b1", "a2", "b2"]);
    drop((taken, group, channel));
    rig.finish(connection);
}

#[test]
fn a_drain_requeues_the_buffer_of_a_group_without_credit() {
    let (mut rig, connection, channel, group) = group(2);
    let (bodies, stopper, task) = handle_two_of_four(&mut rig, group);
    let draining = rig.spawn(async move { stopper.drain(std::time::Duration::from_secs(1)).await });
    rig.run();
    assert_eq!(texts(&rig.peer().requeued), ["a2", "b2"]);
    assert!(!draining.is_done());
    bodies.end("a1", End::Ok);
    bodies.end("b1", End::Ok);
    rig.run();
    assert!(draining.is_done() && task.is_done());
    drop(channel);
    rig.finish(connection);
}
