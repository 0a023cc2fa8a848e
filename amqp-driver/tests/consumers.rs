//! Consumers: no delivery is lost, whichever way they end, and the end is reported.

use std::{
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use amqp_driver::{
    Channel, Connection, Consumer, Error, ManualAck, Requeue, Tags,
    core::{ApiMisuse, MethodDef as _, wire::ShortStr},
    protocol::{ReplyCode, basic},
};
use amqp_test_support::{Cut, Probe, Rig, Setup};
use bytes::Bytes;
use futures_core::Stream as _;

fn consume(rig: &mut Rig, channel: &Channel) -> Consumer<ManualAck> {
    rig.wait(channel.consume(basic::Consume::default()))
        .unwrap()
}

/// A consumer that got these messages.
fn with(bodies: &[&'static str]) -> (Rig, Connection, Channel, Consumer<ManualAck>) {
    let (mut rig, connection, channel) = Rig::with_channel();
    let consumer = consume(&mut rig, &channel);
    deliver(&mut rig, &consumer, bodies);
    (rig, connection, channel, consumer)
}

fn deliver(rig: &mut Rig, consumer: &Consumer<ManualAck>, bodies: &[&'static str]) {
    for &body in bodies {
        assert!(rig.peer().deliver(1, consumer.tag(), body));
    }
    rig.run();
}

/// The next message, acknowledged.
fn next(rig: &mut Rig, consumer: &mut Consumer<ManualAck>) -> Bytes {
    let delivery = rig.wait(consumer.next()).unwrap().unwrap();
    let body = delivery.body.clone().into_bytes();
    delivery.ack().unwrap();
    body
}

fn error(rig: &mut Rig, consumer: &mut Consumer<ManualAck>) -> Error {
    let error = rig.wait(consumer.next()).unwrap().unwrap_err();
    assert!(rig.wait(consumer.next()).is_none());
    assert!(rig.wait(consumer.next()).is_none());
    error
}

#[test]
fn dropping_a_consumer_requeues_deliveries_that_it_has_not_yielded() {
    for taken in 0..4 {
        let (mut rig, connection, channel, mut consumer) = with(&["1", "2", "3"]);
        for _ in 0..taken.min(3) {
            next(&mut rig, &mut consumer);
            if taken == 2 {
                // The rest of a batch, and the deliveries behind it.
                deliver(&mut rig, &consumer, &["4"]);
            }
        }
        drop(consumer);
        rig.run();
        {
            let peer = rig.peer();
            let more = if taken == 2 { 2 } else { 0 };
            assert_eq!(peer.acked.len(), taken.min(3));
            assert_eq!(peer.requeued.len(), 3 + more - taken.min(3));
            assert!(peer.outstanding.is_empty() && peer.consumers.is_empty());
        }
        rig.check_channel(&channel);
        drop(channel);
        rig.finish(connection);
    }
}

#[test]
fn cancel_yields_delivered_messages_and_ends() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2"]);
    assert_eq!(next(&mut rig, &mut consumer), "1");
    // This one is on its way when the consumer is cancelled.
    assert!(rig.peer().deliver(1, consumer.tag(), "3"));
    rig.wait(consumer.cancel()).unwrap();
    assert_eq!(next(&mut rig, &mut consumer), "2");
    assert_eq!(next(&mut rig, &mut consumer), "3");
    assert!(rig.wait(consumer.next()).is_none());
    // Again is no error.
    rig.wait(consumer.cancel()).unwrap();
    drop(consumer);
    rig.run();
    let cancels = rig
        .peer()
        .said()
        .iter()
        .filter(|it| it.ends_with("basic.cancel"))
        .count();
    assert_eq!(cancels, 1);
    drop(channel);
    rig.finish(connection);
}

/// The future of a cancel is dropped: the consumer ends all the same, with the server's answer, or
/// when there is none in time.
#[test]
fn a_cancel_that_is_not_awaited_ends_the_consumer() {
    for answered in [true, false] {
        let (mut rig, connection, channel, mut consumer) = with(&["1"]);
        rig.peer().mute = true;
        let mut cancelling = Box::pin(consumer.cancel());
        assert!(Probe::new().poll(cancelling.as_mut()).is_pending());
        drop(cancelling);
        assert_eq!(next(&mut rig, &mut consumer), "1");
        let task = rig.spawn(async move {
            let ended = consumer.next().await.is_none();
            (ended, consumer)
        });
        rig.run();
        assert!(!task.is_done());
        if answered {
            rig.peer().mute = false;
            rig.run();
        } else {
            rig.advance(Duration::from_secs(31));
        }
        let (ended, consumer) = task.take().expect("it hangs");
        assert!(ended);
        if !answered {
            // Deliveries in the meantime are requeued.
            rig.peer().mute = false;
            rig.run();
        }
        drop(consumer);
        rig.run();
        assert!(rig.peer().outstanding.is_empty() && rig.peer().consumers.is_empty());
        rig.check_channel(&channel);
        drop(channel);
        rig.finish(connection);
    }
}

/// A cancel times out, and a delivery comes after that: it is yielded, or put back.
#[test]
fn deliveries_after_a_cancel_timed_out_are_not_lost() {
    for dropped in [false, true] {
        let (mut rig, connection, channel, mut consumer) = with(&[]);
        rig.peer().hold = true;
        let mut cancelling = Box::pin(consumer.cancel());
        assert!(Probe::new().poll(cancelling.as_mut()).is_pending());
        rig.advance(Duration::from_secs(31));
        assert_eq!(
            rig.wait(cancelling),
            Err(Error::Unanswered {
                request: basic::Cancel::ID,
                channel: Some(1),
            })
        );
        let tag = consumer.tag().to_string();
        if dropped {
            drop(consumer);
            rig.run();
        } else {
            assert!(rig.peer().deliver(1, &tag, "late"));
            rig.run();
            assert_eq!(next(&mut rig, &mut consumer), "late");
            drop(consumer);
        }
        assert!(rig.peer().deliver(1, &tag, "later"));
        rig.run();
        assert_eq!(rig.peer().requeued, ["later"]);
        rig.peer().release();
        rig.run();
        assert!(rig.peer().outstanding.is_empty() && rig.peer().consumers.is_empty());
        drop(channel);
        rig.finish(connection);
    }
}

/// A tag is used again while the end of its first consumer is under way.
#[test]
fn a_tag_can_be_used_again_when_its_consumer_is_gone() {
    let tagged = || basic::Consume::default().consumer_tag("t");
    for polled in 0..6 {
        let (mut rig, connection, channel) = Rig::with_channel();
        let mut consumer = rig.wait(channel.consume(tagged())).unwrap();
        let mut cancelling = Box::pin(consumer.cancel());
        for _ in 0..polled {
            let _cancelled = Probe::new().poll(cancelling.as_mut());
            rig.step();
            if polled == 5 {
                break;
            }
        }
        drop(cancelling);
        drop(consumer);
        let mut again = rig.wait(channel.consume(tagged())).unwrap();
        rig.run();
        deliver(&mut rig, &again, &["for the second"]);
        assert_eq!(next(&mut rig, &mut again), "for the second");
        drop((again, channel));
        rig.run();
        rig.finish(connection);
    }
}

/// A consume that is given up leaves its tag, too: when the server has answered it.
#[test]
fn the_tag_of_a_consume_that_was_given_up_is_free_when_it_is_answered() {
    let tagged = || basic::Consume::default().consumer_tag("t");
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut consuming = Box::pin(channel.consume(tagged()));
    assert!(Probe::new().poll(consuming.as_mut()).is_pending());
    drop(consuming);
    let early = rig.wait(channel.consume(tagged())).map(drop);
    let tag = ShortStr::try_from("t").unwrap();
    let taken = ApiMisuse::DuplicateConsumerTag(tag);
    assert_eq!(early, Err(Error::Misuse(taken)));
    rig.run();
    let mut again = rig.wait(channel.consume(tagged())).unwrap();
    rig.run();
    deliver(&mut rig, &again, &["for the second"]);
    assert_eq!(next(&mut rig, &mut again), "for the second");
    drop((again, channel));
    rig.finish(connection);
}

/// A cancel that is called again waits for the first, and leaves the next of that tag alone.
#[test]
fn a_cancel_that_is_called_again_cancels_no_other_consumer() {
    let tagged = || basic::Consume::default().consumer_tag("t");
    let (mut rig, connection, channel) = Rig::with_channel();
    let mut first = rig.wait(channel.consume(tagged())).unwrap();
    rig.peer().hold = true;
    let mut cancelling = Box::pin(first.cancel());
    assert!(Probe::new().poll(cancelling.as_mut()).is_pending());
    drop(cancelling);
    let mut consuming = Box::pin(channel.consume(tagged()));
    assert!(Probe::new().poll(consuming.as_mut()).is_pending());
    let mut again = Box::pin(first.cancel());
    assert!(Probe::new().poll(again.as_mut()).is_pending());
    rig.run();
    rig.peer().hold = false;
    rig.peer().release();
    assert_eq!(rig.wait(again), Ok(()));
    let mut second = rig.wait(consuming).unwrap();
    deliver(&mut rig, &second, &["for the second"]);
    assert_eq!(next(&mut rig, &mut second), "for the second");
    assert!(rig.wait(first.next()).is_none());
    drop((first, second, channel));
    rig.finish(connection);
}

/// SER-34, TRI-54: the server cancels a consumer.
#[test]
fn a_consumer_that_the_server_cancels_reports_it() {
    let (mut rig, connection, channel, mut consumer) = with(&["1"]);
    let mut other = consume(&mut rig, &channel);
    let tag = consumer.tag().clone();
    rig.peer().cancel(1, &tag);
    rig.run();
    assert_eq!(next(&mut rig, &mut consumer), "1");
    let cancelled = Error::ConsumerCancelled { tag, channel: 1 };
    assert_eq!(error(&mut rig, &mut consumer), cancelled);
    rig.wait(consumer.cancel()).unwrap();
    // No other consumer is cancelled, and one without a handler is not in the way.
    deliver(&mut rig, &other, &["2"]);
    assert_eq!(next(&mut rig, &mut other), "2");
    let tag = other.tag().clone();
    rig.peer().cancel(1, &tag);
    rig.run();
    drop(other);
    rig.check_channel(&channel);
    drop((consumer, channel));
    rig.run();
    let cancels = rig
        .peer()
        .said()
        .iter()
        .filter(|it| it.contains("basic.cancel"))
        .count();
    assert_eq!(cancels, 0);
    rig.finish(connection);
}

/// REG-21: the server's cancel crosses the client's.
#[test]
fn cancels_that_cross() {
    let (mut rig, connection, channel, mut consumer) = with(&["1"]);
    let tag = consumer.tag().clone();
    rig.peer().hold = true;
    let mut cancelling = Box::pin(consumer.cancel());
    assert!(Probe::new().poll(cancelling.as_mut()).is_pending());
    rig.run();
    rig.peer().cancel(1, &tag);
    rig.run();
    rig.peer().release();
    assert_eq!(rig.wait(cancelling), Ok(()));
    assert_eq!(next(&mut rig, &mut consumer), "1");
    assert_eq!(
        error(&mut rig, &mut consumer),
        Error::ConsumerCancelled { tag, channel: 1 }
    );
    drop((consumer, channel));
    rig.finish(connection);
}

/// REG-8: the server closes the channel of a consumer that has messages left.
#[test]
fn the_end_of_the_channel_comes_behind_its_messages() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2"]);
    let first = rig.wait(consumer.next()).unwrap().unwrap();
    rig.peer()
        .close_channel(1, ReplyCode::PRECONDITION_FAILED, "timed out");
    rig.run();
    let closed = Error::ChannelClosed(channel.close_reason().unwrap());
    assert_eq!(first.ack(), Err(closed.clone()));
    let second = rig.wait(consumer.next()).unwrap().unwrap();
    assert_eq!(second.body, "2");
    assert_eq!(second.nack(Requeue::Yes), Err(closed.clone()));
    assert_eq!(error(&mut rig, &mut consumer), closed);
    // The number is used again, and nothing of the old channel reaches the new one.
    let again = rig.channel(&connection);
    drop((consumer, channel));
    rig.check_channel(&again);
    drop(again);
    rig.finish(connection);
}

#[test]
fn a_consumer_on_a_channel_that_its_own_side_closes_ends_without_an_error() {
    for of_connection in [false, true] {
        let (mut rig, connection, channel, mut consumer) = with(&["1"]);
        if of_connection {
            rig.wait(connection.close()).unwrap();
        } else {
            rig.wait(channel.close()).unwrap();
        }
        // Its deliveries can still be read; the server has taken them back.
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        assert_eq!(delivery.body, "1");
        assert!(delivery.ack().is_err());
        assert!(rig.wait(consumer.next()).is_none());
        drop((consumer, channel));
        rig.finish(connection);
    }
}

#[test]
fn buffered_deliveries_are_yielded_after_a_cut() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2"]);
    rig.world().cut(Cut::Reset);
    rig.run();
    for body in ["1", "2"] {
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        assert_eq!(delivery.body, body);
        assert!(matches!(
            delivery.reject(Requeue::No),
            Err(Error::ConnectionClosed(_))
        ));
    }
    let reason = connection.close_reason().unwrap();
    assert_eq!(
        error(&mut rig, &mut consumer),
        Error::ConnectionClosed(reason)
    );
    drop(channel);
}

