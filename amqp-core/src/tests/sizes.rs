//! Bodies of every size that matters, under every frame limit.

use alloc::{vec, vec::Vec};

use super::{
    pair::Pair,
    side::{Event, Role, Sent, Side, body_frame, frames, header_frame, method_frame, raw_frame},
};
use crate::{
    ChannelId, Fault, Limits,
    client::{self, Event as ClientEvent},
    frame::FrameKind,
    protocol::{FRAME_MIN_SIZE, basic, connection},
    server::{self, Event as ServerEvent},
    wire::ShortStr,
};

/// The most bytes in one frame for a peer without a frame limit.
const UNLIMITED_CHUNK: usize = 128 << 10;

fn pair_of(client_max: u32, server_max: u32) -> Pair {
    let client = client::Config {
        frame_max: client_max,
        ..client::Config::default()
    };
    let server = server::Config {
        frame_max: server_max,
        frame_min: FRAME_MIN_SIZE,
        ..server::Config::default()
    };
    Pair::open_with(client, server)
}

fn body(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at % 251) as u8).collect()
}

/// A consumer on that channel, which both sides know of.
fn consume(pair: &mut Pair, id: ChannelId) -> basic::Deliver {
    let tag = ShortStr::from_static("consumer").unwrap();
    let consume = basic::Consume::default().queue("q");
    let consume = consume.consumer_tag(&tag).no_wait(true);
    pair.client_channel(id).consume(consume).unwrap();
    pair.exchange();
    pair.take_client_events();
    pair.take_server_events();
    basic::Deliver::default().consumer_tag(&tag)
}

/// Takes all that both sides want to send, which are several turns for a large message.
fn collect(pair: &mut Pair) {
    loop {
        let before = pair.to_server.len() + pair.to_client.len();
        pair.collect_output();
        if pair.to_server.len() + pair.to_client.len() == before {
            return;
        }
    }
}

/// Checks the frames of one message: method, header, and body frames that are all full but the
/// last one, of which there is none for an empty body.
fn check_frames(sent: &[Sent], body: &[u8], chunk: usize) {
    let kinds: Vec<_> = sent.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds[..2], [FrameKind::Method, FrameKind::Header]);
    assert!(kinds[2..].iter().all(|kind| *kind == FrameKind::Body));
    assert_eq!(sent.len() - 2, body.len().div_ceil(chunk));
    let pieces: Vec<_> = sent[2..].iter().map(|frame| &frame.payload[..]).collect();
    assert_eq!(pieces, body.chunks(chunk).collect::<Vec<_>>());
}

/// The sizes around every border, for frames that hold `chunk` bytes of a body.
fn sizes(chunk: usize) -> Vec<usize> {
    let mut sizes = vec![0, 1, 2, 2047, 2048, 2049, 4095, 4096, 4097];
    for multiple in 1..=3 {
        let size = chunk * multiple;
        sizes.extend([size - 8, size - 1, size, size + 1, size + 8]);
    }
    sizes
}

/// Sends bodies of all these sizes both ways.
fn check_sizes(mut pair: Pair, chunk: usize) {
    let id = pair.open_channel();
    let deliver = consume(&mut pair, id);
    let publish = basic::Publish::default().routing_key("q");
    let properties = basic::Properties::default().delivery_mode(2);
    for (size, number) in sizes(chunk).into_iter().zip(1..) {
        let body = body(size);
        let mut channel = pair.client_channel(id);
        channel
            .publish(&publish, &properties, body.clone())
            .unwrap();
        collect(&mut pair);
        check_frames(&frames(&pair.to_server), &body, chunk);
        pair.exchange();
        let [ServerEvent::Published(published)] = &pair.take_server_events()[..] else {
            panic!("{size} bytes were not published");
        };
        assert_eq!(published.content.body, body[..]);

        let mut channel = pair.server_channel(id);
        let deliver = deliver.clone().delivery_tag(number);
        channel
            .send_content(&deliver, &properties, body.clone())
            .unwrap();
        collect(&mut pair);
        check_frames(&frames(&pair.to_client), &body, chunk);
        pair.exchange();
        let [ClientEvent::Delivered(delivery)] = &pair.take_client_events()[..] else {
            panic!("{size} bytes were not delivered");
        };
        assert_eq!(delivery.content.body, body[..]);
        assert_eq!(delivery.content.properties.decode().unwrap(), properties);
    }
}

#[test]
fn bodies_around_the_frame_limit() {
    for frame_max in [4096, 5000, 8192, 131_072] {
        let chunk = frame_max as usize - 8;
        check_sizes(pair_of(frame_max, 0), chunk);
        check_sizes(pair_of(0, frame_max), chunk);
    }
}

#[test]
fn a_frame_limit_of_8192() {
    let pair = pair_of(8192, 131_072);
    assert_eq!(pair.client.tuning().frame_max, 8192);
    assert_eq!(pair.server.tuning().frame_max, 8192);
    check_sizes(pair, 8184);
}

#[test]
fn no_frame_limit() {
    let pair = pair_of(0, 0);
    assert!(pair.client.tuning().is_frame_unlimited());
    assert!(pair.server.tuning().is_frame_unlimited());
    check_sizes(pair, UNLIMITED_CHUNK - 8);
}

