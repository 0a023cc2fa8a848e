//! The statistics that the handles add to those of the machine.

use std::time::Duration;

use amqp_driver::{ConsumeOptions, Prefetch, protocol::basic};
use amqp_test_support::{Rig, Setup};
use bytes::Bytes;

#[test]
fn untaken_and_unacked_messages_are_counted() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().at_once = ["1", "2", "3"].map(Bytes::from).into();
    let options = ConsumeOptions::default().prefetch(Prefetch::Count(16));
    let consuming = channel.consume_with(basic::Consume::default(), options);
    let mut consumer = rig.wait(consuming).unwrap();
    rig.run();
    let stats = connection.stats();
    assert_eq!((stats.unacked, stats.unconfirmed), (3, 0));
    let before = stats.untaken;
    assert!(before > 0);
    while connection.stats().unacked > 0 {
        let delivery = rig.wait(consumer.next()).unwrap().unwrap();
        delivery.ack().unwrap();
    }
    // The last ones are counted until the next is asked for.
    assert!(
        rig.spawn(async move { consumer.next().await })
            .take()
            .is_none()
    );
    rig.run();
    assert_eq!(connection.stats().untaken, 0);
    drop(channel);
}

/// SER-40: the copy can be read at any time, before and after the end as well.
#[test]
fn heartbeats_can_be_read_at_any_time() {
    let mut setup = Setup::default();
    setup.client.heartbeat = Some(10);
    let (mut rig, connection) = Rig::start(setup);
    let unopened = connection.heartbeats();
    assert_eq!((unopened.interval, unopened.sent.count), (None, 0));
    rig.wait(connection.opened()).unwrap();
    let begun = connection.now();
    assert_eq!(
        connection.heartbeats().interval,
        Some(Duration::from_secs(10))
    );
    for _ in 0..42 {
        rig.advance(Duration::from_millis(500));
    }
    let heartbeats = connection.heartbeats();
    let stats = connection.stats();
    for (beats, count) in [
        (heartbeats.sent, stats.sent.heartbeats),
        (heartbeats.received, stats.received.heartbeats),
    ] {
        assert_eq!(beats.count, count);
        assert!(count >= 3, "{heartbeats:?}");
        let (last, previous) = (beats.last.unwrap(), beats.previous.unwrap());
        assert!(last > previous && previous > begun && last <= connection.now());
        assert!(last - previous <= Duration::from_secs(6), "{heartbeats:?}");
    }
    connection.abort();
    rig.run();
    assert_eq!(connection.heartbeats(), heartbeats);
}

/// The clock of a quiet connection goes on for the time of a block.
#[test]
fn the_time_of_a_block_goes_on_without_traffic() {
    let (mut rig, connection) = Rig::open();
    rig.peer()
        .machine
        .block("low on memory".try_into().unwrap())
        .unwrap();
    rig.run();
    assert!(connection.is_blocked());
    rig.advance(Duration::from_secs(7));
    assert_eq!(connection.stats().blocked, Duration::from_secs(7));
    rig.finish(connection);
}
