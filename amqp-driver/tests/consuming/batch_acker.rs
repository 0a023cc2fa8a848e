//! Merged acknowledgements: exactly those that were put in, with few methods.

use std::time::Duration;

use amqp_driver::{Acker, BatchAcker, Requeue, core::protocol::ClientMethod, protocol::basic};
use amqp_test_support::{Rig, Saw};
use proptest::prelude::*;

use super::tools::{texts, with};

const LATER: Duration = Duration::from_millis(50);

/// The acknowledgements that the server has received: tag and `multiple`.
fn acks(rig: &Rig) -> Vec<(u64, bool)> {
    let saw = |saw: &Saw| match saw {
        Saw::Request(_, ClientMethod::BasicAck(ack)) => Some((ack.delivery_tag, ack.multiple)),
        _ => None,
    };
    rig.peer().saw.iter().filter_map(saw).collect()
}

/// The ackers of the first `count` deliveries.
fn take(
    rig: &mut Rig,
    consumer: &mut amqp_driver::Consumer<amqp_driver::ManualAck>,
    count: usize,
) -> Vec<Option<Acker>> {
    let next = |_| Some(rig.wait(consumer.next()).unwrap().unwrap().acker);
    (0..count).map(next).collect()
}

#[test]
fn acknowledgements_in_order_are_one() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2", "3", "4", "5"]);
    let batch = BatchAcker::new(&channel, 4, LATER);
    for acker in take(&mut rig, &mut consumer, 5).into_iter().flatten() {
        batch.ack(acker);
        rig.run();
    }
    assert_eq!(acks(&rig), [(4, true)]);
    assert_eq!(batch.pending(), 1);
    // The last one is not kept for ever.
    rig.advance(LATER - Duration::from_millis(1));
    assert_eq!(batch.pending(), 1);
    rig.advance(Duration::from_millis(1));
    assert_eq!(acks(&rig), [(4, true), (5, false)]);
    assert_eq!(batch.pending(), 0);
    drop((batch, consumer, channel));
    rig.finish(connection);
}

#[test]
fn a_gap_is_not_acknowledged() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2", "3", "4", "5", "6"]);
    let batch = BatchAcker::new(&channel, 4, LATER);
    let mut ackers = take(&mut rig, &mut consumer, 5);
    for at in [4, 0, 1, 3] {
        batch.ack(ackers[at].take().unwrap());
    }
    rig.run();
    // The rest is the smaller half, and waits for the gap.
    assert_eq!(acks(&rig), [(2, true)]);
    batch.ack(ackers[2].take().unwrap());
    batch.flush();
    rig.run();
    assert_eq!(acks(&rig), [(2, true), (5, true)]);
    // The sixth is in the buffer of the consumer.
    assert_eq!(texts(&rig.peer().acked), ["1", "2", "3", "4", "5"]);
    assert_eq!(rig.peer().outstanding.len(), 1);
    drop((batch, consumer, channel));
    rig.finish(connection);
}

#[test]
fn a_slow_delivery_does_not_keep_the_others_unacknowledged() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2", "3", "4"]);
    let batch = BatchAcker::new(&channel, 3, LATER);
    let mut ackers = take(&mut rig, &mut consumer, 4);
    for at in [1, 2, 3] {
        batch.ack(ackers[at].take().unwrap());
    }
    rig.run();
    assert_eq!(acks(&rig), [(2, false), (3, false), (4, false)]);
    ackers[0].take().unwrap().nack(Requeue::Yes).unwrap();
    rig.run();
    assert_eq!(texts(&rig.peer().requeued), ["1"]);
    drop((batch, consumer, channel));
    rig.finish(connection);
}

#[test]
fn dropping_it_sends_the_rest() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2"]);
    let batch = BatchAcker::new(&channel, 100, LATER);
    for acker in take(&mut rig, &mut consumer, 2).into_iter().flatten() {
        batch.ack(acker);
    }
    rig.run();
    assert_eq!(acks(&rig), []);
    drop(batch);
    rig.run();
    assert_eq!(acks(&rig), [(2, true)]);
    rig.advance(2 * LATER);
    drop((consumer, channel));
    rig.finish(connection);
}

#[test]
fn it_does_not_keep_the_server_waiting_for_half_of_the_prefetch() {
    let (mut rig, connection, channel) = Rig::with_channel();
    // The prefetch may be set later.
    let batch = BatchAcker::new(&channel, 1000, LATER);
    let qos = basic::Qos::default().prefetch_count(4);
    rig.wait(channel.call(qos)).unwrap();
    let mut consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    for body in ["1", "2"] {
        rig.peer().deliver(1, consumer.tag(), body);
    }
    rig.run();
    for acker in take(&mut rig, &mut consumer, 2).into_iter().flatten() {
        batch.ack(acker);
    }
    rig.run();
    assert_eq!(acks(&rig), [(2, true)]);
    drop((batch, consumer, channel));
    rig.finish(connection);
}

