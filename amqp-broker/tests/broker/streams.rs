//! Streams: declaring, appending, reading from a position, and retention.

use amqp_broker::Config;
use amqp_core::{
    ChannelId,
    client::Delivery,
    protocol::{Method, basic, basic::Properties, queue},
    wire::{FieldArray, FieldTable, FieldValue, Timestamp},
};

use crate::rig::{
    Refused, Rig, bind, consumer, delete, headers, name, passive, queue_with, refused, table, tag,
    up_to,
};

pub(crate) fn stream<const N: usize>(
    text: &str,
    arguments: [(&str, FieldValue); N],
) -> queue::Declare {
    let mut declare = queue_with(text, arguments);
    declare.durable = true;
    declare.arguments.push(name("x-queue-type"), "stream");
    declare
}

pub(crate) fn reader(queue: &str, tag: &str, from: impl Into<FieldValue>) -> basic::Consume {
    basic::Consume {
        arguments: table([("x-stream-offset", from.into())]),
        ..consumer(queue, tag)
    }
}

/// A broker with an empty stream `s`, and a channel with a prefetch.
fn open() -> (Rig, usize, ChannelId) {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &stream("s", []));
    rig.qos(client, channel, 100, false);
    (rig, client, channel)
}

/// As `open`, with messages `0` to `count - 1`.
fn filled(count: u32) -> (Rig, usize, ChannelId) {
    let (mut rig, client, channel) = open();
    publish(&mut rig, client, channel, 0..count);
    (rig, client, channel)
}

fn publish(rig: &mut Rig, client: usize, channel: ChannelId, bodies: std::ops::Range<u32>) {
    for body in bodies {
        rig.publish(client, channel, "s", &body.to_string());
    }
}

fn offset(delivery: &Delivery) -> i64 {
    let properties = delivery.content.properties.decode().unwrap();
    let headers = properties.headers.unwrap();
    headers.get("x-stream-offset").unwrap().as_i64().unwrap()
}

pub(crate) fn offsets(rig: &mut Rig, client: usize) -> Vec<i64> {
    rig.deliveries(client).iter().map(offset).collect()
}

/// The offsets that a reader gets that starts there.
pub(crate) fn read_from(rig: &mut Rig, client: usize, from: impl Into<FieldValue>) -> Vec<i64> {
    let channel = rig.channel(client);
    rig.qos(client, channel, 1000, false);
    rig.consume(client, channel, reader("s", "from", from))
        .unwrap();
    let read = offsets(rig, client);
    rig.cancel(client, channel, "from");
    read
}

fn precondition(text: &str) -> Refused {
    refused(406, &format!("PRECONDITION_FAILED - {text}"))
}

#[test]
fn a_stream_is_durable_and_shared() {
    let (mut rig, client, _) = Rig::open();
    let wrong = |property: &str| {
        precondition(&format!(
            "invalid property '{property}' for queue 's' in vhost '/'"
        ))
    };
    let mut declare = stream("s", []);
    declare.durable = false;
    assert_eq!(rig.try_call(client, &declare), Err(wrong("non-durable")));
    declare.exclusive = true;
    assert_eq!(
        rig.try_call(client, &declare),
        Err(wrong("exclusive-owner"))
    );
    declare.auto_delete = true;
    assert_eq!(rig.try_call(client, &declare), Err(wrong("auto-delete")));
    assert_eq!(
        rig.try_call(client, &stream("", [])),
        Err(precondition(
            "Cannot declare a server-named queue for type rabbit_stream_queue"
        ))
    );
}

#[test]
fn a_stream_refuses_the_arguments_of_other_queues() {
    let (mut rig, client, _) = Rig::open();
    let values: [(&str, FieldValue); 6] = [
        ("x-expires", 10.into()),
        ("x-message-ttl", "wrong, but not read".into()),
        ("x-max-length", 10.into()),
        ("x-dead-letter-exchange", "e".into()),
        ("x-single-active-consumer", true.into()),
        ("x-delivery-limit", 1.into()),
    ];
    for (argument, value) in values {
        assert_eq!(
            rig.try_call(client, &stream("s", [(argument, value)])),
            Err(precondition(&format!(
                "invalid arg '{argument}' for queue 's' in vhost '/' of queue type \
                 rabbit_stream_queue"
            )))
        );
    }
}

