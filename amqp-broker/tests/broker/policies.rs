//! Policies and operator policies: which one applies, how it is combined with the arguments of a
//! declaration, and its effect on queues that exist. As in RabbitMQ 3.10.8.

use amqp_broker::{AdminError, ApplyTo, Policy};
use amqp_core::{protocol::basic::Properties, wire::FieldValue};

use crate::rig::{Rig, bind, consumer, exchange, name, queue, queue_with, quorum, tag};

fn policy(name: &str, pattern: &str) -> Policy {
    Policy::new(name, pattern).unwrap()
}

impl Rig {
    fn set(&mut self, policy: Policy) {
        self.broker.admin().set_policy("/", policy).unwrap();
        self.exchange();
    }

    fn set_operator(&mut self, policy: Policy) {
        let mut admin = self.broker.admin();
        admin.set_operator_policy("/", policy).unwrap();
        self.exchange();
    }

    fn clear(&mut self, name: &str) {
        self.broker.admin().clear_policy("/", name).unwrap();
        self.exchange();
    }
}

/// The policy of a queue, its operator policy, and a setting of both.
fn applied(rig: &Rig, queue: &str, setting: &str) -> (String, String, Option<FieldValue>) {
    let policies = rig.inspect(queue).policies;
    let setting = policies.definition.get(setting).cloned();
    let names = [policies.policy, policies.operator_policy];
    let [policy, operator] = names.map(Option::unwrap_or_default);
    (policy, operator, setting)
}

#[test]
fn the_highest_priority_applies() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("tmp-1"));
    rig.declare(client, channel, &queue("other"));
    rig.set(policy("all", "").with("max-length", 1));
    rig.set(policy("tmp", "^tmp").priority(2).with("max-length", 2));
    rig.set(policy("low", "^tmp").priority(-1).with("max-length", 3));
    let of = |rig: &Rig, queue| applied(rig, queue, "max-length").0;
    assert_eq!(of(&rig, "tmp-1"), "tmp");
    assert_eq!(of(&rig, "other"), "all");
    rig.declare(client, channel, &queue("tmp-2"));
    assert_eq!(of(&rig, "tmp-2"), "tmp");
    rig.clear("tmp");
    assert_eq!(of(&rig, "tmp-2"), "all");
    rig.clear("all");
    assert_eq!(of(&rig, "tmp-2"), "low");
    rig.clear("low");
    assert_eq!(of(&rig, "tmp-2"), "");
}

#[test]
fn a_policy_applies_to_the_entities_that_it_names() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("c"));
    rig.declare(client, channel, &quorum("q", []));
    for (apply_to, classic, quorum, topic) in [
        (ApplyTo::All, true, true, true),
        (ApplyTo::Queues, true, true, false),
        (ApplyTo::Exchanges, false, false, true),
        (ApplyTo::ClassicQueues, true, false, false),
        (ApplyTo::QuorumQueues, false, true, false),
        (ApplyTo::Streams, false, false, false),
    ] {
        let policy = policy("p", ".*").apply_to(apply_to).with("max-length", 1);
        rig.set(policy);
        let inspection = rig.broker.inspect();
        let vhost = inspection.vhost("/").unwrap();
        let has = |policies: &amqp_broker::AppliedPolicies| policies.policy.is_some();
        assert_eq!(has(&vhost.queue("c").unwrap().policies), classic);
        assert_eq!(has(&vhost.queue("q").unwrap().policies), quorum);
        assert_eq!(has(&vhost.exchange("amq.topic").unwrap().policies), topic);
    }
}

#[test]
fn a_setting_that_a_type_does_not_have_excludes_it() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("c"));
    rig.declare(client, channel, &quorum("q", []));
    let limited = policy("p", "")
        .with("delivery-limit", 3)
        .with("max-length", 2);
    rig.set(limited);
    assert_eq!(applied(&rig, "c", "max-length").0, "");
    assert_eq!(applied(&rig, "q", "max-length").0, "p");
    let mirrored = policy("p", "").with("ha-mode", "all").with("max-length", 2);
    rig.set(mirrored);
    assert_eq!(applied(&rig, "c", "max-length").0, "p");
    assert_eq!(applied(&rig, "q", "max-length").0, "");
}

