//! The bounds of memory.

use amqp_broker::{AcceptError, Config, Limits};
use amqp_core::{client::Event, protocol::basic, wire::ShortStr};

use crate::rig::{Rig, bind, consumer, frame, name, queue, refused, tag, up_to};

fn with(change: impl FnOnce(&mut Limits)) -> Rig {
    let mut config = Config::default();
    change(&mut config.limits);
    Rig::with(config)
}

#[test]
fn a_connection_too_many_is_not_accepted() {
    let mut rig = with(|limits| limits.connections = 2);
    let first = rig.connect();
    rig.connect();
    let now = rig.now;
    let refused = rig.broker.accept(now);
    assert_eq!(refused, Err(AcceptError::TooManyConnections { limit: 2 }));
    rig.cut(first);
    assert!(rig.broker.accept(now).is_ok());
}

#[test]
fn queues_bindings_and_consumers_are_counted() {
    let mut rig = with(|limits| {
        limits.queues = 1;
        limits.bindings = 1;
        limits.consumers = 1;
    });
    let client = rig.connect();
    rig.try_call(client, &queue("q")).unwrap();
    rig.try_call(client, &bind("q", "amq.direct", "a")).unwrap();
    let channel = rig.channel(client);
    rig.consume(client, channel, consumer("q", "a")).unwrap();
    let text = "NOT_ALLOWED - reached maximum (1) of consumers per channel";
    assert_eq!(
        rig.consume(client, channel, consumer("q", "b")),
        Err(refused(530, text))
    );
    let client = rig.connect();
    assert_eq!(rig.try_call(client, &queue("other")).unwrap_err().0, 506);
    let client = rig.connect();
    let more = bind("q", "amq.direct", "b");
    assert_eq!(rig.try_call(client, &more).unwrap_err().0, 506);
}

#[test]
fn a_message_too_large_is_406() {
    let mut rig = with(|limits| limits.message = 1000);
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    rig.publish(client, channel, "q", &"x".repeat(1000));
    rig.publish(client, channel, "q", &"x".repeat(1001));
    let text = "PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000";
    assert_eq!(rig.channel_closed(client), Some(refused(406, text)));
    assert_eq!(rig.inspect("q").ready, 1);
    let channel = rig.channel(client);
    rig.publish(client, channel, "q", "next");
    assert_eq!(rig.inspect("q").ready, 2);
}

#[test]
fn a_header_out_of_place_is_505_whatever_its_size() {
    let header = |class: u16, weight: u16, size: u64| {
        let head = [class.to_be_bytes(), weight.to_be_bytes()].concat();
        let payload = [&head[..], &size.to_be_bytes(), &[0, 0]].concat();
        [&[2, 0, 1, 0, 0, 0, 14][..], &payload, &[0xCE]].concat()
    };
    let publish = frame(1, &basic::Publish::default().into());
    let large = 1 << 40;
    for (bytes, text) in [
        (
            header(60, 0, large),
            "expected method frame, got non method frame instead",
        ),
        (
            [publish.clone(), header(50, 0, large)].concat(),
            "expected content header for class 60, got one for class 50 instead",
        ),
        (
            [publish.clone(), header(60, 1, large)].concat(),
            "expected content header for class 60, got non content header frame instead",
        ),
        (
            [publish, header(60, 0, 5), header(60, 0, large)].concat(),
            "expected content body, got non content body frame instead",
        ),
    ] {
        let (mut rig, client, _) = Rig::open();
        rig.inject_bytes(client, &bytes);
        let text = format!("UNEXPECTED_FRAME - {text}");
        assert_eq!(rig.closed(client), Some(refused(505, &text)));
    }
}

#[test]
fn a_slow_consumer_costs_bounded_memory() {
    let mut rig = with(|limits| limits.output = 10_000);
    let slow = rig.connect();
    let other = rig.connect();
    let (taken, given) = (rig.channel(slow), rig.channel(other));
    rig.declare(slow, taken, &queue("q"));
    let mut consume = consumer("q", "c");
    consume.no_ack = true;
    rig.consume(slow, taken, consume).unwrap();
    rig.stall(slow, true);
    for number in 0..100 {
        rig.publish(other, given, "q", &format!("{number:01000}"));
    }
    // The output is bounded, the rest waits in the queue.
    assert!(rig.inspect("q").ready > 80);
    rig.stall(slow, false);
    assert_eq!(rig.inspect("q").ready, 0);
    let bodies = rig.bodies(slow);
    let numbers: Vec<usize> = bodies.iter().map(|body| body.parse().unwrap()).collect();
    assert_eq!(numbers, Vec::from_iter(0..100));
}

