//! The ends of a connection: each has one reason, in bounded time.

use alloc::{string::ToString as _, vec, vec::Vec};
use core::time::Duration;

use bytes::BytesMut;
use proptest::{collection::vec as list, prelude::*};

use super::{pair::Pair, script::*};
use crate::{
    ChannelId, Close, CloseCause, CloseReason, MethodDef as _, MethodId, RequestError, Stage,
    TimeoutReason, Timeouts,
    client::{Config, Connection, Event, Outcome},
    frame::FrameKind,
    protocol::{Method, ReplyCode, basic, channel, connection, queue},
    server,
};

type Client = Script<Connection>;

fn closed(client: &mut Client) -> CloseReason {
    match client.only_event() {
        Event::Closed(reason) => reason,
        other => panic!("{other:?}"),
    }
}

fn requested(text: &str) -> CloseCause {
    CloseCause::Requested(Close {
        code: ReplyCode::SUCCESS,
        text: text.into(),
        method: None,
    })
}

fn close_method(text: &str) -> connection::Close {
    connection::Close {
        reply_code: ReplyCode::SUCCESS,
        reply_text: name(text),
        ..connection::Close::default()
    }
}

/// Publishes so many bytes.
fn publish_zeroes(client: &mut Client, id: ChannelId, len: usize) {
    let properties = basic::Properties::default();
    let body = vec![0; len];
    let mut on = client.on(id);
    on.publish(&publish("q"), &properties, body).unwrap();
}

#[test]
fn a_close_is_sent_and_answered() {
    let mut client = Client::open();
    client.conn.close(ReplyCode::SUCCESS, "good bye");
    assert!(!client.conn.is_open());
    assert_eq!(client.conn.stage(), Stage::Closing);
    assert_eq!(client.sent(), [method(0, close_method("good bye"))]);
    assert_eq!(client.events(), []);
    assert!(!client.conn.is_finished());
    client.send(0, &connection::CloseOk);
    let reason = closed(&mut client);
    assert_eq!(*reason.cause(), requested("good bye"));
    assert!(reason.is_clean());
    assert_eq!(reason.code(), Some(ReplyCode::SUCCESS));
    assert_eq!(reason.by_peer(), None);
    assert!(client.conn.is_finished());
    assert_eq!(client.conn.poll_timeout(), None);
    assert_eq!(client.conn.close_reason(), Some(&reason));
}

#[test]
fn a_server_s_close_is_answered_and_reported() {
    for code in [
        200, 320, 402, 501, 502, 503, 504, 505, 506, 530, 540, 541, 312, 999,
    ] {
        for (class_id, method_id) in [(100, 200), (0, 0), (60, 40)] {
            let mut client = Client::open();
            let id = client.channel();
            client.send(
                0,
                &connection::Close {
                    reply_code: ReplyCode(code),
                    reply_text: name("foo"),
                    class_id,
                    method_id,
                },
            );
            assert_eq!(client.sent(), [method(0, connection::CloseOk)]);
            let reason = closed(&mut client);
            let close = reason.by_peer().unwrap();
            assert_eq!((close.code, &*close.text), (ReplyCode(code), "foo"));
            let named = MethodId::new(class_id, method_id);
            assert_eq!(close.method, (class_id > 0).then_some(named));
            assert!(matches!(reason.cause(), CloseCause::ByPeer(_)));
            assert!(!reason.is_clean());
            assert!(reason.to_string().contains(&code.to_string()));
            assert!(client.conn.is_finished());
            assert!(client.conn.channel(id).is_none());
            assert_eq!(client.conn.poll_timeout(), None);
        }
    }
}

#[test]
fn the_answer_to_a_close_is_still_to_be_sent() {
    let mut client = Client::open();
    client.send(0, &close_method(""));
    assert!(!client.conn.is_finished());
    assert!(client.conn.has_transmit());
    client.bytes();
    assert!(client.conn.is_finished());
    // But not to a server that is gone.
    let mut client = Client::open();
    client.send(0, &close_method(""));
    client.conn.handle_eof(client.now);
    assert!(client.conn.is_finished());
    assert_eq!(client.sent(), []);
    assert!(closed(&mut client).by_peer().is_some());
}