#[test]
fn numbers_are_combined_to_the_lowest() {
    for (argument, policy_length, operator_length, length) in [
        (Some(3), Some(2), Some(1), 1),
        (Some(1), Some(2), Some(3), 1),
        (Some(2), Some(1), None, 1),
        (Some(2), None, Some(1), 1),
        (None, Some(2), Some(3), 2),
        (None, None, Some(2), 2),
        (None, Some(2), None, 2),
    ] {
        let (mut rig, client, channel) = Rig::open();
        if let Some(length) = policy_length {
            rig.set(policy("p", "").with("max-length", length));
        }
        if let Some(length) = operator_length {
            rig.set_operator(policy("o", "").with("max-length", length));
        }
        for mut declare in [queue("c"), quorum("q", [])] {
            if let Some(length) = argument {
                declare.arguments.push(name("x-max-length"), length);
            }
            let queue = declare.queue.to_string();
            rig.declare(client, channel, &declare);
            for body in ["1", "2", "3", "4"] {
                rig.publish(client, channel, &queue, body);
            }
            assert_eq!(rig.drain(client, channel, &queue).len(), length);
        }
    }
}

#[test]
fn the_overflow_of_a_policy_applies_to_a_quorum_queue_only() {
    for (declare, first) in [(queue("q"), "1"), (quorum("q", []), "2")] {
        let (mut rig, client, channel) = Rig::open();
        rig.confirms(client, channel);
        let dropping = policy("p", "")
            .with("max-length", 1)
            .with("overflow", "drop-head");
        rig.set(dropping);
        let mut declare = declare;
        declare.arguments.push(name("x-overflow"), "reject-publish");
        rig.declare(client, channel, &declare);
        for body in ["1", "2"] {
            rig.publish(client, channel, "q", body);
        }
        assert_eq!(rig.drain(client, channel, "q"), [first]);
    }
}

#[test]
fn the_dead_letter_exchange_of_the_declaration_applies() {
    for declare in [queue, |name: &str| quorum(name, [])] {
        let (mut rig, client, channel) = Rig::open();
        for name in ["dead", "by-policy", "here", "there"] {
            rig.declare(client, channel, &queue(name));
        }
        let reject = |rig: &mut Rig, queue: &str| {
            let channel = rig.channel(client);
            rig.publish(client, channel, queue, "x");
            rig.get(client, channel, queue).unwrap();
            rig.nack(client, channel, tag(1), false);
        };
        rig.declare(client, channel, &declare("plain"));
        let mut own = declare("own");
        own.arguments.push(name("x-dead-letter-exchange"), "");
        own.arguments
            .push(name("x-dead-letter-routing-key"), "here");
        rig.declare(client, channel, &own);
        let mut half = declare("half");
        half.arguments.push(name("x-dead-letter-exchange"), "");
        rig.declare(client, channel, &half);
        let letters = policy("p", "^(plain|own|half)$")
            .with("dead-letter-exchange", "")
            .with("dead-letter-routing-key", "by-policy");
        rig.set(letters);
        for (queue, to) in [
            ("plain", "by-policy"),
            ("own", "here"),
            ("half", "by-policy"),
        ] {
            reject(&mut rig, queue);
            assert_eq!(rig.drain(client, channel, to), ["x"], "{queue}");
        }
        // A routing key without an exchange has no effect.
        rig.set(policy("p", "^(plain|own|half)$").with("dead-letter-routing-key", "there"));
        reject(&mut rig, "plain");
        reject(&mut rig, "half");
        assert_eq!(rig.drain(client, channel, "there"), ["x"]);
        rig.clear("p");
        reject(&mut rig, "plain");
        for queue in ["dead", "by-policy", "here", "there"] {
            assert!(rig.drain(client, channel, queue).is_empty());
        }
    }
}

#[test]
fn a_new_maximum_length_cuts_a_queue_at_once() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("dead"));
    let letters = queue_with(
        "q",
        [
            ("x-dead-letter-exchange", "".into()),
            ("x-dead-letter-routing-key", "dead".into()),
        ],
    );
    rig.declare(client, channel, &letters);
    for body in ["1", "2", "3"] {
        rig.publish(client, channel, "q", body);
    }
    rig.set(policy("p", "^q$").with("max-length", 1));
    assert_eq!(rig.inspect("q").ready, 1);
    assert_eq!(rig.drain(client, channel, "dead"), ["1", "2"]);
    rig.set(policy("p", "^q$").with("max-length-bytes", 0));
    assert_eq!(rig.inspect("q").ready, 0);
    rig.clear("p");
    for body in ["1", "2", "3"] {
        rig.publish(client, channel, "q", body);
    }
    assert_eq!(rig.inspect("q").ready, 3);
}

