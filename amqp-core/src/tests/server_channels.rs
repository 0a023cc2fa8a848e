//! A server's channels: the methods of clients, and the answers of the server.

use alloc::{vec, vec::Vec};

use super::{pair::Pair, script::*};
use crate::{
    ApiMisuse, ChannelId, CloseCause, Fault, Hold, MethodDef as _, MethodId,
    client::{self, Outcome},
    frame::{FrameKind, PROTOCOL_HEADER},
    protocol::{ClientMethod, Method, ReplyCode, basic, channel, confirm, connection, queue},
    server::{Config, Connection, Event},
};

type Server = Script<Connection>;

/// An open server that was agreed on ten channels with.
fn open_with(config: Config) -> Server {
    let mut server = Server::server(config);
    server.feed(&PROTOCOL_HEADER);
    let start_ok = connection::StartOk::default().mechanism("PLAIN");
    server.send(0, &start_ok);
    server.conn.accept().unwrap();
    let tune_ok = connection::TuneOk {
        channel_max: 10,
        frame_max: 131_072,
        heartbeat: 0,
    };
    server.send(0, &tune_ok);
    server.send(0, &connection::Open::default());
    server.conn.open().unwrap();
    server.bytes();
    assert_eq!(server.server_events().pop(), Some(Event::Opened));
    server
}

/// The client opens a channel.
fn open_channel(server: &mut Server, number: u16) -> ChannelId {
    server.send(number, &channel::Open);
    assert_eq!(server.sent(), [method(number, channel::OpenOk)]);
    let [Event::ChannelOpened { channel }] = server.server_events()[..] else {
        panic!("no channel was opened");
    };
    assert_eq!(channel.number(), number);
    channel
}

fn open() -> (Server, ChannelId) {
    let mut server = open_with(Config::default());
    let id = open_channel(&mut server, 1);
    (server, id)
}

