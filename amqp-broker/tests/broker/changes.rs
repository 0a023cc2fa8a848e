//! The changes of a broker, against the broker itself: random operations of which most succeed.

use std::collections::BTreeSet;

use amqp_broker::{
    AdminError, Broker, Change, Config, Permissions, Policy, TopicPermissions, User, UserLimits,
    VhostLimits,
};
use amqp_core::{
    ChannelId,
    protocol::{basic::Properties, exchange, queue, tx},
    wire::FieldValue,
};

use crate::{
    rig::{Rig, bind, consumer, delete, exchange as exchange_of, name, queue_with, quorum, tag},
    streams::stream,
};

const QUEUES: [&str; 5] = ["short", "dead", "quorum", "expiring", "priority"];

const EXCHANGES: [&str; 2] = ["events", "auto"];

fn declare(name: &str) -> queue::Declare {
    let dead = [
        ("x-dead-letter-exchange", FieldValue::from("")),
        ("x-dead-letter-routing-key", "dead".into()),
    ];
    let [exchange, key] = dead;
    match name {
        "short" => queue_with(name, [("x-max-length", 3.into()), exchange, key]),
        "quorum" => quorum(name, [("x-delivery-limit", 1.into()), exchange, key]),
        "expiring" => queue_with(name, [("x-message-ttl", 30.into()), exchange, key]),
        "priority" => queue_with(name, [("x-max-priority", 3.into())]),
        _ => queue_with(name, []),
    }
}

/// A client that works on a broker with a journal.
struct Work {
    rig: Rig,
    client: usize,
    channel: ChannelId,
    unacked: Vec<u64>,
    changes: Vec<Change>,
    random: u64,
}

impl Work {
    fn new(seed: u64) -> Self {
        let mut rig = Rig::with(Config::default().journal(true));
        let client = rig.connect();
        let channel = rig.channel(client);
        Self {
            rig,
            client,
            channel,
            unacked: Vec::new(),
            changes: Vec::new(),
            random: seed,
        }
    }

