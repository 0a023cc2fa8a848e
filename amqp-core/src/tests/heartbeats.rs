//! Signs of life, sent and missed, under virtual time.

use alloc::{vec, vec::Vec};
use core::time::Duration;

use super::{pair::Pair, script::*};
use crate::{
    CloseCause, TimeoutReason,
    client::{Config, Connection, Event},
    frame::FrameKind,
    protocol::{Method, ReplyCode, basic, connection, queue},
    server,
};

type Client = Script<Connection>;

const SECOND: Duration = Duration::from_secs(1);

/// An open client with that heartbeat interval, in seconds.
fn with_heartbeat(heartbeat: u16) -> Client {
    let tune = connection::Tune {
        channel_max: 10,
        frame_max: 131_072,
        heartbeat,
    };
    let mut config = Config::default();
    config.timeouts.request = None;
    Client::tuned(config, &tune)
}

fn hear(client: &mut Client) {
    client.feed(&frame(FrameKind::Heartbeat, 0, b""));
}

const BEAT: Sent = Sent {
    channel: 0,
    what: What::Heartbeat,
};

/// The connection ended because the server was silent.
fn assert_dead(client: &mut Client) {
    let Event::Closed(reason) = client.only_event() else {
        panic!("it lives");
    };
    let cause = CloseCause::TimedOut(TimeoutReason::PeerSilent);
    assert_eq!(*reason.cause(), cause);
    assert!(client.conn.is_finished());
    assert_eq!(client.conn.poll_timeout(), None);
    assert_eq!(client.sent(), []);
}

#[test]
fn a_silent_server_is_dead_after_two_intervals() {
    for heartbeat in [1, 2, 3, 60, 580, 65_535] {
        let mut client = with_heartbeat(heartbeat);
        let interval = SECOND * u32::from(heartbeat);
        let mut beats = 0;
        for _ in 0..4 {
            assert_eq!(client.events(), []);
            let calls = client.advance(interval / 2);
            assert!(calls.len() <= 2, "{calls:?}");
            beats += client.sent().len();
        }
        // At the last of these times, it was too late.
        assert_eq!(beats, 3);
        assert_dead(&mut client);
    }
}

#[test]
fn two_intervals_are_just_too_long() {
    let mut client = with_heartbeat(1);
    client.advance(Duration::from_millis(1_999));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(1));
    assert_dead(&mut client);
    // A late call returns the same.
    let mut client = with_heartbeat(1);
    client.now = client.now + Duration::from_millis(2_500);
    client.conn.handle_timeout(client.now);
    assert_dead(&mut client);
}

#[test]
fn any_byte_is_a_sign_of_life() {
    let mut client = with_heartbeat(1);
    let id = client.channel();
    client.consumer(id, "t", false);
    let mut message = method_frame(1, &deliver("t", 1));
    message.extend(header_frame(1, &basic::Properties::default(), 1));
    message.extend(frame(FrameKind::Body, 1, b"x"));
    // A byte every second interval but a little.
    for byte in &message {
        client.advance(Duration::from_millis(1_990));
        client.feed(&[*byte]);
        client.bytes();
    }
    assert!(matches!(client.only_event(), Event::Delivered(_)));
    // The bytes that lie there are not new.
    client.feed(&[8]);
    client.advance(Duration::from_millis(1_990));
    client.feed(&[]);
    client.advance(Duration::from_millis(10));
    assert_dead(&mut client);
}

#[test]
fn one_and_two_seconds_live() {
    for heartbeat in [1u16, 2] {
        let mut client = with_heartbeat(heartbeat);
        let mut calls = 0;
        for _ in 0..200 {
            hear(&mut client);
            calls += client.advance(SECOND * u32::from(heartbeat) / 2).len();
            assert_eq!(client.sent(), [BEAT]);
            assert_eq!(client.events(), []);
        }
        // Two beats an interval, and no call in between.
        assert_eq!(calls, 200);
    }
}