/// The fault that the connection was closed for.
fn fault(server: &mut Server, code: ReplyCode) -> Fault {
    let events = server.server_events();
    let Some(Event::Closed(reason)) = events.last() else {
        panic!("the connection goes on: {events:?}");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert_eq!(error.code, Some(code));
    let Method::ConnectionClose(close) = server.only_method() else {
        panic!("no close for the client");
    };
    assert_eq!(close.reply_code, code);
    error.fault.clone()
}

/// The client publishes.
fn publish_body(server: &mut Server, channel: u16, body: &[u8]) {
    let properties = basic::Properties::default();
    server.send_content(channel, &publish("q"), &properties, body);
}

#[test]
fn a_channel_is_opened_and_answered_at_once() {
    let mut server = open_with(Config::default());
    for number in [10, 1, 5] {
        let id = open_channel(&mut server, number);
        assert!(server.conn.channel(id).unwrap().is_open());
    }
    assert_eq!(server.conn.channel_count(), 3);
}

#[test]
fn a_channel_that_is_open_or_too_high_is_not_opened() {
    let (mut server, _) = open();
    server.send(1, &channel::Open);
    let code = ReplyCode::CHANNEL_ERROR;
    assert_eq!(fault(&mut server, code), Fault::ChannelAlreadyOpen);
    for number in [11, 65_535] {
        let (mut server, _) = open();
        server.send(number, &channel::Open);
        let code = ReplyCode::CHANNEL_ERROR;
        assert_eq!(fault(&mut server, code), Fault::ChannelNumber(10));
    }
}

#[test]
fn methods_and_content_need_an_open_channel() {
    let code = ReplyCode::CHANNEL_ERROR;
    let said: [fn(&mut Server); 4] = [
        |server| server.send(2, &queue::Declare::default()),
        |server| server.send(2, &channel::Close::default()),
        |server| server.send(2, &publish("q")),
        |server| server.feed(&frame(FrameKind::Body, 2, b"x")),
    ];
    for say in said {
        let (mut server, _) = open();
        say(&mut server);
        assert_eq!(fault(&mut server, code), Fault::ChannelNotOpen);
        // A channel that was closed is as one that was never open.
        let (mut server, _) = open();
        open_channel(&mut server, 2);
        server.send(2, &channel::Close::default());
        assert_eq!(server.sent(), [method(2, channel::CloseOk)]);
        say(&mut server);
        assert_eq!(fault(&mut server, code), Fault::ChannelNotOpen);
    }
}

#[test]
fn a_client_closes_a_channel() {
    let (mut server, id) = open();
    server.send(1, &queue::Declare::default());
    server.server_events();
    let ok = queue::DeclareOk::default();
    server.conn.channel(id).unwrap().send(&ok).unwrap();
    let close = channel::Close {
        reply_code: ReplyCode::SUCCESS,
        reply_text: name("bye"),
        ..channel::Close::default()
    };
    server.send(1, &close);
    // Queued output leaves first.
    assert_eq!(server.sent(), [method(1, ok), method(1, channel::CloseOk)]);
    let [Event::ChannelClosed { channel, reason }] = &server.server_events()[..] else {
        panic!("no event of it");
    };
    assert_eq!(*channel, id);
    assert_eq!(reason.by_peer().unwrap().text, "bye");
    assert!(server.conn.channel(id).is_none());
    // The number can be used again, and is another channel.
    assert_ne!(open_channel(&mut server, 1), id);
}

#[test]
fn a_server_closes_a_channel_for_a_method() {
    let (mut server, id) = open();
    server.send(1, &queue::Declare::default());
    server.server_events();
    let mut on = server.conn.channel(id).unwrap();
    let cause = Some(queue::Declare::ID);
    on.close(ReplyCode::NOT_FOUND, "no queue", cause).unwrap();
    assert!(!on.is_open());
    let not_open = Err(ApiMisuse::ChannelNotOpen);
    assert_eq!(on.send(&queue::DeclareOk::default()), not_open);
    assert_eq!(on.close(ReplyCode::NOT_FOUND, "again", None), not_open);
    let reported = channel::Close {
        reply_code: ReplyCode::NOT_FOUND,
        reply_text: name("no queue"),
        class_id: 50,
        method_id: 10,
    };
    assert_eq!(server.sent(), [method(1, reported)]);
    // Frames that the client sent before it knew are ignored, in any pieces.
    publish_body(&mut server, 1, b"body");
    server.send(1, &queue::Declare::default());
    server.send(1, &publish("q"));
    assert_eq!(server.server_events(), []);
    // It is not opened before the client has answered.
    server.send(1, &channel::CloseOk);
    assert_eq!(server.server_events(), []);
    assert_eq!(server.conn.channel_count(), 0);
    open_channel(&mut server, 1);
}

#[test]
fn closes_of_a_channel_that_cross_are_both_answered() {
    let (mut server, id) = open();
    let mut on = server.conn.channel(id).unwrap();
    on.close(ReplyCode::NOT_FOUND, "", None).unwrap();
    assert_eq!(server.sent().len(), 1);
    server.send(1, &channel::Close::default());
    assert_eq!(server.sent(), [method(1, channel::CloseOk)]);
    server.send(1, &channel::CloseOk);
    assert_eq!(server.conn.channel_count(), 0);
    assert_eq!(server.server_events(), []);
    open_channel(&mut server, 1);
}

#[test]
fn a_message_over_the_limit_closes_its_channel() {
    let mut config = Config::default();
    config.limits.body = 10;
    let mut server = open_with(config);
    let id = open_channel(&mut server, 1);
    publish_body(&mut server, 1, &[0; 10]);
    assert!(matches!(&server.server_events()[..], [Event::Published(_)]));
    publish_body(&mut server, 1, &[0; 11]);
    let [Event::ChannelClosed { channel, reason }] = &server.server_events()[..] else {
        panic!("no event of it");
    };
    assert_eq!(*channel, id);
    assert_eq!(reason.code(), Some(ReplyCode::CONTENT_TOO_LARGE));
    let Method::ChannelClose(close) = server.only_method() else {
        panic!("no close for the client");
    };
    let publish = basic::Publish::ID;
    assert_eq!(MethodId::new(close.class_id, close.method_id), publish);
    server.send(1, &channel::CloseOk);
    open_channel(&mut server, 1);
}

#[test]
fn only_requests_are_answered() {
    let (mut server, id) = open();
    let declare_ok = queue::DeclareOk::default();
    let nothing = |method| Err(ApiMisuse::NothingToAnswer { method });
    let mut on = server.conn.channel(id).unwrap();
    assert_eq!(on.send(&declare_ok), nothing("queue.declare-ok"));
    // A request without an answer gets none.
    server.send(1, &queue::Declare::default().no_wait(true));
    let mut on = server.conn.channel(id).unwrap();
    assert_eq!(on.send(&declare_ok), nothing("queue.declare-ok"));
    // Two requests get two, and one of another kind is not theirs.
    server.send(1, &queue::Declare::default());
    server.send(1, &queue::Declare::default());
    server.send(1, &basic::Get::default());
    let mut on = server.conn.channel(id).unwrap();
    assert_eq!(on.send(&queue::BindOk), nothing("queue.bind-ok"));
    assert_eq!(on.send(&basic::GetEmpty), Ok(()));
    assert_eq!(on.send(&basic::GetEmpty), nothing("basic.get-empty"));
    let properties = basic::Properties::default();
    let got = on.send_content(&basic::GetOk::default(), &properties, "x");
    assert_eq!(got, nothing("basic.get-ok"));
    assert_eq!(on.send(&declare_ok), Ok(()));
    assert_eq!(on.send(&declare_ok), Ok(()));
    assert_eq!(on.send(&declare_ok), nothing("queue.declare-ok"));
    assert_eq!(server.sent().len(), 3);
    assert_eq!(server.server_events().len(), 4);
}

#[test]
fn methods_have_their_own_ways() {
    let (mut server, id) = open();
    let mut on = server.conn.channel(id).unwrap();
    let refused = |method| Err(ApiMisuse::NotSentThisWay { method });
    let properties = basic::Properties::default();
    assert_eq!(on.send(&channel::OpenOk), refused("channel.open-ok"));
    assert_eq!(
        on.send(&channel::Close::default()),
        refused("channel.close")
    );
    assert_eq!(on.send(&channel::CloseOk), refused("channel.close-ok"));
    assert_eq!(
        on.send(&connection::CloseOk),
        refused("connection.close-ok")
    );
    let blocked = connection::Blocked::default();
    assert_eq!(on.send(&blocked), refused("connection.blocked"));
    // With content or without.
    assert_eq!(on.send(&deliver("t", 1)), refused("basic.deliver"));
    let with_content = on.send_content(&ack(1, false), &properties, "x");
    assert_eq!(with_content, refused("basic.ack"));
    assert_eq!(server.sent(), []);
}

#[test]
fn publishes_are_counted_from_select_on() {
    let (mut server, id) = open();
    publish_body(&mut server, 1, b"before");
    server.send(1, &confirm::Select::default());
    publish_body(&mut server, 1, b"1");
    publish_body(&mut server, 1, b"");
    server.send(1, &confirm::Select::default());
    publish_body(&mut server, 1, &[7; 10_000]);
    let numbers: Vec<_> = server
        .server_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Published(published) => {
                assert_eq!(published.channel, id);
                Some((published.seq, published.content.body.len()))
            }
            Event::Request { .. } => None,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(
        numbers,
        [
            (None, 6),
            (Some(seq(1)), 1),
            (Some(seq(2)), 0),
            (Some(seq(3)), 10_000)
        ]
    );
    server
        .conn
        .channel(id)
        .unwrap()
        .confirm(seq(3), true)
        .unwrap();
    assert_eq!(server.sent(), [method(1, ack(3, true))]);
}

#[test]
fn confirms_of_both_sides_agree() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let select = confirm::Select::default();
    pair.client_channel(id).call(&select).unwrap();
    let properties = basic::Properties::default();
    for number in 1..=20u64 {
        let body = vec![0; number as usize * 20_000];
        let mut on = pair.client_channel(id);
        let given = on.publish(&publish("q"), &properties, body).unwrap();
        assert_eq!(given, Some(seq(number)));
        pair.exchange();
    }
    let select_ok = confirm::SelectOk;
    pair.server_channel(id).send(&select_ok).unwrap();
    let numbers: Vec<_> = pair
        .take_server_events()
        .into_iter()
        .filter_map(|event| match event {
            Event::Published(published) => Some(published.seq.unwrap().get()),
            _ => None,
        })
        .collect();
    assert_eq!(numbers, (1..=20).collect::<Vec<_>>());
    pair.server_channel(id).confirm(seq(20), true).unwrap();
    pair.exchange();
    let outcome = Outcome::Acked;
    let settled = settled(id, 1, 20, outcome);
    assert_eq!(pair.take_client_events().pop(), Some(settled));
}

