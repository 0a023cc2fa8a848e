//! The policy of a server towards clients that deviate from the protocol.

use alloc::{string::ToString as _, vec, vec::Vec};

use super::{
    pair::Pair,
    side::{Role, Side, body_frame, header_frame, method_bytes, method_frame, raw_frame},
};
use crate::{
    Close, CloseCause, FRAME_OVERHEAD, Fault, MethodDef as _, MethodId, Stage,
    client::{self, Delivery},
    frame::PROTOCOL_HEADER,
    protocol::{Method, ReplyCode, basic, channel, connection, queue},
    server::{
        self, ChannelState, Config, IncompleteContent, Policy, ReceivedMethod, Tolerance, Verdict,
        Violation,
    },
    wire::FieldTable,
};

const CHANNEL: u16 = 1;

/// Tolerates everything that can be tolerated.
#[derive(Debug)]
struct Lenient;

impl Policy for Lenient {
    fn tolerance(&self) -> Tolerance {
        Tolerance::default()
            .frame_slack(8)
            .whole_unknown_frames(true)
            .large_headers(true)
            .header_0_9(true)
            .header_0_8(true)
            .any_channel_number(true)
    }
}

fn open(policy: &'static dyn Policy) -> Side {
    let client = client::Config {
        frame_max: 8192,
        ..client::Config::default()
    };
    let mut pair = Pair::open_with(client, Config::default().policy(policy));
    pair.open_channel();
    Side::of(pair, Role::Server)
}

/// The fault that has closed the connection.
fn fault(side: &mut Side, bytes: &[u8]) -> Fault {
    let events = side.feed(bytes);
    let Some(reason) = events.last().and_then(super::side::Event::closed) else {
        panic!("{events:?}");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason:?}");
    };
    error.fault.clone()
}

#[test]
fn a_frame_exceeds_the_limit_by_the_slack() {
    for (policy, limit) in [(&Lenient as &dyn Policy, 8200), (&server::Standard, 8192)] {
        let publish = || {
            let body = vec![0; limit as usize - FRAME_OVERHEAD];
            let mut frames = method_frame(CHANNEL, &basic::Publish::default().into());
            frames.extend(header_frame(CHANNEL, 60, 0, body.len() as u64, &[]));
            frames.extend(body_frame(CHANNEL, &body));
            frames
        };
        let mut side = open(policy);
        assert_eq!(side.feed(&publish()).len(), 1, "{policy:?}");
        let mut side = open(policy);
        let over = raw_frame(3, CHANNEL, &vec![0; limit as usize - 7], 0xCE);
        let size = u64::from(limit) + 1;
        assert_eq!(
            fault(&mut side, &over),
            Fault::FrameTooLarge { size, limit }
        );
    }
}

#[test]
fn a_frame_of_unknown_type_is_received_whole() {
    let frame = raw_frame(4, CHANNEL, b"trace", 0xCE);
    let mut side = open(&Lenient);
    assert_eq!(side.feed(&frame[..frame.len() - 1]), []);
    assert_eq!(
        fault(&mut side, &frame[frame.len() - 1..]),
        Fault::FrameType(4)
    );
    let frame = raw_frame(4, CHANNEL, b"trace", 0xCD);
    assert_eq!(fault(&mut open(&Lenient), &frame), Fault::FrameEnd(0xCD));
    let limit = 8200;
    let fault = fault(&mut open(&Lenient), &[4, 0, 1, 0, 2, 0, 1]);
    let size = 131_081;
    assert_eq!(fault, Fault::FrameTooLarge { size, limit });
}

#[test]
fn the_headers_of_0_8_are_answered_with_their_version() {
    for header in [b"AMQP\x01\x01\x08\x00", b"AMQP\x01\x01\x09\x01"] {
        let mut side = Side::server(Config::default().policy(&Lenient));
        assert_eq!(side.feed(header), []);
        let sent = side.sent();
        // The first octets of `connection.start`: class, method, version.
        assert_eq!(sent[7..13], [0, 10, 0, 10, 8, 0]);
        let mut side = Side::server(Config::default());
        side.feed(header);
        assert_eq!(side.sent()[..], PROTOCOL_HEADER);
    }
}

#[test]
fn channels_are_counted_whatever_their_numbers() {
    let open = |policy| {
        let client = client::Config {
            channel_max: 3,
            ..client::Config::default()
        };
        let pair = Pair::open_with(client, Config::default().policy(policy));
        Side::of(pair, Role::Server)
    };
    let frame = |number| method_frame(number, &channel::Open.into());
    let mut side = open(&Lenient);
    for number in [4, 257, u16::MAX] {
        assert_eq!(side.feed(&frame(number)).len(), 1);
    }
    let close = method_frame(257, &channel::Close::default().into());
    assert_eq!(side.feed(&close).len(), 1);
    side.sent();
    let mut ids = vec![];
    for _ in 0..2 {
        let events = side.feed(&[frame(257), close.clone()].concat());
        side.sent();
        let super::side::Event::Server(server::Event::ChannelOpened { channel }) = &events[0]
        else {
            panic!("{events:?}");
        };
        ids.push(*channel);
    }
    assert_ne!(ids[0], ids[1]);
    assert_eq!(side.feed(&frame(1)).len(), 1);
    assert_eq!(fault(&mut side, &frame(2)), Fault::ChannelNumber(3));

    let mut side = open(&server::Standard);
    assert_eq!(fault(&mut side, &frame(4)), Fault::ChannelNumber(3));
}

