//! Prefetch that is shared, raised and lowered under way.

use amqp_blocking::{
    protocol::basic,
    select::{Answer, Client, Message, Promise},
};

use crate::tools::*;

/// The body of the next message, and the message.
#[track_caller]
fn take(client: &mut Client, consumer: Promise) -> (Vec<u8>, Message) {
    let message = soon_message(client, consumer);
    (message.body.to_vec(), message)
}

#[track_caller]
fn set(client: &mut Client, consumer: Promise, prefetch: u16) {
    let changed = client.qos(consumer, prefetch).expect("it runs");
    let changed: Option<basic::QosOk> = soon(client, changed).reply();
    assert!(changed.is_some());
}

#[test]
fn a_prefetch_is_raised_and_lowered_under_way() {
    for several in [false, true] {
        let server = broker();
        let mut client = connect(&server);
        declare(&mut client, "q");
        for body in ["a", "b", "c", "d", "e", "f"] {
            put(&mut client, "q", body);
        }
        let consumer = if several {
            consume_multi(&mut client, &["q"], 1)
        } else {
            let consumer = client.consume(consume("q"), 1).expect("it is open");
            assert!(matches!(soon(&mut client, consumer), Answer::Consuming));
            consumer
        };
        let (a, first) = take(&mut client, consumer);
        assert_silent(&mut client, consumer);
        set(&mut client, consumer, 2);
        let (b, second) = take(&mut client, consumer);
        assert_silent(&mut client, consumer);
        assert_eq!([a, b], [b"a", b"b"]);

        set(&mut client, consumer, 1);
        first.ack().expect("its channel is open");
        assert_silent(&mut client, consumer);
        second.ack().expect("its channel is open");
        let (c, third) = take(&mut client, consumer);
        assert_silent(&mut client, consumer);
        assert_eq!(c, b"c");

        set(&mut client, consumer, 0);
        let rest = ["d", "e", "f"].map(|body| {
            let (received, message) = take(&mut client, consumer);
            assert_eq!(received, body.as_bytes());
            message
        });
        for message in rest.into_iter().chain([third]) {
            message.ack().expect("its channel is open");
        }
        let cancelled = client.cancel(consumer).expect("it runs");
        soon(&mut client, cancelled);
        assert_eq!(declare(&mut client, "q").message_count, 0);
    }
}

#[test]
fn two_queues_share_a_prefetch() {
    let server = broker();
    let mut client = connect(&server);
    for name in ["q1", "q2"] {
        declare(&mut client, name);
    }
    let consumer = consume_multi(&mut client, &["q1", "q2"], 1);
    for name in ["q1", "q2"] {
        put(&mut client, name, name);
    }
    let first = soon_message(&mut client, consumer);
    assert_silent(&mut client, consumer);
    set(&mut client, consumer, 2);
    let second = soon_message(&mut client, consumer);
    assert_ne!(first.source, second.source);
    for message in [first, second] {
        message.ack().expect("its channel is open");
    }
}

#[test]
fn queues_without_acknowledgements_take_turns_with_the_others() {
    let server = broker();
    let mut client = connect(&server);
    let names = ["q0", "q1", "q2"];
    for name in names {
        declare(&mut client, name);
        for _ in 0..3 {
            put(&mut client, name, name);
        }
    }
    let consumes = names.map(|name| consume(name).no_ack(name == "q1"));
    let consumer = client.consume_multi(consumes.into(), 1);
    let consumer = consumer.expect("it is open");
    let (mut counts, mut held) = ([0; 3], None);
    // One message is held, and needs the whole prefetch: those of the other kind come.
    while counts[1] < 3 || held.is_none() {
        if let Answer::Delivered(message) = soon(&mut client, consumer) {
            assert_eq!(message.routing_key, names[message.source]);
            counts[message.source] += 1;
            if message.source != 1 {
                assert!(held.replace(message).is_none());
            }
        }
    }
    assert_silent(&mut client, consumer);
    while let Some(message) = held.take() {
        message.ack().expect("its channel is open");
        if counts != [3; 3] {
            let message = soon_message(&mut client, consumer);
            counts[message.source] += 1;
            held = Some(message);
        }
    }
}

#[test]
fn a_cancel_requeues_deliveries_beyond_the_prefetch() {
    let server = broker();
    let (mut client, mut other) = (connect(&server), connect(&server));
    for name in ["q0", "q1"] {
        declare(&mut client, name);
        put(&mut client, name, name);
    }
    let consumer = consume_multi(&mut client, &["q0", "q1"], 1);
    let held = soon_message(&mut client, consumer);
    // That of the other queue waits on this side.
    assert_silent(&mut client, consumer);
    let names = ["q0", "q1"].map(|name| declare(&mut other, name).message_count);
    assert_eq!(names, [0, 0]);
    let cancelled = client.cancel(consumer).expect("it runs");
    for promise in [cancelled, consumer] {
        let answer = soon(&mut client, promise);
        assert!(matches!(answer, Answer::Cancelled { .. }), "{answer:?}");
    }
    let kept = ["q0", "q1"][1 - held.source];
    held.ack().expect("its channel is open");
    let message = get(&mut client, kept).expect("it is requeued");
    assert!(message.redelivered);
    message.ack().expect("its channel is open");
}

#[test]
fn the_end_of_consumers_is_reported_while_the_prefetch_is_used_up() {
    let server = broker();
    let (mut client, mut other) = (connect(&server), connect(&server));
    declare(&mut client, "q");
    put(&mut client, "q", "");
    let consumer = client.consume(consume("q"), 1).expect("it is open");
    assert!(matches!(soon(&mut client, consumer), Answer::Consuming));
    let held = soon_message(&mut client, consumer);
    delete(&mut other, "q");
    soon_error(&mut client, consumer);
    held.ack().expect("its channel is open");
}
