//! The frames of a publish, and their order on the wire.

mod prepared;
mod room;

use alloc::{vec, vec::Vec};
use core::time::Duration;

use bytes::Bytes;
use proptest::{collection::vec as list, prelude::*};

use crate::{
    ApiMisuse, Body, ChannelId, EncodedProperties, PublishError, Tags,
    client::{Config, Connection, Event},
    frame::FrameKind,
    protocol::{Method, ReplyCode, basic, channel, connection, exchange, queue},
    tests::script::*,
    wire::FieldTable,
};

type Client = Script<Connection>;

/// A client with frames of that many bytes.
fn with_frames(frame_max: u32) -> Client {
    let mut config = Config::default();
    config.limits.output_high = usize::MAX;
    let tune = connection::Tune {
        channel_max: 100,
        frame_max,
        heartbeat: 0,
    };
    Client::tuned(config, &tune)
}

#[test]
fn the_bytes_of_a_publish() {
    let mut client = with_frames(4096);
    let id = client.channel();
    let body: Vec<u8> = (0..4089u32).map(|n| n as u8).collect();
    let publish = basic::Publish {
        exchange: name("ex"),
        routing_key: name("key"),
        mandatory: true,
        immediate: false,
    };
    let properties = basic::Properties::default().delivery_mode(2);
    client
        .on(id)
        .publish(&publish, &properties, body.clone())
        .unwrap();
    let mut expected = b"\x01\x00\x01\x00\x00\x00\x0e\x00\x3c\x00\x28\x00\x00\x02ex\x03key\x01\xCE\
        \x02\x00\x01\x00\x00\x00\x0f\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x0f\xf9\x10\x00\x02\xCE\
        \x03\x00\x01\x00\x00\x0f\xf8"
        .to_vec();
    expected.extend_from_slice(&body[..4088]);
    expected.extend_from_slice(b"\xCE\x03\x00\x01\x00\x00\x00\x01");
    expected.push(body[4088]);
    expected.push(0xCE);
    assert_eq!(client.bytes(), expected);
}

