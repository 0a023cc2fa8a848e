//! Messages that queues give up.

use amqp_broker::Config;
use amqp_core::{
    ChannelId, Tags,
    client::{self, Event},
    wire::{FieldTable, FieldValue},
};

use crate::rig::{Rig, bind, consumer, headers, name, queue, queue_with, quorum, tag};

/// A broker with a queue `dead` that takes all dead letters of the exchange `amq.fanout`.
fn morgue() -> (Rig, usize, ChannelId) {
    let mut rig = Rig::with(Config::default().epoch(1_000_000));
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("dead"));
    rig.call(client, channel, &bind("dead", "amq.fanout", ""))
        .unwrap();
    (rig, client, channel)
}

fn dlx() -> (&'static str, FieldValue) {
    ("x-dead-letter-exchange", "amq.fanout".into())
}

fn dead(rig: &mut Rig, client: usize, channel: ChannelId) -> (String, FieldTable) {
    let message = rig.get(client, channel, "dead").unwrap();
    let headers = message
        .content
        .properties
        .decode()
        .unwrap()
        .headers
        .unwrap();
    (message.method.routing_key.to_string(), headers)
}

fn deaths(headers: &FieldTable) -> Vec<(String, String, i64)> {
    let deaths = headers.get("x-death").unwrap().as_array().unwrap();
    let text = |death: &FieldTable, field| death.get(field).unwrap().as_str().unwrap().to_owned();
    deaths
        .iter()
        .map(|death| {
            let death = death.as_table().unwrap();
            let count = death.get("count").unwrap().as_i64().unwrap();
            (text(death, "queue"), text(death, "reason"), count)
        })
        .collect()
}

#[test]
fn a_rejected_message_goes_to_the_dead_letter_exchange() {
    let (mut rig, client, channel) = morgue();
    rig.declare(client, channel, &queue_with("q", [dlx()]));
    let mut properties = headers([("z", 1.into()), ("CC", vec!["copy".into()].into())]);
    properties.expiration = Some(name("60000"));
    rig.publish_to(client, channel, "", "q", &properties, "1");
    rig.get(client, channel, "q").unwrap();
    rig.nack(client, channel, tag(1), false);
    let (key, headers) = dead(&mut rig, client, channel);
    assert_eq!(key, "q");
    let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "CC",
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "z",
    ];
    assert_eq!(names, expected);
    let death = headers.get("x-death").unwrap().as_array().unwrap()[0]
        .as_table()
        .unwrap()
        .clone();
    let names: Vec<_> = death.iter().map(|(name, _)| name.as_str()).collect();
    let expected = [
        "count",
        "reason",
        "queue",
        "time",
        "exchange",
        "routing-keys",
        "original-expiration",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        death.get("time").unwrap().as_timestamp().unwrap().0,
        1_000_100
    );
    let keys = death.get("routing-keys").unwrap().as_array().unwrap();
    assert_eq!(keys[..], ["q".into(), "copy".into()]);
}

#[test]
fn the_four_reasons() {
    let (mut rig, client, channel) = morgue();
    let key = ("x-dead-letter-routing-key", FieldValue::from("other"));
    let ttl = ("x-message-ttl", FieldValue::from(10));
    rig.declare(client, channel, &queue_with("ttl", [dlx(), key, ttl]));
    rig.publish(client, channel, "ttl", "1");
    rig.advance(10);
    let (key, headers) = dead(&mut rig, client, channel);
    assert_eq!(key, "other");
    assert_eq!(deaths(&headers), [("ttl".into(), "expired".into(), 1)]);

    let max = ("x-max-length", FieldValue::from(1));
    rig.declare(client, channel, &queue_with("max", [dlx(), max.clone()]));
    rig.publish(client, channel, "max", "1");
    rig.publish(client, channel, "max", "2");
    let (_, headers) = dead(&mut rig, client, channel);
    assert_eq!(deaths(&headers), [("max".into(), "maxlen".into(), 1)]);

    let reject = ("x-overflow", FieldValue::from("reject-publish-dlx"));
    rig.declare(client, channel, &queue_with("reject", [dlx(), max, reject]));
    rig.publish(client, channel, "reject", "1");
    rig.publish(client, channel, "reject", "2");
    let (_, headers) = dead(&mut rig, client, channel);
    assert_eq!(deaths(&headers), [("reject".into(), "maxlen".into(), 1)]);
    assert_eq!(rig.drain(client, channel, "reject"), ["1"]);

    let limit = ("x-delivery-limit", FieldValue::from(0));
    rig.declare(client, channel, &quorum("limit", [dlx(), limit]));
    rig.publish(client, channel, "limit", "1");
    let message = rig.get(client, channel, "limit").unwrap();
    rig.nack(client, channel, tag(message.tag.unwrap().get()), true);
    let (_, headers) = dead(&mut rig, client, channel);
    assert_eq!(
        deaths(&headers),
        [("limit".into(), "delivery_limit".into(), 1)]
    );
}

