//! Bodies: their number, their order, and the end of their messages.

use std::time::Duration;

use amqp_driver::{
    Counts, EndReason, Ended, Error, Failure, ForEachOptions, OnFailure, Requeue, core::CloseCause,
    protocol::ReplyCode,
};

use super::tools::{Bodies, End, texts, with};

fn assert_send<T: Send>(it: T) -> T {
    it
}

#[test]
fn at_most_so_many_bodies_run_and_each_message_is_acknowledged_once() {
    for batched in [false, true] {
        let (mut rig, connection, channel, consumer) = with(&["1", "2", "3", "4", "5"]);
        let bodies = Bodies::default();
        let mut options = ForEachOptions::new(OnFailure::Requeue);
        if batched {
            options = options.batch_acks(3, Duration::from_millis(50));
        }
        let body = bodies.clone();
        let work = consumer.for_each_concurrent(2, options, move |it| body.clone().handle(it));
        let task = rig.spawn(assert_send(work));
        rig.run();
        assert_eq!(bodies.called(), ["1", "2"]);
        bodies.end("2", End::Ok);
        rig.run();
        assert_eq!(bodies.called(), ["1", "2", "3"]);
        assert_eq!(rig.peer().acked.len(), usize::from(!batched));
        for text in ["1", "3", "4", "5"] {
            bodies.end(text, End::Ok);
            rig.run();
        }
        rig.advance(Duration::from_millis(50));
        assert_eq!(texts(&rig.peer().acked), ["1", "2", "3", "4", "5"]);
        assert!(!task.is_done());

        rig.wait(channel.close()).unwrap();
        rig.run();
        let ended = task.take().unwrap();
        let EndReason::ChannelClosed(reason) = &ended.reason else {
            panic!("{ended:?}");
        };
        assert!(reason.is_clean());
        assert_eq!((ended.counts.succeeded, ended.counts.acked), (5, 5));
        assert_eq!(rig.peer().outstanding.len(), 0);
        drop(channel);
        rig.finish(connection);
    }
}

#[test]
fn messages_of_a_key_wait_for_each_other() {
    let (mut rig, connection, channel, consumer) = with(&["a1", "a2", "b1", "a3", "b2", "c1"]);
    let bodies = Bodies::default();
    let options = ForEachOptions::new(OnFailure::Requeue)
        .order_by(|message| message.body.to_vec().first().copied());
    let body = bodies.clone();
    let task =
        rig.spawn(consumer.for_each_concurrent(3, options, move |it| body.clone().handle(it)));
    rig.run();
    assert_eq!(bodies.called(), ["a1", "b1", "c1"]);
    bodies.end("b1", End::Ok);
    rig.run();
    assert_eq!(bodies.called(), ["a1", "b1", "c1", "b2"]);
    bodies.end("a1", End::Err);
    rig.run();
    assert_eq!(bodies.called(), ["a1", "b1", "c1", "b2", "a2"]);
    for text in ["a2", "b2", "c1", "a3"] {
        bodies.end(text, End::Ok);
    }
    rig.run();
    assert_eq!(bodies.called().last().unwrap(), "a3");
    assert_eq!(texts(&rig.peer().acked), ["a2", "a3", "b1", "b2", "c1"]);
    assert_eq!(texts(&rig.peer().requeued), ["a1"]);
    drop(channel);
    rig.cancel(&task);
    rig.finish(connection);
}

#[test]
fn messages_that_wait_for_their_key_are_bounded() {
    let (mut rig, connection, channel, consumer) =
        with(&["1", "2", "3", "4", "5", "6", "7", "8", "9"]);
    let bodies = Bodies::default();
    let options = ForEachOptions::new(OnFailure::Requeue).order_by(|_| ());
    let body = bodies.clone();
    let task =
        rig.spawn(consumer.for_each_concurrent(1, options, move |it| body.clone().handle(it)));
    rig.run();
    assert_eq!(bodies.called(), ["1"]);
    for text in ["1", "2", "3", "4", "5", "6", "7", "8", "9"] {
        bodies.end(text, End::Ok);
        rig.run();
    }
    assert_eq!(bodies.called().len(), 9);
    drop(channel);
    rig.cancel(&task);
    rig.finish(connection);
}

