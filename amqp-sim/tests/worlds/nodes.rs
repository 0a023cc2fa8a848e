//! Several nodes.

use amqp_sim::{
    Check, Sim,
    oracle::{Ledger, check_memory},
};

use super::{
    FAULTS_END, PATIENCE, node,
    programs::{consume, publish_confirmed},
    recovering, secs, some_faults,
};

/// A publisher with the choice between two nodes, and a consumer at each.
fn world(sim: &Sim) {
    let nodes = ["rabbit1", "rabbit2"].map(|name| node(sim, name));
    let ledger = Ledger::new();
    let checked = ledger.clone();
    sim.always("the account of messages", move || checked.check());
    let connector = recovering(sim, "amqp://rabbit1,rabbit2");
    let name = "publisher".to_owned();
    sim.spawn(
        "publisher",
        publish_confirmed(connector, ledger.clone(), name, "q", 15, 0),
    );
    for number in 1..=2 {
        let connector = recovering(sim, &format!("amqp://rabbit{number}"));
        let (ledger, name) = (ledger.clone(), format!("consumer{number}"));
        let label = name.clone();
        sim.service(&name, move || {
            consume(connector.clone(), ledger.clone(), label.clone(), "q", 5)
        });
    }
    sim.faults(some_faults(sim));
    sim.run();
    sim.advance(FAULTS_END.saturating_sub(sim.now()));
    sim.wait_until(PATIENCE, || {
        nodes.iter().all(|node| node.messages("q") == 0)
    });
    sim.advance(secs(1));
    if let Err(violation) = ledger.finish(&[&nodes[0], &nodes[1]]) {
        panic!("{violation}");
    }
}

#[test]
fn nothing_confirmed_by_either_node_is_lost() {
    Check::new().seeds(500).run(world);
}

/// A consumer that takes nothing, and a publisher that a slow network holds up.
fn full(sim: &Sim) {
    let node = sim.node("rabbit");
    let connector = recovering(sim, "amqp://rabbit");
    let limits = connector.options().config.limits.clone();
    let connection = sim.block_on(async move { connector.connect().await });
    let connection = connection.expect("nothing fails yet");
    let checked = connection.clone();
    sim.always("memory", move || check_memory(&checked, &limits));
    let flooding = connection.clone();
    sim.spawn("flood", async move {
        super::settling::flood(flooding, 200, 64 << 10).await
    });
    sim.faults(super::Faults::network().every(secs(3)).until(secs(30)));
    sim.run();
    // The queue keeps ten of the messages.
    assert!(node.inspect().memory < 20 * (80 << 10));
}

#[test]
fn memory_stays_within_its_limits() {
    Check::new().seeds(50).run(full);
}
