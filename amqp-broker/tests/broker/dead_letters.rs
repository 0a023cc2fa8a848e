//! Messages that queues give up.

use amqp_broker::Config;
use amqp_core::{
    ChannelId,
    wire::{FieldTable, FieldValue},
};

use crate::rig::{Rig, bind, headers, name, queue, queue_with, quorum, tag};

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
    let headers = message.content.properties.decode().headers.unwrap();
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
fn puk_31_a_rejected_message_goes_to_the_dead_letter_exchange() {
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
        let headers = message.content.properties.decode().headers.unwrap();
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
    let nowhere = ("x-dead-letter-exchange", FieldValue::from("nowhere"));
    rig.declare(client, channel, &queue_with("q", [nowhere]));
    rig.publish(client, channel, "q", "1");
    rig.get(client, channel, "q").unwrap();
    rig.nack(client, channel, tag(1), false);
    assert_eq!(rig.broker.inspect().memory, 0);
}

#[test]
fn what_is_purged_or_deleted_is_no_dead_letter() {
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
                .and_then(|table| table.with("reason", "rejected"))
                .and_then(|table| table.with("count", i64::MAX))
                .unwrap()
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
