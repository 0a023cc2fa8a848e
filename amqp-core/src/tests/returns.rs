//! Messages that no queue took, and which publish each of them was.

use alloc::{format, string::String, vec, vec::Vec};

use proptest::{collection::vec as list, prelude::*};

use super::script::*;
use crate::{
    ChannelId, PublishSeq,
    client::{Connection, Event, Outcome, Returned},
    protocol::{Method, ReplyCode, basic, channel, confirm},
    wire::FieldTable,
};

type Client = Script<Connection>;

fn mandatory(key: &str) -> basic::Publish {
    basic::Publish {
        exchange: name("ex"),
        routing_key: name(key),
        mandatory: true,
        immediate: false,
    }
}

fn no_route(key: &str) -> basic::Return {
    basic::Return {
        reply_code: ReplyCode::NO_ROUTE,
        reply_text: name("NO_ROUTE"),
        exchange: name("ex"),
        routing_key: name(key),
    }
}

fn with_id(id: &str) -> basic::Properties {
    basic::Properties::default().message_id(id)
}

/// Publishes a mandatory message.
fn put(
    client: &mut Client,
    id: ChannelId,
    key: &str,
    properties: &basic::Properties,
    body: &'static str,
) -> u64 {
    let seq = client.on(id).publish(&mandatory(key), properties, body);
    client.bytes();
    seq.unwrap().unwrap().get()
}

/// The server returns a message; which publish it is taken for.
fn come_back(
    client: &mut Client,
    key: &str,
    properties: &basic::Properties,
    body: &str,
) -> Option<u64> {
    client.send_content(1, &no_route(key), properties, body.as_bytes());
    let Event::Returned(returned) = client.only_event() else {
        panic!("nothing came back");
    };
    assert_eq!(returned.content.body, *body.as_bytes());
    assert_eq!(returned.content.properties.decode().unwrap(), *properties);
    assert_eq!(returned.method, no_route(key));
    returned.seq.map(PublishSeq::get)
}

fn confirming() -> (Client, ChannelId) {
    let mut client = Client::open();
    let id = client.confirm_channel();
    (client, id)
}

#[test]
fn a_return_comes_before_its_confirm_and_hurts_nothing() {
    let (mut client, id) = confirming();
    client.consumer(id, "t", true);
    let properties = with_id("123456");
    assert_eq!(put(&mut client, id, "nowhere", &properties, "body"), 1);
    let get = client.on(id).get(&basic::Get::default()).unwrap();
    client.bytes();
    client.send_content(1, &no_route("nowhere"), &properties, b"body");
    client.send(1, &ack(1, false));
    client.deliver(id, "t", 1);
    let got = basic::GetOk::default().delivery_tag(2);
    client.send_content(1, &got, &properties, b"got");
    let events = client.events();
    let [
        Event::Returned(Returned {
            channel,
            seq: returned,
            candidates: _,
            method,
            content,
        }),
        confirm,
        Event::Delivered(delivery),
        Event::Got { request, .. },
    ] = &events[..]
    else {
        panic!("{events:?}");
    };
    assert_eq!((*channel, *returned), (id, Some(seq(1))));
    assert_eq!(method.reply_code, ReplyCode::NO_ROUTE);
    assert_eq!(content.body, b"body");
    assert_eq!(content.properties.decode().unwrap(), properties);
    assert_eq!(*confirm, settled(id, 1, 1, Outcome::Acked));
    assert_eq!(delivery.content.body, b"body");
    assert_eq!(*request, get);
    assert!(client.on(id).is_open());
}

#[test]
fn returns_and_confirms_are_not_adjacent() {
    // Note 21, and lapin's defect 2.
    let (mut client, id) = confirming();
    let none = basic::Properties::default();
    for (number, key) in (1..).zip(["a", "lost", "b", "gone", "c", "lost"]) {
        assert_eq!(put(&mut client, id, key, &none, "x"), number);
    }
    assert_eq!(come_back(&mut client, "lost", &none, "x"), Some(2));
    client.send(1, &ack(1, false));
    assert_eq!(client.only_event(), settled(id, 1, 1, Outcome::Acked));
    assert_eq!(come_back(&mut client, "gone", &none, "x"), Some(4));
    client.send(1, &ack(5, false));
    client.send(1, &ack(4, true));
    assert_eq!(
        client.events(),
        [
            settled(id, 5, 5, Outcome::Acked),
            settled(id, 2, 4, Outcome::Acked)
        ]
    );
    assert_eq!(come_back(&mut client, "lost", &none, "x"), Some(6));
    client.send(1, &ack(6, true));
    assert_eq!(client.only_event(), settled(id, 6, 6, Outcome::Acked));
}