#[test]
fn the_arguments_of_a_stream_are_validated() {
    let (mut rig, client, _) = Rig::open();
    let wrong: [(&str, FieldValue, &str); 9] = [
        ("x-max-length-bytes", (-1).into(), "{value_negative,-1}"),
        (
            "x-max-length-bytes",
            "a".into(),
            "\"expected integer, got longstr\"",
        ),
        ("x-max-age", 5.into(), "{unacceptable_type,signedint}"),
        ("x-max-age", "5".into(), "invalid_max_age"),
        ("x-max-age", "0s".into(), "invalid_max_age"),
        ("x-max-age", "5x".into(), "invalid_max_age"),
        ("x-initial-cluster-size", 0.into(), "{value_zero,0}"),
        (
            "x-queue-leader-locator",
            "foo".into(),
            "invalid_queue_locator_arg",
        ),
        (
            "x-queue-leader-locator",
            1.into(),
            "{unacceptable_type,signedint}",
        ),
    ];
    for (argument, value, problem) in wrong {
        assert_eq!(
            rig.try_call(client, &stream("s", [(argument, value)])),
            Err(precondition(&format!(
                "invalid arg '{argument}' for queue 's' in vhost '/': {problem}"
            )))
        );
    }
    let large = ("x-stream-max-segment-size-bytes", 3_000_000_001_i64.into());
    assert_eq!(
        rig.try_call(client, &stream("s", [large])),
        Err(precondition(
            "Exceeded max value for x-stream-max-segment-size-bytes"
        ))
    );
    let valid = [
        ("x-max-age", "7D".into()),
        ("x-max-length-bytes", 0.into()),
        ("x-stream-max-segment-size-bytes", 0.into()),
        ("x-initial-cluster-size", 3.into()),
        ("x-queue-leader-locator", "balanced".into()),
    ];
    rig.try_call(client, &stream("s", valid)).unwrap();
}

#[test]
fn an_age_without_a_number_closes_the_connection() {
    let (mut rig, client, _) = Rig::open();
    assert_eq!(
        rig.try_call(client, &stream("s", [("x-max-age", "foo".into())])),
        Err(refused(541, "INTERNAL_ERROR"))
    );
}

#[test]
fn a_redeclaration_has_the_arguments_of_the_stream() {
    let (mut rig, client, _) = open();
    rig.try_call(client, &stream("s", [])).unwrap();
    // Of another type, and ignored.
    rig.try_call(client, &stream("s", [("x-expires", 5.into())]))
        .unwrap();
    assert_eq!(
        rig.try_call(client, &stream("s", [("x-max-age", "5h".into())])),
        Err(precondition(
            "inequivalent arg 'x-max-age' for queue 's' in vhost '/': received the value '5h' of \
             type 'longstr' but current is none"
        ))
    );
    assert_eq!(
        rig.try_call(client, &queue_with("s", [])),
        Err(precondition(
            "inequivalent arg 'x-queue-type' for queue 's' in vhost '/': received none but \
             current is the value 'stream' of type 'longstr'"
        ))
    );
}

#[test]
fn a_reader_starts_where_its_argument_says() {
    let (mut rig, client, _) = filled(5);
    assert_eq!(read_from(&mut rig, client, "first"), [0, 1, 2, 3, 4]);
    assert_eq!(read_from(&mut rig, client, "last"), [4]);
    assert!(read_from(&mut rig, client, "next").is_empty());
    assert_eq!(read_from(&mut rig, client, 3), [3, 4]);
    assert_eq!(read_from(&mut rig, client, -1), [0, 1, 2, 3, 4]);
    assert!(read_from(&mut rig, client, 5).is_empty());
    assert!(read_from(&mut rig, client, 100).is_empty());
}

#[test]
fn a_reader_starts_at_a_time() {
    let mut rig = Rig::with(Config::default().epoch(1000));
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &stream("s", []));
    // At 1100, 1110 and 1120 seconds.
    for body in 0..3 {
        publish(&mut rig, client, channel, body..body + 1);
        rig.advance(10_000);
    }
    let at = |seconds| FieldValue::from(Timestamp(seconds));
    assert_eq!(read_from(&mut rig, client, at(0)), [0, 1, 2]);
    assert_eq!(read_from(&mut rig, client, at(1100)), [0, 1, 2]);
    assert_eq!(read_from(&mut rig, client, at(1101)), [1, 2]);
    assert_eq!(read_from(&mut rig, client, at(1120)), [2]);
    assert!(read_from(&mut rig, client, at(1121)).is_empty());
    assert_eq!(read_from(&mut rig, client, "1h"), [0, 1, 2]);
    assert_eq!(read_from(&mut rig, client, "20s"), [1, 2]);
    assert_eq!(read_from(&mut rig, client, "15s"), [2]);
}

