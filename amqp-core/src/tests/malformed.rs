//! What no correct peer sends: each ends in a close with the right code, and one final event.

use alloc::{vec, vec::Vec};

use super::{
    pair::Pair,
    sampler::{Harmless, Sample as _},
    samples::every_method,
    side::{Event, Role, Side, body_frame, header_frame, method_bytes, method_frame, raw_frame},
};
use crate::{
    CloseCause, DeliveryTag, Fault, Limits, MethodDef as _, MethodId, Tags,
    client::{self, Checks, Event as ClientEvent},
    frame::PROTOCOL_HEADER,
    protocol::{Method, RULES, ReplyCode, basic, channel, connection, queue},
    server,
    wire::{DecodeError, Encode as _},
};

/// Where the harm is done: a channel that is open, and has a consumer.
const OPEN: u16 = 1;

fn open_side(role: Role) -> Side {
    let client = client::Config {
        checks: Checks::Standard,
        ..client::Config::default()
    };
    let mut pair = Pair::open_with(client, server::Config::default());
    let id = pair.open_channel();
    let consume = basic::Consume::sample(&mut Harmless::default()).no_wait(true);
    pair.client_channel(id).consume(consume).unwrap();
    pair.exchange();
    Side::of(pair, role)
}

/// A method that begins a message to that role.
fn content_method(role: Role) -> Method {
    let sampler = &mut Harmless::default();
    match role {
        Role::Client => basic::Deliver::sample(sampler).into(),
        Role::Server => basic::Publish::sample(sampler).into(),
    }
}

/// The method and the header of a message.
fn content(role: Role, body_size: u64) -> Vec<u8> {
    let method = method_frame(OPEN, &content_method(role));
    [method, header_frame(OPEN, 60, 0, body_size, &[])].concat()
}

/// Feeds good bytes and then bad ones, whole and in pieces, and checks that the connection is
/// closed for that fault, with that code, because of that method.
fn refused(
    role: Role,
    good: &[u8],
    bad: &[u8],
    (fault, code): (Fault, u16),
    method: Option<MethodId>,
) {
    let stream = [good, bad].concat();
    let mut whole = open_side(role);
    let events = whole.feed(&stream);
    whole.assert_failed(&events, &fault, code, method);
    for size in [1, 3, 1000] {
        let mut side = open_side(role);
        assert_eq!(side.feed_pieces(stream.chunks(size)), events);
        side.assert_failed(&events, &fault, code, method);
    }
    // What follows makes no difference.
    let mut side = open_side(role);
    let more = method_frame(OPEN, &channel::Close::default().into());
    assert_eq!(side.feed(&[&stream[..], &more].concat()), events);
    side.assert_failed(&events, &fault, code, method);
    // Neither does it that this side wanted to close anyway.
    let mut side = open_side(role);
    side.close(ReplyCode::SUCCESS, "bye");
    let closing = side.feed(&stream);
    side.assert_failed(&closing, &fault, code, method);
}

#[test]
fn a_frame_with_a_wrong_end() {
    for role in Role::BOTH {
        let method = method_frame(OPEN, &content_method(role));
        for frame in [
            method,
            raw_frame(8, 0, &[], 0),
            body_frame(OPEN, &[0; 3000]),
            raw_frame(2, 7, &[0; 14], 0),
        ] {
            for end in [0, 0xCD, 0xFF] {
                let mut bad = frame.clone();
                *bad.last_mut().unwrap() = end;
                refused(role, &[], &bad, (Fault::FrameEnd(end), 501), None);
            }
        }
    }
}

#[test]
fn an_unknown_frame_type_is_told_to_a_server_at_its_first_octet() {
    for role in Role::BOTH {
        for kind in (0..=255).filter(|kind| !matches!(kind, 1 | 2 | 3 | 8)) {
            let mut side = open_side(role);
            let bad = raw_frame(kind, 0, &[], 0xCE);
            // A server looks at the type when the frame is there, as RabbitMQ does.
            let events = match role {
                Role::Client => side.feed(&bad[..1]),
                Role::Server => side.feed_pieces(bad.chunks(1)),
            };
            side.assert_failed(&events, &Fault::FrameType(kind), 501, None);
        }
        let bad = raw_frame(4, OPEN, b"trace", 0xCE);
        refused(role, &[], &bad, (Fault::FrameType(4), 501), None);
    }
    // Then something else may be wrong before that.
    let bad = raw_frame(4, OPEN, b"trace", 0xCD);
    refused(Role::Server, &[], &bad, (Fault::FrameEnd(0xCD), 501), None);
    let fault = Fault::FrameTooLarge {
        size: 131_081,
        limit: 131_080,
    };
    let bad = [4, 0, OPEN as u8, 0, 2, 0, 1];
    refused(Role::Server, &[], &bad, (fault, 501), None);
}

