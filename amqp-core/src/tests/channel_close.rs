//! REG-8: channels that are closed by either side, or by both, in the middle of something.

use alloc::{string::ToString as _, vec, vec::Vec};

use super::script::*;
use crate::{
    ChannelId, Close, CloseCause, CloseReason, Fault, MethodId, PublishSeq, RequestError,
    RequestId,
    client::{Config, Connection, Event, Outcome},
    frame::FrameKind,
    protocol::{Method, ReplyCode, basic, channel, connection, queue},
};

type Client = Script<Connection>;

/// How many bytes of a body go into one frame.
const CHUNK: usize = 131_064;

fn not_found() -> channel::Close {
    channel::Close {
        reply_code: ReplyCode::NOT_FOUND,
        reply_text: name("NOT_FOUND - no queue 'q'"),
        class_id: 60,
        method_id: 40,
    }
}

/// Publishes zeroes.
fn publish_zeroes(client: &mut Client, id: ChannelId, len: usize) -> Option<PublishSeq> {
    let properties = basic::Properties::default();
    let mut channel = client.on(id);
    channel
        .publish(&publish("big"), &properties, vec![0; len])
        .unwrap()
}

/// The reason for which the server closed the channel, and the events before it.
fn closed_by_server(events: &mut Vec<Event>, id: ChannelId) -> CloseReason {
    let Some(Event::ChannelClosed { channel, reason }) = events.pop() else {
        panic!("the channel is not closed");
    };
    assert_eq!(channel, id);
    assert!(reason.by_peer().is_some());
    reason
}

fn failed(request: RequestId, reason: &CloseReason) -> Event {
    let cause = RequestError::ChannelClosed(reason.clone());
    Event::Failed { request, cause }
}

fn requested(code: ReplyCode, text: &str) -> CloseReason {
    let text = text.into();
    let method = None;
    CloseCause::Requested(Close { code, text, method }).into()
}

/// How many bytes of bodies are among the frames.
fn body_bytes(frames: &[Sent]) -> usize {
    let bodies = frames.iter().map(|frame| match &frame.what {
        What::Body(body) => body.len(),
        What::Method(_) | What::Header(..) | What::Heartbeat => 0,
    });
    bodies.sum()
}

#[test]
fn an_own_close_leaves_behind_accepted_output() {
    let mut client = Client::roomy();
    let id = client.channel();
    client.publish(id, b"one");
    let declare = queue::Declare::default();
    let request = client.on(id).call(&declare).unwrap();
    publish_zeroes(&mut client, id, 2 * CHUNK);
    client.publish(id, b"two");
    let close = client.on(id).close(ReplyCode::SUCCESS, "bye").unwrap();
    // Pending confirms are settled at once, for want of an answer.
    let reason = requested(ReplyCode::SUCCESS, "bye");
    assert_eq!(client.events(), [failed(request, &reason)]);

    let sent = client.sent();
    let mut expected = content(1, publish("queue"), b"one");
    expected.push(method(1, declare));
    assert_eq!(sent[..4], expected);
    assert_eq!(body_bytes(&sent[4..8]), 2 * CHUNK);
    assert_eq!(sent[8..11], content(1, publish("queue"), b"two"));
    let reported = channel::Close {
        reply_code: ReplyCode::SUCCESS,
        reply_text: name("bye"),
        ..channel::Close::default()
    };
    assert_eq!(sent[11..], [method(1, reported)]);

    // An answer that crossed the close comes too late.
    client.send(1, &queue::DeclareOk::default());
    assert_eq!(client.events(), []);
    let ok = channel::CloseOk;
    client.send(1, &ok);
    assert_eq!(client.events(), [replied(id, close, ok)]);
    assert_eq!(client.sent(), []);
}

#[test]
fn an_own_close_leaves_publishes_in_doubt() {
    let mut client = Client::roomy();
    let id = client.confirm_channel();
    client.publish(id, b"1, handed out");
    client.bytes();
    client.publish(id, b"2, ready");
    publish_zeroes(&mut client, id, 3 * CHUNK);
    client.publish(id, b"4, behind a large one");
    client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    // All of them leave before the close, so that none is known not to be sent.
    let outcome = Outcome::Unknown(requested(ReplyCode::SUCCESS, ""));
    assert_eq!(client.events(), [settled(id, 1, 4, outcome)]);
    let sent = client.sent();
    let published = |sent: &&Sent| matches!(sent.what, What::Method(Method::BasicPublish(_)));
    assert_eq!(sent.iter().filter(published).count(), 3);
    // Later confirms of the server come too late.
    client.send(1, &ack(4, true));
    client.send(1, &channel::CloseOk);
    assert!(matches!(&client.events()[..], [Event::Reply { .. }]));
}