/// Once a server has added headers, a message with them may be one that was published without.
#[test]
fn added_headers_are_expected_from_then_on() {
    let (mut client, id) = confirming();
    let none = basic::Properties::default();
    let added = FieldTable::new().with("added", 1);
    let added = basic::Properties::default().headers(added);
    assert_eq!(put(&mut client, id, "k", &none, "x"), 1);
    assert_eq!(come_back(&mut client, "k", &added, "x"), Some(1));
    put(&mut client, id, "k", &none, "x");
    put(&mut client, id, "k", &added, "x");
    assert_eq!(come_back(&mut client, "k", &added, "x"), None);
}

#[test]
fn messages_to_one_address_differ_by_their_contents() {
    let (mut client, id) = confirming();
    let (a, b) = (with_id("a"), with_id("b"));
    put(&mut client, id, "k", &a, "xx");
    put(&mut client, id, "k", &b, "xx");
    put(&mut client, id, "k", &b, "xxx");
    put(&mut client, id, "k", &a, "xxx");
    put(&mut client, id, "l", &a, "xxx");
    // The first and the third found a queue.
    assert_eq!(come_back(&mut client, "k", &b, "xx"), Some(2));
    assert_eq!(come_back(&mut client, "k", &a, "xxx"), Some(4));
    assert_eq!(come_back(&mut client, "l", &a, "xxx"), Some(5));
}

#[test]
fn messages_that_are_alike_come_back_in_their_order() {
    let (mut client, id) = confirming();
    let none = basic::Properties::default();
    for _ in 0..4 {
        put(&mut client, id, "k", &none, "x");
    }
    for number in 1..=4 {
        assert_eq!(come_back(&mut client, "k", &none, "x"), Some(number));
    }
    assert_eq!(come_back(&mut client, "k", &none, "x"), None);
}

#[test]
fn a_return_is_not_that_of_a_publish_that_was_confirmed_without_one() {
    let (mut client, id) = confirming();
    let none = basic::Properties::default();
    // The first is not confirmed for long, so that all others are kept.
    client.publish(id, b"slow");
    assert_eq!(put(&mut client, id, "k", &none, "x"), 2);
    assert_eq!(put(&mut client, id, "k", &none, "x"), 3);
    // A return comes before its confirm, so that the second cannot come back any more.
    client.send(1, &ack(2, false));
    client.events();
    assert_eq!(come_back(&mut client, "k", &none, "x"), Some(3));

    let (mut client, id) = confirming();
    for _ in 0..3 {
        put(&mut client, id, "k", &none, "x");
    }
    client.send(1, &ack(2, true));
    client.events();
    assert_eq!(come_back(&mut client, "k", &none, "x"), Some(3));
}

#[test]
fn properties_that_the_server_changed_do_not_hide_a_publish() {
    let (mut client, id) = confirming();
    let headers = |bcc: bool| {
        let mut headers = FieldTable::new().with("n", 1);
        if bcc {
            headers.push(name("BCC"), vec!["elsewhere".into()]);
        }
        basic::Properties::default().headers(headers)
    };
    put(&mut client, id, "other", &headers(true), "body");
    put(
        &mut client,
        id,
        "k",
        &headers(true),
        "body of another length",
    );
    put(&mut client, id, "k", &headers(true), "body");
    // RabbitMQ removes the header before it routes.
    assert_eq!(
        come_back(&mut client, "k", &headers(false), "body"),
        Some(3)
    );
    put(&mut client, id, "k", &headers(true), "body");
    put(&mut client, id, "k", &headers(true), "body");
    assert_eq!(
        come_back(&mut client, "k", &headers(false), "body"),
        Some(4)
    );
    assert_eq!(
        come_back(&mut client, "k", &headers(false), "body"),
        Some(5)
    );
}

#[test]
fn ambiguous_returns_are_not_guessed() {
    let (mut client, id) = confirming();
    let none = basic::Properties::default();
    // Not mandatory, another address, another length, another channel.
    client.publish(id, b"x");
    put(&mut client, id, "k", &none, "x");
    let other = client.confirm_channel();
    client
        .on(other)
        .publish(&mandatory("elsewhere"), &none, "x")
        .unwrap();
    client.bytes();
    let elsewhere = basic::Return {
        exchange: name(""),
        ..no_route("queue")
    };
    client.send_content(1, &elsewhere, &none, b"x");
    assert!(matches!(
        client.only_event(),
        Event::Returned(Returned { seq: None, .. })
    ));
    assert_eq!(come_back(&mut client, "elsewhere", &none, "x"), None);
    assert_eq!(come_back(&mut client, "k", &none, "xx"), None);
    assert_eq!(come_back(&mut client, "k", &none, "x"), Some(2));
}

#[test]
fn without_confirms_a_return_has_no_number() {
    let mut client = Client::open();
    let plain = client.channel();
    let none = basic::Properties::default();
    client
        .on(plain)
        .publish(&mandatory("k"), &none, "x")
        .unwrap();
    client.bytes();
    assert_eq!(come_back(&mut client, "k", &none, "x"), None);
    // Nor one that was published before confirm mode.
    client.call(plain, &confirm::Select::default(), &confirm::SelectOk);
    assert_eq!(come_back(&mut client, "k", &none, "x"), None);
}