#[test]
fn without_heartbeats_an_hour_is_nothing() {
    let mut client = with_heartbeat(0);
    let id = client.channel();
    assert_eq!(client.conn.poll_timeout(), None);
    assert_eq!(client.advance(SECOND * 3600), []);
    assert_eq!(client.sent(), []);
    assert_eq!(client.events(), []);
    // A server that sends some does no harm.
    hear(&mut client);
    assert_eq!(client.advance(SECOND * 3600), []);
    assert_eq!(client.sent(), []);
    client.on(id).call(&queue::Declare::default()).unwrap();
    assert_eq!(client.sent().len(), 1);
}

#[test]
fn a_client_may_turn_heartbeats_off() {
    let config = Config {
        heartbeat: Some(0),
        ..Config::default()
    };
    let tune = connection::Tune::default().heartbeat(60);
    let mut client = Client::tuned(config, &tune);
    assert_eq!(client.conn.tuning().heartbeat_interval(), None);
    assert_eq!(client.advance(SECOND * 3600), []);
    assert_eq!(client.sent(), []);
    assert_eq!(client.events(), []);
}

#[test]
fn a_beat_is_sent_after_half_an_interval_of_silence_and_not_before() {
    let mut client = with_heartbeat(10);
    let id = client.channel();
    // With other output, no heartbeat is due.
    for _ in 0..10 {
        client.advance(Duration::from_millis(4_999));
        assert_eq!(client.sent(), []);
        client.publish(id, b"x");
        assert_eq!(client.sent().len(), 3);
        hear(&mut client);
    }
    client.advance(Duration::from_millis(4_999));
    assert_eq!(client.sent(), []);
    client.advance(Duration::from_millis(1));
    assert_eq!(client.sent(), [BEAT]);
    client.advance(Duration::from_millis(4_999));
    assert_eq!(client.sent(), []);
    client.advance(Duration::from_millis(1));
    assert_eq!(client.sent(), [BEAT]);
}

#[test]
fn a_beat_is_due_only_once_until_it_is_taken() {
    let mut client = with_heartbeat(2);
    client.advance(SECOND);
    hear(&mut client);
    // It is not sent before the transport takes it.
    let calls = client.advance(Duration::from_millis(3_999));
    assert_eq!(calls, []);
    assert_eq!(client.sent(), [BEAT]);
    // The next one counts from there.
    hear(&mut client);
    assert_eq!(client.advance(Duration::from_millis(999)), []);
    let calls = client.advance(Duration::from_millis(1));
    assert_eq!(calls, [(client.now, TimeoutReason::HeartbeatDue)]);
    assert_eq!(client.sent(), [BEAT]);
}

#[test]
fn writing_does_not_make_the_server_alive() {
    let mut client = with_heartbeat(2);
    let id = client.channel();
    for _ in 0..7 {
        client.advance(Duration::from_millis(500));
        assert_eq!(client.events(), []);
        client.publish(id, b"x");
        client.bytes();
    }
    client.advance(Duration::from_millis(500));
    assert_dead(&mut client);
}

#[test]
fn silence_is_not_held_against_a_server_that_is_not_read() {
    let mut client = with_heartbeat(2);
    client.advance(SECOND * 3);
    client.bytes();
    client.conn.set_reading(client.now, false);
    for _ in 0..3600 {
        let calls = client.advance(SECOND);
        assert_eq!(calls.len(), 1, "{calls:?}");
        // This side still beats.
        assert_eq!(client.sent(), [BEAT]);
        assert_eq!(client.events(), []);
    }
    // The count begins anew.
    client.conn.set_reading(client.now, true);
    client.advance(Duration::from_millis(3_999));
    assert_eq!(client.events(), []);
    client.bytes();
    client.advance(Duration::from_millis(1));
    assert_dead(&mut client);

    // It makes no difference to say it twice.
    let mut client = with_heartbeat(2);
    for _ in 0..100 {
        client.conn.set_reading(client.now, false);
        client.conn.set_reading(client.now, false);
        client.advance(SECOND);
        client.bytes();
    }
    client.conn.set_reading(client.now, true);
    client.advance(Duration::from_millis(3_999));
    client.bytes();
    assert_eq!(client.events(), []);
}

#[test]
fn heartbeats_have_no_event() {
    let mut client = with_heartbeat(60);
    for _ in 0..1000 {
        hear(&mut client);
    }
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), []);
}

