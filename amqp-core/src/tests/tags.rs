//! Consumer tags that are used again: a consumer is known by its number, and an answer ends the one
//! that it was asked for.

use super::script::*;
use crate::{
    ChannelId, CloseCause, ConsumerId, Fault, RequestId,
    client::{Connection, Event},
    protocol::{Method, ReplyCode, basic},
};

type Client = Script<Connection>;

fn open() -> (Client, ChannelId) {
    let mut client = Client::open();
    let id = client.channel();
    (client, id)
}

fn cancel() -> basic::Cancel {
    basic::Cancel::default().consumer_tag("t")
}

fn cancel_ok() -> basic::CancelOk {
    basic::CancelOk::default().consumer_tag("t")
}

fn consume_ok() -> basic::ConsumeOk {
    basic::ConsumeOk::default().consumer_tag("t")
}

fn put_back(number: u64) -> Sent {
    let reject = basic::Nack {
        delivery_tag: number,
        multiple: false,
        requeue: true,
    };
    method(1, reject)
}

/// Asks for a consumer, and takes the method out.
fn ask(client: &mut Client, id: ChannelId) -> (ConsumerId, RequestId) {
    let asked = client.consume(id, consume("q", "t"));
    assert_eq!(client.sent(), [method(1, consume("q", "t"))]);
    asked
}

/// A delivery, and the consumer that it is given to.
#[track_caller]
fn given(client: &mut Client, id: ChannelId, number: u64) -> Option<ConsumerId> {
    client.deliver(id, "t", number);
    let events = client.events();
    match (&events[..], &client.sent()[..]) {
        ([Event::Delivered(delivery)], []) => Some(delivery.consumer),
        ([], [sent]) => {
            assert_eq!(*sent, put_back(number));
            None
        }
        other => panic!("{other:?}"),
    }
}

/// The late cancel-ok of the first consumer leaves the second alone.
#[test]
fn a_tag_is_used_again_while_its_cancel_crosses_the_server_s() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    let cancelled = client.on(id).call(&cancel()).unwrap();
    client.bytes();
    client.send(1, &cancel().no_wait(true));
    assert!(matches!(
        client.only_event(),
        Event::ConsumerCancelled { .. }
    ));
    let (second, request) = ask(&mut client, id);
    client.send(1, &cancel_ok());
    client.send(1, &consume_ok());
    assert_eq!(
        client.events(),
        [
            replied(id, cancelled, cancel_ok()),
            replied(id, request, consume_ok())
        ]
    );
    for number in 1..=3 {
        assert_eq!(given(&mut client, id, number), Some(second));
    }
    assert!(client.on(id).has_consumer(&name("t")));
}

/// The same for a consumer that was given up.
#[test]
fn the_tag_of_a_consumer_that_is_given_up_is_free_at_once() {
    let (mut client, id) = open();
    let first = client.consumer(id, "t", false);
    client.on(id).abandon_consumer(&name("t"), first);
    assert!(!client.on(id).has_consumer(&name("t")));
    assert_eq!(client.sent(), [method(1, cancel())]);
    let (second, request) = ask(&mut client, id);
    // Deliveries before cancel-ok are the first one's.
    assert_eq!(given(&mut client, id, 1), None);
    client.send(1, &cancel_ok());
    assert_eq!(client.events(), []);
    assert_eq!(given(&mut client, id, 2), Some(second));
    client.send(1, &consume_ok());
    assert_eq!(client.events(), [replied(id, request, consume_ok())]);
    assert_eq!(given(&mut client, id, 3), Some(second));
    // The first one's number ends nothing any more.
    client.on(id).abandon_consumer(&name("t"), first);
    assert_eq!(client.sent(), []);
    assert_eq!(given(&mut client, id, 4), Some(second));
}

#[test]
fn a_consumer_that_is_being_cancelled_gets_deliveries_before_the_answer() {
    let (mut client, id) = open();
    let first = client.consumer(id, "t", false);
    let cancelled = client.on(id).call(&cancel()).unwrap();
    client.bytes();
    let (second, request) = ask(&mut client, id);
    assert_eq!(given(&mut client, id, 1), Some(first));
    client.send(1, &cancel_ok());
    client.send(1, &consume_ok());
    assert_eq!(
        client.events(),
        [
            replied(id, cancelled, cancel_ok()),
            replied(id, request, consume_ok())
        ]
    );
    assert_eq!(given(&mut client, id, 2), Some(second));
}

/// The cancel is not answered, but the consume-ok of the next one shows that it was handled.
#[test]
fn deliveries_that_cross_a_cancel_without_an_answer_are_not_the_next_consumer_s() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.on(id).send(&cancel()).unwrap();
    client.bytes();
    assert_eq!(given(&mut client, id, 1), None);
    let (second, request) = ask(&mut client, id);
    assert_eq!(given(&mut client, id, 2), None);
    // A cancel of the server's that crosses is the first one's, too.
    client.send(1, &cancel().no_wait(true));
    assert_eq!(client.events(), []);
    client.send(1, &consume_ok());
    assert_eq!(client.events(), [replied(id, request, consume_ok())]);
    assert_eq!(given(&mut client, id, 3), Some(second));
}

/// A cancel of a tag that is being cancelled ends nothing, whenever its answer comes.
#[test]
fn a_second_cancel_ends_nothing() {
    let (mut client, id) = open();
    let first = client.consumer(id, "t", false);
    client.on(id).abandon_consumer(&name("t"), first);
    let again = client.on(id).call(&cancel()).unwrap();
    client.bytes();
    let (second, request) = ask(&mut client, id);
    client.send(1, &cancel_ok());
    client.send(1, &cancel_ok());
    client.send(1, &consume_ok());
    assert_eq!(
        client.events(),
        [
            replied(id, again, cancel_ok()),
            replied(id, request, consume_ok())
        ]
    );
    assert_eq!(given(&mut client, id, 1), Some(second));
}

/// Put back, and delivered again, and put back: that has an end, and it is the channel's.
#[test]
fn deliveries_without_a_consumer_are_not_put_back_without_end() {
    for (answered, taken) in [(true, 64), (false, 65_535)] {
        let (mut client, id) = open();
        client.consumer(id, "t", false);
        if answered {
            client.call(id, &cancel(), &cancel_ok());
        } else {
            client.on(id).send(&cancel()).unwrap();
            client.bytes();
        }
        for number in 1..=taken {
            assert_eq!(given(&mut client, id, number), None, "{number}");
        }
        client.deliver(id, "t", taken + 1);
        let Event::ChannelClosed { reason, .. } = client.only_event() else {
            panic!("it goes on");
        };
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{reason}");
        };
        assert_eq!(error.fault, Fault::UnknownConsumer(name("t")));
        let Method::ChannelClose(close) = client.only_method() else {
            panic!("no close for the server");
        };
        assert_eq!(close.reply_code, ReplyCode::PRECONDITION_FAILED);
        assert!(client.conn.is_open());
    }
}

/// However many consumers come and go, those that ended are not all kept.
#[test]
fn consumers_that_ended_are_forgotten_in_time() {
    let (mut client, id) = open();
    for number in 0..1000 {
        let tag = alloc::format!("tag-{number}");
        client.consumer(id, &tag, false);
        let gone = basic::Cancel::default().consumer_tag(&tag);
        client.on(id).send(&gone).unwrap();
    }
    client.bytes();
    client.deliver(id, "tag-999", 1);
    assert_eq!(client.sent(), [put_back(1)]);
    client.deliver(id, "tag-0", 2);
    assert!(matches!(client.only_event(), Event::ChannelClosed { .. }));
}