#[test]
fn a_circle_without_a_rejection_ends() {
    let (mut rig, client, channel) = Rig::open();
    let around = ("x-dead-letter-exchange", FieldValue::from(""));
    let ttl = |value| ("x-message-ttl", FieldValue::from(value));
    rig.declare(client, channel, &queue_with("q", [around, ttl(10)]));
    rig.publish(client, channel, "q", "1");
    rig.advance(1000);
    assert_eq!(rig.inspect("q").ready, 0);
    // At once, too.
    let around = ("x-dead-letter-exchange", FieldValue::from(""));
    rig.declare(client, channel, &queue_with("p", [around, ttl(0)]));
    rig.publish(client, channel, "p", "1");
    assert_eq!(rig.inspect("p").ready, 0);
}

#[test]
fn a_circle_with_a_rejection_goes_on_and_is_counted() {
    let (mut rig, client, channel) = Rig::open();
    let to = |other: &str| {
        [
            ("x-dead-letter-exchange", FieldValue::from("")),
            ("x-dead-letter-routing-key", FieldValue::from(other)),
        ]
    };
    rig.declare(client, channel, &queue_with("a", to("b")));
    let mut waiting = queue_with("b", to("a"));
    waiting.arguments.push(name("x-message-ttl"), 10);
    rig.declare(client, channel, &waiting);
    rig.publish(client, channel, "a", "1");
    for round in 1..4 {
        rig.get(client, channel, "a").unwrap();
        rig.nack(client, channel, tag(2 * round - 1), false);
        rig.advance(10);
        let message = rig.get(client, channel, "a").unwrap();
        let headers = message
            .content
            .properties
            .decode()
            .unwrap()
            .headers
            .unwrap();
        let count = round as i64;
        assert_eq!(
            deaths(&headers),
            [
                ("b".into(), "expired".into(), count),
                ("a".into(), "rejected".into(), count)
            ]
        );
        rig.nack(client, channel, tag(2 * round), true);
    }
}

#[test]
fn a_dead_letter_exchange_need_not_be_there() {
    let (mut rig, client, channel) = Rig::open();
    for (number, name) in [(1, "nowhere".to_owned()), (2, "n".repeat(300))] {
        let queue = number.to_string();
        let arguments = [
            ("x-dead-letter-exchange", FieldValue::from(name)),
            ("x-dead-letter-routing-key", "other".into()),
        ];
        rig.declare(client, channel, &queue_with(&queue, arguments));
        rig.publish(client, channel, &queue, "1");
        rig.get(client, channel, &queue).unwrap();
        rig.nack(client, channel, tag(number), false);
        assert_eq!(rig.broker.inspect().memory, 0);
    }
    let key = "n".repeat(256);
    let arguments = [dlx(), ("x-dead-letter-routing-key", key.as_str().into())];
    let (code, text) = rig
        .try_call(client, &queue_with("long", arguments))
        .unwrap_err();
    assert_eq!(code, 406);
    assert!(text.ends_with(": {too_long,256}"), "{text}");
}

