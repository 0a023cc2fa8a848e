//! The device on a host, in virtual time.

use std::time::Duration;

use amqp_core::Instant;
use amqp_device::{Client, LoopbackPort, MESSAGES, Progress, Station, loopback, run};

/// A clock that goes on by a millisecond with each look.
fn clock() -> impl FnMut() -> Instant {
    let mut now = Instant::ORIGIN;
    move || {
        now = now + Duration::from_millis(1);
        now
    }
}

#[test]
fn every_message_comes_back_however_little_room_the_line_has() {
    for room in [1, 7, 64, 4096, 1 << 20] {
        assert_eq!(run(room, clock()), Ok(MESSAGES), "{room}");
    }
}

#[test]
fn the_same_clock_gives_the_same_number_of_turns() {
    let turns = || {
        let mut turns = 0;
        let mut now = clock();
        let counting = || {
            turns += 1;
            now()
        };
        assert_eq!(run(64, counting), Ok(MESSAGES));
        turns
    };
    assert_eq!(turns(), turns());
}

#[test]
fn a_client_whose_peer_is_silent_gives_up_at_its_deadline() {
    let (near, _far): (LoopbackPort, LoopbackPort) = loopback(64);
    let mut now = Instant::ORIGIN;
    let mut client = Client::new(near, now, 1).expect("the settings are good");
    let error = loop {
        match client.turn(now) {
            Ok(Progress::Until(Some(at))) => now = now.max(at),
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
    };
    assert!(error.contains("handshake"), "{error}");
}

#[test]
fn a_station_serves_one_client_after_the_other() {
    let (near, far) = loopback(256);
    let mut now = clock();
    let mut station = Station::new(far, now()).expect("the settings are good");
    let mut port = Some(near);
    for _ in 0..3 {
        let near = port.take().expect("the last client has returned it");
        let mut client = Client::new(near, now(), 5).expect("the settings are good");
        loop {
            let progress = client.turn(now()).expect("the connection lasts");
            station.turn(now());
            if progress == Progress::Finished(5) {
                break;
            }
        }
        station.turn(now());
        port = Some(client.into_port());
    }
}
