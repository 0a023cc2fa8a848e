//! What a restart keeps, as measured with `rabbitmqctl stop_app` and `start_app`, and with a killed
//! node: in place, by a snapshot, and by the journal of a broker that has crashed.

use amqp_broker::{AcceptError, Broker, Change, Config};
use amqp_core::{
    ChannelId,
    client::GetMessage,
    protocol::{basic::Properties, exchange, queue},
    wire::FieldValue,
};
use bytes::BytesMut;

use crate::{
    rig::{Rig, bind, consumer, exchange as exchange_of, name, queue_with, quorum, refused, tag},
    streams::{read_from, stream},
};

/// A way in which a broker comes back.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    InPlace,
    Snapshot,
    StoppedJournal,
    Crash,
}

pub(crate) const WAYS: [Way; 4] = [Way::InPlace, Way::Snapshot, Way::StoppedJournal, Way::Crash];

const STOPPED: [Way; 3] = [Way::InPlace, Way::Snapshot, Way::StoppedJournal];

pub(crate) fn journaled() -> Rig {
    Rig::with(Config::default().journal(true))
}

/// The changes so far, by way of their bytes.
pub(crate) fn changes(broker: &mut Broker) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut last = 0;
    while let Some((number, change)) = broker.poll_change() {
        last += 1;
        assert_eq!(number, last);
        let mut bytes = BytesMut::new();
        change.encode(&mut bytes);
        assert_eq!(Change::decode(&bytes), Ok(change.clone()));
        changes.push(change);
    }
    broker.handle_stored(last, amqp_core::Instant::ORIGIN);
    changes
}

impl Rig {
    /// Lets the broker come back, with a new client and a channel.
    pub(crate) fn come_back(&mut self, way: Way) -> (usize, ChannelId) {
        self.come_back_with(way, Config::default().journal(true));
        let client = self.connect();
        (client, self.channel(client))
    }

    /// Lets the broker come back with that configuration.
    pub(crate) fn come_back_with(&mut self, way: Way, config: Config) {
        match way {
            Way::InPlace => {
                self.broker.stop(self.now);
                self.exchange();
                self.broker.start(self.now);
            }
            Way::Snapshot => self.replace(config, |broker, _| broker.snapshot()),
            Way::StoppedJournal => self.replace(config, |broker, now| {
                broker.stop(now);
                changes(broker)
            }),
            Way::Crash => self.replace(config, |broker, _| changes(broker)),
        }
    }

    fn replace(
        &mut self,
        config: Config,
        take: impl FnOnce(&mut Broker, amqp_core::Instant) -> Vec<Change>,
    ) {
        let now = self.now;
        let changes = take(&mut self.broker, now);
        self.forget_clients();
        self.broker = Broker::restore(config, now, changes).unwrap();
    }
}

fn persistent() -> Properties {
    Properties {
        delivery_mode: Some(2),
        ..Properties::default()
    }
}

fn transient_queue(text: &str) -> queue::Declare {
    queue::Declare {
        durable: false,
        ..queue_with(text, [])
    }
}

fn durable(text: &str) -> exchange::Declare {
    exchange::Declare {
        durable: true,
        ..exchange_of(text, "direct")
    }
}

/// Bodies, with `!` for redelivered ones.
fn drain(rig: &mut Rig, client: usize, channel: ChannelId, queue: &str) -> Vec<String> {
    let mut bodies = Vec::new();
    while let Some(message) = rig.try_get(client, channel, queue, true).unwrap() {
        let mark = if message.method.redelivered { "!" } else { "" };
        let body = String::from_utf8(message.content.body.to_vec()).unwrap();
        bodies.push(format!("{body}{mark}"));
    }
    bodies
}

fn delivery_count(message: &GetMessage) -> Option<i64> {
    let properties = message.content.properties.decode().unwrap();
    let headers = properties.headers.unwrap();
    headers.get("x-delivery-count").and_then(FieldValue::as_i64)
}

