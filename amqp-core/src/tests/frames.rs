//! Frames: cut into pieces, in a row, too large, and wrong.

use alloc::{string::ToString as _, vec, vec::Vec};

use bytes::BytesMut;

use super::{
    pair::Pair,
    side::{
        Event, Role, Side, body_frame, frames, header_frame, method_bytes, method_frame, raw_frame,
    },
};
use crate::{
    CloseCause, Fault, MethodDef as _, NotAmqp, Stage,
    client::{self, Event as ClientEvent},
    frame::{ContentHeader, Frame, FrameKind, PROTOCOL_HEADER, split_method},
    protocol::{Method, basic, connection, queue},
    server::{self, Event as ServerEvent},
    wire::{FieldTable, ShortStr},
};

const LIMIT: u32 = 8192;

/// A server's first frame, with so much to say of itself that it takes several pieces.
fn start() -> (connection::Start, Vec<u8>) {
    let properties = FieldTable::new()
        .with("product", "test")
        .with("information", "x".repeat(1000));
    let start = connection::Start::default()
        .version_minor(9)
        .server_properties(properties)
        .mechanisms("PLAIN AMQPLAIN")
        .locales("en_US");
    let frame = method_frame(0, &start.clone().into());
    (start, frame)
}

/// A client that has sent its protocol header.
fn greeting_client() -> Side {
    let mut client = Side::client(client::Config::default());
    assert_eq!(client.sent(), &PROTOCOL_HEADER[..]);
    client
}

/// Reads frames as a tool would: each piece is appended, and whole frames are taken off the front.
#[derive(Default)]
struct Reader {
    buffer: Vec<u8>,
}

impl Reader {
    fn feed(&mut self, piece: &[u8]) -> Vec<(FrameKind, u16, usize)> {
        self.buffer.extend(piece);
        let mut taken = Vec::new();
        while let Some(frame) = Frame::parse(&self.buffer, LIMIT).unwrap() {
            taken.push((frame.kind, frame.channel, frame.len()));
            let len = frame.len();
            self.buffer.drain(..len);
        }
        taken
    }
}

#[test]
fn one_start_frame_is_one_frame() {
    let (start, bytes) = start();
    let frame = Frame::parse(&bytes, LIMIT).unwrap().unwrap();
    assert_eq!((frame.kind, frame.channel), (FrameKind::Method, 0));
    assert_eq!(frame.len(), bytes.len());
    let (id, arguments) = split_method(frame.payload).unwrap();
    assert_eq!(id, connection::Start::ID);
    assert_eq!(Method::decode(id, arguments), Ok(start.clone().into()));

    let mut client = greeting_client();
    assert_eq!(client.feed(&bytes), []);
    let properties = client.as_client().server_properties();
    assert_eq!(properties, &start.server_properties);
    let [sent] = &client.sent_frames()[..] else {
        panic!("one answer");
    };
    assert!(matches!(sent.method(), Method::ConnectionStartOk(_)));
}

#[test]
fn a_frame_in_two_pieces() {
    let (_, bytes) = start();
    for cut in 0..bytes.len() {
        let (first, second) = bytes.split_at(cut);
        let mut reader = Reader::default();
        assert_eq!(reader.feed(first), []);
        assert_eq!(
            reader.feed(second),
            [(FrameKind::Method, 0, bytes.len())],
            "cut at {cut}"
        );

        let mut client = greeting_client();
        assert_eq!(client.feed(first), []);
        assert_eq!(client.as_client().stage(), Stage::Greeting);
        assert!(client.sent().is_empty());
        assert_eq!(client.feed(second), []);
        assert_eq!(client.as_client().stage(), Stage::Authenticating);
        assert_eq!(client.sent_frames().len(), 1);
    }
}

#[test]
fn a_frame_in_pieces_of_a_hundred_bytes() {
    let (_, bytes) = start();
    let mut reader = Reader::default();
    let mut client = greeting_client();
    let pieces: Vec<_> = bytes.chunks(100).collect();
    let (last, before) = pieces.split_last().unwrap();
    assert!(before.len() > 9);
    for piece in before {
        assert_eq!(reader.feed(piece), []);
        assert_eq!(client.feed(piece), []);
        assert_eq!(client.as_client().stage(), Stage::Greeting);
    }
    assert_eq!(reader.feed(last), [(FrameKind::Method, 0, bytes.len())]);
    assert_eq!(client.feed(last), []);
    assert_eq!(client.as_client().stage(), Stage::Authenticating);
}

