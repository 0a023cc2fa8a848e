//! Clients that say anything at all.

use amqp_broker::{Broker, Config, ConnectionKey};
use amqp_core::{
    Instant, Transmit,
    frame::{Frame, FrameKind, PROTOCOL_HEADER},
    protocol::{Method, basic, channel, confirm, connection, exchange, queue, tx},
    wire::{Encode as _, FieldTable, FieldValue, Secret, ShortStr},
};
use bytes::BytesMut;
use proptest::prelude::*;
use std::time::Duration;

use crate::rig::{frame, name};

/// Numbers from a seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }

    fn flip(&mut self) -> bool {
        self.roll(2) == 1
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.roll(from.len() as u64) as usize].clone()
    }

    fn text(&mut self, from: &[&str]) -> ShortStr {
        name(self.pick(from))
    }

    fn arguments(&mut self) -> FieldTable {
        const NAMES: [&str; 17] = [
            "x-message-ttl",
            "x-expires",
            "x-max-length",
            "x-max-length-bytes",
            "x-overflow",
            "x-dead-letter-exchange",
            "x-dead-letter-routing-key",
            "x-max-priority",
            "x-single-active-consumer",
            "x-queue-type",
            "x-delivery-limit",
            "x-priority",
            "alternate-exchange",
            "x-match",
            "x-max-age",
            "x-stream-max-segment-size-bytes",
            "x-stream-offset",
        ];
        let mut table = FieldTable::new();
        while self.roll(3) == 0 {
            let value: FieldValue = match self.roll(8) {
                0 => 0.into(),
                1 => 1.into(),
                2 => (-1).into(),
                3 => i64::MAX.into(),
                4 => true.into(),
                5 => self
                    .pick(&[
                        "",
                        "amq.fanout",
                        "q",
                        "quorum",
                        "stream",
                        "1s",
                        "first",
                        "any",
                    ])
                    .into(),
                6 => self
                    .pick(&["reject-publish", "reject-publish-dlx", "x"])
                    .into(),
                _ => FieldValue::Void,
            };
            table.push(self.text(&NAMES), value);
        }
        table
    }

    fn queue(&mut self) -> ShortStr {
        self.text(&["", "a", "b", "q", "amq.rabbitmq.reply-to", "amq.x"])
    }

    fn exchange(&mut self) -> ShortStr {
        self.text(&[
            "",
            "x",
            "y",
            "amq.direct",
            "amq.topic",
            "amq.fanout",
            "amq.headers",
        ])
    }

    fn key(&mut self) -> ShortStr {
        self.text(&["", "a", "b", "#", "*.a", "a.b", "q"])
    }

    fn properties(&mut self) -> basic::Properties {
        let some = |dice: &mut Self| dice.roll(6) == 0;
        let mut headers = self.arguments();
        if some(self) {
            let keys: Vec<FieldValue> = vec!["a".into(), "q".into(), 1.into()];
            headers.push(self.text(&["CC", "BCC", "x-death"]), keys);
        }
        basic::Properties {
            headers: self.flip().then_some(headers),
            delivery_mode: some(self).then(|| self.roll(4) as u8),
            priority: some(self).then(|| self.roll(256) as u8),
            reply_to: some(self).then(|| name("amq.rabbitmq.reply-to")),
            expiration: some(self).then(|| self.text(&["0", "5", "x", "-1"])),
            user_id: some(self).then(|| self.text(&["guest", "bob"])),
            ..basic::Properties::default()
        }
    }

    /// Any method, mostly a sensible one.
    fn method(&mut self) -> Method {
        let (queue, exchange, routing_key) = (self.queue(), self.exchange(), self.key());
        let consumer_tag = self.text(&["", "s", "t"]);
        let delivery_tag = self.roll(6);
        match self.roll(30) {
            0..=3 => queue::Declare {
                queue,
                passive: self.roll(4) == 0,
                durable: self.flip(),
                exclusive: self.roll(4) == 0,
                auto_delete: self.roll(4) == 0,
                no_wait: self.roll(4) == 0,
                arguments: self.arguments(),
            }
            .into(),
            4 | 5 => queue::Bind {
                queue,
                exchange,
                routing_key,
                no_wait: self.flip(),
                arguments: self.arguments(),
            }
            .into(),
            6 => queue::Unbind {
                queue,
                exchange,
                routing_key,
                arguments: self.arguments(),
            }
            .into(),
            7 => queue::Delete {
                queue,
                if_unused: self.flip(),
                if_empty: self.flip(),
                no_wait: self.flip(),
            }
            .into(),
            8 => queue::Purge {
                queue,
                no_wait: self.flip(),
            }
            .into(),
            9 | 10 => exchange::Declare {
                exchange,
                kind: self.text(&["direct", "fanout", "topic", "headers", "none"]),
                passive: self.roll(4) == 0,
                durable: self.flip(),
                auto_delete: self.flip(),
                internal: self.roll(4) == 0,
                no_wait: self.flip(),
                arguments: self.arguments(),
            }
            .into(),
            11 => exchange::Delete {
                exchange,
                if_unused: self.flip(),
                no_wait: self.flip(),
            }
            .into(),
            12 | 13 => exchange::Bind {
                destination: self.exchange(),
                source: exchange,
                routing_key,
                no_wait: self.flip(),
                arguments: self.arguments(),
            }
            .into(),
            14 => exchange::Unbind {
                destination: self.exchange(),
                source: exchange,
                routing_key,
                no_wait: self.flip(),
                arguments: self.arguments(),
            }
            .into(),
            15 => basic::Qos {
                prefetch_size: u32::from(self.roll(20) == 0),
                prefetch_count: self.roll(3) as u16,
                global: self.flip(),
            }
            .into(),
            16 | 17 => basic::Consume {
                queue,
                consumer_tag,
                no_local: self.flip(),
                no_ack: self.flip(),
                exclusive: self.roll(4) == 0,
                no_wait: self.flip(),
                arguments: self.arguments(),
            }
            .into(),
            18 => basic::Cancel {
                consumer_tag,
                no_wait: self.flip(),
            }
            .into(),
            19 | 20 => basic::Get {
                queue,
                no_ack: self.flip(),
            }
            .into(),
            21 => basic::Ack {
                delivery_tag,
                multiple: self.flip(),
            }
            .into(),
            22 => basic::Nack {
                delivery_tag,
                multiple: self.flip(),
                requeue: self.flip(),
            }
            .into(),
            23 => basic::Reject {
                delivery_tag,
                requeue: self.flip(),
            }
            .into(),
            24 => basic::Recover {
                requeue: self.roll(20) > 0,
            }
            .into(),
            25 => confirm::Select {
                nowait: self.flip(),
            }
            .into(),
            26 => self.pick(&[
                Method::from(tx::Select),
                tx::Commit.into(),
                tx::Rollback.into(),
            ]),
            27 => channel::Flow {
                active: self.flip(),
            }
            .into(),
            28 => channel::Close::default().into(),
            _ => channel::CloseOk.into(),
        }
    }

    fn publish(&mut self, number: u16, out: &mut Vec<u8>) {
        let publish = basic::Publish {
            exchange: self.exchange(),
            routing_key: self.key(),
            mandatory: self.flip(),
            immediate: self.roll(50) == 0,
        };
        out.extend(frame(number, &publish.into()));
        let len = self.roll(40) as usize;
        let mut header = BytesMut::from(&[0, 60, 0, 0][..]);
        header.extend_from_slice(&(len as u64).to_be_bytes());
        self.properties().encode(&mut header);
        let body = vec![b'x'; len];
        let mut bytes = BytesMut::new();
        for (kind, payload) in [
            (FrameKind::Header, &header[..]),
            (FrameKind::Body, &body[..]),
        ] {
            if !payload.is_empty() {
                let frame = Frame {
                    kind,
                    channel: number,
                    payload,
                };
                frame.encode(&mut bytes);
            }
        }
        out.extend_from_slice(&bytes);
    }
}