#[test]
fn a_message_ttl_concerns_messages_that_arrive_later() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", "old");
    rig.set(policy("p", "").with("message-ttl", 300));
    rig.publish(client, channel, "q", "new");
    rig.advance(1000);
    assert_eq!(rig.inspect("q").ready, 2);
    assert_eq!(rig.drain(client, channel, "q"), ["old"]);
    rig.publish(client, channel, "q", "newer");
    rig.clear("p");
    rig.publish(client, channel, "q", "newest");
    rig.advance(1000);
    assert_eq!(rig.drain(client, channel, "q"), ["newest"]);
}

#[test]
fn the_expiry_of_a_queue_begins_with_its_policy() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.declare(client, channel, &queue("other"));
    rig.advance(5000);
    rig.set(policy("p", "^q$").with("expires", 1000));
    rig.advance(900);
    assert!(rig.has_queue("q"));
    // Another policy restarts it.
    rig.set(policy("p2", "^q$").priority(1).with("expires", 1000));
    rig.advance(900);
    assert!(rig.has_queue("q"));
    rig.advance(200);
    assert!(!rig.has_queue("q") && rig.has_queue("other"));
}

#[test]
fn the_expiry_of_a_queue_counts_from_the_time_that_is_known_next() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    // The broker does not know of the hour that has passed.
    rig.now = rig.now + std::time::Duration::from_secs(3600);
    let expiring = policy("p", "").with("expires", 1000);
    rig.broker.admin().set_policy("/", expiring).unwrap();
    assert!(rig.broker.poll_timeout().is_some_and(|at| at < rig.now));
    rig.broker.handle_timeout(rig.now);
    assert!(rig.has_queue("q"));
    rig.advance(999);
    assert!(rig.has_queue("q"));
    rig.advance(1);
    assert!(!rig.has_queue("q"));
}

#[test]
fn an_alternate_exchange_can_be_that_of_a_policy() {
    let (mut rig, client, channel) = Rig::open();
    for name in ["lost", "own"] {
        rig.call(client, channel, &exchange(name, "fanout"))
            .unwrap();
        rig.declare(client, channel, &queue(name));
        rig.call(client, channel, &bind(name, name, "")).unwrap();
    }
    rig.call(client, channel, &exchange("x", "direct")).unwrap();
    let mut with_own = exchange("y", "direct");
    with_own.arguments.push(name("alternate-exchange"), "own");
    rig.call(client, channel, &with_own).unwrap();
    let publish = |rig: &mut Rig, exchange: &str| {
        let properties = Properties::default();
        rig.publish_to(client, channel, exchange, "none", &properties, exchange);
    };
    publish(&mut rig, "x");
    let alternate = policy("p", "^[xyz]$").with("alternate-exchange", "lost");
    rig.set(alternate);
    rig.call(client, channel, &exchange("z", "topic")).unwrap();
    for exchange in ["x", "y", "z"] {
        publish(&mut rig, exchange);
    }
    assert_eq!(rig.drain(client, channel, "lost"), ["x", "z"]);
    assert_eq!(rig.drain(client, channel, "own"), ["y"]);
    rig.clear("p");
    publish(&mut rig, "x");
    assert_eq!(rig.inspect("lost").ready, 0);
}

/// As in RabbitMQ, the limits of a policy replace those of the declaration, and take effect at once.
#[test]
fn the_retention_of_a_stream_can_be_that_of_a_policy() {
    let (mut rig, client, channel) = Rig::open();
    let mut stream = queue_with(
        "s",
        [
            ("x-queue-type", "stream".into()),
            ("x-max-length-bytes", 100_000.into()),
            ("x-stream-max-segment-size-bytes", 1000.into()),
        ],
    );
    stream.durable = true;
    rig.declare(client, channel, &stream);
    let body = "x".repeat(400);
    let fill = |rig: &mut Rig, count| {
        for _ in 0..count {
            rig.publish(client, channel, "s", &body);
        }
    };
    fill(&mut rig, 10);
    assert_eq!(rig.inspect("s").ready, 10);
    let limited = |setting: &str, value: FieldValue| {
        policy("p", "")
            .apply_to(ApplyTo::Streams)
            .with(setting, value)
    };
    rig.set(limited("max-length-bytes", 2500.into()));
    assert_eq!(rig.inspect("s").ready, 4);
    rig.set(limited("stream-max-segment-size-bytes", 500.into()));
    fill(&mut rig, 10);
    assert_eq!(rig.inspect("s").ready, 14);
    rig.advance(2000);
    rig.set(limited("max-age", "1s".into()));
    assert!(rig.inspect("s").ready <= 1);
    // A setting that streams do not have.
    rig.set(limited("max-length", 1.into()));
    assert_eq!(applied(&rig, "s", "max-length").0, "");
}