/// The bytes that a machine asks for are those that are missing.
#[test]
fn the_missing_bytes_are_reported() {
    let (_, bytes) = start();
    let mut client = greeting_client();
    let mut fed = 0;
    while fed < bytes.len() {
        let piece = &bytes[fed..(fed + 100).min(bytes.len())];
        fed += piece.len();
        client.feed(piece);
        assert_eq!(client.as_client().read_hint(), bytes.len() - fed);
    }
    client.feed(&[1, 0]);
    assert_eq!(client.as_client().read_hint(), 6, "a frame has eight bytes");
}

#[test]
fn two_frames_in_one_piece() {
    let (_, first) = start();
    let heartbeat = raw_frame(8, 0, &[], 0xCE);
    let both = [&first[..], &heartbeat].concat();
    let mut reader = Reader::default();
    assert_eq!(
        reader.feed(&both),
        [
            (FrameKind::Method, 0, first.len()),
            (FrameKind::Heartbeat, 0, 8)
        ]
    );
    assert!(reader.buffer.is_empty());
    assert_eq!(Frame::parse(&reader.buffer, LIMIT), Ok(None));

    let id = Pair::open().open_channel();
    let mut server = Side::of(one_channel(), Role::Server);
    let purge = queue::Purge::default().queue("q");
    let frame = method_frame(1, &purge.clone().into());
    let events = server.feed(&[&frame[..], &heartbeat, &frame].concat());
    let request = Event::Server(ServerEvent::Request {
        channel: id,
        method: purge.into(),
    });
    assert_eq!(events, [request.clone(), request]);
}

fn one_channel() -> Pair {
    let mut pair = Pair::open();
    pair.open_channel();
    pair
}

#[test]
fn one_frame_and_a_part_of_the_next() {
    let (_, first) = start();
    let both = first.repeat(2);
    let mut reader = Reader::default();
    let part = first.len() + 150;
    let one = [(FrameKind::Method, 0, first.len())];
    assert_eq!(reader.feed(&both[..part]), one);
    assert_eq!(reader.buffer, &first[..150]);
    assert_eq!(reader.feed(&both[part..]), one);

    let mut client = greeting_client();
    let tune = connection::Tune::default().frame_max(LIMIT).heartbeat(60);
    let stream = [&first[..], &method_frame(0, &tune.into())].concat();
    client.feed(&stream[..first.len() + 15]);
    assert_eq!(client.as_client().stage(), Stage::Authenticating);
    client.feed(&stream[first.len() + 15..]);
    assert_eq!(client.as_client().stage(), Stage::Opening);
}

/// The end octet is looked at, wherever the frame was cut, and is no part of the payload: not even
/// when the payload is full of it.
#[test]
fn the_end_octet_of_a_large_frame() {
    let body = vec![0xCE; 20_000];
    let publish = method_frame(1, &basic::Publish::default().into());
    let head = [&publish[..], &header_frame(1, 60, 0, 20_000, &[])].concat();
    let frame = body_frame(1, &body);
    for size in [1, 7, 100, 4096, 20_007, 20_008] {
        let mut server = Side::of(one_channel(), Role::Server);
        server.feed(&head);
        let events = server.feed_pieces(frame.chunks(size));
        let [Event::Server(ServerEvent::Published(published))] = &events[..] else {
            panic!("{events:?}");
        };
        assert_eq!(published.content.body, body[..]);

        let mut wrong = frame.clone();
        *wrong.last_mut().unwrap() = 0xCF;
        let mut server = Side::of(one_channel(), Role::Server);
        server.feed(&head);
        let events = server.feed_pieces(wrong.chunks(size));
        server.assert_failed(&events, &Fault::FrameEnd(0xCF), 501, None);
    }
}

#[test]
fn the_protocol_header() {
    assert_eq!(PROTOCOL_HEADER, [b'A', b'M', b'Q', b'P', 0, 0, 9, 1]);
    let mut server = Side::server(server::Config::default());
    for octet in &PROTOCOL_HEADER[..7] {
        assert_eq!(server.feed(&[*octet]), []);
        assert!(server.sent().is_empty());
    }
    assert_eq!(server.feed(&PROTOCOL_HEADER[7..]), []);
    let [start] = &server.sent_frames()[..] else {
        panic!("one frame");
    };
    let Method::ConnectionStart(start) = start.method() else {
        panic!("{start:?}");
    };
    assert_eq!((start.version_major, start.version_minor), (0, 9));
}