#[test]
fn a_failure_ends_its_message_by_the_policy_and_nothing_else() {
    for (policy, requeued) in [(OnFailure::Requeue, true), (OnFailure::Reject, false)] {
        let (mut rig, connection, channel, consumer) = with(&["1", "2", "3"]);
        let bodies = Bodies::default();
        let body = bodies.clone();
        let options = ForEachOptions::new(policy);
        let task =
            rig.spawn(consumer.for_each_concurrent(8, options, move |it| body.clone().handle(it)));
        bodies.end("1", End::Err);
        bodies.end("2", End::Panic);
        bodies.end("3", End::Ok);
        rig.run();
        assert_eq!(texts(&rig.peer().acked), ["3"]);
        let back = rig.peer().requeued.clone();
        let gone = rig.peer().rejected.clone();
        let (failed, others) = if requeued { (back, gone) } else { (gone, back) };
        assert_eq!(texts(&failed), ["1", "2"]);
        assert!(others.is_empty());
        assert!(!task.is_done());
        rig.check_channel(&channel);
        drop(channel);
        rig.cancel(&task);
        rig.finish(connection);
    }
}

#[test]
fn the_policy_may_choose_by_the_failure() {
    let (mut rig, connection, channel, consumer) = with(&["1", "2", "3"]);
    let bodies = Bodies::default();
    let body = bodies.clone();
    let options = ForEachOptions::choosing(|failure| match failure {
        Failure::Error(text) if text == "1" => OnFailure::Requeue,
        Failure::Error(_) => OnFailure::Reject,
        Failure::Panicked(panic) => {
            assert_eq!(panic.message, "3 is too much");
            OnFailure::End(Requeue::No)
        }
    });
    let task =
        rig.spawn(consumer.for_each_concurrent(1, options, move |it| body.clone().handle(it)));
    for (text, end) in [("1", End::Err), ("2", End::Err), ("3", End::Panic)] {
        bodies.end(text, end);
    }
    rig.run();
    assert_eq!(texts(&rig.peer().requeued), ["1"]);
    assert_eq!(texts(&rig.peer().rejected), ["2", "3"]);
    let ended = task.take().unwrap();
    assert_eq!(ended.counts.handled(), 3);
    assert_eq!((ended.counts.failed, ended.counts.panicked), (2, 1));
    let EndReason::Failed(Failure::Panicked(panic)) = ended.reason else {
        panic!("{ended:?}");
    };
    assert_eq!(panic.to_string(), "the body panicked: 3 is too much");
    rig.check_channel(&channel);
    drop(channel);
    rig.finish(connection);
}

#[test]
fn a_body_that_panics_before_its_future_exists_is_the_same() {
    let (mut rig, connection, channel, consumer) = with(&["1"]);
    let options = ForEachOptions::new(OnFailure::End(Requeue::Yes));
    let work =
        consumer.for_each_concurrent(1, options, |_| -> std::future::Ready<Result<(), ()>> {
            panic!("at once")
        });
    let ended = rig.wait(work);
    assert!(matches!(
        ended.reason,
        EndReason::Failed(Failure::Panicked(_))
    ));
    rig.run();
    assert_eq!(texts(&rig.peer().requeued), ["1"]);
    drop(channel);
    rig.finish(connection);
}

#[test]
fn a_failure_that_ends_the_loop_waits_for_bodies_and_requeues_the_rest() {
    let (mut rig, connection, channel, consumer) = with(&["1", "2", "3", "4"]);
    let bodies = Bodies::default();
    let body = bodies.clone();
    let options = ForEachOptions::new(OnFailure::End(Requeue::Yes));
    let task =
        rig.spawn(consumer.for_each_concurrent(2, options, move |it| body.clone().handle(it)));
    rig.run();
    bodies.end("2", End::Err);
    rig.run();
    assert!(!task.is_done());
    assert_eq!(texts(&rig.peer().requeued), ["2", "3", "4"]);
    bodies.end("1", End::Ok);
    rig.run();
    let ended = task.take().unwrap();
    assert_eq!(ended.reason, EndReason::Failed(Failure::Error("2".into())));
    let counts = ended.counts;
    assert_eq!((counts.acked, counts.requeued, counts.handled()), (1, 3, 2));
    assert_eq!(bodies.called(), ["1", "2"]);
    rig.check_channel(&channel);
    drop(channel);
    rig.finish(connection);
}