#[test]
fn purged_and_deleted_messages_are_no_dead_letters() {
    let (mut rig, client, channel) = morgue();
    rig.declare(client, channel, &queue_with("q", [dlx()]));
    rig.publish(client, channel, "q", "1");
    rig.call(client, channel, &crate::rig::delete("q")).unwrap();
    assert_eq!(rig.inspect("dead").ready, 0);
}

#[test]
fn headers_that_a_client_made_up_do_no_harm() {
    let (mut rig, client, channel) = morgue();
    rig.declare(client, channel, &queue_with("q", [dlx()]));
    let made_up: [FieldValue; 5] = [
        "text".into(),
        Vec::new().into(),
        vec![FieldValue::Void, 1.into()].into(),
        vec![FieldTable::new().into()].into(),
        vec![
            FieldTable::new()
                .with("queue", "q")
                .with("reason", "rejected")
                .with("count", i64::MAX)
                .into(),
        ]
        .into(),
    ];
    for (number, value) in (1..).zip(made_up) {
        let properties = headers([("x-death", value)]);
        rig.publish_to(client, channel, "", "q", &properties, "");
        let _ = rig.get(client, channel, "q").unwrap();
        rig.nack(client, channel, tag(2 * number - 1), false);
        let (_, headers) = dead(&mut rig, client, channel);
        let first = &headers.get("x-death").unwrap().as_array().unwrap()[0];
        let reason = first.as_table().unwrap().get("reason").unwrap();
        assert_eq!(reason.as_str(), Some("rejected"));
    }
}

/// The expected results are those of RabbitMQ 3.10.8.
#[test]
fn entries_of_one_queue_and_reason_are_merged() {
    let (mut rig, client, channel) = morgue();
    rig.declare(client, channel, &queue_with("q", [dlx()]));
    let entry = |queue: &str, reason: &str, count: i64| {
        let mut death = FieldTable::new();
        death.push(name("queue"), queue);
        death.push(name("reason"), reason);
        if count > 0 {
            death.push(name("count"), count);
        }
        FieldValue::from(death)
    };
    let a = |count| entry("a", "rejected", count);
    let b = |count| entry("b", "expired", count);
    let own = |count| entry("q", "rejected", count);
    let cases = [
        (
            vec![a(0), a(0), a(0), b(0)],
            vec![("q", 1), ("b", 1), ("a", 3)],
        ),
        (vec![a(0), b(0), a(0)], vec![("q", 1), ("b", 1), ("a", 2)]),
        (
            vec![a(5), a(0), a(2), b(1)],
            vec![("q", 1), ("b", 1), ("a", 5)],
        ),
        (vec![a(0), a(5)], vec![("q", 1), ("a", 2)]),
        (vec![b(3), a(0), a(0)], vec![("q", 1), ("a", 2), ("b", 3)]),
        (vec![own(0), own(0)], vec![("q", 3)]),
        (vec![own(4), a(0)], vec![("q", 5), ("a", 1)]),
        (vec![a(1), own(4), b(1)], vec![("q", 5), ("b", 1), ("a", 1)]),
        (vec![own(0)], vec![("q", 1)]),
    ];
    for (number, (old, expected)) in (1..).zip(cases) {
        let properties = headers([("x-death", old.into())]);
        rig.publish_to(client, channel, "", "q", &properties, "");
        rig.get(client, channel, "q").unwrap();
        rig.nack(client, channel, tag(2 * number - 1), false);
        let (_, headers) = dead(&mut rig, client, channel);
        let found = deaths(&headers);
        let found: Vec<_> = found.iter().map(|(queue, _, n)| (&queue[..], *n)).collect();
        assert_eq!(found, expected);
    }
}