#[test]
fn a_large_message_comes_back_whole() {
    let (mut client, id) = confirming();
    let body: &'static str = String::from_utf8(vec![b'x'; 50_000]).unwrap().leak();
    let properties = with_id("large");
    put(&mut client, id, "k", &properties, body);
    assert_eq!(come_back(&mut client, "k", &properties, body), Some(1));
    // Empty ones, too.
    put(&mut client, id, "k", &properties, "");
    assert_eq!(come_back(&mut client, "k", &properties, ""), Some(2));
}

#[test]
fn a_channel_of_the_same_number_knows_nothing_of_earlier_publishes() {
    let (mut client, id) = confirming();
    let none = basic::Properties::default();
    put(&mut client, id, "k", &none, "x");
    client.send(1, &channel::Close::default());
    client.events();
    client.bytes();
    let (again, _) = client.conn.open_channel_at(1).unwrap();
    client.send(1, &channel::OpenOk);
    client.events();
    client.bytes();
    client.call(again, &confirm::Select::default(), &confirm::SelectOk);
    assert_eq!(come_back(&mut client, "k", &none, "x"), None);
    assert_eq!(put(&mut client, again, "k", &none, "x"), 1);
    assert_eq!(come_back(&mut client, "k", &none, "x"), Some(1));
}

/// A message of the property test.
#[derive(Clone, Debug)]
struct Sample {
    mandatory: bool,
    routed: bool,
    key: u8,
    len: usize,
}

fn any_sample() -> impl Strategy<Value = Sample> {
    (any::<bool>(), any::<bool>(), 0u8..3, 0usize..3).prop_map(|(mandatory, routed, key, len)| {
        Sample {
            mandatory,
            routed,
            key,
            len,
        }
    })
}

proptest! {
    #![proptest_config(amqp_test_support::cases(100))]

    /// The server takes publishes in, returns some at once, and confirms later, as it likes. Each
    /// return is matched to its publish, and no return comes for one that was confirmed.
    #[test]
    fn each_return_finds_its_publish(
        samples in list(any_sample(), 1..40),
        confirms in list((any::<prop::sample::Index>(), any::<bool>(), 0usize..4), 1..60),
        unique in any::<bool>(),
    ) {
        let (mut client, id) = confirming();
        let bodies = ["", "x", "xx"];
        let key = |sample: &Sample| format!("key-{}", sample.key);
        // The messages that are alike share their fate, which routing gives them.
        let routed = |sample: &Sample| {
            if unique { sample.routed } else { (usize::from(sample.key) + sample.len).is_multiple_of(2) }
        };
        let mut properties = Vec::new();
        for (number, sample) in samples.iter().enumerate() {
            let own = if unique {
                with_id(&format!("{number}"))
            } else {
                basic::Properties::default()
            };
            let publish = basic::Publish {
                mandatory: sample.mandatory,
                ..mandatory(&key(sample))
            };
            client.on(id).publish(&publish, &own, bodies[sample.len]).unwrap();
            properties.push(own);
        }
        client.bytes();
        // Confirms are drawn among the publishes that the server has read so far.
        let mut taken = 0;
        let mut settled = Vec::new();
        let rest = confirms.last().cloned().map(|(at, multiple, _)| (at, multiple, usize::MAX));
        for (at, multiple, take) in confirms.into_iter().chain(rest) {
            for sample in samples.iter().skip(taken).take(take) {
                taken += 1;
                if sample.mandatory && !routed(sample) {
                    let own = &properties[taken - 1];
                    let matched = come_back(&mut client, &key(sample), own, bodies[sample.len]);
                    prop_assert_eq!(matched, Some(taken as u64));
                }
            }
            if taken > 0 {
                let number = at.index(taken) as u64 + 1;
                client.send(1, &ack(number, multiple));
                settled.extend(client.events());
            }
        }
        let last = taken as u64;
        client.send(1, &ack(last, true));
        settled.extend(client.events());
        let count: u64 = settled.iter().map(|event| match event {
            Event::Settled { first, last, outcome: Outcome::Acked, .. } => last.get() - first.get() + 1,
            other => panic!("{other:?}"),
        }).sum();
        prop_assert_eq!(count, samples.len() as u64);
    }
}

#[test]
fn a_return_is_no_delivery() {
    let (mut client, id) = confirming();
    client.consumer(id, "t", false);
    let none = basic::Properties::default();
    put(&mut client, id, "k", &none, "body");
    assert_eq!(come_back(&mut client, "k", &none, "body"), Some(1));
    client.deliver(id, "t", 1);
    assert!(matches!(client.only_event(), Event::Delivered(_)));
    // It needs no acknowledgement, and has no tag.
    assert_eq!(client.on(id).ack(crate::Tags::One(tag(1))), Ok(()));
    assert!(client.on(id).ack(crate::Tags::One(tag(1))).is_err());
    let Method::BasicAck(sent) = client.only_method() else {
        panic!("nothing was acknowledged");
    };
    assert_eq!(sent.delivery_tag, 1);
}