/// A peer of another protocol receives the protocol header, and the reason has its bytes.
#[test]
fn another_protocol_header_is_named() {
    let cases: [(&[u8; 8], NotAmqp, &str); 8] = [
        (
            b"AMQP\x01\x01\x00\x0a",
            NotAmqp::OtherVersion([1, 1, 0, 10]),
            "AMQP 1.0.10",
        ),
        (
            b"AMQP\x00\x00\x09\x00",
            NotAmqp::OtherVersion([0, 0, 9, 0]),
            "AMQP 0.9.0",
        ),
        (
            b"AMQP\xff\xff\xff\xff",
            NotAmqp::OtherVersion([255; 4]),
            "AMQP 255.255.255",
        ),
        (b"GET / HT", NotAmqp::Http, "HTTP"),
        (b"POST /ap", NotAmqp::Http, "HTTP"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01", NotAmqp::Tls, "TLS"),
        (
            b"AMQX\x00\x00\x09\x01",
            NotAmqp::Unknown(*b"AMQX\x00\x00\x09\x01"),
            "41, 4d, 51, 58",
        ),
        (b"SSH-2.0-", NotAmqp::Unknown(*b"SSH-2.0-"), "53, 53, 48"),
    ];
    for (bytes, expected, named) in cases {
        // In any pieces.
        for cut in 0..8 {
            let mut server = Side::server(server::Config::default());
            let events = server.feed_pieces([&bytes[..cut], &bytes[cut..]]);
            let [reason] = &events.iter().filter_map(Event::closed).collect::<Vec<_>>()[..] else {
                panic!("{events:?}");
            };
            assert_eq!(reason.cause(), &CloseCause::NotAmqp(expected.clone()));
            assert!(reason.to_string().contains(named), "{reason}");
            assert_eq!(server.sent(), &PROTOCOL_HEADER[..]);
            assert!(server.is_finished());
        }
    }
}

/// Other servers that a client may reach, in any pieces.
#[test]
fn the_answer_is_not_a_frame() {
    let cases: [(&[u8; 8], NotAmqp); 6] = [
        (b"AMQP\x03\x01\x00\x00", NotAmqp::OtherVersion([3, 1, 0, 0])),
        (b"AMQP\x00\x00\x09\x01", NotAmqp::OtherVersion([0, 0, 9, 1])),
        (b"HTTP/1.1", NotAmqp::Http),
        (b"\x15\x03\x01\x00\x02\x02\x0a\x00", NotAmqp::Tls),
        (b"SSH-2.0-", NotAmqp::Unknown(*b"SSH-2.0-")),
        (b"HTTQ/1.1", NotAmqp::Unknown(*b"HTTQ/1.1")),
    ];
    for (bytes, expected) in cases {
        for cut in 0..8 {
            let mut client = greeting_client();
            let events = client.feed_pieces([&bytes[..cut], &bytes[cut..]]);
            let [Event::Client(ClientEvent::Closed(reason))] = &events[..] else {
                panic!("{events:?}");
            };
            assert_eq!(reason.cause(), &CloseCause::NotAmqp(expected.clone()));
            assert!(client.is_finished() && client.sent().is_empty());
        }
    }
}

#[test]
fn a_heartbeat_cut_short_or_with_a_wrong_end() {
    let heartbeat = raw_frame(8, 0, &[], 0xCE);
    for len in 0..heartbeat.len() {
        assert_eq!(Frame::parse(&heartbeat[..len], LIMIT), Ok(None));
    }
    let wrong = raw_frame(8, 0, &[], 0xAE);
    assert_eq!(Frame::parse(&wrong, LIMIT), Err(Fault::FrameEnd(0xAE)));
    for role in Role::BOTH {
        let mut side = Side::of(Pair::open(), role);
        assert_eq!(side.feed(&heartbeat[..7]), []);
        assert_eq!(side.close_reason(), None);
        assert_eq!(side.feed(&heartbeat[7..]), []);
        assert_eq!(side.close_reason(), None);
        let events = side.feed(&wrong);
        side.assert_failed(&events, &Fault::FrameEnd(0xAE), 501, None);
    }
}

/// A frame over the limit is refused as soon as its size is known, and one at the limit is not.
#[test]
fn a_frame_over_the_limit() {
    let large = body_frame(1, &[0; 10_000]);
    let limit = 1000;
    let fault = Fault::FrameTooLarge {
        size: 10_008,
        limit,
    };
    for len in 0..7 {
        assert_eq!(Frame::parse(&large[..len], limit), Ok(None));
    }
    for len in [7, 8, large.len()] {
        assert_eq!(Frame::parse(&large[..len], limit), Err(fault.clone()));
    }
    assert_eq!(fault.code().0, 501);
    let at_limit = body_frame(1, &[0; 992]);
    assert!(Frame::parse(&at_limit, limit).unwrap().is_some());
    let over = body_frame(1, &[0; 993]);
    assert!(Frame::parse(&over, limit).is_err());

    let config = client::Config {
        frame_max: 8192,
        ..client::Config::default()
    };
    for role in Role::BOTH {
        let limit = LIMIT;
        let side = || {
            let config = client::Config {
                frame_max: config.frame_max,
                ..client::Config::default()
            };
            let mut pair = Pair::open_with(config, server::Config::default());
            pair.open_channel();
            Side::of(pair, role)
        };
        for kind in 1..=3 {
            let mut at_limit = side();
            let payload = vec![0xff; limit as usize - 8];
            at_limit.feed(&raw_frame(kind, 1, &payload, 0xCE)[..7]);
            assert_eq!(at_limit.close_reason(), None);

            let mut over = side();
            let payload = vec![0xff; limit as usize - 7];
            let events = over.feed(&raw_frame(kind, 1, &payload, 0xCE)[..7]);
            let fault = Fault::FrameTooLarge {
                size: u64::from(limit) + 1,
                limit,
            };
            over.assert_failed(&events, &fault, 501, None);
        }
    }
}

/// Before the limits are agreed on, a frame has at most 8192 bytes.
#[test]
fn a_frame_over_the_limit_of_the_handshake() {
    let text = |len| {
        let start = connection::Start::default()
            .version_minor(9)
            .locales("en_US");
        start.mechanisms([b"PLAIN ".as_slice(), &vec![b'x'; len]].concat())
    };
    let overhead = method_frame(0, &text(0).into()).len();
    let mut client = greeting_client();
    assert_eq!(
        client.feed(&method_frame(0, &text(8192 - overhead).into())),
        []
    );
    assert_eq!(client.as_client().stage(), Stage::Authenticating);

    let mut client = greeting_client();
    let events = client.feed(&method_frame(0, &text(8193 - overhead).into()));
    let fault = Fault::FrameTooLarge {
        size: 8193,
        limit: 8192,
    };
    client.assert_failed(&events, &fault, 501, None);
}

/// A frame that was read can be written.
#[test]
fn frames_are_written_as_they_were_read() {
    let publish = method_frame(3, &basic::Publish::default().into());
    let header = header_frame(3, 60, 0, 5, &[]);
    let body = body_frame(3, b"hello");
    let heartbeat = raw_frame(8, 0, &[], 0xCE);
    let mut stream = &[publish, header.clone(), body, heartbeat].concat()[..];
    let mut written = BytesMut::new();
    let whole = stream.to_vec();
    while let Some(frame) = Frame::parse(stream, LIMIT).unwrap() {
        frame.encode(&mut written);
        stream = &stream[frame.len()..];
    }
    assert_eq!(written, whole[..]);
    assert_eq!(frames(&whole).len(), 4);

    let frame = Frame::parse(&header, LIMIT).unwrap().unwrap();
    let header = ContentHeader::parse(frame.payload).unwrap();
    assert_eq!((header.class, header.weight, header.body_size), (60, 0, 5));
    assert_eq!(header.properties, [0, 0]);
    for len in 0..12 {
        assert_eq!(
            ContentHeader::parse(&frame.payload[..len]),
            Err(Fault::FrameTooShort)
        );
    }
    for len in 0..4 {
        assert_eq!(
            split_method(&[0, 60, 0, 40][..len]),
            Err(Fault::FrameTooShort)
        );
    }
    let id = basic::Publish::ID;
    assert_eq!(split_method(&[0, 60, 0, 40]), Ok((id, &[][..])));
    assert_eq!(method_bytes(1, id, &[]).len(), 12);
    assert!(ShortStr::from_static("x").is_some());
}