/// A message's headers grow each time that it dies, beyond the frames that its consumer agreed on.
/// It is delivered all the same, to a consumer, to one that fetches, and back to its publisher.
#[test]
fn headers_that_have_outgrown_the_frame_are_delivered() {
    for frame_max in [4096, 8192] {
        let mut config = Config::default();
        config.server.frame_min = 4096;
        let mut rig = Rig::with(config);
        let mut config = client::Config::default();
        (config.frame_max, config.limits.header) = (frame_max, 1 << 20);
        let client = rig.begin(config);
        assert_eq!(rig.client(client).tuning().frame_max, frame_max);
        let channel = rig.channel(client);
        // Between these two it goes round, as it does where a retry is made of dead letters.
        let to = |queue: &str| {
            [
                ("x-dead-letter-exchange", FieldValue::from("")),
                ("x-dead-letter-routing-key", queue.into()),
            ]
        };
        rig.declare(client, channel, &queue_with("work", to("retry")));
        rig.declare(client, channel, &queue_with("retry", to("work")));
        let nearly = frame_max as usize - 100;
        let long = headers([("h", "h".repeat(nearly).as_str().into())]);
        rig.publish_to(client, channel, "", "work", &long, "body");
        rig.consume(client, channel, consumer("work", "t")).unwrap();
        for round in 1..=3 {
            let deliveries = rig.deliveries(client);
            let [delivery] = &deliveries[..] else {
                panic!("{} deliveries in round {round}", deliveries.len());
            };
            let encoded = &delivery.content.properties;
            assert_eq!(encoded.as_bytes().len() > frame_max as usize, round > 1);
            assert_eq!(delivery.content.body, b"body");
            rig.nack(client, channel, Tags::One(delivery.tag.unwrap()), false);
            let fetched = rig.get(client, channel, "retry").unwrap();
            assert!(fetched.content.properties.as_bytes().len() > frame_max as usize);
            rig.nack(client, channel, Tags::One(fetched.tag.unwrap()), false);
        }
        assert_eq!(rig.closed(client), None);
        assert_eq!(rig.channel_closed(client), None);
    }
}

/// A client that takes no such header loses the one message, which dies once more, and no
/// connection.
#[test]
fn headers_that_a_client_does_not_take_cost_it_the_message() {
    let mut rig = Rig::new();
    let mut config = client::Config::default();
    (config.frame_max, config.limits.header) = (8192, 0);
    let client = rig.begin(config);
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue_with("work", [dlx()]));
    rig.declare(client, channel, &queue("grave"));
    rig.call(client, channel, &bind("grave", "amq.fanout", ""))
        .unwrap();
    let other = rig.connect();
    let long = headers([("h", "h".repeat(20_000).as_str().into())]);
    let on = rig.channel(other);
    rig.publish_to(other, on, "", "work", &long, "long");
    rig.publish(other, on, "work", "short");
    rig.consume(client, channel, consumer("work", "t")).unwrap();
    let events = rig.events(client);
    let [
        Event::Unreadable { tag: Some(_), .. },
        Event::Delivered(delivery),
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!(delivery.content.body, b"short");
    assert_eq!(rig.inspect("grave").ready, 1);
    assert_eq!(rig.closed(client), None);
}

/// Measured with a random program (seed 5024): a queue that is full of requeued messages has
/// redelivered them before the dead letters of another one arrive.
#[test]
fn requeued_messages_are_redelivered_before_those_of_another_queue_are_dead_lettered() {
    let (mut rig, client, channel) = Rig::open();
    let letters = [
        ("x-max-length", 0.into()),
        ("x-dead-letter-exchange", "".into()),
        ("x-dead-letter-routing-key", "b".into()),
    ];
    rig.declare(client, channel, &queue_with("a", letters));
    let full = [
        ("x-max-length", 1.into()),
        ("x-overflow", "reject-publish".into()),
    ];
    rig.declare(client, channel, &queue_with("b", full));
    let lost = rig.connect();
    let closing = rig.channel(lost);
    for name in ["a", "b"] {
        rig.consume(lost, closing, consumer(name, name)).unwrap();
        rig.publish(client, channel, name, name);
    }
    assert_eq!(rig.bodies(lost), ["a", "b"]);
    let taker = rig.connect();
    let taking = rig.channel(taker);
    rig.consume(taker, taking, consumer("b", "taker")).unwrap();
    rig.close(lost);
    assert_eq!(rig.bodies(taker), ["b", "a"]);
}
