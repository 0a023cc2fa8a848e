//! Steps that fail: the others go on.

use alloc::{collections::BTreeSet, string::String, vec, vec::Vec};

use super::*;
use crate::{
    protocol::ReplyCode,
    recovery::{Binding, Difference, FailureReason, OnFailure},
};

/// Loses the connection and recovers it against refusals.
fn recover_against(rig: &mut Rig, refusals: &[(&'static str, usize, ReplyCode, &'static str)]) {
    rig.lose();
    rig.broker.restart();
    rig.broker.refusals = refusals.to_vec();
    rig.recover();
}

const ALWAYS: usize = usize::MAX;

const LOCKED: &str = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue";

#[test]
fn a_queue_that_has_changed_is_reported_with_the_difference_and_the_rest_goes_on() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let bindings = rig.broker.bindings.clone();
    rig.lose();
    rig.broker.queues.get_mut(&name("jobs")).unwrap().durable = false;
    rig.recover();
    let [failure] = &rig.report().failures[..] else {
        panic!("{:?}", rig.report());
    };
    let difference = failure.difference.as_ref().unwrap();
    let Difference {
        argument,
        wanted,
        found,
        ..
    } = difference;
    assert_eq!(
        (&argument[..], &wanted[..], &found[..]),
        ("durable", "true", "false")
    );
    assert_eq!(
        rig.failures(),
        [r#"declare queue "jobs" (durable): "durable" is "false" instead of "true""#]
    );
    // It exists: it is bound and consumed from.
    assert_eq!(rig.broker.bindings, bindings);
    assert_eq!(rig.consumers(), ["2 ctag-0 jobs", "2 ctag-1 logs"]);
    // The steps behind it were sent again on a new channel.
    let opens = rig
        .broker
        .log
        .iter()
        .filter(|it| it.starts_with("2047 channel.open"));
    assert_eq!(opens.count(), 2);
    assert!(rig.recovery.is_recovered());
}

#[test]
fn a_binding_whose_exchange_is_gone_is_skipped() {
    let mut rig = Rig::open(Policy::new(1));
    let id = rig.open_channel();
    for queue in ["a", "b", "c"] {
        rig.call(id, &queue_named(queue));
    }
    // Declared by another client.
    rig.broker
        .exchanges
        .insert(name("theirs"), exchange_named("theirs", "topic"));
    rig.call(id, &exchange_named("ours", "topic"));
    for queue in ["a", "b", "c"] {
        rig.call(id, &bind(queue, "theirs", "k"));
        rig.call(id, &bind(queue, "ours", "k"));
    }
    rig.lose();
    rig.broker.delete_exchange(&name("theirs"));
    rig.recover();
    assert_eq!(
        rig.failures(),
        [
            r#"bind queue "a" to exchange "theirs" with key "k": closed by the peer: 404 (not-found): NOT_FOUND - no exchange 'theirs' in vhost '/' (after queue.bind), on channel 2047"#,
            r#"bind queue "b" to exchange "theirs" with key "k": exchange "theirs" is not there"#,
            r#"bind queue "c" to exchange "theirs" with key "k": exchange "theirs" is not there"#,
        ]
    );
    assert_eq!(rig.broker.bindings.len(), 3);
}

/// A connection with an exchange `work` and an exclusive queue `mine`.
fn with_exclusive_queue() -> (Rig, ChannelId) {
    let mut rig = Rig::open(Policy::new(1));
    let id = rig.open_channel();
    rig.call(id, &exchange_named("work", "topic"));
    rig.call(
        id,
        &queue::Declare {
            exclusive: true,
            ..queue_named("mine")
        },
    );
    (rig, id)
}

