//! The project's own worlds: handles, recovery and broker under random faults, 10,000 of them.
//!
//! `AMQP_SIM_SEEDS=n` sets the number of each kind.

mod confirms;
mod nodes;
mod programs;
mod rpc;
mod settling;

use std::time::Duration;

use amqp_sim::{Faults, Options, Sim, amqp_driver::Connector};

/// The time for everything to end once the faults have stopped: several timeouts of an hour-glass
/// that was turned at the last moment, such as a heartbeat, a request and a confirm.
const PATIENCE: Duration = Duration::from_secs(600);

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// A connector that recovers, and whose first connect waits for the broker.
fn recovering(sim: &Sim, uri: &str) -> Connector {
    use amqp_sim::amqp_driver::recovery::Policy;
    let mut options = Options::from_uri(uri).expect("the URI is well-formed");
    options.config.heartbeat = Some(10);
    sim.connector_with(options.recovery(Policy::new(0).first_connect(true)))
}

/// A schedule of faults that the seed makes short or long, dense or sparse.
fn some_faults(sim: &Sim) -> Faults {
    let mut random = sim.random();
    let every = Duration::from_millis(500 + random.below(6000));
    let until = secs(5 + random.below(40));
    let kind = match random.below(4) {
        0 => Faults::network(),
        1 => Faults::broker(),
        _ => Faults::all(),
    };
    kind.every(every).until(until)
}