#[test]
fn a_client_that_asks_and_does_not_read_is_not_read() {
    let mut rig = with(|limits| limits.replies = 10_000);
    let client = rig.connect();
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    rig.stall(client, true);
    let asked = frame(channel.number(), &crate::rig::passive("q").into());
    rig.inject_bytes(client, &asked.repeat(10_000));
    assert!(!rig.broker.wants_input(rig.key(client)));
    let said = rig.ask_raw(client, &[]);
    // A client that reads at last gets all replies.
    assert_eq!(said.len(), 10_000);
    assert!(rig.broker.wants_input(rig.key(client)));
}

#[test]
fn publishers_are_blocked_while_memory_is_short() {
    let mut rig = with(|limits| limits.memory = 10_000);
    let publisher = rig.connect();
    let worker = rig.connect();
    let (out, work) = (rig.channel(publisher), rig.channel(worker));
    rig.declare(worker, work, &queue("q"));
    while !rig.client(publisher).is_blocked() {
        rig.publish(publisher, out, "q", &"x".repeat(1000));
    }
    let blocked: ShortStr = name("low on memory");
    assert_eq!(rig.events(publisher), [Event::Blocked { reason: blocked }]);
    assert!(rig.broker.inspect().memory_alarm);
    assert!(rig.broker.inspect().connections[publisher].blocked);
    assert!(!rig.broker.wants_input(rig.key(publisher)));
    assert!(rig.broker.inspect().memory < 12_000);
    // Others go on.
    assert!(rig.broker.wants_input(rig.key(worker)));
    rig.consume(worker, work, consumer("q", "c")).unwrap();
    rig.ack(worker, work, up_to(4));
    assert_eq!(rig.events(publisher), [Event::Unblocked]);
    assert!(rig.broker.wants_input(rig.key(publisher)));
    assert!(!rig.broker.inspect().memory_alarm);
    rig.publish(publisher, out, "q", "more");
    assert_eq!(rig.bodies(worker).last().unwrap(), "more");
}

#[test]
fn a_blocked_connection_keeps_its_heartbeats() {
    let mut rig = Rig::new();
    let client = rig.begin(amqp_core::client::Config::default().heartbeat(1));
    let channel = rig.channel(client);
    rig.declare(client, channel, &queue("q"));
    rig.broker.faults().memory_alarm(true);
    rig.publish(client, channel, "q", "1");
    rig.advance(60_000);
    assert!(rig.client(client).is_open());
    rig.broker.faults().memory_alarm(false);
    rig.exchange();
    assert_eq!(rig.counts(client, channel, "q"), (1, 0));
}

#[test]
fn all_memory_is_given_back() {
    let (mut rig, client, channel) = Rig::open();
    for one in ["a", "b"] {
        rig.declare(client, channel, &queue(one));
        rig.call(client, channel, &bind(one, "amq.fanout", ""))
            .unwrap();
    }
    rig.publish_to(
        client,
        channel,
        "amq.fanout",
        "",
        &basic::Properties::default(),
        "1",
    );
    let once = rig.broker.inspect().memory;
    assert!(once > 0);
    rig.get(client, channel, "a").unwrap();
    rig.drain(client, channel, "b");
    assert_eq!(rig.broker.inspect().memory, once);
    rig.ack(client, channel, tag(1));
    assert_eq!(rig.broker.inspect().memory, 0);
    // Half a message, and then the end.
    let publish = basic::Publish {
        routing_key: name("a"),
        ..basic::Publish::default()
    };
    let mut half = frame(channel.number(), &publish.into());
    half.extend([
        2, 0, 1, 0, 0, 0, 14, 0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0xCE,
    ]);
    half.extend([3, 0, 1, 0, 0, 0, 3, 1, 2, 3, 0xCE]);
    rig.inject_bytes(client, &half);
    assert_eq!(rig.broker.inspect().memory, 3);
    rig.cut(client);
    assert_eq!(rig.broker.inspect().memory, 0);
}

/// The names of a message count as its content does.
#[test]
fn the_names_of_a_message_count_as_memory() {
    let memory_of = |key: &str| {
        let (mut rig, client, channel) = Rig::open();
        rig.declare(client, channel, &queue("q"));
        rig.call(client, channel, &bind("q", "amq.fanout", ""))
            .unwrap();
        let properties = basic::Properties::default();
        rig.publish_to(client, channel, "amq.fanout", key, &properties, "1");
        rig.broker.inspect().memory
    };
    assert_eq!(memory_of(&"k".repeat(200)), memory_of("") + 200);
}
