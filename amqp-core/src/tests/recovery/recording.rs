//! The recording of the topology, from requests and replies.

use alloc::vec;

use super::*;
use crate::{
    NoWait,
    recovery::{Binding, ChannelMode, Entity, Topology},
    wire::FieldTable,
};

fn rig() -> (Rig, ChannelId) {
    let mut rig = Rig::open(Policy::new(1));
    let id = rig.open_channel();
    (rig, id)
}

fn queues(topology: &Topology) -> Vec<String> {
    let queues = topology.queues();
    queues.map(|it| it.declare.queue.to_string()).collect()
}

fn exchanges(topology: &Topology) -> Vec<String> {
    let exchanges = topology.exchanges();
    exchanges.map(|it| it.exchange.to_string()).collect()
}

fn bindings(topology: &Topology) -> Vec<String> {
    topology.bindings().map(ToString::to_string).collect()
}

/// A request of the host without a reply.
fn send_no_wait<R: NoWait + ClientSent>(rig: &mut Rig, id: ChannelId, request: &R) {
    rig.pair.client_channel(id).send(request).unwrap();
    let mut request = request.clone();
    request.set_no_wait(true);
    rig.recovery.handle_sent(id, None, &request.into());
}

/// A request that the host abandons.
fn abandon<R: Request + ClientSent>(rig: &mut Rig, id: ChannelId, request: &R) {
    let number = rig.pair.client_channel(id).call(request).unwrap();
    let method = request.clone().into();
    rig.recovery.handle_sent(id, Some(number), &method);
    rig.pair.client.abandon(id, number);
    rig.recovery.handle_abandoned(number);
}

