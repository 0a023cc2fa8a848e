//! Quorum queues, where they differ from classic ones.

use amqp_core::{
    client::Outcome,
    protocol::{Method, basic, basic::Properties, queue},
    wire::FieldValue,
};

use crate::rig::{
    Rig, consumer, delete, headers, name, queue_with, quorum, refused, table, tag, up_to,
};

/// The value of `x-delivery-count`: `Some` if the message has the header.
fn delivery_count(properties: Properties) -> Option<i64> {
    properties.headers?.get("x-delivery-count")?.as_i64()
}

#[test]
fn a_delivery_has_a_count_from_the_second_one() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    rig.qos(client, channel, 1, false);
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    let properties = headers([("z", 1.into()), ("a", 1.into())]);
    rig.publish_to(client, channel, "", "q", &properties, "x");
    let mut counts = Vec::new();
    for number in 1..=3 {
        let delivery = rig.deliveries(client).remove(0);
        let properties = delivery.content.properties.decode().unwrap();
        let table = properties.headers.clone().unwrap();
        let names: Vec<_> = table.iter().map(|(name, _)| name.to_string()).collect();
        if number > 1 {
            assert_eq!(names, ["a", "x-delivery-count", "z"], "in order");
        }
        counts.push((delivery.method.redelivered, delivery_count(properties)));
        rig.nack(client, channel, tag(number), true);
    }
    assert_eq!(counts, [(false, None), (true, Some(1)), (true, Some(2))]);
}

#[test]
fn a_fetched_message_always_has_a_count() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    rig.publish(client, channel, "q", "x");
    let message = rig.get(client, channel, "q").unwrap();
    let properties = message.content.properties.decode().unwrap();
    assert_eq!(delivery_count(properties), Some(0));
}

#[test]
fn the_order_of_requeued_messages_depends_on_the_limit_and_the_cause() {
    #[derive(Clone, Copy)]
    enum End {
        Nack,
        Recover,
        Close,
    }
    let unlimited = ["4", "5", "0", "1", "2", "3"];
    let limited = ["0", "1", "2", "3", "4", "5"];
    for (limit, end, expected) in [
        (None, End::Nack, unlimited),
        (None, End::Recover, unlimited),
        (None, End::Close, limited),
        (Some(5), End::Nack, limited),
        (Some(5), End::Recover, limited),
        (Some(5), End::Close, limited),
    ] {
        let (mut rig, client, channel) = Rig::open();
        let mut declare = quorum("q", []);
        if let Some(limit) = limit {
            declare.arguments.push(name("x-delivery-limit"), limit);
        }
        rig.declare(client, channel, &declare);
        for number in 0..6 {
            rig.publish(client, channel, "q", &number.to_string());
        }
        let taker = rig.connect();
        let taken = rig.channel(taker);
        rig.qos(taker, taken, 4, false);
        rig.consume(taker, taken, consumer("q", "c")).unwrap();
        rig.cancel(taker, taken, "c");
        match end {
            End::Nack => rig.nack(taker, taken, up_to(4), true),
            End::Recover => {
                let recover = basic::Recover { requeue: true };
                rig.call(taker, taken, &recover).unwrap();
            }
            End::Close => rig.close(taker),
        }
        assert_eq!(rig.drain(client, channel, "q"), expected);
    }
}

#[test]
fn a_delivery_limit_is_not_validated() {
    for (limit, fetched) in [
        (FieldValue::from("foo"), 4),
        (true.into(), 4),
        ((-1).into(), 1),
        (0.into(), 1),
        (1.into(), 2),
    ] {
        let (mut rig, client, channel) = Rig::open();
        rig.declare(client, channel, &quorum("q", [("x-delivery-limit", limit)]));
        rig.publish(client, channel, "q", "x");
        let mut count = 0;
        while count < 4
            && let Some(message) = rig.get(client, channel, "q")
        {
            count += 1;
            let delivery = message.tag.unwrap().get();
            rig.nack(client, channel, tag(delivery), true);
        }
        assert_eq!(count, fetched);
    }
}

