//! The reply to a client that violates the protocol: that of RabbitMQ 3.10.8, measured with the same
//! bytes.

mod deep_tables;
mod side;

use amqp_core::{
    CloseCause, MethodDef as _, MethodId,
    frame::{FrameKind, PROTOCOL_HEADER},
    protocol::{Method, ReplyCode, basic, channel, connection, queue, tx},
    server::Event,
};

use self::side::{
    At, Sent, Side, body_frame, closed, header_frame, method_bytes, method_frame, raw_frame,
};

/// The close that the client receives: code, class and method, text. `Some` if it receives one
/// before the transport is closed.
fn reply(at: At, bytes: &[u8]) -> Option<String> {
    let mut side = at.side();
    let events = side.feed(bytes);
    let mut pieces = at.side();
    let piecewise: Vec<_> = bytes.chunks(1).flat_map(|byte| pieces.feed(byte)).collect();
    assert_eq!(piecewise, events);

    let [reason] = events.iter().filter_map(closed).collect::<Vec<_>>()[..] else {
        panic!("{at:?} {bytes:?} gives {events:?}");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason:?}");
    };
    let sent = side.sent_frames();
    assert_eq!(pieces.sent_frames(), sent);
    let Some(close) = sent.last() else {
        assert_eq!(error.code, None);
        let end = side.server.poll_timeout().map(|(at, _)| at);
        side.server.handle_timeout(end.unwrap_or_default());
        assert!(side.server.is_finished());
        return None;
    };
    let Method::ConnectionClose(close) = close.method() else {
        panic!("{sent:?}");
    };
    assert_eq!(error.code, Some(close.reply_code));
    let (class, method) = (close.class_id, close.method_id);
    let code = close.reply_code.0;
    Some(format!("{code} {class}.{method} {}", close.reply_text))
}

#[track_caller]
fn replies(at: At, bytes: &[u8], expected: &str) {
    assert_eq!(reply(at, bytes).as_deref(), Some(expected), "{at:?}");
}

#[track_caller]
fn hangs_up(at: At, bytes: &[u8]) {
    assert_eq!(reply(at, bytes), None, "{at:?} {bytes:?}");
}

fn method(number: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    method_bytes(number, MethodId::new(class, method), arguments)
}

fn of<M: Into<Method>>(number: u16, method: M) -> Vec<u8> {
    method_frame(number, &method.into())
}

fn frame(kind: u8, number: u16, payload: &[u8]) -> Vec<u8> {
    raw_frame(kind, number, payload, 0xCE)
}

fn declare(number: u16) -> Vec<u8> {
    of(number, queue::Declare::default())
}

fn publish(number: u16) -> Vec<u8> {
    of(number, basic::Publish::default())
}

/// `connection.open` of the virtual host `/`.
const OPEN: [u8; 4] = [1, b'/', 0, 0];

/// `queue.declare` without a name, and these fields as arguments.
fn declare_with(fields: &[u8]) -> Vec<u8> {
    let len = u32::try_from(fields.len()).unwrap();
    let arguments = [&[0, 0, 0, 0], &len.to_be_bytes()[..], fields].concat();
    method(1, 50, 10, &arguments)
}

#[test]
fn a_client_without_agreed_limits_is_disconnected() {
    for at in [At::Start, At::Tune] {
        for bytes in [
            of(0, connection::Close::default()),
            of(0, connection::CloseOk),
            method(0, 10, 40, &OPEN),
            method(1, 20, 10, &[0]),
            method(0, 99, 99, &[]),
            method(0, 10, 31, &[0]),
            method(0, 10, 11, &[0, 0, 0, 0, 5, b'P']),
            header_frame(0, 60, 0, 0, &[]),
            header_frame(1, 60, 0, 0, &[]),
            frame(8, 0, b"x"),
            frame(8, 1, b""),
            frame(9, 0, b""),
            raw_frame(8, 0, b"", 1),
        ] {
            hangs_up(at, &bytes);
        }
    }
    for tune_ok in [(2048, 131_072), (0, 131_072), (100, 131_073), (100, 0)] {
        let (channel_max, frame_max) = tune_ok;
        let tune_ok = connection::TuneOk {
            channel_max,
            frame_max,
            heartbeat: 0,
        };
        hangs_up(At::Tune, &of(0, tune_ok));
    }
}

