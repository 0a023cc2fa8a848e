//! Queues: declaring, deleting, purging, and their lifetimes.

use amqp_broker::Config;
use amqp_core::{
    protocol::{Method, basic, queue},
    wire::FieldValue,
};

use crate::rig::{
    Refused, Rig, bind, consumer, delete, name, passive, queue, queue_with, quorum, refused, tag,
};

fn no_queue(text: &str) -> Refused {
    refused(404, &format!("NOT_FOUND - no queue '{text}' in vhost '/'"))
}

fn locked(text: &str) -> Refused {
    refused(
        405,
        &format!(
            "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{text}' in vhost \
             '/'. It could be originally declared on another connection or the exclusive property \
             value does not match that of the original declaration."
        ),
    )
}

fn inequivalent(arg: &str, received: &str, current: &str) -> Refused {
    refused(
        406,
        &format!(
            "PRECONDITION_FAILED - inequivalent arg '{arg}' for queue 'q' in vhost '/': received \
             {received} but current is {current}"
        ),
    )
}

fn exclusive(text: &str) -> queue::Declare {
    queue::Declare {
        exclusive: true,
        ..queue(text)
    }
}

fn purge(text: &str) -> queue::Purge {
    queue::Purge {
        queue: name(text),
        no_wait: false,
    }
}

fn deleted(count: u32) -> Result<Method, Refused> {
    let message_count = count;
    Ok(queue::DeleteOk { message_count }.into())
}

#[test]
fn a_named_queue_is_empty_at_first() {
    let (mut rig, client, channel) = Rig::open();
    let declared = rig.declare(client, channel, &queue("q"));
    assert_eq!(declared, (name("q"), 0, 0));
    assert_eq!(rig.counts(client, channel, "q"), (0, 0));
}

#[test]
fn a_queue_without_a_name_gets_one_and_the_empty_name_means_it() {
    let (mut rig, client, channel) = Rig::open();
    let (one, ..) = rig.declare(client, channel, &queue(""));
    let (other, ..) = rig.declare(client, channel, &queue(""));
    assert!(one.starts_with("amq.gen-") && one.len() == 30 && one != other);
    rig.call(client, channel, &bind("", "amq.direct", ""))
        .unwrap();
    rig.publish_to(
        client,
        channel,
        "amq.direct",
        &other,
        &Default::default(),
        "x",
    );
    assert_eq!(rig.drain(client, channel, ""), ["x"]);
    assert_eq!(rig.call(client, channel, &delete("")), deleted(0));
    assert_eq!(
        rig.try_call(client, &delete("")),
        Err(refused(404, "NOT_FOUND - no previously declared queue"))
    );
}

#[test]
fn the_same_seed_gives_the_same_names() {
    let names = |seed| {
        let mut rig = Rig::with(Config::default().seed(seed));
        let client = rig.connect();
        let channel = rig.channel(client);
        rig.declare(client, channel, &queue("")).0
    };
    assert_eq!(names(1), names(1));
    assert_ne!(names(1), names(2));
}

#[test]
fn a_missing_queue_or_exchange_is_404() {
    let (mut rig, client, channel) = Rig::open();
    assert_eq!(rig.try_call(client, &passive("q")), Err(no_queue("q")));
    assert_eq!(rig.try_call(client, &purge("q")), Err(no_queue("q")));
    assert_eq!(
        rig.consume(client, channel, consumer("q", "c")),
        Err(no_queue("q"))
    );
    // SER-12, TRI-13
    let channel = rig.channel(client);
    assert_eq!(rig.try_get(client, channel, "q", true), Err(no_queue("q")));
    assert!(rig.client(client).is_open());
    // TRI-33: but to delete it is no mistake.
    assert_eq!(rig.try_call(client, &delete("q")), deleted(0));
}