#[test]
fn a_second_close_does_nothing() {
    let mut client = Client::open();
    client.conn.close(ReplyCode::SUCCESS, "first");
    client.conn.close(ReplyCode::INTERNAL_ERROR, "second");
    assert_eq!(client.sent(), [method(0, close_method("first"))]);
    client.conn.close(ReplyCode::INTERNAL_ERROR, "third");
    assert_eq!(client.sent(), []);
    client.send(0, &connection::CloseOk);
    assert_eq!(*closed(&mut client).cause(), requested("first"));
    client.conn.close(ReplyCode::INTERNAL_ERROR, "fourth");
    assert_eq!(client.sent(), []);
    assert_eq!(client.events(), []);
    assert!(client.conn.is_finished());
}

#[test]
fn accepted_output_leaves_before_the_close() {
    let mut client = Client::roomy();
    let id = client.confirm_channel();
    publish_zeroes(&mut client, id, 1 << 20);
    client.publish(id, b"last");
    let request = client.on(id).call(&queue::Declare::default()).unwrap();
    client.conn.close(ReplyCode::SUCCESS, "");
    let mut sent = frames(&client.bytes_once());
    // Input is still handled meanwhile.
    client.send(1, &queue::DeclareOk::default());
    client.send(1, &ack(1, false));
    let ok = queue::DeclareOk::default();
    assert_eq!(
        client.events(),
        [replied(id, request, ok), settled(id, 1, 1, Outcome::Acked)]
    );
    sent.extend(client.sent());
    let names: Vec<_> = sent
        .iter()
        .filter_map(|sent| match &sent.what {
            What::Method(method) => Some(method.name()),
            _ => None,
        })
        .collect();
    assert_eq!(
        names,
        [
            "basic.publish",
            "basic.publish",
            "queue.declare",
            "connection.close"
        ]
    );
    assert_eq!(sent.last(), Some(&method(0, close_method(""))));
    // From now on, nothing is.
    client.send(1, &ack(2, false));
    client.deliver_to(1, "unknown", 1);
    assert_eq!(client.events(), []);
    client.send(0, &connection::CloseOk);
    let [settlement, Event::Closed(reason)] = &client.events()[..] else {
        panic!("not closed");
    };
    let connection = CloseCause::Connection(reason.clone()).into();
    assert_eq!(*settlement, settled(id, 2, 2, Outcome::Unknown(connection)));
}

#[test]
fn a_close_whose_deadline_comes_first_says_so() {
    // The transport takes only a little, and the close never leaves.
    let mut client = Client::roomy();
    let id = client.confirm_channel();
    publish_zeroes(&mut client, id, 1 << 20);
    publish_zeroes(&mut client, id, 10);
    client.conn.close(ReplyCode::SUCCESS, "");
    client.bytes_once();
    let calls = client.advance(Duration::from_secs(10));
    assert_eq!(calls.last().unwrap().1, TimeoutReason::Close);
    let [first, second, Event::Closed(reason)] = &client.events()[..] else {
        panic!("not closed");
    };
    let cause = CloseCause::TimedOut(TimeoutReason::Close);
    assert_eq!(*reason.cause(), cause);
    assert!(!reason.is_clean());
    let connection: CloseReason = CloseCause::Connection(reason.clone()).into();
    let unknown = Outcome::Unknown(connection.clone());
    assert_eq!(*first, settled(id, 1, 1, unknown));
    assert_eq!(*second, settled(id, 2, 2, Outcome::NotSent(connection)));
    assert!(client.conn.is_finished());
    assert_eq!(client.sent(), []);
}

/// Begins to close, in one way or another; `true` if the end is reported at once.
type Begin = (fn(&mut Client), bool);

