//! No input makes the machine take memory beyond its limits.

mod large_bodies;
mod rig;

use amqp_core::{
    FRAME_OVERHEAD, Limits, TimeoutReason, client,
    frame::{FrameKind, PROTOCOL_HEADER},
    protocol::{basic, channel, connection, queue},
    server,
    wire::FieldValue,
};
use amqp_test_support::meter;
use bytes::BytesMut;

use meter::peak_of;
use rig::{
    Machine, NOW, READ, ROOM, Side, begin, body, frame, header, measure, measure_one, method,
    open_pair,
};

#[global_allocator]
static COUNTING: meter::Counting = meter::Counting;

#[test]
fn a_frame_of_four_gigabytes() {
    let sides = measure("a frame of 4 GiB", ROOM, |side| {
        side.feed(&[3, 0, 1, 0xff, 0xff, 0xff, 0xff]);
        for _ in 0..100 {
            side.feed(&[0; READ]);
        }
    });
    assert!(sides.iter().all(|side| side.ends == 1));
}

/// A frame at the limit is waited for, and no more is held than came of it.
#[test]
fn a_frame_that_never_ends() {
    let limit = 128 << 10;
    let whole = body(1, &vec![0; limit - FRAME_OVERHEAD]);
    measure("a frame at the limit", limit + ROOM, |side| {
        side.feed(&begin(side, 1, 1));
        side.feed(&header(1, 1 << 20, &[0, 0]));
        for octet in &whole[..limit - 1] {
            side.feed(&[*octet]);
        }
    });
    let sides = measure("the head of a frame at the limit", ROOM, |side| {
        side.feed(&begin(side, 1, 1));
        side.feed(&header(1, 1 << 20, &[0, 0]));
        side.feed(&whole[..7]);
    });
    for side in sides {
        // A reader needs room for that much.
        assert_eq!(side.endpoint().read_hint(), limit - 7);
    }
}

#[test]
fn a_body_of_all_the_bytes_there_are() {
    let sides = measure("bodies of 2^64 - 1 bytes", ROOM, |side| {
        side.feed(&begin(side, 1, 1));
        side.feed(&header(1, u64::MAX, &[0, 0]));
        for _ in 0..1000 {
            side.feed(&body(1, &[0; 4000]));
        }
    });
    assert!(sides.iter().all(|side| side.ends == 0));
}

/// A body is announced and does not come.
#[test]
fn bodies_that_are_only_announced() {
    measure("bodies that are announced", ROOM, |side| {
        for channel in 1..=2 {
            side.feed(&begin(side, channel, 1));
            side.feed(&header(channel, Limits::default().body, &[0, 0]));
        }
    });
}

/// The pieces of a body cost no more than the bytes in them, however small they are.
#[test]
fn a_body_of_single_bytes() {
    let len = 1 << 20;
    measure("a body of single bytes", len + ROOM, |side| {
        side.feed(&begin(side, 1, 1));
        side.feed(&header(1, len as u64, &[0, 0]));
        let pieces = body(1, b"x").repeat(1 << 10);
        for _ in 0..len / (1 << 10) - 1 {
            side.feed(&pieces);
        }
    });
}

/// Pieces that are far apart on the line keep nothing of the bytes between them.
#[test]
fn a_body_of_single_bytes_between_other_messages() {
    let len = 5000;
    measure("single bytes between messages", ROOM, |side| {
        side.feed(&begin(side, 1, 1));
        side.feed(&header(1, len, &[0, 0]));
        for number in 1..len {
            side.feed(&body(1, b"x"));
            side.feed(&begin(side, 2, number));
            side.feed(&header(2, 2000, &[0, 0]));
            side.feed(&body(2, &[0; 2000]));
        }
    });
}

#[test]
fn a_flood_of_empty_body_frames() {
    let sides = measure("empty body frames", ROOM, |side| {
        side.feed(&begin(side, 1, 1));
        side.feed(&header(1, 1, &[0, 0]));
        let empty = body(1, &[]).repeat(8000);
        for _ in 0..100 {
            side.feed(&empty);
        }
    });
    assert!(sides.iter().all(|side| side.ends == 1));
}

