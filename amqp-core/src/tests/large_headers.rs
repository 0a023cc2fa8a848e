//! Content headers that are larger than a frame, which RabbitMQ sends all the same.

use alloc::{string::ToString as _, vec, vec::Vec};

use super::{script::*, side::UNDECODABLE};
use crate::{
    ApiMisuse, ChannelId, CloseCause, Fault, MethodDef as _, ProtocolError, RequestError, Requeue,
    client::{Config, Connection, Event, Outcome},
    frame::FrameKind,
    protocol::{Method, ReplyCode, basic, channel, confirm, connection},
    wire::{DecodeError, FieldTable, LongStr},
};

type Client = Script<Connection>;

/// A client that agreed on frames of 8 KiB and takes headers of 100 KB.
fn client() -> Client {
    let mut config = Config::default();
    config.limits.header = 100_000;
    let tune = connection::Tune {
        channel_max: 2047,
        frame_max: 8192,
        heartbeat: 0,
    };
    Client::tuned(config, &tune)
}

/// Properties with a header of that length.
fn with_header(len: usize) -> basic::Properties {
    let text = LongStr::from(vec![b'h'; len]);
    basic::Properties::default().headers(FieldTable::new().with("h", text))
}

/// A whole message.
fn message<M: crate::MethodDef>(
    method: &M,
    properties: &basic::Properties,
    body: &[u8],
) -> Vec<u8> {
    let mut bytes = method_frame(1, method);
    bytes.extend(header_frame(1, properties, body.len() as u64));
    for piece in body.chunks(4000) {
        bytes.extend(frame(FrameKind::Body, 1, piece));
    }
    bytes
}

fn too_large(properties: &basic::Properties) -> Fault {
    Fault::HeaderTooLarge {
        size: header_frame(1, properties, 0).len() as u64,
        limit: 100_000,
    }
}

fn unreadable(id: ChannelId, number: Option<u64>, properties: &basic::Properties) -> Event {
    Event::Unreadable {
        channel: id,
        consumer: Some(crate::ConsumerId(0)),
        tag: number.map(tag),
        fault: too_large(properties),
    }
}

fn rejected(number: u64, requeue: bool) -> Sent {
    let delivery_tag = number;
    if requeue {
        let multiple = false;
        method(
            1,
            basic::Nack {
                delivery_tag,
                multiple,
                requeue,
            },
        )
    } else {
        method(
            1,
            basic::Reject {
                delivery_tag,
                requeue,
            },
        )
    }
}

#[test]
fn a_header_over_the_frame_limit_is_taken() {
    for len in [8000, 9000, 50_000, 99_900] {
        let mut client = client();
        let id = client.channel();
        client.consumer(id, "t", false);
        let properties = with_header(len);
        for body in [&b""[..], b"body"] {
            client.send_content(1, &deliver("t", 1), &properties, body);
            let Event::Delivered(delivery) = client.only_event() else {
                panic!("no delivery");
            };
            assert_eq!(delivery.content.properties.decode(), Ok(properties.clone()));
            assert_eq!(delivery.content.body, body);
        }
        assert!(client.conn.is_open());
    }
}

/// Nothing but a content header that is due may be larger than a frame.
#[test]
fn other_frames_keep_to_the_frame_limit() {
    for kind in [FrameKind::Method, FrameKind::Header, FrameKind::Body] {
        let mut client = client();
        let id = client.channel();
        client.consumer(id, "t", false);
        client.feed(&frame(kind, 1, &[0; 9000])[..7]);
        let Event::Closed(reason) = client.only_event() else {
            panic!("{kind:?} is taken");
        };
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{reason}");
        };
        let (size, limit) = (9008, 8192);
        assert_eq!(error.fault, Fault::FrameTooLarge { size, limit });
    }
}

/// Nor is another frame taken for the content header that is due.
#[test]
fn another_frame_in_the_place_of_a_large_header_is_refused() {
    for kind in [FrameKind::Method, FrameKind::Body] {
        let mut client = client();
        let id = client.channel();
        client.consumer(id, "t", false);
        client.send(1, &deliver("t", 1));
        client.feed(&frame(kind, 1, &[0; 9000])[..7]);
        let Event::Closed(reason) = client.only_event() else {
            panic!("{kind:?} is taken");
        };
        assert!(
            matches!(reason.cause(), CloseCause::ProtocolError(error)
                if matches!(error.fault, Fault::FrameTooLarge { .. })),
            "{reason}"
        );
    }
}

/// Feeds a stream in pieces of several sizes, and returns the events of each.
fn in_pieces(mut prepare: impl FnMut() -> Client, stream: &[u8]) -> (Vec<Event>, Vec<Sent>) {
    let sizes = [stream.len(), 1, 7, 19, 1000, 8192];
    let mut all = sizes.map(|size| {
        let mut client = prepare();
        let mut events = Vec::new();
        for piece in stream.chunks(size) {
            client.feed(piece);
            events.extend(client.events());
            assert!(client.conn.read_hint() <= 100_000, "{size}");
        }
        (events, client.sent())
    });
    for other in &all[1..] {
        assert_eq!(*other, all[0]);
    }
    core::mem::take(&mut all[0])
}

