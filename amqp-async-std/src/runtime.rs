//! The async-std runtime.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    pin::Pin,
    time::Duration,
};

use amqp_driver::io::{FuturesStream, Runtime, SleepClock, Socket};
#[cfg(feature = "tls")]
use amqp_driver::io::{Secured, Tls};
use async_std::{net::TcpStream, task};
use socket2::{SockRef, TcpKeepalive};

/// The system's monotonic clock, with async-std's sleep as the alarm.
pub type AsyncStdClock = SleepClock<Sleep>;

/// The future of async-std's sleep.
type Sleep = Pin<Box<dyn Future<Output = ()> + Send + Sync>>;

/// A byte stream of [`AsyncStd`].
pub type AsyncStdStream = FuturesStream<Box<dyn Socket>>;

/// async-std's runtime, one per process.
#[derive(Clone, Copy, Debug, Default)]
pub struct AsyncStd;

impl Runtime for AsyncStd {
    type Clock = AsyncStdClock;
    type Stream = AsyncStdStream;

    fn clock(&self) -> AsyncStdClock {
        SleepClock::new(sleep)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        task::spawn(task);
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        // async-std's own resolver does not return the system's error.
        let host = host.to_owned();
        task::spawn_blocking(move || Ok((host, port).to_socket_addrs()?.collect())).await
    }

    async fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> io::Result<AsyncStdStream> {
        let stream = connect_tcp(to, keepalive).await?;
        Ok(FuturesStream::boxed(stream).inline(true))
    }

    #[cfg(unix)]
    async fn connect_unix(&self, path: &std::path::Path) -> io::Result<AsyncStdStream> {
        let stream = async_std::os::unix::net::UnixStream::connect(path).await?;
        Ok(FuturesStream::boxed(stream).inline(true))
    }

    #[cfg(feature = "tls")]
    async fn secure(
        &self,
        stream: AsyncStdStream,
        tls: &Tls,
    ) -> io::Result<Secured<AsyncStdStream>> {
        stream.secure(tls).await
    }
}

fn sleep(time: Duration) -> Sleep {
    Box::pin(task::sleep(time))
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

    use async_std::{net::TcpListener, task};
    use socket2::SockRef;

    #[test]
    fn tcp_nodelay_is_on() -> std::io::Result<()> {
        task::block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            let stream = super::connect_tcp(listener.local_addr()?, None).await?;
            assert!(stream.nodelay()?);
            Ok(())
        })
    }

    #[test]
    fn tcp_keepalive_is_as_the_options_say() -> std::io::Result<()> {
        task::block_on(async {
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
        })
    }
}
