//! The statistics of connections and channels.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use super::{
    pair::Pair,
    script::*,
    splits::{Cut, dialogue},
};
use crate::{
    ChannelStats, ConnectionStats, Requeue, Tags, WireStats,
    client::{self, Connection, Event as ClientEvent, Outcome},
    frame::{Frame, FrameKind, PROTOCOL_HEADER},
    protocol::{ReplyCode, basic, channel},
    server::{self, Event as ServerEvent},
};

type Client = Script<Connection>;

/// The counts of that many bytes of a stream, of which the protocol header is no frame.
fn counts_of(mut bytes: &[u8]) -> WireStats {
    let mut counts = WireStats {
        bytes: bytes.len() as u64,
        ..WireStats::default()
    };
    bytes = bytes.strip_prefix(&PROTOCOL_HEADER).unwrap_or(bytes);
    while let Some(frame) = Frame::parse(bytes, u32::MAX).unwrap() {
        counts.frames += 1;
        counts.heartbeats += u64::from(frame.kind == FrameKind::Heartbeat);
        bytes = &bytes[frame.len()..];
    }
    assert!(bytes.is_empty());
    counts
}

#[test]
fn a_dialogue_is_counted_by_bytes_frames_and_events_however_it_is_split() {
    for cut in [Cut::Whole, Cut::Every(1), Cut::Every(7), Cut::Every(100)] {
        let record = dialogue(cut.clone(), cut);
        let (client, server) = (record.client_stats, record.server_stats);
        assert_eq!(client.received, counts_of(&record.to_client));
        assert_eq!(server.received, counts_of(&record.to_server));
        assert_eq!(client.received.heartbeats, 2);

        let mut seen = ConnectionStats {
            sent: client.sent,
            received: client.received,
            published: client.published,
            acknowledged: 2,
            rejected: 2,
            unacked: client.unacked,
            ..ConnectionStats::default()
        };
        for event in &record.client {
            match event {
                ClientEvent::Delivered(_) => seen.delivered += 1,
                ClientEvent::Got { message, .. } => seen.fetched += u64::from(message.is_some()),
                ClientEvent::Returned(_) => seen.returned += 1,
                ClientEvent::Settled {
                    first,
                    last,
                    outcome,
                    ..
                } => match outcome {
                    Outcome::Acked | Outcome::PossiblyReturned => {
                        seen.confirmed += last.get() - first.get() + 1;
                    }
                    Outcome::Nacked => seen.nacked += last.get() - first.get() + 1,
                    Outcome::NotSent(_) | Outcome::Unknown(_) => {}
                },
                _ => {}
            }
        }
        assert_eq!(client, seen);

        let published = |event: &&ServerEvent| matches!(event, ServerEvent::Published(_));
        let published = record.server.iter().filter(published).count() as u64;
        assert_eq!(server.published, published);
        assert_eq!((server.delivered, server.fetched), (4, 1));
        assert_eq!((server.returned, client.returned), (1, 1));
    }
}

#[test]
fn both_sides_count_the_same() {
    for chunk in [None, Some(1), Some(1000)] {
        let mut pair = Pair::new(client::Config::default(), server::Config::default());
        pair.chunk = chunk;
        pair.shake_hands();
        let id = pair.open_channel();
        let publish = basic::Publish::default();
        let properties = basic::Properties::default();
        // Without a body, in one frame, and in several.
        for len in [0, 1, 5000, 300_000] {
            let body = vec![7; len];
            pair.client_channel(id)
                .publish(&publish, &properties, body)
                .unwrap();
        }
        pair.advance(Duration::from_secs(200));
        let (client, server) = (pair.client.stats(), pair.server.stats());
        assert_eq!(client.sent, server.received);
        assert_eq!(client.received, server.sent);
        assert!(client.sent.heartbeats > 2 && server.sent.heartbeats > 2);
        assert_eq!((client.published, server.published), (4, 4));
    }
}

#[test]
fn publishes_are_counted_with_their_outcomes() {
    let mut client = Client::open();
    let id = client.confirm_channel();
    for _ in 0..6 {
        client.publish(id, b"x");
    }
    let mandatory = basic::Publish {
        mandatory: true,
        ..publish("nowhere")
    };
    let properties = basic::Properties::default();
    let published = client.on(id).publish(&mandatory, &properties, b"lost");
    published.unwrap();
    assert_eq!(client.on(id).stats().unconfirmed, 7);
    client.bytes();

    let no_route = basic::Return {
        reply_code: ReplyCode::NO_ROUTE,
        routing_key: name("nowhere"),
        ..basic::Return::default()
    };
    client.send_content(1, &no_route, &properties, b"lost");
    client.send(1, &ack(7, false));
    client.send(1, &ack(3, true));
    // Again, which settles nothing.
    client.send(1, &ack(2, false));
    client.send(1, &nack(5, true));
    let stats = client.conn.stats();
    assert_eq!(stats.published, 7);
    assert_eq!((stats.confirmed, stats.nacked), (4, 2));
    assert_eq!(stats.returned, 1);
    // From the sixth publish to the seventh, which is confirmed.
    let channel = client.on(id).stats();
    assert_eq!((channel.published, channel.unconfirmed), (7, 2));

    // A publish that is refused is none, and the end of a channel confirms nothing.
    let body = vec![0; 129 << 20];
    client
        .on(id)
        .publish(&mandatory, &properties, body)
        .unwrap_err();
    client.send(1, &channel::Close::default());
    let ended = client.conn.stats();
    assert_eq!((ended.published, ended.confirmed), (7, 4));
}