/// The bytes that open a connection.
fn hello() -> Vec<u8> {
    let start_ok = connection::StartOk {
        mechanism: name("PLAIN"),
        response: Secret::from("\0guest\0guest"),
        locale: name("en_US"),
        ..connection::StartOk::default()
    };
    let tune_ok = connection::TuneOk {
        channel_max: 20,
        frame_max: 8192,
        heartbeat: 0,
    };
    let open = connection::Open {
        virtual_host: name("/"),
    };
    let mut bytes = PROTOCOL_HEADER.to_vec();
    for method in [Method::from(start_ok), tune_ok.into(), open.into()] {
        bytes.extend(frame(0, &method));
    }
    bytes
}

fn feed(broker: &mut Broker, key: ConnectionKey, now: Instant, bytes: &[u8]) {
    let mut input = BytesMut::from(bytes);
    broker.handle_input(key, now, &mut input);
}

fn drain(broker: &mut Broker, key: ConnectionKey, now: Instant) {
    let mut out = Transmit::new();
    while broker.poll_transmit(key, now, &mut out) {
        out.clear();
    }
}

/// The invariants of the broker.
fn check(broker: &Broker) {
    let inspection = broker.inspect();
    let unacked: usize = inspection
        .connections
        .iter()
        .flat_map(|connection| &connection.channels)
        .map(|channel| channel.unacked)
        .sum();
    let vhost = inspection.vhost("/").unwrap();
    let of_queues: u64 = vhost.queues.iter().map(|queue| queue.unacked).sum();
    let transactional = inspection
        .connections
        .iter()
        .flat_map(|connection| &connection.channels)
        .any(|channel| channel.transactional);
    // The deliveries of a deleted queue are known to the channel alone, and those that a
    // transaction has settled and not committed to the queue alone.
    assert!(
        transactional || of_queues <= unacked as u64,
        "{inspection:?}"
    );
    let ready: usize = vhost.queues.iter().map(|queue| queue.ready).sum();
    assert!(ready == 0 || inspection.memory > 0, "{inspection:?}");
}