#[test]
fn a_server_s_close_fails_everything_that_waits_with_its_reason() {
    let mut client = Client::open();
    let id = client.confirm_channel();
    let other = client.confirm_channel();
    client.publish(id, b"1");
    client.publish(other, b"1");
    let declare = queue::Declare::default();
    let first = client.on(id).call(&declare).unwrap();
    let second = client.on(id).call(&queue::Purge::default()).unwrap();
    let (_, third) = client.consume(id, consume("q", "t"));
    let fourth = client.on(id).get(&basic::Get::default()).unwrap();
    let elsewhere = client.on(other).call(&declare).unwrap();
    client.bytes();
    client.send(1, &not_found());

    let mut events = client.events();
    let reason = closed_by_server(&mut events, id);
    let close = reason.by_peer().unwrap();
    assert_eq!(close.code, ReplyCode::NOT_FOUND);
    assert_eq!(close.method, Some(MethodId::new(60, 40)));
    assert_eq!(
        events,
        [
            failed(first, &reason),
            failed(second, &reason),
            failed(third, &reason),
            failed(fourth, &reason),
            settled(id, 1, 1, Outcome::Unknown(reason)),
        ]
    );
    assert_eq!(client.sent(), [method(1, channel::CloseOk)]);
    // The other channel has noticed nothing.
    client.send(2, &queue::DeclareOk::default());
    client.send(2, &ack(1, false));
    assert_eq!(
        client.events(),
        [
            replied(other, elsewhere, queue::DeclareOk::default()),
            settled(other, 1, 1, Outcome::Acked)
        ]
    );
}

#[test]
fn a_server_s_close_drops_publishes_that_were_not_begun() {
    let mut client = Client::roomy();
    let id = client.confirm_channel();
    let other = client.channel();
    client.publish(id, b"1, handed out");
    client.bytes();
    client.publish(id, b"2, ready");
    publish_zeroes(&mut client, id, 4 * CHUNK);
    client.publish(id, b"4, behind it");
    client.publish(other, b"other");
    client.send(1, &not_found());
    let mut events = client.events();
    let reason = closed_by_server(&mut events, id);
    assert_eq!(
        events,
        [
            settled(id, 1, 1, Outcome::Unknown(reason.clone())),
            settled(id, 2, 4, Outcome::NotSent(reason)),
        ]
    );
    let sent = client.sent();
    assert_eq!(body_bytes(&sent), b"2, ready".len() + b"other".len());
    assert_eq!(sent[sent.len() - 1..], [method(1, channel::CloseOk)]);
    assert_eq!(client.conn.buffered(), 0);
    assert!(client.conn.channel(id).is_none());
}

#[test]
fn a_message_that_was_begun_is_finished_before_close_ok() {
    for calls in 1..6 {
        let mut client = Client::roomy();
        let id = client.confirm_channel();
        let len = 10 * CHUNK + 1;
        publish_zeroes(&mut client, id, len);
        publish_zeroes(&mut client, id, len);
        client.publish(id, b"behind them");
        client.on(id).call(&queue::Declare::default()).unwrap();
        let mut sent = Vec::new();
        for _ in 0..calls {
            sent.extend(frames(&client.bytes_once()));
        }
        let begun = body_bytes(&sent);
        assert!(begun > 0 && begun < len, "{begun}");
        client.send(1, &not_found());
        let mut events = client.events();
        let reason = closed_by_server(&mut events, id);
        assert_eq!(events.len(), 3, "{events:?}");
        assert_eq!(
            events[1..],
            [
                settled(id, 1, 1, Outcome::Unknown(reason.clone())),
                settled(id, 2, 3, Outcome::NotSent(reason)),
            ]
        );
        // Its number is not free yet, and it takes no commands.
        assert!(!client.on(id).is_open());
        assert_eq!(client.conn.channel_count(), 1);
        assert!(client.on(id).call(&queue::Declare::default()).is_err());
        assert!(client.conn.open_channel_at(1).is_err());
        // Later methods of the server are ignored.
        client.send(1, &ack(1, false));
        client.deliver_to(1, "t", 1);
        client.send(1, &not_found());
        assert_eq!(client.events(), []);

        let rest = client.sent();
        assert_eq!(begun + body_bytes(&rest), len);
        let (last, bodies) = rest.split_last().unwrap();
        assert_eq!(*last, method(1, channel::CloseOk));
        assert!(
            bodies
                .iter()
                .all(|frame| matches!(frame.what, What::Body(_)))
        );
        assert!(client.conn.channel(id).is_none());
        assert_eq!(client.conn.channel_count(), 0);
        assert_eq!(client.conn.buffered(), 0);
        let (again, _) = client.conn.open_channel_at(1).unwrap();
        assert_ne!(again, id);
    }
}

