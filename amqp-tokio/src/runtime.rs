//! The tokio runtime.

use std::{future::Future, io, net::SocketAddr, time::Duration};

#[cfg(feature = "tls")]
use amqp_driver::io::{Secured, Tls, Transport as _, peer_certificates};
use amqp_driver::{core::ApiMisuse, io::Runtime};
use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, lookup_host},
    runtime::Handle,
};
#[cfg(feature = "tls")]
use tokio_rustls::TlsConnector;

use crate::{clock::TokioClock, stream::TokioStream};

/// The tokio runtime of the caller's context.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tokio;

/// A byte stream of any type.
pub trait Socket: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Socket for S {}

impl Runtime for Tokio {
    type Clock = TokioClock;
    type Stream = TokioStream<Box<dyn Socket>>;

    fn check(&self) -> Result<(), ApiMisuse> {
        // Whether its I/O and timers are enabled cannot be checked without a panic.
        Handle::try_current().map(drop).map_err(|_| ApiMisuse::Config {
            setting: "runtime",
            problem: "there is no tokio runtime here, call this within one that has I/O and timers",
        })
    }

    fn clock(&self) -> TokioClock {
        TokioClock::new()
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        tokio::spawn(task);
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(lookup_host((host, port)).await?.collect())
    }

    async fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> io::Result<Self::Stream> {
        let stream = connect_tcp(to, keepalive).await?;
        Ok(TokioStream::new(Box::new(stream) as _).inline(true))
    }

    #[cfg(unix)]
    async fn connect_unix(&self, path: &std::path::Path) -> io::Result<Self::Stream> {
        let stream = tokio::net::UnixStream::connect(path).await?;
        Ok(TokioStream::new(Box::new(stream) as _).inline(true))
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, stream: Self::Stream, tls: &Tls) -> io::Result<Secured<Self::Stream>> {
        let connector = TlsConnector::from(tls.config());
        let inline = stream.is_inline();
        let stream = connector
            .connect(tls.server_name(), stream.into_inner())
            .await?;
        let certificates = peer_certificates(stream.get_ref().1);
        Ok(Secured {
            stream: TokioStream::new(Box::new(stream) as _).inline(inline),
            certificates,
        })
    }
}

async fn connect_tcp(to: SocketAddr, keepalive: Option<Duration>) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    if let Some(idle) = keepalive {
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use socket2::SockRef;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn tcp_nodelay_is_on() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let stream = super::connect_tcp(listener.local_addr()?, None).await?;
        assert!(stream.nodelay()?);
        Ok(())
    }

    #[tokio::test]
    async fn tcp_keepalive_is_as_the_options_say() -> std::io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let to = listener.local_addr()?;
        let idle = Duration::from_secs(77);
        let stream = super::connect_tcp(to, Some(idle)).await?;
        assert!(SockRef::from(&stream).keepalive()?);
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&stream).tcp_keepalive_time()?, idle);
        let stream = super::connect_tcp(to, None).await?;
        assert!(!SockRef::from(&stream).keepalive()?);
        Ok(())
    }
}