#[test]
fn a_lingering_exclusive_queue_is_tried_again_until_it_is_free() {
    let (mut rig, id) = with_exclusive_queue();
    rig.call(id, &queue_named("zebra"));
    rig.call(id, &bind("mine", "work", "a"));
    rig.call(id, &bind("zebra", "work", "z"));
    rig.consume(id, "mine");
    let bindings = rig.broker.bindings.clone();
    let lost_at = rig.pair.now;
    recover_against(
        &mut rig,
        &[("queue.declare mine", 3, ReplyCode::RESOURCE_LOCKED, LOCKED)],
    );
    assert_eq!(rig.failures(), [""; 0]);
    assert_eq!(rig.broker.bindings, bindings);
    assert_eq!(rig.consumers(), ["1 ctag-0 mine"]);
    // The other steps did not wait, and the consumer did.
    let log = &rig.broker.log;
    let at = |words: &str| log.iter().position(|it| it.contains(words)).unwrap();
    let declared = log
        .iter()
        .rposition(|it| it.contains("declare mine"))
        .unwrap();
    assert!(
        at("bind zebra") < declared && declared < at("bind mine"),
        "{log:#?}"
    );
    assert!(declared < at("basic.consume"), "{log:#?}");
    let took = rig.pair.now - lost_at;
    assert!(took >= 3 * SECOND / 2 && took < 3 * SECOND, "{took:?}");
}

