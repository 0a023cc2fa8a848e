//! Exchanges and bindings.

use crate::rig::{Refused, Rig, bind, exchange, headers, name, queue, refused, table};
use amqp_core::{
    ChannelId,
    protocol::{exchange, queue},
    wire::FieldValue,
};

fn delete(text: &str) -> exchange::Delete {
    exchange::Delete {
        exchange: name(text),
        ..exchange::Delete::default()
    }
}

fn link(destination: &str, source: &str, key: &str) -> exchange::Bind {
    exchange::Bind {
        destination: name(destination),
        source: name(source),
        routing_key: name(key),
        ..exchange::Bind::default()
    }
}

fn passive(text: &str) -> exchange::Declare {
    exchange::Declare {
        passive: true,
        ..exchange(text, "fanout")
    }
}

fn no_exchange(text: &str) -> Refused {
    refused(
        404,
        &format!("NOT_FOUND - no exchange '{text}' in vhost '/'"),
    )
}

/// Publishes to an exchange and returns the bodies in the queue `q`.
fn arrives(rig: &mut Rig, client: usize, channel: ChannelId, exchange: &str, key: &str) -> bool {
    rig.publish_to(client, channel, exchange, key, &Default::default(), "x");
    !rig.drain(client, channel, "q").is_empty()
}

#[test]
fn each_type_is_declared() {
    let (mut rig, client, channel) = Rig::open();
    for kind in ["direct", "fanout", "topic", "headers"] {
        rig.call(client, channel, &exchange(kind, kind)).unwrap();
    }
    for kind in ["direct", "fanout", "topic", "headers"] {
        let vhost = &rig.broker.inspect().vhosts[0];
        assert_eq!(vhost.exchange(kind).unwrap().kind, kind);
    }
}

#[test]
fn an_unknown_type_is_503() {
    let (mut rig, client, channel) = Rig::open();
    assert_eq!(
        rig.call(client, channel, &exchange("x", "invalid")),
        Err(refused(
            503,
            "COMMAND_INVALID - unknown exchange type 'invalid'"
        ))
    );
    let client = rig.connect();
    assert_eq!(
        rig.try_call(client, &exchange("x", "")),
        Err(refused(503, "COMMAND_INVALID - invalid exchange type ''"))
    );
}

#[test]
fn an_exchange_is_declared_again_as_it_is_or_not_at_all() {
    let (mut rig, client, channel) = Rig::open();
    rig.call(client, channel, &exchange("x", "direct")).unwrap();
    rig.call(client, channel, &exchange("x", "direct")).unwrap();
    let refusal = |arg: &str, received: &str, current: &str| {
        let text = format!(
            "PRECONDITION_FAILED - inequivalent arg '{arg}' for exchange 'x' in vhost '/': \
             received {received} but current is {current}"
        );
        Err(refused(406, &text))
    };
    let base = || exchange("x", "direct");
    assert_eq!(
        rig.try_call(client, &exchange("x", "fanout")),
        refusal("type", "'fanout'", "'direct'")
    );
    let mut declare = base();
    declare.durable = true;
    assert_eq!(
        rig.try_call(client, &declare),
        refusal("durable", "'true'", "'false'")
    );
    let mut declare = base();
    declare.auto_delete = true;
    assert_eq!(
        rig.try_call(client, &declare),
        refusal("auto_delete", "'true'", "'false'")
    );
    let mut declare = base();
    declare.internal = true;
    assert_eq!(
        rig.try_call(client, &declare),
        refusal("internal", "'true'", "'false'")
    );
    let mut declare = base();
    declare.arguments = table([("alternate-exchange", "y".into())]);
    assert_eq!(
        rig.try_call(client, &declare),
        refusal(
            "alternate-exchange",
            "the value 'y' of type 'longstr'",
            "none"
        )
    );
    // Arguments without a meaning may not differ.
    let mut declare = base();
    declare.arguments = table([("x-foo", "y".into())]);
    assert!(rig.try_call(client, &declare).is_ok());
}

#[test]
fn passive_looks_at_the_name_alone() {
    let (mut rig, client, channel) = Rig::open();
    rig.call(client, channel, &exchange("x", "direct")).unwrap();
    rig.call(client, channel, &passive("x")).unwrap();
    assert_eq!(
        rig.call(client, channel, &passive("y")),
        Err(no_exchange("y"))
    );
}

#[test]
fn to_delete_a_missing_exchange_is_no_mistake() {
    let (mut rig, client, channel) = Rig::open();
    rig.call(client, channel, &exchange("x", "direct")).unwrap();
    rig.call(client, channel, &delete("x")).unwrap();
    rig.call(client, channel, &delete("x")).unwrap();
    assert_eq!(
        rig.call(client, channel, &passive("x")),
        Err(no_exchange("x"))
    );
}

