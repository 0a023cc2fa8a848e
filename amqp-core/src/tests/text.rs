//! Names that RabbitMQ passes on as some publisher wrote them, in other than UTF-8.

use alloc::vec::Vec;

use super::pair::Pair;
use crate::{
    client::Event,
    frame::{Frame, FrameKind},
    protocol::basic,
};

/// RabbitMQ 3.10 delivers this: it looks at the text of neither the arguments of `basic.publish`
/// nor the properties nor the names in a table.
#[test]
fn a_message_with_names_that_are_not_utf8_is_delivered_and_the_connection_lives() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let consume = basic::Consume::default().consumer_tag("c").unwrap();
    pair.client_channel(id).consume(consume).unwrap();
    pair.exchange();
    let ok = basic::ConsumeOk::default().consumer_tag("c").unwrap();
    pair.server_channel(id).send(&ok).unwrap();
    pair.exchange();
    pair.take_client_events();

    let deliver = b"\x00\x3c\x00\x3c\x01c\x00\x00\x00\x00\x00\x00\x00\x01\x00\x03ex1\x03k\xff\xfe";
    // Headers with a name, and a message id, that are not UTF-8.
    let mut header = b"\x00\x3c\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00".to_vec();
    header.extend_from_slice(&(1_u16 << 13 | 1 << 7).to_be_bytes());
    header.extend_from_slice(b"\x00\x00\x00\x08\x02\xffkI\x00\x00\x00\x07\x04\xff\xfeid");
    for (kind, payload) in [
        (FrameKind::Method, &deliver[..]),
        (FrameKind::Header, &header),
    ] {
        let frame = Frame {
            kind,
            channel: id.number(),
            payload,
        };
        frame.encode(&mut pair.to_client);
    }
    pair.deliver_to_client();

    let events: Vec<Event> = pair.take_client_events();
    let [Event::Delivered(delivery)] = &events[..] else {
        panic!("{events:?}");
    };
    assert_eq!(delivery.method.routing_key, "k\u{fffd}\u{fffd}");
    let properties = delivery.content.properties.decode();
    assert_eq!(properties.message_id.unwrap(), "\u{fffd}\u{fffd}id");
    let headers = properties.headers.unwrap();
    assert_eq!(headers.get("\u{fffd}k").unwrap().as_i64(), Some(7));
    // What came can be passed on as it came.
    assert_eq!(delivery.content.properties.as_bytes(), &header[12..]);
}