#[test]
fn durable_entities_and_the_bindings_between_them_come_back() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &queue_with("d", []));
        rig.declare(client, channel, &transient_queue("t"));
        rig.declare(
            client,
            channel,
            &queue::Declare::default().queue("x").exclusive(true),
        );
        for declare in [durable("de"), durable("de2"), exchange_of("te", "direct")] {
            rig.call(client, channel, &declare).unwrap();
        }
        let mut auto_delete = durable("dade");
        auto_delete.auto_delete = true;
        rig.call(client, channel, &auto_delete).unwrap();
        for (queue, exchange) in [
            ("d", "de"),
            ("d", "te"),
            ("t", "de"),
            ("t", "dade"),
            ("d", "amq.topic"),
        ] {
            rig.call(client, channel, &bind(queue, exchange, "k"))
                .unwrap();
        }
        for (from, to) in [("de", "de2"), ("de", "te"), ("te", "de")] {
            let bind = exchange::Bind {
                destination: name(to),
                source: name(from),
                ..exchange::Bind::default()
            };
            rig.call(client, channel, &bind).unwrap();
        }
        rig.come_back(way);
        let inspection = rig.broker.inspect();
        let vhost = inspection.vhost("/").unwrap();
        let queues: Vec<&str> = vhost.queues.iter().map(|queue| &*queue.name).collect();
        assert_eq!(queues, ["d"], "{way:?}");
        let own = vhost.exchanges.iter().map(|exchange| &*exchange.name);
        let own: Vec<&str> = own
            .filter(|name| !name.is_empty() && !name.starts_with("amq."))
            .collect();
        assert_eq!(own, ["dade", "de", "de2"], "{way:?}");
        let bindings = vhost.bindings.iter();
        let bindings: Vec<String> = bindings
            .map(|binding| format!("{} {:?}", binding.source, binding.destination))
            .collect();
        let kept = [
            "amq.topic Queue(\"d\")",
            "de Queue(\"d\")",
            "de Exchange(\"de2\")",
        ];
        assert_eq!(bindings, kept, "{way:?}");
    }
}

#[test]
fn persistent_messages_come_back_in_order() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &queue_with("d", []));
        for number in 0..6 {
            let properties = if number == 5 {
                Properties::default()
            } else {
                persistent()
            };
            rig.publish_to(client, channel, "", "d", &properties, &number.to_string());
        }
        for _ in 0..4 {
            rig.get(client, channel, "d").unwrap();
        }
        rig.ack(client, channel, tag(1));
        rig.nack(client, channel, tag(4), true);
        let (client, channel) = rig.come_back(way);
        let bodies = drain(&mut rig, client, channel, "d");
        // RabbitMQ does not know after a crash which of them were delivered.
        let last = if way == Way::Crash { "4!" } else { "4" };
        assert_eq!(bodies, ["1!", "2!", "3!", last], "{way:?}");
    }
}

#[test]
fn a_quorum_queue_keeps_transient_messages_and_counts_deliveries() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &quorum("q", []));
        for number in 0..6 {
            rig.publish(client, channel, "q", &number.to_string());
        }
        for _ in 0..4 {
            rig.get(client, channel, "q").unwrap();
        }
        rig.ack(client, channel, tag(1));
        rig.nack(client, channel, tag(4), true);
        let (client, channel) = rig.come_back(way);
        let first = rig.get(client, channel, "q").unwrap();
        assert_eq!(delivery_count(&first), Some(1), "{way:?}");
        rig.nack(client, channel, tag(1), true);
        let bodies = drain(&mut rig, client, channel, "q");
        assert_eq!(bodies, ["2!", "4", "5", "3!", "1!"], "{way:?}");
    }
}

#[test]
fn the_delivery_limit_counts_restarts() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &queue_with("dead", []));
        let declare = quorum(
            "q",
            [
                ("x-delivery-limit", 0.into()),
                ("x-dead-letter-exchange", "".into()),
                ("x-dead-letter-routing-key", "dead".into()),
            ],
        );
        rig.declare(client, channel, &declare);
        rig.publish_to(client, channel, "", "q", &persistent(), "m");
        rig.get(client, channel, "q").unwrap();
        let (client, channel) = rig.come_back(way);
        assert_eq!(drain(&mut rig, client, channel, "q"), [""; 0]);
        assert_eq!(drain(&mut rig, client, channel, "dead"), ["m"], "{way:?}");
    }
}