/// The end of a loop when something happens to its channel while its only body runs.
fn end_by(happens: impl FnOnce(&mut amqp_test_support::Rig, &str)) -> Ended<String> {
    let (mut rig, connection, channel, consumer) = with(&["1", "2"]);
    let bodies = Bodies::default();
    let body = bodies.clone();
    let tag = consumer.tag().to_string();
    let options = ForEachOptions::new(OnFailure::Requeue).order_by(|_| ());
    let task =
        rig.spawn(consumer.for_each_concurrent(1, options, move |it| body.clone().handle(it)));
    rig.run();
    happens(&mut rig, &tag);
    rig.run();
    assert!(!task.is_done(), "the body still runs");
    bodies.end("1", End::Ok);
    bodies.end("2", End::Ok);
    rig.run();
    let ended = task.take().unwrap();
    drop((channel, connection));
    rig.run();
    ended
}

#[test]
fn the_end_says_its_reason_by_type() {
    let ended = end_by(|rig, tag| rig.peer().cancel(1, tag));
    assert!(
        matches!(ended.reason, EndReason::CancelledByServer { .. }),
        "{ended:?}"
    );
    assert_eq!(
        ended.counts.acked, 2,
        "what was delivered before is handled"
    );

    let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1 ms";
    let code = ReplyCode::PRECONDITION_FAILED;
    let ended = end_by(|rig, _| rig.peer().close_channel(1, code, text));
    assert!(
        matches!(ended.reason, EndReason::AckTimedOut(_)),
        "{ended:?}"
    );
    assert_eq!(ended.counts, counts_of_a_dead_channel(&ended));

    let ended = end_by(|rig, _| rig.peer().close_channel(1, code, "something else"));
    let EndReason::ChannelClosed(reason) = &ended.reason else {
        panic!("{ended:?}");
    };
    assert_eq!(reason.code(), Some(code));
    assert_eq!(ended.counts, counts_of_a_dead_channel(&ended));

    let ended = end_by(|rig, _| rig.peer().close(ReplyCode::CONNECTION_FORCED, "bye"));
    let EndReason::ConnectionClosed(reason) = &ended.reason else {
        panic!("{ended:?}");
    };
    assert!(matches!(reason.cause(), CloseCause::ByPeer(_)));
}

/// The first body has run in vain, and the second was never called.
fn counts_of_a_dead_channel(ended: &Ended<String>) -> Counts {
    let mut counts = Counts::default();
    (counts.succeeded, counts.stale) = (1, 2);
    assert_eq!(ended.counts.handled(), 1);
    counts
}

#[test]
fn dropping_the_loop_requeues_everything() {
    let (mut rig, connection, channel, consumer) = with(&["1", "2", "3"]);
    let bodies = Bodies::default();
    let body = bodies.clone();
    let options = ForEachOptions::<String>::new(OnFailure::Requeue).order_by(|_| ());
    let work = consumer.for_each_concurrent(1, options, move |it| body.clone().handle(it));
    let stopper = work.stopper();
    let task = rig.spawn(work);
    rig.run();
    assert_eq!(bodies.called(), ["1"]);
    rig.cancel(&task);
    rig.run();
    assert_eq!(texts(&rig.peer().requeued), ["1", "2", "3"]);
    assert!(stopper.has_ended());
    assert_eq!(rig.wait(stopper.drain(Duration::ZERO)), Default::default());
    rig.check_channel(&channel);
    drop(channel);
    rig.finish(connection);
}

#[test]
fn a_cancelled_consumer_is_read_to_its_end() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2"]);
    rig.wait(consumer.cancel()).unwrap();
    let options = ForEachOptions::new(OnFailure::Requeue);
    let work = consumer.for_each_concurrent(1, options, |_| async { Ok::<_, Error>(()) });
    let ended = rig.wait(work);
    assert_eq!(ended.reason, EndReason::Cancelled);
    assert_eq!(ended.counts.acked, 2);
    drop(channel);
    rig.finish(connection);
}
