//! Replies that wait until the host has stored the changes behind them.

use amqp_broker::{Broker, Change, Config, Limits};
use amqp_core::{
    ChannelId,
    client::Outcome,
    protocol::{basic::Properties, tx},
};

use crate::{
    rig::{Rig, bind, queue_with, quorum, tag},
    streams::stream,
};

fn open(config: Config) -> (Rig, usize, ChannelId) {
    let mut rig = Rig::with(config.journal(true));
    let client = rig.connect();
    let channel = rig.channel(client);
    (rig, client, channel)
}

fn persistent() -> Properties {
    Properties {
        delivery_mode: Some(2),
        ..Properties::default()
    }
}

/// Polls all changes. Returns the number of the last one.
fn poll_all(rig: &mut Rig) -> u64 {
    let mut last = 0;
    while let Some((number, _)) = rig.broker.poll_change() {
        last = number;
    }
    last
}

impl Rig {
    fn stored(&mut self, number: u64) {
        self.broker.handle_stored(number, self.now);
        self.exchange();
    }
}

#[test]
fn without_the_setting_nothing_is_recorded() {
    let (mut rig, client, channel) = Rig::open();
    rig.confirms(client, channel);
    rig.declare(client, channel, &queue_with("d", []));
    rig.publish_to(client, channel, "", "d", &persistent(), "m");
    assert_eq!(rig.settled(client), [(1, 1, Outcome::Acked)]);
    assert_eq!(rig.broker.poll_change(), None);
}

#[test]
fn a_confirm_waits_until_its_message_is_stored() {
    let (mut rig, client, channel) = open(Config::default());
    rig.declare(client, channel, &queue_with("d", []));
    rig.declare(client, channel, &quorum("q", []));
    rig.confirms(client, channel);
    for (queue, properties) in [
        ("d", persistent()),
        ("d", Properties::default()),
        ("nowhere", persistent()),
        ("q", Properties::default()),
    ] {
        rig.publish_to(client, channel, "", queue, &properties, "m");
    }
    // Each alone, because a `multiple` one would cover the first.
    let alone = [(2, 2, Outcome::Acked), (3, 3, Outcome::Acked)];
    assert_eq!(rig.settled(client), alone);
    let last = poll_all(&mut rig);
    rig.stored(last - 2);
    assert_eq!(rig.settled(client), []);
    rig.stored(last - 1);
    assert_eq!(rig.settled(client), [(1, 1, Outcome::Acked)]);
    rig.stored(last);
    assert_eq!(rig.settled(client), [(4, 4, Outcome::Acked)]);
}

#[test]
fn a_confirm_of_a_stream_waits_until_its_message_is_stored() {
    let (mut rig, client, channel) = open(Config::default());
    rig.declare(client, channel, &stream("s", []));
    rig.confirms(client, channel);
    rig.publish(client, channel, "s", "m");
    let last = poll_all(&mut rig);
    rig.stored(last - 1);
    assert_eq!(rig.settled(client), []);
    rig.stored(last);
    assert_eq!(rig.settled(client), [(1, 1, Outcome::Acked)]);
}

#[test]
fn changes_that_were_not_polled_are_not_stored() {
    let (mut rig, client, channel) = open(Config::default());
    rig.declare(client, channel, &queue_with("d", []));
    rig.confirms(client, channel);
    rig.publish_to(client, channel, "", "d", &persistent(), "m");
    rig.stored(u64::MAX);
    assert_eq!(rig.settled(client), []);
    poll_all(&mut rig);
    rig.stored(u64::MAX);
    assert_eq!(rig.settled(client), [(1, 1, Outcome::Acked)]);
}

#[test]
fn many_confirms_are_one() {
    let (mut rig, client, channel) = open(Config::default());
    rig.declare(client, channel, &queue_with("d", []));
    rig.confirms(client, channel);
    for _ in 0..5 {
        rig.publish_to(client, channel, "", "d", &persistent(), "m");
    }
    let last = poll_all(&mut rig);
    rig.stored(last);
    assert_eq!(rig.settled(client), [(1, 5, Outcome::Acked)]);
}