/// Several clients do anything, with a broker of small limits, while time passes. With a journal,
/// the changes are those of the broker.
fn riot(seed: u64, steps: usize, journal: bool) {
    let mut dice = Dice(seed);
    let mut config = Config::default().journal(journal);
    config.limits.journal = 3000;
    let mut changes = Vec::new();
    config.limits.memory = 20_000;
    config.limits.output = 2000;
    config.limits.replies = 4000;
    config.limits.queues = 20;
    config.limits.bindings = 20;
    config.limits.consumers = 5;
    config.limits.transaction = 5;
    config.rules.flow = dice.flip();
    let mut broker = Broker::new(config.clone()).unwrap();
    let mut now = Instant::ORIGIN;
    let mut keys: Vec<ConnectionKey> = Vec::new();
    for _ in 0..steps {
        while keys.len() < 3 {
            let key = broker.accept(now).unwrap();
            feed(&mut broker, key, now, &hello());
            for number in 1..=3 {
                feed(&mut broker, key, now, &frame(number, &channel::Open.into()));
            }
            keys.push(key);
        }
        let at = dice.roll(3) as usize;
        let key = keys[at];
        let number = dice.roll(3) as u16 + 1;
        let mut bytes = Vec::new();
        for _ in 0..=dice.roll(4) {
            match dice.roll(20) {
                0 => bytes.extend(frame(number, &channel::Open.into())),
                1..=8 => dice.publish(number, &mut bytes),
                _ => bytes.extend(frame(number, &dice.method())),
            }
        }
        if dice.roll(60) == 0 && !bytes.is_empty() {
            let at = dice.roll(bytes.len() as u64) as usize;
            bytes[at] ^= 1 << dice.roll(8);
        }
        feed(&mut broker, key, now, &bytes);
        if dice.roll(3) > 0 {
            drain(&mut broker, key, now);
        }
        if dice.roll(10) == 0 {
            now = now + Duration::from_millis(dice.roll(20));
            broker.handle_timeout(now);
            broker.handle_connection_timeout(key, now);
        }
        while broker.poll_wake().is_some() {}
        if dice.roll(40) == 0 || broker.is_finished(key) {
            broker.remove(key, now);
            keys.remove(at);
        }
        check(&broker);
        if journal && dice.flip() {
            while let Some((number, change)) = broker.poll_change() {
                changes.push(change);
                assert_eq!(number, changes.len() as u64);
            }
            let stored = broker.last_change().saturating_sub(dice.roll(2));
            broker.handle_stored(stored, now);
        }
        if journal && dice.roll(100) == 0 {
            Broker::restore(config.clone(), now, changes.clone()).unwrap();
        }
    }
    for key in keys {
        broker.remove(key, now);
    }
    if journal {
        broker.stop(now);
        while let Some((_, change)) = broker.poll_change() {
            changes.push(change);
        }
        broker.start(now);
        let restored = Broker::restore(config, now, changes).unwrap();
        assert_eq!(restored.snapshot(), broker.snapshot());
    }
    // Only the queues hold messages.
    let vhosts = broker.inspect().vhosts;
    let left = &vhosts[0].queues;
    assert!(
        left.iter()
            .all(|queue| queue.unacked == 0 && queue.consumers.is_empty() && queue.owner.is_none()),
        "{left:?}"
    );
    if left.iter().all(|queue| queue.ready == 0) {
        assert_eq!(broker.inspect().memory, 0);
    }
}

