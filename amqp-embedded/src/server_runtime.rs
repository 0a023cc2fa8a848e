//! A runtime that listens.

#[cfg(feature = "tls")]
use std::{future::Future, sync::Arc};
use std::{io, net::TcpListener};

use amqp_driver::io::Runtime;
#[cfg(feature = "tls")]
use amqp_driver::io::Secured;
#[cfg(feature = "tls")]
use rustls::ServerConfig;

use crate::serve::Listener;

/// A runtime that listens, for servers that do not name theirs. The adapters implement it.
///
/// ```
/// use std::{io, net::TcpListener};
///
/// use amqp_embedded::{Listener, ServerRuntime};
///
/// /// Accepts one connection, on any runtime.
/// async fn accept_one<R: ServerRuntime>(runtime: &R) -> io::Result<R::Stream> {
///     let mut listener = runtime.listen_tcp(TcpListener::bind("[::1]:0")?)?;
///     listener.accept().await
/// }
/// ```
pub trait ServerRuntime: Runtime {
    /// Its listeners.
    type Listener: Listener<Stream = Self::Stream>;

    /// Accepts connections of a bound listener, which becomes non-blocking.
    ///
    /// # Errors
    /// The system's error.
    fn listen_tcp(&self, listener: TcpListener) -> io::Result<Self::Listener>;

    /// As [`listen_tcp`](Self::listen_tcp), at a Unix socket. The default returns an error of the
    /// kind [`Unsupported`](io::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// The system's error.
    #[cfg(unix)]
    fn listen_unix(
        &self,
        listener: std::os::unix::net::UnixListener,
    ) -> io::Result<Self::Listener> {
        drop(listener);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Secures an accepted stream with TLS, as a server. The default, for adapters built without
    /// TLS, returns an error of the kind [`Unsupported`](io::ErrorKind::Unsupported).
    ///
    /// # Errors
    /// When the client's certificate is invalid, or the TLS handshake fails.
    #[cfg(feature = "tls")]
    fn secure_accepted(
        &self,
        stream: Self::Stream,
        tls: Arc<ServerConfig>,
    ) -> impl Future<Output = io::Result<Secured<Self::Stream>>> + Send {
        let (_, _) = (stream, tls);
        async { Err(io::ErrorKind::Unsupported.into()) }
    }
}