#[test]
fn a_header_over_its_own_limit_costs_one_message() {
    let long = with_header(200_000);
    for (no_ack, body) in [
        (false, &b"body"[..]),
        (true, b"body"),
        (false, b""),
        (true, b""),
    ] {
        let mut id = None;
        let prepare = || {
            let mut client = client();
            let channel = client.channel();
            client.consumer(channel, "t", no_ack);
            id = Some(channel);
            client
        };
        let short = basic::Properties::default();
        let stream = [
            message(&deliver("t", 1), &short, b"1"),
            message(&deliver("t", 2), &long, body),
            message(&deliver("t", 3), &short, b"3"),
        ];
        let (events, sent) = in_pieces(prepare, &stream.concat());
        let [Event::Delivered(first), lost, Event::Delivered(third)] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(
            (&first.content.body, &third.content.body),
            (&b"1"[..].into(), &b"3"[..].into())
        );
        let number = (!no_ack).then_some(2);
        assert_eq!(*lost, unreadable(id.unwrap(), number, &long));
        // It is dead-lettered, and does not come again.
        let expected: Vec<_> = number
            .map(|number| rejected(number, false))
            .into_iter()
            .collect();
        assert_eq!(sent, expected);
    }
}

#[test]
fn a_header_over_its_own_limit_is_said_to_be_over_it() {
    let fault = Fault::HeaderTooLarge { size: 5, limit: 4 };
    assert_eq!(
        fault.to_string(),
        "a content header of 5 bytes is over Limits::header (4)"
    );
}

#[test]
fn a_message_rejected_for_its_header_is_not_outstanding() {
    let mut client = client();
    let id = client.channel();
    client.consumer(id, "t", false);
    client.feed(&message(&deliver("t", 1), &with_header(200_000), b"x"));
    client.bytes();
    let late = client.on(id).ack(crate::Tags::One(tag(1)));
    assert_eq!(late, Err(ApiMisuse::UnknownDeliveryTag(1)));
}

#[test]
fn a_fetched_message_with_a_header_over_its_limit_fails_its_request() {
    let long = with_header(200_000);
    for no_ack in [false, true] {
        for abandoned in [false, true] {
            let mut request = None;
            let prepare = || {
                let mut client = client();
                let id = client.channel();
                let get = basic::Get::default().no_ack(no_ack);
                let get = client.on(id).get(&get).unwrap();
                if abandoned {
                    client.conn.abandon(id, get);
                }
                client.bytes();
                request = Some(get);
                client
            };
            let got = basic::GetOk::default().delivery_tag(1);
            let (events, sent) = in_pieces(prepare, &message(&got, &long, b"body"));
            let cause = RequestError::Unreadable(ProtocolError {
                code: None,
                ..too_large(&long).at(Some(1), Some(basic::Get::ID))
            });
            let failed = Event::Failed {
                request: request.unwrap(),
                cause,
            };
            assert_eq!(events, if abandoned { vec![] } else { vec![failed] });
            // The content of an abandoned get is not looked at: another consumer may read it.
            let reject = rejected(1, abandoned);
            assert_eq!(sent, if no_ack { vec![] } else { vec![reject] });
        }
    }
}

#[test]
fn a_returned_message_with_a_header_over_its_limit_leaves_its_publish_in_doubt() {
    let mut client = client();
    let id = client.confirm_channel();
    let none = basic::Properties::default();
    let to = |key: &str| basic::Publish {
        mandatory: true,
        ..publish(key)
    };
    for key in ["a", "b", "a", "c"] {
        client.on(id).publish(&to(key), &none, "x").unwrap();
    }
    client.bytes();
    let returned = basic::Return {
        reply_code: ReplyCode::NO_ROUTE,
        routing_key: name("a"),
        ..basic::Return::default()
    };
    let long = with_header(200_000);
    client.feed(&message(&returned, &long, b"x"));
    let Event::Unreadable {
        consumer: None,
        tag: None,
        fault,
        ..
    } = client.only_event()
    else {
        panic!("no event of it");
    };
    assert_eq!(fault, too_large(&long));
    client.send(1, &ack(4, true));
    let mut events = client.events();
    events.sort_by_key(|event| match event {
        Event::Settled { first, .. } => first.get(),
        _ => 0,
    });
    assert_eq!(
        events,
        [
            settled(id, 1, 1, Outcome::PossiblyReturned),
            settled(id, 2, 4, Outcome::Acked),
        ]
    );
}

