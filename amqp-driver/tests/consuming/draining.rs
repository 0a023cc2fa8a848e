//! Drains: all that was open has an end, and the report says which.

use std::time::Duration;

use amqp_driver::{
    Buffered, ConfirmChannel, Connection, Drained, EndReason, ForEachOptions, OnFailure, Stopper,
    protocol::basic,
};
use amqp_test_support::{Rig, Task};

use super::tools::{Bodies, End, texts, with};

const DEADLINE: Duration = Duration::from_secs(20);

/// A drain that has begun.
fn drain(rig: &mut Rig, stopper: &Stopper, deadline: Duration) -> Task<Drained> {
    let stopper = stopper.clone();
    let task = rig.spawn(async move { stopper.drain(deadline).await });
    rig.run();
    task
}

#[test]
fn a_drain_waits_for_bodies_and_requeues_the_buffer() {
    let (mut rig, connection, channel, consumer) = with(&["1", "2", "3", "4"]);
    let bodies = Bodies::default();
    let body = bodies.clone();
    let options = ForEachOptions::new(OnFailure::Reject).batch_acks(100, DEADLINE);
    let work = consumer.for_each_concurrent(2, options, move |it| body.clone().handle(it));
    let stopper = work.stopper();
    let task = rig.spawn(work);
    bodies.end("1", End::Ok);
    rig.run();
    let draining = drain(&mut rig, &stopper, DEADLINE);
    assert!(!draining.is_done() && !task.is_done());
    assert_eq!(texts(&rig.peer().requeued), ["4"]);
    assert!(rig.peer().consumers.is_empty());
    bodies.end("2", End::Ok);
    bodies.end("3", End::Err);
    rig.run();
    let drained = draining.take().unwrap();
    assert_eq!((drained.handled, drained.requeued), (2, 1));
    assert_eq!((drained.unfinished, drained.unconfirmed), (0, 0));
    assert!(drained.acks_processed);
    assert_eq!(texts(&rig.peer().acked), ["1", "2"]);
    assert_eq!(texts(&rig.peer().rejected), ["3"]);
    let ended = task.take().unwrap();
    assert_eq!(ended.reason, EndReason::Drained(drained));
    assert!(stopper.has_ended());
    rig.check_channel(&channel);
    drop(channel);
    rig.finish(connection);
}

#[test]
fn a_drain_may_hand_out_the_buffer() {
    let (mut rig, connection, channel, consumer) = with(&["1", "2", "3"]);
    let bodies = Bodies::default();
    let body = bodies.clone();
    let options = ForEachOptions::new(OnFailure::Reject).on_drain(Buffered::HandOut);
    let work = consumer.for_each_concurrent(1, options, move |it| body.clone().handle(it));
    let stopper = work.stopper();
    let task = rig.spawn(work);
    rig.run();
    let draining = drain(&mut rig, &stopper, DEADLINE);
    for text in ["1", "2", "3"] {
        assert!(!draining.is_done());
        bodies.end(text, End::Ok);
        rig.run();
    }
    let drained = draining.take().unwrap();
    assert_eq!((drained.handled, drained.requeued), (3, 0));
    assert_eq!(texts(&rig.peer().acked), ["1", "2", "3"]);
    drop((channel, task));
    rig.finish(connection);
}

#[test]
fn bodies_are_interrupted_at_the_deadline() {
    let (mut rig, connection, channel, consumer) = with(&["1", "2", "3"]);
    let bodies = Bodies::default();
    let body = bodies.clone();
    let options = ForEachOptions::new(OnFailure::Reject).order_by(|_| ());
    let work = consumer.for_each_concurrent(2, options, move |it| body.clone().handle(it));
    let stopper = work.stopper();
    let task = rig.spawn(work);
    rig.run();
    let draining = drain(&mut rig, &stopper, DEADLINE);
    rig.advance(DEADLINE - Duration::from_millis(1));
    assert!(!draining.is_done());
    rig.advance(Duration::from_millis(1));
    let drained = draining.take().unwrap();
    assert_eq!(
        (drained.handled, drained.requeued, drained.unfinished),
        (0, 2, 1)
    );
    assert!(!drained.acks_processed, "there was no time to ask");
    assert_eq!(texts(&rig.peer().requeued), ["1", "2", "3"]);
    assert_eq!(task.take().unwrap().counts.requeued, 3);
    rig.check_channel(&channel);
    drop(channel);
    rig.finish(connection);
}

#[test]
fn a_second_drain_may_hurry() {
    let (mut rig, connection, channel, consumer) = with(&["1"]);
    let bodies = Bodies::default();
    let options = ForEachOptions::new(OnFailure::Reject);
    let body = bodies.clone();
    let work = consumer.for_each_concurrent(2, options, move |it| body.clone().handle(it));
    let stopper = work.stopper();
    let task = rig.spawn(work);
    rig.run();
    let draining = drain(&mut rig, &stopper, DEADLINE);
    let hurried = drain(&mut rig, &stopper, Duration::from_millis(5));
    rig.advance(Duration::from_millis(5));
    let drained = draining.take().unwrap();
    assert_eq!(drained.unfinished, 1);
    assert_eq!(hurried.take().unwrap(), drained);
    drop((channel, task));
    rig.finish(connection);
}