/// The future of `next` is dropped and made again, at every step.
#[test]
fn dropping_next_loses_nothing() {
    let mut setup = Setup::default();
    setup.server.frame_max = 8192;
    let (mut rig, connection) = Rig::open_with(setup);
    let channel = rig.channel(&connection);
    let mut consumer = consume(&mut rig, &channel);
    rig.world().read_max = 7;
    let mut got = Vec::new();
    for number in 0..50_u8 {
        let body = vec![number; usize::from(number) * 300];
        assert!(rig.peer().deliver(1, consumer.tag(), body));
        loop {
            let mut next = Box::pin(consumer.next());
            if let Poll::Ready(delivery) = Probe::new().poll(next.as_mut()) {
                got.push(delivery.unwrap().unwrap().body.len());
            } else if !rig.step() {
                break;
            }
        }
    }
    assert!(got.into_iter().eq((0..50).map(|number| number * 300)));
    consumer_is_a_stream(&mut rig, &mut consumer);
    drop((consumer, channel));
    rig.finish(connection);
}

fn consumer_is_a_stream(rig: &mut Rig, consumer: &mut Consumer<ManualAck>) {
    assert!(rig.peer().deliver(1, consumer.tag(), "streamed"));
    rig.run();
    let delivery = rig.wait(poll_fn(|cx| Pin::new(&mut *consumer).poll_next(cx)));
    assert_eq!(delivery.unwrap().unwrap().body, "streamed");
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut *consumer).poll_next(&mut cx).is_pending());
}

