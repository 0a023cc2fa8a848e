//! Consumers that are cancelled, by either side.

use super::{cancel, cancel_ok, delivered, open};
use crate::{
    ApiMisuse, RequestError, Requeue, Tags,
    client::Event,
    protocol::{basic, queue},
    tests::script::*,
};

#[test]
fn deliveries_before_cancel_ok_are_yielded() {
    let (mut client, id) = open();
    let consumer = client.consumer(id, "t", false);
    let request = client.on(id).call(&cancel("t", false)).unwrap();
    client.bytes();
    for number in 1..=2 {
        client.deliver(id, "t", number);
        assert_eq!(delivered(&mut client).consumer, consumer);
    }
    client.send(1, &cancel_ok("t"));
    assert_eq!(client.events(), [replied(id, request, cancel_ok("t"))]);
    client
        .on(id)
        .nack(Tags::UpTo(tag(2)), Requeue::Yes)
        .unwrap();
}

#[test]
fn deliveries_that_cross_a_cancel_without_an_answer_are_requeued() {
    // Note 32. If it were dropped, it would stay with the channel, and a later acknowledgement of
    // all up to some delivery would lose it.
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.consumer(id, "u", true);
    client.consumer(id, "v", false);
    client.on(id).send(&cancel("t", false)).unwrap();
    client.on(id).send(&cancel("u", false)).unwrap();
    let gone = [cancel("t", true), cancel("u", true)].map(|cancel| method(1, cancel));
    assert_eq!(client.sent(), gone);
    client.deliver(id, "t", 1);
    client.deliver(id, "u", 2);
    client.deliver(id, "v", 3);
    assert_eq!(delivered(&mut client).tag, Some(tag(3)));
    let put_back = basic::Nack {
        delivery_tag: 1,
        multiple: false,
        requeue: true,
    };
    assert_eq!(client.sent(), [method(1, put_back)]);
    let unknown = ApiMisuse::UnknownDeliveryTag(1);
    assert_eq!(client.on(id).ack(Tags::One(tag(1))), Err(unknown));
    // A tag that is in use again is the new consumer's.
    let again = client.consumer(id, "t", true);
    client.deliver(id, "t", 4);
    assert_eq!(delivered(&mut client).consumer, again);
}

#[test]
fn a_delivery_after_cancel_ok_is_dropped() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.call(id, &cancel("t", false), &cancel_ok("t"));
    client.deliver(id, "t", 1);
    assert_eq!(client.events(), []);
    assert!(client.conn.is_open());
    assert!(client.on(id).ack(Tags::One(tag(1))).is_err());
}

#[test]
fn a_consumer_that_the_server_cancels_ends() {
    let (mut client, id) = open();
    client.consumer(id, "other", false);
    let consumer = client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    delivered(&mut client);
    for no_wait in [true, false] {
        client.send(1, &cancel("t", no_wait));
        let ended = Event::ConsumerCancelled {
            channel: id,
            consumer,
            tag: name("t"),
        };
        let expected = if no_wait { &[ended][..] } else { &[] };
        assert_eq!(client.events(), expected);
        // Only a cancel without `no_wait` is answered (REG-22).
        let answer = [method(1, cancel_ok("t"))];
        let expected = if no_wait { &[][..] } else { &answer };
        assert_eq!(client.sent(), expected);
    }
    // Its deliveries are still outstanding, and its tag is free.
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    client.bytes();
    let again = client.consumer(id, "t", false);
    assert_ne!(again, consumer);
}

#[test]
fn a_server_that_waits_for_cancel_ok_gets_it() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.send(1, &cancel("t", false));
    assert!(matches!(
        client.only_event(),
        Event::ConsumerCancelled { .. }
    ));
    assert_eq!(client.sent(), [method(1, cancel_ok("t"))]);
}

#[test]
fn cancels_that_cross_end_the_consumer_once() {
    let (mut client, id) = open();
    let consumer = client.consumer(id, "t", false);
    let request = client.on(id).call(&cancel("t", false)).unwrap();
    client.bytes();
    client.send(1, &cancel("t", true));
    assert_eq!(
        client.events(),
        [Event::ConsumerCancelled {
            channel: id,
            consumer,
            tag: name("t")
        }]
    );
    // RabbitMQ answers the cancel of a consumer that it does not have (TRI-49).
    client.send(1, &cancel_ok("t"));
    assert_eq!(client.events(), [replied(id, request, cancel_ok("t"))]);
    assert_eq!(client.sent(), []);
    client.call(id, &cancel("t", false), &cancel_ok("t"));
}

#[test]
fn a_consumer_may_be_cancelled_before_it_is_confirmed() {
    let (mut client, id) = open();
    let (_, request) = client.consume(id, consume("q", "t"));
    let declare = client.on(id).call(&queue::Declare::default()).unwrap();
    client.bytes();
    client.send(1, &cancel("t", true));
    let cause = RequestError::Cancelled {
        tag: name("t"),
        channel: 1,
    };
    assert_eq!(client.events(), [Event::Failed { request, cause }]);
    client.send(1, &queue::DeclareOk::default());
    let ok = queue::DeclareOk::default();
    assert_eq!(client.events(), [replied(id, declare, ok)]);
    client.consumer(id, "t", false);
}
