//! The buffer of untaken deliveries is counted truly: dropped ones do not count, and an abandoned
//! wait does not keep reading going.

use amqp_driver::{Channel, Connection, Consumer, NoAck, protocol::basic};
use amqp_test_support::Rig;

use crate::{none, to_queue};

const MIB: usize = 1 << 20;

/// A consumer without acknowledgements that has got more than the buffer takes.
fn flooded(rig: &mut Rig, connection: &Connection) -> (Channel, Consumer<NoAck>) {
    let channel = rig.channel(connection);
    let consumer = rig
        .wait(channel.consume_no_ack(basic::Consume::default()))
        .unwrap();
    let tag = consumer.tag().to_string();
    for _ in 0..30 {
        assert!(rig.peer().deliver(channel.number(), &tag, vec![7; MIB]));
    }
    rig.run();
    (channel, consumer)
}

/// Whether reading is paused: the server says something, and it is not read.
fn is_paused(rig: &mut Rig) -> bool {
    let read = rig.world().read;
    rig.peer().machine.block("x".parse().unwrap()).unwrap();
    rig.peer().machine.unblock().unwrap();
    rig.run();
    rig.world().read == read
}

#[test]
fn messages_of_a_closed_channel_do_not_count() {
    let (mut rig, connection) = Rig::open();
    for _ in 0..3 {
        let (channel, consumer) = flooded(&mut rig, &connection);
        rig.wait(channel.close()).unwrap();
        assert!(!is_paused(&mut rig));
        // Nor when its handles go.
        drop((channel, consumer));
        assert!(!is_paused(&mut rig));
    }
    // A whole buffer is there for the next.
    let (channel, mut consumer) = flooded(&mut rig, &connection);
    assert!(is_paused(&mut rig));
    for _ in 0..25 {
        assert!(rig.wait(consumer.next()).unwrap().is_ok());
    }
    assert!(!is_paused(&mut rig));
    drop((channel, consumer));
    rig.run();
    rig.finish(connection);
}

#[test]
fn a_dropped_confirm_is_not_awaited() {
    let (mut rig, connection, confirms) = Rig::with_confirms();
    let mut confirm = rig
        .wait(confirms.publish(&to_queue(), &none(), "x"))
        .unwrap();
    let probe = amqp_test_support::Probe::new();
    assert!(probe.poll(std::pin::Pin::new(&mut confirm)).is_pending());
    let (channel, consumer) = flooded(&mut rig, &connection);
    assert!(!is_paused(&mut rig), "it is awaited");
    drop(confirm);
    let tag = consumer.tag().to_string();
    assert!(rig.peer().deliver(channel.number(), &tag, vec![7; MIB]));
    rig.run();
    assert!(is_paused(&mut rig), "nothing is awaited");
    drop((consumer, channel, confirms));
    rig.run();
}
