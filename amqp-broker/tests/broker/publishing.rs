//! Publishing: confirms, returns, transactions, copies, direct replies.

use amqp_broker::Config;
use amqp_core::{
    Tags,
    client::{Checks, Outcome},
    protocol::{Method, basic, confirm, tx},
    wire::FieldValue,
};

use crate::rig::{Rig, bind, consumer, headers, name, passive, queue, queue_with, refused, tag};

fn text(value: &str) -> FieldValue {
    value.into()
}

fn list(values: &[&str]) -> FieldValue {
    let values: Vec<FieldValue> = values.iter().map(|value| text(value)).collect();
    values.into()
}

#[test]
fn publishes_are_confirmed() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.confirms(client, channel);
    rig.publish(client, channel, "q", "1");
    assert_eq!(rig.settled(client), [(1, 1, Outcome::Acked)]);
    // An unroutable message also counts.
    rig.publish(client, channel, "nowhere", "2");
    assert_eq!(rig.settled(client), [(2, 2, Outcome::Acked)]);
    assert_eq!(rig.inspect("q").ready, 1);
}

#[test]
fn publishes_that_come_together_are_confirmed_together() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let number = channel.number();
    let mut asked = crate::rig::frame(number, &confirm::Select::default().into());
    for _ in 0..5 {
        let publish = basic::Publish {
            routing_key: name("q"),
            ..basic::Publish::default()
        };
        asked.extend(crate::rig::frame(number, &publish.into()));
        asked.extend([
            2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xCE,
        ]);
    }
    let ack = basic::Ack {
        delivery_tag: 5,
        multiple: true,
    };
    let said = rig.ask_raw(client, &asked);
    assert_eq!(said, [Method::from(confirm::SelectOk), ack.into()]);
}

#[test]
fn an_unroutable_mandatory_message_comes_back_before_its_confirm() {
    let (mut rig, client, channel) = Rig::open();
    rig.confirms(client, channel);
    let properties = basic::Properties {
        content_type: Some(name("t")),
        ..basic::Properties::default()
    };
    rig.publish_as(
        client,
        channel,
        &Rig::mandatory("nope"),
        &properties,
        "back",
    );
    let returned = rig.returns(client);
    let [returned] = &returned[..] else {
        panic!("{returned:?}");
    };
    assert_eq!(returned.method.reply_code.0, 312);
    assert_eq!(returned.method.reply_text, "NO_ROUTE");
    assert_eq!(returned.method.routing_key, "nope");
    assert_eq!(returned.content.body, "back");
    assert_eq!(returned.content.properties.decode().unwrap(), properties);
    assert_eq!(returned.seq.unwrap().get(), 1);
    assert_eq!(rig.settled(client), [(1, 1, Outcome::Acked)]);
    rig.declare(client, channel, &queue("nope"));
    rig.publish_as(
        client,
        channel,
        &Rig::mandatory("nope"),
        &properties,
        "stays",
    );
    assert_eq!(rig.returns(client), []);
}

#[test]
fn a_missing_exchange_closes_the_channel() {
    let (mut rig, client, channel) = Rig::open();
    rig.confirms(client, channel);
    for _ in 0..2 {
        rig.publish_to(client, channel, "nope", "", &Default::default(), "");
        if rig
            .client(client)
            .channel(channel)
            .is_none_or(|channel| !channel.is_open())
        {
            break;
        }
    }
    let expected = refused(404, "NOT_FOUND - no exchange 'nope' in vhost '/'");
    assert_eq!(rig.channel_closed(client), Some(expected));
    assert!(rig.client(client).is_open());
    assert!(matches!(
        &rig.settled(client)[..],
        [(1, 1, Outcome::Unknown(_))]
    ));
}

