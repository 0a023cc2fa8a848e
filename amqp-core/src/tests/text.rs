//! Texts of a peer: names that RabbitMQ passes on from a publisher, in other than UTF-8, and the
//! quotes of a peer's bytes in errors and reasons.

use alloc::{
    string::{String, ToString as _},
    vec::Vec,
};

use super::{
    pair::Pair,
    side::{Event as SideEvent, Role, Side, method_bytes},
};
use crate::{
    ApiMisuse, Close, CloseCause, CloseReason, Fault, MethodId, RequestError, Stage,
    client::Event,
    frame::{Frame, FrameKind},
    protocol::{ReplyCode, basic},
    text::front,
    wire::ShortStr,
};

/// RabbitMQ 3.10 delivers this: it looks at the text of neither the arguments of `basic.publish`
/// nor the properties nor the names in a table.
#[test]
fn a_message_with_names_that_are_not_utf8_is_delivered_and_the_connection_lives() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let consume = basic::Consume::default().consumer_tag("c");
    pair.client_channel(id).consume(consume).unwrap();
    pair.exchange();
    let ok = basic::ConsumeOk::default().consumer_tag("c");
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
    let properties = delivery.content.properties.decode().unwrap();
    assert_eq!(properties.message_id.unwrap(), "\u{fffd}\u{fffd}id");
    let headers = properties.headers.unwrap();
    assert_eq!(headers.get("\u{fffd}k").unwrap().as_i64(), Some(7));
    // The properties can be passed on as they came.
    assert_eq!(delivery.content.properties.as_bytes(), &header[12..]);
}

const NASTY: &str = "no\n2026-01-01 root logged in\r\x1b[2J\u{202e}";
const SHOWN: &str = r"no\n2026-01-01 root logged in\r\u{1b}[2J\u{202e}";

/// Each reason and error that holds a text of the peer.
#[test]
fn texts_of_a_peer_are_escaped_where_they_are_shown() {
    let close = Close {
        code: ReplyCode::NOT_FOUND,
        text: NASTY.into(),
        method: None,
    };
    let tag = ShortStr::try_from(NASTY).unwrap();
    let (offered, why, message) = (NASTY.into(), NASTY.into(), NASTY.into());
    let shown = [
        close.to_string(),
        CloseCause::ByPeer(close.clone()).to_string(),
        CloseReason::from(CloseCause::ByPeer(close.clone())).to_string(),
        CloseCause::NoCommonMechanism { offered }.to_string(),
        CloseCause::NoCommonLocale {
            wanted: "en_US".into(),
            offered: NASTY.into(),
        }
        .to_string(),
        CloseCause::AuthenticationFailed { why, close: None }.to_string(),
        CloseCause::Transport {
            stage: Stage::Open,
            message,
        }
        .to_string(),
        RequestError::Cancelled {
            tag: tag.clone(),
            channel: 1,
        }
        .to_string(),
        Fault::UnknownConsumer(tag.clone()).to_string(),
        ApiMisuse::DuplicateConsumerTag(tag).to_string(),
    ];
    for text in shown {
        assert!(text.contains(SHOWN), "{text}");
        assert!(!text.contains(char::is_control), "{text:?}");
    }
}

#[test]
fn a_method_with_a_command_of_its_own_names_it() {
    let text = |method| ApiMisuse::NotSentThisWay { method }.to_string();
    assert_eq!(
        text("basic.consume"),
        "basic.consume cannot be sent this way: `consume` sends it"
    );
    assert_eq!(text("tx.select"), "tx.select cannot be sent this way");
}

#[test]
fn an_empty_name_is_shown() {
    let tag = ShortStr::default;
    for text in [
        RequestError::Cancelled {
            tag: tag(),
            channel: 1,
        }
        .to_string(),
        Fault::UnknownConsumer(tag()).to_string(),
        ApiMisuse::DuplicateConsumerTag(tag()).to_string(),
        ApiMisuse::ReservedName(tag()).to_string(),
        CloseCause::NoCommonMechanism {
            offered: String::new(),
        }
        .to_string(),
    ] {
        assert!(text.contains(r#""""#), "{text}");
    }
}

/// The reason for which a client closes on these bytes.
fn reason(bytes: &[u8]) -> String {
    let mut side = Side::of(Pair::open(), Role::Client);
    let events = side.feed(bytes);
    let closed = events.last().and_then(SideEvent::closed);
    closed.unwrap().to_string()
}

#[test]
fn a_fault_says_where_it_was_found_if_that_is_known() {
    let unknown = method_bytes(0, MethodId::new(60, 250), &[]);
    assert_eq!(
        reason(&unknown),
        "closed because the peer broke the protocol: there is no method 60.250, on channel 0"
    );
    // Too large, by the head of the frame, and without its end octet.
    for frame in [
        &b"\x01\x00\x07\xff\xff\xff\xff"[..],
        b"\x08\x00\x07\x00\x00\x00\x00\x00",
    ] {
        assert!(
            reason(frame).ends_with(", on channel 7"),
            "{}",
            reason(frame)
        );
    }
    // A wrong type is reported at the first octet, however much has come with it.
    for frame in [&b"\x09"[..], b"\x09\x00\x07\x00\x00\x00\x00\xce"] {
        assert_eq!(
            reason(frame),
            "closed because the peer broke the protocol: frame type 9 does not exist"
        );
    }
}

#[test]
fn the_front_of_a_text_is_text_without_a_character_that_is_cut() {
    let word = "a\u{e9}".as_bytes();
    assert_eq!(front(word, false), Some("a\u{e9}"));
    assert_eq!(front(word, true), Some("a\u{e9}"));
    assert_eq!(front(&word[..2], true), Some("a"));
    assert_eq!(front(&word[..2], false), None);
    assert_eq!(front(b"\xff\xfe a", true), None);
    assert_eq!(front(b"", true), Some(""));
}
