//! Opening channels, their numbers, and methods on numbers that are not in use.

use alloc::{string::ToString as _, vec::Vec};

use super::script::*;
use crate::{
    ApiMisuse, ChannelId, CloseCause, Fault, MethodId, RequestError, RequestId,
    client::{Config, Connection, Event},
    frame::FrameKind,
    protocol::{Method, ReplyCode, basic, channel, connection, queue},
};

type Client = Script<Connection>;

/// A client that may have that many channels.
fn with_channels(channel_max: u16) -> Client {
    let tune = connection::Tune {
        channel_max,
        frame_max: 131_072,
        heartbeat: 0,
    };
    Client::tuned(Config::default(), &tune)
}

/// Closes a channel, up to the server's answer.
fn close(client: &mut Client, id: ChannelId) -> RequestId {
    let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    let sent = client.sent();
    assert!(
        matches!(&sent[..], [Sent { channel, what: What::Method(Method::ChannelClose(_)) }] if *channel == id.number()),
        "{sent:?}"
    );
    request
}

/// The server answers the close of a channel.
fn close_ok(client: &mut Client, id: ChannelId, request: RequestId) {
    client.send(id.number(), &channel::CloseOk);
    let reply = channel::CloseOk;
    assert_eq!(client.events(), [replied(id, request, reply)]);
}