#[test]
fn a_body_is_cut_into_full_frames() {
    for frame_max in [4096, 8192, 131_072] {
        let chunk = frame_max as usize - 8;
        for len in [0, 1, chunk - 1, chunk, chunk + 1, 2 * chunk, 2 * chunk + 1] {
            let mut client = with_frames(frame_max);
            let id = client.channel();
            let properties = basic::Properties::default();
            let body = vec![7; len];
            client
                .on(id)
                .publish(&publish("q"), &properties, body)
                .unwrap();
            let sent = client.sent();
            assert_eq!(sent[0], method(1, publish("q")));
            assert_eq!(sent[1].what, What::Header(len as u64, vec![0, 0]));
            let bodies: Vec<usize> = sent[2..]
                .iter()
                .map(|sent| match &sent.what {
                    What::Body(body) => body.len(),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert_eq!(bodies.len(), len.div_ceil(chunk));
            assert_eq!(bodies.iter().sum::<usize>(), len);
            assert!(bodies.iter().rev().skip(1).all(|len| *len == chunk));
        }
    }
}

#[test]
fn without_a_frame_limit_frames_are_still_bounded() {
    let mut client = with_frames(0);
    let id = client.channel();
    client.publish(id, b"0123456789");
    assert_eq!(client.sent(), content(1, publish("queue"), b"0123456789"));
    let properties = basic::Properties::default();
    client
        .on(id)
        .publish(&publish("q"), &properties, vec![0; 300 << 10])
        .unwrap();
    let lens: Vec<_> = client
        .sent()
        .into_iter()
        .filter_map(|sent| match sent.what {
            What::Body(body) => Some(body.len() + 8),
            _ => None,
        })
        .collect();
    assert_eq!(lens, [128 << 10, 128 << 10, (44 << 10) + 24]);
}

#[test]
fn nothing_is_dropped_without_waiting() {
    let mut client = Client::open();
    let id = client.channel();
    let mut before = 0;
    for _ in 0..42 {
        client.publish(id, b"message");
        assert!(client.conn.buffered() > before);
        assert!(client.conn.has_transmit());
        before = client.conn.buffered();
    }
    let message = content(1, publish("queue"), b"message");
    assert_eq!(client.sent(), [&message[..]; 42].concat());
    assert!(!client.conn.has_transmit());
    assert_eq!(client.conn.buffered(), 0);
}

#[test]
fn properties_pass_as_they_came() {
    let mut client = Client::open();
    let id = client.channel();
    let headers = FieldTable::new().with("n", 1);
    let properties = basic::Properties::default()
        .priority(0)
        .headers(headers)
        .message_id("m");
    let encoded = EncodedProperties::from(&properties);
    let mut sent = Vec::new();
    for _ in 0..2 {
        let mut on = client.on(id);
        on.publish(&publish("q"), &properties, "x").unwrap();
        on.publish(&publish("q"), &encoded, "x").unwrap();
        sent.push(client.sent());
    }
    assert_eq!(sent[0][..3], sent[0][3..]);
    let header = What::Header(1, encoded.as_bytes().to_vec());
    assert_eq!(sent[0][1].what, header);
}

#[test]
fn a_body_that_came_in_pieces_goes_on_as_it_is() {
    let mut client = with_frames(4096);
    let id = client.channel();
    client.consumer(id, "t", true);
    let bytes: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
    client.send(1, &deliver("t", 1));
    client.feed(&header_frame(1, &basic::Properties::default(), 10_000));
    for piece in bytes.chunks(777) {
        client.feed(&frame(FrameKind::Body, 1, piece));
    }
    let Event::Delivered(delivery) = client.only_event() else {
        panic!("nothing came");
    };
    let content = delivery.content;
    assert!(content.body.pieces().count() > 1);
    client
        .on(id)
        .publish(&publish("q"), &content.properties, content.body)
        .unwrap();
    let mut left = Vec::new();
    for sent in &client.sent()[2..] {
        let What::Body(body) = &sent.what else {
            panic!("{sent:?}");
        };
        left.extend_from_slice(body);
        assert!(body.len() == 4088 || left.len() == 10_000);
    }
    assert_eq!(left, bytes);
}

/// The small pieces of a body are copied, and taken once.
#[test]
fn the_pieces_that_were_copied_are_taken() {
    let mut client = with_frames(4096);
    let id = client.channel();
    let pieces = [&b"a"[..], b"bc"].map(Bytes::from_static);
    let mut body = Body::new();
    pieces.iter().for_each(|piece| body.push(piece.clone()));
    client
        .on(id)
        .publish(&publish("q"), &basic::Properties::default(), body)
        .unwrap();
    assert_eq!(client.conn.take_discarded(), pieces);
    assert!(client.conn.take_discarded().is_empty());
    assert_eq!(client.sent(), content(1, publish("q"), b"abc"));
}

#[test]
fn a_message_that_does_not_fit_changes_nothing() {
    let mut config = Config::default();
    config.limits.body = 100;
    let mut client = Client::open_with(config);
    let id = client.confirm_channel();
    let properties = basic::Properties::default();
    let error = client
        .on(id)
        .publish(&publish("q"), &properties, vec![0; 101]);
    let (len, limit) = (101, 100);
    assert_eq!(error, Err(ApiMisuse::BodyTooLarge { len, limit }.into()));

    let headers = FieldTable::new().with("x", "x".repeat(131_072));
    let heavy = basic::Properties::default().headers(headers);
    let error = client.on(id).publish(&publish("q"), &heavy, "x");
    assert!(
        matches!(
            error,
            Err(PublishError::Misuse(ApiMisuse::FrameTooLarge {
                method: "basic.publish",
                ..
            }))
        ),
        "{error:?}"
    );
    assert_eq!(client.sent(), []);
    // No number was used up.
    assert_eq!(client.publish(id, b"x"), Some(seq(1)));
}

/// A command on a channel; the order of commands must stay.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Publish(usize),
    Declare,
    Bind,
    Ack,
    Close,
    Poll,
    PollAll,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (0usize..600).prop_map(Deed::Publish),
        3 => (3000usize..300_000).prop_map(Deed::Publish),
        2 => Just(Deed::Declare),
        2 => Just(Deed::Bind),
        2 => Just(Deed::Ack),
        1 => Just(Deed::Close),
        3 => Just(Deed::Poll),
        1 => Just(Deed::PollAll),
    ]
}

proptest! {
    #![proptest_config(amqp_test_support::cases(64))]

    /// Within a channel, nothing overtakes anything (lapin's defect 4), whenever and however
    /// often the output is taken.
    #[test]
    fn the_order_of_calls_is_the_order_on_the_wire(
        frame_max in prop::sample::select(vec![4096u32, 131_072]),
        deeds in list((0usize..3, any_deed()), 0..40),
    ) {
        let mut client = with_frames(frame_max);
        let ids: Vec<ChannelId> = (0..3).map(|_| client.channel()).collect();
        let mut expected = vec![Vec::new(); 3];
        for (index, id) in ids.iter().enumerate() {
            client.consumer(*id, "t", false);
            for number in 1..=40 {
                client.deliver(*id, "t", number);
            }
            assert_eq!(client.events().len(), 40, "{index}");
        }
        let (mut sent, mut acked) = (Vec::new(), [0; 3]);
        for (count, (index, deed)) in deeds.into_iter().enumerate() {
            let (id, expected) = (ids[index], &mut expected[index]);
            if !client.on(id).is_open() {
                continue;
            }
            match deed {
                Deed::Publish(len) => {
                    let body = vec![count as u8; len];
                    let properties = basic::Properties::default();
                    client.on(id).publish(&publish("q"), &properties, body.clone()).unwrap();
                    expected.push(What::Method(publish("q").into()));
                    expected.push(What::Header(len as u64, vec![0, 0]));
                    if len > 0 {
                        expected.push(What::Body(body));
                    }
                }
                Deed::Declare => {
                    let declare = queue::Declare::default().durable(count % 2 == 0);
                    client.on(id).call(&declare).unwrap();
                    expected.push(What::Method(declare.into()));
                }
                Deed::Bind => {
                    let bind = exchange::Bind {
                        source: name("a"),
                        destination: name("b"),
                        no_wait: true,
                        ..exchange::Bind::default()
                    };
                    client.on(id).send(&bind).unwrap();
                    expected.push(What::Method(bind.into()));
                }
                Deed::Ack => {
                    acked[index] += 1;
                    client.on(id).ack(Tags::One(tag(acked[index]))).unwrap();
                    expected.push(What::Method(ack(acked[index], false).into()));
                }
                Deed::Close => {
                    client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
                    let close = channel::Close {
                        reply_code: ReplyCode::SUCCESS,
                        ..channel::Close::default()
                    };
                    expected.push(What::Method(close.into()));
                }
                Deed::Poll => sent.extend(client.bytes_once()),
                Deed::PollAll => sent.extend(client.bytes()),
            }
        }
        sent.extend(client.bytes());
        let sent = frames(&sent);
        for (id, expected) in ids.iter().zip(expected) {
            prop_assert_eq!(of_channel(&sent, id.number()), expected);
        }
        prop_assert_eq!(client.conn.buffered(), 0);
    }
}