#[test]
fn deliveries_are_counted_with_their_acknowledgements() {
    let mut client = Client::open();
    let id = client.channel();
    client.consumer(id, "t", false);
    client.consumer(id, "u", true);
    for number in 1..=8 {
        client.deliver(id, "t", number);
    }
    client.deliver(id, "u", 9);
    let channel = |unacked| ChannelStats {
        delivered: 9,
        unacked,
        consumers: 2,
        ..ChannelStats::default()
    };
    assert_eq!(client.on(id).stats(), channel(8));
    let mut on = client.on(id);
    on.withhold(tag(2)).unwrap();
    assert_eq!(on.stats(), channel(8));
    on.ack(Tags::One(tag(1))).unwrap();
    on.ack(Tags::UpTo(tag(4))).unwrap();
    on.ack(Tags::One(tag(4))).unwrap_err();
    on.nack(Tags::UpTo(tag(6)), Requeue::Yes).unwrap();
    on.reject(tag(7), Requeue::No).unwrap();
    assert_eq!(on.stats(), channel(2));
    on.requeue_withheld(tag(2)).unwrap();
    on.ack(Tags::All).unwrap();
    assert_eq!(on.stats(), channel(0));
    let stats = client.conn.stats();
    assert_eq!(stats.delivered, 9);
    assert_eq!((stats.acknowledged, stats.rejected), (4, 4));
}

#[test]
fn messages_that_do_not_reach_the_application_are_left_out() {
    let mut client = Client::open();
    let id = client.channel();
    let consumer = client.consumer(id, "t", false);
    let get = client.on(id).get(&basic::Get::default()).unwrap();
    client.on(id).get(&basic::Get::default()).unwrap();
    client.conn.abandon(id, get);
    for number in 1..=2 {
        let got = basic::GetOk::default().delivery_tag(number);
        client.send_content(1, &got, &basic::Properties::default(), b"got");
    }
    client.on(id).abandon_consumer(&name("t"), consumer);
    client.deliver(id, "t", 3);
    let stats = client.conn.stats();
    assert_eq!((stats.fetched, stats.delivered), (1, 0));
    assert_eq!((stats.acknowledged, stats.rejected), (0, 0));
    let channel = client.on(id).stats();
    assert_eq!((channel.unacked, channel.consumers), (1, 0));
}

#[test]
fn a_cancelled_consumer_is_no_consumer() {
    let mut client = Client::open();
    let id = client.channel();
    for name in ["a", "b", "c"] {
        client.consumer(id, name, false);
    }
    assert_eq!(client.on(id).stats().consumers, 3);
    let cancel = |tag| basic::Cancel::default().consumer_tag(tag);
    client.on(id).call(&cancel("a")).unwrap();
    assert_eq!(client.on(id).stats().consumers, 2);
    client.send(1, &cancel("b"));
    assert_eq!(client.on(id).stats().consumers, 1);
    // The same tag again, while the cancel is in flight.
    client.consume(id, consume("queue", "a"));
    assert_eq!(client.on(id).stats().consumers, 2);
}

#[test]
fn the_prefetch_is_that_of_the_last_qos() {
    let mut client = Client::open();
    let (id, other) = (client.channel(), client.channel());
    for count in [100, 7] {
        let qos = basic::Qos::default().prefetch_count(count);
        client.call(id, &qos, &basic::QosOk);
        assert_eq!(client.on(id).stats().prefetch, count);
    }
    assert_eq!(client.on(other).stats(), ChannelStats::default());
}

#[test]
fn output_counts_as_sent_when_it_is_handed_out() {
    let mut client = Client::roomy();
    let id = client.channel();
    let before = client.conn.stats();
    let properties = basic::Properties::default();
    let published = client
        .on(id)
        .publish(&publish("queue"), &properties, vec![1; 1_000_000]);
    published.unwrap();
    client.publish(id, b"behind");
    assert_eq!(client.conn.stats().sent, before.sent);

    // A part of the body is handed out, and the message behind it is dropped with the channel.
    let mut sent = client.bytes_once();
    client.send(1, &channel::Close::default());
    sent.extend(client.bytes());
    let stats = client.conn.stats();
    assert_eq!(stats.published, 2);
    let counts = counts_of(&sent);
    assert_eq!(stats.sent.bytes - before.sent.bytes, counts.bytes);
    assert_eq!(stats.sent.frames - before.sent.frames, counts.frames);
    // Method, header, body and close-ok.
    assert_eq!(counts.frames, 2 + 1_000_000_u64.div_ceil(131_064) + 1);

    // Output that is dropped at the end of the transport is not sent.
    client.events();
    let other = client.channel();
    let before = client.conn.stats();
    client.publish(other, b"lost");
    let now = client.now;
    client.conn.handle_eof(now);
    let left: Vec<u8> = client.bytes();
    assert!(left.is_empty());
    assert_eq!(client.conn.stats().sent, before.sent);
}
