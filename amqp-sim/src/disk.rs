//! The disk of a broker node.

use std::{mem, sync::Arc, time::Duration};

use amqp_embedded::{
    LocalBroker,
    broker::{Broker, Change, Config},
};

use crate::{
    network::Timed,
    runtime::SimRuntime,
    sim::Sim,
    world::{NodeId, ProcessId, Shared, World},
};

/// The time that a disk takes to store changes, without a fault.
const QUICK: Duration = Duration::from_micros(500);

/// The disk of a node that has one.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The configuration of the broker, with which it is restored.
    config: Config,
    /// The time that it takes to store changes.
    pub(crate) delay: Timed<Duration>,
    /// All changes that are stored.
    stored: Vec<Change>,
    /// Those that are being stored.
    batch: Vec<Change>,
    /// The node was killed, and is to be restored.
    was_killed: bool,
}

impl Disk {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            config,
            delay: Timed::default(),
            stored: Vec::new(),
            batch: Vec::new(),
            was_killed: false,
        }
    }
}

impl World {
    fn disk(&mut self, node: NodeId) -> Option<&mut Disk> {
        self.nodes.get_mut(node.0)?.disk.as_mut()
    }

    /// The node is killed: of the changes that are being stored, the first ones are, as many as the
    /// seed says.
    pub(crate) fn kill_disk(&mut self, node: NodeId) {
        let drawn = self.random.next();
        let Some(disk) = self.disk(node) else {
            return;
        };
        disk.was_killed = true;
        let count = drawn % (disk.batch.len() as u64 + 1);
        let stored = mem::take(&mut disk.batch).into_iter();
        disk.stored
            .extend(stored.take(usize::try_from(count).unwrap_or(usize::MAX)));
    }
}

/// Stores the changes of a broker, batch by batch, for as long as the node runs.
async fn store(shared: Arc<Shared>, node: NodeId, broker: LocalBroker<SimRuntime>) {
    let runtime = SimRuntime::new(Arc::clone(&shared), None);
    loop {
        broker.until(Broker::has_changes).await;
        let (mut last, mut batch) = (0, Vec::new());
        broker.with(|broker| {
            while let Some((number, change)) = broker.poll_change() {
                last = number;
                batch.push(change);
            }
        });
        let now = shared.now();
        let slow = shared.with(|world, _| {
            let disk = world.disk(node)?;
            disk.batch = batch;
            disk.delay.at(now)
        });
        runtime.sleep_until(now + slow.unwrap_or(QUICK)).await;
        shared.with(|world, _| {
            if let Some(disk) = world.disk(node) {
                disk.stored.append(&mut disk.batch);
            }
        });
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

    /// Starts a node: one that was killed with the state that its disk has stored, if it has a disk.
    pub(crate) fn start_node(&self, node: NodeId, broker: &LocalBroker<SimRuntime>) {
        let (now, shared) = (self.instant(), &self.0.shared);
        let killed = shared.with(|world, _| {
            let process = world.nodes.get(node.0)?.process;
            let disk = world.disk(node)?;
            let is_killed = mem::take(&mut disk.was_killed);
            is_killed.then(|| (process, disk.config.clone(), disk.stored.clone()))
        });
        let Some((process, config, stored)) = killed else {
            return broker.start();
        };
        match Broker::restore(config, now, stored) {
            Ok(restored) => broker.with(|broker| *broker = restored),
            Err(error) => panic!("what the disk of a node has stored is no broker: {error}"),
        }
        self.start_disk(process, broker);
    }
}