/// The number of consumers counts cancelled ones with unacknowledged deliveries, and such deliveries
/// of `basic.get`.
#[test]
fn unacknowledged_deliveries_count_as_consumers() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    for body in ["1", "2", "3", "4"] {
        rig.publish(client, channel, "q", body);
    }
    rig.qos(client, channel, 1, false);
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    assert_eq!(rig.counts(client, channel, "q"), (3, 1));
    rig.cancel(client, channel, "c");
    assert_eq!(rig.counts(client, channel, "q"), (3, 1));
    for count in [2, 3] {
        rig.get(client, channel, "q").unwrap();
        assert_eq!(rig.counts(client, channel, "q").1, count);
    }
    rig.ack(client, channel, tag(1));
    assert_eq!(rig.counts(client, channel, "q"), (1, 2));
    rig.ack(client, channel, up_to(3));
    assert_eq!(rig.counts(client, channel, "q"), (1, 0));
}

#[test]
fn exclusive_consumers_share_the_queue() {
    let (mut rig, client, channel) = Rig::open();
    let single = ("x-single-active-consumer", true.into());
    rig.declare(client, channel, &quorum("q", []));
    rig.declare(client, channel, &quorum("single", [single]));
    for queue in ["q", "q", "single"] {
        let mut exclusive = consumer(queue, &format!("{}", rig.inspect("q").consumers.len()));
        exclusive.exclusive = true;
        rig.consume(client, channel, exclusive).unwrap();
    }
    assert_eq!(rig.counts(client, channel, "q"), (0, 2));
}

#[test]
fn the_single_active_consumer_is_the_oldest_regardless_of_priority() {
    let (mut rig, client, channel) = Rig::open();
    let single = ("x-single-active-consumer", true.into());
    rig.declare(client, channel, &quorum("q", [single]));
    for (text, priority) in [("a", 0), ("b", 0), ("c", 5)] {
        let mut prior = consumer("q", text);
        prior.arguments = table([("x-priority", priority.into())]);
        rig.consume(client, channel, prior).unwrap();
    }
    let mut served = Vec::new();
    for _ in 0..3 {
        rig.publish(client, channel, "q", "x");
        let (consumer, _) = rig.delivered(client).remove(0);
        rig.cancel(client, channel, &consumer);
        served.push(consumer);
    }
    assert_eq!(served, ["a", "b", "c"]);
    let text = "RESOURCE_LOCKED - cannot obtain access to locked queue 'q' in vhost '/'. \
                basic.get operations are not supported by quorum queues with single active consumer";
    assert_eq!(
        rig.try_get(client, channel, "q", false).err(),
        Some(refused(405, text))
    );
}

#[test]
fn arguments_of_other_consumers_are_refused() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    for (argument, value) in [
        ("x-cancel-on-ha-failover", FieldValue::from(true)),
        ("x-stream-offset", "first".into()),
    ] {
        let channel = rig.channel(client);
        let mut foreign = consumer("q", "c");
        foreign.arguments = table([(argument, value)]);
        let text = format!(
            "PRECONDITION_FAILED - invalid arg '{argument}' for queue 'q' in vhost '/' of queue \
             type rabbit_quorum_queue"
        );
        assert_eq!(
            rig.consume(client, channel, foreign),
            Err(refused(406, &text))
        );
    }
}

#[test]
fn a_deletion_has_no_conditions() {
    for (if_unused, if_empty, flag) in [
        (true, false, "if-unused"),
        (false, true, "if-empty"),
        (true, true, "if-unused"),
    ] {
        let (mut rig, client, channel) = Rig::open();
        rig.declare(client, channel, &quorum("q", []));
        let conditional = queue::Delete {
            if_unused,
            if_empty,
            ..delete("q")
        };
        let text = format!(
            "NOT_IMPLEMENTED - cannot delete queue 'q' in vhost '/'. queue.delete operations with \
             {flag} flag set are not supported by quorum queues"
        );
        assert_eq!(
            rig.call(client, channel, &conditional),
            Err(refused(540, &text))
        );
    }
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    rig.publish(client, channel, "q", "x");
    let deleted = queue::DeleteOk { message_count: 1 };
    assert_eq!(
        rig.call(client, channel, &delete("q")),
        Ok(Method::from(deleted))
    );
}

