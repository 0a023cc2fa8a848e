//! Messages to consumers, and back.

use amqp_broker::Config;
use amqp_core::{
    Tags,
    client::Event,
    protocol::basic,
    wire::{FieldTable, FieldValue},
};

use crate::rig::{
    Rig, consumer, delete, name, queue, queue_with, quorum, refused, table, tag, up_to,
};

fn prioritised(text: &str, priority: i64) -> basic::Consume {
    basic::Consume {
        arguments: table([("x-priority", priority.into())]),
        ..consumer("q", text)
    }
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |&(tag, body): &(&str, &str)| (tag.to_owned(), body.to_owned());
    expected.iter().map(owned).collect()
}

#[test]
fn a_message_is_fetched_and_acknowledged() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    assert_eq!(rig.get(client, channel, "q"), None);
    rig.publish(client, channel, "q", "test");
    rig.publish(client, channel, "q", "more");
    let message = rig.get(client, channel, "q").unwrap();
    assert_eq!(message.content.body, "test");
    assert_eq!(message.method.message_count, 1);
    assert_eq!(message.method.routing_key, "q");
    assert!(!message.method.redelivered);
    assert_eq!((rig.inspect("q").ready, rig.inspect("q").unacked), (1, 1));
    rig.ack(client, channel, tag(1));
    assert_eq!((rig.inspect("q").ready, rig.inspect("q").unacked), (1, 0));
}

#[test]
fn messages_before_the_consumer_are_delivered_after_consume_ok() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    for number in 0..10 {
        rig.publish(client, channel, "q", &number.to_string());
    }
    assert_eq!(rig.counts(client, channel, "q"), (10, 0));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    let deliveries = rig.deliveries(client);
    let tags: Vec<_> = deliveries
        .iter()
        .map(|one| one.tag.unwrap().get())
        .collect();
    assert_eq!(tags, Vec::from_iter(1..=10));
    rig.ack(client, channel, up_to(10));
    assert_eq!(rig.counts(client, channel, "q"), (0, 1));
}

#[test]
fn a_refused_message_comes_back_redelivered() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", "1");
    rig.get(client, channel, "q").unwrap();
    rig.nack(client, channel, tag(1), true);
    assert_eq!(rig.counts(client, channel, "q"), (1, 0));
    let message = rig.get(client, channel, "q").unwrap();
    assert!(message.method.redelivered);
    rig.nack(client, channel, tag(2), false);
    assert_eq!(rig.counts(client, channel, "q"), (0, 0));
}

#[test]
fn requeued_messages_take_their_old_place() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    for number in 0..6 {
        rig.publish(client, channel, "q", &number.to_string());
    }
    for _ in 0..4 {
        rig.get(client, channel, "q").unwrap();
    }
    rig.nack(client, channel, tag(3), true);
    rig.nack(client, channel, tag(1), true);
    assert_eq!(rig.drain(client, channel, "q"), ["0", "2", "4", "5"]);
    rig.nack(client, channel, Tags::All, true);
    assert_eq!(rig.drain(client, channel, "q"), ["1", "3"]);
}

#[test]
fn many_requeued_messages_take_their_old_places_between_others() {
    let (mut rig, client, channel) = Rig::open();
    let other = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    let numbers: Vec<String> = (0..60).map(|number| number.to_string()).collect();
    for number in &numbers {
        rig.publish(client, channel, "q", number);
    }
    for number in 0..60 {
        let channel = if number % 2 == 0 { channel } else { other };
        rig.get(client, channel, "q").unwrap();
    }
    for channel in [channel, other] {
        rig.nack(client, channel, Tags::All, true);
    }
    assert_eq!(rig.drain(client, channel, "q"), numbers);
    rig.close(client);
}

#[test]
fn a_quorum_queue_has_other_places_for_requeued_messages() {
    let (mut rig, client, channel) = Rig::open();
    for (text, declare, expected) in [
        ("a", quorum("a", []), ["3", "1", "0", "2"]),
        (
            "b",
            quorum("b", [("x-delivery-limit", 9.into())]),
            ["1", "0", "2", "3"],
        ),
    ] {
        rig.declare(client, channel, &declare);
        for number in 0..4 {
            rig.publish(client, channel, text, &number.to_string());
        }
        let numbers: Vec<_> = (0..3)
            .map(|_| rig.get(client, channel, text).unwrap().tag.unwrap().get())
            .collect();
        for at in [1, 0, 2] {
            rig.nack(client, channel, tag(numbers[at]), true);
        }
        assert_eq!(rig.drain(client, channel, text), expected);
    }
}

