//! A broker node.

use std::{fmt, ops::Deref, sync::Arc};

use amqp_embedded::{LocalBroker, broker::Inspection};

use crate::runtime::SimRuntime;

/// A broker node of a simulation. Clients connect to it by its name: `amqp://rabbit1`.
///
/// [`Fault`](crate::Fault)s of a node stop, kill, start and suspend it; see
/// [`Sim::inject`](crate::Sim::inject). Dereferences to the [`LocalBroker`], which has
/// the rest: waiting for a condition ([`until`](LocalBroker::until)), the faults of the broker
/// ([`with`](LocalBroker::with)), its state.
///
/// Nodes are brokers of their own, not a cluster: they share nothing.
#[derive(Clone)]
pub struct Node {
    name: Arc<str>,
    broker: LocalBroker<SimRuntime>,
}

impl Node {
    pub(crate) const fn new(name: Arc<str>, broker: LocalBroker<SimRuntime>) -> Self {
        Self { name, broker }
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The state of the broker: queues with their messages, consumers, connections.
    #[must_use]
    pub fn inspect(&self) -> Inspection {
        self.broker.inspect()
    }

    /// The number of messages in a queue of the virtual host `/`, unacknowledged ones included. 0
    /// if there is no such queue.
    #[must_use]
    pub fn messages(&self, queue: &str) -> u64 {
        let state = self.inspect();
        let queue = state.queue(queue);
        queue.map_or(0, |queue| queue.ready as u64 + queue.unacked)
    }
}

impl Deref for Node {
    type Target = LocalBroker<SimRuntime>;

    fn deref(&self) -> &Self::Target {
        &self.broker
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}