#[test]
fn an_exchange_in_use_is_kept_if_asked() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.call(client, channel, &exchange("x", "direct")).unwrap();
    rig.call(client, channel, &bind("q", "x", "k")).unwrap();
    let mut if_unused = delete("x");
    if_unused.if_unused = true;
    let text = "PRECONDITION_FAILED - exchange 'x' in vhost '/' in use";
    assert_eq!(rig.try_call(client, &if_unused), Err(refused(406, text)));
    let unbind = queue::Unbind {
        queue: name("q"),
        exchange: name("x"),
        routing_key: name("k"),
        ..queue::Unbind::default()
    };
    rig.call(client, channel, &unbind).unwrap();
    rig.try_call(client, &if_unused).unwrap();
}

#[test]
fn names_of_the_broker_are_its_own() {
    let (mut rig, client, _) = Rig::open();
    let default = "ACCESS_REFUSED - operation not permitted on the default exchange";
    assert_eq!(
        rig.try_call(client, &exchange("amq.x", "direct")),
        Err(refused(
            403,
            "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'"
        ))
    );
    assert_eq!(
        rig.try_call(client, &delete("amq.topic")),
        Err(refused(
            403,
            "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '/' not allowed"
        ))
    );
    assert_eq!(
        rig.try_call(client, &exchange("", "direct")),
        Err(refused(403, default))
    );
    assert_eq!(
        rig.try_call(client, &delete("")),
        Err(refused(403, default))
    );
    rig.try_call(client, &queue("q")).unwrap();
    assert_eq!(
        rig.try_call(client, &bind("q", "", "k")),
        Err(refused(403, default))
    );
    // APR-36
    let unbind = queue::Unbind {
        queue: name("q"),
        ..queue::Unbind::default()
    };
    assert_eq!(rig.try_call(client, &unbind), Err(refused(403, default)));
    for kind in ["direct", "fanout", "topic", "headers"] {
        let mut declare = exchange(&format!("amq.{kind}"), kind);
        declare.durable = true;
        assert!(rig.try_call(client, &declare).is_ok(), "{kind}");
    }
}

#[test]
fn a_direct_exchange_goes_by_the_key() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.call(client, channel, &exchange("x", "direct")).unwrap();
    rig.call(client, channel, &bind("q", "x", "")).unwrap();
    assert!(arrives(&mut rig, client, channel, "x", ""));
    assert!(!arrives(&mut rig, client, channel, "x", "other"));
    let missing = "NOT_FOUND - no queue 'nope' in vhost '/'";
    assert_eq!(
        rig.try_call(client, &bind("nope", "x", "")),
        Err(refused(404, missing))
    );
    assert_eq!(
        rig.try_call(client, &bind("q", "nope", "")),
        Err(no_exchange("nope"))
    );
}

#[test]
fn unbind_takes_a_binding_back() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.call(client, channel, &exchange("x", "topic")).unwrap();
    let mut unbind = queue::Unbind {
        queue: name("q"),
        exchange: name("x"),
        routing_key: name("a.#"),
        ..queue::Unbind::default()
    };
    assert!(!arrives(&mut rig, client, channel, "x", "a.b"));
    rig.call(client, channel, &bind("q", "x", "a.#")).unwrap();
    rig.call(client, channel, &bind("q", "x", "a.#")).unwrap();
    assert!(arrives(&mut rig, client, channel, "x", "a.b"));
    // With other arguments it is another binding.
    unbind.arguments = table([("k", 1.into())]);
    rig.call(client, channel, &unbind).unwrap();
    assert!(arrives(&mut rig, client, channel, "x", "a.b"));
    unbind.arguments = table([]);
    rig.call(client, channel, &unbind).unwrap();
    assert!(!arrives(&mut rig, client, channel, "x", "a.b"));
    rig.call(client, channel, &unbind).unwrap();
    unbind.queue = name("nope");
    rig.call(client, channel, &unbind).unwrap();
}

#[test]
fn a_queue_gets_a_message_once_however_many_ways_lead_to_it() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.call(client, channel, &bind("q", "amq.topic", "a.*"))
        .unwrap();
    rig.call(client, channel, &bind("q", "amq.topic", "#"))
        .unwrap();
    rig.publish_to(
        client,
        channel,
        "amq.topic",
        "a.b",
        &Default::default(),
        "x",
    );
    assert_eq!(rig.drain(client, channel, "q"), ["x"]);
}

#[test]
fn headers_exchanges_match_headers() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let mut binding = bind("q", "amq.headers", "");
    binding.arguments = table([("x-match", "any".into()), ("a", 1.into()), ("b", 2.into())]);
    rig.call(client, channel, &binding).unwrap();
    for (properties, expected) in [
        (headers([("a", 1.into())]), true),
        (headers([("b", FieldValue::I64(2))]), true),
        (headers([("a", 2.into())]), false),
        (Default::default(), false),
    ] {
        rig.publish_to(client, channel, "amq.headers", "", &properties, "x");
        assert_eq!(
            !rig.drain(client, channel, "q").is_empty(),
            expected,
            "{properties:?}"
        );
    }
    let mut wrong = bind("q", "amq.headers", "");
    wrong.arguments = table([("x-match", "most".into())]);
    assert_eq!(rig.try_call(client, &wrong).unwrap_err().0, 406);
}

