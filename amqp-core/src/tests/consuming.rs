//! Consumers, deliveries, fetched messages, and their acknowledgement.

use alloc::{format, vec::Vec};

use super::script::*;
use crate::{
    ApiMisuse, ChannelId, CloseCause, ConsumerId, Fault, RequestError, Requeue, Tags,
    client::{Connection, Delivery, Event},
    frame::FrameKind,
    protocol::{ReplyCode, basic, queue},
};

type Client = Script<Connection>;

fn consume_ok(tag: &str) -> basic::ConsumeOk {
    basic::ConsumeOk::default().consumer_tag(tag).unwrap()
}

fn cancel(tag: &str, no_wait: bool) -> basic::Cancel {
    let consumer_tag = name(tag);
    basic::Cancel {
        consumer_tag,
        no_wait,
    }
}

fn cancel_ok(tag: &str) -> basic::CancelOk {
    basic::CancelOk::default().consumer_tag(tag).unwrap()
}

/// The only thing that happened is a delivery.
fn delivered(client: &mut Client) -> Delivery {
    match client.only_event() {
        Event::Delivered(delivery) => delivery,
        other => panic!("{other:?}"),
    }
}

/// The fault that the connection was closed for.
fn fault(client: &mut Client) -> Fault {
    let events = client.events();
    let Some(Event::Closed(reason)) = events.last() else {
        panic!("the connection goes on: {events:?}");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    error.fault.clone()
}

/// A delivery for that tag has ended its channel, and nothing else.
fn assert_unknown_consumer(client: &mut Client, tag: &str) {
    let Event::ChannelClosed { reason, .. } = client.only_event() else {
        panic!("the channel goes on");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert_eq!(error.fault, Fault::UnknownConsumer(name(tag)));
    assert_eq!(reason.code(), Some(ReplyCode::PRECONDITION_FAILED));
    assert!(client.conn.is_open());
}

fn open() -> (Client, ChannelId) {
    let mut client = Client::open();
    let id = client.channel();
    (client, id)
}

fn got(client: &mut Client) -> Option<(Option<u64>, Vec<u8>)> {
    let Event::Got { message, .. } = client.only_event() else {
        panic!("nothing was fetched");
    };
    message.map(|message| {
        let tag = message.tag.map(|tag| tag.get());
        (tag, message.content.body.to_vec())
    })
}

#[test]
fn a_message_is_fetched_in_frames() {
    let (mut client, id) = open();
    let properties = basic::Properties::default().delivery_mode(2);
    let get = basic::Get::default().queue("q").unwrap();
    let request = client.on(id).get(&get).unwrap();
    assert_eq!(client.sent(), [method(1, get.clone())]);
    let ok = basic::GetOk {
        delivery_tag: 1,
        redelivered: true,
        exchange: name("ex"),
        routing_key: name("key"),
        message_count: 7,
    };
    client.send(1, &ok);
    client.feed(&header_frame(1, &properties, 10));
    client.feed(&frame(FrameKind::Body, 1, b"hello "));
    assert_eq!(client.events(), []);
    client.feed(&frame(FrameKind::Body, 1, b"you!"));
    let Event::Got {
        channel,
        request: answered,
        message,
    } = client.only_event()
    else {
        panic!("nothing was fetched");
    };
    assert_eq!((channel, answered), (id, request));
    let message = message.unwrap();
    assert_eq!(message.tag, Some(tag(1)));
    assert_eq!(message.method, ok);
    assert_eq!(message.content.body, b"hello you!");
    assert_eq!(message.content.properties.decode().unwrap(), properties);
    client.on(id).ack(Tags::One(tag(1))).unwrap();

    let request = client.on(id).get(&get).unwrap();
    client.send(1, &basic::GetEmpty);
    let message = None;
    assert_eq!(
        client.events(),
        [Event::Got {
            channel: id,
            request,
            message
        }]
    );
}

#[test]
fn each_get_has_its_own_answer() {
    let (mut client, id) = open();
    client.consumer(id, "t", true);
    let properties = basic::Properties::default();
    let keep = basic::Get::default();
    let no_ack = basic::Get::default().no_ack(true);
    let large = [7; 50_000];
    let get_ok = |number| basic::GetOk::default().delivery_tag(number);
    let requests: Vec<_> = [&keep, &keep, &no_ack, &keep]
        .into_iter()
        .map(|get| client.on(id).get(get).unwrap())
        .collect();
    client.bytes();
    client.send_content(1, &get_ok(1), &properties, &large);
    client.send(1, &basic::GetEmpty);
    client.deliver(id, "t", 2);
    client.send_content(1, &get_ok(3), &properties, &large);
    client.send_content(1, &get_ok(4), &properties, b"");
    let mut answers = Vec::new();
    for event in client.events() {
        if let Event::Got {
            request, message, ..
        } = event
        {
            let message = message.map(|message| (message.tag, message.content.body.len()));
            answers.push((request, message));
        } else {
            assert!(matches!(event, Event::Delivered(_)));
        }
    }
    assert_eq!(
        answers,
        [
            (requests[0], Some((Some(tag(1)), 50_000))),
            (requests[1], None),
            (requests[2], Some((None, 50_000))),
            (requests[3], Some((Some(tag(4)), 0))),
        ]
    );
    // What was fetched without acknowledgement is not outstanding.
    let unknown = ApiMisuse::UnknownDeliveryTag(3);
    assert_eq!(client.on(id).ack(Tags::One(tag(3))), Err(unknown));
    client.on(id).ack(Tags::UpTo(tag(4))).unwrap();
    // And nobody asked for another one.
    client.send(1, &basic::GetEmpty);
    assert_eq!(fault(&mut client), Fault::UnexpectedReply);
}

#[test]
fn a_message_that_nobody_fetched_is_a_fault() {
    let (mut client, id) = open();
    client.on(id).call(&queue::Declare::default()).unwrap();
    let properties = basic::Properties::default();
    let ok = basic::GetOk::default().delivery_tag(1);
    client.send_content(1, &ok, &properties, b"x");
    assert_eq!(fault(&mut client), Fault::UnexpectedReply);
}

#[test]
fn a_consumer_with_an_answer() {
    let (mut client, id) = open();
    let (consumer, request) = client.consume(id, consume("q", "t"));
    assert_eq!(client.sent(), [method(1, consume("q", "t"))]);
    client.send(1, &consume_ok("t"));
    assert_eq!(client.events(), [replied(id, request, consume_ok("t"))]);
    let method = basic::Deliver {
        redelivered: true,
        exchange: name("ex"),
        routing_key: name("key"),
        ..deliver("t", 1)
    };
    let properties = basic::Properties::default().priority(0);
    client.send_content(1, &method, &properties, b"body");
    let delivery = delivered(&mut client);
    assert_eq!((delivery.channel, delivery.consumer), (id, consumer));
    assert_eq!(delivery.tag, Some(tag(1)));
    assert_eq!(delivery.method, method);
    assert_eq!(delivery.content.body, b"body");
    assert_eq!(delivery.content.properties.decode().unwrap(), properties);
    // An empty one is whole with its header.
    client.send(1, &deliver("t", 2));
    client.feed(&header_frame(1, &properties, 0));
    assert!(delivered(&mut client).content.body.is_empty());
}

#[test]
fn a_consumer_without_an_answer() {
    let (mut client, id) = open();
    let wanted = consume("q", "t").no_wait(true);
    let (consumer, request) = client.consume(id, wanted.clone());
    assert_eq!(client.sent(), [method(1, wanted)]);
    // Every request has an outcome, and this one has it at once.
    assert_eq!(client.events(), [replied(id, request, consume_ok("t"))]);
    client.deliver(id, "t", 1);
    assert_eq!(delivered(&mut client).consumer, consumer);
    client.send(1, &consume_ok("t"));
    assert_eq!(fault(&mut client), Fault::UnexpectedReply);
}

#[test]
fn a_method_in_the_middle_of_a_message_is_a_fault() {
    for frames in 1..3 {
        let (mut client, id) = open();
        client.consumer(id, "t", false);
        client.send(1, &deliver("t", 1));
        if frames > 1 {
            client.feed(&header_frame(1, &basic::Properties::default(), 10));
            client.feed(&frame(FrameKind::Body, 1, b"12345"));
        }
        client.send(1, &cancel("t", true));
        assert_eq!(fault(&mut client), Fault::MethodInContent);
    }
}

#[test]
fn deliveries_may_come_before_consume_ok() {
    let (mut client, id) = open();
    let (consumer, request) = client.consume(id, consume("q", "t"));
    client.deliver(id, "t", 1);
    assert_eq!(delivered(&mut client).consumer, consumer);
    client.send(1, &consume_ok("t"));
    assert_eq!(client.events(), [replied(id, request, consume_ok("t"))]);
}

#[test]
fn answers_of_different_kinds_come_in_any_order() {
    let (mut client, id) = open();
    let bind = queue::Bind::default().exchange("ex").unwrap();
    let (first, one) = client.consume(id, consume("q", "one"));
    let (second, two) = client.consume(id, consume("q", "two"));
    let binding = client.on(id).call(&bind).unwrap();
    let get = client.on(id).get(&basic::Get::default()).unwrap();
    client.bytes();
    client.send(1, &queue::BindOk);
    client.send(1, &consume_ok("two"));
    client.send(1, &basic::GetEmpty);
    client.deliver(id, "two", 1);
    client.deliver(id, "one", 2);
    client.send(1, &consume_ok("one"));
    let mut events = client.events();
    let deliveries: Vec<_> = events.drain(3..5).collect();
    let message = None;
    assert_eq!(
        events,
        [
            replied(id, binding, queue::BindOk),
            replied(id, two, consume_ok("two")),
            Event::Got {
                channel: id,
                request: get,
                message
            },
            replied(id, one, consume_ok("one")),
        ]
    );
    let consumers: Vec<ConsumerId> = deliveries
        .into_iter()
        .map(|event| match event {
            Event::Delivered(delivery) => delivery.consumer,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(consumers, [second, first]);
}

#[test]
fn an_answer_for_another_consumer_is_a_fault() {
    let (mut client, id) = open();
    client.consume(id, consume("q", "t"));
    client.send(1, &consume_ok("u"));
    assert_eq!(fault(&mut client), Fault::UnexpectedReply);
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.on(id).call(&cancel("t", false)).unwrap();
    client.send(1, &cancel_ok("u"));
    assert_eq!(fault(&mut client), Fault::UnexpectedReply);
}

#[test]
fn a_delivery_for_nobody_is_a_fault() {
    for consumes in [false, true] {
        let (mut client, id) = open();
        if consumes {
            client.consumer(id, "t", false);
        }
        client.deliver(id, "u", 1);
        assert_unknown_consumer(&mut client, "u");
    }
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.deliver(id, "t", 0);
    assert_eq!(fault(&mut client), Fault::ZeroDeliveryTag);
}

#[test]
fn consumers_of_a_channel_are_told_apart() {
    let (mut client, id) = open();
    let consumers: Vec<_> = ["a", "b", "c"]
        .map(|tag| client.consumer(id, tag, false))
        .into();
    let indices: Vec<_> = consumers.iter().map(|consumer| consumer.index()).collect();
    assert_eq!(indices, [0, 1, 2]);
    for (number, (tag, consumer)) in (1..).zip(["a", "b", "c"].into_iter().zip(consumers)) {
        client.deliver(id, tag, number);
        let delivery = delivered(&mut client);
        assert_eq!(
            (delivery.consumer, &*delivery.method.consumer_tag),
            (consumer, tag)
        );
    }
}

#[test]
fn messages_of_two_channels_may_be_interleaved() {
    let (mut client, one) = open();
    let two = client.channel();
    client.consumer(one, "t", false);
    client.consumer(two, "t", false);
    let properties = basic::Properties::default();
    client.send(1, &deliver("t", 1));
    client.send(2, &deliver("t", 1));
    client.feed(&header_frame(2, &properties, 6));
    client.feed(&header_frame(1, &properties, 6));
    client.feed(&frame(FrameKind::Body, 1, b"one"));
    client.feed(&frame(FrameKind::Heartbeat, 0, b""));
    client.feed(&frame(FrameKind::Body, 2, b"two"));
    client.feed(&frame(FrameKind::Body, 1, b"ONE"));
    assert_eq!(delivered(&mut client).content.body, b"oneONE");
    client.feed(&frame(FrameKind::Body, 2, b"TWO"));
    assert_eq!(delivered(&mut client).content.body, b"twoTWO");
}

#[test]
fn a_consumer_without_a_tag_gets_a_free_one() {
    let (mut client, id) = open();
    let mut tags = Vec::new();
    for taken in ["ctag-1", "ctag-2", "ctag-5"] {
        client.consumer(id, taken, false);
        tags.push(taken.into());
    }
    for _ in 0..10 {
        client.consume(id, consume("q", ""));
        let sent: basic::Consume = client.only_method().try_into().unwrap();
        tags.push(format!("{}", sent.consumer_tag));
        client.send(1, &consume_ok(&sent.consumer_tag));
        assert_eq!(client.events().len(), 1);
    }
    assert!(tags.iter().all(|tag| !tag.is_empty()));
    let count = tags.len();
    tags.sort();
    tags.dedup();
    assert_eq!(tags.len(), count);
    // Also without an answer, which could not tell a tag of the server's.
    client.consume(id, consume("q", "").no_wait(true));
    let sent: basic::Consume = client.only_method().try_into().unwrap();
    assert!(!sent.consumer_tag.is_empty());
}

#[test]
fn a_tag_in_use_is_refused() {
    let (mut client, id) = open();
    let other = client.channel();
    let refused = |client: &mut Client| {
        let error = client.on(id).consume(consume("q", "t")).unwrap_err();
        assert_eq!(error, ApiMisuse::DuplicateConsumerTag(name("t")));
        assert_eq!(client.sent(), []);
    };
    let (_, request) = client.consume(id, consume("q", "t"));
    client.bytes();
    refused(&mut client);
    client.send(1, &consume_ok("t"));
    assert_eq!(client.events(), [replied(id, request, consume_ok("t"))]);
    refused(&mut client);
    // Tags are the channel's own.
    client.consumer(other, "t", false);
    let request = client.on(id).call(&cancel("t", false)).unwrap();
    client.send(1, &cancel_ok("t"));
    assert_eq!(client.events(), [replied(id, request, cancel_ok("t"))]);
    client.bytes();
    client.consumer(id, "t", false);
    client.on(id).send(&cancel("t", false)).unwrap();
    client.bytes();
    client.consumer(id, "t", false);
}

#[test]
fn what_comes_before_cancel_ok_is_delivered() {
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
fn what_crosses_a_cancel_without_an_answer_is_put_back() {
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
fn a_delivery_after_cancel_ok_is_not_given_to_anybody() {
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
        // Only who waits for an answer gets one (REG-22).
        let answer = [method(1, cancel_ok("t"))];
        let expected = if no_wait { &[][..] } else { &answer };
        assert_eq!(client.sent(), expected);
    }
    // What it had is still to be acknowledged, and its tag is free.
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
    let cause = RequestError::Cancelled { tag: name("t") };
    assert_eq!(client.events(), [Event::Failed { request, cause }]);
    client.send(1, &queue::DeclareOk::default());
    let ok = queue::DeclareOk::default();
    assert_eq!(client.events(), [replied(id, declare, ok)]);
    client.consumer(id, "t", false);
}

#[test]
fn nothing_is_acknowledged_twice() {
    type Deed = fn(&mut crate::client::ChannelMut<'_>) -> Result<(), ApiMisuse>;
    let deeds: [Deed; 4] = [
        |on| on.ack(Tags::One(tag(2))),
        |on| on.nack(Tags::One(tag(2)), Requeue::No),
        |on| on.reject(tag(2), Requeue::Yes),
        |on| on.ack(Tags::UpTo(tag(2))),
    ];
    for first in deeds {
        for second in deeds {
            let (mut client, id) = open();
            client.consumer(id, "t", false);
            for number in 1..=3 {
                client.deliver(id, "t", number);
            }
            client.events();
            let mut on = client.on(id);
            first(&mut on).unwrap();
            let unknown = ApiMisuse::UnknownDeliveryTag(2);
            assert_eq!(second(&mut on), Err(unknown));
            assert_eq!(client.sent().len(), 1);
            assert_eq!(client.events(), []);
            client.on(id).ack(Tags::One(tag(3))).unwrap();
        }
    }
}

#[test]
fn an_acknowledgement_is_for_its_own_channel() {
    let (mut client, id) = open();
    let other = client.channel();
    client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    client.events();
    let unknown = Err(ApiMisuse::UnknownDeliveryTag(1));
    assert_eq!(client.on(other).ack(Tags::One(tag(1))), unknown);
    assert_eq!(client.on(other).ack(Tags::UpTo(tag(1))), unknown);
    assert_eq!(client.sent(), []);
}

#[test]
fn all_of_nothing_is_nothing() {
    let (mut client, id) = open();
    client.consumer(id, "t", true);
    client.deliver(id, "t", 1);
    assert_eq!(delivered(&mut client).tag, None);
    client.on(id).ack(Tags::All).unwrap();
    client.on(id).nack(Tags::All, Requeue::Yes).unwrap();
    assert_eq!(client.sent(), []);
    let unknown = ApiMisuse::UnknownDeliveryTag(1);
    assert_eq!(client.on(id).ack(Tags::One(tag(1))), Err(unknown));
}

#[test]
fn acknowledgements_say_what_they_mean() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    for number in 1..=6 {
        client.deliver(id, "t", number);
    }
    client.events();
    let mut on = client.on(id);
    on.ack(Tags::One(tag(2))).unwrap();
    on.nack(Tags::UpTo(tag(3)), Requeue::Yes).unwrap();
    on.reject(tag(5), Requeue::No).unwrap();
    on.reject(tag(4), Requeue::Yes).unwrap();
    on.ack(Tags::All).unwrap();
    let nack = basic::Nack {
        delivery_tag: 3,
        multiple: true,
        requeue: true,
    };
    let reject = |delivery_tag, requeue| basic::Reject {
        delivery_tag,
        requeue,
    };
    assert_eq!(
        client.sent(),
        [
            method(1, ack(2, false)),
            method(1, nack),
            method(1, reject(5, false)),
            method(1, reject(4, true)),
            // Not 0, which to the server includes what is on its way.
            method(1, ack(6, true)),
        ]
    );
}

#[test]
fn recovery_settles_everything() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    for number in 1..=2 {
        client.deliver(id, "t", number);
    }
    client.events();
    let recover = basic::Recover { requeue: true };
    let request = client.on(id).call(&recover).unwrap();
    client.bytes();
    // This one was delivered before the server knew.
    client.deliver(id, "t", 3);
    delivered(&mut client);
    client.send(1, &basic::RecoverOk);
    assert_eq!(client.events(), [replied(id, request, basic::RecoverOk)]);
    for number in 1..=3 {
        assert!(client.on(id).ack(Tags::One(tag(number))).is_err());
    }
    client.deliver(id, "t", 4);
    delivered(&mut client);
    client.on(id).ack(Tags::One(tag(4))).unwrap();
    client.bytes();

    client.deliver(id, "t", 5);
    delivered(&mut client);
    client.on(id).recover_async(true).unwrap();
    let sent = basic::RecoverAsync { requeue: true };
    assert_eq!(client.sent(), [method(1, sent)]);
    assert!(client.on(id).ack(Tags::One(tag(5))).is_err());
}

#[test]
fn a_fetched_message_and_a_delivery_share_their_numbers() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    delivered(&mut client);
    client.on(id).get(&basic::Get::default()).unwrap();
    client.bytes();
    let ok = basic::GetOk::default().delivery_tag(2);
    client.send_content(1, &ok, &basic::Properties::default(), b"x");
    assert_eq!(got(&mut client), Some((Some(2), b"x".to_vec())));
    client.on(id).ack(Tags::UpTo(tag(2))).unwrap();
    assert_eq!(client.sent(), [method(1, ack(2, true))]);
    assert!(client.on(id).ack(Tags::One(tag(1))).is_err());
}

#[test]
fn a_channel_error_ends_its_consumers() {
    let (mut client, id) = open();
    client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    delivered(&mut client);
    let close = crate::protocol::channel::Close {
        reply_code: ReplyCode::PRECONDITION_FAILED,
        ..Default::default()
    };
    client.send(1, &close);
    assert!(matches!(client.only_event(), Event::ChannelClosed { .. }));
    assert!(client.conn.channel(id).is_none());
}