#[test]
fn every_close_has_a_deadline() {
    let begins: [Begin; 4] = [
        (|client| client.conn.close(ReplyCode::SUCCESS, ""), false),
        // A fault of the connection, and of a channel.
        (|client| client.send(0, &connection::OpenOk), true),
        (|client| client.send(7, &ack(1, false)), true),
        // A challenge that has no answer.
        (
            |client| {
                *client = Client::new(Config::default());
                client.send(0, &start());
                client.send(0, &connection::Secure::default());
            },
            true,
        ),
    ];
    for (number, (begin, reported)) in begins.into_iter().enumerate() {
        for taken in [true, false] {
            let mut client = Client::open();
            begin(&mut client);
            if taken {
                client.bytes();
            }
            let mut events = client.events();
            assert_eq!(events.len(), usize::from(reported), "{number}");
            client.advance(Duration::from_millis(9_999));
            assert!(!client.conn.is_finished(), "{number}");
            assert_eq!(client.events(), []);
            client.advance(Duration::from_millis(1));
            events.extend(client.events());
            assert!(client.conn.is_finished(), "{number}");
            let [Event::Closed(reason)] = &events[..] else {
                panic!("{number}: {events:?}");
            };
            // The reported reason stays.
            assert_eq!(client.conn.close_reason(), Some(reason));
            let timed_out = CloseCause::TimedOut(TimeoutReason::Close);
            assert_eq!(*reason.cause() == timed_out, !reported);
            assert_eq!(client.conn.poll_timeout(), None);
            assert_eq!(client.sent(), []);
        }
    }
}

#[test]
fn nothing_is_waited_for_behind_a_frame_that_cannot_be_read() {
    // Section 4.2.3 of the specification: without sending any further data.
    let mut client = Client::open();
    client.feed(&[9; 8]);
    let reason = closed(&mut client);
    assert_eq!(reason.code(), None);
    assert_eq!(client.sent(), []);
    assert!(client.conn.is_finished());
    assert_eq!(client.conn.poll_timeout(), None);

    // Its length is known: the server can read the close.
    let mut client = Client::open();
    client.feed(&[3, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF]);
    assert_eq!(closed(&mut client).code(), Some(ReplyCode::FRAME_ERROR));
    assert!(!client.conn.is_finished());
    let Method::ConnectionClose(close) = client.only_method() else {
        panic!("the server is not notified");
    };
    assert_eq!(close.reply_code, ReplyCode::FRAME_ERROR);
    assert!(client.conn.is_finished());
    assert_eq!(client.conn.poll_timeout(), None);
}

#[test]
fn a_fault_that_crosses_a_close_is_answered() {
    let mut client = Client::open();
    client.send(0, &connection::OpenOk);
    let reason = closed(&mut client);
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    let Method::ConnectionClose(close) = client.only_method() else {
        panic!("no close");
    };
    assert_eq!(close.reply_code, ReplyCode::COMMAND_INVALID);
    assert_eq!(*close.reply_text, *error.to_string());
    client.send(0, &close_method("theirs"));
    assert_eq!(client.sent(), [method(0, connection::CloseOk)]);
    client.send(0, &connection::CloseOk);
    assert!(client.conn.is_finished());
    assert_eq!(client.events(), []);
}

#[test]
fn a_fault_names_the_method_that_it_was_in() {
    let mut client = Client::open();
    client.channel();
    client.send(1, &queue::DeclareOk::default());
    let Method::ConnectionClose(close) = client.only_method() else {
        panic!("no close");
    };
    assert_eq!(close.reply_code, ReplyCode::COMMAND_INVALID);
    assert_eq!(
        MethodId::new(close.class_id, close.method_id),
        queue::DeclareOk::ID
    );
}

#[test]
fn the_end_of_the_transport_of_an_open_connection() {
    let mut client = Client::open();
    let id = client.channel();
    let request = client.on(id).call(&queue::Declare::default()).unwrap();
    client.conn.handle_eof(client.now);
    let [
        Event::Failed {
            request: failed,
            cause,
        },
        Event::Closed(reason),
    ] = &client.events()[..]
    else {
        panic!("no event of it");
    };
    let stage = Stage::Open;
    assert_eq!(*reason.cause(), CloseCause::Eof { stage });
    assert_eq!(
        (*failed, cause),
        (request, &RequestError::ConnectionClosed(reason.clone()))
    );
    assert!(client.conn.is_finished());
    assert_eq!(client.sent(), []);

    let mut client = Client::open();
    client.conn.handle_transport_error(client.now, "reset");
    let message = "reset".into();
    let cause = CloseCause::Transport { stage, message };
    assert_eq!(*closed(&mut client).cause(), cause);
}

