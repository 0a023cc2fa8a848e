//! Connections that are lost, once or again and again, also at each step of a recovery.

use alloc::vec;

use super::*;
use crate::recovery::Mode;

#[test]
fn the_whole_topology_is_back_after_a_restart() {
    let mut rig = Rig::with_topology(Policy::new(1));
    let plan = rig.recovery.plan().to_string();
    let (exchanges, queues) = (rig.broker.exchanges.clone(), rig.broker.queues.clone());
    let (bindings, consumers) = (rig.broker.bindings.clone(), rig.consumers());
    rig.lose();
    assert!(!rig.recovery.is_recovered());
    rig.broker = Broker::default(); // another node, empty
    rig.recover();
    assert_eq!(rig.broker.exchanges, exchanges);
    assert_eq!(rig.broker.queues, queues);
    assert_eq!(rig.broker.bindings, bindings);
    assert_eq!(rig.consumers(), consumers);
    assert_eq!(
        rig.broker.log,
        [
            "2047 channel.open",
            "2047 exchange.declare inner",
            "2047 exchange.declare work",
            "2047 queue.declare jobs",
            "2047 queue.declare logs",
            "2047 exchange.bind inner work",
            "2047 queue.bind jobs work a.*",
            "2047 queue.bind logs work a.*",
            "1 channel.open",
            "2 channel.open",
            "2 confirm.select",
            "2 basic.qos 10 false",
            "2 basic.consume jobs ctag-0",
            "2 basic.qos 20 false",
            "2 basic.consume logs ctag-1",
        ]
    );
    assert_eq!(plan.lines().count(), rig.report().steps);
    assert_eq!(rig.failures(), Vec::<String>::new());
    assert_eq!(rig.recovery.plan().to_string(), plan);
    // Open, entities; their close with the opens, then the channels.
    assert_eq!(rig.report().round_trips, 4);
}

#[test]
fn the_recording_of_a_recovery_is_readable() {
    let mut rig = Rig::with_topology(Policy::new(1));
    rig.changes.clear();
    rig.lose();
    let _connect = rig.recovery.poll_step(rig.pair.now + SECOND);
    rig.pair.now = rig.pair.now + SECOND;
    let refused = crate::recovery::ConnectFailure::Unreachable;
    rig.recovery
        .handle_connect_failed(rig.pair.now, refused, "10.0.0.1:5672: connection refused");
    rig.recover();
    let lines: Vec<_> = rig.changes.iter().map(ToString::to_string).collect();
    let stable: Vec<_> = lines
        .iter()
        .map(|line| line.split_once(" s ").unwrap().1)
        .filter(|line| !line.starts_with("recovering"))
        .collect();
    assert_eq!(
        stable[0],
        "lost: the transport ended while the connection was open"
    );
    assert!(
        stable[1].starts_with("reconnecting: attempt 1 in 0."),
        "{stable:?}"
    );
    assert!(
        stable[2].starts_with("reconnecting: attempt 2 in 0.")
            && stable[2].ends_with(", after: 10.0.0.1:5672: connection refused"),
        "{stable:?}"
    );
    assert_eq!(stable[3], "connected");
    assert!(
        stable[4].starts_with("recovered in ") && stable[4].ends_with(", 16 steps, 4 round trips"),
        "{stable:?}"
    );
    assert!(lines[0].starts_with("+0.000 s "), "{lines:?}");
}

#[test]
fn a_connection_may_be_lost_at_each_step_of_its_recovery() {
    let mut rig = Rig::with_topology(Policy::new(3));
    let (bindings, consumers) = (rig.broker.bindings.clone(), rig.consumers());
    rig.lose();
    rig.recover();
    let steps = rig.broker.log.len();
    for cut in 0..=steps {
        for restart in [false, true] {
            rig.lose();
            if restart {
                rig.broker = Broker::default();
            }
            rig.broker.cut_after = Some(cut);
            rig.changes.clear();
            rig.recover();
            let cut_happened = cut < steps || rig.broker.cut_after.is_none();
            assert!(cut_happened, "{cut}");
            assert_eq!(rig.broker.bindings, bindings, "{cut}");
            assert_eq!(rig.consumers(), consumers, "{cut}");
            assert_eq!(rig.failures(), Vec::<String>::new(), "{cut}");
            let lost = rig.changes.iter();
            let lost = lost.filter(|it| matches!(it.event, RecoveryEvent::Lost(_)));
            assert!(lost.count() >= 1, "{cut}");
        }
    }
}

#[test]
fn attempts_of_a_loss_in_the_middle_go_on_counting_and_begin_anew_afterwards() {
    let mut rig = Rig::with_topology(Policy::new(3));
    rig.lose();
    for _ in 0..5 {
        rig.broker.cut_after = Some(3);
        while rig.recovery.poll_step(rig.pair.now) != (Step::Idle) {
            let Step::Wait(at) = rig.recovery.poll_step(rig.pair.now) else {
                rig.connect();
                rig.pump();
                break;
            };
            rig.pair.now = at;
        }
    }
    let attempts = |rig: &Rig| -> Vec<u32> {
        let changes = rig.changes.iter();
        let attempts = changes.filter_map(|it| match it.event {
            RecoveryEvent::Reconnecting { attempt, .. } => Some(attempt),
            _ => None,
        });
        attempts.collect()
    };
    assert_eq!(attempts(&rig), [1, 2, 3, 4, 5, 6]);
    rig.broker.cut_after = None;
    rig.recover();
    rig.lose();
    assert_eq!(attempts(&rig).last(), Some(&1));
}