#[test]
fn many_clients_doing_anything() {
    for seed in 0..150 {
        riot(seed, 200, false);
    }
}

#[test]
fn the_changes_of_a_broker_make_the_same_broker() {
    for seed in 0..150 {
        riot(seed, 200, true);
    }
}

#[test]
fn the_same_calls_give_the_same() {
    let run = || {
        let mut dice = Dice(7);
        let mut broker = Broker::new(Config::default()).unwrap();
        let key = broker.accept(Instant::ORIGIN).unwrap();
        feed(&mut broker, key, Instant::ORIGIN, &hello());
        let mut said = Vec::new();
        for _ in 0..200 {
            let mut bytes = frame(1, &channel::Open.into());
            dice.publish(1, &mut bytes);
            bytes.extend(frame(1, &dice.method()));
            feed(&mut broker, key, Instant::ORIGIN, &bytes);
            let mut out = Transmit::new();
            while broker.poll_transmit(key, Instant::ORIGIN, &mut out) {}
            for segment in out.take_segments() {
                said.extend_from_slice(&segment);
            }
        }
        said
    };
    assert_eq!(run(), run());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes(greeted in any::<bool>(), pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 0..20)) {
        let mut broker = Broker::new(Config::default()).unwrap();
        let key = broker.accept(Instant::ORIGIN).unwrap();
        if greeted {
            feed(&mut broker, key, Instant::ORIGIN, &hello());
        }
        for piece in pieces {
            feed(&mut broker, key, Instant::ORIGIN, &piece);
        }
        drain(&mut broker, key, Instant::ORIGIN);
    }

    #[test]
    fn any_pieces(seed in any::<u64>(), sizes in prop::collection::vec(1_usize..50, 1..20)) {
        let mut dice = Dice(seed);
        let mut bytes = hello();
        bytes.extend(frame(1, &channel::Open.into()));
        for _ in 0..10 {
            dice.publish(1, &mut bytes);
            bytes.extend(frame(1, &dice.method()));
        }
        let run = |sizes: &[usize]| {
            let mut broker = Broker::new(Config::default()).unwrap();
            let key = broker.accept(Instant::ORIGIN).unwrap();
            let mut input = BytesMut::new();
            let mut rest = &bytes[..];
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (piece, after) = rest.split_at((*size).min(rest.len()));
                input.extend_from_slice(piece);
                broker.handle_input(key, Instant::ORIGIN, &mut input);
                rest = after;
            }
            drain(&mut broker, key, Instant::ORIGIN);
            broker.inspect()
        };
        prop_assert_eq!(run(&[usize::MAX]), run(&sizes));
    }
}
