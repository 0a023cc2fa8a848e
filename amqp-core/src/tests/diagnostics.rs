//! Diagnostics: the log of frames, the texts and predicates of errors, heartbeats, and what is
//! outstanding.

use alloc::{
    borrow::ToOwned as _,
    format,
    string::{String, ToString as _},
    vec,
    vec::Vec,
};
use core::time::Duration;

use super::{pair::Pair, script::*};
use crate::{
    Close, CloseCause, CloseReason, Direction, Fault, FrameLog, MethodId, Origin, ProtocolError,
    RequestError, Stage, Tags, TimeoutReason,
    client::{Config, Connection, Event, Outcome},
    protocol::{Method, ReplyCode, basic, channel, connection, queue},
    sasl::Plain,
    server,
    wire::{FieldTable, LongStr, Secret, ShortStr},
};

type Client = Script<Connection>;

fn logged(capacity: usize) -> Client {
    Client::open_with(Config::default().frame_log(capacity))
}

fn texts(log: &FrameLog) -> Vec<(Direction, u16, String)> {
    log.frames()
        .map(|frame| (frame.direction, frame.channel, frame.text.clone()))
        .collect()
}

fn bind() -> queue::Bind {
    queue::Bind::default().exchange("amq.topic")
}

fn refused(text: &str, method: MethodId) -> channel::Close {
    channel::Close {
        reply_code: ReplyCode::NOT_FOUND,
        reply_text: name(text),
        class_id: method.class,
        method_id: method.method,
    }
}

const DECLARE: MethodId = MethodId::new(50, 10);
const BIND: MethodId = MethodId::new(50, 20);

#[test]
fn the_log_of_frames_tells_a_life_in_words_and_no_secret() {
    let password = "correct horse";
    let plain = Plain::new("me", password).unwrap();
    let properties = FieldTable::new().with("connection_name", "hidden value");
    let config = Config::default()
        .mechanisms(vec![alloc::boxed::Box::new(plain)])
        .properties(properties)
        .frame_log(64);
    let mut pair = Pair::open_with(config, server::Config::default());
    let id = pair.open_channel();
    let headers = FieldTable::new().with("x-key", "hidden header");
    let properties = basic::Properties::default().headers(headers);
    let publish = basic::Publish::default().routing_key("work");
    // In several frames, and its pieces in several segments.
    let body = vec![b'h'; 300_000];
    pair.client_channel(id)
        .publish(&publish, &properties, body)
        .unwrap();
    let secret = Secret::from("hidden token");
    let update = pair.client.update_secret(secret, name("soon"));
    update.unwrap();
    pair.exchange();

    let log = pair.client.frame_log().unwrap();
    let all = log.to_string();
    for hidden in [password, "horse", "hidden", "hhhh"] {
        assert!(!all.contains(hidden), "{hidden} in:\n{all}");
    }
    let texts = texts(log);
    let text_of = |part: &str| {
        let found = texts.iter().find(|(_, _, text)| text.contains(part));
        found.unwrap_or_else(|| panic!("no {part} in:\n{all}"))
    };
    assert_eq!(texts[0], (Direction::Sent, 0, "AMQP 0-9-1".into()));
    assert_eq!(text_of("connection.start ").0, Direction::Received);
    assert!(
        text_of("connection.start-ok")
            .2
            .contains("response=(secret)")
    );
    assert!(text_of("connection.start-ok").2.contains("connection_name"));
    assert!(
        text_of("update-secret ")
            .2
            .contains("new-secret=(secret) reason=\"soon\"")
    );
    let opened = (Direction::Received, 1, "channel.open-ok".to_owned());
    assert!(texts.contains(&opened), "{all}");
    let published = "basic.publish exchange=\"\" routing-key=\"work\"".to_owned();
    let at = texts.iter().position(|it| it.2 == published).unwrap();
    assert_eq!(
        texts[at + 1].2,
        "header, 30 bytes of properties, 300000 bytes of body"
    );
    let bodies = texts[at + 2..]
        .iter()
        .filter(|it| it.2.starts_with("body, "));
    assert!(bodies.count() >= 3, "{all}");
    let stats = pair.client.stats();
    // The protocol header is logged, too.
    assert_eq!(log.count(), stats.sent.frames + stats.received.frames + 1);
    assert_eq!(log.frames().len() as u64, log.count());
    assert_eq!(all.lines().count(), texts.len() + 1);
}