#[test]
fn recover_brings_everything_back() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    for number in 0..3 {
        rig.publish(client, channel, "q", &number.to_string());
        rig.get(client, channel, "q").unwrap();
    }
    rig.call(client, channel, &basic::Recover { requeue: true })
        .unwrap();
    assert_eq!(rig.drain(client, channel, "q"), ["0", "1", "2"]);
    rig.inject(
        client,
        channel.number(),
        basic::RecoverAsync { requeue: true },
    );
    assert_eq!(
        rig.call(client, channel, &basic::Recover { requeue: false }),
        Err(refused(540, "NOT_IMPLEMENTED - requeue=false"))
    );
}

#[test]
fn an_unknown_delivery_tag_is_406() {
    let unknown = |tag: u64| {
        let text = format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
        Some(refused(406, &text))
    };
    let (mut rig, client, _) = Rig::open();
    for multiple in [false, true] {
        let channel = rig.channel(client);
        let delivery_tag = 999;
        rig.inject(
            client,
            channel.number(),
            basic::Ack {
                delivery_tag,
                multiple,
            },
        );
        assert_eq!(rig.channel_closed(client), unknown(999));
    }
    let channel = rig.channel(client);
    rig.inject(client, channel.number(), basic::Ack::default());
    assert_eq!(rig.channel_closed(client), unknown(0));
    let channel = rig.channel(client);
    let (delivery_tag, requeue) = (7, true);
    rig.inject(
        client,
        channel.number(),
        basic::Reject {
            delivery_tag,
            requeue,
        },
    );
    assert_eq!(rig.channel_closed(client), unknown(7));
    // Tag 0 of many means all, also if there are none.
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    let (delivery_tag, multiple) = (0, true);
    rig.inject(
        client,
        channel.number(),
        basic::Ack {
            delivery_tag,
            multiple,
        },
    );
    // A used tag is unknown, also if earlier ones are outstanding.
    rig.publish(client, channel, "q", "1");
    rig.publish(client, channel, "q", "2");
    rig.get(client, channel, "q").unwrap();
    rig.get(client, channel, "q").unwrap();
    rig.ack(client, channel, tag(2));
    let (delivery_tag, multiple) = (2, true);
    rig.inject(
        client,
        channel.number(),
        basic::Ack {
            delivery_tag,
            multiple,
        },
    );
    assert_eq!(rig.channel_closed(client), unknown(2));
    assert_eq!(rig.inspect("q").ready, 1);
}

#[test]
fn consumers_take_turns() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    for text in ["x", "y", "z"] {
        rig.consume(client, channel, consumer("q", text)).unwrap();
    }
    for number in 0..5 {
        rig.publish(client, channel, "q", &number.to_string());
    }
    let expected = [("x", "0"), ("y", "1"), ("z", "2"), ("x", "3"), ("y", "4")];
    assert_eq!(rig.delivered(client), pairs(&expected));
}

#[test]
fn two_connections_share_a_queue() {
    let (mut rig, one, channel) = Rig::open();
    let two = rig.connect();
    let other = rig.channel(two);
    rig.declare(one, channel, &queue("q"));
    rig.consume(one, channel, consumer("q", "c")).unwrap();
    rig.consume(two, other, consumer("q", "c")).unwrap();
    for number in 0..4 {
        rig.publish(one, channel, "q", &number.to_string());
    }
    assert_eq!(rig.bodies(one), ["0", "2"]);
    assert_eq!(rig.bodies(two), ["1", "3"]);
}

