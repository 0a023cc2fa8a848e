//! Malformed headers and bodies.

use alloc::{vec, vec::Vec};

use super::{OPEN, content, content_method, open_side, refused};
use crate::{
    CloseCause, Fault, Limits, MethodId,
    protocol::{Method, ReplyCode, channel, connection},
    tests::side::{Event, Role, UNDECODABLE, body_frame, header_frame, method_frame, raw_frame},
    wire::DecodeError,
};

#[test]
fn properties_that_do_not_decode_end_a_client_of_a_server() {
    let method = content_method(Role::Server);
    let good = method_frame(OPEN, &method);
    for (properties, error) in UNDECODABLE {
        let bad = header_frame(OPEN, 60, 0, 0, properties);
        let fault = (Fault::Decode(error), 502);
        refused(Role::Server, &good, &bad, fault, Some(method.id()));
    }
    let none = raw_frame(2, OPEN, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0xCE);
    let fault = (Fault::Decode(DecodeError::Truncated), 502);
    refused(Role::Server, &good, &none, fault, Some(method.id()));
}

#[test]
fn headers_of_another_class_or_with_a_weight() {
    for role in Role::BOTH {
        let method = content_method(role);
        let good = method_frame(OPEN, &method);
        // Without a body, the message is all there.
        for size in [0, 1] {
            for class in [0, 10, 50, 61, u16::MAX] {
                let bad = header_frame(OPEN, class, 0, size, &[]);
                let fault = (Fault::HeaderClass(class), 505);
                refused(role, &good, &bad, fault, Some(method.id()));
            }
            for weight in [1, u16::MAX] {
                let bad = header_frame(OPEN, 60, weight, size, &[]);
                let fault = (Fault::HeaderWeight(weight), 505);
                refused(role, &good, &bad, fault, Some(method.id()));
            }
        }
    }
}

#[test]
fn content_out_of_its_order() {
    for role in Role::BOTH {
        let method = Some(content_method(role).id());
        let begun = method_frame(OPEN, &content_method(role));
        let header = || header_frame(OPEN, 60, 0, 1, &[]);
        let body = || body_frame(OPEN, b"x");
        let no_header = || (Fault::UnexpectedHeader, 505);
        let no_body = || (Fault::UnexpectedBody, 505);
        refused(role, &[], &header(), no_header(), None);
        refused(role, &[], &body(), no_body(), None);
        refused(role, &[], &body_frame(OPEN, &[]), no_body(), None);
        refused(role, &begun, &body(), no_body(), method);
        refused(role, &content(role, 2), &header(), no_header(), method);
        let mid_body = [content(role, 2), body()].concat();
        refused(role, &mid_body, &header(), no_header(), method);
        let mid_content = (Fault::MethodInContent, 505);
        refused(role, &mid_body, &begun, mid_content, method);
    }
}

/// An empty body has no frame, not even an empty one, and neither has a full one after its end.
#[test]
fn frames_behind_the_end_of_a_body() {
    for role in Role::BOTH {
        let no_body = (Fault::UnexpectedBody, 505);
        for size in [0, 1] {
            let mut message = content(role, size);
            if size > 0 {
                message.extend(body_frame(OPEN, b"x"));
            }
            for piece in [&b""[..], b"y"] {
                let mut side = open_side(role);
                assert_eq!(side.feed(&message).len(), 1);
                let events = side.feed(&body_frame(OPEN, piece));
                side.assert_failed(&events, &no_body.0, no_body.1, None);
            }
        }
    }
}

#[test]
fn bodies_longer_than_announced() {
    for role in Role::BOTH {
        let method = Some(content_method(role).id());
        for (size, len, excess) in [(10, 11, 1), (1, 3000, 2999), (4000, 5000, 1000)] {
            let bad = body_frame(OPEN, &vec![7; len]);
            let fault = (Fault::BodyOverrun { excess }, 505);
            refused(role, &content(role, size), &bad, fault, method);
        }
        let good = [content(role, 10), body_frame(OPEN, b"123456")].concat();
        let bad = body_frame(OPEN, b"78901");
        let fault = (Fault::BodyOverrun { excess: 1 }, 505);
        refused(role, &good, &bad, fault, method);
    }
}