/// The header is read far enough to find the body behind it, with any fault.
#[test]
fn a_fault_in_a_header_that_is_passed_over_counts() {
    let long = with_header(200_000);
    let good = header_frame(1, &long, 1);
    let mut class = good.clone();
    class[8] = 61;
    let mut weight = good.clone();
    weight[10] = 7;
    let mut end = good.clone();
    *end.last_mut().unwrap() = 0xCD;
    for (bad, fault) in [
        (class, Fault::HeaderClass(61)),
        (weight, Fault::HeaderWeight(7)),
        (end, Fault::FrameEnd(0xCD)),
    ] {
        let prepare = || {
            let mut client = client();
            let id = client.channel();
            client.consumer(id, "t", false);
            client
        };
        let stream = [method_frame(1, &deliver("t", 1)), bad].concat();
        let (events, _) = in_pieces(prepare, &stream);
        let [Event::Closed(reason)] = &events[..] else {
            panic!("{events:?}");
        };
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{reason}");
        };
        assert_eq!(error.fault, fault);
    }
}

/// A body over the limit behind such a header is passed over with it.
#[test]
fn a_body_over_its_limit_behind_a_header_over_its_limit_costs_the_message_only() {
    let mut config = Config::default();
    (config.limits.header, config.limits.body) = (0, 10);
    let mut client = Client::open_with(config);
    let id = client.channel();
    client.consumer(id, "t", false);
    client.feed(&message(&deliver("t", 1), &with_header(140_000), &[0; 50]));
    assert!(matches!(client.only_event(), Event::Unreadable { .. }));
    assert!(client.on(id).is_open());
}

#[test]
fn on_a_channel_that_closes_it_is_passed_over() {
    for len in [20_000, 200_000] {
        let long = with_header(len);
        let whole = message(&deliver("t", 1), &long, b"body");
        // Closed before the message, in its header, and in its body.
        for at in [0, 2000, whole.len() - 15] {
            let mut client = client();
            let id = client.channel();
            client.consumer(id, "t", false);
            client.feed(&whole[..at]);
            client.on(id).close(ReplyCode::SUCCESS, "bye").unwrap();
            client.bytes();
            client.feed(&whole[at..]);
            client.feed(&message(&deliver("t", 2), &long, b""));
            client.send(1, &channel::CloseOk);
            assert!(matches!(client.only_event(), Event::Reply { .. }), "{at}");
            // The number is free, and its next message is whole.
            let (again, _) = client.conn.open_channel_at(1).unwrap();
            client.send(1, &channel::OpenOk);
            client.events();
            client.consumer(again, "t", false);
            client.feed(&message(&deliver("t", 1), &with_header(20_000), b"body"));
            assert!(matches!(client.only_event(), Event::Delivered(_)));
        }
    }
}

#[test]
fn while_the_connection_closes_it_is_passed_over() {
    for len in [20_000, 200_000] {
        let whole = message(&deliver("t", 1), &with_header(len), b"body");
        for at in [0, 2000, whole.len() - 15] {
            let mut client = client();
            let id = client.channel();
            client.consumer(id, "t", false);
            client.feed(&whole[..at]);
            client.conn.close(ReplyCode::SUCCESS, "bye");
            client.bytes();
            client.feed(&whole[at..]);
            assert!(!client.conn.is_finished(), "{len} {at}");
            client.send(0, &connection::CloseOk);
            let events = client.events();
            assert!(matches!(&events[..], [Event::Closed(reason)] if reason.is_clean()));
        }
    }
}

/// Properties that cannot be read cost nothing but themselves.
#[test]
fn properties_that_cannot_be_read_are_delivered_and_can_be_rejected() {
    let mut deep = vec![0x20, 0];
    let mut table = Vec::new();
    for _ in 0..40 {
        let len = u32::try_from(table.len()).unwrap();
        table.splice(..0, [&b"\x01tF"[..], &len.to_be_bytes()].concat());
    }
    deep.extend(u32::try_from(table.len()).unwrap().to_be_bytes());
    deep.extend(table);
    let cases = [
        (&[][..], DecodeError::Truncated),
        (&deep, DecodeError::TableTooDeep),
    ];
    for (properties, error) in cases.into_iter().chain(UNDECODABLE) {
        let mut client = client();
        let id = client.channel();
        client.consumer(id, "t", false);
        let payload = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], properties].concat();
        client.send(1, &deliver("t", 1));
        client.feed(&frame(FrameKind::Header, 1, &payload));
        let Event::Delivered(delivery) = client.only_event() else {
            panic!("{error} is not delivered");
        };
        let kept = delivery.content.properties;
        assert_eq!(kept.as_bytes(), properties);
        assert_eq!(kept.decode(), Err(error));
        // They do not go on by accident: the next one would have the same trouble.
        let again = client.on(id).publish(&publish("q"), &kept, "body");
        assert_eq!(again, Err(ApiMisuse::MalformedProperties(error).into()));
        assert_eq!(client.bytes(), b"");
        client.on(id).reject(tag(1), Requeue::No).unwrap();
        let Method::BasicReject(_) = client.only_method() else {
            panic!("not rejected");
        };
    }
    // Neither does a refused publish take a number.
    let mut client = client();
    let id = client.channel();
    client.call(id, &confirm::Select::default(), &confirm::SelectOk);
    let broken = crate::EncodedProperties::from_wire(vec![0x80, 0].into());
    assert!(client.on(id).publish(&publish("q"), &broken, "x").is_err());
    assert_eq!(client.publish(id, b"x"), Some(seq(1)));
}