    fn roll(&mut self, sides: usize) -> usize {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005);
        self.random = self.random.wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) as usize % sides
    }

    fn step(&mut self) {
        let (client, channel) = (self.client, self.channel);
        let queue = QUEUES[self.roll(QUEUES.len())];
        let source = EXCHANGES[self.roll(EXCHANGES.len())];
        let known = self.rig.has_queue(queue);
        let inspection = self.rig.broker.inspect();
        let has_exchange = inspection.vhost("/").unwrap().exchange(source).is_some();
        match self.roll(32) {
            24 | 25 => self.administer(),
            26 => self.set_policy(),
            27 | 28 => {
                let retention = [
                    ("x-stream-max-segment-size-bytes", 400.into()),
                    ("x-max-length-bytes", 1000.into()),
                ];
                let log = ["log", "short-log"][self.roll(2)];
                let declare = if log == "log" {
                    stream(log, [])
                } else {
                    stream(log, retention)
                };
                self.rig.declare(client, channel, &declare);
                self.publish(channel, log, source, has_exchange);
                if has_exchange && self.roll(3) == 0 {
                    let bind = bind(log, source, "a.*");
                    self.rig.call(client, channel, &bind).unwrap();
                }
                if self.roll(12) == 0 {
                    self.rig.call(client, channel, &delete(log)).unwrap();
                }
            }
            0..=2 => {
                self.rig.declare(client, channel, &declare(queue));
            }
            3 => {
                let mut declare = exchange_of(source, "topic");
                declare.durable = true;
                declare.auto_delete = source == "auto";
                self.rig.call(client, channel, &declare).unwrap();
            }
            4 | 5 if known && has_exchange => {
                let bind = bind(queue, source, "a.*");
                self.rig.call(client, channel, &bind).unwrap();
            }
            6 if known && has_exchange => {
                let unbind = queue::Unbind {
                    queue: name(queue),
                    exchange: name(source),
                    routing_key: name("a.*"),
                    ..queue::Unbind::default()
                };
                self.rig.call(client, channel, &unbind).unwrap();
            }
            7 if self.roll(4) == 0 => {
                self.rig.call(client, channel, &delete(queue)).unwrap();
            }
            8 if self.roll(4) == 0 => {
                let delete = exchange::Delete {
                    exchange: name(source),
                    ..exchange::Delete::default()
                };
                self.rig.call(client, channel, &delete).unwrap();
            }
            9 if known && self.roll(3) == 0 => {
                let purge = queue::Purge {
                    queue: name(queue),
                    no_wait: false,
                };
                self.rig.call(client, channel, &purge).unwrap();
            }
            10 if known => {
                let mut consume = consumer(queue, "c");
                consume.no_ack = self.roll(2) == 0;
                let no_ack = consume.no_ack;
                self.rig.consume(client, channel, consume).unwrap();
                let deliveries = self.rig.deliveries(client);
                let tags = deliveries.iter().map(|one| one.method.delivery_tag);
                self.unacked.extend(tags.filter(|_| !no_ack));
                self.rig.cancel(client, channel, "c");
            }
            11 if self.roll(4) == 0 => {
                self.channel = self.rig.channel(client);
                let reply = amqp_core::protocol::ReplyCode::SUCCESS;
                let mut old = self.rig.client(client).channel(channel).unwrap();
                old.close(reply, "").unwrap();
                self.rig.exchange();
                self.unacked.clear();
            }
            12 => {
                let transactional = self.rig.channel(client);
                self.rig.transaction(client, transactional);
                self.publish(transactional, queue, source, false);
                // Confirmed by the journal alone.
                let mut channel = self.rig.client(client).channel(transactional).unwrap();
                let commit = channel.call(&tx::Commit).unwrap();
                self.rig.exchange();
                self.store();
                if self.rig.reply(client, commit).is_ok() {
                    let reply = amqp_core::protocol::ReplyCode::SUCCESS;
                    let mut old = self.rig.client(client).channel(transactional).unwrap();
                    old.close(reply, "").unwrap();
                    self.rig.exchange();
                }
            }
            13 => self.rig.advance(10),
            14 | 15 if known => {
                let no_ack = self.roll(3) == 0;
                let got = self.rig.try_get(client, channel, queue, no_ack).unwrap();
                if !no_ack && let Some(message) = got {
                    self.unacked.push(message.method.delivery_tag);
                }
            }
            16..=18 if !self.unacked.is_empty() => {
                let at = self.roll(self.unacked.len());
                let tag = tag(self.unacked.remove(at));
                match self.roll(3) {
                    0 => self.rig.ack(client, channel, tag),
                    1 => self.rig.nack(client, channel, tag, true),
                    _ => self.rig.nack(client, channel, tag, false),
                }
            }
            _ => self.publish(channel, queue, source, has_exchange),
        }
    }

    /// Changes a user or a virtual host. Some of the calls fail, and change nothing.
    fn administer(&mut self) {
        let user = ["anna", "bob", "guest"][self.roll(3)];
        let vhost = ["/", "side", "other"][self.roll(3)];
        let limit = self.roll(9) as u64 + 1000;
        let action = self.roll(15);
        let mut admin = self.rig.broker.admin();
        let _refused = match action {
            0 => admin.add_user(User::new(user, "secret")),
            1 if user != "guest" => admin.delete_user(user),
            2 => admin.change_password(user, limit.to_string()),
            3 => admin.set_user_tags(user, [limit.to_string()]),
            4 if user != "guest" => admin.clear_permissions(user, vhost),
            5 => admin.set_permissions(user, vhost, Permissions::all()),
            6 | 12 => {
                let key = TopicPermissions::new(".*", &format!("^{limit}|a")).unwrap();
                admin.set_topic_permissions(user, "/", "other", &key)
            }
            7 | 13 => admin.clear_topic_permissions(user, "/", Some("other")),
            8 => admin.set_user_limits(user, UserLimits::default().max_connections(limit)),
            9 => admin.set_vhost_limits(vhost, VhostLimits::default().max_queues(limit)),
            10 if vhost != "/" => admin.delete_vhost(vhost),
            11 => self.import(limit),
            _ => admin.add_vhost(vhost),
        };
    }

    #[cfg(feature = "definitions")]
    fn import(&mut self, value: u64) -> Result<(), AdminError> {
        let component = ["vhost-limits", "c"][self.roll(2)];
        let text = format!(
            r#"{{
                "global_parameters": [{{"name": "g", "value": {value}}}],
                "vhosts": [{{"name": "side", "metadata": {{"description": "{value}"}}}}],
                "parameters": [
                    {{"vhost": "side", "component": "c", "name": "p", "value": [{value}]}},
                    {{"vhost": "side", "component": "{component}", "name": "limits",
                      "value": {{"max-queues": {value}}}}}
                ],
                "users": [{{"name": "anna", "password": "{value}", "tags": []}}],
                "permissions": [{{"user": "anna", "vhost": "side", "configure": "{value}",
                                  "write": "", "read": ""}}],
                "policies": [{{"vhost": "/", "name": "import", "pattern": "^log$", "priority": 0,
                               "definition": {{"max-length-bytes": {value}}}}}],
                "queues": [{{"name": "imported", "vhost": "side", "durable": true,
                             "auto_delete": false, "arguments": {{}}}}],
                "bindings": [{{"source": "amq.topic", "vhost": "side", "destination": "imported",
                               "destination_type": "queue", "routing_key": "{value}",
                               "arguments": {{}}}}]
            }}"#
        );
        let definitions = amqp_broker::definitions::Definitions::from_json(&text).unwrap();
        self.rig.broker.apply(&definitions).unwrap();
        Ok(())
    }

    #[cfg(not(feature = "definitions"))]
    fn import(&mut self, value: u64) -> Result<(), AdminError> {
        let limits = VhostLimits::default().max_connections(value);
        self.rig.broker.admin().set_vhost_limits("side", limits)
    }

    fn set_policy(&mut self) {
        let vhost = ["/", "/", "side"][self.roll(3)];
        let name = ["a", "b"][self.roll(2)];
        let pattern = ["^(short|quorum)$", "log", ""][self.roll(3)];
        let (setting, value) = [
            ("max-length", 2),
            ("message-ttl", 25),
            ("max-length-bytes", 700),
            ("expires", 200),
        ][self.roll(4)];
        let segments = [300, 600][self.roll(2)];
        let action = self.roll(6);
        let priority = self.roll(3) as i64;
        let policy = Policy::new(name, pattern).unwrap().priority(priority);
        let policy = policy.with(setting, value);
        let mut admin = self.rig.broker.admin();
        let _refused = match action {
            0 => admin.clear_policy(vhost, name),
            1 => admin.clear_operator_policy(vhost, name),
            2 => admin.set_operator_policy(vhost, policy),
            3 => admin.set_policy(vhost, policy),
            _ => {
                let segments = policy.with("stream-max-segment-size-bytes", segments);
                admin.set_policy(vhost, segments)
            }
        };
    }

    fn publish(&mut self, channel: ChannelId, queue: &str, source: &str, has_exchange: bool) {
        let properties = Properties {
            delivery_mode: Some(1 + u8::from(self.roll(4) > 0)),
            priority: Some(self.roll(4) as u8),
            ..Properties::default()
        };
        let (exchange, key) = if has_exchange && self.roll(2) == 0 {
            (source, "a.b")
        } else {
            ("", queue)
        };
        let body = self.roll(1000).to_string();
        self.rig
            .publish_to(self.client, channel, exchange, key, &properties, &body);
    }

    fn store(&mut self) {
        while let Some((number, change)) = self.rig.broker.poll_change() {
            self.changes.push(change);
            assert_eq!(number, self.changes.len() as u64);
        }
        let now = self.rig.now;
        self.rig.broker.handle_stored(u64::MAX, now);
        self.rig.exchange();
    }

    fn restored(&self) -> Broker {
        let config = Config::default().journal(true);
        Broker::restore(config, self.rig.now, self.changes.clone()).unwrap()
    }
}