#[test]
fn a_server_named_queue_has_its_new_name_everywhere() {
    let mut rig = Rig::open(Policy::new(1));
    let id = rig.open_channel();
    rig.call(id, &exchange_named("work", "direct"));
    rig.call(id, &unnamed());
    let old = generated(&rig);
    rig.call(id, &bind(&old, "work", "a"));
    rig.call(id, &bind(&old, "work", &old));
    let consumer = rig.consume(id, &old);
    rig.lose();
    rig.recover();
    let new = generated(&rig);
    assert_ne!(new, old);
    let queue = crate::recovery::Entity::Queue(new.clone());
    let bindings: Vec<_> = rig.broker.bindings.iter().collect();
    assert_eq!(bindings.len(), 2);
    assert!(bindings.iter().all(|it| it.destination == queue));
    assert!(bindings.iter().any(|it| it.routing_key == new));
    assert_eq!(rig.consumers(), [alloc::format!("1 ctag-0 {new}")]);
    assert_eq!(rig.report().renamed, [(old.clone(), new.clone())]);
    let renamed = RecoveryEvent::QueueRenamed {
        from: old,
        to: new.clone(),
    };
    assert!(rig.changes.iter().any(|it| it.event == renamed));
    let recorded = rig.recovery.topology().channel(1).unwrap();
    assert_eq!(recorded.consumer(consumer).unwrap().consume.queue, new);
    // Again: the recorded names are those of now.
    rig.lose();
    rig.recover();
    assert_eq!(rig.report().renamed, [(new, generated(&rig))]);
    assert_eq!(rig.failures(), Vec::<String>::new());
    let report = rig.report().to_string();
    assert!(
        report.ends_with(" round trips, 1 queue renamed"),
        "{report}"
    );
}

#[test]
fn the_modes_restore_their_part() {
    for (mode, expected) in [
        (Mode::Nothing, vec![]),
        (
            Mode::ConnectionOnly,
            vec![
                "1 channel.open",
                "2 channel.open",
                "2 confirm.select",
                "2 basic.qos 20 false",
            ],
        ),
        (
            Mode::ConsumersOnly,
            vec![
                "1 channel.open",
                "2 channel.open",
                "2 confirm.select",
                "2 basic.qos 10 false",
                "2 basic.consume jobs ctag-0",
                "2 basic.qos 20 false",
                "2 basic.consume logs ctag-1",
            ],
        ),
    ] {
        let mut rig = Rig::with_topology(Policy::new(1).mode(mode));
        rig.changes.clear();
        rig.lose();
        rig.recover();
        assert_eq!(rig.broker.log, expected, "{mode:?}");
        let ended = |it: &&TimedEvent| {
            matches!(
                it.event,
                RecoveryEvent::ChannelEnded { .. } | RecoveryEvent::ConsumerEnded { .. }
            )
        };
        let ended = rig.changes.iter().filter(ended).count();
        let expected = match mode {
            Mode::Nothing => 4,
            Mode::ConnectionOnly => 2,
            _ => 0,
        };
        assert_eq!(ended, expected, "{mode:?}");
    }
}

#[test]
fn transient_entities_alone_are_declared_with_their_bindings() {
    let mut rig = Rig::open(Policy::new(1).mode(Mode::TransientOnly));
    let id = rig.open_channel();
    rig.call(id, &exchange_named("work", "topic"));
    rig.call(id, &queue_named("jobs"));
    rig.call(id, &bind("jobs", "work", "a"));
    rig.call(
        id,
        &exchange::Declare {
            durable: false,
            ..exchange_named("news", "fanout")
        },
    );
    rig.call(id, &bind("jobs", "news", ""));
    rig.call(
        id,
        &queue::Declare {
            auto_delete: true,
            ..queue_named("own")
        },
    );
    rig.call(id, &bind("own", "work", "b"));
    rig.lose();
    rig.broker.restart();
    rig.recover();
    assert_eq!(
        rig.broker.log,
        [
            "2047 channel.open",
            "2047 exchange.declare news",
            "2047 queue.declare own",
            "2047 queue.bind jobs news ",
            "2047 queue.bind own work b",
            "1 channel.open",
        ]
    );
    assert_eq!(rig.failures(), Vec::<String>::new());
}

#[test]
fn a_topology_of_an_earlier_process_is_restored_on_the_first_connection() {
    let rig = Rig::with_topology(Policy::new(1));
    let mut recovery = Recovery::new(Policy::new(2), Instant::ORIGIN);
    *recovery.topology_mut() = rig.recovery.topology().clone();
    let other = Rig::open_with(recovery);
    assert_eq!(other.broker.queues, rig.broker.queues);
    assert_eq!(other.broker.bindings, rig.broker.bindings);
    assert_eq!(other.broker.consumers.len(), 0);
    assert!(other.broker.log.iter().all(|it| it.starts_with("2047 ")));
}

#[test]
fn a_number_of_an_earlier_process_is_free_and_the_queues_of_its_consumers_stay() {
    let mut rig = Rig::open(Policy::new(1));
    let id = rig.open_channel();
    let declare = queue::Declare {
        auto_delete: true,
        ..queue_named("own")
    };
    rig.call(id, &declare);
    rig.consume(id, "own");
    let topology = rig.recovery.topology().clone();
    let mut recovery = Recovery::new(Policy::new(2), Instant::ORIGIN);
    *recovery.topology_mut() = topology;
    let mut other = Rig::open_with(recovery);
    assert_eq!(other.open_channel(), id);
    other.lose();
    other.broker.restart();
    other.broker.queues.clear();
    other.recover();
    assert!(other.broker.queues.contains_key(&name("own")));
    assert_eq!(other.consumers(), [""; 0]);
}
