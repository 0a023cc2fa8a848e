//! Listeners: TCP, Unix sockets, and TLS over either.

#[cfg(unix)]
use std::os::unix::net::UnixListener;
#[cfg(feature = "tls")]
use std::sync::Arc;
use std::{
    fmt,
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
};

use amqp_driver::io::FuturesStream;
#[cfg(feature = "tls")]
use amqp_driver::{io::Secured, rustls::ServerConfig};
#[cfg(feature = "tls")]
use amqp_embedded::FuturesTlsListener;
use amqp_embedded::{Listener, ServerRuntime, set_accepted_options};

use crate::{reactor::Evented, runtime::Blocking, stream::BlockingStream};
use mio::Interest;

/// Accepts connections over TCP or a Unix socket. A listener of [`amqp_embedded`], for
/// [`serve`](amqp_embedded::serve()) and for other servers, by a task of
/// [`Blocking`](crate::Blocking) or in [`block_on`](crate::block_on).
///
/// The listener of the standard library becomes non-blocking, and so do its clones.
///
/// ```
/// use amqp_blocking::{Listener, SocketListener, block_on};
///
/// # fn main() -> std::io::Result<()> {
/// let mut listener = SocketListener::try_from(std::net::TcpListener::bind("127.0.0.1:0")?)?;
/// let client = std::net::TcpStream::connect(listener.local_addr()?)?;
/// let _transport = block_on(listener.accept())?;
/// # drop(client);
/// # Ok(()) }
/// ```
pub struct SocketListener(Kind);

enum Kind {
    Tcp(Evented<mio::net::TcpListener>),
    #[cfg(unix)]
    Unix(Evented<mio::net::UnixListener>),
}

/// Accepts connections that expect TLS. The handshake is made by the first reads of the accepted
/// transport, so that a slow one does not delay other clients.
#[cfg(feature = "tls")]
pub type TlsListener = FuturesTlsListener<SocketListener>;

impl TryFrom<TcpListener> for SocketListener {
    type Error = io::Error;

    fn try_from(listener: TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = mio::net::TcpListener::from_std(listener);
        Ok(Self(Kind::Tcp(Evented::new(listener))))
    }
}

#[cfg(unix)]
impl TryFrom<UnixListener> for SocketListener {
    type Error = io::Error;

    fn try_from(listener: UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = mio::net::UnixListener::from_std(listener);
        Ok(Self(Kind::Unix(Evented::new(listener))))
    }
}

impl Listener for SocketListener {
    type Stream = BlockingStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.socket.local_addr(),
            #[cfg(unix)]
            Kind::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    async fn accept(&mut self) -> io::Result<BlockingStream> {
        match &mut self.0 {
            Kind::Tcp(listener) => {
                let accepted = poll_fn(|cx| {
                    listener.poll_io(cx, Interest::READABLE, |socket| socket.accept())
                });
                let (stream, _) = accepted.await?;
                set_accepted_options(&stream);
                Ok(FuturesStream::boxed(Evented::new(stream)))
            }
            #[cfg(unix)]
            Kind::Unix(listener) => {
                let accepted = poll_fn(|cx| {
                    listener.poll_io(cx, Interest::READABLE, |socket| socket.accept())
                });
                let (stream, _) = accepted.await?;
                Ok(FuturesStream::boxed(Evented::new(stream)))
            }
        }
    }
}

impl fmt::Debug for SocketListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SocketListener").finish_non_exhaustive()
    }
}

impl ServerRuntime for Blocking {
    type Listener = SocketListener;

    fn listen_tcp(&self, listener: TcpListener) -> io::Result<SocketListener> {
        listener.try_into()
    }

    #[cfg(unix)]
    fn listen_unix(&self, listener: UnixListener) -> io::Result<SocketListener> {
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