#[test]
fn a_drain_before_the_first_poll_counts() {
    let (mut rig, connection, channel, consumer) = with(&["1"]);
    let bodies = Bodies::default();
    let options = ForEachOptions::new(OnFailure::Reject);
    let body = bodies.clone();
    let work = consumer.for_each_concurrent(2, options, move |it| body.clone().handle(it));
    let draining = drain(&mut rig, &work.stopper(), DEADLINE);
    let task = rig.spawn(work);
    rig.run();
    assert_eq!(draining.take().unwrap().requeued, 1);
    assert_eq!(bodies.called(), [""; 0]);
    drop((channel, task));
    rig.finish(connection);
}

/// A channel in confirm mode with an unconfirmed publish.
fn publisher(rig: &mut Rig, connection: &Connection) -> ConfirmChannel {
    let publisher = rig.confirm_channel(connection);
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let properties = basic::Properties::default();
    let publish = basic::Publish::default();
    drop(
        rig.wait(publisher.publish(&publish, &properties, "x"))
            .unwrap(),
    );
    rig.run();
    publisher
}

#[test]
fn a_drain_waits_for_confirms() {
    for confirms in [true, false] {
        let (mut rig, connection, channel, consumer) = with(&[]);
        let publisher = publisher(&mut rig, &connection);
        let options = ForEachOptions::<String>::new(OnFailure::Reject).publisher(&publisher);
        let work = consumer.for_each_concurrent(2, options, |_| async { Ok(()) });
        let stopper = work.stopper();
        let task = rig.spawn(work);
        rig.run();
        let draining = drain(&mut rig, &stopper, DEADLINE);
        rig.advance(DEADLINE / 2);
        assert!(!draining.is_done());
        if confirms {
            rig.peer().ack(2, 1, false);
            rig.run();
        } else {
            rig.advance(DEADLINE / 2);
        }
        let drained = draining.take().unwrap();
        assert_eq!(drained.unconfirmed, u64::from(!confirms));
        assert!(drained.acks_processed);
        drop((channel, publisher, task));
        rig.finish(connection);
    }
}

#[test]
fn the_end_of_the_connection_ends_a_drain() {
    let (mut rig, connection, channel, consumer) = with(&["1"]);
    let bodies = Bodies::default();
    let options = ForEachOptions::new(OnFailure::Reject);
    let body = bodies.clone();
    let work = consumer.for_each_concurrent(2, options, move |it| body.clone().handle(it));
    let stopper = work.stopper();
    let task = rig.spawn(work);
    rig.run();
    let draining = drain(&mut rig, &stopper, DEADLINE);
    connection.abort();
    rig.run();
    let drained = draining.take().unwrap();
    assert_eq!((drained.handled, drained.unfinished), (0, 1));
    assert!(!drained.acks_processed);
    drop((channel, task, connection));
    rig.run();
}

#[test]
fn the_deadline_requeues_what_no_body_has_got() {
    let (mut rig, connection, channel, consumer) = with(&["1", "2", "3"]);
    let bodies = Bodies::default();
    let body = bodies.clone();
    let options = ForEachOptions::new(OnFailure::Reject).on_drain(Buffered::HandOut);
    let work = consumer.for_each_concurrent(1, options, move |it| body.clone().handle(it));
    let stopper = work.stopper();
    let task = rig.spawn(work);
    rig.run();
    let draining = drain(&mut rig, &stopper, DEADLINE);
    rig.advance(DEADLINE);
    let drained = draining.take().unwrap();
    assert_eq!(
        (drained.handled, drained.requeued, drained.unfinished),
        (0, 2, 1)
    );
    assert_eq!(texts(&rig.peer().requeued), ["1", "2", "3"]);
    assert_eq!(task.take().unwrap().counts.requeued, 3);
    drop(channel);
    rig.finish(connection);
}

/// A confirmed publish is not counted, though it occupies the window behind another one.
#[test]
fn a_drain_reports_the_unconfirmed_publishes() {
    let (mut rig, connection, channel, consumer) = with(&[]);
    let publisher = publisher(&mut rig, &connection);
    let (publish, properties) = (basic::Publish::default(), basic::Properties::default());
    drop(
        rig.wait(publisher.publish(&publish, &properties, "y"))
            .unwrap(),
    );
    rig.run();
    rig.peer().ack(2, 2, false);
    let options = ForEachOptions::<String>::new(OnFailure::Reject).publisher(&publisher);
    let work = consumer.for_each_concurrent(2, options, |_| async { Ok(()) });
    let stopper = work.stopper();
    let task = rig.spawn(work);
    rig.run();
    let draining = drain(&mut rig, &stopper, DEADLINE);
    rig.advance(DEADLINE);
    assert_eq!(draining.take().unwrap().unconfirmed, 1);
    drop((channel, publisher, task));
    rig.finish(connection);
}