#[test]
fn deliveries_of_a_channel_that_has_ended_are_stale() {
    for recovers in [false, true] {
        let (mut rig, connection, channel, mut consumer) = with(&["1", "2", "3"]);
        let batch = BatchAcker::new(&channel, 100, LATER);
        for acker in take(&mut rig, &mut consumer, 2).into_iter().flatten() {
            batch.ack(acker);
        }
        if recovers {
            let recover = basic::Recover { requeue: true };
            rig.wait(channel.call(recover)).unwrap();
        } else {
            rig.wait(channel.close()).unwrap();
        }
        rig.advance(LATER);
        assert_eq!(batch.pending(), 0);
        assert_eq!(acks(&rig), []);
        assert_eq!(texts(&rig.peer().requeued), ["1", "2", "3"]);
        drop((batch, consumer, channel));
        rig.finish(connection);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Settles the n-th of those that are not settled.
    Ack(usize),
    Nack(usize),
    AckDirectly(usize),
    Flush,
    Deliver,
    DeliverToOther,
    Wait,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        12 => (0usize..12).prop_map(Step::Ack),
        2 => (0usize..12).prop_map(Step::Nack),
        2 => (0usize..12).prop_map(Step::AckDirectly),
        1 => Just(Step::Flush),
        6 => Just(Step::Deliver),
        2 => Just(Step::DeliverToOther),
        1 => Just(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// The model acknowledges one by one, at once. In the end the server has the same from both.
    #[test]
    fn the_server_sees_what_acknowledging_one_by_one_would_do(
        count in 1usize..9,
        steps in proptest::collection::vec(any_step(), 0..150),
    ) {
        let (mut rig, connection, channel) = Rig::with_channel();
        let consume = basic::Consume::default();
        let mut consumer = rig.wait(channel.consume(consume.clone())).unwrap();
        // Its deliveries stay in its buffer, unacknowledged, between the others.
        let other = rig.wait(channel.consume(consume)).unwrap();
        let batch = BatchAcker::new(&channel, count, LATER);
        let (mut ackers, mut last) = (Vec::<Acker>::new(), 0u64);
        let (mut acked, mut requeued, mut kept) = (Vec::new(), Vec::new(), Vec::new());
        for step in steps {
            let mut take = |at: usize| (!ackers.is_empty()).then(|| ackers.remove(at % ackers.len()));
            match step {
                Step::Ack(at) => if let Some(acker) = take(at) {
                    acked.push(acker.tag().get());
                    batch.ack(acker);
                },
                Step::AckDirectly(at) => if let Some(acker) = take(at) {
                    acked.push(acker.tag().get());
                    acker.ack().unwrap();
                },
                Step::Nack(at) => if let Some(acker) = take(at) {
                    requeued.push(acker.tag().get());
                    acker.nack(Requeue::Yes).unwrap();
                },
                Step::Flush => batch.flush(),
                Step::Deliver => {
                    last += 1;
                    rig.peer().deliver(1, consumer.tag(), last.to_string());
                    ackers.push(rig.wait(consumer.next()).unwrap().unwrap().acker);
                }
                Step::DeliverToOther => {
                    last += 1;
                    rig.peer().deliver(1, other.tag(), last.to_string());
                    kept.push(last);
                }
                Step::Wait => {
                    rig.advance(LATER);
                    prop_assert_eq!(batch.pending(), 0);
                }
            }
            rig.run();
            // At no time is a delivery settled that was not put in.
            let peer = rig.peer();
            let wrong = |it: &&bytes::Bytes| !acked.iter().any(|tag| ***it == *tag.to_string().as_bytes());
            prop_assert_eq!(peer.acked.iter().find(wrong), None);
            prop_assert!(batch.pending() < count);
        }
        drop(batch);
        rig.run();
        {
            let peer = rig.peer();
            let numbers = |bodies: &[bytes::Bytes]| {
                let mut numbers: Vec<u64> = bodies.iter().map(|it| str::from_utf8(it).unwrap().parse().unwrap()).collect();
                numbers.sort_unstable();
                numbers
            };
            acked.sort_unstable();
            requeued.sort_unstable();
            kept.extend(ackers.iter().map(|it| it.tag().get()));
            kept.sort_unstable();
            prop_assert_eq!(numbers(&peer.acked), acked);
            prop_assert_eq!(numbers(&peer.requeued), requeued);
            let outstanding: Vec<u64> = peer.outstanding.keys().map(|(_, tag)| *tag).collect();
            prop_assert_eq!(outstanding, kept);
        }
        ackers.into_iter().for_each(Acker::leave);
        drop((consumer, other, channel));
        rig.finish(connection);
    }
}
