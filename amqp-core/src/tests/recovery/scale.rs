//! Thousands of entities: pipelined, with progress, within bounded output.

use alloc::format;

use super::*;
use crate::recovery::{Binding, Entity};

const MANY: usize = 10_000;

#[test]
fn thousands_of_entities_and_consumers_are_restored_in_few_round_trips() {
    let mut rig = Rig::open(Policy::new(1));
    let channels: Vec<_> = (0..100).map(|_| rig.open_channel()).collect();
    for number in 0..1000 {
        let queue = format!("queue-{number}");
        rig.broker.queues.insert(name(&queue), queue_named(&queue));
        rig.consume(channels[number % 100], &queue);
    }
    let topology = rig.recovery.topology_mut();
    topology.declare_exchange(exchange_named("work", "topic"));
    for number in 0..MANY {
        let queue = format!("queue-{number}");
        topology.declare_queue(queue_named(&queue));
        let mut binding = Binding::new(Entity::Queue(name(&queue)), name("work"));
        binding.routing_key = name(&format!("key.{number}"));
        topology.bind(binding);
    }
    rig.lose();
    rig.broker = Broker::default();
    rig.changes.clear();
    rig.recover();
    assert_eq!(rig.broker.queues.len(), MANY);
    assert_eq!(rig.broker.bindings.len(), MANY);
    assert_eq!(rig.broker.consumers.len(), 1000);
    let report = rig.report();
    assert_eq!(report.failures, []);
    assert_eq!(report.steps, 2 * MANY + 1000 + 100 + 3);
    std::println!("{report}");
    assert!(report.round_trips <= 30, "{}", report.round_trips);
    let progress: Vec<_> = rig
        .changes
        .iter()
        .filter_map(|it| match it.event {
            RecoveryEvent::Recovering { done, of } => Some((done, of)),
            _ => None,
        })
        .collect();
    assert!(progress.len() >= 15 && progress.len() <= 22, "{progress:?}");
    assert!(progress.is_sorted(), "{progress:?}");
    assert_eq!(progress.last(), Some(&(report.steps, report.steps)));
}

#[test]
fn a_binding_waits_for_the_name_of_its_queue_and_not_each_for_its_own() {
    let mut rig = Rig::open(Policy::new(1));
    let id = rig.open_channel();
    rig.call(id, &exchange_named("work", "topic"));
    for number in 0..200 {
        rig.call(id, &unnamed());
        rig.call(id, &bind("", "work", &format!("key.{number}")));
    }
    rig.lose();
    rig.recover();
    assert_eq!(rig.failures(), [""; 0]);
    assert_eq!(rig.broker.bindings.len(), 200);
    assert_eq!(rig.report().renamed.len(), 200);
    assert!(
        rig.report().round_trips <= 6,
        "{}",
        rig.report().round_trips
    );
}

#[test]
fn a_small_limit_of_unsent_requests_is_kept() {
    let mut rig = Rig::open(Policy::new(1));
    let topology = rig.recovery.topology_mut();
    for number in 0..500 {
        topology.declare_queue(queue_named(&format!("queue-{number}")));
    }
    rig.lose();
    while let Step::Wait(at) = rig.recovery.poll_step(rig.pair.now) {
        rig.pair.now = at;
    }
    let mut config = config();
    config.limits = config.limits.unsent_requests(600);
    rig.connect_with(config);
    rig.shake_hands();
    for _ in 0..5000 {
        if rig.recovery.is_recovered() {
            break;
        }
        assert!(rig.pair.client.buffered() < 1000);
        rig.pump();
        if !rig.recovery.is_recovered() {
            rig.pass_time();
        }
    }
    assert_eq!(rig.broker.queues.len(), 500);
}
