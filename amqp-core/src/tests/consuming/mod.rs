//! Consumers and their deliveries.

mod acknowledging;
mod cancelling;
mod fetching;

use alloc::{format, vec, vec::Vec};

use crate::{
    ApiMisuse, ChannelId, CloseCause, ConsumerId, Fault,
    client::{Connection, Delivery, Event},
    frame::FrameKind,
    protocol::{ReplyCode, basic, queue},
    tests::script::*,
};

type Client = Script<Connection>;

fn consume_ok(tag: &str) -> basic::ConsumeOk {
    basic::ConsumeOk::default().consumer_tag(tag)
}

fn cancel(tag: &str, no_wait: bool) -> basic::Cancel {
    let consumer_tag = name(tag);
    basic::Cancel {
        consumer_tag,
        no_wait,
    }
}

fn cancel_ok(tag: &str) -> basic::CancelOk {
    basic::CancelOk::default().consumer_tag(tag)
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
    let bind = queue::Bind::default().exchange("ex");
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
fn a_delivery_without_a_consumer_is_a_fault() {
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
fn consumers_of_a_channel_are_distinct() {
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
    // Also with `no_wait`: without a reply, a tag of the server's would stay unknown.
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

/// Deliveries in one piece, of which each is compared with the one before, and byte by byte.
#[test]
fn deliveries_that_resemble_each_other_keep_their_names() {
    let long = "x".repeat(39);
    let names = [
        ("tag", "exchange", "key"),
        ("tag", "exchang", "ekey"),
        ("tagg", "xchange", "key"),
        ("tag", "exchange", "kex"),
        ("tag", "exchange", long.as_str()),
        ("tag", "", ""),
    ];
    let order = [0, 0, 1, 0, 2, 2, 3, 0, 4, 4, 5, 0, 0, 2, 4];
    let sent: Vec<basic::Deliver> = (1..)
        .zip(order)
        .map(|(number, at)| {
            let (tag, exchange, key) = names[at];
            deliver(tag, number)
                .exchange(exchange)
                .routing_key(key)
                .redelivered(number % 3 == 0)
        })
        .collect();
    for at_once in [true, false] {
        let mut client = Client::open();
        let id = client.channel();
        let consumers = ["tag", "tagg"].map(|tag| (tag, client.consumer(id, tag, false)));
        let properties = basic::Properties::default();
        let input: Vec<u8> = sent
            .iter()
            .flat_map(|deliver| {
                let method = method_frame(id.number(), deliver);
                let header = header_frame(id.number(), &properties, 4);
                [method, header, frame(FrameKind::Body, id.number(), b"body")]
            })
            .flatten()
            .collect();
        let pieces = if at_once { input.len() } else { 1 };
        for piece in input.chunks(pieces) {
            client.feed(piece);
        }
        let events = client.events();
        assert_eq!(events.len(), sent.len());
        for (event, sent) in events.into_iter().zip(&sent) {
            let Event::Delivered(delivery) = event else {
                panic!("{event:?}");
            };
            assert_eq!(delivery.method, *sent);
            let of_tag = consumers.iter().find(|(tag, _)| sent.consumer_tag == **tag);
            assert_eq!(Some(delivery.consumer), of_tag.map(|(_, id)| *id));
            assert_eq!(delivery.content.body, "body");
        }
    }
}

/// The size of the next frame is known while a body of large frames goes on.
#[test]
fn the_size_of_the_next_body_frame_is_expected() {
    const LARGE: usize = 16 << 10;
    // By the sizes of the frames of a body: what is expected after each.
    let cases: [(&[usize], &[usize]); 3] = [
        (&[LARGE, LARGE, LARGE, 1], &[LARGE + 8, LARGE + 8, 0, 0]),
        (&[LARGE, LARGE], &[LARGE + 8, 0]),
        (&[LARGE - 1, LARGE - 1, LARGE - 1], &[0, 0, 0]),
    ];
    for (sizes, expected) in cases {
        let (mut client, id) = open();
        client.consumer(id, "t", true);
        client.send(1, &deliver("t", 1));
        let size = sizes.iter().sum::<usize>() as u64;
        client.feed(&header_frame(1, &basic::Properties::default(), size));
        assert_eq!(client.conn.frame_hint(), 0);
        for (&size, &expected) in sizes.iter().zip(expected) {
            client.feed(&frame(FrameKind::Body, 1, &vec![0; size]));
            assert_eq!(client.conn.frame_hint(), expected, "{sizes:?}");
        }
        delivered(&mut client);
    }
}
