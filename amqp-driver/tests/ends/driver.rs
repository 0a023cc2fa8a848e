//! The end of the driver: the last output, the last input, and the time that both take.

use std::time::Duration;

use amqp_driver::{
    core::CloseCause,
    protocol::{ReplyCode, basic, queue},
};
use amqp_test_support::{Cut, Rig};

use super::{LISTEN, frame};

/// The driver ends after the final event: at once if no output is left, and soon if the transport
/// does not take it.
#[test]
fn the_driver_leaves_in_time() {
    let start = || {
        let (mut rig, connection, channel) = Rig::with_channel();
        rig.world().set_capacity(0);
        channel.send(&queue::Purge::default()).unwrap();
        rig.run();
        (rig, connection, channel)
    };

    let (mut rig, connection, _channel) = start();
    connection.abort();
    rig.run();
    assert!(rig.driver_ended());
    assert!(rig.world().closed);

    // The answer to the server's close is worth waiting for.
    let close = frame(10, 50, b"\x01\x40\x00\0\0\0\0");
    let (mut rig, _connection, _channel) = start();
    rig.world().inject(&close);
    rig.run();
    assert!(!rig.driver_ended());
    rig.world().set_capacity(usize::MAX);
    rig.run();
    assert!(rig.driver_ended());

    // Not for ever: as long as a close, and then as long as the transport is given to close.
    let (mut rig, _connection, _channel) = start();
    rig.world().inject(&close);
    rig.advance(Duration::from_secs(9));
    assert!(!rig.driver_ended());
    rig.advance(Duration::from_secs(7));
    assert!(rig.driver_ended());

    // Nor for the transport to close.
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.world().close_stalled = true;
    assert_eq!(rig.wait(connection.close()), Ok(()));
    drop((connection, channel));
    rig.advance(Duration::from_secs(4));
    assert!(!rig.driver_ended());
    rig.advance(Duration::from_secs(2));
    assert!(rig.driver_ended());

    // Written output is flushed before.
    let (mut rig, connection, _channel) = Rig::with_channel();
    rig.world().flush_stalled = true;
    rig.peer().close(ReplyCode::CONNECTION_FORCED, "");
    rig.world().step_server();
    rig.world().peer.deaf = true;
    rig.run();
    assert!(connection.close_reason().is_some() && !rig.driver_ended());
    rig.world().end_flush_stall();
    rig.run();
    assert!(rig.world().closed);
    rig.world().cut(Cut::Eof);
    rig.run();
    assert!(rig.driver_ended());
}

/// The server has said why it hangs up. That writing fails is noticed first, and the reason is not
/// lost for it.
#[test]
fn the_close_of_the_server_is_read_after_a_failed_write() {
    for ends in [false, true] {
        let (mut rig, connection, channel) = Rig::with_channel();
        rig.world().cut(Cut::WriteError);
        channel.send(&queue::Purge::default()).unwrap();
        rig.run();
        assert_eq!(connection.close_reason(), None);
        let close = frame(10, 50, b"\x01\x40\x08shutdown\0\0\0\0");
        rig.world().inject(&close);
        if ends {
            rig.world().cut(Cut::Eof);
        }
        rig.run();
        if !ends {
            rig.advance(LISTEN);
        }
        let reason = connection.close_reason().unwrap();
        let close = reason.by_peer().unwrap();
        assert_eq!(close.text.as_str(), "shutdown");
    }
}

/// A server that takes nothing more and goes on talking: it is listened to for the reason, and not
/// for ever.
#[test]
fn writing_fails_while_the_server_talks_on() {
    const BABBLE: usize = 100_000;
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.world().cut(Cut::WriteError);
    rig.world().babble = BABBLE;
    channel.send(&queue::Purge::default()).unwrap();
    rig.poll_driver();
    let reason = connection.close_reason().unwrap();
    assert!(matches!(reason.cause(), CloseCause::Transport { .. }));
    assert!(rig.world().babble > BABBLE - 1000);
}

/// A driver that is dropped hands the transport as much output as it takes at once.
#[test]
fn a_driver_that_is_dropped_writes_as_much_as_is_taken_at_once() {
    for (capacity, expected) in [(usize::MAX, 5), (20_000, 1), (0, 0)] {
        let (mut rig, connection, channel) = Rig::with_channel();
        rig.run();
        rig.peer().saw.clear();
        rig.world().set_capacity(capacity);
        let (to, none) = (basic::Publish::default(), basic::Properties::default());
        for _ in 0..5 {
            let published = rig.ready(channel.publish(&to, &none, vec![0; 10_000]));
            assert_eq!(published, Some(Ok(())));
        }
        rig.drop_driver();
        rig.world().step_server();
        let arrived = rig.peer().messages().len();
        assert_eq!(arrived, expected, "{capacity}");
        drop((channel, connection));
    }
}