#[test]
fn a_transient_message_of_a_classic_queue_is_dropped() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &queue_with("d", []));
        rig.publish(client, channel, "d", "transient");
        rig.come_back(way);
        assert_eq!(rig.inspect("d").ready, 0, "{way:?}");
        assert_eq!(rig.broker.inspect().memory, 0, "{way:?}");
    }
}

#[test]
fn priorities_and_the_maximum_length_are_kept() {
    for way in STOPPED {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        let declare = queue_with(
            "d",
            [("x-max-priority", 5.into()), ("x-max-length", 5.into())],
        );
        rig.declare(client, channel, &declare);
        for number in 0..6u8 {
            let mut properties = persistent();
            properties.priority = Some(number % 3);
            rig.publish_to(client, channel, "", "d", &properties, &number.to_string());
        }
        let (client, channel) = rig.come_back(way);
        rig.publish_to(client, channel, "", "d", &persistent(), "new");
        let bodies = drain(&mut rig, client, channel, "d");
        assert_eq!(bodies, ["1", "4", "0", "3", "new"], "{way:?}");
    }
}

#[test]
fn ttls_go_on_and_unused_queues_begin_anew() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &queue_with("dead", []));
        let declare = queue_with(
            "d",
            [
                ("x-message-ttl", 20_000.into()),
                ("x-dead-letter-exchange", "".into()),
                ("x-dead-letter-routing-key", "dead".into()),
            ],
        );
        rig.declare(client, channel, &declare);
        let expiring = queue_with("unused", [("x-expires", 12_000.into())]);
        rig.declare(client, channel, &expiring);
        rig.publish_to(client, channel, "", "d", &persistent(), "m");
        rig.advance(10_000);
        rig.come_back(way);
        rig.advance(9_999);
        assert_eq!(rig.inspect("d").ready, 1, "{way:?}");
        rig.advance(1);
        assert_eq!(rig.inspect("d").ready, 0, "{way:?}");
        assert_eq!(rig.inspect("dead").ready, 1, "{way:?}");
        rig.advance(1_999);
        assert!(rig.has_queue("unused"), "{way:?}");
        rig.advance(1);
        assert!(!rig.has_queue("unused"), "{way:?}");
    }
}

#[test]
fn a_message_that_expires_during_a_stop_is_dead_lettered_at_the_start() {
    let mut rig = journaled();
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue_with("d", []));
    let mut properties = persistent();
    properties.expiration = Some(name("1000"));
    rig.publish_to(client, channel, "", "d", &properties, "m");
    rig.broker.stop(rig.now);
    assert_eq!(rig.broker.poll_timeout(), None);
    rig.advance(5000);
    assert_eq!(rig.inspect("d").ready, 1);
    rig.broker.start(rig.now);
    assert_eq!(rig.inspect("d").ready, 0);
}

#[test]
fn an_auto_delete_queue_goes_with_the_consumer_that_the_stop_ends() {
    for (way, stays) in [
        (Way::InPlace, false),
        (Way::StoppedJournal, false),
        (Way::Crash, true),
    ] {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        for queue in ["used", "unused"] {
            let declare = queue::Declare {
                auto_delete: true,
                ..queue_with(queue, [])
            };
            rig.declare(client, channel, &declare);
        }
        let mut exchange = durable("e");
        exchange.auto_delete = true;
        rig.call(client, channel, &exchange).unwrap();
        rig.call(client, channel, &bind("used", "e", "k")).unwrap();
        rig.consume(client, channel, consumer("used", "c")).unwrap();
        rig.come_back(way);
        assert!(rig.has_queue("unused"), "{way:?}");
        assert_eq!(rig.has_queue("used"), stays, "{way:?}");
        let inspection = rig.broker.inspect();
        let exchange = inspection.vhost("/").unwrap().exchange("e");
        assert_eq!(exchange.is_some(), stays, "{way:?}");
    }
}

#[test]
fn a_stop_closes_connections_and_refuses_new_ones() {
    let mut rig = Rig::new();
    let client = rig.connect();
    rig.broker.stop(rig.now);
    rig.exchange();
    let text = "CONNECTION_FORCED - broker forced connection closure with reason 'shutdown'";
    assert_eq!(rig.closed(client), Some(refused(320, text)));
    assert!(rig.broker.is_stopped());
    assert_eq!(rig.broker.accept(rig.now), Err(AcceptError::Stopped));
    rig.broker.start(rig.now);
    rig.connect();
}

