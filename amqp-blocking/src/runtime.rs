//! The blocking runtime: threads in place of tasks.

use std::{
    future::{Future, poll_fn},
    io,
    net::{SocketAddr, ToSocketAddrs as _},
    time::Duration,
};

use amqp_driver::io::{FuturesStream, Runtime, SleepClock};
#[cfg(feature = "tls")]
use amqp_driver::io::{Secured, Tls};
use mio::{Interest, net::TcpStream};
use socket2::{SockRef, TcpKeepalive};

use crate::{
    executor::block_on,
    reactor::{Evented, take_lent},
    sleep::Sleep,
    stream::BlockingStream,
    thread::in_thread,
};

/// The system's monotonic clock, with an alarm that wakes the waiting thread.
pub type BlockingClock = SleepClock<Sleep>;

/// A runtime of threads: each task has a thread of its own, which ends with the task. Its futures
/// must be polled by its tasks, or by [`block_on`](crate::block_on).
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocking;

impl Runtime for Blocking {
    type Clock = BlockingClock;
    type Stream = BlockingStream;

    fn clock(&self) -> BlockingClock {
        BlockingClock::new(Sleep::new)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // Without a thread the task is dropped, which ends the operations that wait for it.
        let _detached = in_thread("amqp", || block_on(task));
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let host = host.to_owned();
        let resolve = move || Ok((host, port).to_socket_addrs()?.collect());
        in_thread("amqp-resolve", resolve)?.await
    }

    async fn connect_tcp(
        &self,
        to: SocketAddr,
        keepalive: Option<Duration>,
    ) -> io::Result<BlockingStream> {
        let stream = connect_tcp(to, keepalive).await?;
        let stream = FuturesStream::boxed(stream);
        Ok(stream.inline(true).lending(Some(take_lent)))
    }

    #[cfg(unix)]
    async fn connect_unix(&self, path: &std::path::Path) -> io::Result<BlockingStream> {
        let socket = mio::net::UnixStream::connect(path)?;
        let stream = FuturesStream::boxed(Evented::new(socket));
        Ok(stream.inline(true).lending(Some(take_lent)))
    }

    #[cfg(feature = "tls")]
    async fn secure(&self, stream: Self::Stream, tls: &Tls) -> io::Result<Secured<Self::Stream>> {
        stream.secure(tls).await
    }
}

async fn connect_tcp(
    to: SocketAddr,
    keepalive: Option<Duration>,
) -> io::Result<Evented<TcpStream>> {
    let mut stream = Evented::new(TcpStream::connect(to)?);
    poll_fn(|cx| stream.poll_io(cx, Interest::WRITABLE, check_connected)).await?;
    stream.socket.set_nodelay(true)?;
    if let Some(idle) = keepalive {
        SockRef::from(&stream.socket).set_tcp_keepalive(&TcpKeepalive::new().with_time(idle))?;
    }
    Ok(stream)
}

fn check_connected(stream: &mut TcpStream) -> io::Result<()> {
    stream.take_error()?.map_or(Ok(()), Err)?;
    let connected = stream.peer_addr().map(drop);
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::NotConnected => io::ErrorKind::WouldBlock.into(),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use std::{io, net::TcpListener, time::Duration};

    use socket2::SockRef;

    use crate::executor::block_on;

    #[test]
    fn tcp_nodelay_is_on() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = block_on(super::connect_tcp(listener.local_addr()?, None))?;
        assert!(stream.socket.nodelay()?);
        Ok(())
    }

    #[test]
    fn tcp_keepalive_is_as_the_options_say() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let to = listener.local_addr()?;
        let idle = Duration::from_secs(77);
        let stream = block_on(super::connect_tcp(to, Some(idle)))?;
        assert!(SockRef::from(&stream.socket).keepalive()?);
        #[cfg(target_os = "linux")]
        assert_eq!(SockRef::from(&stream.socket).tcp_keepalive_time()?, idle);
        let stream = block_on(super::connect_tcp(to, None))?;
        assert!(!SockRef::from(&stream.socket).keepalive()?);
        Ok(())
    }
}