#[test]
fn an_answer_to_no_close_is_a_fault() {
    for begun in [false, true] {
        let mut client = Client::open();
        if begun {
            // It has not left yet.
            client.conn.close(ReplyCode::SUCCESS, "");
        }
        client.send(0, &connection::CloseOk);
        assert!(matches!(
            closed(&mut client).cause(),
            CloseCause::ProtocolError(_)
        ));
    }
}

#[test]
fn input_behind_the_end_is_swallowed() {
    let mut client = Client::open();
    client.send(0, &close_method(""));
    client.events();
    client.bytes();
    let mut input = BytesMut::from(&[7; 1000][..]);
    client.conn.handle_input(client.now, &mut input);
    assert!(input.is_empty());
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
    assert_eq!(client.conn.read_hint(), 0);
}

#[test]
fn a_server_closes_like_a_client() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let request = pair
        .client_channel(id)
        .call(&queue::Declare::default())
        .unwrap();
    pair.server.close(ReplyCode::CONNECTION_FORCED, "shutdown");
    pair.exchange();
    let [
        Event::Failed {
            request: failed, ..
        },
        Event::Closed(reason),
    ] = &pair.take_client_events()[..]
    else {
        panic!("no event of it");
    };
    assert_eq!(*failed, request);
    assert_eq!(reason.by_peer().unwrap().text, "shutdown");
    let events = pair.take_server_events();
    let Some(server::Event::Closed(reason)) = events.last() else {
        panic!("{events:?}");
    };
    assert!(matches!(reason.cause(), CloseCause::Requested(_)));
    assert!(pair.client.is_finished() && pair.server.is_finished());
}

#[test]
fn a_server_closes_for_a_method_of_the_client_behind_its_earlier_answers() {
    let mut pair = Pair::open();
    let id = pair.open_channel();
    let declare = queue::Declare::default();
    let answered = pair.client_channel(id).call(&declare).unwrap();
    let unanswered = pair.client_channel(id).call(&declare).unwrap();
    pair.exchange();
    let ok = queue::DeclareOk::default();
    pair.server_channel(id).send(&ok).unwrap();
    let cause = queue::Declare::ID;
    pair.server.close_after(ReplyCode::NOT_ALLOWED, "no", cause);
    pair.server
        .close_after(ReplyCode::INTERNAL_ERROR, "again", cause);
    pair.exchange();
    let [
        Event::Reply { request, .. },
        Event::Failed {
            request: failed, ..
        },
        Event::Closed(reason),
    ] = &pair.take_client_events()[..]
    else {
        panic!("no event of it");
    };
    assert_eq!((*request, *failed), (answered, unanswered));
    let close = reason.by_peer().unwrap();
    assert_eq!(
        (close.code, close.method),
        (ReplyCode::NOT_ALLOWED, Some(cause))
    );
}

/// Something that ends a connection, or comes after its end.
#[derive(Clone, Copy, Debug)]
enum Blow {
    Close,
    Eof,
    Reset,
    TransportError,
    ServerClose,
    CloseOk,
    Garbage,
    WrongMethod,
    ChannelClose,
    Delivery,
    Confirm,
    Publish,
    Request,
    Poll,
    PollOnce,
    Wait(u64),
}

fn any_blow() -> impl Strategy<Value = Blow> {
    prop_oneof![
        3 => Just(Blow::Close),
        1 => Just(Blow::Eof),
        1 => Just(Blow::Reset),
        1 => Just(Blow::TransportError),
        1 => Just(Blow::ServerClose),
        2 => Just(Blow::CloseOk),
        1 => Just(Blow::Garbage),
        1 => Just(Blow::WrongMethod),
        1 => Just(Blow::ChannelClose),
        2 => Just(Blow::Delivery),
        2 => Just(Blow::Confirm),
        3 => Just(Blow::Publish),
        2 => Just(Blow::Request),
        3 => Just(Blow::Poll),
        2 => Just(Blow::PollOnce),
        2 => (0u64..8).prop_map(Blow::Wait),
    ]
}

