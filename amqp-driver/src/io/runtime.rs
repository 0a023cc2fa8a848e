//! The trait of an adapter: the sockets, the clock and the tasks of its runtime.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    path::Path,
    pin::pin,
    time::Duration,
};

use amqp_core::ApiMisuse;

use super::transport::{Timer, Transport};
use crate::{
    tls::{Secured, Tls},
    unless::unless,
};

/// A runtime, as [`connect`](crate::connect) and the embedded broker use it. A small value that
/// represents the runtime, such as the one in which the caller runs.
///
/// The adapters implement it; an application can do the same for its own runtime.
pub trait Runtime: Clone + fmt::Debug + Send + Sync + 'static {
    /// The clock. Clones show the same time, each with an alarm of its own.
    type Clock: Timer + Clone + fmt::Debug + Unpin + 'static;
    /// The byte streams of its connections.
    type Stream: Transport + Unpin + 'static;

    /// Checks that tasks can be spawned here, for runtimes that spawn only within their context.
    /// Every function that spawns calls it first. The default succeeds.
    ///
    /// # Errors
    /// [`ApiMisuse::Config`] with the missing part.
    fn check(&self) -> Result<(), ApiMisuse> {
        Ok(())
    }

    /// A clock that starts now.
    fn clock(&self) -> Self::Clock;

    /// Runs a task beside the caller.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// Returns a seed for a choice between equals, such as the order of SRV records of one priority
    /// (RFC 2782). The default is [`random_seed`](crate::recovery::random_seed); a simulation
    /// returns one of its own.
    fn random_seed(&self) -> u64 {
        crate::recovery::random_seed()
    }

    /// Resolves a host to its addresses, in the order in which they are to be tried.
    ///
    /// # Errors
    /// The system's error.
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Opens a TCP connection without Nagle's algorithm. `keepalive` is the idle time of the
    /// system's keepalive, `Some` to turn it on
    /// ([`Options::tcp_keepalive`](crate::Options::tcp_keepalive)). Dropping the future closes the
    /// socket.
    ///
    /// # Errors
    /// The system's error.
    fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Connects to a Unix socket. A system without them returns an error of the kind
    /// [`Unsupported`](io::ErrorKind::Unsupported), as the default does.
    ///
    /// # Errors
    /// The system's error.
    fn connect_unix(&self, path: &Path) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        let _ = path;
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Connects to an [address of another transport](amqp_core::dial::Address::Other), such as a
    /// WebSocket. The default returns an error of the kind
    /// [`Unsupported`](io::ErrorKind::Unsupported). An adapter that wraps another one implements it
    /// for that transport; [`connect`](crate::connect()) then applies its order of hosts, its
    /// timeouts and TLS.
    ///
    /// # Errors
    /// The transport's error; `InvalidInput` for an address that it cannot read.
    fn connect_other(
        &self,
        address: &str,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        let _ = address;
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Secures a stream that was just made with TLS, as a client. The default, for adapters built
    /// without TLS, returns an error of the kind [`Unsupported`](io::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// When the server's certificate is invalid, or the TLS handshake fails.
    fn secure(
        &self,
        stream: Self::Stream,
        tls: &Tls,
    ) -> impl Future<Output = io::Result<Secured<Self::Stream>>> + Send {
        let (_, _) = (stream, tls);
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

/// Returns the output of `future`. `Some` if it is ready within `limit`.
pub async fn within<C: Timer, T>(
    clock: &mut C,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let at = clock.now() + limit;
    let deadline = poll_fn(|cx| clock.poll_deadline(cx, Some(at)));
    unless(deadline, pin!(future)).await.ok()
}
