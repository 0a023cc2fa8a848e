//! Room in the output: the publishes that it holds back, and the flush of accepted ones.

use alloc::vec;

use bytes::Bytes;

use super::{Client, publish_frames};
use crate::{
    ApiMisuse, Body, ChannelId, Hold, PublishError, RequestId, Tags,
    client::{Config, Event},
    protocol::{ReplyCode, basic, channel, connection, queue},
    tests::script::*,
};

/// A client that holds publishes back from 4096 bytes on, down to 100.
fn with_little_room() -> Client {
    let mut config = Config::default();
    config.limits.output_high = 4096;
    config.limits.output_low = 100;
    Client::open_with(config)
}

fn held(hold: Hold, body: &'static [u8]) -> PublishError {
    let body = Body::from(body);
    PublishError::HeldBack { hold, body }
}

/// Publishes until the output is full; how often it went well.
fn fill(client: &mut Client, id: ChannelId) -> u64 {
    let properties = basic::Properties::default();
    let mut count = 0;
    loop {
        let buffered = client.conn.buffered();
        let result = client.on(id).publish(&publish("q"), &properties, &[7; 90]);
        if buffered >= 4096 {
            assert_eq!(result, Err(held(Hold::OutputFull, &[7; 90])));
            return count;
        }
        result.unwrap();
        count += 1;
    }
}

#[test]
fn a_full_output_holds_publishes_back_until_it_has_drained() {
    let mut client = with_little_room();
    let id = client.confirm_channel();
    for _ in 0..3 {
        assert_eq!(client.on(id).hold(90), None);
        let count = fill(&mut client, id);
        assert!(count > 5);
        assert_eq!(client.on(id).hold(90), Some(Hold::OutputFull));
        // The next publish of this size will be the one refused now; the body comes back.
        let properties = basic::Properties::default();
        let refused = client.on(id).publish(&publish("q"), &properties, "mine");
        assert_eq!(refused.unwrap_err().into_body(), Ok(Body::from("mine")));
        assert_eq!(client.events(), []);
        client.bytes();
        assert_eq!(client.events(), [Event::Writable]);
        assert_eq!(client.on(id).hold(90), None);
    }
    // The event follows a refusal only.
    client.publish(id, b"x");
    client.bytes();
    assert_eq!(client.events(), []);
}

#[test]
fn a_million_publishes_that_are_not_taken_are_bounded() {
    let mut client = Client::open();
    let id = client.channel();
    let properties = basic::Properties::default();
    let (high, message) = (client.conn.limits().output_high, 1000 + 100);
    let mut accepted = 0;
    for _ in 0..1_000_000 {
        let body = Bytes::from_static(&[7; 1000]);
        let result = client.on(id).publish(&publish("q"), &properties, body);
        accepted += usize::from(result.is_ok());
    }
    assert!(client.conn.buffered() < high + message);
    assert!(
        accepted >= high / message && accepted <= high / 1000 + 1,
        "{accepted}"
    );
}

#[test]
fn there_is_room_again_at_the_low_mark_and_not_before() {
    let mut config = Config::default();
    config.limits.output_high = 1 << 20;
    config.limits.output_low = 200_000;
    let mut client = Client::open_with(config);
    let id = client.channel();
    publish_frames(&mut client, id, 10);
    let properties = basic::Properties::default();
    client
        .on(id)
        .publish(&publish("q"), &properties, "x")
        .unwrap_err();
    let mut reported = false;
    while client.conn.has_transmit() {
        client.bytes_once();
        let events = client.events();
        let low = client.conn.buffered() <= 200_000;
        assert_eq!(
            !events.is_empty(),
            low && !reported,
            "{}",
            client.conn.buffered()
        );
        reported |= low;
    }
    assert!(reported);
}

#[test]
fn a_full_output_holds_nothing_but_publishes_back() {
    let mut client = with_little_room();
    let id = client.confirm_channel();
    client.consumer(id, "t", false);
    client.deliver(id, "t", 1);
    client.events();
    let published = fill(&mut client, id);
    client.on(id).ack(Tags::One(tag(1))).unwrap();
    client.on(id).call(&queue::Declare::default()).unwrap();
    client.conn.open_channel().unwrap();
    let close = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    client.events();
    let sent = client.sent();
    let methods = sent
        .iter()
        .filter(|sent| matches!(sent.what, What::Method(_)));
    assert_eq!(methods.count() as u64, published + 4);
    answered(&mut client, id, close);
}