#[test]
fn the_header_of_0_9_is_accepted() {
    for policy in [&Lenient as &dyn Policy, &server::Standard] {
        let mut side = Side::server(Config::default().policy(policy));
        let events = side.feed(b"AMQP\x01\x01\x00\x09");
        let tolerates = policy.tolerance().header_0_9;
        assert_eq!(events.is_empty(), tolerates);
        let sent = side.sent();
        assert_eq!(sent[..] == PROTOCOL_HEADER, !tolerates);
    }
}

#[test]
fn a_content_header_of_the_server_exceeds_the_frame_limit() {
    let client = client::Config {
        frame_max: 8192,
        ..client::Config::default()
    };
    let mut headers = FieldTable::new();
    headers.insert("x", "y".repeat(50_000));
    let properties = basic::Properties::default().headers(headers);
    let deliver = basic::Deliver::default().consumer_tag("t");
    for policy in [&Lenient as &dyn Policy, &server::Standard] {
        let mut pair = Pair::open_with(client.clone(), Config::default().policy(policy));
        let id = pair.open_channel();
        let consume = basic::Consume::default().consumer_tag("t");
        let consume = consume.no_wait(true);
        pair.client_channel(id).consume(consume).unwrap();
        pair.exchange();
        pair.take_client_events();
        let deliver = deliver.clone().delivery_tag(1);
        let sent = pair
            .server_channel(id)
            .send_content(&deliver, &properties, "body");
        assert_eq!(sent.is_ok(), policy.tolerance().large_headers);
        pair.exchange();
        if sent.is_ok() {
            let events = pair.take_client_events();
            let [client::Event::Delivered(Delivery { content, .. })] = &events[..] else {
                panic!("{events:?}");
            };
            assert_eq!(content.properties.decode(), Ok(properties.clone()));
        }
        // A client does not send such headers: a server would close the connection.
        let publish = basic::Publish::default();
        let published = pair
            .client_channel(id)
            .publish(&publish, &properties, "body");
        assert!(published.is_err());
        assert!(pair.client.is_open());
    }
}

/// Answers, ignores and refuses by the class and the method, and closes with the state.
#[derive(Debug)]
struct Own;

const ASKED: MethodId = MethodId::new(30, 10);
const IGNORED: MethodId = MethodId::new(30, 20);
const REPLY: [u8; 5] = [0, 30, 0, 11, 7];

impl Policy for Own {
    fn check(&self, method: &ReceivedMethod<'_>) -> Result<Verdict, Fault> {
        match method.id {
            ASKED => {
                assert_eq!(method.arguments, b"args");
                assert_eq!(method.channel, CHANNEL);
                assert_eq!(method.state, ChannelState::Open);
                Ok(Verdict::Answer(&REPLY))
            }
            IGNORED => Ok(Verdict::Ignore),
            channel::Open::ID if method.channel == 2 => Err(Fault::ChannelNumber(0)),
            _ => Ok(Verdict::Process),
        }
    }

    fn close(&self, violation: &Violation<'_>) -> Option<Close> {
        let (stage, content) = (violation.stage, violation.content);
        assert_eq!(violation.channels, 1);
        Some(Close {
            code: ReplyCode::NOT_IMPLEMENTED,
            text: alloc::format!("{stage}, frame {}, {content:?}", violation.frame_type),
            method: violation.error.method,
        })
    }
}

#[test]
fn a_policy_answers_ignores_and_refuses_methods() {
    let mut side = open(&Own);
    assert_eq!(side.feed(&method_bytes(CHANNEL, ASKED, b"args")), []);
    let [reply] = &side.sent_frames()[..] else {
        panic!("one reply");
    };
    assert_eq!((reply.channel, &reply.payload[..]), (CHANNEL, &REPLY[..]));
    assert_eq!(side.feed(&method_bytes(CHANNEL, IGNORED, b"x")), []);
    assert!(side.sent().is_empty());
    let other = method_bytes(CHANNEL, MethodId::new(30, 30), b"");
    assert!(matches!(fault(&mut side, &other), Fault::Decode(_)));
    let open_again = method_frame(2, &channel::Open.into());
    let refused = fault(&mut open(&Own), &open_again);
    assert_eq!(refused, Fault::ChannelNumber(0));
}

#[test]
fn a_policy_sees_the_state_and_writes_the_close() {
    let publish = method_frame(CHANNEL, &basic::Publish::default().into());
    let mut side = open(&Own);
    assert_eq!(side.feed(&publish), []);
    let declare = method_frame(CHANNEL, &queue::Declare::default().into());
    assert_eq!(fault(&mut side, &declare), Fault::MethodInContent);
    let sent: Vec<_> = side.sent_frames();
    let Some(Method::ConnectionClose(close)) = sent.last().map(super::side::Sent::method) else {
        panic!("{sent:?}");
    };
    let content = IncompleteContent {
        method: basic::Publish::ID,
        awaits_header: true,
    };
    let expected = alloc::format!("{}, frame 1, {:?}", Stage::Open, Some(content));
    assert_eq!(close.reply_text.to_string(), expected);
    assert_eq!(close.reply_code, ReplyCode::NOT_IMPLEMENTED);
}

#[test]
fn the_standard_sends_nothing_before_the_connection_is_opened() {
    let mut side = Side::server(Config::default());
    assert_eq!(side.feed(&PROTOCOL_HEADER), []);
    side.sent();
    let early = method_frame(0, &connection::TuneOk::default().into());
    assert_eq!(fault(&mut side, &early), Fault::NotDue);
    assert!(side.sent().is_empty() && side.is_finished());
}
