//! The runtime of a simulation.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use amqp_driver::{
    core::Instant,
    io::{Runtime, Timer as _},
};
use amqp_embedded::broker::Direction;

use crate::{
    clock::SimClock,
    stream::SimStream,
    world::{NodeId, ProcessId, Shared},
};

/// The runtime of a simulation: its virtual clock, its executor and its network. For
/// [`amqp_driver::connect`] and the like; a [`Connector`](amqp_driver::Connector) has it within.
///
/// Its tasks and connections belong to the process that uses it.
#[derive(Clone, Debug)]
pub struct SimRuntime {
    shared: Arc<Shared>,
    /// `Some` for a node: the process that its tasks belong to.
    process: Option<ProcessId>,
}

impl SimRuntime {
    pub(crate) const fn new(shared: Arc<Shared>, process: Option<ProcessId>) -> Self {
        Self { shared, process }
    }

    pub(crate) async fn sleep_until(&self, at: Instant) {
        let mut clock = self.clock();
        poll_fn(|cx| clock.poll_deadline(cx, Some(at))).await;
    }
}

/// The network 10.0.0.0/16: node 0 has 10.0.0.1.
fn address_of(node: NodeId, port: u16) -> SocketAddr {
    let number = u16::try_from(node.0 + 1).unwrap_or(u16::MAX);
    let [high, low] = number.to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, high, low)), port)
}

fn node_of(address: SocketAddr) -> Option<NodeId> {
    match address.ip() {
        IpAddr::V4(ip) => {
            let [10, 0, high, low] = ip.octets() else {
                return None;
            };
            let number = u16::from_be_bytes([high, low]);
            Some(NodeId(usize::from(number).checked_sub(1)?))
        }
        IpAddr::V6(_) => None,
    }
}

impl Runtime for SimRuntime {
    type Clock = SimClock;
    type Stream = SimStream;

    fn clock(&self) -> SimClock {
        SimClock::new(Arc::clone(&self.shared))
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task = Box::pin(task);
        let refused = self.shared.with(|world, _| {
            if world.ended {
                return Some(task);
            }
            let process = self.process.unwrap_or_else(|| self.shared.current());
            world.spawned.push((process, task));
            None
        });
        drop(refused);
    }

    fn random_seed(&self) -> u64 {
        self.shared.with(|world, _| world.random.next())
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match self.shared.with(|world, _| world.find_node(host)) {
            Some(node) => Ok(vec![address_of(node, port)]),
            None => {
                let text = format!("the simulation has no node {host:?}");
                Err(io::Error::new(io::ErrorKind::NotFound, text))
            }
        }
    }

    async fn connect_tcp(
        &self,
        to: SocketAddr,
        _keepalive: Option<Duration>,
    ) -> io::Result<SimStream> {
        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
        let node = node_of(to).ok_or_else(refused)?;
        let client = self.shared.current();
        for direction in [Direction::FromClient, Direction::ToClient] {
            let now = self.shared.now();
            let network = |at: Instant| {
                self.shared
                    .with(|world, _| world.network.arrival(client, node, direction, at))
            };
            let at = network(now);
            self.sleep_until(at).await;
        }
        let now = self.shared.now();
        let opened = self.shared.with(|world, _| {
            let broker = world.nodes.get(node.0)?.broker.clone();
            let is_refused = world.network.link(client, node).refused.at(now).is_some();
            (!is_refused).then(|| (broker, world.open(client, node)))
        });
        let (broker, conn) = opened.ok_or_else(refused)?;
        let end = |output| SimStream::new(Arc::clone(&self.shared), conn, output);
        let (ours, theirs) = (end(Direction::FromClient), end(Direction::ToClient));
        let driver = broker.accept(theirs).map_err(|_| refused())?;
        // The node's own task.
        self.shared.with(|world, _| {
            if let Some(process) = world.nodes.get(node.0).map(|node| node.process) {
                world.spawned.push((process, Box::pin(driver)));
            }
        });
        Ok(ours)
    }
}