#[test]
fn a_method_of_another_stage_is_a_channel_error() {
    for (at, state) in [(At::Opening, "opening"), (At::Open, "running")] {
        for (bytes, named) in [
            (of(0, connection::TuneOk::default()), "10.31"),
            (of(0, connection::StartOk::default()), "10.11"),
            (of(0, connection::SecureOk::default()), "10.21"),
            (of(0, connection::Start::default()), "10.10"),
            (of(0, connection::OpenOk), "10.41"),
            (of(0, connection::UpdateSecretOk), "10.71"),
            (of(0, connection::CloseOk), "10.51"),
            (of(0, channel::Open), "20.10"),
            (declare(0), "50.10"),
            (publish(0), "60.40"),
            (method(0, 30, 10, &[0, 0]), "30.10"),
        ] {
            let text = format!("CHANNEL_ERROR - unexpected method in connection state {state}");
            replies(at, &bytes, &format!("504 {named} {text}"));
        }
    }
    let running = "CHANNEL_ERROR - unexpected method in connection state running";
    replies(
        At::Open,
        &method(0, 10, 40, &OPEN),
        &format!("504 10.40 {running}"),
    );
    let opening = "CHANNEL_ERROR - unexpected method in connection state opening";
    let close = of(0, connection::Close::default());
    replies(At::Opening, &close, &format!("504 10.50 {opening}"));
}

#[test]
fn frames_of_other_channels_are_unexpected_before_the_connection_is_open() {
    for (bytes, expected) in [
        (
            method(1, 20, 10, &[0]),
            "type 1, all octets = <<0,20,0,10,0>>",
        ),
        (method(1, 99, 99, &[]), "type 1, all octets = <<0,99,0,99>>"),
        (frame(8, 1, b""), "type 8, all octets = <<>>"),
        (frame(9, 1, b""), "type 9, all octets = <<>>"),
        (
            header_frame(1, 60, 0, 0, &[]),
            "type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,0,0,0>>",
        ),
    ] {
        let expected = format!("505 0.0 UNEXPECTED_FRAME - {expected}");
        replies(At::Opening, &bytes, &expected);
    }
    let unknown = "501 0.0 FRAME_ERROR - type 9, all octets = <<>>: unknown_frame";
    replies(At::Opening, &frame(9, 0, b""), unknown);
    hangs_up(At::Opening, &method(0, 99, 99, &[]));
    hangs_up(At::Opening, &method(0, 10, 50, &[0]));
    let text = "501 10.40 FRAME_ERROR - Malformed UTF-8 in shortstr";
    replies(At::Opening, &method(0, 10, 40, &[1, 0xFF, 0, 0]), text);
}

/// RabbitMQ 3.10.8 reads such a frame whole, and waits for the reply to its close.
#[test]
fn after_a_frame_of_an_unknown_type_the_reply_to_the_close_is_awaited() {
    let mut side = At::Open.side();
    side.feed(&frame(9, 1, b"x"));
    assert_eq!(side.sent_frames().len(), 1);
    assert!(!side.server.is_finished());
    side.feed(&method(0, 10, 51, &[]));
    assert!(side.server.is_finished());
}