#[test]
fn a_reader_on_an_empty_stream_gets_what_comes() {
    let (mut rig, client, channel) = open();
    for (tag, from) in [("first", "first"), ("last", "last"), ("interval", "1h")] {
        rig.consume(client, channel, reader("s", tag, from))
            .unwrap();
    }
    // Without the argument at the next message.
    rig.consume(client, channel, consumer("s", "none")).unwrap();
    rig.consume(client, channel, reader("s", "later", 2))
        .unwrap();
    publish(&mut rig, client, channel, 0..3);
    let mut read = rig.delivered(client);
    read.sort();
    let all = ["first", "interval", "last", "none"];
    let all = all.map(|tag| ["0", "1", "2"].map(|body| (tag.to_owned(), body.to_owned())));
    let mut expected = all.concat();
    expected.push(("later".into(), "2".into()));
    expected.sort();
    assert_eq!(read, expected);
}

#[test]
fn a_wrong_offset_is_refused() {
    let (mut rig, client, _) = filled(1);
    let invalid = |text: &str| {
        precondition(&format!(
            "invalid arg 'x-stream-offset' for queue 's' in vhost '/': \
             {{invalid_stream_offset_arg,{{longstr,<<\"{text}\">>}}}}"
        ))
    };
    for text in ["5x", "0s", "5"] {
        let channel = rig.channel(client);
        assert_eq!(
            rig.consume(client, channel, reader("s", "c", text)),
            Err(invalid(text))
        );
    }
    let crashes: [FieldValue; 4] = [
        "foo".into(),
        true.into(),
        FieldValue::Void,
        FieldTable::new().into(),
    ];
    for value in crashes {
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.qos(client, channel, 1, false);
        assert_eq!(
            rig.consume(client, channel, reader("s", "c", value)),
            Err(refused(541, "INTERNAL_ERROR"))
        );
    }
}

#[test]
fn other_queues_have_no_offsets_and_streams_no_priorities() {
    let (mut rig, client, channel) = open();
    rig.declare(client, channel, &queue_with("q", []));
    let unsupported = |argument: &str, queue: &str, kind: &str| {
        precondition(&format!(
            "invalid arg '{argument}' for queue '{queue}' in vhost '/' of queue type \
             rabbit_{kind}_queue"
        ))
    };
    assert_eq!(
        rig.consume(client, channel, reader("q", "c", "first")),
        Err(unsupported("x-stream-offset", "q", "classic"))
    );
    let channel = rig.channel(client);
    let mut prior = consumer("s", "c");
    prior.arguments = table([("x-priority", 1.into())]);
    assert_eq!(
        rig.consume(client, channel, prior),
        Err(unsupported("x-priority", "s", "stream"))
    );
}

#[test]
fn a_reader_needs_a_prefetch_and_acknowledges() {
    let (mut rig, client, _) = filled(1);
    let channel = rig.channel(client);
    assert_eq!(
        rig.consume(client, channel, reader("s", "c", "first")),
        Err(precondition(
            "consumer prefetch count is not set for 'queue 's' in vhost '/''"
        ))
    );
    let channel = rig.channel(client);
    rig.qos(client, channel, 1, false);
    rig.qos(client, channel, 1, true);
    assert_eq!(
        rig.consume(client, channel, reader("s", "c", "first")),
        Err(refused(
            540,
            "NOT_IMPLEMENTED - queue 's' in vhost '/' does not support global qos"
        ))
    );
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.qos(client, channel, 1, false);
    let mut automatic = reader("s", "c", "first");
    automatic.no_ack = true;
    assert_eq!(
        rig.consume(client, channel, automatic),
        Err(refused(
            540,
            "NOT_IMPLEMENTED - automatic acknowledgement not supported by stream queues queue 's' \
             in vhost '/'"
        ))
    );
}