#[test]
fn a_queue_is_declared_again_as_it_is_or_not_at_all() {
    let (mut rig, client, _) = Rig::open();
    rig.try_call(client, &queue("q")).unwrap();
    rig.try_call(client, &queue("q")).unwrap();
    let transient = queue("q").durable(false);
    assert_eq!(
        rig.try_call(client, &transient),
        Err(inequivalent("durable", "'false'", "'true'"))
    );
    let mut auto_delete = queue("q");
    auto_delete.auto_delete = true;
    assert_eq!(
        rig.try_call(client, &auto_delete),
        Err(inequivalent("auto_delete", "'true'", "'false'"))
    );
    let with = |arg: &str, value: FieldValue| queue_with("q", [(arg, value)]);
    assert_eq!(
        rig.try_call(client, &with("x-expires", 101.into())),
        Err(inequivalent(
            "x-expires",
            "the value '101' of type 'signedint'",
            "none"
        ))
    );
    assert!(rig.try_call(client, &with("x-whatever", 1.into())).is_ok());
    assert!(
        rig.try_call(client, &with("x-queue-type", "classic".into()))
            .is_ok()
    );
    assert_eq!(rig.try_call(client, &exclusive("q")), Err(locked("q")));
}

#[test]
fn a_number_is_the_same_in_any_width() {
    let (mut rig, client, _) = Rig::open();
    let ttl = |value: FieldValue| queue_with("q", [("x-message-ttl", value)]);
    rig.try_call(client, &ttl(FieldValue::I64(1 << 31)))
        .unwrap();
    rig.try_call(client, &ttl(FieldValue::U32(1 << 31)))
        .unwrap();
    assert_eq!(
        rig.try_call(client, &ttl(5.into())),
        Err(inequivalent("x-message-ttl", "'5'", "'2147483648'"))
    );
}

#[test]
fn an_exclusive_queue_is_deleted_with_its_messages() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &exclusive("q"));
    assert_eq!(rig.call(client, channel, &delete("q")), deleted(0));
    assert_eq!(rig.try_call(client, &passive("q")), Err(no_queue("q")));
    rig.declare(client, channel, &exclusive("q"));
    rig.publish(client, channel, "q", "1");
    assert_eq!(rig.call(client, channel, &delete("q")), deleted(1));
}

#[test]
fn an_exclusive_queue_is_one_connections() {
    let (mut rig, client, channel) = Rig::open();
    let other = rig.connect();
    rig.declare(client, channel, &exclusive("q"));
    rig.declare(client, channel, &exclusive("q"));
    assert_eq!(rig.call(client, channel, &queue("q")), Err(locked("q")));
    assert_eq!(rig.try_call(other, &exclusive("q")), Err(locked("q")));
    assert_eq!(rig.try_call(other, &passive("q")), Err(locked("q")));
    assert_eq!(rig.try_call(other, &purge("q")), Err(locked("q")));
    assert_eq!(rig.try_call(other, &delete("q")), Err(locked("q")));
    assert_eq!(
        rig.try_call(other, &bind("q", "amq.direct", "")),
        Err(locked("q"))
    );
    let channel = rig.channel(other);
    assert_eq!(
        rig.consume(other, channel, consumer("q", "c")),
        Err(locked("q"))
    );
    let channel = rig.channel(other);
    assert_eq!(rig.try_get(other, channel, "q", true), Err(locked("q")));
    rig.close(client);
    assert!(!rig.has_queue("q"));
}

#[test]
fn a_queue_is_kept_if_asked() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", "1");
    let mut if_empty = delete("q");
    if_empty.if_empty = true;
    let text = "PRECONDITION_FAILED - queue 'q' in vhost '/' not empty";
    assert_eq!(rig.try_call(client, &if_empty), Err(refused(406, text)));
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    let mut if_unused = delete("q");
    if_unused.if_unused = true;
    let text = "PRECONDITION_FAILED - queue 'q' in vhost '/' in use";
    assert_eq!(rig.try_call(client, &if_unused), Err(refused(406, text)));
    rig.cancel(client, channel, "c");
    rig.try_call(client, &if_unused).unwrap();
}

#[test]
fn purge_takes_ready_messages() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", "1");
    rig.publish(client, channel, "q", "2");
    rig.get(client, channel, "q").unwrap();
    let purged = |message_count| Ok(queue::PurgeOk { message_count }.into());
    assert_eq!(rig.call(client, channel, &purge("q")), purged(1));
    assert_eq!(rig.call(client, channel, &purge("q")), purged(0));
    assert_eq!(rig.inspect("q").unacked, 1);
    rig.nack(client, channel, tag(1), true);
    assert_eq!(rig.drain(client, channel, "q"), ["1"]);
}

