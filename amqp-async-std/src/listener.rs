//! Listeners: TCP, Unix sockets, and TLS over either.

#[cfg(feature = "tls")]
use std::sync::Arc;
use std::{io, net::SocketAddr};

use amqp_driver::io::FuturesStream;
#[cfg(feature = "tls")]
use amqp_driver::{io::Secured, rustls::ServerConfig};
#[cfg(feature = "tls")]
use amqp_embedded::FuturesTlsListener;
use amqp_embedded::{Listener, ServerRuntime, set_accepted_options};
use async_std::net::TcpListener;
#[cfg(unix)]
use async_std::os::unix::net::UnixListener;

use crate::runtime::{AsyncStd, AsyncStdStream};

/// Accepts connections over TCP or a Unix socket. A listener of [`amqp_embedded`], for
/// [`serve`](amqp_embedded::serve()) and for other servers.
///
/// A listener of the standard library becomes non-blocking.
///
/// ```
/// use amqp_async_std::{Listener, SocketListener};
///
/// # fn main() -> std::io::Result<()> {
/// # async_std::task::block_on(async {
/// let mut listener = SocketListener::try_from(std::net::TcpListener::bind("127.0.0.1:0")?)?;
/// let client = async_std::net::TcpStream::connect(listener.local_addr()?).await?;
/// let _transport = listener.accept().await?;
/// # drop(client);
/// # Ok(()) }) }
/// ```
#[derive(Debug)]
pub struct SocketListener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

/// Accepts connections that expect TLS. The handshake is made by the first reads of the accepted
/// transport, so that a slow one does not delay other clients.
#[cfg(feature = "tls")]
pub type TlsListener = FuturesTlsListener<SocketListener>;

impl From<TcpListener> for SocketListener {
    fn from(listener: TcpListener) -> Self {
        Self(Kind::Tcp(listener))
    }
}

#[cfg(unix)]
impl From<UnixListener> for SocketListener {
    fn from(listener: UnixListener) -> Self {
        Self(Kind::Unix(listener))
    }
}

impl TryFrom<std::net::TcpListener> for SocketListener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(TcpListener::from(listener).into())
    }
}

#[cfg(unix)]
impl TryFrom<std::os::unix::net::UnixListener> for SocketListener {
    type Error = io::Error;

    fn try_from(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(UnixListener::from(listener).into())
    }
}

impl Listener for SocketListener {
    type Stream = AsyncStdStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr(),
            #[cfg(unix)]
            Kind::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                set_accepted_options(&stream);
                Ok(FuturesStream::boxed(stream))
            }
            #[cfg(unix)]
            Kind::Unix(listener) => Ok(FuturesStream::boxed(listener.accept().await?.0)),
        }
    }
}

impl ServerRuntime for AsyncStd {
    type Listener = SocketListener;

    fn listen_tcp(&self, listener: std::net::TcpListener) -> io::Result<SocketListener> {
        listener.try_into()
    }

    #[cfg(unix)]
    fn listen_unix(
        &self,
        listener: std::os::unix::net::UnixListener,
    ) -> io::Result<SocketListener> {
        listener.try_into()
    }

    #[cfg(feature = "tls")]
    async fn secure_accepted(
        &self,
        stream: Self::Stream,
        tls: Arc<ServerConfig>,
    ) -> io::Result<Secured<Self::Stream>> {
        amqp_embedded::secure_accepted_futures(stream, tls).await
    }
}