#[test]
fn the_heads_of_a_large_message_are_a_beginning() {
    // The other channel's large message fills one call, so that only the heads of this channel's
    // messages leave with it.
    let mut client = Client::roomy();
    let (first, second) = (client.confirm_channel(), client.confirm_channel());
    publish_zeroes(&mut client, first, 10 * CHUNK);
    publish_zeroes(&mut client, second, 2 * CHUNK);
    let of_second = |sent: &[Sent]| -> Vec<Sent> {
        let mine = sent.iter().filter(|frame| frame.channel == second.number());
        mine.cloned().collect()
    };
    let mut sent = of_second(&frames(&client.bytes_once()));
    client.send(second.number(), &not_found());
    let begun = !sent.is_empty();
    let mut events = client.events();
    let reason = closed_by_server(&mut events, second);
    let outcome = if begun {
        Outcome::Unknown(reason)
    } else {
        Outcome::NotSent(reason)
    };
    assert_eq!(events, [settled(second, 1, 1, outcome)]);
    sent.extend(of_second(&client.sent()));
    let bytes = if begun { 2 * CHUNK } else { 0 };
    assert_eq!(body_bytes(&sent), bytes);
    assert_eq!(sent.pop(), Some(method(2, channel::CloseOk)));
}

#[test]
fn a_body_that_was_half_received_is_forgotten() {
    for received in 0..3 {
        let mut client = Client::open();
        let id = client.channel();
        client.consumer(id, "t", false);
        let mut message = vec![
            method_frame(1, &deliver("t", 1)),
            header_frame(1, &basic::Properties::default(), 10),
            frame(FrameKind::Body, 1, b"12345"),
            frame(FrameKind::Body, 1, b"67890"),
        ];
        let rest = message.split_off(received + 1);
        client.feed(&message.concat());
        let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
        client.bytes();
        client.feed(&rest.concat());
        client.deliver_to(1, "t", 2);
        assert_eq!(client.events(), []);
        client.send(1, &channel::CloseOk);
        let reply = channel::CloseOk;
        assert_eq!(client.events(), [replied(id, request, reply)]);
        // The next channel of that number begins anew.
        let (again, opened) = client.conn.open_channel_at(1).unwrap();
        client.bytes();
        client.send(1, &channel::OpenOk);
        let reply = channel::OpenOk;
        assert_eq!(client.events(), [replied(again, opened, reply)]);
        client.consumer(again, "t", false);
        client.deliver(again, "t", 1);
        assert!(matches!(&client.only_event(), Event::Delivered(_)));
    }
}

#[test]
fn a_close_in_the_middle_of_a_message_is_out_of_place() {
    let mut client = Client::open();
    let id = client.channel();
    client.consumer(id, "t", false);
    let request = client.on(id).call(&queue::Declare::default()).unwrap();
    client.bytes();
    client.send(1, &deliver("t", 1));
    client.feed(&header_frame(1, &basic::Properties::default(), 10));
    client.feed(&frame(FrameKind::Body, 1, b"12345"));
    client.send(1, &not_found());
    let [
        Event::Failed {
            request: failed, ..
        },
        Event::Closed(reason),
    ] = &client.events()[..]
    else {
        panic!("a method came in the middle of a message");
    };
    assert_eq!(*failed, request);
    assert_eq!(reason.code(), Some(ReplyCode::UNEXPECTED_FRAME));
}

/// The close of a channel has failed: the server had closed it before.
fn assert_crossed(client: &mut Client, id: ChannelId, request: RequestId) {
    let mut events = client.events();
    let reason = closed_by_server(&mut events, id);
    assert_eq!(reason.code(), Some(ReplyCode::NOT_FOUND));
    assert_eq!(events, [failed(request, &reason)]);
}

#[test]
fn a_second_crossing_close_is_answered_without_an_event() {
    let mut client = Client::open();
    let id = client.channel();
    let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    client.bytes();
    client.send(1, &not_found());
    assert_crossed(&mut client, id, request);
    client.bytes();
    client.send(1, &not_found());
    assert_eq!(client.sent(), [method(1, channel::CloseOk)]);
    assert_eq!(client.events(), []);
    assert_eq!(client.conn.poll_timeout(), None);
}