#[test]
fn messages_without_acknowledgement() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().at_once = vec![Bytes::from("1"), Bytes::from("2")];
    let consume = basic::Consume::default();
    let mut consumer = rig.wait(channel.consume_no_ack(consume)).unwrap();
    assert_eq!(rig.wait(consumer.next()).unwrap().unwrap().body, "1");
    drop(consumer);
    rig.run();
    assert!(rig.peer().consumers.is_empty() && rig.peer().requeued.is_empty());
    let got = rig
        .wait(channel.get(basic::Get::default().no_ack(true)))
        .unwrap();
    assert!(got.is_none());
    drop(channel);
    rig.finish(connection);
}

/// Each of several consumers gets its own messages, and ends by itself.
#[test]
fn consumers_of_a_channel_are_distinct() {
    let (mut rig, connection, channel, mut one) = with(&["one"]);
    let mut two = consume(&mut rig, &channel);
    assert_ne!(one.tag(), two.tag());
    deliver(&mut rig, &two, &["two"]);
    deliver(&mut rig, &one, &["one again"]);
    assert_eq!(next(&mut rig, &mut two), "two");
    assert_eq!(next(&mut rig, &mut one), "one");
    drop(one);
    deliver(&mut rig, &two, &["two again"]);
    assert_eq!(next(&mut rig, &mut two), "two again");
    assert_eq!(rig.peer().requeued, ["one again"]);
    let duplicate = basic::Consume::default().consumer_tag(two.tag());
    let refused = rig.wait(channel.consume(duplicate)).unwrap_err();
    assert!(matches!(
        refused,
        Error::Misuse(ApiMisuse::DuplicateConsumerTag(_))
    ));
    drop((two, channel));
    rig.finish(connection);
}