/// The room for the events of a burst is released when no other one follows soon.
#[test]
fn the_memory_for_a_burst_is_released() {
    for mut side in open_pair(server::Config::default()) {
        let message = |number| [begin(&side, 1, number), header(1, 0, &[0, 0])].concat();
        let burst: Vec<u8> = (1..=1000).flat_map(message).collect();
        side.feed(&burst);
        let busy = meter::held();
        let (at, reason) = side.endpoint().poll_timeout().unwrap();
        assert_eq!(reason, TimeoutReason::Idle);
        side.handle_timeout(at);
        let released = busy - meter::held();
        assert!(released > 100 << 10, "{}: {released} bytes", side.role());
        let next = side.endpoint().poll_timeout();
        assert!(next.is_none_or(|(_, reason)| reason != TimeoutReason::Idle));
    }
}

#[test]
fn a_flood_of_heartbeats() {
    let sides = measure("heartbeats", ROOM, |side| {
        let beats = frame(FrameKind::Heartbeat, 0, &[]).repeat(8000);
        for _ in 0..100 {
            side.feed(&beats);
        }
    });
    assert!(sides.iter().all(|side| side.ends == 0));
}

/// Properties are kept as they came.
#[test]
fn large_properties() {
    let mut properties = vec![0x20, 0];
    // A table of fields without a name and without a value.
    let fields = [0, b'V'].repeat(60 << 10);
    properties.extend(u32::try_from(fields.len()).unwrap().to_be_bytes());
    properties.extend(&fields);
    let len = properties.len();
    measure("large properties", 2 * READ + 4 * len + ROOM, |side| {
        for number in 1..100 {
            side.feed(&begin(side, 1, number));
            side.feed(&header(1, 0, &properties));
        }
    });
}

/// Arguments with a table that holds a list of so many values that take no more than an octet.
fn table_of_many(count: usize) -> Vec<u8> {
    let len = |len: usize| u32::try_from(len).unwrap().to_be_bytes();
    let mut table = len(count + 6).to_vec();
    table.extend([0, b'A']);
    table.extend(len(count));
    table.resize(table.len() + count, b'V');
    table
}

/// Tables in arguments become values that are larger than on the wire: their memory is bounded by
/// the frame that they come in.
#[test]
fn tables_of_many_fields() {
    // A list that grows is moved from one block to another of twice the size.
    let allowed = |count: usize| 3 * size_of::<FieldValue>() * count.next_power_of_two() + ROOM;
    let count = 130_000;
    let arguments = [&[0, 0, 0, 0][..], &table_of_many(count)].concat();
    let declare = [&[0, 50, 0, 10][..], &arguments].concat();
    let declare = frame(FrameKind::Method, 1, &declare);
    let [_, server] = open_pair(server::Config::default());
    let server = measure_one("130,000 fields", allowed(count), server, |side| {
        for _ in 0..5 {
            side.feed(&declare);
        }
    });
    assert_eq!(server.ends, 0);

    // Before the login the frame limit is smaller.
    let count = 8000;
    let tail = b"\x05PLAIN\0\0\0\0\x05en_US";
    let start_ok = [&[0, 10, 0, 11][..], &table_of_many(count), tail].concat();
    let start_ok = frame(FrameKind::Method, 0, &start_ok);
    let server = server::Connection::new(server::Config::default(), NOW).unwrap();
    let server = Side::new(Machine::Server(server));
    let server = measure_one("8,000 fields at first", allowed(count), server, |side| {
        side.feed(&PROTOCOL_HEADER);
        side.feed(&start_ok);
    });
    assert_eq!(server.ends, 0);
}

#[test]
fn tables_nested_ten_thousand_deep() {
    let mut table: Vec<u8> = Vec::new();
    for _ in 0..10_000 {
        let len = u32::try_from(table.len()).unwrap().to_be_bytes();
        table.splice(..0, [&[0, b'F'][..], &len].concat());
    }
    let len = u32::try_from(table.len()).unwrap().to_be_bytes();
    let properties = [&[0x20, 0][..], &len, &table].concat();
    let allowed = 3 * properties.len() + ROOM;
    let [client, server] = measure("10,000 tables in each other", allowed, |side| {
        side.feed(&begin(side, 1, 1));
        side.feed(&header(1, 0, &properties));
    });
    // A client delivers them as they are.
    assert_eq!((client.ends, server.ends), (0, 1));
}