#[test]
fn a_flood_of_empty_body_frames() {
    let limit = Limits::default().empty_frames;
    for role in Role::BOTH {
        let method = Some(content_method(role).id());
        let empty = body_frame(OPEN, &[]);
        let good = [content(role, 2), empty.repeat(limit as usize)].concat();
        let fault = (Fault::TooManyEmptyFrames(limit + 1), 505);
        refused(role, &good, &empty, fault, method);

        // As many as are tolerated do no harm, and each message has its own.
        let mut side = open_side(role);
        let whole = [&good[..], &body_frame(OPEN, b"ab")].concat();
        for _ in 0..2 {
            assert_eq!(side.feed(&whole).len(), 1);
        }
        assert_eq!(side.close_reason(), None);
    }
}

#[test]
fn content_on_channel_zero_and_on_channels_that_are_not_open() {
    for role in Role::BOTH {
        let frames = |number| {
            [
                header_frame(number, 60, 0, 1, &[]),
                body_frame(number, b"x"),
            ]
        };
        for bad in frames(0) {
            let fault = (Fault::ContentOnChannelZero, 504);
            refused(role, &[], &bad, fault, None);
        }
        for number in [2, 2047, 2048, u16::MAX] {
            for bad in frames(number) {
                refused(role, &[], &bad, (Fault::ChannelNotOpen, 504), None);
            }
        }
        let method = content_method(role);
        let bad = method_frame(0, &method);
        let fault = (Fault::WrongChannel, 503);
        refused(role, &[], &bad, fault, Some(method.id()));
    }
}

/// A body that is too large closes its channel and no other. Frames in flight are ignored, and the
/// number is free after the answer.
#[test]
fn bodies_of_any_announced_size() {
    let limit = Limits::default().body;
    for role in Role::BOTH {
        for size in [limit + 1, 1 << 32, 1 << 63, u64::MAX] {
            let method = content_method(role).id();
            let mut side = open_side(role);
            let events = side.feed(&content(role, size));
            let [event] = &events[..] else {
                panic!("{events:?}");
            };
            let (number, reason) = event.channel_closed().unwrap();
            let CloseCause::LimitExceeded(error) = reason.cause() else {
                panic!("{reason:?}");
            };
            assert_eq!(error.fault, Fault::BodyTooLarge { size, limit });
            assert_eq!(
                (number, error.channel, error.method),
                (OPEN, Some(OPEN), Some(method))
            );
            let [close] = &side.sent_frames()[..] else {
                panic!("one close");
            };
            let Method::ChannelClose(said) = close.method() else {
                panic!("{close:?}");
            };
            assert_eq!((close.channel, said.reply_code.0), (OPEN, 311));
            assert_eq!(MethodId::new(said.class_id, said.method_id), method);

            // The rest, and one more message; then the answer.
            let rest = [
                body_frame(OPEN, &[1; 5000]),
                body_frame(OPEN, &[]),
                content(role, 1),
                body_frame(OPEN, b"x"),
            ];
            assert_eq!(side.feed(&rest.concat()), []);
            let close_ok = method_frame(OPEN, &channel::CloseOk.into());
            assert_eq!(side.feed(&close_ok), []);
            assert!(side.close_reason().is_none() && side.sent().is_empty());
            match role {
                Role::Client => assert!(side.as_client().open_channel_at(OPEN).is_ok()),
                Role::Server => {
                    let open = method_frame(OPEN, &channel::Open.into());
                    assert_eq!(side.feed(&open).len(), 1);
                }
            }
        }
        let mut side = open_side(role);
        assert_eq!(side.feed(&content(role, limit)), []);
        assert!(side.close_reason().is_none() && side.sent().is_empty());
    }
}

/// While the connection closes for a reason of its own, a channel's fault does not become the
/// connection's.
#[test]
fn a_body_too_large_while_the_connection_closes() {
    for role in Role::BOTH {
        let mut side = open_side(role);
        side.close(ReplyCode::SUCCESS, "bye");
        let stream = [content(role, u64::MAX), body_frame(OPEN, b"more of it")].concat();
        let events = side.feed(&stream);
        let channels: Vec<_> = events.iter().filter_map(Event::channel_closed).collect();
        assert_eq!((events.len(), channels.len()), (1, 1), "{events:?}");
        let sent = side.sent_frames();
        let Some(Method::ConnectionClose(close)) = sent.last().map(|sent| sent.method()) else {
            panic!("{sent:?}");
        };
        assert_eq!(close.reply_code, ReplyCode::SUCCESS);
        let close_ok = connection::CloseOk;
        let events = side.feed(&method_frame(0, &close_ok.into()));
        assert!(matches!(&events[..], [event] if event.closed().unwrap().is_clean()));
    }
}