#[test]
fn a_queue_without_room_makes_room_or_refuses() {
    let (mut rig, client, channel) = Rig::open();
    rig.confirms(client, channel);
    let limit = ("x-max-length", FieldValue::from(2));
    rig.declare(client, channel, &queue_with("drop", [limit.clone()]));
    let reject = ("x-overflow", text("reject-publish"));
    rig.declare(client, channel, &queue_with("reject", [limit, reject]));
    let bytes = ("x-max-length-bytes", FieldValue::from(5));
    rig.declare(client, channel, &queue_with("bytes", [bytes]));
    for number in 0..4 {
        rig.publish(client, channel, "drop", &number.to_string());
    }
    for body in ["11", "22", "33", "666666", "4444"] {
        rig.publish(client, channel, "bytes", body);
    }
    rig.settled(client);
    for number in 0..3 {
        rig.publish(client, channel, "reject", &number.to_string());
    }
    let fates: Vec<_> = rig
        .settled(client)
        .into_iter()
        .map(|(.., fate)| fate)
        .collect();
    assert_eq!(fates, [Outcome::Acked, Outcome::Acked, Outcome::Nacked]);
    assert_eq!(rig.drain(client, channel, "drop"), ["2", "3"]);
    assert_eq!(rig.drain(client, channel, "reject"), ["0", "1"]);
    assert_eq!(rig.drain(client, channel, "bytes"), ["4444"]);
}

#[test]
fn a_queue_refuses_messages_that_would_exceed_its_bytes() {
    let (mut rig, client, channel) = Rig::open();
    rig.confirms(client, channel);
    let limit = ("x-max-length-bytes", FieldValue::from(5));
    let reject = ("x-overflow", text("reject-publish"));
    rig.declare(client, channel, &queue_with("q", [limit, reject]));
    for (body, outcome) in [
        ("22", Outcome::Acked),
        ("4444", Outcome::Nacked),
        ("333", Outcome::Acked),
        ("1", Outcome::Nacked),
        ("", Outcome::Acked),
    ] {
        rig.publish(client, channel, "q", body);
        let settled = rig.settled(client);
        assert!(
            matches!(&settled[..], [(.., it)] if *it == outcome),
            "{body}: {settled:?}"
        );
    }
    assert_eq!(rig.drain(client, channel, "q"), ["22", "333", ""]);
}

#[test]
fn a_queue_of_length_zero_still_passes_on_to_waiting_consumers() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(
        client,
        channel,
        &queue_with("q", [("x-max-length", 0.into())]),
    );
    rig.publish(client, channel, "q", "1");
    assert_eq!(rig.inspect("q").ready, 0);
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.publish(client, channel, "q", "2");
    assert_eq!(rig.bodies(client), ["2"]);
}

#[test]
fn copies_go_where_the_headers_say_and_hidden_ones_are_hidden() {
    let (mut rig, client, channel) = Rig::open();
    for one in ["a", "b", "c"] {
        rig.declare(client, channel, &queue(one));
    }
    rig.call(client, channel, &bind("a", "amq.topic", "x.*"))
        .unwrap();
    let properties = headers([("CC", list(&["b"])), ("BCC", list(&["c"]))]);
    rig.publish_to(client, channel, "", "a", &properties, "1");
    for one in ["a", "b", "c"] {
        let message = rig.get(client, channel, one).unwrap();
        let headers = message
            .content
            .properties
            .decode()
            .unwrap()
            .headers
            .unwrap();
        assert!(headers.contains_key("CC") && !headers.contains_key("BCC"));
        assert_eq!(message.method.routing_key, "a");
    }
    let properties = headers([("CC", list(&["x.y"]))]);
    rig.publish_to(client, channel, "amq.topic", "", &properties, "2");
    assert_eq!(rig.drain(client, channel, "a"), ["2"]);
    // Keys may be longer than short strings.
    let long = format!("x.{}", "y".repeat(300));
    let properties = headers([("CC", list(&[&long]))]);
    rig.publish_to(client, channel, "amq.topic", "", &properties, "3");
    assert_eq!(rig.drain(client, channel, "a"), ["3"]);
    rig.call(client, channel, &bind("b", "amq.direct", ""))
        .unwrap();
    rig.publish_to(client, channel, "amq.direct", "k", &properties, "4");
    assert_eq!(rig.drain(client, channel, "b"), [""; 0]);
    rig.publish_to(client, channel, "", "a", &headers([("CC", text("b"))]), "5");
    let expected =
        "PRECONDITION_FAILED - invalid message: {unacceptable_type_in_header,\"CC\",longstr}";
    assert_eq!(rig.channel_closed(client), Some(refused(406, expected)));
}