#[test]
fn frames_that_are_wrong() {
    for (bytes, expected) in [
        (
            frame(9, 0, b"hello"),
            "type 9, all octets = <<\"hello\">>: unknown_frame",
        ),
        (frame(0, 1, b""), "type 0, all octets = <<>>: unknown_frame"),
        (frame(1, 0, b""), "type 1, all octets = <<>>: unknown_frame"),
        (
            frame(1, 1, &[0, 50]),
            "type 1, all octets = <<0,50>>: unknown_frame",
        ),
        (
            frame(2, 1, &[0, 60]),
            "type 2, all octets = <<0,60>>: unknown_frame",
        ),
        (
            frame(8, 0, b"x"),
            "type 8, all octets = <<\"x\">>: unknown_frame",
        ),
        (
            frame(8, 1, b"x"),
            "type 8, all octets = <<\"x\">>: unknown_frame",
        ),
        (
            raw_frame(3, 1, b"hello", 1),
            "type 3, all octets = <<\"hello\">>: {invalid_frame_end_marker,1}",
        ),
        (
            raw_frame(3, 1, &b"abcdefghijklmnopq".repeat(9), 7),
            "type 3, first 16 octets = <<\"abcdefghijklmnop\">>: {invalid_frame_end_marker,7}",
        ),
        (
            [3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF].to_vec(),
            "type 3, all octets = <<>>: {frame_too_large,4294967295,131064}",
        ),
        (
            PROTOCOL_HEADER.to_vec(),
            "type 65, all octets = <<>>: {frame_too_large,1342177289,131064}",
        ),
    ] {
        replies(
            At::Open,
            &bytes,
            &format!("501 0.0 FRAME_ERROR - {expected}"),
        );
    }
    for (bytes, expected) in [
        (frame(8, 1, b""), "type 8, all octets = <<>>"),
        (frame(8, 3000, b""), "type 8, all octets = <<>>"),
        (frame(3, 0, b"x"), "type 3, all octets = <<\"x\">>"),
    ] {
        replies(
            At::Open,
            &bytes,
            &format!("505 0.0 UNEXPECTED_FRAME - {expected}"),
        );
    }
    // A large body is shown as any other.
    let text = "505 0.0 UNEXPECTED_FRAME - type 3, first 16 octets = <<\"xxxxxxxxxxxxxxxx\">>";
    replies(At::Open, &frame(3, 0, &[b'x'; 70_000]), text);
}

#[test]
fn unknown_methods_and_field_types_end_the_transport() {
    for number in [0, 1, 7] {
        for (class, id) in [(99, 99), (50, 99), (0, 0), (70, 10), (30, 99)] {
            hangs_up(At::Open, &method(number, class, id, &[1, 2, 3]));
        }
    }
    for at in [At::Closing, At::Closed] {
        hangs_up(at, &method(1, 99, 99, &[]));
    }
    for fields in [
        &b"\x01a?\0"[..],
        b"\x01a",
        b"\x05a",
        b"\x01aS\0\0\0\xFFabc",
        b"\x01aA\0\0\0\x01?",
    ] {
        hangs_up(At::Open, &declare_with(fields));
    }
}