#[test]
fn passive_and_predeclared_entities_are_not_recorded_and_bindings_to_them_are() {
    let (mut rig, id) = rig();
    rig.call(id, &exchange_named("amq.topic", "topic"));
    rig.call(
        id,
        &exchange::Declare {
            passive: true,
            ..exchange_named("there", "")
        },
    );
    rig.call(
        id,
        &queue::Declare {
            passive: true,
            ..queue_named("there")
        },
    );
    rig.call(id, &queue_named("jobs"));
    rig.call(id, &bind("jobs", "amq.topic", "a"));
    let topology = rig.recovery.topology();
    assert_eq!(queues(topology), ["jobs"]);
    assert_eq!(exchanges(topology), [""; 0]);
    assert_eq!(
        bindings(topology),
        [r#"queue "jobs" to exchange "amq.topic" with key "a""#]
    );
}

#[test]
fn a_request_is_recorded_when_its_reply_arrives() {
    let (mut rig, id) = rig();
    rig.send(id, &queue_named("jobs"));
    assert_eq!(queues(rig.recovery.topology()), [""; 0]);
    rig.pump();
    assert_eq!(queues(rig.recovery.topology()), ["jobs"]);
    rig.send(id, &queue_named("never"));
    rig.lose();
    rig.recover();
    assert_eq!(queues(rig.recovery.topology()), ["jobs"]);
    assert_eq!(
        queues(rig.recovery.topology()),
        rig.broker
            .queues
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    );
}

#[test]
fn requests_without_a_reply_are_recorded_in_order() {
    let (mut rig, id) = rig();
    send_no_wait(&mut rig, id, &queue_named("jobs"));
    assert_eq!(queues(rig.recovery.topology()), ["jobs"]);
    rig.call(id, &exchange_named("work", "topic"));
    // The name comes with the reply to the request before.
    rig.send(id, &unnamed());
    send_no_wait(&mut rig, id, &bind("", "work", "a"));
    send_no_wait(&mut rig, id, &bind("", "work", ""));
    assert_eq!(bindings(rig.recovery.topology()), [""; 0]);
    rig.pump();
    let queue = generated(&rig);
    let recorded: Vec<_> = rig.recovery.topology().bindings().collect();
    assert_eq!(recorded.len(), 2);
    assert!(
        recorded
            .iter()
            .all(|it| it.destination == Entity::Queue(queue.clone()))
    );
    assert!(recorded.iter().any(|it| it.routing_key == queue));
    assert_eq!(recorded, rig.broker.bindings.iter().collect::<Vec<_>>());
}

#[test]
fn an_abandoned_declaration_is_not_recorded_and_an_abandoned_deletion_is() {
    let (mut rig, id) = rig();
    for queue in ["jobs", "logs"] {
        rig.call(id, &queue_named(queue));
    }
    abandon(&mut rig, id, &queue_named("new"));
    let queue = name("logs");
    let delete = queue::Delete {
        queue,
        ..queue::Delete::default()
    };
    abandon(&mut rig, id, &delete);
    rig.pump();
    assert_eq!(queues(rig.recovery.topology()), ["jobs"]);
}

#[test]
fn a_deletion_whose_reply_is_lost_counts() {
    let (mut rig, id) = rig();
    for queue in ["jobs", "logs"] {
        rig.call(id, &queue_named(queue));
    }
    rig.call(id, &exchange_named("work", "topic"));
    rig.call(id, &bind("jobs", "work", "a"));
    rig.call(id, &bind("jobs", "work", "b"));
    rig.consume(id, "jobs");
    rig.send(
        id,
        &queue::Delete {
            queue: name("logs"),
            ..queue::Delete::default()
        },
    );
    rig.send(
        id,
        &queue::Unbind {
            queue: name("jobs"),
            exchange: name("work"),
            routing_key: name("a"),
            ..queue::Unbind::default()
        },
    );
    rig.send(
        id,
        &basic::Cancel {
            consumer_tag: name("ctag-0"),
            no_wait: false,
        },
    );
    rig.send(id, &queue_named("never"));
    rig.lose();
    let topology = rig.recovery.topology();
    assert_eq!(queues(topology), ["jobs"]);
    assert_eq!(
        bindings(topology),
        [r#"queue "jobs" to exchange "work" with key "b""#]
    );
    assert_eq!(topology.channel(1).unwrap().consumers().count(), 0);
}

#[test]
fn what_is_deleted_takes_its_bindings_and_consumers_along_and_does_not_come_back() {
    let (mut rig, id) = rig();
    rig.call(id, &exchange_named("work", "topic"));
    rig.call(id, &exchange_named("news", "topic"));
    for queue in ["jobs", "logs"] {
        rig.call(id, &queue_named(queue));
        rig.call(id, &bind(queue, "work", "a"));
        rig.call(id, &bind(queue, "news", "a"));
        rig.consume(id, queue);
    }
    rig.call(
        id,
        &queue::Delete {
            queue: name("jobs"),
            ..queue::Delete::default()
        },
    );
    rig.call(
        id,
        &exchange::Delete {
            exchange: name("news"),
            ..exchange::Delete::default()
        },
    );
    let recorded = rig.recovery.topology().clone();
    assert_eq!(
        bindings(&recorded),
        [r#"queue "logs" to exchange "work" with key "a""#]
    );
    assert_eq!(recorded.channel(1).unwrap().consumers().count(), 1);
    rig.lose();
    rig.broker.restart();
    rig.recover();
    assert_eq!(rig.recovery.topology(), &recorded);
    assert_eq!(rig.broker.queues.len(), 1);
    assert_eq!(rig.broker.exchanges.len(), 1);
    assert_eq!(rig.consumers(), ["1 ctag-1 logs"]);
}

#[test]
fn an_auto_delete_queue_goes_with_its_last_consumer_if_it_had_one() {
    let (mut rig, first) = rig();
    let second = rig.open_channel();
    let auto_delete = |queue| queue::Declare {
        auto_delete: true,
        ..queue_named(queue)
    };
    for queue in ["unused", "used", "both"] {
        rig.call(first, &auto_delete(queue));
    }
    rig.call(
        first,
        &queue::Declare {
            exclusive: true,
            ..queue_named("mine")
        },
    );
    rig.consume(first, "used");
    rig.consume(first, "both");
    rig.consume(first, "mine");
    rig.consume(second, "both");
    for tag in ["ctag-0", "ctag-1", "ctag-2"] {
        rig.call(
            first,
            &basic::Cancel {
                consumer_tag: name(tag),
                no_wait: false,
            },
        );
    }
    assert_eq!(queues(rig.recovery.topology()), ["both", "mine", "unused"]);
    let request = rig
        .pair
        .client_channel(second)
        .close(crate::protocol::ReplyCode::SUCCESS, "")
        .unwrap();
    let close = crate::protocol::channel::Close::default();
    rig.recovery
        .handle_sent(second, Some(request), &close.into());
    rig.pump();
    let recorded = rig.recovery.topology();
    assert_eq!(queues(recorded), ["mine", "unused"]);
    assert_eq!(recorded.channels().count(), 1);
    let broker = rig.broker.queues.keys().map(ToString::to_string);
    assert_eq!(broker.collect::<Vec<_>>(), ["mine", "unused"]);
}

#[test]
fn a_consumer_that_the_server_cancels_is_forgotten() {
    let (mut rig, id) = rig();
    rig.call(
        id,
        &queue::Declare {
            auto_delete: true,
            ..queue_named("jobs")
        },
    );
    rig.consume(id, "jobs");
    let cancel = basic::Cancel {
        consumer_tag: name("ctag-0"),
        no_wait: true,
    };
    let of_server = rig.broker.channels[&1];
    rig.pair.server_channel(of_server).send(&cancel).unwrap();
    rig.pump();
    let event = rig.events.pop();
    assert!(
        matches!(event, Some(Event::ConsumerCancelled { .. })),
        "{event:?}"
    );
    let topology = rig.recovery.topology();
    assert_eq!(topology.channel(1).unwrap().consumers().count(), 0);
    assert_eq!(queues(topology), [""; 0]);
}

#[test]
fn the_state_of_a_channel_is_recorded_with_the_prefetch_of_each_consumer() {
    let (mut rig, id) = rig();
    let qos = |count, global| basic::Qos {
        prefetch_count: count,
        global,
        ..basic::Qos::default()
    };
    rig.call(id, &queue_named("jobs"));
    rig.consume(id, "jobs");
    rig.send(id, &qos(5, false));
    rig.send_consume(id, "jobs");
    rig.send(id, &qos(7, false));
    rig.send(id, &qos(100, true));
    rig.pump();
    rig.call(id, &crate::protocol::tx::Select);
    let channel = rig.recovery.topology().channel(1).unwrap();
    assert_eq!(channel.mode, ChannelMode::Transaction);
    assert_eq!(channel.qos, Some(qos(7, false)));
    assert_eq!(channel.global_qos, Some(qos(100, true)));
    let prefetch = channel.consumers().map(|(_, it)| it.qos.clone());
    assert_eq!(prefetch.collect::<Vec<_>>(), [None, Some(qos(5, false))]);
    rig.lose();
    rig.recover();
    assert_eq!(
        rig.broker.log[2..],
        [
            "1 channel.open",
            "1 basic.qos 100 true",
            "1 tx.select",
            "1 basic.consume jobs ctag-0",
            "1 basic.qos 5 false",
            "1 basic.consume jobs ctag-1",
            "1 basic.qos 7 false",
        ][..]
    );
}

#[test]
fn auto_delete_exchanges_go_with_their_last_binding_and_those_bound_to_them_follow() {
    let mut topology = Topology::default();
    for number in 0..50_000 {
        topology.declare_exchange(exchange::Declare {
            auto_delete: true,
            ..exchange_named(&alloc::format!("e{number}"), "fanout")
        });
        let next = Entity::Exchange(name(&alloc::format!("e{}", number + 1)));
        topology.bind(Binding::new(next, name(&alloc::format!("e{number}"))));
    }
    let last = Binding::new(Entity::Exchange(name("e50000")), name("e49999"));
    topology.unbind(&last);
    assert!(topology.is_empty(), "a chain, without recursion");
}

#[test]
fn bindings_are_the_same_whatever_the_order_of_their_arguments() {
    let arguments = |names: [&str; 2]| -> FieldTable {
        names.into_iter().map(|it| (name(it), 1.into())).collect()
    };
    let binding = |arguments| Binding {
        arguments,
        ..Binding::new(Entity::Queue(name("q")), name("e"))
    };
    let mut topology = Topology::default();
    topology.bind(binding(arguments(["a", "b"])));
    topology.bind(binding(arguments(["b", "a"])));
    topology.bind(binding(arguments(["a", "c"])));
    topology.bind(binding(FieldTable::new()));
    assert_eq!(topology.bindings().count(), 3);
    topology.unbind(&binding(arguments(["b", "a"])));
    assert_eq!(topology.bindings().count(), 2);
    let texts = vec![
        r#"queue "q" to exchange "e""#.to_string(),
        r#"queue "q" to exchange "e" and arguments {"a": I32(1), "c": I32(1)}"#.to_string(),
    ];
    assert_eq!(bindings(&topology), texts);
}