/// The queues and the numbers of the messages in them.
fn messages(broker: &Broker) -> BTreeSet<(u64, u64)> {
    let changes = broker.snapshot().into_iter();
    let messages = changes.filter_map(|change| match change {
        Change::Enqueued(message) => Some((message.queue, message.number)),
        _ => None,
    });
    messages.collect()
}

/// The messages of streams, and all that is administered.
fn streams_and_administration(broker: &Broker) -> Vec<Change> {
    let mut changes = broker.snapshot();
    changes.retain(|change| {
        matches!(
            change,
            Change::Appended(_)
                | Change::SegmentBegun { .. }
                | Change::UserSet(_)
                | Change::VhostSet(_)
                | Change::PolicySet { .. }
                | Change::ParameterSet { .. }
                | Change::GlobalParameterSet { .. }
        )
    });
    changes
}

#[test]
fn the_changes_of_a_broker_make_the_same_broker() {
    let mut kept = 0;
    let mut administered = 0;
    for seed in 0..60 {
        let mut work = Work::new(seed);
        for step in 0..300 {
            work.step();
            if step % 20 == 0 {
                work.store();
                assert_eq!(
                    streams_and_administration(&work.restored()),
                    streams_and_administration(&work.rig.broker),
                    "{seed}, {step}"
                );
            }
        }
        work.store();
        // What a restore drops is dropped by the delivery limit or the maximum length.
        let crashed = messages(&work.restored());
        let before = messages(&work.rig.broker);
        let dead = work.rig.has_queue("dead");
        let gone = before.difference(&crashed).count();
        let new = crashed.difference(&before).count();
        assert!(new <= gone, "{seed}: {new} new, {gone} gone");
        assert!(dead || new == 0, "{seed}");

        let now = work.rig.now;
        work.rig.broker.stop(now);
        work.store();
        work.rig.broker.start(now);
        let restored = work.restored();
        assert_eq!(restored.snapshot(), work.rig.broker.snapshot(), "{seed}");
        kept += messages(&restored).len();
        administered += streams_and_administration(&restored).len();
    }
    assert!(kept > 500, "only {kept} messages");
    assert!(administered > 500, "only {administered} changes");
}