#[test]
fn requests_that_take_messages_are_refused() {
    let unsupported = |request: &str| {
        Some(refused(
            540,
            &format!(
                "NOT_IMPLEMENTED - {request} not supported by stream queues queue 's' in vhost '/'"
            ),
        ))
    };
    let (mut rig, client, channel) = filled(1);
    assert_eq!(
        rig.try_get(client, channel, "s", false).err(),
        unsupported("basic.get")
    );
    let client = rig.connect();
    let purge = queue::Purge {
        queue: name("s"),
        no_wait: false,
    };
    assert_eq!(
        rig.try_call(client, &purge).err(),
        unsupported("queue.purge")
    );
    for requeue in [true, false] {
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.qos(client, channel, 1, false);
        rig.consume(client, channel, reader("s", "c", "first"))
            .unwrap();
        rig.nack(client, channel, tag(1), requeue);
        assert_eq!(
            rig.closed(client),
            unsupported("basic.nack and basic.reject")
        );
    }
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.qos(client, channel, 1, false);
    rig.consume(client, channel, reader("s", "c", "first"))
        .unwrap();
    let recover = basic::Recover { requeue: true };
    assert_eq!(
        rig.call(client, channel, &recover),
        Err(refused(541, "INTERNAL_ERROR"))
    );
}

#[test]
fn acknowledgements_give_credit_and_remove_nothing() {
    let (mut rig, client, _) = filled(5);
    let channel = rig.channel(client);
    rig.qos(client, channel, 2, false);
    rig.consume(client, channel, reader("s", "c", "first"))
        .unwrap();
    assert_eq!(offsets(&mut rig, client), [0, 1]);
    rig.ack(client, channel, up_to(2));
    assert_eq!(offsets(&mut rig, client), [2, 3]);
    rig.ack(client, channel, tag(3));
    assert_eq!(offsets(&mut rig, client), [4]);
    rig.ack(client, channel, tag(4));
    rig.ack(client, channel, tag(5));
    assert_eq!(rig.inspect("s").ready, 5);
    assert_eq!(rig.inspect("s").unacked, 0);
    publish(&mut rig, client, channel, 5..9);
    assert_eq!(offsets(&mut rig, client), [5, 6]);
}

#[test]
fn a_delivery_is_no_redelivery_and_goes_to_each_reader() {
    let (mut rig, client, _) = filled(2);
    let one = rig.channel(client);
    rig.qos(client, one, 10, false);
    let mut exclusive = reader("s", "a", "first");
    exclusive.exclusive = true;
    rig.consume(client, one, exclusive).unwrap();
    rig.consume(client, one, reader("s", "b", "last")).unwrap();
    let delivered = rig.deliveries(client);
    assert!(delivered.iter().all(|one| !one.method.redelivered));
    let read: Vec<_> = delivered
        .iter()
        .map(|one| (one.method.consumer_tag.to_string(), offset(one)))
        .collect();
    assert_eq!(
        read,
        [("a".into(), 0), ("a".into(), 1), ("b".into(), 1)],
        "each at its own offset"
    );
    // The end of a channel requeues nothing.
    rig.close(client);
    let client = rig.connect();
    assert_eq!(read_from(&mut rig, client, "first"), [0, 1]);
}

#[test]
fn a_limit_of_the_channel_does_not_concern_readers() {
    let (mut rig, client, _) = filled(5);
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue_with("q", []));
    rig.qos(client, channel, 3, false);
    rig.consume(client, channel, reader("s", "s", "first"))
        .unwrap();
    rig.qos(client, channel, 1, true);
    rig.consume(client, channel, consumer("q", "q")).unwrap();
    assert_eq!(rig.delivered(client).len(), 3);
    rig.publish(client, channel, "q", "a");
    assert_eq!(rig.bodies(client), ["a"]);
    rig.ack(client, channel, tag(1));
    assert_eq!(rig.bodies(client), ["3"]);
}

#[test]
fn the_properties_survive_but_for_nested_headers() {
    let (mut rig, client, channel) = open();
    let mut properties = headers([
        ("number", 7.into()),
        ("table", FieldTable::new().into()),
        ("array", FieldArray::from(Vec::<FieldValue>::new()).into()),
    ]);
    properties.content_type = Some(name("text/plain"));
    properties.expiration = Some(name("1"));
    properties.priority = Some(3);
    properties.reserved = Some(name("cluster"));
    rig.publish_to(client, channel, "", "s", &properties, "x");
    rig.advance(1000);
    rig.consume(client, channel, reader("s", "c", "first"))
        .unwrap();
    let delivery = rig.deliveries(client).remove(0);
    let received = delivery.content.properties.decode().unwrap();
    let kept = Properties {
        headers: Some(table([
            ("number", 7.into()),
            ("x-stream-offset", FieldValue::I64(0)),
        ])),
        content_type: properties.content_type,
        expiration: properties.expiration,
        priority: properties.priority,
        ..Properties::default()
    };
    assert_eq!(received, kept);
}