#[test]
fn frames_of_gigabytes_are_refused_at_their_size() {
    for role in Role::BOTH {
        let limit = if role == Role::Server {
            131_080
        } else {
            131_072
        };
        for kind in [1, 2, 3, 8] {
            for size in [u32::MAX, u32::MAX - 8, 1 << 31, limit - 7] {
                let mut head = raw_frame(kind, OPEN, &[], 0);
                head[3..7].copy_from_slice(&size.to_be_bytes());
                let size = u64::from(size) + 8;
                let fault = Fault::FrameTooLarge { size, limit };
                refused(role, &[], &head[..7], (fault, 501), None);
            }
        }
    }
}

#[test]
fn unknown_classes_and_methods() {
    for role in Role::BOTH {
        for channel in [0, OPEN, 77, u16::MAX] {
            for class in [0, 31, 61, 120, u16::MAX] {
                let id = MethodId::new(class, 10);
                let bad = method_bytes(channel, id, &[1, 2, 3]);
                let fault = Fault::Decode(DecodeError::UnknownClass(class));
                refused(role, &[], &bad, (fault, 503), Some(id));
            }
            for rule in RULES {
                let id = MethodId::new(rule.id.class, 999);
                let bad = method_bytes(channel, id, &[]);
                let fault = Fault::Decode(DecodeError::UnknownMethod(id));
                let mut side = open_side(role);
                let events = side.feed(&bad);
                side.assert_failed(&events, &fault, 503, Some(id));
            }
        }
    }
}