/// Neither side wants a limit: a message leaves in one frame, and the accepted size is bounded all
/// the same.
#[test]
fn no_frame_limit_is_not_a_limit_of_zero() {
    let mut pair = pair_of(0, 0);
    let id = pair.open_channel();
    let publish = basic::Publish::default();
    let properties = basic::Properties::default();
    let mut channel = pair.client_channel(id);
    channel
        .publish(&publish, &properties, "0123456789")
        .unwrap();
    collect(&mut pair);
    check_frames(&frames(&pair.to_server), b"0123456789", 10);

    let cap = Limits::default().unlimited_frame;
    for role in Role::BOTH {
        let mut pair = pair_of(0, 0);
        pair.open_channel();
        let mut side = Side::of(pair, role);
        let mut at_cap = raw_frame(3, 1, &[], 0);
        at_cap[3..7].copy_from_slice(&(cap - 8).to_be_bytes());
        assert_eq!(side.feed(&at_cap[..7]), []);
        assert_eq!(side.close_reason(), None);

        let mut pair = pair_of(0, 0);
        pair.open_channel();
        let mut side = Side::of(pair, role);
        at_cap[3..7].copy_from_slice(&(cap - 7).to_be_bytes());
        let events = side.feed(&at_cap[..7]);
        let fault = Fault::FrameTooLarge {
            size: u64::from(cap) + 1,
            limit: cap,
        };
        side.assert_failed(&events, &fault, 501, None);
    }
}

/// A limit that is as good as none is no licence to send frames of four gigabytes.
#[test]
fn a_huge_frame_limit_is_none() {
    let huge = u32::MAX - 1;
    let cap = Limits::default().unlimited_frame;
    let mut client = Side::client(client::Config::default());
    let start = connection::Start::default()
        .version_minor(9)
        .mechanisms("PLAIN")
        .locales("en_US");
    let tune = connection::Tune::default().frame_max(huge);
    client.feed(&method_frame(0, &start.into()));
    client.sent();
    client.feed(&method_frame(0, &tune.into()));
    let agreed = client.sent_frames()[0].method();
    let connection::TuneOk { frame_max, .. } = agreed.try_into().unwrap();
    assert!(frame_max <= cap, "{frame_max}");
    assert_eq!(client.as_client().tuning().frame_max, frame_max);

    // The requested limit is agreed to.
    let pair = pair_of(64 << 20, 0);
    assert_eq!(pair.client.tuning().frame_max, 64 << 20);
    check_huge(Side::of(pair, Role::Client), 64 << 20);

    // A server without a limit does not depend on the client's.
    let pair = pair_of(huge, 0);
    check_huge(Side::of(pair, Role::Server), cap);
}

/// Checks that frames over the limit are refused.
fn check_huge(mut side: Side, limit: u32) {
    let mut frame = raw_frame(3, 1, &[], 0);
    frame[3..7].copy_from_slice(&(limit + 1).to_be_bytes());
    let events = side.feed(&frame[..7]);
    let fault = Fault::FrameTooLarge {
        size: u64::from(limit) + 9,
        limit,
    };
    side.assert_failed(&events, &fault, 501, None);
}

/// The frames of messages on two channels may come in any mixture, with others in between.
#[test]
fn messages_of_two_channels_interleaved() {
    let client = || {
        let mut pair = Pair::open();
        let ids = [pair.open_channel(), pair.open_channel()];
        let [deliver, _] = ids.map(|id| consume(&mut pair, id));
        (Side::of(pair, Role::Client), ids, deliver)
    };
    let (mut side, ids, deliver) = client();
    let bodies = [body(3000), body(5000)];
    let deliver = deliver.delivery_tag(1);
    let mut messages: Vec<_> = ids
        .iter()
        .zip(&bodies)
        .map(|(id, body)| {
            let number = id.number();
            let (first, second) = body.split_at(2500);
            let frames = [
                method_frame(number, &deliver.clone().into()),
                header_frame(number, 60, 0, body.len() as u64, &[]),
                body_frame(number, first),
                body_frame(number, second),
            ];
            frames.into_iter()
        })
        .collect();
    let mut stream = Vec::new();
    let blocked = connection::Blocked::default().reason("memory");
    // Every frame of the one is followed by one of the other, a heartbeat, and a method of the
    // connection.
    for turn in 0..4 {
        for message in &mut messages {
            stream.extend(message.next().unwrap());
            stream.extend(raw_frame(8, 0, &[], 0xCE));
        }
        if turn == 1 {
            stream.extend(method_frame(0, &blocked.clone().into()));
        }
    }
    let whole = side.feed(&stream);
    let [
        Event::Client(ClientEvent::Blocked { .. }),
        Event::Client(ClientEvent::Delivered(first)),
        Event::Client(ClientEvent::Delivered(second)),
    ] = &whole[..]
    else {
        panic!("{whole:?}");
    };
    for ((delivery, id), body) in [first, second].into_iter().zip(ids).zip(&bodies) {
        assert_eq!(delivery.channel, id);
        assert_eq!(delivery.content.body, body[..]);
    }
    for size in [1, 7, 1000] {
        let (mut side, ..) = client();
        assert_eq!(side.feed_pieces(stream.chunks(size)), whole);
    }
}