#[test]
fn the_log_of_frames_is_bounded_in_frames_and_bytes() {
    let mut client = logged(5);
    let id = client.channel();
    let table = (0..100).fold(FieldTable::new(), |table, at| {
        let field = ShortStr::try_from(format!("argument-\u{e9}-{at}")).unwrap();
        table.with(field, LongStr::from("x"))
    });
    for _ in 0..20 {
        let declare = queue::Declare::default().arguments(table.clone());
        client.on(id).call(&declare).unwrap();
    }
    client.bytes();
    let log = client.conn.frame_log().unwrap();
    assert_eq!(log.frames().len(), 5);
    assert!(log.count() > 20);
    for frame in log.frames() {
        assert!(frame.text.len() <= 243, "{}", frame.text);
        assert!(frame.text.ends_with('\u{2026}'), "{}", frame.text);
    }
    assert!(log.to_string().starts_with("the last 5 of "));
}

#[test]
fn without_a_log_of_frames_there_is_none() {
    let mut client = Client::open();
    assert_eq!(client.conn.frame_log(), None);
    client.conn.handle_eof(client.now);
    assert!(client.conn.close_reason().unwrap().frame_log().is_none());
}

#[test]
fn an_end_carries_the_frames_before_it() {
    let mut client = logged(8);
    let id = client.channel();
    client.on(id).call(&queue::Declare::default()).unwrap();
    client.bytes();
    client.send(1, &refused("no queue", DECLARE));
    let [
        Event::Failed { cause, .. },
        Event::ChannelClosed { reason, .. },
    ] = &client.events()[..]
    else {
        panic!("the channel has not ended");
    };
    let last = |reason: &CloseReason| {
        let log = reason.frame_log().unwrap();
        log.frames().last().unwrap().text.clone()
    };
    let closing = "channel.close reply-code=404 (not-found) reply-text=\"no queue\" class-id=50 \
                   method-id=10";
    assert_eq!(last(reason), closing);
    assert_eq!(last(cause.reason().unwrap()), closing);

    // A frame that breaks the protocol is the last one, too.
    client.send(0, &connection::Tune::default());
    let [Event::Closed(reason)] = &client.events()[..] else {
        panic!("the connection has not ended");
    };
    assert!(last(reason).starts_with("connection.tune "), "{reason}");
    // The log goes on behind that: the close of this side.
    client.bytes();
    let log = client.conn.frame_log().unwrap();
    let end = log.frames().last().unwrap();
    assert_eq!(end.direction, Direction::Sent);
    assert!(end.text.starts_with("connection.close "), "{}", end.text);
}

#[test]
fn every_method_has_its_words() {
    let mut words = Vec::new();
    for rule in crate::protocol::RULES {
        let arguments = [0; 64];
        let decoded = (0..64).find_map(|len| Method::decode(rule.id, &arguments[..len]).ok());
        let text = decoded.unwrap().to_string();
        assert!(text.starts_with(rule.name), "{text}");
        words.push(text);
    }
    assert!(words.contains(&"basic.ack delivery-tag=0".to_owned()));
    let declare = queue::Declare::default().queue("q\n");
    let arguments = FieldTable::new().with("x-queue-type", "quorum");
    assert_eq!(
        declare.exclusive(true).arguments(arguments).to_string(),
        "queue.declare queue=\"q\\n\" durable exclusive arguments={x-queue-type} (28 bytes)"
    );
}

#[test]
fn the_request_that_failed_is_named_beside_the_one_that_was_refused() {
    let mut client = Client::open();
    let id = client.channel();
    client.on(id).call(&queue::Declare::default()).unwrap();
    client.on(id).call(&bind()).unwrap();
    client.bytes();
    client.send(1, &refused("no queue 'q'", DECLARE));
    let events = client.events();
    let causes: Vec<String> = events
        .iter()
        .filter_map(|event| match event {
            Event::Failed { cause, .. } => Some(cause.to_string()),
            _ => None,
        })
        .collect();
    let text = "the channel was closed: closed by the peer: 404 (not-found): no queue 'q' (after \
                queue.declare), on channel 1";
    assert_eq!(
        causes,
        [text.to_owned(), format!("{text}, during queue.bind")]
    );
}

