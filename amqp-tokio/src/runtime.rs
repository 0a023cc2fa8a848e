//! Tokio, as the client layer uses it.

use std::{future::Future, io, net::SocketAddr};

use amqp_client::Runtime;
#[cfg(feature = "tls")]
use amqp_client::{Secured, Tls, peer_certificates};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
};
#[cfg(feature = "tls")]
use tokio_rustls::TlsConnector;

use crate::{TokioClock, TokioStream};

/// The tokio runtime that the caller is in.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokio;

/// A byte stream of whatever kind.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

impl Runtime for Tokio {
    type Clock = TokioClock;
    type Stream = TokioStream<Box<dyn Socket>>;

    fn clock(&self) -> TokioClock {
        TokioClock::new()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((host, port)).await?.collect())
    }

    async fn connect_tcp(&self, to: SocketAddr) -> io::Result<Self::Stream> {
        Ok(TokioStream::new(Box::new(connect_tcp(to).await?)))
    }

    #[cfg(unix)]
    async fn connect_unix(&self, path: &std::path::Path) -> io::Result<Self::Stream> {
        let stream = tokio::net::UnixStream::connect(path).await?;
        Ok(TokioStream::new(Box::new(stream)))
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, stream: Self::Stream, tls: &Tls) -> io::Result<Secured<Self::Stream>> {
        let connector = TlsConnector::from(tls.config());
        let stream = connector
            .connect(tls.server_name(), stream.into_inner())
            .await?;
        let certificates = peer_certificates(stream.get_ref().1);
        Ok(Secured {
            stream: TokioStream::new(Box::new(stream)),
            certificates,
        })
    }
}

async fn connect_tcp(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn tri_03_tcp_nodelay_is_on() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let stream = super::connect_tcp(listener.local_addr()?).await?;
        assert!(stream.nodelay()?);
        Ok(())
    }
}
