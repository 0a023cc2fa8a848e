//! A line that is slow, and a server that takes nothing: the one is waited for, the other is not.

use std::time::Duration;

use amqp_driver::{
    ConfirmChannel, Connection, Unconfirmed,
    core::{CloseCause, TimeoutReason},
    protocol::basic,
};
use amqp_test_support::{Rig, Setup};

/// A connection with that heartbeat interval, in seconds, and a channel in confirm mode that the
/// server does not confirm anything on by itself.
fn open(heartbeat: u16) -> (Rig, Connection, ConfirmChannel) {
    let mut setup = Setup::default();
    setup.server.heartbeat = heartbeat;
    let (mut rig, connection) = Rig::open_with(setup);
    rig.peer().confirming = amqp_test_support::Confirming::ByHand;
    let channel = rig.confirm_channel(&connection);
    (rig, connection, channel)
}

fn to_queue() -> basic::Publish {
    basic::Publish::default().routing_key("q")
}

/// Lets the transport take so many bytes each second, until the client has nothing to write.
fn trickle(rig: &mut Rig, connection: &Connection, bytes: usize) -> Duration {
    let mut span = Duration::ZERO;
    loop {
        let written = rig.world().written;
        rig.world().set_capacity(bytes);
        rig.poll_driver();
        rig.world().set_capacity(0);
        rig.advance(Duration::from_secs(1));
        span += Duration::from_secs(1);
        if connection.buffered() == 0 && rig.world().written == written {
            rig.world().set_capacity(usize::MAX);
            rig.run();
            return span;
        }
    }
}

#[test]
fn a_server_that_reads_slowly_is_alive() {
    let (mut rig, connection, channel) = open(4);
    let none = basic::Properties::default();
    let body = vec![7; 2 << 20];
    let confirm = rig.wait(channel.publish(&to_queue(), &none, body)).unwrap();
    // One transmit of the machine takes longer than two intervals.
    let span = trickle(&mut rig, &connection, 20 << 10);
    assert!(span > Duration::from_secs(100), "{span:?}");
    assert!(connection.is_open(), "{:?}", connection.close_reason());
    assert_eq!(rig.peer().messages().len(), 1);
    drop((confirm, channel));
    rig.finish(connection);
}

#[test]
fn a_close_waits_for_a_slow_line() {
    let (mut rig, connection, channel) = open(0);
    let none = basic::Properties::default();
    let body = vec![7; 2 << 20];
    let confirm = rig.wait(channel.publish(&to_queue(), &none, body)).unwrap();
    drop((confirm, channel));
    let closing = rig.spawn({
        let connection = connection.clone();
        async move { connection.close().await }
    });
    let span = trickle(&mut rig, &connection, 20 << 10);
    assert!(span > Duration::from_secs(100), "{span:?}");
    assert_eq!(closing.take(), Some(Ok(())));
    assert_eq!(rig.peer().messages().len(), 1);
}

#[test]
fn a_server_that_beats_and_takes_nothing_is_given_up() {
    let (mut rig, connection, channel) = open(4);
    let now = rig.world().now;
    // It does not hold the client's silence against it.
    rig.peer().machine.set_reading(now, false);
    rig.world().set_capacity(0);
    let none = basic::Properties::default();
    let confirm = rig.wait(channel.publish(&to_queue(), &none, "x")).unwrap();
    rig.advance(Duration::from_secs(7));
    assert!(connection.is_open());
    // And the moment that the driver listens before it judges.
    rig.advance(Duration::from_millis(1100));
    let stuck = CloseCause::TimedOut(TimeoutReason::PeerNotReading);
    assert_eq!(*connection.close_reason().unwrap().cause(), stuck);
    let outcome = rig.wait(confirm);
    assert!(
        matches!(outcome, Err(Unconfirmed::Unknown(_))),
        "{outcome:?}"
    );
}

#[test]
fn a_confirm_that_never_comes_times_out() {
    let (mut rig, connection, channel) = open(0);
    let none = basic::Properties::default();
    let confirm = rig.wait(channel.publish(&to_queue(), &none, "x")).unwrap();
    let waiting = rig.spawn(confirm);
    rig.advance(Duration::from_secs(59));
    assert!(!waiting.is_done());
    rig.advance(Duration::from_secs(9));
    let Some(Err(Unconfirmed::Unknown(reason))) = waiting.take() else {
        panic!("no event of it");
    };
    let text = reason.to_string();
    assert!(text.contains("not confirmed in time"), "{text}");
    assert!(connection.is_open());
    drop(channel);
    rig.finish(connection);
}