/// A cancel that would leave the consumer's listener waiting for ever is refused.
#[test]
fn a_consumer_is_cancelled_by_its_handle_only() {
    let (mut rig, connection, channel, consumer) = with(&[]);
    let cancel = basic::Cancel::default().consumer_tag(consumer.tag());
    let refused = Error::Misuse(ApiMisuse::NotSentThisWay {
        method: "basic.cancel",
    });
    assert_eq!(rig.wait(channel.call(cancel.clone())), Err(refused.clone()));
    assert_eq!(channel.send(&cancel), Err(refused));
    drop((consumer, channel));
    rig.finish(connection);
}

/// "All" are the deliveries that have been yielded: those in flight are not acknowledged unseen.
#[test]
fn all_does_not_include_unseen_deliveries() {
    let (mut rig, connection, channel, mut consumer) = with(&["1", "2"]);
    assert!(rig.peer().deliver(1, consumer.tag(), "on its way"));
    channel.ack(Tags::All).unwrap();
    channel.ack(Tags::All).unwrap();
    rig.run();
    assert_eq!(rig.peer().acked, ["1", "2"]);
    for _ in 0..2 {
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        assert!(matches!(
            delivery.ack(),
            Err(Error::Misuse(ApiMisuse::UnknownDeliveryTag(_)))
        ));
    }
    assert_eq!(next(&mut rig, &mut consumer), "on its way");
    drop((consumer, channel));
    rig.finish(connection);
}

/// Deliveries that `basic.recover` takes back cannot be acknowledged any more; the client knows
/// that.
#[test]
fn recovered_deliveries_are_refused() {
    let (mut rig, connection, channel, mut consumer) = with(&["1"]);
    let before = rig.wait(consumer.next()).unwrap().unwrap();
    // This one crosses the request.
    assert!(rig.peer().deliver(1, consumer.tag(), "2"));
    let recover = basic::Recover::default().requeue(true);
    let mut recovering = Box::pin(channel.call(recover));
    assert!(Probe::new().poll(recovering.as_mut()).is_pending());
    let unknown = |tag| Err(Error::Misuse(ApiMisuse::UnknownDeliveryTag(tag)));
    assert_eq!(before.ack(), unknown(1));
    while rig.world().to_client.is_empty() {
        assert!(rig.step());
    }
    rig.run();
    let crossed = rig.wait(consumer.next()).unwrap().unwrap();
    assert_eq!(crossed.ack(), unknown(2));
    rig.wait(recovering).unwrap();
    deliver(&mut rig, &consumer, &["3"]);
    assert_eq!(next(&mut rig, &mut consumer), "3");
    drop((consumer, channel));
    rig.finish(connection);
}