/// The channels that a client may open are as many as were agreed on, and each has its price.
#[test]
fn all_the_channels_there_may_be() {
    let each = 1 << 10;
    for (channel_max, most) in [(0, u16::MAX), (2047, 2047)] {
        let config = server::Config::default().channel_max(channel_max);
        let [_, server] = open_pair(config);
        let allowed = each * usize::from(most) + ROOM;
        let server = measure_one("all channels", allowed, server, |side| {
            for number in (3..=most).rev() {
                side.feed(&method(number, channel::Open));
            }
        });
        assert_eq!(server.ends, 0);
        let Machine::Server(server) = server.machine else {
            panic!("a client");
        };
        assert_eq!(server.channel_count(), usize::from(most));
    }
}

#[test]
fn channels_opened_and_closed_for_ever() {
    let [_, server] = open_pair(server::Config::default());
    let server = measure_one("channels come and go", ROOM, server, |side| {
        let open = method(3, channel::Open);
        let close = method(3, channel::Close::default());
        for _ in 0..100_000 {
            side.feed(&open);
            side.feed(&close);
        }
    });
    assert_eq!(server.ends, 0);
}

/// A server that sends requests without reading the answers pays for each with more than it costs.
#[test]
fn requests_that_are_not_answered() {
    let [client, server] = open_pair(server::Config::default());
    let count = 100_000;
    let question = method(1, queue::Purge::default());
    let allowed = count * question.len() + ROOM;
    measure_one("questions", allowed, server, |side| {
        for _ in 0..count {
            side.feed(&question);
        }
    });
    // The numbers of deliveries that wait to be acknowledged, with gaps between them.
    let empty = header(1, 0, &[0, 0]);
    let allowed = count * (begin(&client, 1, 1).len() + empty.len()) + ROOM;
    measure_one("deliveries", allowed, client, |side| {
        for number in 0..count as u64 {
            side.feed(&begin(side, 1, 2 * number + 1));
            side.feed(&empty);
        }
    });
}

/// A request that is answered at once is not kept.
#[test]
fn questions_that_the_machine_answers() {
    let [client, server] = open_pair(server::Config::default());
    measure_one("flow", ROOM, client, |side| {
        let flow = method(1, channel::Flow::default().active(true));
        for _ in 0..1000 {
            side.feed(&flow.repeat(100));
        }
    });
    let update = method(0, connection::UpdateSecret::default());
    measure_one("secrets", ROOM, server, |side| {
        for _ in 0..1000 {
            side.feed(&update.repeat(100));
        }
    });
}

/// No login is needed for the attempt.
#[test]
fn floods_before_the_handshake() {
    type Begin = (&'static str, &'static [u8]);
    let begins: [Begin; 6] = [
        ("nothing", b""),
        ("a method", b"\x01\x00\x00"),
        ("four gigabytes", b"\x01\x00\x00\xff\xff\xff\xff"),
        ("a header", &PROTOCOL_HEADER),
        ("another header", b"AMQP\x01\x01\x00\x0a"),
        ("HTTP", b"GET / HTTP/1.1\r\n"),
    ];
    for (name, begin) in begins {
        for octet in [0, 1, b'A', 0xCE, 0xff] {
            let client = client::Connection::new(client::Config::default(), NOW).unwrap();
            let server = server::Connection::new(server::Config::default(), NOW).unwrap();
            for side in [Machine::Client(client), Machine::Server(server)] {
                let side = measure_one(name, ROOM, Side::new(side), |side| {
                    side.feed(begin);
                    for _ in 0..20 {
                        side.feed(&[octet; READ]);
                    }
                });
                assert_eq!(side.ends, 1, "{name} and then {octet}");
            }
        }
    }
}

/// A connection that is over takes no input.
#[test]
fn floods_behind_the_end() {
    let sides = measure("after the end", ROOM, |side| {
        side.feed(&[0]);
        for _ in 0..100 {
            side.feed(&[1; READ]);
        }
        side.feed(&method(0, connection::CloseOk));
        for _ in 0..100 {
            side.feed(&[1; READ]);
        }
    });
    assert!(sides.iter().all(|side| side.ends == 1));
}

