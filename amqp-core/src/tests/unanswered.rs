//! A close without its close-ok: it is no success, and the cause that ended the connection in place
//! of the answer is the reason.

use alloc::vec;

use super::script::*;
use crate::{
    CloseCause, CloseReason, MethodDef as _, Stage,
    client::{Connection, Event, Outcome},
    frame::FrameKind,
    protocol::{ReplyCode, connection},
};

type Client = Script<Connection>;

/// The reason of the only event, which is the final one.
fn closed(client: &mut Client) -> CloseReason {
    match client.only_event() {
        Event::Closed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_close_that_crosses_the_own_one_is_answered_and_is_the_reason() {
    // Whether or not the own one has left.
    for left in [true, false] {
        let mut client = Client::open();
        let id = client.confirm_channel();
        client.publish(id, b"in doubt");
        client.bytes();
        client.conn.close(ReplyCode::SUCCESS, "ours");
        if left {
            client.bytes();
        }
        let close = connection::Close {
            reply_code: ReplyCode::CONNECTION_FORCED,
            reply_text: name("theirs"),
            ..connection::Close::default()
        };
        client.send(0, &close);
        assert_eq!(client.sent(), [method(0, connection::CloseOk)]);
        let [doubt, Event::Closed(reason)] = &client.events()[..] else {
            panic!("not closed");
        };
        assert!(!reason.is_clean());
        let reported = reason.by_peer().unwrap();
        assert_eq!((reported.code, &*reported.text), (ReplyCode(320), "theirs"));
        let connection = CloseCause::Connection(reason.clone()).into();
        assert_eq!(*doubt, settled(id, 1, 1, Outcome::Unknown(connection)));
        assert!(client.conn.is_finished());
        // Their answer to the own close changes nothing, if it comes.
        client.send(0, &connection::CloseOk);
        assert_eq!(client.events(), []);
        assert_eq!(client.conn.close_reason(), Some(reason));
    }
}

#[test]
fn a_crossing_close_that_cannot_be_read_is_no_success() {
    let mut client = Client::open();
    client.conn.close(ReplyCode::SUCCESS, "");
    client.bytes();
    client.feed(&frame(FrameKind::Method, 0, &[0, 10, 0, 50, 1]));
    let reason = closed(&mut client);
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert_eq!(
        (error.method, error.code),
        (Some(connection::Close::ID), None)
    );
    assert!(client.conn.is_finished());
}

#[test]
fn the_end_of_the_transport_is_no_answer_to_a_close() {
    let ends: [fn(&mut Client); 3] = [
        |client| client.conn.handle_eof(client.now),
        |client| client.conn.handle_reset(client.now, "reset"),
        |client| client.conn.handle_transport_error(client.now, "timed out"),
    ];
    for end in ends {
        // Whether or not the close has left.
        for left in [true, false] {
            let mut client = Client::open();
            let id = client.confirm_channel();
            client.publish(id, b"1");
            client.bytes();
            client.publish(id, b"2");
            client.conn.close(ReplyCode::SUCCESS, "");
            if left {
                client.bytes();
            }
            end(&mut client);
            let mut events = client.events();
            let Some(Event::Closed(reason)) = events.pop() else {
                panic!("not closed");
            };
            let stage = Stage::Closing;
            assert!(
                matches!(
                    reason.cause(),
                    CloseCause::Eof { stage: at } | CloseCause::Transport { stage: at, .. } if *at == stage
                ),
                "{reason}"
            );
            let connection = CloseReason::from(CloseCause::Connection(reason));
            let doubt = Outcome::Unknown(connection.clone());
            let outcomes = if left {
                vec![settled(id, 1, 2, doubt)]
            } else {
                let not_sent = Outcome::NotSent(connection);
                vec![settled(id, 1, 1, doubt), settled(id, 2, 2, not_sent)]
            };
            assert_eq!(events, outcomes);
            assert!(client.conn.is_finished());
        }
    }
}

#[test]
fn garbage_while_closing_ends_the_wait() {
    for garbage in [
        &[9; 8][..],
        b"\x01\x00\x00\xff\xff\xff\xff",
        b"HTTP/1.1 400",
    ] {
        let mut client = Client::open();
        client.conn.close(ReplyCode::SUCCESS, "");
        client.bytes();
        client.feed(garbage);
        let reason = closed(&mut client);
        let CloseCause::ProtocolError(error) = reason.cause() else {
            panic!("{reason}");
        };
        // The peer cannot receive it any more.
        assert_eq!(error.code, None);
        assert_eq!(client.sent(), []);
        assert!(client.conn.is_finished());
    }
}
