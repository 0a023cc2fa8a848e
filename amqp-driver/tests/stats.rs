//! The statistics on the handles.

use amqp_driver::{
    ConsumeOptions, Prefetch,
    core::{ChannelStats, ConnectionStats},
    protocol::basic,
};
use amqp_test_support::{Confirming, Cut, Rig};
use bytes::Bytes;

fn of_messages(stats: &ConnectionStats) -> [u64; 8] {
    [
        stats.published,
        stats.confirmed,
        stats.nacked,
        stats.returned,
        stats.delivered,
        stats.fetched,
        stats.acknowledged,
        stats.rejected,
    ]
}

#[test]
fn publishes_and_confirms_are_counted() {
    let (mut rig, connection, channel) = Rig::with_confirms();
    rig.peer().confirming = Confirming::AtOnce;
    rig.peer().unroutable = true;
    let to = basic::Publish::default();
    let none = basic::Properties::default();
    for mandatory in [false, true, false] {
        let to = to.clone().mandatory(mandatory);
        let confirm = rig.wait(channel.publish(&to, &none, "x")).unwrap();
        let confirmed = rig.wait(confirm);
        assert_eq!(confirmed.is_ok(), !mandatory);
    }
    rig.peer().confirming = Confirming::ByHand;
    let _confirm = rig.wait(channel.publish(&to, &none, "x")).unwrap();
    let stats = connection.stats();
    assert_eq!(of_messages(&stats), [4, 3, 0, 1, 0, 0, 0, 0]);
    let channel = channel.stats().unwrap();
    assert_eq!((channel.published, channel.unconfirmed), (4, 1));
}

#[test]
fn deliveries_and_acknowledgements_are_counted() {
    let (mut rig, connection, channel) = Rig::with_channel();
    rig.peer().at_once = ["1", "2", "3"].map(Bytes::from).into();
    rig.peer().gettable = [Bytes::from("fetched")].into();
    let options = ConsumeOptions::default().prefetch(Prefetch::Count(16));
    let consuming = channel.consume_with(basic::Consume::default(), options);
    let mut consumer = rig.wait(consuming).unwrap();
    rig.run();
    let stats = channel.stats().unwrap();
    assert_eq!((stats.delivered, stats.unacked), (3, 3));
    assert_eq!((stats.consumers, stats.prefetch), (1, 16));
    let first = rig.wait(consumer.next()).unwrap().unwrap();
    let second = rig.wait(consumer.next()).unwrap().unwrap();
    first.ack().unwrap();
    second.reject(amqp_driver::Requeue::No).unwrap();
    let fetched = rig.wait(channel.get(basic::Get::default())).unwrap();
    fetched.unwrap().ack().unwrap();
    // Requeues the third delivery.
    drop(consumer);
    rig.run();
    let stats = connection.stats();
    assert_eq!(of_messages(&stats), [0, 0, 0, 0, 3, 1, 2, 2]);
    let stats = channel.stats().unwrap();
    assert_eq!((stats.unacked, stats.consumers), (0, 0));
}

#[test]
fn the_statistics_of_a_connection_outlive_it_and_those_of_a_channel_do_not() {
    let (mut rig, connection, channel) = Rig::with_channel();
    assert_eq!(channel.stats(), Some(ChannelStats::default()));
    let to = basic::Publish::default();
    let none = basic::Properties::default();
    rig.wait(channel.publish(&to, &none, "x")).unwrap();
    rig.run();
    let stats = connection.stats();
    assert_eq!(stats.published, 1);
    assert!(stats.sent.frames > 3 && stats.sent.bytes > 8 * stats.sent.frames);
    assert!(stats.received.frames > 3);
    rig.world().cut(Cut::Eof);
    rig.run();
    assert_eq!(connection.stats(), stats);
    assert_eq!(channel.stats(), None);
}