#[test]
fn deliveries_take_turns_and_keep_their_order() {
    let mut server = open_with(Config::default());
    let ids = [open_channel(&mut server, 1), open_channel(&mut server, 2)];
    let properties = basic::Properties::default();
    for id in ids {
        let mut on = server.conn.channel(id).unwrap();
        let body = vec![0; 4 * 131_064];
        on.send_content(&deliver("t", 1), &properties, body)
            .unwrap();
        on.send_content(&deliver("t", 2), &properties, "small")
            .unwrap();
    }
    let sent = server.sent();
    let bodies: Vec<_> = sent
        .iter()
        .filter(|sent| matches!(&sent.what, What::Body(body) if body.len() > 5))
        .map(|sent| sent.channel)
        .collect();
    assert_eq!(bodies, [1, 2].repeat(4));
    let of_first: Vec<_> = sent.iter().filter(|sent| sent.channel == 1).collect();
    assert_eq!(of_first.len(), 2 + 4 + 3);
    assert_eq!(of_first[6].what, What::Method(deliver("t", 2).into()));
}

#[test]
fn a_full_output_has_an_event_and_so_has_its_end() {
    let mut config = Config::default();
    config.limits.output_high = 1000;
    config.limits.output_low = 10;
    let mut server = open_with(config);
    let id = open_channel(&mut server, 1);
    let properties = basic::Properties::default();
    let mut on = server.conn.channel(id).unwrap();
    assert_eq!(on.hold(), None);
    let body = vec![0; 1000];
    on.send_content(&deliver("t", 1), &properties, body)
        .unwrap();
    assert_eq!(on.hold(), Some(Hold::OutputFull));
    // It is advice.
    on.send_content(&deliver("t", 2), &properties, "x").unwrap();
    assert_eq!(server.server_events(), []);
    server.bytes();
    assert_eq!(server.server_events(), [Event::Writable]);
    assert_eq!(server.conn.channel(id).unwrap().hold(), None);
}

