//! The project's own worlds: handles, recovery and broker under random faults, 10,000 of them.
//!
//! `AMQP_SIM_SEEDS=n` sets the number of each kind.

mod cancelled;
mod confirms;
mod nodes;
mod programs;
mod rpc;
mod settling;

use std::time::Duration;

use amqp_sim::{Connector, Faults, Node, Options, Sim, amqp_driver::recovery::Policy, broker};

/// The time for everything to end once the faults have stopped: some timeouts one after the other,
/// such as those of heartbeats, a request and a confirm.
const PATIENCE: Duration = Duration::from_secs(600);

/// The time at which the faults of all worlds have stopped.
const FAULTS_END: Duration = secs(20);

/// A node, half of the time with a disk.
fn node(sim: &Sim, name: &str) -> Node {
    let has_disk = sim.random().percent(50);
    sim.node_with(name, broker::Config::default().journal(has_disk))
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A connector that recovers, also at its first connect, which waits for the broker.
fn recovering(sim: &Sim, uri: &str) -> Connector {
    let mut options = Options::from_uri(uri).expect("the URI is well-formed");
    options.config.heartbeat = Some(10);
    options.config.channel_max = 32; // tables of channels cost as much as they have rows
    sim.connector_with(options.recovery(Policy::new(0).first_connect(true)))
}

/// A schedule of faults that the seed makes short or long, dense or sparse.
fn some_faults(sim: &Sim) -> Faults {
    let mut random = sim.random();
    let every = Duration::from_millis(200 + random.below(3000));
    let until = secs(2 + random.below(18));
    let kind = match random.below(4) {
        0 => Faults::network(),
        1 => Faults::broker(),
        _ => Faults::all(),
    };
    kind.every(every).until(until)
}