#[test]
fn frames_too_short_for_what_they_should_hold() {
    for role in Role::BOTH {
        let fault = || (Fault::FrameTooShort, 501);
        for len in 0..4 {
            for channel in [0, OPEN, 77] {
                let bad = raw_frame(1, channel, &[0, 60, 0, 40][..len], 0xCE);
                refused(role, &[], &bad, fault(), None);
            }
        }
        let method = content_method(role);
        let good = method_frame(OPEN, &method);
        for len in 0..12 {
            let header = [0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
            let bad = raw_frame(2, OPEN, &header[..len], 0xCE);
            refused(role, &good, &bad, fault(), Some(method.id()));
        }
    }
}

/// The methods whose arguments are read on an open connection with an open channel: not those
/// that are a fault whatever they say.
fn read_methods(role: Role) -> impl Iterator<Item = (u16, Method, Vec<u8>)> {
    let methods = every_method(&mut Harmless::default());
    methods.into_iter().filter_map(move |method| {
        let rule = method.rule();
        let unread = [channel::Open::ID, channel::CloseOk::ID].contains(&rule.id);
        if !role.hears(rule) || unread {
            return None;
        }
        let mut arguments = bytes::BytesMut::new();
        method.encode(&mut arguments);
        let number = if rule.connection { 0 } else { OPEN };
        Some((number, method, arguments.to_vec()))
    })
}

#[test]
fn arguments_that_are_cut_short() {
    for role in Role::BOTH {
        for (number, method, arguments) in read_methods(role) {
            let id = method.id();
            for len in 0..arguments.len() {
                let bad = method_bytes(number, id, &arguments[..len]);
                let fault = Fault::Decode(DecodeError::Truncated);
                let mut side = open_side(role);
                let events = side.feed(&bad);
                side.assert_failed(&events, &fault, 502, Some(id));
            }
        }
    }
}

#[test]
fn bytes_behind_the_arguments() {
    for role in Role::BOTH {
        for (number, method, mut arguments) in read_methods(role) {
            let id = method.id();
            for left in 1..3 {
                arguments.push(0);
                let bad = method_bytes(number, id, &arguments);
                let fault = Fault::Decode(DecodeError::TrailingBytes { left });
                let mut side = open_side(role);
                let events = side.feed(&bad);
                side.assert_failed(&events, &fault, 502, Some(id));
            }
        }
    }
}

/// A table with so many tables in each other, on the wire.
fn nested_tables(depth: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 1..depth {
        let len = u32::try_from(table.len()).unwrap();
        table.splice(..0, [&[0, b'F'][..], &len.to_be_bytes()].concat());
    }
    let len = u32::try_from(table.len()).unwrap();
    table.splice(..0, len.to_be_bytes());
    table
}

#[test]
fn tables_nested_ten_thousand_deep() {
    for depth in [33, 10_000] {
        let table = nested_tables(depth);
        let fault = || (Fault::Decode(DecodeError::TableTooDeep), 502);
        let method = content_method(Role::Server);
        let good = method_frame(OPEN, &method);
        let properties = [&[0x20, 0][..], &table].concat();
        let bad = header_frame(OPEN, 60, 0, 1, &properties);
        refused(Role::Server, &good, &bad, fault(), Some(method.id()));
        let arguments = [&[0, 0, 0, 0][..], &table].concat();
        let id = queue::Declare::ID;
        let bad = method_bytes(OPEN, id, &arguments);
        refused(Role::Server, &[], &bad, fault(), Some(id));
    }
    let good = [&[0x20, 0][..], &nested_tables(32)].concat();
    for role in Role::BOTH {
        let mut side = open_side(role);
        side.feed(&method_frame(OPEN, &content_method(role)));
        let events = side.feed(&header_frame(OPEN, 60, 0, 0, &good));
        assert!(events.len() == 1 && side.close_reason().is_none());
    }
}

/// Before anybody has logged in, too.
#[test]
fn table_bombs_in_the_handshake() {
    let table = nested_tables(1300);
    let fault = Fault::Decode(DecodeError::TableTooDeep);
    let mut server = Side::server(server::Config::default());
    server.feed(&PROTOCOL_HEADER);
    server.sent();
    let id = connection::StartOk::ID;
    let events = server.feed(&method_bytes(0, id, &table));
    server.assert_failed(&events, &fault, 502, Some(id));

    let mut client = Side::client(client::Config::default());
    client.sent();
    let id = connection::Start::ID;
    let arguments = [&[0, 9][..], &table].concat();
    let events = client.feed(&method_bytes(0, id, &arguments));
    client.assert_failed(&events, &fault, 502, Some(id));
}

#[test]
fn properties_that_do_not_decode_end_a_client_of_a_server() {
    let cases: [(&[u8], DecodeError); 8] = [
        (&[0], DecodeError::Truncated),
        (&[0, 1], DecodeError::Truncated),
        (&[0x80, 0], DecodeError::Truncated),
        (&[0x80, 0, 5, b'a'], DecodeError::Truncated),
        (&[0, 0, 0], DecodeError::TrailingBytes { left: 1 }),
        (&[0, 2], DecodeError::UnknownProperty),
        (
            &[0x20, 0, 0, 0, 0, 2, 0, b'?'],
            DecodeError::UnknownFieldType(b'?'),
        ),
        (
            &[0x20, 0, 0, 0, 0, 3, 0, b'S', 9],
            DecodeError::LengthMismatch,
        ),
    ];
    let method = content_method(Role::Server);
    let good = method_frame(OPEN, &method);
    for (properties, error) in cases {
        let bad = header_frame(OPEN, 60, 0, 0, properties);
        let fault = (Fault::Decode(error), 502);
        refused(Role::Server, &good, &bad, fault, Some(method.id()));
    }
    let none = raw_frame(2, OPEN, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0xCE);
    let fault = (Fault::Decode(DecodeError::Truncated), 502);
    refused(Role::Server, &good, &none, fault, Some(method.id()));
}

#[test]
fn headers_of_another_class_or_with_a_weight() {
    for role in Role::BOTH {
        let method = content_method(role);
        let good = method_frame(OPEN, &method);
        for class in [0, 10, 50, 61, u16::MAX] {
            let bad = header_frame(OPEN, class, 0, 1, &[]);
            let fault = (Fault::HeaderClass(class), 505);
            refused(role, &good, &bad, fault, Some(method.id()));
        }
        for weight in [1, u16::MAX] {
            let bad = header_frame(OPEN, 60, weight, 1, &[]);
            let fault = (Fault::HeaderWeight(weight), 505);
            refused(role, &good, &bad, fault, Some(method.id()));
        }
    }
}

#[test]
fn content_out_of_its_order() {
    for role in Role::BOTH {
        let method = Some(content_method(role).id());
        let begun = method_frame(OPEN, &content_method(role));
        let header = || header_frame(OPEN, 60, 0, 1, &[]);
        let body = || body_frame(OPEN, b"x");
        let no_header = || (Fault::UnexpectedHeader, 505);
        let no_body = || (Fault::UnexpectedBody, 505);
        refused(role, &[], &header(), no_header(), None);
        refused(role, &[], &body(), no_body(), None);
        refused(role, &[], &body_frame(OPEN, &[]), no_body(), None);
        refused(role, &begun, &body(), no_body(), method);
        refused(role, &content(role, 2), &header(), no_header(), method);
        let mid_body = [content(role, 2), body()].concat();
        refused(role, &mid_body, &header(), no_header(), method);
        let mid_content = (Fault::MethodInContent, 505);
        refused(role, &mid_body, &begun, mid_content, method);
    }
}

/// An empty body has no frame, not even an empty one, and neither has a full one after its end.
#[test]
fn frames_behind_the_end_of_a_body() {
    for role in Role::BOTH {
        let no_body = (Fault::UnexpectedBody, 505);
        for size in [0, 1] {
            let mut message = content(role, size);
            if size > 0 {
                message.extend(body_frame(OPEN, b"x"));
            }
            for piece in [&b""[..], b"y"] {
                let mut side = open_side(role);
                assert_eq!(side.feed(&message).len(), 1);
                let events = side.feed(&body_frame(OPEN, piece));
                side.assert_failed(&events, &no_body.0, no_body.1, None);
            }
        }
    }
}

#[test]
fn bodies_longer_than_announced() {
    for role in Role::BOTH {
        let method = Some(content_method(role).id());
        for (size, len, excess) in [(10, 11, 1), (1, 3000, 2999), (4000, 5000, 1000)] {
            let bad = body_frame(OPEN, &vec![7; len]);
            let fault = (Fault::BodyOverrun { excess }, 505);
            refused(role, &content(role, size), &bad, fault, method);
        }
        let good = [content(role, 10), body_frame(OPEN, b"123456")].concat();
        let bad = body_frame(OPEN, b"78901");
        let fault = (Fault::BodyOverrun { excess: 1 }, 505);
        refused(role, &good, &bad, fault, method);
    }
}

#[test]
fn a_flood_of_empty_body_frames() {
    let limit = Limits::default().empty_frames;
    for role in Role::BOTH {
        let method = Some(content_method(role).id());
        let empty = body_frame(OPEN, &[]);
        let good = [content(role, 2), empty.repeat(limit as usize)].concat();
        let fault = (Fault::TooManyEmptyFrames(limit + 1), 505);
        refused(role, &good, &empty, fault, method);

        // As many as are tolerated do no harm, and each message has its own.
        let mut side = open_side(role);
        let whole = [&good[..], &body_frame(OPEN, b"ab")].concat();
        for _ in 0..2 {
            assert_eq!(side.feed(&whole).len(), 1);
        }
        assert_eq!(side.close_reason(), None);
    }
}

#[test]
fn heartbeats_on_a_channel_or_with_a_payload() {
    for role in Role::BOTH {
        for bad in [
            raw_frame(8, OPEN, &[], 0xCE),
            raw_frame(8, 77, &[], 0xCE),
            raw_frame(8, 0, &[0], 0xCE),
            raw_frame(8, 0, &[0; 3000], 0xCE),
        ] {
            refused(role, &[], &bad, (Fault::Heartbeat, 501), None);
        }
        // Between the frames of a message they are welcome.
        let mut side = open_side(role);
        let beat = raw_frame(8, 0, &[], 0xCE);
        let mut message = content(role, 2);
        for piece in [b"a", b"b"] {
            message.extend(beat.repeat(3));
            message.extend(body_frame(OPEN, piece));
        }
        assert_eq!(side.feed(&message).len(), 1);
        assert_eq!(side.close_reason(), None);
    }
}

#[test]
fn content_on_channel_zero_and_on_channels_that_are_not_open() {
    for role in Role::BOTH {
        let frames = |number| {
            [
                header_frame(number, 60, 0, 1, &[]),
                body_frame(number, b"x"),
            ]
        };
        for bad in frames(0) {
            let fault = (Fault::ContentOnChannelZero, 505);
            refused(role, &[], &bad, fault, None);
        }
        for number in [2, 2047, 2048, u16::MAX] {
            for bad in frames(number) {
                refused(role, &[], &bad, (Fault::ChannelNotOpen, 504), None);
            }
        }
        let method = content_method(role);
        let bad = method_frame(0, &method);
        let fault = (Fault::WrongChannel, 503);
        refused(role, &[], &bad, fault, Some(method.id()));
    }
}

/// A body that is too large closes its channel and no other. What is still under way is ignored,
/// and the number is free after the answer.
#[test]
fn bodies_of_any_announced_size() {
    let limit = Limits::default().body;
    for role in Role::BOTH {
        for size in [limit + 1, 1 << 32, 1 << 63, u64::MAX] {
            let method = content_method(role).id();
            let mut side = open_side(role);
            let events = side.feed(&content(role, size));
            let [event] = &events[..] else {
                panic!("{events:?}");
            };
            let (number, reason) = event.channel_closed().unwrap();
            let CloseCause::LimitExceeded(error) = reason.cause() else {
                panic!("{reason:?}");
            };
            assert_eq!(error.fault, Fault::BodyTooLarge { size, limit });
            assert_eq!(
                (number, error.channel, error.method),
                (OPEN, Some(OPEN), Some(method))
            );
            let [close] = &side.sent_frames()[..] else {
                panic!("one close");
            };
            let Method::ChannelClose(said) = close.method() else {
                panic!("{close:?}");
            };
            let code = match role {
                Role::Client => 311,
                Role::Server => 406,
            };
            assert_eq!((close.channel, said.reply_code.0), (OPEN, code));
            assert_eq!(MethodId::new(said.class_id, said.method_id), method);

            // The rest, and one more message; then the answer.
            let rest = [
                body_frame(OPEN, &[1; 5000]),
                body_frame(OPEN, &[]),
                content(role, 1),
                body_frame(OPEN, b"x"),
            ];
            assert_eq!(side.feed(&rest.concat()), []);
            let close_ok = method_frame(OPEN, &channel::CloseOk.into());
            assert_eq!(side.feed(&close_ok), []);
            assert!(side.close_reason().is_none() && side.sent().is_empty());
            match role {
                Role::Client => assert!(side.as_client().open_channel_at(OPEN).is_ok()),
                Role::Server => {
                    let open = method_frame(OPEN, &channel::Open.into());
                    assert_eq!(side.feed(&open).len(), 1);
                }
            }
        }
        let mut side = open_side(role);
        assert_eq!(side.feed(&content(role, limit)), []);
        assert!(side.close_reason().is_none() && side.sent().is_empty());
    }
}

/// While the connection closes for a reason of its own, a channel's fault does not become the
/// connection's.
#[test]
fn a_body_too_large_while_the_connection_closes() {
    for role in Role::BOTH {
        let mut side = open_side(role);
        side.close(ReplyCode::SUCCESS, "bye");
        let stream = [content(role, u64::MAX), body_frame(OPEN, b"more of it")].concat();
        let events = side.feed(&stream);
        let channels: Vec<_> = events.iter().filter_map(Event::channel_closed).collect();
        assert_eq!((events.len(), channels.len()), (1, 1), "{events:?}");
        let sent = side.sent_frames();
        let Some(Method::ConnectionClose(close)) = sent.last().map(|sent| sent.method()) else {
            panic!("{sent:?}");
        };
        assert_eq!(close.reply_code, ReplyCode::SUCCESS);
        let close_ok = connection::CloseOk;
        let events = side.feed(&method_frame(0, &close_ok.into()));
        assert!(matches!(&events[..], [event] if event.closed().unwrap().is_clean()));
    }
}

/// What a client is told of consumers, deliveries and publishes must make sense.
#[test]
fn what_a_server_says_of_things_that_are_not_there() {
    let name = Harmless::default().short_str();
    // The fault of one channel, with the code that is its channel's.
    let refused = |message: &[u8], fault: Fault, id| {
        let mut side = open_side(Role::Client);
        let events = side.feed(message);
        let Some((number, reason)) = events.last().and_then(Event::channel_closed) else {
            panic!("{fault:?} gives {events:?}");
        };
        assert_eq!((number, reason.code()), (OPEN, Some(ReplyCode(406))));
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{fault:?} gives {reason:?}");
        };
        assert_eq!((&error.fault, error.method), (&fault, Some(id)));
        assert_eq!(side.close_reason(), None);
    };
    let header = header_frame(OPEN, 60, 0, 0, &[]);
    let deliver = basic::Deliver::default().delivery_tag(1);
    let unknown = deliver.clone().consumer_tag("nobody").unwrap();
    let unknown = [method_frame(OPEN, &unknown.into()), header.clone()].concat();
    let fault = Fault::UnknownConsumer("nobody".try_into().unwrap());
    refused(&unknown, fault, basic::Deliver::ID);
    let zero = deliver.delivery_tag(0).consumer_tag(&name).unwrap();
    let zero = [method_frame(OPEN, &zero.into()), header].concat();
    let mut side = open_side(Role::Client);
    let events = side.feed(&zero);
    let id = Some(basic::Deliver::ID);
    side.assert_failed(&events, &Fault::ZeroDeliveryTag, 503, id);
    for tag in [0, 1, u64::MAX] {
        for multiple in [false, true] {
            let ack = basic::Ack::default().delivery_tag(tag).multiple(multiple);
            let fault = Fault::UnknownPublish(tag);
            let id = basic::Ack::ID;
            refused(&method_frame(OPEN, &ack.into()), fault, id);
        }
    }
}