#[test]
fn a_second_crash_keeps_what_the_first_one_kept() {
    let mut rig = journaled();
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue_with("d", []));
    rig.declare(client, channel, &quorum("q", []));
    for queue in ["d", "q"] {
        rig.publish_to(client, channel, "", queue, &persistent(), "m");
        rig.get(client, channel, queue).unwrap();
    }
    let mut all = changes(&mut rig.broker);
    for count in 1..=3 {
        let config = Config::default().journal(true);
        rig.forget_clients();
        rig.broker = Broker::restore(config, rig.now, all.clone()).unwrap();
        let client = rig.connect();
        let channel = rig.channel(client);
        let message = rig.get(client, channel, "q").unwrap();
        assert_eq!(delivery_count(&message), Some(count));
        assert!(rig.get(client, channel, "d").unwrap().method.redelivered);
        all.extend(changes(&mut rig.broker));
    }
}

#[test]
fn a_crash_after_a_restart_is_no_stop() {
    let mut rig = journaled();
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue_with("d", []));
    rig.publish_to(client, channel, "", "d", &persistent(), "m");
    rig.broker.stop(rig.now);
    let mut all = changes(&mut rig.broker);
    rig.forget_clients();
    let config = Config::default().journal(true);
    rig.broker = Broker::restore(config, rig.now, all.clone()).unwrap();
    let client = rig.connect();
    let channel = rig.channel(client);
    let message = rig.get(client, channel, "d").unwrap();
    assert!(!message.method.redelivered);
    // The delivery is no change, but the start is.
    all.extend(changes(&mut rig.broker));
    rig.forget_clients();
    rig.broker = Broker::restore(Config::default(), rig.now, all).unwrap();
    let client = rig.connect();
    let channel = rig.channel(client);
    assert_eq!(drain(&mut rig, client, channel, "d"), ["m!"]);
}

/// A stream with segments of five messages, of which retention keeps two and the last one.
fn segmented() -> queue::Declare {
    let segment = ("x-stream-max-segment-size-bytes", 1000.into());
    stream("s", [segment, ("x-max-length-bytes", 2500.into())])
}

#[test]
fn a_stream_keeps_all_messages_with_their_offsets() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &segmented());
        let body = "x".repeat(100);
        for _ in 0..16 {
            rig.publish_to(client, channel, "", "s", &Properties::default(), &body);
        }
        let before = read_from(&mut rig, client, "first");
        assert_eq!(before, [6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 18]);
        let (client, channel) = rig.come_back(way);
        assert_eq!(rig.inspect("s").ready, 11, "{way:?}");
        assert_eq!(read_from(&mut rig, client, "first"), before, "{way:?}");
        assert_eq!(read_from(&mut rig, client, 11), before[5..], "{way:?}");
        assert_eq!(read_from(&mut rig, client, "last"), [18], "{way:?}");
        for _ in 0..5 {
            rig.publish(client, channel, "s", &body);
        }
        let after = read_from(&mut rig, client, "first");
        assert_eq!(
            after,
            [12, 13, 14, 15, 16, 18, 19, 20, 21, 22, 24],
            "{way:?}"
        );
    }
}

#[test]
fn a_stream_keeps_the_times_of_its_messages() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &stream("s", []));
        rig.publish(client, channel, "s", "old");
        rig.advance(60_000);
        rig.publish(client, channel, "s", "new");
        let (client, _) = rig.come_back(way);
        assert_eq!(read_from(&mut rig, client, "30s"), [1], "{way:?}");
        assert_eq!(read_from(&mut rig, client, "120s"), [0, 1], "{way:?}");
    }
}

#[test]
fn a_deleted_stream_stays_deleted() {
    for way in WAYS {
        let mut rig = journaled();
        let client = rig.connect();
        let channel = rig.channel(client);
        for _ in 0..2 {
            rig.declare(client, channel, &stream("s", []));
            rig.publish(client, channel, "s", "m");
            rig.call(client, channel, &crate::rig::delete("s")).unwrap();
        }
        rig.declare(client, channel, &stream("s", []));
        rig.come_back(way);
        assert_eq!(rig.inspect("s").ready, 0, "{way:?}");
    }
}