#[test]
fn what_a_connection_leaves_behind_names_its_channel_and_request() {
    let mut client = Client::open();
    let id = client.confirm_channel();
    client.on(id).call(&bind()).unwrap();
    client.publish(id, b"x");
    client.bytes();
    client.conn.handle_eof(client.now);
    let mut texts = Vec::new();
    for event in client.events() {
        match event {
            Event::Failed { cause, .. } => texts.push(cause.to_string()),
            Event::Settled {
                outcome: Outcome::Unknown(reason),
                ..
            } => {
                assert_eq!(
                    (reason.channel(), reason.request()),
                    (Some(1), Some(PUBLISH))
                );
                texts.push(reason.to_string());
            }
            _ => {}
        }
    }
    let end = "the transport ended while the connection was open";
    assert_eq!(
        texts,
        [
            format!("the connection was closed: {end}, during queue.bind"),
            format!("the connection ended: {end}, on channel 1, during basic.publish"),
        ]
    );
}

const PUBLISH: MethodId = MethodId::new(60, 40);

#[test]
fn the_texts_of_request_errors_name_the_request_and_the_channel() {
    let fault = ProtocolError {
        fault: Fault::HeaderTooLarge { size: 9, limit: 8 },
        channel: Some(4),
        method: Some(MethodId::new(60, 70)),
        code: None,
    };
    let closed = |reason: CloseReason| reason.on_channel(4).for_request(BIND);
    let close = Close {
        code: ReplyCode::ACCESS_REFUSED,
        text: String::new(),
        method: Some(BIND),
    };
    let errors = [
        RequestError::TimedOut {
            request: BIND,
            channel: Some(4),
        },
        RequestError::Unreadable(fault.clone()),
        RequestError::Cancelled {
            tag: name("t"),
            channel: 4,
        },
        RequestError::ChannelClosed(closed(CloseCause::ByPeer(close).into())),
        RequestError::ChannelClosed(closed(CloseCause::ProtocolError(fault).into())),
        RequestError::ChannelClosed(closed(CloseCause::TimedOut(TimeoutReason::Call).into())),
    ];
    for error in errors {
        let text = error.to_string();
        assert_eq!(text.matches("channel 4").count(), 1, "{text}");
        let named = ["queue.bind", "basic.get", "consumer"];
        assert!(named.iter().any(|it| text.contains(it)), "{text}");
    }
}

#[test]
fn predicates_ask_for_the_code_whoever_sent_it() {
    let close = |code| Close {
        code,
        text: String::new(),
        method: None,
    };
    type Predicate = fn(&CloseReason) -> bool;
    let table: [(ReplyCode, Predicate); 6] = [
        (ReplyCode::NOT_FOUND, CloseReason::is_not_found),
        (ReplyCode::ACCESS_REFUSED, CloseReason::is_access_refused),
        (ReplyCode::RESOURCE_LOCKED, CloseReason::is_resource_locked),
        (
            ReplyCode::PRECONDITION_FAILED,
            CloseReason::is_precondition_failed,
        ),
        (
            ReplyCode::CONNECTION_FORCED,
            CloseReason::is_connection_forced,
        ),
        (ReplyCode::NOT_ALLOWED, CloseReason::is_not_allowed),
    ];
    for (code, _) in table {
        let by_peer = CloseReason::from(CloseCause::ByPeer(close(code)));
        let of_channel = CloseReason::from(CloseCause::Connection(by_peer.clone()));
        let requested = CloseReason::from(CloseCause::Requested(close(code)));
        for (of, predicate) in table {
            for reason in [&by_peer, &of_channel, &requested] {
                assert_eq!(predicate(reason), of == code, "{reason}");
            }
            assert!(!predicate(
                &CloseCause::TimedOut(TimeoutReason::Close).into()
            ));
        }
        assert_eq!(by_peer.origin(), Origin::Remote);
        assert_eq!(of_channel.origin(), Origin::Remote);
        assert_eq!(requested.origin(), Origin::Local);
        assert!(!by_peer.is_timed_out());
    }
    let missing =
        RequestError::ChannelClosed(CloseCause::ByPeer(close(ReplyCode::NOT_FOUND)).into());
    assert!(missing.is_not_found() && !missing.is_access_refused());
    let late = CloseReason::from(CloseCause::TimedOut(TimeoutReason::PeerSilent));
    assert!(late.is_timed_out() && late.origin() == Origin::Local);
    let late = RequestError::ConnectionClosed(CloseCause::Connection(late).into());
    assert!(late.is_timed_out());
    let broken = CloseCause::Transport {
        stage: Stage::Open,
        message: String::new(),
    };
    assert_eq!(CloseReason::from(broken).origin(), Origin::Transport);
}