#[test]
fn properties_that_cannot_be_are_406() {
    let (mut rig, client, _) = Rig::open();
    let expiring = |value| basic::Properties {
        expiration: Some(name(value)),
        ..basic::Properties::default()
    };
    let mut cases = vec![
        (
            basic::Properties {
                user_id: Some(name("bob")),
                ..basic::Properties::default()
            },
            "user_id property set to 'bob' but authenticated user was 'guest'".to_owned(),
        ),
        (
            basic::Properties {
                delivery_mode: Some(3),
                ..basic::Properties::default()
            },
            "invalid message: {delivery_mode_unknown,3}".to_owned(),
        ),
    ];
    for (value, problem) in [
        ("abc", "no_integer"),
        ("", "no_integer"),
        ("-1", "{value_negative,-1}"),
        ("1.5", "{leftover_string,\".5\"}"),
        ("315360000001", "{value_too_large,315360000001}"),
        ("+000315360000001", "{value_too_large,315360000001}"),
        (
            "9999999999999999999999999999999999999999999999",
            // Erlang breaks lines of more than 80 columns.
            "{value_too_large,\n                                                                      \
             9999999999999999999999999999999999999999999999}",
        ),
        (
            "0999999999999999999",
            "{value_too_large,999999999999999999}",
        ),
        (
            "-9999999999999999999",
            "{value_negative,\n                                            -9999999999999999999}",
        ),
    ] {
        cases.push((
            expiring(value),
            format!("invalid expiration '{value}': {problem}"),
        ));
    }
    for (properties, problem) in cases {
        let channel = rig.channel(client);
        rig.publish_to(client, channel, "", "q", &properties, "");
        let expected = format!("PRECONDITION_FAILED - {problem}");
        assert_eq!(rig.channel_closed(client), Some(refused(406, &expected)));
    }
    let channel = rig.channel(client);
    for value in ["0", "+5", "007", "315360000000"] {
        rig.publish_to(client, channel, "", "q", &expiring(value), "");
    }
    assert_eq!(rig.channel_closed(client), None);
}

#[test]
fn a_transaction_happens_at_its_commit() {
    let (mut rig, client, channel) = Rig::open();
    let properties = basic::Properties::default();
    rig.declare(client, channel, &queue("q"));
    rig.transaction(client, channel);
    rig.publish(client, channel, "q", "1");
    rig.publish_as(client, channel, &Rig::mandatory("nope"), &properties, "2");
    assert_eq!(rig.inspect("q").ready, 0);
    assert_eq!(rig.returns(client), []);
    rig.call(client, channel, &tx::Commit).unwrap();
    assert_eq!(rig.inspect("q").ready, 1);
    assert_eq!(rig.returns(client).len(), 1);

    // Acknowledgements wait as well, and a rollback takes them back.
    rig.get(client, channel, "q").unwrap();
    rig.ack(client, channel, tag(1));
    assert_eq!(rig.inspect("q").unacked, 1);
    rig.publish(client, channel, "q", "3");
    rig.call(client, channel, &tx::Rollback).unwrap();
    assert_eq!((rig.inspect("q").ready, rig.inspect("q").unacked), (0, 1));
    rig.nack(client, channel, Tags::All, true);
    rig.call(client, channel, &tx::Commit).unwrap();
    assert_eq!((rig.inspect("q").ready, rig.inspect("q").unacked), (1, 0));
}

#[test]
fn uncommitted_acknowledgements_are_undone_with_the_channel() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", "1");
    rig.transaction(client, channel);
    rig.get(client, channel, "q").unwrap();
    rig.ack(client, channel, tag(1));
    rig.publish(client, channel, "q", "2");
    // A tag is acknowledged once, also before the commit.
    let (delivery_tag, multiple) = (1, false);
    rig.inject(
        client,
        channel.number(),
        basic::Ack {
            delivery_tag,
            multiple,
        },
    );
    let expected = refused(406, "PRECONDITION_FAILED - unknown delivery tag 1");
    assert_eq!(rig.channel_closed(client), Some(expected));
    assert_eq!((rig.inspect("q").ready, rig.inspect("q").unacked), (1, 0));
}

#[test]
fn confirms_and_transactions_exclude_each_other() {
    let (mut rig, client, _) = Rig::open();
    let refusal = |text: &str| Some(refused(406, &format!("PRECONDITION_FAILED - {text}")));
    let channel = rig.channel(client);
    rig.confirms(client, channel);
    rig.inject(client, channel.number(), tx::Select);
    assert_eq!(
        rig.channel_closed(client),
        refusal("cannot switch from confirm to tx mode")
    );
    let channel = rig.channel(client);
    rig.transaction(client, channel);
    rig.inject(client, channel.number(), confirm::Select::default());
    assert_eq!(
        rig.channel_closed(client),
        refusal("cannot switch from tx to confirm mode")
    );
    for method in [Method::from(tx::Commit), tx::Rollback.into()] {
        let channel = rig.channel(client);
        rig.inject(client, channel.number(), method);
        assert_eq!(
            rig.channel_closed(client),
            refusal("channel is not transactional")
        );
    }
}

