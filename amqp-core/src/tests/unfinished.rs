//! Messages in assembly: their common bound, and those that are not kept at all.

use alloc::{string::ToString as _, vec, vec::Vec};

use super::script::*;
use crate::{
    Body, ChannelId, CloseCause, Content, EncodedProperties, Fault, Requeue, Tags,
    client::{Config, Connection, Event, GetMessage},
    frame::FrameKind,
    protocol::{Method, ReplyCode, basic},
    wire::FieldTable,
};

type Client = Script<Connection>;

fn client() -> Client {
    let mut config = Config::default();
    (config.limits.body, config.limits.assembly) = (30_000, 100_000);
    Client::open_with(config)
}

/// A channel with a consumer, and a message for it that lacks its last byte.
fn unfinished(client: &mut Client, len: usize) -> ChannelId {
    let id = client.channel();
    client.consumer(id, "t", false);
    let none = basic::Properties::default();
    client.send(id.number(), &deliver("t", 1));
    client.feed(&header_frame(id.number(), &none, len as u64 + 1));
    client.feed(&frame(FrameKind::Body, id.number(), &vec![7; len]));
    id
}

#[test]
fn unfinished_messages_of_all_channels_have_one_limit() {
    let mut client = client();
    let mut ids: Vec<_> = (0..3).map(|_| unfinished(&mut client, 29_999)).collect();
    assert_eq!(client.events(), []);
    let over = unfinished(&mut client, 20_000);
    let Event::ChannelClosed { channel, reason } = client.only_event() else {
        panic!("no event of it");
    };
    assert_eq!(channel, over);
    let CloseCause::LimitExceeded(error) = reason.cause() else {
        panic!("{reason}");
    };
    let limit = 100_000;
    assert_eq!(error.fault, Fault::AssemblyTooLarge { limit });
    assert!(
        reason
            .to_string()
            .contains("Limits::assembly (100000 bytes)")
    );
    assert_eq!(reason.code(), Some(ReplyCode::CONTENT_TOO_LARGE));
    let Method::ChannelClose(close) = client.only_method() else {
        panic!("not closed");
    };
    assert_eq!(close.reply_code, ReplyCode::CONTENT_TOO_LARGE);
    // The memory of each is free again, as is that of a closed channel and of a whole message.
    for closed in ids.drain(..2) {
        client.on(closed).close(ReplyCode::SUCCESS, "bye").unwrap();
    }
    client.events();
    client.feed(&frame(FrameKind::Body, ids[0].number(), &[7]));
    assert!(matches!(client.only_event(), Event::Delivered(_)));
    client.bytes();
    for _ in 0..3 {
        unfinished(&mut client, 29_999);
    }
    assert_eq!(client.events(), []);
    assert!(client.conn.is_open());
}

/// One message always fits, however little all of them may hold.
#[test]
fn a_single_message_is_within_the_limit_of_all() {
    let mut config = Config::default();
    (config.limits.body, config.limits.assembly) = (30_000, 0);
    let mut client = Client::open_with(config);
    let id = unfinished(&mut client, 29_990);
    client.feed(&frame(FrameKind::Body, id.number(), &[7]));
    assert!(matches!(client.only_event(), Event::Delivered(_)));
}

/// It is not waited for that the message is whole.
#[test]
fn a_delivery_for_an_unknown_consumer_is_refused_at_its_method() {
    let mut client = client();
    client.channel();
    client.send(1, &deliver("nobody", 1));
    let Event::ChannelClosed { reason, .. } = client.only_event() else {
        panic!("taken");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert_eq!(error.fault, Fault::UnknownConsumer(name("nobody")));
}

/// A message for a consumer that was cancelled meanwhile is requeued, and none of it is kept.
#[test]
fn a_delivery_that_crossed_a_cancel_is_put_back() {
    let mut client = client();
    let id = client.channel();
    client.consumer(id, "t", false);
    let cancel = basic::Cancel::default().consumer_tag("t");
    client.on(id).send(&cancel).unwrap();
    client.bytes();
    let none = basic::Properties::default();
    client.send(1, &deliver("t", 1));
    // Even over the limit of bodies it costs nothing.
    client.feed(&header_frame(1, &none, 40_000));
    client.feed(&frame(FrameKind::Body, 1, &[0; 39_999]));
    assert_eq!(client.sent(), []);
    client.feed(&frame(FrameKind::Body, 1, &[0]));
    let back = basic::Nack {
        delivery_tag: 1,
        multiple: false,
        requeue: true,
    };
    assert_eq!(client.sent(), [method(1, back)]);
    assert_eq!(client.events(), []);
    assert!(client.on(id).reject(tag(1), Requeue::No).is_err());
}

/// The consumer is given up in the middle of a message that was wanted when it began.
#[test]
fn a_consumer_given_up_in_the_middle_of_its_message_puts_it_back() {
    let mut client = client();
    let id = unfinished(&mut client, 10);
    let consumer = client.on(id).consumer(&name("t")).unwrap();
    client.on(id).abandon_consumer(&name("t"), consumer);
    client.bytes();
    client.feed(&frame(FrameKind::Body, 1, &[7]));
    let back = basic::Nack {
        delivery_tag: 1,
        multiple: false,
        requeue: true,
    };
    assert_eq!(client.sent(), [method(1, back)]);
    assert_eq!(client.events(), []);
}

#[test]
fn all_that_a_message_holds_is_counted() {
    let headers = FieldTable::new().with("h", "x".repeat(100_000).as_str());
    let properties = basic::Properties::default().headers(headers);
    let content = |properties: &basic::Properties, body: &'static str| Content {
        properties: EncodedProperties::from(properties),
        body: Body::from(body),
    };
    let none = basic::Properties::default();
    let empty = content(&none, "").memory();
    assert!((1..1000).contains(&empty));
    assert_eq!(content(&none, "body").memory(), empty + 4);
    assert!(content(&properties, "").memory() > empty + 100_000);

    let mut client = client();
    let id = client.channel();
    client.consumer(id, "t", false);
    let long = deliver("t", 1).exchange("e".repeat(200));
    let long = long.routing_key("k".repeat(100));
    client.send_content(1, &long, &none, b"");
    let Event::Delivered(delivery) = client.only_event() else {
        panic!("no delivery");
    };
    assert_eq!(delivery.memory(), empty + 301);
    let got = GetMessage {
        method: basic::GetOk::default()
            .exchange("e".repeat(200))
            .routing_key("k".repeat(100)),
        content: delivery.content,
        tag: delivery.tag,
    };
    assert_eq!(got.memory(), empty + 300);
    client.on(id).ack(Tags::All).unwrap();
}