#[test]
fn flags_can_be_inspected() {
    let (mut rig, client, channel) = Rig::open();
    for (durable, auto_delete) in [(false, false), (false, true), (true, false), (true, true)] {
        let text = format!("q-{durable}-{auto_delete}");
        let declare = queue::Declare {
            durable,
            auto_delete,
            ..queue(&text)
        };
        rig.declare(client, channel, &declare);
        let info = rig.inspect(&text);
        assert_eq!((info.durable, info.auto_delete), (durable, auto_delete));
    }
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer() {
    let (mut rig, client, channel) = Rig::open();
    let mut declare = queue("q");
    declare.auto_delete = true;
    rig.declare(client, channel, &declare);
    rig.consume(client, channel, consumer("q", "a")).unwrap();
    rig.consume(client, channel, consumer("q", "b")).unwrap();
    rig.cancel(client, channel, "a");
    assert!(rig.has_queue("q"));
    rig.cancel(client, channel, "b");
    assert!(!rig.has_queue("q"));
}

#[test]
fn a_queue_s_times_are_at_most_ten_years() {
    let (mut rig, client, channel) = Rig::open();
    for argument in ["x-expires", "x-message-ttl"] {
        let with = |time: i64| queue_with(argument, [(argument, time.into())]);
        rig.declare(client, channel, &with(315_360_000_000));
        let (code, text) = rig.try_call(client, &with(315_360_000_001)).unwrap_err();
        assert_eq!(code, 406);
        let redeclared = "received '315360000001' but current is '315360000000'";
        assert!(text.ends_with(redeclared), "{text}");
        let name = "other";
        let too_long = queue_with(name, [(argument, 315_360_000_001_i64.into())]);
        let problem = "{value_too_large,315360000001}";
        let expected = format!(
            "PRECONDITION_FAILED - invalid arg '{argument}' for queue 'other' in vhost '/': \
             {problem}"
        );
        assert_eq!(
            rig.try_call(client, &too_long),
            Err(refused(406, &expected))
        );
    }
}

#[test]
fn a_queue_that_is_not_used_expires() {
    let (mut rig, client, channel) = Rig::open();
    let declare = queue_with("q", [("x-expires", 100.into())]);
    rig.declare(client, channel, &declare);
    rig.advance(90);
    rig.counts(client, channel, "q");
    rig.advance(90);
    rig.try_get(client, channel, "q", true).unwrap();
    rig.advance(90);
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.advance(1000);
    rig.cancel(client, channel, "c");
    rig.advance(99);
    assert!(rig.has_queue("q"));
    rig.advance(1);
    assert!(!rig.has_queue("q"));
}

#[test]
fn messages_expire_by_their_own_time_and_by_the_queues() {
    let (mut rig, client, channel) = Rig::open();
    let declare = queue_with("q", [("x-message-ttl", 100.into())]);
    rig.declare(client, channel, &declare);
    let lasting = |expiration: &str| basic::Properties {
        expiration: Some(name(expiration)),
        ..basic::Properties::default()
    };
    rig.publish_to(client, channel, "", "q", &lasting("1000"), "1");
    rig.publish_to(client, channel, "", "q", &lasting("50"), "2");
    rig.advance(60);
    // Only the first one is looked at.
    assert_eq!(rig.inspect("q").ready, 2);
    rig.advance(39);
    assert_eq!(rig.inspect("q").ready, 2);
    rig.advance(1);
    assert_eq!(rig.inspect("q").ready, 0);
}

#[test]
fn a_message_without_time_is_for_consumers_that_wait_already() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("q"));
    let now_or_never = basic::Properties {
        expiration: Some(name("0")),
        ..basic::Properties::default()
    };
    rig.publish_to(client, channel, "", "q", &now_or_never, "1");
    assert_eq!(rig.inspect("q").ready, 0);
    rig.consume(client, channel, consumer("q", "c")).unwrap();
    rig.publish_to(client, channel, "", "q", &now_or_never, "2");
    assert_eq!(rig.bodies(client), ["2"]);
}