/// Publishes so many full frames.
fn publish_frames(client: &mut Client, id: ChannelId, count: usize) {
    let properties = basic::Properties::default();
    let chunk = client.conn.tuning().frame_max as usize - 8;
    client
        .on(id)
        .publish(&publish("q"), &properties, vec![0; count * chunk])
        .unwrap();
}

/// The channel numbers of the frames that hold bodies.
fn turns(sent: &[Sent]) -> Vec<u16> {
    let bodies = sent
        .iter()
        .filter(|sent| matches!(sent.what, What::Body(_)));
    bodies.map(|sent| sent.channel).collect()
}

#[test]
fn channels_take_turns_by_the_frame() {
    for frame_max in [4096, 131_072] {
        let mut client = with_frames(frame_max);
        let ids = [client.channel(), client.channel(), client.channel()];
        for id in ids {
            publish_frames(&mut client, id, 10);
        }
        let turns = turns(&client.sent());
        assert_eq!(turns, [1, 2, 3].repeat(10));
    }
}

#[test]
fn a_huge_message_delays_another_channel_by_a_frame() {
    let mut client = with_frames(131_072);
    let (huge, other) = (client.channel(), client.channel());
    publish_frames(&mut client, huge, 100);
    client.bytes_once();
    // A small message does not wait for the rest.
    client.publish(other, b"small");
    let sent = frames(&client.bytes_once());
    assert_eq!(sent[..3], content(2, publish("queue"), b"small"));
    // A large one shares.
    publish_frames(&mut client, other, 5);
    let turns = turns(&client.sent());
    let first = turns.iter().position(|number| *number == 2).unwrap();
    assert!(first <= 2, "{:?}", &turns[..10]);
    assert_eq!(turns[first..first + 10], [2, 1].repeat(5));
    assert!(turns[first + 10..].iter().all(|number| *number == 1));
}

#[test]
fn the_connection_s_own_methods_come_between_the_frames_of_a_message() {
    let mut client = with_frames(131_072);
    let id = client.channel();
    publish_frames(&mut client, id, 100);
    client.bytes_once();
    let secret = "new".into();
    client.conn.update_secret(secret, name("")).unwrap();
    let sent = frames(&client.bytes_once());
    assert_eq!(sent[0].channel, 0);
    assert!(matches!(sent[1].what, What::Body(_)));
}

#[test]
fn a_sign_of_life_is_sent_while_a_huge_message_waits() {
    let tune = connection::Tune {
        channel_max: 10,
        frame_max: 131_072,
        heartbeat: 10,
    };
    let mut config = Config::default();
    config.limits.output_high = usize::MAX;
    let mut client = Client::tuned(config, &tune);
    let id = client.channel();
    publish_frames(&mut client, id, 10);
    let mut bodies = turns(&frames(&client.bytes_once())).len();
    while bodies < 10 {
        // The output is not taken for a while; the waiting frames serve as the sign of life.
        client.advance(Duration::from_secs(5));
        client.feed(&frame(FrameKind::Heartbeat, 0, b""));
        let sent = frames(&client.bytes_once());
        assert!(!sent.is_empty());
        bodies += turns(&sent).len();
        assert!(sent.iter().all(|sent| matches!(sent.what, What::Body(_))));
    }
    client.advance(Duration::from_secs(5));
    assert_eq!(
        client.sent(),
        [Sent {
            channel: 0,
            what: What::Heartbeat
        }]
    );
}

#[test]
fn a_channel_that_is_not_in_confirm_mode_has_no_numbers() {
    let mut client = Client::open();
    let id = client.channel();
    assert_eq!(client.publish(id, b"x"), None);
    let mandatory = basic::Publish {
        mandatory: true,
        ..publish("q")
    };
    let properties = basic::Properties::default();
    let seq = client.on(id).publish(&mandatory, &properties, "x").unwrap();
    assert_eq!(seq, None);
    assert!(matches!(
        client.sent()[3].what,
        What::Method(Method::BasicPublish(basic::Publish {
            mandatory: true,
            ..
        }))
    ));
}