/// Publishes a message, and returns `A` if it is accepted, otherwise `N`.
fn attempt(rig: &mut Rig, client: usize, channel: amqp_core::ChannelId, body: &str) -> char {
    rig.publish(client, channel, "q", body);
    match rig.settled(client)[..] {
        [(_, _, Outcome::Acked)] => 'A',
        _ => 'N',
    }
}

#[test]
fn rejecting_begins_one_beyond_the_limit_and_ends_at_80_percent() {
    for (fetched, accepted) in [(1, "NNNN"), (2, "NNNN"), (3, "AAAN"), (4, "AAAA")] {
        let (mut rig, client, channel) = Rig::open();
        let arguments = [
            ("x-overflow", "reject-publish".into()),
            ("x-max-length", 10.into()),
        ];
        rig.declare(client, channel, &quorum("q", arguments));
        rig.confirms(client, channel);
        let first: String = (0..12)
            .map(|_| attempt(&mut rig, client, channel, "x"))
            .collect();
        assert_eq!(first, "AAAAAAAAAAAN");
        for _ in 0..fetched {
            rig.try_get(client, channel, "q", true).unwrap();
        }
        let then: String = (0..4)
            .map(|_| attempt(&mut rig, client, channel, "x"))
            .collect();
        assert_eq!(then, accepted);
    }
}

#[test]
fn rejecting_by_bytes_begins_beyond_the_limit() {
    let (mut rig, client, channel) = Rig::open();
    let arguments = [
        ("x-overflow", "reject-publish".into()),
        ("x-max-length-bytes", 10.into()),
    ];
    rig.declare(client, channel, &quorum("q", arguments));
    rig.confirms(client, channel);
    let outcomes: String = (0..5)
        .map(|_| attempt(&mut rig, client, channel, "1234"))
        .collect();
    assert_eq!(outcomes, "AAANN");
}

#[test]
fn rejecting_to_dead_letters_is_not_supported() {
    let (mut rig, client, channel) = Rig::open();
    let arguments = |kind: &str| {
        [
            ("x-overflow", "reject-publish-dlx".into()),
            ("x-max-length", 2.into()),
            ("x-queue-type", kind.into()),
        ]
    };
    let mut declare = queue_with("q", arguments("quorum"));
    declare.durable = true;
    rig.declare(client, channel, &declare);
    rig.confirms(client, channel);
    let outcomes: String = ["1", "2", "3"]
        .map(|body| attempt(&mut rig, client, channel, body))
        .into_iter()
        .collect();
    assert_eq!(outcomes, "AAA");
    assert_eq!(rig.drain(client, channel, "q"), ["2", "3"], "as drop-head");
}

#[test]
fn a_dead_letter_is_never_rejected() {
    let (mut rig, client, channel) = Rig::open();
    let full = [
        ("x-overflow", "reject-publish".into()),
        ("x-max-length", 0.into()),
    ];
    rig.declare(client, channel, &quorum("full", full));
    let source = [
        ("x-dead-letter-exchange", "".into()),
        ("x-dead-letter-routing-key", "full".into()),
        ("x-message-ttl", 0.into()),
    ];
    rig.declare(client, channel, &queue_with("q", source));
    for body in ["1", "2", "3"] {
        rig.publish(client, channel, "q", body);
    }
    assert_eq!(rig.drain(client, channel, "full"), ["1", "2", "3"]);
}

#[test]
fn a_consumer_without_a_limit_gets_2000_messages() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    for _ in 0..2001 {
        rig.publish(client, channel, "q", "x");
    }
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    assert_eq!(rig.deliveries(client).len(), 2000);
}

#[test]
fn a_requeued_message_is_delivered_before_it_takes_room() {
    let (mut rig, client, channel) = Rig::open();
    let full = ("x-max-length-bytes", 0.into());
    rig.declare(client, channel, &quorum("q", [full]));
    rig.consume(client, channel, consumer("q", "a")).unwrap();
    rig.publish(client, channel, "q", "x");
    let other = rig.connect();
    let taken = rig.channel(other);
    rig.consume(other, taken, consumer("q", "b")).unwrap();
    rig.close(client);
    assert_eq!(rig.bodies(other), ["x"]);
}
