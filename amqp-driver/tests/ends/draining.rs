//! Input after the final output: discarded until the server's end of stream, within bounds.

use std::time::Duration;

use amqp_driver::{Channel, Connection};
use amqp_test_support::{Cut, Rig};

use super::frame;

/// The bounds of the driver.
const DRAIN: Duration = Duration::from_secs(1);
const DRAIN_MAX: usize = 16 << 20;

/// A server that hears nothing of the end of the client's output, and does not end its own.
fn open() -> (Rig, Connection, Channel) {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.run();
    rig.peer().deaf = true;
    (rig, connection, channel)
}

/// 320, without a text.
fn close() -> Vec<u8> {
    frame(10, 50, b"\x01\x40\0\0\0\0\0").to_vec()
}

/// The driver has written the answer to the server's close, and discards.
fn draining() -> (Rig, Connection) {
    let (mut rig, connection, _channel) = open();
    rig.world().inject(&close());
    rig.run();
    assert!(connection.close_reason().is_some());
    let close_ok = frame(10, 51, b"");
    assert_eq!(rig.world().to_server, close_ok);
    assert!(rig.world().closed && !rig.driver_ended());
    (rig, connection)
}

#[test]
fn input_after_the_final_output_is_discarded_until_the_end() {
    let (mut rig, connection) = draining();
    let reason = connection.close_reason();
    // Frames, and bytes that are none.
    for input in [close(), frame(10, 51, b"").to_vec(), vec![7; 300_000]] {
        rig.world().inject(&input);
        rig.run();
        assert!(rig.world().to_client.is_empty());
        assert!(!rig.driver_ended());
    }
    assert_eq!(connection.close_reason(), reason);
    rig.world().cut(Cut::Eof);
    rig.run();
    assert!(rig.driver_ended());

    let (mut rig, _connection) = draining();
    rig.world().cut(Cut::Reset);
    rig.run();
    assert!(rig.driver_ended());
}

#[test]
fn a_server_that_never_ends_is_left_after_a_second() {
    let (mut rig, _connection) = draining();
    rig.advance(DRAIN.checked_sub(Duration::from_millis(1)).unwrap());
    assert!(!rig.driver_ended());
    rig.advance(Duration::from_millis(1));
    assert!(rig.driver_ended());

    // Input does not extend the time.
    let (mut rig, _connection) = draining();
    for _ in 0..10 {
        assert!(!rig.driver_ended());
        rig.world().inject(&[0; 100]);
        rig.advance(DRAIN / 10);
    }
    assert!(rig.driver_ended());
}

#[test]
fn a_server_that_never_stops_sending_is_left_after_so_many_bytes() {
    let (mut rig, _connection) = draining();
    rig.world().inject(&vec![0; DRAIN_MAX - 1]);
    rig.run();
    assert!(!rig.driver_ended());
    rig.world().inject(&[0; 100_000]);
    rig.run();
    assert!(rig.driver_ended());
    assert!(!rig.world().to_client.is_empty());
}

/// The handles do not wait for the server's end of stream.
#[test]
fn a_close_succeeds_before_the_driver_ends() {
    let (mut rig, connection, _channel) = open();
    let closing = connection.clone();
    let closing = rig.spawn(async move { closing.close().await });
    rig.run();
    rig.world().inject(&frame(10, 51, b""));
    rig.run();
    assert_eq!(closing.take(), Some(Ok(())));
    assert!(rig.ready(connection.closed()).is_some());
    assert!(!rig.driver_ended());
    rig.world().cut(Cut::Eof);
    rig.run();
    assert!(rig.driver_ended());
}

/// A driver that is dropped meanwhile writes nothing after the end of its output.
#[test]
fn a_draining_driver_can_be_dropped() {
    let (mut rig, _connection) = draining();
    rig.drop_driver();
    assert!(rig.world().dropped);
}