#[test]
fn heartbeats_begin_with_the_negotiation() {
    let mut client = Client::new(Config::default());
    client.send(0, &start());
    client.send(0, &connection::Tune::default().heartbeat(2));
    client.bytes();
    client.advance(SECOND);
    assert_eq!(client.sent(), [BEAT]);
    client.advance(SECOND * 3);
    client.bytes();
    assert_dead(&mut client);
}

#[test]
fn a_fault_is_the_reason_despite_later_events() {
    // The server receives the close for its fault, and falls silent.
    let mut client = with_heartbeat(1);
    client.send(0, &connection::OpenOk);
    let Event::Closed(reason) = client.only_event() else {
        panic!("no fault");
    };
    assert!(matches!(reason.cause(), CloseCause::ProtocolError(_)));
    client.bytes();
    client.advance(SECOND * 20);
    assert_eq!(client.conn.close_reason(), Some(&reason));
    assert_eq!(client.events(), []);
    assert!(client.conn.is_finished());
}

#[test]
fn a_server_that_is_dead_need_not_be_waited_for_to_close() {
    let mut client = with_heartbeat(1);
    client.conn.close(ReplyCode::SUCCESS, "");
    assert!(matches!(client.only_method(), Method::ConnectionClose(_)));
    client.advance(SECOND * 2);
    client.bytes();
    assert_dead(&mut client);
}

#[test]
fn two_idle_peers_keep_each_other_alive() {
    for (ours, theirs) in [
        (None, 60),
        (Some(1), 60),
        (None, 1),
        (None, 2),
        (None, 65_535),
    ] {
        let config = Config {
            heartbeat: ours,
            ..Config::default()
        };
        let server = server::Config {
            heartbeat: theirs,
            ..server::Config::default()
        };
        let mut pair = Pair::open_with(config, server);
        let interval = u32::from(ours.unwrap_or(theirs));
        assert_eq!(pair.client.tuning().heartbeat, interval as u16);
        pair.advance(SECOND * interval * 100);
        assert_eq!(pair.take_client_events(), []);
        assert_eq!(pair.take_server_events(), []);
        assert!(pair.client.is_open() && pair.server.is_open());
    }
}

#[test]
fn both_sides_notice_that_the_other_is_gone() {
    let mut pair = Pair::open_with(
        Config {
            heartbeat: Some(10),
            ..Config::default()
        },
        server::Config::default(),
    );
    // Nothing passes any more.
    let mut dead_after = Vec::new();
    for second in 0..30 {
        pair.now = pair.now + SECOND;
        pair.client.handle_timeout(pair.now);
        pair.server.handle_timeout(pair.now);
        if pair.take_client_events().len() + pair.take_server_events().len() > 0 {
            dead_after.push(second + 1);
        }
    }
    assert_eq!(dead_after, [20]);
    assert!(pair.client.is_finished() && pair.server.is_finished());
}

#[test]
fn a_clock_that_goes_backwards_is_not_believed() {
    let mut client = with_heartbeat(10);
    let start = client.now;
    client.advance(SECOND * 4);
    client.conn.handle_timeout(start);
    client.now = start;
    hear(&mut client);
    assert_eq!(client.events(), []);
    // The silence began when the time was latest.
    let due: Vec<_> = vec![client.conn.poll_timeout().unwrap()];
    assert_eq!(due, [(start + SECOND * 5, TimeoutReason::HeartbeatDue)]);
}

/// The connection ended because the server read nothing.
fn assert_stuck(client: &mut Client) {
    let Event::Closed(reason) = client.only_event() else {
        panic!("it lives");
    };
    let cause = CloseCause::TimedOut(TimeoutReason::PeerNotReading);
    assert_eq!(*reason.cause(), cause);
    assert!(client.conn.is_finished());
    assert_eq!(client.conn.poll_timeout(), None);
    assert_eq!(client.sent(), []);
}

/// Time passes in which the server beats and nothing is taken.
fn hear_for(client: &mut Client, span: Duration) {
    for _ in 0..span.as_millis() / 100 {
        client.advance(Duration::from_millis(100));
        hear(client);
    }
}