#[test]
fn a_cancel_of_the_server_s_is_answered_once() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let mut on = pair.client_channel(id);
    on.consume(consume("q", "t").no_wait(true)).unwrap();
    pair.exchange();
    pair.take_client_events();
    pair.take_server_events();
    let cancel = basic::Cancel::default().consumer_tag("t");
    pair.server_channel(id).send(&cancel).unwrap();
    pair.exchange();
    let events = pair.take_client_events();
    assert!(
        matches!(&events[..], [client::Event::ConsumerCancelled { .. }]),
        "{events:?}"
    );
    let events = pair.take_server_events();
    assert!(
        matches!(
            &events[..],
            [Event::Request {
                method: ClientMethod::BasicCancelOk(_),
                ..
            }]
        ),
        "{events:?}"
    );
    // An answer without a request is a fault.
    let (mut server, _) = open();
    let ok = basic::CancelOk::default().consumer_tag("t");
    server.send(1, &ok);
    let code = ReplyCode::COMMAND_INVALID;
    assert_eq!(fault(&mut server, code), Fault::UnexpectedReply);
}

#[test]
fn frames_may_be_dealt_with_one_at_a_time() {
    let (mut server, id) = open();
    let mut input = bytes::BytesMut::new();
    input.extend_from_slice(&method_frame(1, &queue::Declare::default()));
    input.extend_from_slice(&method_frame(2, &channel::Open));
    let flow = method_frame(1, &channel::Flow { active: true });
    input.extend_from_slice(&flow[..9]);
    assert!(server.conn.handle_frame(server.now, &mut input));
    assert_eq!(server.server_events().len(), 1);
    // Its answer leaves before those that the machine gives by itself.
    let ok = queue::DeclareOk::default();
    server.conn.channel(id).unwrap().send(&ok).unwrap();
    assert!(server.conn.handle_frame(server.now, &mut input));
    assert_eq!(server.sent(), [method(1, ok), method(2, channel::OpenOk)]);
    assert!(!server.conn.handle_frame(server.now, &mut input));
    assert_eq!(input[..], flow[..9]);
    input.extend_from_slice(&flow[9..]);
    assert!(server.conn.handle_frame(server.now, &mut input));
    assert!(!server.conn.handle_frame(server.now, &mut input));
    assert!(input.is_empty());
    assert_eq!(server.server_events().len(), 2);
}