#[test]
fn consumers_of_a_channel_have_their_own_tags() {
    let (mut rig, client, channel) = Rig::open();
    for text in ["a", "b"] {
        rig.declare(client, channel, &queue(text));
        rig.consume(client, channel, consumer(text, &format!("c-{text}")))
            .unwrap();
    }
    rig.publish(client, channel, "b", "1");
    rig.publish(client, channel, "a", "2");
    assert_eq!(rig.delivered(client), pairs(&[("c-b", "1"), ("c-a", "2")]));
}

#[test]
fn consumers_of_a_higher_priority_come_first() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.qos(client, channel, 2, false);
    for (text, priority) in [("low", -1), ("high", 5), ("mid", 0)] {
        rig.consume(client, channel, prioritised(text, priority))
            .unwrap();
    }
    for number in 0..8 {
        rig.publish(client, channel, "q", &number.to_string());
    }
    let expected = [
        ("high", "0"),
        ("high", "1"),
        ("mid", "2"),
        ("mid", "3"),
        ("low", "4"),
        ("low", "5"),
    ];
    assert_eq!(rig.delivered(client), pairs(&expected));
    // The one that is free again takes the next.
    rig.ack(client, channel, tag(1));
    assert_eq!(rig.delivered(client), pairs(&[("high", "6")]));
    let mut wrong = consumer("q", "wrong");
    wrong.arguments = table([("x-priority", "a".into())]);
    let text = "PRECONDITION_FAILED - invalid arg 'x-priority' for queue 'q' in vhost '/': \
                \"expected integer, got longstr\"";
    assert_eq!(rig.consume(client, channel, wrong), Err(refused(406, text)));
}

#[test]
fn only_the_active_one_of_many_is_served() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(
        client,
        channel,
        &queue_with("q", [("x-single-active-consumer", true.into())]),
    );
    for (text, priority) in [("x", 0), ("y", 1), ("z", 5)] {
        rig.consume(client, channel, prioritised(text, priority))
            .unwrap();
    }
    rig.publish(client, channel, "q", "0");
    rig.publish(client, channel, "q", "1");
    assert_eq!(rig.delivered(client), pairs(&[("x", "0"), ("x", "1")]));
    rig.cancel(client, channel, "x");
    rig.publish(client, channel, "q", "2");
    assert_eq!(rig.delivered(client), pairs(&[("z", "2")]));
    let active: Vec<_> = rig
        .inspect("q")
        .consumers
        .iter()
        .map(|one| one.active)
        .collect();
    assert_eq!(active, [false, true]);
    let mut exclusive = consumer("q", "w");
    exclusive.exclusive = true;
    assert_eq!(rig.consume(client, channel, exclusive).unwrap_err().0, 403);
}

#[test]
fn an_exclusive_consumer_has_the_queue_to_itself() {
    let text = "ACCESS_REFUSED - queue 'q' in vhost '/' in exclusive use";
    let exclusive = |text| basic::Consume {
        exclusive: true,
        ..consumer("q", text)
    };
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.consume(client, channel, exclusive("a")).unwrap();
    for consume in [consumer("q", "b"), exclusive("b")] {
        let other = rig.channel(client);
        assert_eq!(rig.consume(client, other, consume), Err(refused(403, text)));
    }
    rig.cancel(client, channel, "a");
    rig.consume(client, channel, consumer("q", "a")).unwrap();
    let other = rig.channel(client);
    assert_eq!(
        rig.consume(client, other, exclusive("b")),
        Err(refused(403, text))
    );
}

#[test]
fn a_consumer_tag_is_used_once() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.consume(client, channel, consumer("q", "tag")).unwrap();
    rig.inject(client, channel.number(), consumer("q", "tag"));
    let expected = refused(530, "NOT_ALLOWED - attempt to reuse consumer tag 'tag'");
    assert_eq!(rig.closed(client), Some(expected));
}

#[test]
fn a_consumer_without_a_tag_gets_one() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let asked = crate::rig::frame(channel.number(), &consumer("q", "").into());
    rig.ask_raw(client, &asked);
    rig.ask_raw(client, &asked);
    let consumers = rig.inspect("q").consumers;
    assert_eq!(consumers.len(), 2);
    assert!(consumers.iter().all(|one| one.tag.starts_with("amq.ctag-")));
    assert_ne!(consumers[0].tag, consumers[1].tag);
}