fn answered(client: &mut Client, id: ChannelId, request: RequestId) {
    client.events();
    client.send(id.number(), &channel::CloseOk);
    assert_eq!(client.events(), [replied(id, request, channel::CloseOk)]);
}

#[test]
fn a_refused_publish_has_no_number() {
    let mut client = with_little_room();
    let id = client.confirm_channel();
    let count = fill(&mut client, id);
    let mut on = client.on(id);
    let properties = basic::Properties::default();
    for _ in 0..10 {
        on.publish(&publish("q"), &properties, "x").unwrap_err();
    }
    client.bytes();
    assert_eq!(client.publish(id, b"next"), Some(seq(count + 1)));
}

#[test]
fn a_publish_on_a_closed_channel_waits_for_no_room() {
    let mut client = with_little_room();
    let (id, other) = (client.channel(), client.channel());
    client.on(other).close(ReplyCode::SUCCESS, "").unwrap();
    let properties = basic::Properties::default();
    while client.conn.buffered() < 4096 {
        client.publish(id, b"filler");
    }
    let refused = client.on(other).publish(&publish("q"), &properties, "x");
    assert_eq!(refused, Err(ApiMisuse::ChannelNotOpen.into()));
    client.bytes();
    assert_eq!(client.events(), []);
}

#[test]
fn there_is_no_room_on_a_closed_connection() {
    let ends: [fn(&mut Client); 4] = [
        |client| client.send(0, &connection::Close::default()),
        |client| client.conn.handle_eof(client.now),
        |client| client.feed(b"\xff"),
        |client| {
            client.conn.close(ReplyCode::SUCCESS, "");
            client.bytes();
            client.send(0, &connection::CloseOk);
        },
    ];
    for end in ends {
        let mut client = with_little_room();
        let id = client.channel();
        fill(&mut client, id);
        end(&mut client);
        client.bytes();
        let events = client.events();
        assert!(
            matches!(events.last(), Some(Event::Closed(_))),
            "{events:?}"
        );
        client.bytes();
        assert_eq!(client.events(), []);
    }
}

/// All output accepted before a mark has left, not only as many bytes: later output may overtake
/// the rest of a large message.
#[test]
fn output_accepted_before_a_mark_is_known_to_have_left() {
    let mut client = Client::roomy();
    let (slow, quick) = (client.channel(), client.channel());
    let empty = client.conn.flush_mark();
    assert!(client.conn.is_flushed(&empty));
    let large = vec![0; 3 << 20];
    client
        .on(slow)
        .publish(&publish("q"), &basic::Properties::default(), large)
        .unwrap();
    client.publish(quick, b"before");
    let mark = client.conn.flush_mark();
    let mut turns = 0;
    while !client.conn.is_flushed(&mark) {
        let before = client.conn.buffered();
        client.publish(quick, b"overtakes");
        client.bytes_once();
        assert!(client.conn.buffered() < before);
        turns += 1;
    }
    assert!(turns > 3);
    assert_eq!(client.conn.buffered(), 0);
}

#[test]
fn a_publish_is_flushed_once_it_has_left() {
    let mut client = Client::open();
    let id = client.channel();
    client.publish(id, b"x");
    let mark = client.conn.flush_mark();
    assert!(!client.conn.is_flushed(&mark));
    client.bytes();
    assert!(client.conn.is_flushed(&mark));
}

/// A channel that is closed drops its unsent output.
#[test]
fn dropped_output_of_a_channel_is_not_waited_for() {
    let mut client = Client::open();
    let id = client.channel();
    let large = vec![0; 3 << 20];
    client
        .on(id)
        .publish(&publish("q"), &basic::Properties::default(), large)
        .unwrap();
    let mark = client.conn.flush_mark();
    client.send(id.number(), &channel::Close::default());
    client.bytes();
    assert!(client.conn.is_flushed(&mark));
}
