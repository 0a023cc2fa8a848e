//! Listeners: TCP, Unix sockets, and TLS over either.

#[cfg(feature = "tls")]
use std::{fmt, sync::Arc};
use std::{io, net::SocketAddr};

#[cfg(feature = "tls")]
use amqp_driver::{
    io::{Secured, peer_certificates},
    rustls::ServerConfig,
};
#[cfg(feature = "tls")]
use amqp_embedded::{Identified, Peer, PendingTransport, ServerTls};
use amqp_embedded::{Listener, ServerRuntime, set_accepted_options};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::UnixListener;
#[cfg(feature = "tls")]
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    runtime::{Socket, Tokio},
    stream::TokioStream,
};

/// Accepts connections over TCP or a Unix socket. A listener of [`amqp_embedded`], for
/// [`serve`](amqp_embedded::serve()) and for other servers.
///
/// A listener of the standard library becomes non-blocking.
///
/// ```
/// use amqp_tokio::{Listener, SocketListener};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> std::io::Result<()> {
/// let mut listener = SocketListener::try_from(std::net::TcpListener::bind("127.0.0.1:0")?)?;
/// let client = tokio::net::TcpStream::connect(listener.local_addr()?).await?;
/// let _transport = listener.accept().await?;
/// # drop(client);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct SocketListener(Kind);

#[derive(Debug)]
enum Kind {
    Tcp(TcpListener),
    #[cfg(unix)]
    Unix(UnixListener),
}

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

/// Fails outside of a tokio runtime by a panic, as tokio's own listener does.
impl TryFrom<std::net::TcpListener> for SocketListener {
    type Error = io::Error;

    fn try_from(listener: std::net::TcpListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Self::from)
    }
}

/// Fails outside of a tokio runtime by a panic, as tokio's own listener does.
#[cfg(unix)]
impl TryFrom<std::os::unix::net::UnixListener> for SocketListener {
    type Error = io::Error;

    fn try_from(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        UnixListener::from_std(listener).map(Self::from)
    }
}

impl Listener for SocketListener {
    type Stream = TokioStream<Box<dyn Socket>>;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            Kind::Tcp(listener) => listener.local_addr(),
            #[cfg(unix)]
            Kind::Unix(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let stream: Box<dyn Socket> = match &self.0 {
            Kind::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                set_accepted_options(&stream);
                Box::new(stream)
            }
            #[cfg(unix)]
            Kind::Unix(listener) => Box::new(listener.accept().await?.0),
        };
        Ok(TokioStream::new(stream))
    }
}

/// Accepts connections that expect TLS. The handshake is made by the first reads of the accepted
/// transport, so that a slow one does not delay other clients.
#[cfg(feature = "tls")]
pub struct TlsListener {
    listener: SocketListener,
    tls: ServerTls,
}

#[cfg(feature = "tls")]
impl TlsListener {
    /// Secures the connections of `listener` as configured.
    pub fn new(listener: impl Into<SocketListener>, tls: impl Into<ServerTls>) -> Self {
        Self {
            listener: listener.into(),
            tls: tls.into(),
        }
    }
}

#[cfg(feature = "tls")]
impl Listener for TlsListener {
    type Stream = PendingTransport<Identified<TokioStream<TlsStream<Box<dyn Socket>>>>>;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn peer(stream: &Self::Stream) -> Option<&Peer> {
        stream.peer()
    }

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let stream = self.listener.accept().await?.into_inner();
        let tls = self.tls.clone();
        let securing = TlsAcceptor::from(tls.config()).accept(stream);
        Ok(PendingTransport::new(async move {
            let stream = securing.await?;
            Ok(Identified {
                peer: tls.peer(stream.get_ref().1),
                transport: TokioStream::new(stream),
            })
        }))
    }
}

#[cfg(feature = "tls")]
impl fmt::Debug for TlsListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsListener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

impl ServerRuntime for Tokio {
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
        let stream = TlsAcceptor::from(tls).accept(stream.into_inner()).await?;
        let certificates = peer_certificates(stream.get_ref().1);
        Ok(Secured {
            stream: TokioStream::new(Box::new(stream)),
            certificates,
        })
    }
}