#[test]
fn a_commit_waits_until_it_is_stored_and_the_rest_stays_in_order() {
    let (mut rig, client, channel) = open(Config::default());
    rig.declare(client, channel, &queue_with("d", []));
    rig.transaction(client, channel);
    rig.publish_to(client, channel, "", "d", &persistent(), "m");
    let on = |rig: &mut Rig| {
        let mut channel = rig.client(client).channel(channel).unwrap();
        channel.call(&tx::Commit).unwrap()
    };
    let (first, second) = (on(&mut rig), on(&mut rig));
    rig.exchange();
    assert!(!rig.broker.wants_input(rig.key(client)));
    assert!(rig.events(client).is_empty());
    assert_eq!(rig.inspect("d").ready, 1);
    let last = poll_all(&mut rig);
    rig.stored(last);
    assert!(rig.broker.wants_input(rig.key(client)));
    rig.reply(client, first).unwrap();
    // The second one has nothing to store.
    rig.reply(client, second).unwrap();
    rig.call(client, channel, &tx::Commit).unwrap();
}

#[test]
fn a_full_journal_pauses_publishers() {
    let limits = Limits::default().journal(10_000);
    let (mut rig, client, channel) = open(Config::default().limits(limits));
    rig.declare(client, channel, &queue_with("d", []));
    let body = "x".repeat(1000);
    for _ in 0..30 {
        rig.publish_to(client, channel, "", "d", &persistent(), &body);
    }
    let ready = rig.inspect("d").ready;
    assert!((5..=11).contains(&ready), "{ready}");
    assert!(!rig.broker.wants_input(rig.key(client)));
    while rig.inspect("d").ready < 30 {
        let last = poll_all(&mut rig);
        assert!(last > 0, "it goes on");
        rig.stored(last);
    }
}

#[test]
fn a_message_has_a_change_for_each_step() {
    let (mut rig, client, channel) = open(Config::default());
    rig.declare(client, channel, &quorum("q", []));
    rig.publish(client, channel, "q", "m");
    rig.get(client, channel, "q").unwrap();
    rig.nack(client, channel, tag(1), true);
    rig.get(client, channel, "q").unwrap();
    rig.ack(client, channel, tag(2));
    let mut steps = Vec::new();
    while let Some((_, change)) = rig.broker.poll_change() {
        steps.push(match change {
            Change::QueueDeclared(_) => "declared",
            Change::Enqueued(_) => "enqueued",
            Change::Delivered { .. } => "delivered",
            Change::Requeued { .. } => "requeued",
            Change::Removed { .. } => "removed",
            other => panic!("{other:?}"),
        });
    }
    let expected = [
        "declared",
        "enqueued",
        "delivered",
        "requeued",
        "delivered",
        "removed",
    ];
    assert_eq!(steps, expected);
}

#[test]
fn the_end_of_a_channel_ends_its_waits() {
    let (mut rig, client, channel) = open(Config::default());
    rig.declare(client, channel, &queue_with("d", []));
    rig.confirms(client, channel);
    rig.publish_to(client, channel, "", "d", &persistent(), "m");
    rig.close(client);
    let last = poll_all(&mut rig);
    rig.stored(last);
    assert_eq!(rig.inspect("d").ready, 1);
}

#[test]
fn sequences_that_cannot_be_are_refused() {
    let (mut rig, client, channel) = open(Config::default());
    rig.declare(client, channel, &queue_with("d", []));
    rig.call(client, channel, &bind("d", "amq.direct", "k"))
        .unwrap();
    rig.publish_to(client, channel, "", "d", &persistent(), "m");
    rig.try_get(client, channel, "d", true).unwrap().unwrap();
    let all: Vec<Change> = core::iter::from_fn(|| Some(rig.broker.poll_change()?.1)).collect();
    for missing in 0..all.len() - 1 {
        let mut some = all.clone();
        some.remove(missing);
        let restored = Broker::restore(Config::default(), rig.now, some);
        let error = restored.err().map(|error| error.to_string());
        let about = [
            "the queue \"d\"",
            // The binding is no condition of another change.
            "",
            "the message 1 of the queue with the number 1",
        ];
        match error {
            Some(error) => assert!(error.contains(about[missing]), "{missing}: {error}"),
            None => assert_eq!(about[missing], "", "{missing}"),
        }
    }
    for len in 0..40 {
        assert!(Change::decode(&vec![7; len]).is_err());
    }
}
