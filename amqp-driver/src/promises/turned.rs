//! The runtime that connects for a client.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    path::Path,
    time::Duration,
};

use amqp_core::ApiMisuse;

use super::tasks::Spawner;
use crate::{
    Runtime,
    tls::{Secured, Tls},
};

/// As that runtime, but without its tasks and threads: tasks run in the turns of a client, and names
/// are resolved there by the system.
#[derive(Clone, Debug)]
pub(super) struct Turned<R> {
    runtime: R,
    spawner: Spawner,
}

impl<R> Turned<R> {
    pub(super) const fn new(runtime: R, spawner: Spawner) -> Self {
        Self { runtime, spawner }
    }
}

impl<R: Runtime> Runtime for Turned<R> {
    type Clock = R::Clock;
    type Stream = R::Stream;

    fn clock(&self) -> R::Clock {
        self.runtime.clock()
    }

    fn check(&self) -> Result<(), ApiMisuse> {
        self.runtime.check()
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
    ) -> io::Result<R::Stream> {
        self.runtime.connect_tcp(to, keepalive).await
    }

    async fn connect_unix(&self, path: &Path) -> io::Result<R::Stream> {
        self.runtime.connect_unix(path).await
    }

    async fn secure(&self, stream: R::Stream, tls: &Tls) -> io::Result<Secured<R::Stream>> {
        self.runtime.secure(stream, tls).await
    }
}