/// Numbers of deliveries come from the server, and may be any.
#[test]
fn delivery_tags_at_the_end_of_their_range() {
    let deliver = |tag| {
        let mut random = Harmless::default();
        let deliver = basic::Deliver::sample(&mut random).delivery_tag(tag);
        let header = header_frame(OPEN, 60, 0, 0, &[]);
        [method_frame(OPEN, &deliver.into()), header].concat()
    };
    let mut client = open_side(Role::Client);
    let mut last = None;
    for tag in [u64::MAX - 1, u64::MAX, u64::MAX, 1, u64::MAX] {
        let events = client.feed(&deliver(tag));
        let [Event::Client(ClientEvent::Delivered(delivery))] = &events[..] else {
            panic!("{events:?}");
        };
        last = Some((delivery.channel, delivery.tag.unwrap()));
    }
    let (id, tag) = last.unwrap();
    let mut channel = client.as_client().channel(id).unwrap();
    channel.ack(Tags::One(tag)).unwrap();
    assert!(channel.ack(Tags::One(tag)).is_err());
    channel
        .ack(Tags::UpTo(DeliveryTag::new(u64::MAX - 1).unwrap()))
        .unwrap();
    assert_eq!(client.close_reason(), None);
}

#[test]
fn limits_that_cannot_be_agreed_to() {
    for value in [1, 4095] {
        let mut client = Side::client(client::Config::default());
        client.sent();
        let start = connection::Start::sample(&mut Harmless::default());
        client.feed(&method_frame(0, &start.into()));
        client.sent();
        let tune = connection::Tune::default().frame_max(value);
        let events = client.feed(&method_frame(0, &tune.into()));
        let setting = "frame_max";
        let fault = Fault::Tuning { setting, value };
        client.assert_failed(&events, &fault, 530, Some(connection::Tune::ID));
    }
    let cases = [
        ("frame_max", 0, 0),
        ("frame_max", 0, 4096),
        ("frame_max", 0, 131_073),
        ("channel_max", 0, 8192),
        ("channel_max", 2048, 8192),
    ];
    for (setting, channel_max, frame_max) in cases {
        let mut server = Side::server(server::Config::default());
        server.feed(&PROTOCOL_HEADER);
        let start_ok = connection::StartOk::sample(&mut Harmless::default());
        server.feed(&method_frame(0, &start_ok.into()));
        server.as_server().accept().unwrap();
        server.sent();
        let of_channels = setting == "channel_max";
        let tune_ok = connection::TuneOk {
            channel_max: if of_channels { channel_max } else { 100 },
            frame_max,
            heartbeat: 0,
        };
        let events = server.feed(&method_frame(0, &tune_ok.into()));
        let value = if of_channels {
            channel_max.into()
        } else {
            frame_max
        };
        let fault = Fault::Tuning { setting, value };
        server.assert_failed(&events, &fault, 530, Some(connection::TuneOk::ID));
    }
}