#[test]
fn exchanges_are_bound_to_exchanges() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.call(client, channel, &exchange("one", "direct"))
        .unwrap();
    rig.call(client, channel, &exchange("two", "fanout"))
        .unwrap();
    rig.call(client, channel, &bind("q", "two", "")).unwrap();
    assert!(!arrives(&mut rig, client, channel, "one", "k"));
    rig.call(client, channel, &link("two", "one", "k")).unwrap();
    assert!(arrives(&mut rig, client, channel, "one", "k"));
    // A circle ends where it began.
    rig.call(client, channel, &link("one", "two", "")).unwrap();
    assert!(arrives(&mut rig, client, channel, "one", "k"));
    let unbind = |destination: &str, source: &str| exchange::Unbind {
        destination: name(destination),
        source: name(source),
        routing_key: name("k"),
        ..exchange::Unbind::default()
    };
    rig.call(client, channel, &unbind("two", "one")).unwrap();
    rig.call(client, channel, &unbind("two", "one")).unwrap();
    rig.call(client, channel, &unbind("nope", "one")).unwrap();
    assert!(!arrives(&mut rig, client, channel, "one", "k"));
    assert_eq!(
        rig.try_call(client, &link("two", "nope", "")),
        Err(no_exchange("nope"))
    );
    assert_eq!(
        rig.try_call(client, &link("nope", "two", "")),
        Err(no_exchange("nope"))
    );
}

#[test]
fn an_alternate_exchange_takes_unroutable_messages() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.declare(client, channel, &queue("known"));
    rig.call(client, channel, &bind("q", "amq.fanout", ""))
        .unwrap();
    let mut declare = exchange("x", "direct");
    declare.arguments = table([("alternate-exchange", "amq.fanout".into())]);
    rig.call(client, channel, &declare).unwrap();
    rig.call(client, channel, &bind("known", "x", "k")).unwrap();
    assert!(!arrives(&mut rig, client, channel, "x", "k"));
    assert!(arrives(&mut rig, client, channel, "x", "other"));
}

#[test]
fn an_alternate_exchange_of_more_than_255_bytes_does_not_exist() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let mut declare = exchange("x", "direct");
    declare.arguments = table([("alternate-exchange", "n".repeat(300).into())]);
    rig.call(client, channel, &declare).unwrap();
    assert!(!arrives(&mut rig, client, channel, "x", "q"));
    declare.arguments = table([("alternate-exchange", "".into())]);
    let (code, text) = rig.call(client, channel, &declare).unwrap_err();
    assert_eq!(code, 406);
    assert!(text.contains("received '' but current is 'nnn"), "{text}");
}

#[test]
fn an_internal_exchange_takes_no_publishes() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let mut internal = exchange("x", "fanout");
    internal.internal = true;
    rig.call(client, channel, &internal).unwrap();
    rig.call(client, channel, &bind("q", "x", "")).unwrap();
    rig.call(client, channel, &link("x", "amq.fanout", ""))
        .unwrap();
    assert!(arrives(&mut rig, client, channel, "amq.fanout", ""));
    rig.publish_to(client, channel, "x", "", &Default::default(), "");
    let text = "ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost '/'";
    assert_eq!(rig.channel_closed(client), Some(refused(403, text)));
}

#[test]
fn an_auto_delete_exchange_goes_with_its_last_binding() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    for one in ["one", "two"] {
        let mut declare = exchange(one, "fanout");
        declare.auto_delete = true;
        rig.call(client, channel, &declare).unwrap();
    }
    rig.call(client, channel, &link("two", "one", "")).unwrap();
    rig.call(client, channel, &bind("q", "two", "")).unwrap();
    let there = |rig: &Rig, one| rig.broker.inspect().vhosts[0].exchange(one).is_some();
    assert!(there(&rig, "one") && there(&rig, "two"));
    rig.call(client, channel, &crate::rig::delete("q")).unwrap();
    assert!(!there(&rig, "one") && !there(&rig, "two"));
    assert_eq!(rig.broker.inspect().vhosts[0].bindings, []);
}

#[test]
fn bindings_can_be_inspected() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.call(client, channel, &bind("q", "amq.direct", "k"))
        .unwrap();
    rig.call(client, channel, &link("amq.topic", "amq.direct", "l"))
        .unwrap();
    let bindings = &rig.broker.inspect().vhosts[0].bindings;
    let shown: Vec<_> = bindings
        .iter()
        .map(|binding| (binding.source.as_str(), binding.routing_key.as_str()))
        .collect();
    assert_eq!(shown, [("amq.direct", "k"), ("amq.direct", "l")]);
}