const REPLIES: &str = "amq.rabbitmq.reply-to";

fn question() -> basic::Properties {
    basic::Properties {
        reply_to: Some(name(REPLIES)),
        correlation_id: Some(name("5")),
        ..basic::Properties::default()
    }
}

#[test]
fn a_direct_reply_finds_the_requester() {
    let (mut rig, asker, channel) = Rig::open();
    let answerer = rig.connect();
    let other = rig.channel(answerer);
    rig.declare(answerer, other, &queue("rpc"));
    let mut replies = consumer(REPLIES, "r");
    replies.no_ack = true;
    rig.consume(asker, channel, replies).unwrap();
    rig.publish_to(asker, channel, "", "rpc", &question(), "question");
    let asked = rig.get(answerer, other, "rpc").unwrap();
    let asked = asked.content.properties.decode().unwrap();
    let address = asked.reply_to.unwrap();
    assert!(address.starts_with("amq.rabbitmq.reply-to."), "{address}");
    rig.call(answerer, other, &passive(&address)).unwrap();
    let properties = basic::Properties {
        correlation_id: asked.correlation_id,
        ..basic::Properties::default()
    };
    rig.publish_to(answerer, other, "", &address, &properties, "answer");
    let deliveries = rig.deliveries(asker);
    let [reply] = &deliveries[..] else {
        panic!("{deliveries:?}");
    };
    assert_eq!(reply.content.body, "answer");
    assert_eq!(reply.content.properties.decode().unwrap(), properties);
    assert_eq!(reply.method.routing_key, address);
    // The reply queue has no consumer.
    rig.cancel(asker, channel, "r");
    rig.publish_to(answerer, other, "", &address, &properties, "late");
    assert_eq!(rig.deliveries(asker), []);
    assert_eq!(
        rig.call(answerer, other, &passive(&address)).unwrap_err().0,
        404
    );
}

#[test]
fn direct_replies_have_their_rules() {
    let mut rig = Rig::new();
    let client = rig.begin(amqp_core::client::Config::default().checks(Checks::Standard));
    let refusal = |text: &str| refused(406, &format!("PRECONDITION_FAILED - {text}"));
    let replies = |no_ack| basic::Consume {
        no_ack,
        ..consumer(REPLIES, if no_ack { "a" } else { "b" })
    };
    let channel = rig.channel(client);
    rig.publish_to(client, channel, "", "q", &question(), "");
    assert_eq!(
        rig.channel_closed(client),
        Some(refusal("fast reply consumer does not exist"))
    );
    let channel = rig.channel(client);
    rig.inject(client, channel.number(), replies(false));
    assert_eq!(
        rig.channel_closed(client),
        Some(refusal("reply consumer cannot acknowledge"))
    );
    let channel = rig.channel(client);
    rig.consume(client, channel, replies(true)).unwrap();
    let mut again = replies(true);
    again.consumer_tag = name("c");
    rig.inject(client, channel.number(), again);
    assert_eq!(
        rig.channel_closed(client),
        Some(refusal("reply consumer already set"))
    );
}

#[test]
fn a_round_of_all_that_matters() {
    let mut rig = Rig::with(Config::default());
    let publisher = rig.connect();
    let worker = rig.connect();
    let (out, work) = (rig.channel(publisher), rig.channel(worker));
    let mut declare = queue("tasks");
    declare.durable = true;
    rig.declare(publisher, out, &declare);
    rig.confirms(publisher, out);
    rig.qos(worker, work, 1, false);
    rig.consume(worker, work, consumer("tasks", "w")).unwrap();
    for number in 0..3 {
        rig.publish(publisher, out, "tasks", &number.to_string());
    }
    for number in 0..3_u64 {
        assert_eq!(rig.bodies(worker), [number.to_string()]);
        rig.ack(worker, work, tag(number + 1));
    }
    assert_eq!(rig.settled(publisher).len(), 3);
    rig.cancel(worker, work, "w");
    rig.close(worker);
    rig.close(publisher);
}
