//! What an adapter brings: the sockets, the clock and the tasks of its runtime.

use std::{
    fmt,
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    path::Path,
    pin::pin,
    task::Poll,
    time::Duration,
};

use amqp_core::ApiMisuse;

use super::transport::{Timer, Transport};
use crate::tls::{Secured, Tls};

/// A runtime, as [`connect`](crate::connect) and the embedded broker use it. It is a small value
/// that stands for the runtime, such as the one that the caller is in.
///
/// The adapters implement it; whoever has a runtime of his own can do the same, and gets all that
/// they have.
pub trait Runtime: Clone + fmt::Debug + Send + Sync + 'static {
    /// Its clock. Clones show the same time, each with an alarm of its own.
    type Clock: Timer + Clone + fmt::Debug + Unpin + 'static;
    /// A byte stream that it made.
    type Stream: Transport + Unpin + 'static;

    /// Whether tasks can be spawned from here, for runtimes that are not everywhere. Everything
    /// that spawns asks before it does anything else. The default says that they can.
    ///
    /// # Errors
    /// [`ApiMisuse::Config`] with what is missing.
    fn check(&self) -> Result<(), ApiMisuse> {
        Ok(())
    }

    /// A clock that begins now.
    fn clock(&self) -> Self::Clock;

    /// Runs a task beside the caller.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static);

    /// The addresses of a host, in the order in which they are to be tried.
    ///
    /// # Errors
    /// What the system says.
    fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send;

    /// Makes a TCP connection, without Nagle's algorithm, and with the system's keepalive if it is
    /// given an idle time for it ([`Options::tcp_keepalive`](crate::Options::tcp_keepalive)).
    /// Dropping the future closes what was opened.
    ///
    /// # Errors
    /// What the system says.
    fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send;

    /// Connects to a Unix socket. Where the system has none, it is an error of the kind
    /// [`Unsupported`](io::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// What the system says.
    fn connect_unix(&self, path: &Path) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        let _ = path;
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Connects to an [address of another transport](amqp_core::dial::Address::Other), such as a
    /// WebSocket. By default it is an error of the kind [`Unsupported`](io::ErrorKind::Unsupported):
    /// an adapter that wraps another one implements it, and has the hosts in turn, the timeouts and TLS
    /// of [`connect`](crate::connect()) with it.
    ///
    /// # Errors
    /// Those of the transport; `InvalidInput` for an address that it cannot read.
    fn connect_other(
        &self,
        address: &str,
    ) -> impl Future<Output = io::Result<Self::Stream>> + Send {
        let _ = address;
        async { Err(io::ErrorKind::Unsupported.into()) }
    }

    /// Secures a stream that was just made with TLS, as a client. An adapter that was built without
    /// TLS leaves this as it is: an error of the kind [`Unsupported`](io::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// What is wrong with the server's certificate, or with the exchange.
    fn secure(
        &self,
        stream: Self::Stream,
        tls: &Tls,
    ) -> impl Future<Output = io::Result<Secured<Self::Stream>>> + Send {
        let (_, _) = (stream, tls);
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}

/// What comes of a future, if that comes in time.
pub async fn within<C: Timer, T>(
    clock: &mut C,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    let at = clock.now() + limit;
    let mut future = pin!(future);
    poll_fn(|cx| {
        if let Poll::Ready(value) = future.as_mut().poll(cx) {
            return Poll::Ready(Some(value));
        }
        clock.poll_deadline(cx, Some(at)).map(|()| None)
    })
    .await
}
