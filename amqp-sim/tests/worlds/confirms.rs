//! Publishers with confirms, and consumers.

use std::{sync::Arc, time::Duration};

use amqp_sim::{Check, Fault, FaultKind, Sim, amqp_driver::protocol::ReplyCode, oracle::Ledger};

use super::{
    FAULTS_END, PATIENCE, node,
    programs::{consume, publish_confirmed, republish},
    recovering, secs, some_faults,
};

/// Waits until the queue is empty, and checks the account.
fn finish(sim: &Sim, node: &amqp_sim::Node, ledger: &Ledger, queue: &str) {
    sim.run();
    sim.advance(FAULTS_END.saturating_sub(sim.now()));
    sim.wait_until(PATIENCE, || node.messages(queue) == 0);
    sim.advance(secs(1));
    if let Err(violation) = ledger.finish(&[node]) {
        panic!("{violation}");
    }
}

fn account(sim: &Sim) -> Ledger {
    let ledger = Ledger::new();
    let checked = ledger.clone();
    sim.always("the account of messages", move || checked.check());
    ledger
}

fn confirmed(sim: &Sim) {
    let node = node(sim, "rabbit");
    let ledger = account(sim);
    let mut random = sim.random();
    let publishers = 1 + random.index(2);
    for number in 0..publishers {
        let name = format!("publisher{number}");
        let size = [0, 0, 100, 5000][random.index(4)];
        let count = 5 + random.index(15);
        let connector = recovering(sim, "amqp://rabbit");
        let program = publish_confirmed(connector, ledger.clone(), name.clone(), "q", count, size);
        sim.spawn(&name, program);
    }
    for number in 0..1 + random.index(2) {
        let name = format!("consumer{number}");
        let (ledger, requeue) = (ledger.clone(), [0, 3, 7][random.index(3)]);
        let connector = recovering(sim, "amqp://rabbit");
        let label = name.clone();
        sim.service(&name, move || {
            consume(
                connector.clone(),
                ledger.clone(),
                label.clone(),
                "q",
                requeue,
            )
        });
    }
    sim.faults(some_faults(sim));
    finish(sim, &node, &ledger, "q");
}

fn republished(sim: &Sim) {
    let node = node(sim, "rabbit");
    let ledger = account(sim);
    let mut random = sim.random();
    let count = 5 + random.index(15);
    let connector = recovering(sim, "amqp://rabbit");
    sim.spawn(
        "publisher",
        republish(connector, ledger.clone(), "publisher".into(), "q", count),
    );
    let (connector, consumed) = (recovering(sim, "amqp://rabbit"), ledger.clone());
    sim.service("consumer", move || {
        let name = "consumer".into();
        consume(connector.clone(), consumed.clone(), name, "q", 0)
    });
    sim.faults(some_faults(sim));
    finish(sim, &node, &ledger, "q");
}

#[test]
fn confirms_are_true_and_nothing_confirmed_is_lost() {
    Check::new().seeds(2500).run(confirmed);
}

#[test]
fn republished_messages_arrive_at_least_once() {
    Check::new().seeds(3000).run(republished);
}

/// The queue is deleted now and then, with its messages: outcomes are still true, and all ends.
fn deleted(sim: &Sim) {
    let _node = node(sim, "rabbit");
    let ledger = account(sim);
    let connector = recovering(sim, "amqp://rabbit");
    let name = "publisher".to_owned();
    let program = publish_confirmed(connector, ledger.clone(), name.clone(), "q", 20, 0);
    sim.spawn(&name, program);
    let connector = recovering(sim, "amqp://rabbit");
    sim.service("consumer", move || {
        let name = "consumer".into();
        consume(connector.clone(), ledger.clone(), name, "q", 5)
    });
    let faults = some_faults(sim).delete_queues(["q"]);
    sim.faults(faults.weight(FaultKind::DeleteQueue, 30));
    sim.run();
    assert!(sim.now() < FAULTS_END + PATIENCE, "{:?}", sim.now());
}

#[test]
fn outcomes_are_true_when_queues_are_deleted() {
    Check::new().seeds(500).run(deleted);
}

/// Channels are closed, and often the connection is lost before they are opened again.
fn channels_lost(sim: &Sim) {
    let node = node(sim, "rabbit");
    let ledger = account(sim);
    let connector = recovering(sim, "amqp://rabbit");
    let name = "publisher".to_owned();
    let program = publish_confirmed(connector, ledger.clone(), name.clone(), "q", 20, 0);
    sim.spawn(&name, program);
    let (connector, consumed) = (recovering(sim, "amqp://rabbit"), ledger.clone());
    sim.service("consumer", move || {
        let name = "consumer".into();
        consume(connector.clone(), consumed.clone(), name, "q", 3)
    });
    let mut random = sim.random();
    let rabbit: Arc<str> = "rabbit".into();
    for _ in 0..1 + random.below(4) {
        let at = random.duration(Duration::ZERO, FAULTS_END - secs(5));
        let node = Arc::clone(&rabbit);
        let code = ReplyCode::PRECONDITION_FAILED;
        sim.at(at, Fault::CloseChannels { node, code });
        let node = Arc::clone(&rabbit);
        let code = ReplyCode::CONNECTION_FORCED;
        match random.below(3) {
            0 => {}
            1 => sim.at(at, Fault::Close { node, code }),
            _ => {
                let later = random.duration(Duration::ZERO, secs(3));
                sim.at(at + later, Fault::Close { node, code });
            }
        }
    }
    finish(sim, &node, &ledger, "q");
}

#[test]
fn channels_that_are_lost_with_their_connection_go_on() {
    Check::new().seeds(500).run(channels_lost);
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..20 {
        let run = || {
            let sim = Sim::traced(seed);
            confirmed(&sim);
            (sim.trace(), sim.polls(), sim.now())
        };
        let (first, second) = (run(), run());
        assert!(first.0.lines().len() > 50);
        assert_eq!(first, second);
    }
}