#[test]
fn a_queue_that_stays_locked_is_skipped_with_everything_that_needs_it() {
    let (mut rig, id) = with_exclusive_queue();
    rig.call(id, &bind("mine", "work", "a"));
    rig.call(id, &queue_named("jobs"));
    let mine = rig.consume(id, "mine");
    rig.consume(id, "jobs");
    recover_against(
        &mut rig,
        &[(
            "queue.declare mine",
            ALWAYS,
            ReplyCode::RESOURCE_LOCKED,
            LOCKED,
        )],
    );
    let declared = rig
        .broker
        .log
        .iter()
        .filter(|it| it.contains("declare mine"));
    assert_eq!(declared.count(), 21);
    let failures = rig.failures();
    assert_eq!(failures.len(), 3, "{failures:#?}");
    assert!(
        failures[0]
            .starts_with(r#"declare queue "mine" (durable, exclusive): closed by the peer: 405"#)
    );
    assert!(failures[1].ends_with(r#"queue "mine" is not there"#));
    assert!(failures[2].ends_with(r#"queue "mine" is not there"#));
    let ended = rig.changes.iter().find_map(|it| match &it.event {
        RecoveryEvent::ConsumerEnded { consumer, .. } => Some(*consumer),
        _ => None,
    });
    assert_eq!(ended, Some(mine));
    assert_eq!(rig.consumers(), ["1 ctag-1 jobs"]);
    assert!(rig.recovery.is_recovered());
}

#[test]
fn a_failed_consumer_ends_and_its_channel_is_restored_without_it() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let text = "ACCESS_REFUSED - access to queue 'jobs' refused";
    recover_against(
        &mut rig,
        &[(
            "basic.consume jobs",
            ALWAYS,
            ReplyCode::ACCESS_REFUSED,
            text,
        )],
    );
    assert_eq!(rig.consumers(), ["2 ctag-1 logs"]);
    let of_second: Vec<_> = rig
        .broker
        .log
        .iter()
        .filter(|it| it.starts_with("2 "))
        .collect();
    assert_eq!(
        of_second,
        [
            "2 channel.open",
            "2 confirm.select",
            "2 basic.qos 10 false",
            "2 basic.consume jobs ctag-0",
            "2 channel.open",
            "2 confirm.select",
            "2 basic.qos 10 false",
            "2 basic.qos 20 false",
            "2 basic.consume logs ctag-1",
        ]
    );
    assert_eq!(rig.failures().len(), 1);
    // It does not come back.
    rig.broker.refusals.clear();
    rig.lose();
    rig.recover();
    assert_eq!(rig.failures(), [""; 0]);
    assert_eq!(rig.consumers(), ["2 ctag-1 logs"]);
}

#[test]
fn an_exclusive_consumer_waits_for_the_one_of_the_connection_before() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let text = "ACCESS_REFUSED - queue 'jobs' in vhost '/' in exclusive use";
    recover_against(
        &mut rig,
        &[("basic.consume jobs", 4, ReplyCode::ACCESS_REFUSED, text)],
    );
    assert_eq!(rig.failures(), [""; 0]);
    assert_eq!(rig.consumers(), ["2 ctag-0 jobs", "2 ctag-1 logs"]);
}

#[test]
fn a_channel_whose_mode_is_refused_ends() {
    let mut rig = Rig::with_topology(Policy::new(1));
    recover_against(
        &mut rig,
        &[(
            "confirm.select",
            ALWAYS,
            ReplyCode::PRECONDITION_FAILED,
            "no",
        )],
    );
    let ended = rig.changes.iter().filter_map(|it| match &it.event {
        RecoveryEvent::ChannelEnded { channel, reason } => Some((channel.number(), reason)),
        _ => None,
    });
    let ended: Vec<_> = ended.collect();
    assert!(
        matches!(ended[..], [(2, FailureReason::Closed(_))]),
        "{ended:?}"
    );
    assert_eq!(rig.consumers(), [""; 0]);
    assert!(rig.recovery.topology().channel(2).is_none());
    assert!(rig.recovery.is_recovered());
}

#[test]
fn each_refusal_of_each_step_leaves_the_others() {
    let steps = [
        "exchange.declare inner",
        "exchange.declare work",
        "exchange.bind",
        "queue.declare jobs",
        "queue.declare logs",
        "queue.bind jobs",
        "queue.bind logs",
        "basic.qos 10",
        "basic.consume jobs",
        "basic.qos 20",
        "basic.consume logs",
    ];
    let codes = [
        ReplyCode::ACCESS_REFUSED,
        ReplyCode::NOT_FOUND,
        ReplyCode::RESOURCE_LOCKED,
        ReplyCode::PRECONDITION_FAILED,
        ReplyCode::CONTENT_TOO_LARGE,
    ];
    for step in steps {
        for code in codes {
            for times in [1, ALWAYS] {
                let mut rig = Rig::with_topology(Policy::new(1));
                recover_against(&mut rig, &[(step, times, code, "no")]);
                let of_channel = step.starts_with("basic.qos")
                    && [ReplyCode::PRECONDITION_FAILED, ReplyCode::CONTENT_TOO_LARGE]
                        .contains(&code);
                let retried = code == ReplyCode::RESOURCE_LOCKED || of_channel;
                let failures = rig.failures();
                let expected = usize::from(times == ALWAYS || !retried);
                assert!(failures.len() >= expected, "{step} {code}: {failures:?}");
                assert!(rig.recovery.is_recovered(), "{step} {code}");
                if times == 1 && retried {
                    assert_eq!(failures, [""; 0], "{step} {code}");
                    assert_eq!(rig.consumers().len(), 2, "{step} {code}");
                }
                let queues = rig.broker.queues.len();
                assert_eq!(queues, 2, "{step} {code}");
            }
        }
    }
}

#[test]
fn the_policy_may_give_up() {
    let mut policy = Policy::new(1);
    policy.queues.precondition_failed = OnFailure::GiveUp;
    let mut rig = Rig::with_topology(policy);
    rig.lose();
    rig.broker.queues.get_mut(&name("jobs")).unwrap().durable = false;
    rig.recover();
    assert_eq!(
        rig.given_up().to_string(),
        r#"declare queue "jobs" (durable): "durable" is "false" instead of "true""#
    );
    assert!(rig.recovery.is_stopped());
    assert!(!rig.pair.client.is_open());
}

#[test]
fn a_step_without_an_answer_fails_and_the_others_go_on() {
    let mut rig = Rig::with_topology(Policy::new(1));
    rig.lose();
    rig.broker.silent = vec!["exchange.bind"];
    rig.recover();
    assert_eq!(
        rig.failures(),
        [
            r##"bind exchange "inner" to exchange "work" with key "#": no answer to exchange.bind came in time, on channel 2047"##
        ]
    );
    assert_eq!(rig.consumers(), ["2 ctag-0 jobs", "2 ctag-1 logs"]);
}

#[test]
fn a_server_that_answers_no_step_is_lost() {
    for silent in ["queue.declare", "queue.bind logs", "basic.consume"] {
        let mut rig = Rig::with_topology(Policy::new(1));
        let (bindings, consumers) = (rig.broker.bindings.clone(), rig.consumers());
        rig.lose();
        rig.broker.silent = vec![silent];
        rig.broker.silent_behind = true;
        rig.changes.clear();
        let mut losses = 0;
        while losses < 2 {
            match rig.recovery.poll_step(rig.pair.now) {
                Step::Connect { .. } => rig.connect(),
                Step::Wait(at) => rig.pair.now = at,
                Step::GiveUp => panic!("{:?}", rig.given_up()),
                Step::Idle => {
                    rig.pump();
                    if rig.recovery.poll_step(rig.pair.now) == Step::Idle {
                        rig.pass_time();
                    }
                }
            }
            let lost = |it: &&TimedEvent| matches!(it.event, RecoveryEvent::Lost(_));
            losses = rig.changes.iter().filter(lost).count();
        }
        let ended = |it: &TimedEvent| {
            matches!(
                it.event,
                RecoveryEvent::ChannelEnded { .. } | RecoveryEvent::ConsumerEnded { .. }
            )
        };
        assert!(!rig.changes.iter().any(ended), "{:?}", rig.changes);
        let lost = rig.changes.iter().map(ToString::to_string);
        let lost = lost.rev().find(|line| line.contains("lost"));
        let lost = lost.expect("a loss");
        assert!(
            lost.ends_with("lost: timed out: a request was not answered in time"),
            "{lost}"
        );
        rig.broker.silent = vec![];
        rig.broker.connection_ended();
        rig.recover();
        assert_eq!(rig.failures(), [""; 0], "{silent}");
        assert_eq!(rig.broker.bindings, bindings, "{silent}");
        assert_eq!(rig.consumers(), consumers, "{silent}");
    }
}

#[test]
fn a_close_for_no_step_is_not_blamed_on_one() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let consumers = rig.consumers();
    rig.lose();
    rig.broker.closes = vec![
        ("queue.bind jobs", ReplyCode::INTERNAL_ERROR),
        ("basic.qos 20", ReplyCode::PRECONDITION_FAILED),
    ];
    rig.recover();
    assert_eq!(rig.failures(), [""; 0]);
    assert_eq!(rig.consumers(), consumers);
    let opens = rig
        .broker
        .log
        .iter()
        .filter(|it| it.ends_with("channel.open"));
    assert_eq!(opens.count(), 5);
}

/// A connection that is lost and open again, at a broker without entities and with so few channels.
/// Returns the bindings and the consumers of before.
fn at_an_empty_broker(channel_max: u16) -> (Rig, BTreeSet<Binding>, Vec<String>) {
    let mut rig = Rig::with_topology(Policy::new(1));
    let (bindings, consumers) = (rig.broker.bindings.clone(), rig.consumers());
    rig.lose();
    rig.broker = Broker::default();
    while let Step::Wait(at) = rig.recovery.poll_step(rig.pair.now) {
        rig.pair.now = at;
    }
    rig.connect_with(config().channel_max(channel_max));
    rig.shake_hands();
    (rig, bindings, consumers)
}

#[test]
fn a_close_of_the_entities_without_an_answer_does_not_keep_the_channels_waiting() {
    for channel_max in [2, 3] {
        let (mut rig, bindings, consumers) = at_an_empty_broker(channel_max);
        rig.pump_until_close();
        rig.pair.to_server.clear();
        // A server without an answer to the last request of all is lost.
        while !rig.recovery.is_recovered() {
            match rig.recovery.poll_step(rig.pair.now) {
                Step::Connect { .. } => {
                    rig.broker.connection_ended();
                    rig.connect();
                }
                Step::Wait(at) => rig.pair.now = at,
                Step::GiveUp => panic!("{:?}", rig.given_up()),
                Step::Idle => {
                    rig.pump();
                    if !rig.recovery.is_recovered() {
                        rig.pass_time();
                    }
                }
            }
        }
        assert_eq!(rig.failures(), [""; 0], "{channel_max}");
        assert_eq!(rig.broker.bindings, bindings, "{channel_max}");
        assert_eq!(rig.consumers(), consumers, "{channel_max}");
    }
}

#[test]
fn entities_are_restored_without_a_free_channel_number() {
    for channel_max in [2, 3] {
        let (mut rig, bindings, consumers) = at_an_empty_broker(channel_max);
        rig.recover();
        assert_eq!(rig.failures(), [""; 0]);
        assert_eq!(rig.broker.bindings, bindings);
        assert_eq!(rig.consumers(), consumers);
        let opens = rig
            .broker
            .log
            .iter()
            .filter(|it| it.ends_with("channel.open"));
        assert_eq!(opens.count(), 3);
    }
}