#[test]
fn a_close_that_was_given_up_has_no_outcome_when_another_crosses_it() {
    let mut client = Client::open();
    let id = client.channel();
    let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    client.bytes();
    client.conn.abandon(id, request);
    client.send(1, &not_found());
    let mut events = client.events();
    closed_by_server(&mut events, id);
    assert_eq!(events, []);
    assert_eq!(client.sent(), [method(1, channel::CloseOk)]);
}

#[test]
fn closes_that_cross_are_both_answered() {
    // The server's close comes after the own one has left, or before.
    for left in [true, false] {
        let mut client = Client::tuned(
            Config::default(),
            &connection::Tune {
                channel_max: 1,
                ..connection::Tune::default()
            },
        );
        let id = client.channel();
        let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
        let mut sent = Vec::new();
        if left {
            sent = client.sent();
        }
        client.send(1, &not_found());
        sent.extend(client.sent());
        let close = channel::Close {
            reply_code: ReplyCode::SUCCESS,
            ..channel::Close::default()
        };
        let ok = channel::CloseOk;
        assert_eq!(sent, [method(1, close), method(1, ok.clone())]);
        assert_crossed(&mut client, id, request);
        // The own close is still to be answered, and the number is not free before.
        assert!(client.conn.open_channel().is_err());
        client.send(1, &ok);
        assert_eq!(client.events(), []);
        assert_eq!(client.sent(), []);
        assert_eq!(client.channel().number(), 1);
    }
}

#[test]
fn an_own_close_that_has_not_left_need_not() {
    let mut client = Client::roomy();
    let id = client.confirm_channel();
    publish_zeroes(&mut client, id, 10 * CHUNK);
    publish_zeroes(&mut client, id, 10 * CHUNK);
    let request = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    let doubt = Outcome::Unknown(requested(ReplyCode::SUCCESS, ""));
    assert_eq!(client.events(), [settled(id, 1, 2, doubt)]);
    let mut sent = frames(&client.bytes_once());
    client.send(1, &not_found());
    assert_crossed(&mut client, id, request);
    // The number is free when the message that was begun has left.
    assert_eq!(client.conn.channel_count(), 1);
    sent.extend(client.sent());
    assert_eq!(body_bytes(&sent), 10 * CHUNK);
    assert_eq!(sent.last(), Some(&method(1, channel::CloseOk)));
    let own = |sent: &Sent| matches!(sent.what, What::Method(Method::ChannelClose(_)));
    assert!(!sent.iter().any(own));
    assert_eq!(client.conn.channel_count(), 0);
    assert_eq!(client.conn.buffered(), 0);
}

#[test]
fn an_answer_to_a_close_that_has_not_left_is_a_fault() {
    let mut client = Client::open();
    let id = client.channel();
    publish_zeroes(&mut client, id, 10 * CHUNK);
    client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    client.bytes_once();
    client.send(1, &channel::CloseOk);
    let Some(Event::Closed(reason)) = client.events().pop() else {
        panic!("the answer was taken");
    };
    let CloseCause::ProtocolError(error) = reason.cause() else {
        panic!("{reason}");
    };
    assert_eq!(error.fault, Fault::UnexpectedReply);
    assert_eq!(client.sent().len(), 1);
    client.send(0, &connection::CloseOk);
    assert!(client.conn.is_finished());
}

#[test]
fn a_close_ok_without_a_close_is_a_fault() {
    let mut client = Client::open();
    client.channel();
    client.send(1, &channel::CloseOk);
    let Event::Closed(reason) = client.only_event() else {
        panic!("the answer was taken");
    };
    assert_eq!(reason.code(), Some(ReplyCode::COMMAND_INVALID));
}

/// A client that takes bodies of at most ten bytes.
fn picky() -> Client {
    let mut config = Config::default();
    config.limits.body = 10;
    Client::open_with(config)
}

