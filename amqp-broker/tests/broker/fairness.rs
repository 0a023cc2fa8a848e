//! The shares of queues that compete for a channel or a connection.

use std::collections::BTreeMap;

use amqp_broker::Config;
use amqp_core::{ChannelId, protocol::basic};

use crate::rig::{Rig, consumer, up_to};

const QUEUES: [&str; 3] = ["a", "b", "c"];

/// Publishes numbered messages that are padded with a number of bytes.
fn fill(rig: &mut Rig, client: usize, channel: ChannelId, queue: &str, count: usize, size: usize) {
    rig.declare(client, channel, &crate::rig::queue(queue));
    let publish = Rig::mandatory(queue);
    for number in 0..count {
        let body = number.to_string() + &" ".repeat(size);
        let mut channel = rig.client(client).channel(channel).unwrap();
        channel
            .publish(&publish, &basic::Properties::default(), body)
            .unwrap();
        if number % 64 == 0 || size > 1 << 10 {
            rig.exchange();
        }
    }
    rig.exchange();
}

/// Subscribes to a queue without waiting for the reply.
fn subscribe(rig: &mut Rig, client: usize, channel: ChannelId, queue: &str, no_ack: bool) {
    let consume = basic::Consume {
        no_ack,
        ..consumer(queue, queue)
    };
    let mut channel = rig.client(client).channel(channel).unwrap();
    channel.consume(consume).unwrap();
    rig.exchange();
}

/// Checks that the messages of each queue are delivered in order, and returns their numbers by
/// queue.
fn shares(delivered: &[(String, String)]) -> BTreeMap<&str, usize> {
    let mut shares: BTreeMap<&str, usize> = BTreeMap::new();
    for (tag, body) in delivered {
        let share = shares.entry(tag.as_str()).or_default();
        assert_eq!(body.trim_end(), share.to_string(), "{tag}");
        *share += 1;
    }
    shares
}

/// Returns the length of the longest sequence of deliveries of one queue before all deliveries of
/// some queue are made.
fn longest_run(delivered: &[(String, String)]) -> usize {
    let last = |queue: &&str| delivered.iter().rposition(|(tag, _)| tag == queue).unwrap();
    let contested = QUEUES.iter().map(last).min().unwrap();
    let runs = delivered[..contested].chunk_by(|(one, _), (next, _)| one == next);
    runs.map(<[_]>::len).max().unwrap()
}

#[test]
fn a_global_prefetch_is_shared_by_the_queues_of_a_channel() {
    for prefetch in [1, 2, 5] {
        let (mut rig, client, channel) = Rig::open();
        rig.qos(client, channel, prefetch, true);
        for queue in QUEUES {
            fill(&mut rig, client, channel, queue, 100, 1);
            rig.consume(client, channel, consumer(queue, queue))
                .unwrap();
        }
        let mut delivered = Vec::new();
        for number in 1..=99 {
            delivered.extend(rig.delivered(client));
            rig.ack(client, channel, up_to(number));
        }
        let shares = shares(&delivered);
        for queue in QUEUES {
            assert!((27..=40).contains(&shares[queue]), "{prefetch}: {shares:?}");
        }
    }
}

#[test]
fn a_global_prefetch_is_shared_when_it_is_acknowledged_as_a_whole() {
    let (mut rig, client, channel) = Rig::open();
    rig.qos(client, channel, 100, true);
    for queue in QUEUES {
        fill(&mut rig, client, channel, queue, 2_000, 1);
        rig.consume(client, channel, consumer(queue, queue))
            .unwrap();
    }
    let mut delivered = rig.delivered(client);
    while delivered.len() < 3_000 {
        rig.ack(client, channel, up_to(delivered.len() as u64));
        delivered.extend(rig.delivered(client));
    }
    let shares = shares(&delivered);
    for queue in QUEUES {
        assert!((900..=1_100).contains(&shares[queue]), "{shares:?}");
    }
}

#[test]
fn a_slow_connection_is_shared_by_its_queues() {
    for (count, size) in [(600, 1 << 10), (5_000, 4), (12, 100 << 10)] {
        for no_ack in [true, false] {
            for own_channels in [false, true] {
                let (mut rig, publisher, channel) = Rig::open();
                let client = rig.connect();
                let mut at = rig.channel(client);
                rig.stall(client, true);
                let mut channels = Vec::from([at]);
                if own_channels {
                    rig.stall(client, false);
                    channels.extend([rig.channel(client), rig.channel(client)]);
                    rig.stall(client, true);
                }
                for (index, queue) in QUEUES.into_iter().enumerate() {
                    fill(&mut rig, publisher, channel, queue, count, size);
                    at = channels.get(index).copied().unwrap_or(at);
                    subscribe(&mut rig, client, at, queue, no_ack);
                }
                rig.stall(client, false);
                let delivered = rig.delivered(client);
                assert_eq!(
                    shares(&delivered),
                    QUEUES.map(|queue| (queue, count)).into()
                );
                // The first consumer fills the output before there is a second one.
                let first = delivered.iter().take_while(|(tag, _)| tag == "a").count();
                let output = Config::default().limits.output / (size + 56) + 1;
                assert!(first <= output + 32, "{count} x {size}: {first}");
                let rest = &delivered[first..];
                let run = longest_run(rest);
                assert!(run <= 32, "{count} x {size}: {run}");
            }
        }
    }
}

#[test]
fn a_message_of_a_quiet_queue_passes_the_backlog_of_a_busy_one() {
    for own_channel in [false, true] {
        let (mut rig, publisher, channel) = Rig::open();
        let client = rig.connect();
        let busy = rig.channel(client);
        let quiet = if own_channel {
            rig.channel(client)
        } else {
            busy
        };
        fill(&mut rig, publisher, channel, "busy", 20_000, 256);
        fill(&mut rig, publisher, channel, "quiet", 0, 0);
        rig.stall(client, true);
        subscribe(&mut rig, client, busy, "busy", true);
        subscribe(&mut rig, client, quiet, "quiet", true);
        rig.publish(publisher, channel, "quiet", "0");
        rig.stall(client, false);
        let delivered = rig.delivered(client);
        assert_eq!(delivered.len(), 20_001);
        let before = delivered.iter().position(|(tag, _)| tag == "quiet");
        assert!(before.unwrap() <= 1_100, "{before:?}");
    }
}