/// A content header may be larger than a frame. Beyond its own limit nothing of it is kept.
#[test]
fn a_content_header_of_four_gigabytes() {
    let [client, _] = open_pair(server::Config::default());
    let client = measure_one("a content header of 4 GiB", ROOM, client, |side| {
        side.feed(&begin(side, 1, 1));
        let mut head = header(1, 1, &[0x20, 0]);
        head[3..7].fill(0xff);
        side.feed(&head[..head.len() - 1]);
        for _ in 0..1000 {
            side.feed(&[0; READ]);
        }
    });
    assert_eq!(client.ends, 0);
    // The hint asks for no room for dropped input.
    assert!(client.endpoint().read_hint() <= READ * 2);
}

/// Within that limit no more is held than comes: once here, and twice in a read buffer that grows.
#[test]
fn a_content_header_at_its_limit_that_never_ends() {
    let limit = Limits::default().header as usize;
    let [client, _] = open_pair(server::Config::default());
    measure_one(
        "a content header at its limit",
        3 * limit + ROOM,
        client,
        |side| {
            side.feed(&begin(side, 1, 1));
            let whole = header(1, 1, &vec![0; limit - FRAME_OVERHEAD - 12]);
            side.feed(&whole[..whole.len() - 1]);
            assert_eq!(side.endpoint().read_hint(), 1);
        },
    );
}

/// The consumer is given up, and the server delivers on.
#[test]
fn content_that_is_not_wanted() {
    let len = 60 << 20;
    let [client, _] = open_pair(server::Config::default());
    measure_one("content that is not wanted", ROOM, client, |side| {
        if let Machine::Client(client) = &mut side.machine {
            let tag = "t".parse().unwrap();
            let mut channel = client.channel(side.channels[0]).unwrap();
            let consumer = channel.consumer(&tag).unwrap();
            channel.abandon_consumer(&tag, consumer);
        }
        side.feed(&begin(side, 1, 1));
        side.feed(&header(1, len, &[0, 0]));
        for _ in 0..len / 50_000 {
            side.feed(&body(1, &[0; 50_000]));
        }
    });
}

/// A message keeps no more of the read buffer alive than a few times its own length.
#[test]
fn messages_among_heartbeats_keep_little_more_than_themselves() {
    const LENGTHS: [usize; 5] = [16_400, 30_000, 43_000, 44_000, 100_000];
    const COUNT: usize = 100;
    for len in LENGTHS {
        let [side, _] = open_pair(server::Config::default());
        let Machine::Client(mut client) = side.machine else {
            unreachable!("the first side is the client");
        };
        let heartbeat = [8, 0, 0, 0, 0, 0, 0, 0xCE];
        let mut stream = BytesMut::new();
        for number in 1..=COUNT {
            let deliver = basic::Deliver::default().consumer_tag("t");
            stream.unsplit(method(1, deliver.delivery_tag(number as u64)));
            stream.unsplit(header(1, len as u64, &[0, 0]));
            stream.unsplit(body(1, &vec![1; len]));
            stream.unsplit(BytesMut::from(&heartbeat.repeat(110_000 / 8)[..]));
        }
        let ((), peak) = peak_of(|| {
            let mut kept = Vec::with_capacity(COUNT);
            let mut input = BytesMut::new();
            // As a driver reads.
            for read in stream.chunks(128 << 10) {
                input.reserve(128 << 10);
                input.extend_from_slice(read);
                client.handle_input(NOW, &mut input);
                while let Some(event) = client.poll_event() {
                    if let client::Event::Delivered(delivery) = event {
                        kept.push(delivery);
                    }
                }
            }
            assert_eq!(kept.len(), COUNT);
            let counted: usize = kept.iter().map(client::Delivery::memory).sum();
            assert!(counted >= COUNT * len);
        });
        println!(
            "{COUNT} bodies of {len}: {peak} bytes, {} times",
            peak / (COUNT * len)
        );
        assert!(
            peak <= 3 * COUNT * len + 2 * ROOM,
            "{peak} for {COUNT} of {len}"
        );
    }
}
