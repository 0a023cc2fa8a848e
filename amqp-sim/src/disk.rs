//! The disk of a broker node.

use std::{sync::Arc, time::Duration};

use amqp_embedded::{LocalBroker, broker::Broker};

use crate::{
    runtime::SimRuntime,
    sim::Sim,
    world::{NodeId, ProcessId, Shared},
};

/// The time that a disk takes to store changes, without a fault.
const QUICK: Duration = Duration::from_micros(500);

/// Stores the changes of a broker, batch by batch, for as long as the node runs.
async fn store(shared: Arc<Shared>, node: NodeId, broker: LocalBroker<SimRuntime>) {
    let runtime = SimRuntime::new(Arc::clone(&shared), None);
    loop {
        broker.until(Broker::has_changes).await;
        let last = broker.with(|broker| {
            let mut last = 0;
            while let Some((number, _)) = broker.poll_change() {
                last = number;
            }
            last
        });
        let now = shared.now();
        let slow = shared.with(|world, _| world.nodes.get(node.0)?.disk.at(now));
        runtime.sleep_until(now + slow.unwrap_or(QUICK)).await;
        broker.with(|broker| broker.handle_stored(last, shared.now()));
    }
}

impl Sim {
    pub(crate) fn start_disk(&self, process: ProcessId, broker: &LocalBroker<SimRuntime>) {
        let shared = &self.0.shared;
        let node = shared.with(|world, _| world.nodes.iter().position(|it| it.process == process));
        if let Some(node) = node {
            let storing = store(Arc::clone(shared), NodeId(node), broker.clone());
            self.0.executor.spawn(shared, process, Box::pin(storing));
        }
    }

    /// Starts the disk of a node again, if it has ended with the node. What was being stored then
    /// is stored now.
    pub(crate) fn restart_disk(&self, node: NodeId, broker: &LocalBroker<SimRuntime>) {
        let (now, shared) = (self.instant(), &self.0.shared);
        let killed = shared.with(|world, _| {
            let node = world.nodes.get_mut(node.0)?;
            std::mem::take(&mut node.disk_killed).then_some(node.process)
        });
        if let Some(process) = killed {
            broker.with(|broker| broker.handle_stored(broker.last_change(), now));
            self.start_disk(process, broker);
        }
    }
}