#[test]
fn arguments_that_cannot_be_read() {
    for (bytes, expected) in [
        (
            method(1, 50, 10, &[]),
            "50.10 FRAME_ERROR - cannot decode <<>>",
        ),
        (
            method(1, 50, 10, b"\0\0\x05ab"),
            "50.10 FRAME_ERROR - cannot decode <<0,0,5,97,98>>",
        ),
        (
            method(1, 60, 80, &[0, 0]),
            "60.80 FRAME_ERROR - cannot decode <<0,0>>",
        ),
        (
            method(1, 90, 10, b"abc"),
            "90.10 FRAME_ERROR - cannot decode <<97,98,99>>",
        ),
        (
            method(1, 20, 40, &[0]),
            "20.40 FRAME_ERROR - cannot decode <<0>>",
        ),
        (
            method(1, 20, 41, b"abc"),
            "20.41 FRAME_ERROR - cannot decode <<97,98,99>>",
        ),
        (
            method(1, 10, 50, &[0]),
            "10.50 FRAME_ERROR - cannot decode <<0>>",
        ),
        (
            method(1, 30, 10, b"\x05a"),
            "30.10 FRAME_ERROR - cannot decode <<5,97>>",
        ),
        (
            method(1, 50, 10, b"\0\0\x01\xFF\0\0\0\0\0"),
            "0.0 FRAME_ERROR - Malformed UTF-8 in shortstr",
        ),
        (
            method(1, 20, 40, b"\0\xC8\x01\xFF\0\0\0\0"),
            "0.0 FRAME_ERROR - Malformed UTF-8 in shortstr",
        ),
        (
            method(0, 10, 50, b"\0\xC8\x01\xFF\0\0\0\0"),
            "10.50 FRAME_ERROR - Malformed UTF-8 in shortstr",
        ),
    ] {
        replies(At::Open, &bytes, &format!("501 {expected}"));
    }
    // The channel is checked later.
    for number in [1, 7] {
        for at in [At::Open, At::Closing, At::Closed] {
            let text = "501 50.10 FRAME_ERROR - cannot decode <<>>";
            replies(at, &method(number, 50, 10, &[]), text);
        }
    }
    let open = "501 20.10 FRAME_ERROR - cannot decode <<0,122,122>>";
    replies(At::Open, &method(7, 20, 10, b"\0zz"), open);
    for bytes in [
        method(0, 10, 50, &[0]),
        method(0, 10, 70, &[]),
        method(0, 50, 10, &[]),
        method(0, 10, 10, &[]),
    ] {
        replies(At::Open, &bytes, "541 0.0 INTERNAL_ERROR");
    }
    // A text that is too long ends with dots.
    let numbers = reply(At::Open, &method(1, 50, 10, &[0xFF; 100])).unwrap();
    let text = numbers.strip_prefix("501 50.10 ").unwrap();
    assert_eq!(text.len(), 255);
    assert!(text.starts_with("FRAME_ERROR - cannot decode <<255,255,255,"));
    assert!(text.ends_with("..."));
}

#[test]
fn methods_and_content_of_a_channel_that_is_not_open() {
    let cases = |number| {
        [
            (declare(number), "50.10"),
            (of(number, channel::Close::default()), "20.40"),
            (of(number, channel::CloseOk), "20.41"),
            (method(number, 10, 40, &OPEN), "10.40"),
            (of(number, queue::DeclareOk::default()), "50.11"),
            (method(number, 30, 10, &[0, 0]), "30.10"),
        ]
    };
    let content = |number| {
        [
            header_frame(number, 60, 0, 0, &[]),
            body_frame(number, b"x"),
        ]
    };
    let no_method =
        "505 0.0 UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    for (at, number) in [(At::Open, 2), (At::Open, 3000), (At::Closed, 1)] {
        for (bytes, named) in cases(number) {
            let text = format!("504 {named} CHANNEL_ERROR - expected 'channel.open'");
            replies(at, &bytes, &text);
        }
        for bytes in content(number) {
            replies(at, &bytes, no_method);
        }
    }
    let again = "504 20.10 CHANNEL_ERROR - second 'channel.open' seen";
    for at in [At::Open, At::Closing] {
        replies(at, &of(1, channel::Open), again);
    }
    // Before the answer to its close has left, a channel is not free either.
    let close = of(1, channel::Close::default());
    replies(At::Open, &[close, of(1, channel::Open)].concat(), again);
}

#[test]
fn methods_that_are_not_a_client_s_or_not_of_a_channel() {
    for (bytes, named) in [
        (method(1, 10, 40, &OPEN), "10.40"),
        (of(1, connection::Close::default()), "10.50"),
        (of(1, connection::CloseOk), "10.51"),
        (of(1, connection::UpdateSecret::default()), "10.70"),
        (of(1, channel::CloseOk), "20.41"),
        (of(1, channel::OpenOk), "20.11"),
        (of(1, channel::FlowOk::default()), "20.21"),
        (of(1, queue::DeclareOk::default()), "50.11"),
        (of(1, basic::Deliver::default()), "60.60"),
        (of(1, basic::CancelOk::default()), "60.31"),
        (of(1, tx::SelectOk), "90.11"),
        (method(1, 30, 11, &[0, 1]), "30.11"),
    ] {
        let text = format!("503 {named} COMMAND_INVALID - unimplemented method");
        replies(At::Open, &bytes, &text);
    }
}