#[test]
fn a_server_that_beats_and_reads_nothing_is_dead_after_two_intervals() {
    // Queued output is not taken.
    let mut client = with_heartbeat(2);
    let id = client.channel();
    client.publish(id, b"x");
    hear(&mut client);
    hear_for(&mut client, Duration::from_millis(3_900));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(100));
    assert_stuck(&mut client);
    // The transmitted output is not written.
    let mut client = with_heartbeat(2);
    let id = client.channel();
    hear_for(&mut client, SECOND);
    client.publish(id, b"x");
    assert!(!client.bytes_once().is_empty());
    hear_for(&mut client, Duration::from_millis(3_900));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(100));
    assert_stuck(&mut client);
    // Nor is a heartbeat, which is due by itself.
    let mut client = with_heartbeat(2);
    client.bytes();
    hear_for(&mut client, Duration::from_millis(4_900));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(100));
    assert_stuck(&mut client);
    // Also while this side does not read.
    let mut client = with_heartbeat(2);
    client.conn.set_reading(client.now, false);
    client.advance(Duration::from_millis(4_999));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(1));
    assert_stuck(&mut client);
}

#[test]
fn a_server_that_reads_is_alive_however_idle_or_slow() {
    for reading in [true, false] {
        let mut client = with_heartbeat(2);
        client.conn.set_reading(client.now, reading);
        // Whether the output is asked for at each turn or only when there is some.
        for always in [true, false] {
            for _ in 0..10_000 {
                client.advance(Duration::from_millis(100));
                hear(&mut client);
                if always || client.conn.has_transmit() {
                    client.bytes_once();
                }
            }
            assert_eq!(client.events(), []);
        }
    }
    // Writing the transmitted output takes an hour.
    let mut client = with_heartbeat(2);
    let id = client.channel();
    client.publish(id, b"x");
    client.bytes_once();
    for _ in 0..1_000 {
        hear_for(&mut client, Duration::from_millis(3_600));
        client.conn.handle_written(client.now);
    }
    assert_eq!(client.events(), []);
    hear_for(&mut client, SECOND * 4);
    assert_stuck(&mut client);
}

#[test]
fn a_late_call_finds_no_fault_with_an_unsent_request() {
    let mut client = with_heartbeat(2);
    client.now = client.now + Duration::from_secs(60);
    hear(&mut client);
    client.conn.handle_timeout(client.now);
    assert_eq!(client.events(), []);
    assert_eq!(client.sent(), [BEAT]);
}

#[test]
fn a_blocked_server_may_read_nothing_until_it_unblocks() {
    // Note 28: RabbitMQ stops reading while an alarm is on, and beats.
    let mut client = with_heartbeat(2);
    let id = client.channel();
    client.publish(id, b"x");
    client.bytes_once();
    let reason = name("low on memory");
    client.send(0, &connection::Blocked { reason });
    assert!(matches!(client.only_event(), Event::Blocked { .. }));
    hear_for(&mut client, SECOND * 1_000);
    assert_eq!(client.events(), []);
    client.send(0, &connection::Unblocked);
    assert_eq!(client.events(), [Event::Unblocked]);
    // The time begins anew.
    hear_for(&mut client, Duration::from_millis(3_900));
    assert_eq!(client.events(), []);
    client.advance(Duration::from_millis(100));
    assert_stuck(&mut client);
}

#[test]
fn a_client_may_read_nothing_for_as_long_as_it_beats() {
    let server = server::Config {
        heartbeat: 2,
        ..server::Config::default()
    };
    let mut pair = Pair::open_with(Config::default(), server);
    for _ in 0..1_000 {
        pair.now = pair.now + SECOND;
        let beat = frame(FrameKind::Heartbeat, 0, b"");
        pair.server
            .handle_input(pair.now, &mut bytes::BytesMut::from(&beat[..]));
        pair.server.handle_timeout(pair.now);
    }
    assert_eq!(pair.take_server_events(), []);
    assert!(pair.server.is_open());
}

#[test]
fn without_heartbeats_nothing_is_held_against_a_server_that_reads_nothing() {
    let mut client = with_heartbeat(0);
    let id = client.channel();
    client.publish(id, b"x");
    assert_eq!(client.advance(SECOND * 3600), []);
    client.bytes_once();
    assert_eq!(client.advance(SECOND * 3600), []);
    assert_eq!(client.events(), []);
}