#[test]
fn prefetch_bounds_a_consumer_that_comes_after_it() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.qos(client, channel, 1, false);
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.qos(client, channel, 5, false);
    for number in 0..3 {
        rig.publish(client, channel, "q", &number.to_string());
    }
    assert_eq!(rig.bodies(client), ["0"]);
    rig.ack(client, channel, tag(1));
    assert_eq!(rig.bodies(client), ["1"]);
    rig.nack(client, channel, tag(2), true);
    assert_eq!(rig.bodies(client), ["1"]);
    let consumers = rig.inspect("q").consumers;
    assert_eq!(consumers[0].prefetch, 1);
}

#[test]
fn a_global_prefetch_bounds_the_channel_and_can_be_raised() {
    let (mut rig, client, channel) = Rig::open();
    rig.qos(client, channel, 1, true);
    for text in ["a", "b"] {
        rig.declare(client, channel, &queue(text));
        rig.consume(client, channel, consumer(text, text)).unwrap();
        rig.publish(client, channel, text, text);
    }
    assert_eq!(rig.bodies(client), ["a"]);
    rig.qos(client, channel, 2, true);
    assert_eq!(rig.bodies(client), ["b"]);
    rig.publish(client, channel, "a", "more");
    assert_eq!(rig.bodies(client), [""; 0]);
    rig.qos(client, channel, 0, true);
    assert_eq!(rig.bodies(client), ["more"]);
}

#[test]
fn a_global_prefetch_is_not_for_quorum_queues_nor_for_rabbitmq_4() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    rig.qos(client, channel, 1, true);
    let text = "NOT_IMPLEMENTED - queue 'q' in vhost '/' does not support global qos";
    assert_eq!(
        rig.consume(client, channel, consumer("q", "c")),
        Err(refused(540, text))
    );
    let mut rig = Rig::with(Config::rabbitmq_4());
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.qos(client, channel, 1, true);
    assert_eq!(rig.broker.inspect().connections[0].channels[0].prefetch, 1);
}

#[test]
fn a_prefetch_in_bytes_is_540() {
    let (mut rig, client, _) = Rig::open();
    let qos = basic::Qos {
        prefetch_size: 10,
        ..basic::Qos::default()
    };
    let expected = refused(540, "NOT_IMPLEMENTED - prefetch_size!=0 (10)");
    assert_eq!(rig.try_call(client, &qos), Err(expected));
}

#[test]
fn a_cancelled_consumer_gets_nothing_more_and_keeps_its_deliveries() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.publish(client, channel, "q", "1");
    rig.cancel(client, channel, "c");
    rig.cancel(client, channel, "unknown");
    rig.publish(client, channel, "q", "2");
    assert_eq!(rig.counts(client, channel, "q"), (1, 0));
    assert_eq!(rig.bodies(client), ["1"]);
    rig.ack(client, channel, tag(1));
    assert_eq!(rig.inspect("q").unacked, 0);
}

#[test]
fn a_consumer_is_cancelled_when_its_queue_goes() {
    let (mut rig, client, channel) = Rig::open();
    let other = rig.connect();
    rig.declare(client, channel, &queue("q"));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.events(client);
    rig.try_call(other, &delete("q")).unwrap();
    let events = rig.events(client);
    assert!(
        matches!(&events[..], [Event::ConsumerCancelled { tag, .. }] if tag == "c"),
        "{events:?}"
    );
    rig.declare(client, channel, &queue("q"));
    assert_eq!(rig.counts(client, channel, "q"), (0, 0));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
}

#[test]
fn a_consumer_without_the_capability_is_not_cancelled_when_its_queue_goes() {
    let mut rig = Rig::new();
    let mut properties = FieldTable::new();
    properties.push(name("capabilities"), FieldTable::new());
    let client = rig.begin(amqp_core::client::Config::default().properties(properties));
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.call(client, channel, &delete("q")).unwrap();
    assert_eq!(rig.events(client), []);
}

#[test]
fn deliveries_of_a_deleted_queue_can_be_acknowledged() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", "1");
    rig.publish(client, channel, "q", "2");
    rig.get(client, channel, "q").unwrap();
    rig.get(client, channel, "q").unwrap();
    rig.call(client, channel, &delete("q")).unwrap();
    rig.ack(client, channel, tag(1));
    rig.nack(client, channel, tag(2), true);
    rig.close(client);
    assert!(rig.client(client).is_finished());
}

