//! Clusters of nodes.

use std::io;

use super::{Error, Node, free_port, random};

/// The things that the nodes of a cluster have in common. A node without a cluster has its own.
#[derive(Debug)]
pub(super) struct Kin {
    pub(super) cookie: String,
    /// The port of Erlang's port mapper.
    pub(super) port_mapper: u16,
}

impl Kin {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            cookie: format!("{:016X}", random()),
            port_mapper: free_port()?,
        })
    }
}

impl Node {
    /// Starts nodes one by one, and joins them to a cluster.
    ///
    /// # Errors
    /// [`Error::NotInstalled`], or the fault, with the end of the log of the node that has it.
    pub fn start_cluster(count: usize) -> Result<Vec<Self>, Error> {
        let kin = Kin::new()?;
        let mut nodes: Vec<Self> = Vec::new();
        for _ in 0..count {
            let node = Self::set_up(&[], None, &kin)?;
            if let Some(first) = nodes.first() {
                node.ctl(&["stop_app"])?;
                node.ctl(&["join_cluster", &first.name()])?;
                node.ctl(&["start_app"])?;
            }
            nodes.push(node);
        }
        Ok(nodes)
    }

    /// The Erlang name of the node, unique in its cluster.
    #[must_use]
    pub fn name(&self) -> String {
        format!("amqp-{}@localhost", self.port)
    }
}
