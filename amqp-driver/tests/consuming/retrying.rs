//! Retries: the copy of a message, and the end of the original.

use std::time::Duration;

use amqp_driver::{
    ConfirmChannel, Error, ForEachOptions, OnFailure, Retry,
    core::protocol::ClientMethod,
    protocol::basic,
    wire::{FieldTable, FieldValue},
};
use amqp_test_support::{Confirming, Message, Rig, Saw};

use super::tools::texts;

/// The messages that were published on the second channel.
fn published(rig: &Rig) -> Vec<Message> {
    let saw = |saw: &Saw| match saw {
        Saw::Published(2, message) => Some(message.clone()),
        _ => None,
    };
    rig.peer().saw.iter().filter_map(saw).collect()
}

/// Delivers a message to a loop that retries twice, with bodies that fail. The second channel
/// publishes the copies.
fn fail(confirming: Confirming, unroutable: bool, properties: &basic::Properties) -> Rig {
    let (mut rig, connection, channel) = Rig::with_channel();
    let publisher: ConfirmChannel = rig.confirm_channel(&connection);
    rig.peer().confirming = confirming;
    rig.peer().unroutable = unroutable;
    let retry = Retry::through(&publisher, "delay".try_into().unwrap(), 2);
    let consumer = rig
        .wait(channel.consume(basic::Consume::default()))
        .unwrap();
    rig.peer()
        .deliver_with(1, consumer.tag(), properties, "body");
    let options = ForEachOptions::new(OnFailure::Retry(retry));
    let work = consumer.for_each_concurrent(1, options, |_| async { Err(()) });
    rig.spawn(async move {
        let _handles = (connection, channel);
        work.await
    });
    rig.run();
    rig
}

fn headers(table: FieldTable) -> basic::Properties {
    basic::Properties::default().headers(table)
}

#[test]
fn the_copy_is_the_message_without_what_would_mislead_the_server() {
    let table = FieldTable::new()
        .with("x-death", FieldTable::new())
        .with("CC", Vec::new())
        .with("mine", 7);
    let properties = headers(table)
        .content_type("text/plain")
        .expiration("10")
        .user_id("somebody")
        .delivery_mode(2);
    let rig = fail(Confirming::AtOnce, false, &properties);
    let copies = published(&rig);
    let [copy] = &copies[..] else {
        panic!("{copies:?}");
    };
    assert_eq!(
        (
            copy.method.exchange.as_str(),
            copy.method.routing_key.as_str()
        ),
        ("", "delay")
    );
    assert_eq!(copy.body, "body");
    let expected = FieldTable::new()
        .with("mine", 7)
        .with("x-original-exchange", "")
        .with("x-original-routing-key", "")
        .with("x-retries", 1_i64);
    let expected = headers(expected)
        .content_type("text/plain")
        .delivery_mode(2);
    assert_eq!(copy.properties, expected);
    assert_eq!(texts(&rig.peer().acked), ["body"]);
}

#[test]
fn the_original_is_acknowledged_after_the_confirm() {
    let properties = basic::Properties::default();
    let mut rig = fail(Confirming::ByHand, false, &properties);
    assert_eq!(published(&rig).len(), 1);
    assert_eq!(rig.peer().outstanding.len(), 1);
    rig.peer().ack(2, 1, false);
    rig.run();
    assert_eq!(texts(&rig.peer().acked), ["body"]);
}

#[test]
fn without_a_confirm_the_original_is_requeued() {
    let properties = basic::Properties::default();
    let mut rig = fail(Confirming::ByHand, false, &properties);
    rig.peer().nack(2, 1, false);
    rig.run();
    assert_eq!(texts(&rig.peer().requeued), ["body"]);
    // There is no delay queue.
    let rig = fail(Confirming::AtOnce, true, &properties);
    assert_eq!(published(&rig).len(), 1);
    assert_eq!(texts(&rig.peer().requeued), ["body"]);
}

#[test]
fn a_message_that_was_retried_often_enough_is_rejected() {
    for (count, copies) in [
        (FieldValue::I64(1), 1),
        (FieldValue::I64(2), 0),
        (FieldValue::I32(3), 0),
        (FieldValue::I64(-1), 0),
        (FieldValue::from("many"), 1),
    ] {
        let table = FieldTable::new().with("x-retries", count);
        let rig = fail(Confirming::AtOnce, false, &headers(table));
        assert_eq!(published(&rig).len(), copies);
        let peer = rig.peer();
        assert_eq!(
            (peer.acked.len(), peer.rejected.len()),
            (copies, 1 - copies)
        );
    }
}

#[test]
fn the_delay_queue_is_declared_with_its_way_back() {
    let (mut rig, connection) = Rig::open();
    let publisher = rig.confirm_channel(&connection);
    // Rounded up: a copy does not return too early.
    let delay = Duration::from_micros(4_999_500);
    rig.wait(Retry::declare(&publisher, "jobs", delay, 3))
        .unwrap();
    let too_long = Duration::from_secs(10 * 365 * 24 * 60 * 60 + 1);
    let refused = rig.wait(Retry::declare(&publisher, "jobs", too_long, 3));
    assert!(matches!(refused, Err(Error::Misuse(_))), "{refused:?}");
    let declared = rig.peer().saw.iter().find_map(|saw| match saw {
        Saw::Request(_, ClientMethod::QueueDeclare(declare)) => Some(declare.clone()),
        _ => None,
    });
    let declared = declared.unwrap();
    assert_eq!(declared.queue, "jobs.retry.5000");
    assert!(declared.durable);
    let argument = |name| declared.arguments.get(name).cloned();
    assert_eq!(argument("x-message-ttl"), Some(FieldValue::I64(5000)));
    assert_eq!(argument("x-dead-letter-exchange"), Some("".into()));
    assert_eq!(argument("x-dead-letter-routing-key"), Some("jobs".into()));
    drop(publisher);
    rig.finish(connection);
}