#[test]
fn messages_of_a_higher_priority_come_first() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(
        client,
        channel,
        &queue_with("q", [("x-max-priority", 5.into())]),
    );
    for (body, priority) in [
        ("a", Some(1)),
        ("b", Some(5)),
        ("c", None),
        ("d", Some(9)),
        ("e", Some(0)),
        ("f", Some(1)),
    ] {
        let properties = basic::Properties {
            priority,
            ..basic::Properties::default()
        };
        rig.publish_to(client, channel, "", "q", &properties, body);
    }
    let first = rig.get(client, channel, "q").unwrap();
    assert_eq!(first.content.body, "b");
    rig.nack(client, channel, tag(1), true);
    assert_eq!(
        rig.drain(client, channel, "q"),
        ["b", "d", "a", "f", "c", "e"]
    );
}

#[test]
fn no_ack_needs_no_acknowledgement() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let mut consume = consumer("q", "c");
    consume.no_ack = true;
    rig.qos(client, channel, 1, false);
    rig.consume(client, channel, consume).unwrap();
    for number in 0..3 {
        rig.publish(client, channel, "q", &number.to_string());
    }
    assert_eq!(rig.bodies(client), ["0", "1", "2"]);
    assert_eq!(rig.inspect("q").unacked, 0);
}

#[test]
fn properties_arrive_as_they_left() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let list: Vec<FieldValue> = vec![
        true.into(),
        1.into(),
        (-1).into(),
        (1_i64 << 62).into(),
        FieldValue::Void,
        1.2e11.into(),
    ];
    let properties = basic::Properties {
        content_type: Some(name("text/plain")),
        headers: Some(table([("list", list.into())])),
        delivery_mode: Some(2),
        priority: Some(0),
        correlation_id: Some(name("c")),
        message_id: Some(name("123456")),
        user_id: Some(name("guest")),
        kind: Some(name("kind")),
        ..basic::Properties::default()
    };
    rig.publish_to(client, channel, "", "q", &properties, "");
    let message = rig.get(client, channel, "q").unwrap();
    assert_eq!(message.content.properties.decode().unwrap(), properties);
}

#[test]
fn a_large_body_arrives_whole() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    for len in [0, 1, 131_064, 131_065, 262_128, 1_000_000] {
        rig.publish(client, channel, "q", &"x".repeat(len));
        assert_eq!(rig.bodies(client)[0].len(), len);
    }
}

#[test]
fn a_message_that_came_back_too_often_is_given_up() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(
        client,
        channel,
        &quorum("q", [("x-delivery-limit", 2.into())]),
    );
    rig.publish(client, channel, "q", "1");
    for count in 0..3_u64 {
        let message = rig.get(client, channel, "q").unwrap();
        let headers = message
            .content
            .properties
            .decode()
            .unwrap()
            .headers
            .unwrap();
        assert_eq!(
            headers.get("x-delivery-count").unwrap().as_i64(),
            Some(count as i64)
        );
        rig.nack(client, channel, tag(count + 1), true);
    }
    assert_eq!(rig.get(client, channel, "q"), None);
}

/// RabbitMQ 3.10 lets the next one wait for another message, which then overtakes.
#[test]
fn a_cancel_activates_the_next_single_active_consumer_at_once() {
    let (mut rig, client, channel) = Rig::open();
    let single = [("x-single-active-consumer", true.into())];
    rig.declare(client, channel, &queue_with("q", single));
    rig.qos(client, channel, 1, false);
    rig.consume(client, channel, consumer("q", "a")).unwrap();
    rig.publish(client, channel, "q", "1");
    rig.publish(client, channel, "q", "2");
    let other = rig.connect();
    let its = rig.channel(other);
    rig.consume(other, its, consumer("q", "b")).unwrap();
    assert_eq!(rig.bodies(client), ["1"]);
    rig.cancel(client, channel, "a");
    assert_eq!(rig.bodies(other), ["2"]);
}