#[test]
fn heartbeats_are_counted_with_the_times_of_the_last_two() {
    let mut pair = Pair::open_with(Config::default().heartbeat(10), server::Config::default());
    let idle = pair.client.heartbeats();
    assert_eq!(idle.interval, Some(Duration::from_secs(10)));
    assert_eq!((idle.sent.count, idle.sent.last), (0, None));
    let start = pair.now;
    pair.advance(Duration::from_secs(21));
    let (client, server) = (pair.client.heartbeats(), pair.server.heartbeats());
    for (sent, received) in [
        (client.sent, server.received),
        (server.sent, client.received),
    ] {
        assert_eq!((sent.count, received.count), (4, 4));
        for beats in [sent, received] {
            let last = beats.last.unwrap();
            assert!(last > start && last <= pair.now);
            assert_eq!(last - beats.previous.unwrap(), Duration::from_secs(5));
        }
    }
    let stats = pair.client.stats();
    assert_eq!(stats.sent.heartbeats, client.sent.count);
    assert_eq!(stats.received.heartbeats, client.received.count);
}

#[test]
fn what_is_outstanding_is_summed_over_the_channels() {
    let mut client = Client::open();
    let (one, two) = (client.confirm_channel(), client.confirm_channel());
    client.publish(one, b"x");
    client.publish(two, b"x");
    client.publish(two, b"x");
    assert!(client.conn.stats().buffered > 0);
    client.bytes();
    client.consumer(one, "t", false);
    client.bytes();
    for tag in 1..=3 {
        client.send_content(1, &deliver("t", tag), &basic::Properties::default(), b"y");
    }
    client.events();
    let stats = client.conn.stats();
    assert_eq!((stats.unconfirmed, stats.unacked), (3, 3));
    assert_eq!((stats.buffered, stats.untaken), (0, 0));
    client.on(one).ack(Tags::All).unwrap();
    client.send(2, &ack(2, true));
    let stats = client.conn.stats();
    assert_eq!((stats.unconfirmed, stats.unacked), (1, 0));
    client.conn.handle_eof(client.now);
    let stats = client.conn.stats();
    assert_eq!((stats.unconfirmed, stats.unacked), (0, 0));
}

#[test]
fn the_time_that_publishing_was_blocked_is_summed() {
    let mut client = Client::open();
    let second = Duration::from_secs(1);
    let blocked = connection::Blocked {
        reason: name("low on memory"),
    };
    assert_eq!(client.conn.stats().blocked, Duration::ZERO);
    client.send(0, &blocked);
    client.advance(3 * second);
    assert_eq!(client.conn.stats_at(client.now).blocked, 3 * second);
    client.send(0, &connection::Unblocked);
    client.advance(5 * second);
    assert_eq!(client.conn.stats_at(client.now).blocked, 3 * second);
    client.send(0, &blocked);
    client.send(0, &blocked);
    client.advance(2 * second);
    assert_eq!(client.conn.stats_at(client.now).blocked, 5 * second);
    // The end of the connection ends the block.
    client.conn.handle_eof(client.now);
    client.advance(7 * second);
    assert_eq!(client.conn.stats_at(client.now).blocked, 5 * second);
}