/// The fault that the connection was closed for.
fn fault(client: &mut Client, code: ReplyCode) -> Fault {
    let Some(Event::Closed(reason)) = client.events().pop() else {
        panic!("the connection is not closed");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert_eq!(error.code, Some(code));
    error.fault.clone()
}

fn server_close(code: u16, text: &str, method: MethodId) -> channel::Close {
    channel::Close {
        reply_code: ReplyCode(code),
        reply_text: name(text),
        class_id: method.class,
        method_id: method.method,
    }
}

#[test]
fn numbers_are_given_out_in_turn() {
    let mut client = Client::open();
    for number in 1..=5 {
        assert_eq!(client.channel().number(), number);
    }
    let (id, request) = client.conn.open_channel_at(120).unwrap();
    assert_eq!(id.number(), 120);
    assert_eq!(client.sent(), [method(120, channel::Open)]);
    client.send(120, &channel::OpenOk);
    let reply = channel::OpenOk;
    assert_eq!(client.events(), [replied(id, request, reply)]);
    assert_eq!(client.on(id).id(), id);
    assert!(client.on(id).is_open());
    assert_eq!(client.channel().number(), 121);
    assert_eq!(client.conn.channel_count(), 7);
}

#[test]
fn a_number_that_is_not_free_is_refused() {
    let mut client = with_channels(10);
    let id = client.channel();
    let refused = |number| {
        let channel_max = 10;
        Err(ApiMisuse::ChannelNumber {
            number,
            channel_max,
        })
    };
    for number in [0, 1, 11, 65_535] {
        assert_eq!(client.conn.open_channel_at(number), refused(number));
    }
    // One that is opening is not free, nor one that is closing.
    let (_, second) = client.conn.open_channel_at(2).unwrap();
    assert_eq!(client.conn.open_channel_at(2), refused(2));
    client.bytes();
    client.send(2, &channel::OpenOk);
    assert!(matches!(&client.events()[..], [Event::Reply { request, .. }] if *request == second));
    close(&mut client, id);
    assert_eq!(client.conn.open_channel_at(1), refused(1));
    assert_eq!(client.sent(), []);
    assert_eq!(client.conn.channel_count(), 2);
    assert!(client.conn.open_channel_at(10).is_ok());
}

#[test]
fn there_are_no_more_channels_than_negotiated() {
    let mut client = with_channels(2);
    client.channel();
    client.channel();
    let error = client.conn.open_channel().unwrap_err();
    assert_eq!(error, ApiMisuse::NoFreeChannel { channel_max: 2 });
    assert_eq!(client.sent(), []);
    assert_eq!(client.events(), []);
}

#[test]
fn the_only_number_is_free_after_close_ok_and_not_before() {
    let mut client = with_channels(1);
    let mut last = None;
    for _ in 0..3 {
        let id = client.channel();
        assert_eq!(id.number(), 1);
        assert_ne!(Some(id), last);
        last = Some(id);
        let full = Err(ApiMisuse::NoFreeChannel { channel_max: 1 });
        assert_eq!(client.conn.open_channel(), full);
        let request = close(&mut client, id);
        assert_eq!(client.conn.open_channel(), full);
        assert!(!client.on(id).is_open());
        close_ok(&mut client, id, request);
        assert!(client.conn.channel(id).is_none());
        assert_eq!(client.conn.channel_count(), 0);
    }
}

#[test]
fn a_number_rests_as_long_as_it_can() {
    let mut client = with_channels(4);
    let mut numbers = Vec::new();
    for _ in 0..8 {
        let id = client.channel();
        numbers.push(id.number());
        let request = close(&mut client, id);
        close_ok(&mut client, id, request);
    }
    assert_eq!(numbers, [1, 2, 3, 4, 1, 2, 3, 4]);
    // Those that are taken are passed over.
    let first = client.channel();
    let second = client.channel();
    client.channel();
    let request = close(&mut client, first);
    close_ok(&mut client, first, request);
    let request = close(&mut client, second);
    close_ok(&mut client, second, request);
    assert_eq!(client.channel().number(), 4);
    assert_eq!(client.channel().number(), 1);
    assert_eq!(client.channel().number(), 2);
    assert!(client.conn.open_channel().is_err());
}

#[test]
fn all_numbers_can_be_used() {
    for channel_max in [1, 2047, 65_535] {
        let mut client = with_channels(channel_max);
        let mut ids = Vec::new();
        for number in 1..=channel_max {
            let (id, _) = client.conn.open_channel().unwrap();
            assert_eq!(id.number(), number);
            ids.push(id);
        }
        assert_eq!(
            client.conn.open_channel(),
            Err(ApiMisuse::NoFreeChannel { channel_max })
        );
        assert_eq!(client.sent().len(), usize::from(channel_max));
        for id in &ids {
            client.send(id.number(), &channel::OpenOk);
        }
        assert_eq!(client.events().len(), ids.len());
        assert_eq!(client.conn.channel_count(), ids.len());
        let id = ids[ids.len() / 2];
        let request = close(&mut client, id);
        assert!(client.conn.open_channel().is_err());
        close_ok(&mut client, id, request);
        let (again, _) = client.conn.open_channel().unwrap();
        assert_eq!(again.number(), id.number());
        assert!(client.conn.open_channel().is_err());
    }
}

#[test]
fn a_number_is_free_as_soon_as_a_soft_error_is_answered() {
    let mut client = with_channels(1);
    for _ in 0..3 {
        let id = client.channel();
        client.send(1, &server_close(404, "gone", MethodId::new(50, 10)));
        assert_eq!(client.events().len(), 1);
        assert!(client.conn.channel(id).is_none());
        let (next, _) = client.conn.open_channel().unwrap();
        assert_eq!(next.number(), 1);
        assert_eq!(
            client.sent(),
            [method(1, channel::CloseOk), method(1, channel::Open)]
        );
        client.send(1, &channel::OpenOk);
        client.events();
        let request = close(&mut client, next);
        close_ok(&mut client, next, request);
    }
}

#[test]
fn a_stale_channel_id_reaches_nothing() {
    let mut client = with_channels(1);
    let old = client.channel();
    let request = client.on(old).call(&queue::Declare::default()).unwrap();
    client.send(1, &server_close(405, "locked", queue::Declare::RULE.id));
    client.bytes();
    client.events();
    let new = client.channel();
    assert_eq!(new.number(), old.number());
    let pending = client.on(new).call(&queue::Declare::default()).unwrap();
    client.bytes();

    assert!(client.conn.channel(old).is_none());
    client.conn.abandon(old, request);
    client.conn.abandon(old, pending);
    // A request that is known, but of another channel.
    client.conn.abandon(new, request);
    assert_eq!(client.sent(), []);
    let ok = queue::DeclareOk::default();
    client.send(1, &ok);
    assert_eq!(client.events(), [replied(new, pending, ok)]);
}

#[test]
fn commands_wait_for_open_ok() {
    let mut client = Client::open();
    let (id, _) = client.conn.open_channel().unwrap();
    client.bytes();
    assert!(!client.on(id).is_open());
    refuses_everything(&mut client, id);
    client.send(1, &channel::OpenOk);
    assert!(client.on(id).is_open());
    client.on(id).call(&queue::Declare::default()).unwrap();
}

/// Every command is refused, and nothing is sent.
fn refuses_everything(client: &mut Client, id: ChannelId) {
    let refused = ApiMisuse::ChannelNotOpen;
    let properties = basic::Properties::default();
    let mut on = client.on(id);
    let declare = queue::Declare::default().queue("q");
    assert_eq!(on.call(&declare), Err(refused.clone()));
    assert_eq!(on.send(&declare), Err(refused.clone()));
    assert_eq!(
        on.consume(consume("q", "t")).map(|_| ()),
        Err(refused.clone())
    );
    assert_eq!(on.get(&basic::Get::default()), Err(refused.clone()));
    assert_eq!(
        on.publish(&publish("q"), &properties, "x"),
        Err(refused.clone().into())
    );
    assert_eq!(on.ack(crate::Tags::All), Err(refused.clone()));
    assert_eq!(
        on.nack(crate::Tags::One(tag(1)), crate::Requeue::Yes),
        Err(refused.clone())
    );
    assert_eq!(on.reject(tag(1), crate::Requeue::No), Err(refused.clone()));
    assert_eq!(on.recover_async(true), Err(refused.clone()));
    assert_eq!(on.close(ReplyCode::SUCCESS, ""), Err(refused));
    assert_eq!(client.sent(), []);
    assert_eq!(client.events(), []);
}

#[test]
fn a_channel_that_is_closing_takes_no_commands() {
    let mut client = Client::open();
    let id = client.channel();
    let request = close(&mut client, id);
    refuses_everything(&mut client, id);
    close_ok(&mut client, id, request);
    assert!(client.conn.channel(id).is_none());
}

#[test]
fn a_server_may_refuse_to_open_a_channel() {
    let mut client = with_channels(1);
    let (id, request) = client.conn.open_channel().unwrap();
    client.bytes();
    client.send(1, &server_close(403, "no", MethodId::new(20, 10)));
    let [
        Event::Failed {
            request: failed,
            cause,
        },
        Event::ChannelClosed { channel, reason },
    ] = &client.events()[..]
    else {
        panic!("no event of it");
    };
    assert_eq!((*failed, *channel), (request, id));
    assert_eq!(*cause, RequestError::ChannelClosed(reason.clone()));
    assert_eq!(reason.by_peer().unwrap().code, ReplyCode::ACCESS_REFUSED);
    assert_eq!(client.sent(), [method(1, channel::CloseOk)]);
    assert_eq!(client.channel().number(), 1);
}

#[test]
fn a_channel_is_opened_once() {
    let mut client = Client::open();
    let id = client.channel();
    client.send(id.number(), &channel::OpenOk);
    let unexpected = fault(&mut client, ReplyCode::COMMAND_INVALID);
    assert_eq!(unexpected, Fault::UnexpectedReply);
}

/// Says something on the channel of that number.
type Say = fn(&mut Client, u16);

#[test]
fn frames_of_a_channel_that_was_never_opened_are_faults() {
    let over = Fault::ChannelNumber(10);
    let said: [(Say, bool); 7] = [
        (|client, n| client.send(n, &channel::OpenOk), true),
        (|client, n| client.send(n, &channel::CloseOk), true),
        (|client, n| client.send(n, &channel::Close::default()), true),
        (|client, n| client.send(n, &ack(1, false)), true),
        (|client, n| client.send(n, &deliver("t", 1)), true),
        (
            |client, n| client.feed(&header_frame(n, &basic::Properties::default(), 1)),
            false,
        ),
        (
            |client, n| client.feed(&frame(FrameKind::Body, n, b"x")),
            false,
        ),
    ];
    for (say, is_method) in said {
        for number in [2, 10, 11, 65_535] {
            let mut client = with_channels(10);
            client.channel();
            say(&mut client, number);
            let expected = if number > 10 && is_method {
                over.clone()
            } else {
                Fault::ChannelNotOpen
            };
            assert_eq!(fault(&mut client, ReplyCode::CHANNEL_ERROR), expected);
            let Method::ConnectionClose(close) = client.only_method() else {
                panic!("the connection goes on");
            };
            assert_eq!(close.reply_code, ReplyCode::CHANNEL_ERROR);
        }
    }
}

/// Everything that a server may have said before it learned that a channel is closed.
fn late_frames(client: &mut Client) {
    client.send(1, &ack(1, false));
    client.send(1, &queue::DeclareOk::default());
    client.send(1, &channel::Flow { active: false });
    client.send(
        1,
        &basic::Cancel {
            consumer_tag: name("t"),
            no_wait: false,
        },
    );
    client.deliver_to(1, "t", 7);
    client.feed(&frame(FrameKind::Body, 1, b"the rest of something"));
    client.feed(&header_frame(1, &basic::Properties::default(), u64::MAX));
}

#[test]
fn frames_of_a_channel_that_was_just_closed_are_ignored() {
    // The one that the server has closed.
    let mut client = Client::open();
    let id = client.channel();
    client.send(1, &server_close(404, "", MethodId::default()));
    client.sent();
    client.events();
    late_frames(&mut client);
    client.send(1, &channel::CloseOk);
    client.send(1, &server_close(404, "", MethodId::default()));
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
    assert!(client.conn.channel(id).is_none());

    // The one that this side has closed, before and after the answer.
    let mut client = Client::open();
    let id = client.channel();
    let request = close(&mut client, id);
    late_frames(&mut client);
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
    close_ok(&mut client, id, request);
    late_frames(&mut client);
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
    assert!(client.conn.is_open());
}

#[test]
fn a_server_closes_a_channel_with_any_code() {
    let publish = MethodId::new(60, 40);
    for code in [311, 312, 313, 403, 404, 405, 406, 501, 541, 999] {
        for method_id in [publish, MethodId::default(), MethodId::new(61, 7)] {
            let mut client = Client::open();
            let id = client.channel();
            let other = client.channel();
            let text = "PRECONDITION_FAILED - it is what it is";
            client.send(1, &server_close(code, text, method_id));
            let Event::ChannelClosed { channel, reason } = client.only_event() else {
                panic!("no event of it");
            };
            assert_eq!(channel, id);
            let closed = reason.by_peer().unwrap();
            assert_eq!(closed.code, ReplyCode(code));
            assert_eq!(closed.text, text);
            let named = (method_id != MethodId::default()).then_some(method_id);
            assert_eq!(closed.method, named);
            assert_eq!(reason.code(), Some(ReplyCode(code)));
            assert!(!reason.is_clean());
            assert!(matches!(reason.cause(), CloseCause::ByPeer(_)));
            let shown = reason.to_string();
            assert!(shown.contains(&code.to_string()) && shown.contains(text));
            assert_eq!(client.sent(), [method(1, channel::CloseOk)]);
            // The others go on.
            assert!(client.conn.is_open());
            assert!(client.on(other).is_open());
        }
    }
}

#[test]
fn a_channel_is_closed_with_any_code() {
    for code in [200, 311, 312, 313, 403, 404, 405, 406] {
        let mut client = Client::open();
        let id = client.channel();
        let request = client.on(id).close(ReplyCode(code), "enough").unwrap();
        let reported = server_close(code, "enough", MethodId::default());
        assert_eq!(client.sent(), [method(1, reported)]);
        close_ok(&mut client, id, request);
        assert_eq!(client.sent(), []);
    }
}

#[test]
fn a_reply_text_that_is_too_long_is_cut_at_a_character() {
    let mut client = Client::open();
    let id = client.channel();
    let text = "x".to_string() + &"ü".repeat(200);
    client.on(id).close(ReplyCode::SUCCESS, &text).unwrap();
    let Method::ChannelClose(close) = client.only_method() else {
        panic!("no close");
    };
    assert_eq!(close.reply_text.len(), 255);
    assert!(text.starts_with(close.reply_text.as_str()));
}