#[test]
fn a_delivery_limit_can_be_that_of_a_policy() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    rig.set(policy("p", "").with("delivery-limit", 1));
    rig.publish(client, channel, "q", "x");
    for _ in 0..2 {
        let got = rig.get(client, channel, "q").unwrap();
        rig.nack(client, channel, tag(got.method.delivery_tag), true);
    }
    assert_eq!(rig.inspect("q").ready, 0);
}

/// In a classic queue the requeued message counts first.
#[test]
fn a_quorum_queue_redelivers_a_message_before_it_is_cut() {
    for (declare, again) in [(quorum("q", []), vec!["x"]), (queue("q"), vec![])] {
        let (mut rig, client, channel) = Rig::open();
        rig.set(policy("p", "").with("max-length", 0));
        rig.declare(client, channel, &declare);
        rig.consume(client, channel, consumer("q", "c")).unwrap();
        rig.publish(client, channel, "q", "x");
        assert_eq!(rig.bodies(client), ["x"]);
        rig.nack(client, channel, tag(1), true);
        assert_eq!(rig.bodies(client), again);
    }
}

#[test]
fn invalid_policies_are_refused_with_the_texts_of_rabbitmq() {
    let mut rig = Rig::new();
    let before = rig.broker.inspect();
    let mut admin = rig.broker.admin();
    for (setting, value, problem) in [
        (
            "message-ttl",
            FieldValue::from(-1),
            "-1 is not a valid message TTL",
        ),
        (
            "message-ttl",
            "x".into(),
            "\"x\" is not a valid message TTL",
        ),
        ("expires", 0.into(), "0 is not a valid queue expiry"),
        (
            "overflow",
            "x".into(),
            "\"x\" is not a valid overflow value",
        ),
        ("max-age", "5x".into(), "\"5x\" is not a valid max age"),
        (
            "dead-letter-exchange",
            5.into(),
            "5 is not a valid dead letter exchange name",
        ),
        (
            "foo",
            1.into(),
            "\"foo\" is not a recognised policy setting",
        ),
    ] {
        let result = admin.set_policy("/", policy("p", "").with(setting, value));
        let Err(AdminError::InvalidPolicy { problem: text, .. }) = result else {
            panic!("{setting}: {result:?}");
        };
        assert_eq!(text, problem);
    }
    let result = admin.set_policy("/", policy("p", ""));
    let text = "the policy \"p\" is invalid: no policy provided";
    assert_eq!(result.unwrap_err().to_string(), text);
    let textual = policy("p", "").with("overflow", "drop-head");
    assert!(admin.set_operator_policy("/", textual).is_err());
    let missing = AdminError::NoVhost("none".into());
    let valid = || policy("p", "").with("max-length", 1);
    assert_eq!(admin.set_policy("none", valid()), Err(missing));
    assert!(matches!(
        admin.clear_policy("/", "p"),
        Err(AdminError::NoPolicy { .. })
    ));
    admin.set_policy("/", valid()).unwrap();
    assert!(admin.clear_operator_policy("/", "p").is_err());
    admin.clear_policy("/", "p").unwrap();
    assert_eq!(rig.broker.inspect(), before);
}

#[test]
fn policies_are_listed() {
    let mut rig = Rig::new();
    let one = policy("one", "^a").priority(5).with("max-length", 1);
    let two = policy("two", "^b").with("max-length", 2);
    rig.set(one.clone());
    rig.set_operator(two.clone());
    let inspection = rig.broker.inspect();
    let vhost = inspection.vhost("/").unwrap();
    assert_eq!(vhost.policies, [one]);
    assert_eq!(vhost.operator_policies, [two]);
}

#[test]
fn a_policy_cannot_let_a_quorum_queue_dead_letter_rejected_messages() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &quorum("q", []));
    let cut = policy("p", "^q").with("max-length", 1);
    rig.set(cut.with("overflow", "reject-publish-dlx"));
    for body in ["1", "2", "3"] {
        rig.publish(client, channel, "q", body);
    }
    assert_eq!(rig.drain(client, channel, "q"), ["3"]);
}