proptest! {
    #![proptest_config(amqp_test_support::cases(256))]

    /// However a connection ends, it says so once and nothing after it, and then it is over in
    /// bounded time.
    #[test]
    fn a_connection_ends_once(blows in list(any_blow(), 0..30)) {
        let tune = connection::Tune { channel_max: 10, frame_max: 131_072, heartbeat: 5 };
        let mut config = Config::default();
        config.limits.output_high = 1 << 20;
        let mut client = Client::tuned(config, &tune);
        let id = client.confirm_channel();
        client.consumer(id, "t", true);
        let mut events = Vec::new();
        for (count, blow) in (1..).zip(blows) {
            match blow {
                Blow::Close => client.conn.close(ReplyCode::SUCCESS, ""),
                Blow::Eof => client.conn.handle_eof(client.now),
                Blow::Reset => client.conn.handle_reset(client.now, "reset"),
                Blow::TransportError => client.conn.handle_transport_error(client.now, "reset"),
                Blow::ServerClose => client.send(0, &close_method("")),
                Blow::CloseOk => client.send(0, &connection::CloseOk),
                Blow::Garbage => client.feed(&[9; 8]),
                Blow::WrongMethod => client.send(0, &connection::OpenOk),
                Blow::ChannelClose => client.send(1, &channel::Close::default()),
                Blow::Delivery => client.deliver_to(1, "t", count),
                Blow::Confirm => client.send(1, &ack(0, true)),
                Blow::Publish => {
                    if let Some(mut on) = client.conn.channel(id) {
                        let properties = basic::Properties::default();
                        let body = vec![0; 400_000];
                        drop(on.publish(&publish("q"), &properties, body));
                    }
                }
                Blow::Request => {
                    if let Some(mut on) = client.conn.channel(id) {
                        drop(on.call(&queue::Declare::default()));
                    }
                }
                Blow::Poll => drop(client.bytes()),
                Blow::PollOnce => drop(client.bytes_once()),
                Blow::Wait(seconds) => drop(client.advance(Duration::from_secs(seconds))),
            }
            events.extend(client.events());
            let over = client.conn.is_finished();
            let reported = events.iter().any(|event| matches!(event, Event::Closed(_)));
            prop_assert!(reported || !over);
            prop_assert_eq!(reported, reported && !client.conn.is_open());
            if let Some(Event::Closed(reason)) = events.last() {
                prop_assert_eq!(client.conn.close_reason(), Some(reason));
            }
        }
        client.conn.close(ReplyCode::SUCCESS, "");
        // It ends with any transport.
        client.advance(Duration::from_secs(10));
        events.extend(client.events());
        client.bytes();
        events.extend(client.events());
        prop_assert!(client.conn.is_finished());
        let ends = events.iter().filter(|event| matches!(event, Event::Closed(_)));
        prop_assert_eq!(ends.count(), 1);
        prop_assert!(matches!(events.last(), Some(Event::Closed(_))), "{:?}", events);
        prop_assert_eq!(client.conn.poll_timeout(), None);
        prop_assert_eq!(client.conn.channel_count(), 0);
        prop_assert_eq!(client.conn.buffered(), 0);
        // And nothing wakes it up again.
        client.feed(&frame(FrameKind::Heartbeat, 0, b""));
        client.conn.handle_eof(client.now);
        prop_assert_eq!(client.advance(Duration::from_secs(3600)), vec![]);
        prop_assert_eq!(client.events(), vec![]);
        prop_assert_eq!(client.sent(), vec![]);
    }
}

/// The answer to the server's close is sent as soon as the transport takes it, and given up in time.
#[test]
fn last_words_get_no_more_time_than_a_close() {
    for given_up in [false, true] {
        let mut client = Client::open();
        client.send(0, &connection::Close::default());
        closed(&mut client);
        let due = client.now + Timeouts::default().close;
        client.conn.handle_timeout(client.now);
        let timeout = client.conn.poll_timeout();
        assert_eq!(timeout, Some((due, TimeoutReason::Close)));
        assert!(!client.conn.is_finished());
        if given_up {
            client.conn.handle_timeout(due);
        } else {
            assert_eq!(client.only_method(), connection::CloseOk.into());
        }
        assert!(client.conn.is_finished());
        assert_eq!(client.conn.poll_timeout(), None);
        assert_eq!(client.sent(), []);
        assert_eq!(client.events(), []);
    }
}
