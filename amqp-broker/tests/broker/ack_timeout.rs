//! The timeout of acknowledgements.

use std::time::Duration;

use amqp_broker::Config;
use amqp_core::{ChannelId, protocol::tx};

use crate::rig::{Rig, consumer, queue, refused, tag};

/// A broker with a timeout of a minute, a queue with two messages, and a channel.
fn open() -> (Rig, usize, ChannelId) {
    let config = Config::default().consumer_timeout(Duration::from_secs(60));
    let mut rig = Rig::with(config);
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", "0");
    rig.publish(client, channel, "q", "1");
    (rig, client, channel)
}

#[test]
fn an_unacknowledged_delivery_closes_its_channel() {
    let (mut rig, client, channel) = open();
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.advance(59_999);
    assert_eq!(rig.channel_closed(client), None);
    rig.advance(1);
    let text = "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout \
                value used: 60000 ms. This timeout value can be configured, see consumers doc \
                guide to learn more";
    assert_eq!(rig.channel_closed(client), Some(refused(406, text)));
    assert_eq!(rig.inspect("q").ready, 2);
    assert_eq!(rig.broker.poll_timeout(), None);
}

#[test]
fn the_oldest_delivery_counts() {
    let (mut rig, client, channel) = open();
    rig.get(client, channel, "q").unwrap();
    rig.advance(40_000);
    rig.get(client, channel, "q").unwrap();
    rig.ack(client, channel, tag(1));
    rig.advance(59_999);
    assert_eq!(rig.channel_closed(client), None);
    rig.advance(1);
    assert_eq!(rig.channel_closed(client).unwrap().0, 406);
}

#[test]
fn acknowledged_deliveries_do_not_count() {
    let (mut rig, client, channel) = open();
    rig.get(client, channel, "q").unwrap();
    rig.ack(client, channel, tag(1));
    rig.try_get(client, channel, "q", true).unwrap();
    rig.advance(200_000);
    assert_eq!(rig.channel_closed(client), None);
}

#[test]
fn a_rolled_back_acknowledgement_is_overdue_again() {
    let (mut rig, client, channel) = open();
    rig.transaction(client, channel);
    rig.get(client, channel, "q").unwrap();
    rig.ack(client, channel, tag(1));
    rig.advance(100_000);
    assert_eq!(rig.channel_closed(client), None);
    rig.call(client, channel, &tx::Rollback).unwrap();
    rig.advance(0);
    assert_eq!(rig.channel_closed(client).unwrap().0, 406);
}

#[test]
fn the_timeout_is_half_an_hour_and_can_be_disabled() {
    for (config, closes) in [
        (Config::default(), true),
        (Config::default().consumer_timeout(None), false),
    ] {
        let mut rig = Rig::with(config);
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &queue("q"));
        rig.publish(client, channel, "q", "0");
        rig.get(client, channel, "q").unwrap();
        rig.advance(30 * 60 * 1000 - 1);
        assert_eq!(rig.channel_closed(client), None);
        rig.advance(1);
        assert_eq!(rig.channel_closed(client).is_some(), closes);
    }
}