#[test]
fn content_that_is_out_of_order() {
    let header_due = "505 60.40 UNEXPECTED_FRAME - expected content header for class 60, got";
    let begun = publish(1);
    for (next, got) in [
        (declare(1), "non content header frame instead"),
        (publish(1), "non content header frame instead"),
        (
            of(1, channel::Close::default()),
            "non content header frame instead",
        ),
        (
            of(1, connection::Close::default()),
            "non content header frame instead",
        ),
        (method(1, 50, 10, &[]), "non content header frame instead"),
        (body_frame(1, b"x"), "non content header frame instead"),
        (
            header_frame(1, 60, 1, 0, &[]),
            "non content header frame instead",
        ),
        (header_frame(1, 50, 0, 0, &[]), "one for class 50 instead"),
    ] {
        let text = format!("{header_due} {got}");
        replies(At::Open, &[&begun[..], &next].concat(), &text);
    }
    let body_due = "505 60.40 UNEXPECTED_FRAME - expected content body, got non content body frame \
                    instead";
    let begun = [publish(1), header_frame(1, 60, 0, 3, &[])].concat();
    for next in [
        declare(1),
        header_frame(1, 60, 0, 3, &[]),
        of(1, channel::Close::default()),
        body_frame(1, b"hello"),
    ] {
        replies(At::Open, &[&begun[..], &next].concat(), body_due);
    }
    let none_due = "505 0.0 UNEXPECTED_FRAME - expected method frame, got non method frame instead";
    for next in [header_frame(1, 99, 0, 0, &[]), body_frame(1, b"x")] {
        replies(At::Open, &next, none_due);
    }
    hangs_up(At::Open, &[publish(1), method(1, 99, 99, &[])].concat());
    for properties in [
        &[0x80, 0][..],
        &[0, 0, 0],
        &[0x20, 0, 0, 0, 0, 3, 0, b'?', 0],
    ] {
        let bad = header_frame(1, 60, 0, 0, properties);
        let bytes = [publish(1), bad].concat();
        replies(At::Open, &bytes, "541 0.0 INTERNAL_ERROR");
    }
}

#[test]
fn a_channel_too_many_is_not_allowed_whatever_its_number() {
    let mut side = At::Opening.side();
    side.feed(&of(0, connection::Open::default()));
    side.server.open().unwrap();
    for number in [10, 65_535, 7] {
        side.feed(&of(number, channel::Open));
    }
    side.sent();
    side.feed(&of(7, channel::Close::default()));
    assert_eq!(sent_ids(&mut side), [(7, channel::CloseOk::ID)]);
    side.feed(&of(7000, channel::Open));
    assert_eq!(sent_ids(&mut side), [(7000, channel::OpenOk::ID)]);
    side.feed(&of(1, channel::Open));
    let sent = side.sent_frames();
    let Some(Method::ConnectionClose(close)) = sent.last().map(Sent::method) else {
        panic!("{sent:?}");
    };
    let text = "NOT_ALLOWED - number of channels opened (3) has reached the negotiated \
                channel_max (3)";
    assert_eq!((close.reply_code.0, close.reply_text.as_str()), (530, text));
    let absent = "504 50.10 CHANNEL_ERROR - expected 'channel.open'";
    replies(At::Open, &declare(3000), absent);
}

/// The methods that a server has sent.
fn sent_ids(side: &mut Side) -> Vec<(u16, MethodId)> {
    let sent = side.sent_frames();
    let methods = sent.iter().filter(|sent| sent.kind == FrameKind::Method);
    methods
        .map(|sent| (sent.channel, sent.method().id()))
        .collect()
}