#[test]
fn wrong_arguments_have_distinct_errors() {
    let (mut rig, client, _) = Rig::open();
    let cases: [(&str, FieldValue, &str); 14] = [
        ("x-message-ttl", (-1).into(), "{value_negative,-1}"),
        (
            "x-message-ttl",
            "a".into(),
            "\"expected integer, got longstr\"",
        ),
        (
            "x-message-ttl",
            (1_i64 << 40).into(),
            "{value_too_large,1099511627776}",
        ),
        ("x-expires", 0.into(), "{value_zero,0}"),
        ("x-max-length", (-1).into(), "{value_negative,-1}"),
        (
            "x-max-length-bytes",
            true.into(),
            "\"expected integer, got bool\"",
        ),
        ("x-max-priority", 256.into(), "{max_value_exceeded,256}"),
        ("x-overflow", "foo".into(), "invalid_overflow"),
        ("x-overflow", 5.into(), "{unacceptable_type,signedint}"),
        (
            "x-dead-letter-routing-key",
            "k".into(),
            "routing_key_but_no_dlx_defined",
        ),
        (
            "x-single-active-consumer",
            "yes".into(),
            "{unacceptable_type,longstr}",
        ),
        (
            "x-queue-type",
            "foo".into(),
            "\"unsupported queue type 'foo'\"",
        ),
        (
            "x-queue-mode",
            "foo".into(),
            "\"unsupported queue mode 'foo'\"",
        ),
        (
            "x-queue-version",
            3.into(),
            "\"unsupported queue version '3'\"",
        ),
    ];
    for (arg, value, problem) in cases {
        let text = format!(
            "PRECONDITION_FAILED - invalid arg '{arg}' for queue 'q' in vhost '/': {problem}"
        );
        assert_eq!(
            rig.try_call(client, &queue_with("q", [(arg, value)])),
            Err(refused(406, &text))
        );
    }
    assert!(!rig.has_queue("q"));
}

#[test]
fn quorum_queues_are_durable_and_shared() {
    let (mut rig, client, _) = Rig::open();
    let wrong = |property: &str| {
        let text = format!(
            "PRECONDITION_FAILED - invalid property '{property}' for queue 'q' in vhost '/'"
        );
        Err(refused(406, &text))
    };
    let mut declare = quorum("q", []);
    declare.durable = false;
    assert_eq!(rig.try_call(client, &declare), wrong("non-durable"));
    let mut declare = quorum("q", []);
    declare.exclusive = true;
    assert_eq!(rig.try_call(client, &declare), wrong("exclusive-owner"));
    let mut declare = quorum("q", []);
    declare.auto_delete = true;
    assert_eq!(rig.try_call(client, &declare), wrong("auto-delete"));
    let text = "PRECONDITION_FAILED - invalid arg 'x-max-priority' for queue 'q' in vhost '/' of \
                queue type rabbit_quorum_queue";
    let declare = quorum("q", [("x-max-priority", 5.into())]);
    assert_eq!(rig.try_call(client, &declare), Err(refused(406, text)));
    rig.try_call(client, &quorum("q", [])).unwrap();
}

#[test]
fn rabbitmq_4_has_no_transient_shared_queues() {
    let mut rig = Rig::with(Config::rabbitmq_4());
    let client = rig.connect();
    rig.try_call(client, &exclusive("own")).unwrap();
    rig.try_call(client, &queue("durable")).unwrap();
    let transient = queue("q").durable(false);
    let (code, text) = rig.try_call(client, &transient).unwrap_err();
    assert_eq!(code, 541);
    assert!(
        text.starts_with("INTERNAL_ERROR - Feature `transient_nonexcl_queues`"),
        "{text}"
    );
}

#[test]
fn names_lose_their_line_ends_and_keep_off_amq() {
    let (mut rig, client, channel) = Rig::open();
    let number = channel.number();
    let asked = crate::rig::frame(number, &queue("a\r\nb").into());
    let said = rig.ask_raw(client, &asked);
    assert!(matches!(&said[..], [Method::QueueDeclareOk(ok)] if ok.queue == "ab"));
    let text = "ACCESS_REFUSED - queue name 'amq.q' contains reserved prefix 'amq.*'";
    assert_eq!(
        rig.try_call(client, &queue("amq.q")),
        Err(refused(403, text))
    );
}

#[test]
fn a_name_keeps_its_line_breaks_in_get() {
    let (mut rig, client, channel) = Rig::open();
    rig.declare(client, channel, &queue("ab"));
    let number = channel.number();
    let get = basic::Get {
        queue: name("a\r\nb"),
        ..basic::Get::default()
    };
    let asked = crate::rig::frame(number, &get.into());
    rig.inject_bytes(client, &asked);
    let text = "NOT_FOUND - no queue 'a\r\nb' in vhost '/'";
    assert_eq!(rig.channel_closed(client), Some(refused(404, text)));
}