#[test]
fn a_message_that_is_too_large_closes_its_channel() {
    let mut client = picky();
    let id = client.channel();
    let other = client.channel();
    client.consumer(id, "t", false);
    let request = client.on(id).call(&queue::Declare::default()).unwrap();
    client.bytes();
    let properties = basic::Properties::default();
    client.send_content(1, &deliver("t", 1), &properties, &[0; 11]);
    let [failure, Event::ChannelClosed { channel, reason }] = &client.events()[..] else {
        panic!("no event of it");
    };
    assert_eq!(*channel, id);
    assert_eq!(*failure, failed(request, reason));
    let CloseCause::LimitExceeded(error) = reason.cause() else {
        panic!("{reason}");
    };
    let (size, limit) = (11, 10);
    assert_eq!(error.fault, Fault::BodyTooLarge { size, limit });
    assert_eq!(
        reason.to_string(),
        "closed because of a limit of this side: a body of 11 bytes is over Limits::body (10), in \
         basic.deliver, on channel 1"
    );
    assert_eq!(error.channel, Some(1));
    assert_eq!(error.method, Some(MethodId::new(60, 60)));
    let Method::ChannelClose(close) = client.only_method() else {
        panic!("no close");
    };
    assert_eq!(close.reply_code, ReplyCode::CONTENT_TOO_LARGE);
    assert_eq!((close.class_id, close.method_id), (60, 60));
    client.send_content(1, &deliver("t", 2), &properties, b"more");
    client.send(1, &channel::CloseOk);
    assert_eq!(client.events(), []);
    assert!(client.conn.channel(id).is_none());
    assert!(client.on(other).is_open());
    // A body as large as the limit is taken.
    client.consumer(other, "t", false);
    client.send_content(2, &deliver("t", 1), &properties, &[0; 10]);
    assert!(matches!(client.only_event(), Event::Delivered(_)));
}

#[test]
fn a_close_for_a_fault_reports_sent_publishes_truly() {
    let mut config = Config::default();
    config.limits.body = 1 << 20;
    config.limits.output_high = usize::MAX;
    let mut client = Client::open_with(config);
    let id = client.confirm_channel();
    client.consumer(id, "t", false);
    client.publish(id, b"handed out");
    client.bytes();
    client.publish(id, b"ready");
    publish_zeroes(&mut client, id, 2 * CHUNK);
    let properties = basic::Properties::default();
    client.send(1, &deliver("t", 1));
    client.feed(&header_frame(1, &properties, (1 << 20) + 1));
    // Ready output leaves before the close, and the server handles it.
    let sent = client.sent();
    assert_eq!(sent[..3], content(1, publish("queue"), b"ready"));
    assert!(matches!(
        sent[3].what,
        What::Method(Method::ChannelClose(_))
    ));
    assert_eq!(sent.len(), 4);
    let mut events = client.events();
    let Some(Event::ChannelClosed { reason, .. }) = events.pop() else {
        panic!("no event of it");
    };
    assert_eq!(
        events,
        [
            settled(id, 1, 2, Outcome::Unknown(reason.clone())),
            settled(id, 3, 3, Outcome::NotSent(reason)),
        ]
    );
}

#[test]
fn a_fault_while_the_connection_is_about_to_close_is_still_the_channel_s() {
    let mut client = picky();
    let id = client.channel();
    client.consumer(id, "t", false);
    client.conn.close(ReplyCode::SUCCESS, "bye");
    let properties = basic::Properties::default();
    client.send_content(1, &deliver("t", 1), &properties, &[0; 11]);
    assert!(matches!(
        &client.events()[..],
        [Event::ChannelClosed { channel, .. }] if *channel == id
    ));
    let sent = client.sent();
    assert!(matches!(
        sent.last().unwrap().what,
        What::Method(Method::ConnectionClose(_))
    ));
    client.send(0, &connection::CloseOk);
    let Event::Closed(reason) = client.only_event() else {
        panic!("not closed");
    };
    assert!(reason.is_clean(), "{reason}");
}

#[test]
fn an_abandoned_request_is_not_failed() {
    let mut client = Client::open();
    let id = client.channel();
    let abandoned = client.on(id).call(&queue::Declare::default()).unwrap();
    let waiting = client.on(id).call(&queue::Declare::default()).unwrap();
    client.conn.abandon(id, abandoned);
    client.send(1, &not_found());
    let mut events = client.events();
    let reason = closed_by_server(&mut events, id);
    assert_eq!(events, [failed(waiting, &reason)]);
}

#[test]
fn a_connection_that_ends_fails_the_closes_of_channels() {
    let mut client = Client::open();
    let id = client.channel();
    let close = client.on(id).close(ReplyCode::SUCCESS, "").unwrap();
    client.bytes();
    client.conn.handle_eof(client.now);
    let [Event::Failed { request, cause }, Event::Closed(reason)] = &client.events()[..] else {
        panic!("no event of it");
    };
    assert_eq!(*request, close);
    assert_eq!(*cause, RequestError::ConnectionClosed(reason.clone()));
}
