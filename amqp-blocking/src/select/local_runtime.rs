//! The runtime of a client.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

use amqp_driver::io::{Runtime, Secured, Tls};

use super::tasks::Spawner;
use crate::{
    runtime::{Blocking, BlockingClock},
    stream::BlockingStream,
};

/// [`Blocking`] without its threads: tasks run in the turns of a client, where the system also
/// resolves names.
#[derive(Clone, Debug)]
pub(super) struct LocalRuntime {
    spawner: Spawner,
}

impl LocalRuntime {
    pub(super) const fn new(spawner: Spawner) -> Self {
        Self { spawner }
    }
}

impl Runtime for LocalRuntime {
    type Clock = BlockingClock;
    type Stream = BlockingStream;

    fn clock(&self) -> BlockingClock {
        Blocking.clock()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.spawner.spawn(task);
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok((host, port).to_socket_addrs()?.collect())
    }

    async fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> io::Result<BlockingStream> {
        // The turn writes the commands of all tasks together.
        let stream = Blocking.connect_tcp(to, keepalive).await?;
        Ok(stream.inline(false))
    }

    async fn connect_unix(&self, path: &Path) -> io::Result<BlockingStream> {
        Ok(Blocking.connect_unix(path).await?.inline(false))
    }

    async fn secure(
        &self,
        stream: BlockingStream,
        tls: &Tls,
    ) -> io::Result<Secured<BlockingStream>> {
        Blocking.secure(stream, tls).await
    }
}