#[test]
fn access_is_granted_on_request() {
    let request = method(1, 30, 10, b"\x05/data\x1f");
    let mut side = At::Open.side();
    assert_eq!(side.feed(&request.repeat(2)), []);
    let granted = method(1, 30, 11, &[0, 1]);
    assert_eq!(side.sent(), granted.repeat(2));
    let mut side = At::Closing.side();
    assert_eq!(side.feed(&request), []);
    assert_eq!((side.sent().len(), side.server.close_reason()), (0, None));
}

/// A server that was asked for a queue, and has sent a large message and then the answer.
fn answering() -> Side {
    let mut side = At::Open.side();
    let events = side.feed(&[declare(1), declare(1)].concat());
    let [Event::Request { channel, .. }, _] = events[..] else {
        panic!("{events:?}");
    };
    let mut on = side.server.channel(channel).unwrap();
    let properties = basic::Properties::default();
    let body = vec![7; 200_000];
    on.send_content(&basic::Deliver::default(), &properties, body)
        .unwrap();
    on.send(&queue::DeclareOk::default()).unwrap();
    side
}

#[test]
fn replies_are_sent_before_the_end() {
    let before = [(1, basic::Deliver::ID), (1, queue::DeclareOk::ID)];
    let close = connection::Close::ID;
    let close_ok = connection::CloseOk::ID;
    let channel_close = of(1, channel::Close::default());
    let connection_close = of(0, connection::Close::default());
    for (bytes, last) in [
        (connection_close.clone(), &[(0, close_ok)][..]),
        (channel_close.clone(), &[(1, channel::CloseOk::ID)]),
        (
            [&channel_close[..], &connection_close].concat(),
            &[(1, channel::CloseOk::ID), (0, close_ok)],
        ),
        (declare(7), &[(0, close)]),
        (raw_frame(8, 0, b"", 1), &[(0, close)]),
        // The closes cross.
        (
            [declare(7), connection_close].concat(),
            &[(0, close), (0, close_ok)],
        ),
    ] {
        let mut side = answering();
        side.feed(&bytes);
        assert_eq!(sent_ids(&mut side), [&before[..], last].concat());
    }
    // Also when the application closes, for a method or just so.
    let mut side = answering();
    let server = &mut side.server;
    server.close(ReplyCode::SUCCESS, "bye");
    server.close_after(ReplyCode::NOT_ALLOWED, "no", queue::Declare::ID);
    assert_eq!(sent_ids(&mut side), [&before[..], &[(0, close)]].concat());
    // Without a close, the rest is not sent either.
    let mut side = answering();
    side.feed(&method(1, 99, 99, &[]));
    assert!(side.sent().is_empty() && side.server.is_finished());
}

#[test]
fn a_channel_that_is_closed_twice_is_answered_twice() {
    let close = of(1, channel::Close::default());
    let mut side = At::Open.side();
    let events = side.feed(&[close.clone(), declare(1), close, declare(1)].concat());
    assert_eq!(events.len(), 1);
    let close_ok = (1, channel::CloseOk::ID);
    assert_eq!(sent_ids(&mut side), [close_ok, close_ok]);
    // Then its number is free.
    let events = side.feed(&of(1, channel::Open));
    assert_eq!((events.len(), side.server.close_reason()), (1, None));
}

#[test]
fn the_text_of_a_close_reason_names_the_fault() {
    let mut side = At::Open.side();
    let events = side.feed(&declare(7));
    let reason = events.iter().find_map(closed).unwrap();
    assert_eq!(reason.code(), Some(ReplyCode::CHANNEL_ERROR));
    let text = "closed because the peer broke the protocol: the channel is not open, in \
                queue.declare, on channel 7";
    assert_eq!(reason.to_string(), text);
}