#[test]
fn every_exchange_appends_and_confirms() {
    let (mut rig, client, channel) = open();
    rig.confirms(client, channel);
    for exchange in ["amq.direct", "amq.topic", "amq.fanout"] {
        rig.call(client, channel, &bind("s", exchange, "k"))
            .unwrap();
        rig.publish_to(client, channel, exchange, "k", &Properties::default(), "x");
    }
    assert_eq!(rig.settled(client).len(), 3);
    rig.consume(client, channel, reader("s", "c", "first"))
        .unwrap();
    let exchanges = rig.deliveries(client).into_iter();
    let exchanges: Vec<_> = exchanges
        .map(|one| (one.method.exchange, one.method.routing_key))
        .collect();
    let expected = ["amq.direct", "amq.topic", "amq.fanout"].map(|from| (name(from), name("k")));
    assert_eq!(exchanges, expected);
}

#[test]
fn a_dead_letter_does_not_reach_a_stream() {
    let (mut rig, client, channel) = open();
    let target = [
        ("x-dead-letter-exchange", "".into()),
        ("x-dead-letter-routing-key", "s".into()),
        ("x-message-ttl", 1.into()),
    ];
    rig.declare(client, channel, &queue_with("q", target));
    rig.publish(client, channel, "q", "x");
    rig.advance(10);
    assert_eq!(rig.inspect("q").ready, 0);
    assert_eq!(rig.inspect("s").ready, 0);
}

#[test]
fn a_transaction_appends_at_its_commit_and_refuses_rejections() {
    let (mut rig, client, channel) = open();
    rig.transaction(client, channel);
    publish(&mut rig, client, channel, 0..2);
    assert_eq!(rig.inspect("s").ready, 0);
    rig.call(client, channel, &amqp_core::protocol::tx::Commit)
        .unwrap();
    assert_eq!(rig.inspect("s").ready, 2);
    rig.consume(client, channel, reader("s", "c", "first"))
        .unwrap();
    rig.nack(client, channel, tag(1), true);
    assert_eq!(rig.closed(client), None);
    let committed = rig.call(client, channel, &amqp_core::protocol::tx::Commit);
    assert_eq!(committed.unwrap_err().0, 540);
}

#[test]
fn a_declaration_counts_messages_and_no_consumers() {
    let (mut rig, client, channel) = filled(3);
    rig.consume(client, channel, consumer("s", "c")).unwrap();
    assert_eq!(rig.counts(client, channel, "s"), (3, 0));
    let consumers = rig.inspect("s").consumers;
    assert_eq!(consumers.len(), 1);
    assert_eq!(consumers[0].next_offset, Some(3));
}

#[test]
fn a_stream_is_deleted_regardless_of_conditions() {
    let (mut rig, client, channel) = filled(3);
    rig.consume(client, channel, reader("s", "c", "first"))
        .unwrap();
    let mut conditional = delete("s");
    conditional.if_empty = true;
    conditional.if_unused = true;
    let deleted = queue::DeleteOk { message_count: 0 };
    assert_eq!(
        rig.call(client, channel, &conditional),
        Ok(Method::from(deleted))
    );
    assert!(!rig.has_queue("s"));
    // Acknowledging is still no mistake.
    rig.ack(client, channel, up_to(3));
    assert!(rig.try_call(client, &passive("s")).is_err());
    assert_eq!(rig.closed(client), None);
    assert_eq!(rig.broker.inspect().memory, 0);
}

#[test]
fn the_messages_of_a_stream_are_counted_and_can_be_peeked_at() {
    let (mut rig, client, channel) = filled(3);
    rig.consume(client, channel, reader("s", "c", "first"))
        .unwrap();
    assert_eq!(offsets(&mut rig, client), [0, 1, 2]);
    let peeked = rig.broker.peek("/", "s", 2, 100).unwrap();
    let bodies: Vec<&[u8]> = peeked.iter().map(|it| &it.body[..]).collect();
    assert_eq!(bodies, [b"0", b"1"]);
    assert_eq!(rig.broker.list_queues(None, 1)[0].ready, 3);
    let messages = rig.inspect("s").messages;
    assert_eq!((messages.published, messages.delivered), (3, 3));
}
