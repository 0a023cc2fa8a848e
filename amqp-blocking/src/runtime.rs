//! Threads, as the client layer uses them.

use std::{
    future::{Future, poll_fn},
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    sync::{Arc, Mutex, PoisonError},
    task::{Poll, Waker},
    thread,
};

use amqp_client::{
    FuturesStream, Runtime, SleepClock,
    blocking::{Sleep, block_on},
};
#[cfg(feature = "tls")]
use amqp_client::{Secured, Tls};
use mio::net::TcpStream;
#[cfg(unix)]
use mio::net::UnixStream;

use crate::{BlockingSocket, BlockingStream, stream::Evented};

/// The system's monotonic clock, with an alarm that wakes the thread that waits.
pub type BlockingClock = SleepClock<Sleep>;

/// Threads in place of a runtime: each task has one of its own, which is gone when the task has
/// ended. The futures that it makes are to be polled by its tasks, or by
/// [`block_on`](crate::block_on).
#[derive(Clone, Copy, Debug, Default)]
pub struct Blocking;

impl Runtime for Blocking {
    type Clock = BlockingClock;
    type Stream = BlockingStream;

    fn clock(&self) -> BlockingClock {
        BlockingClock::new(Sleep::new)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        // A task for which there is no thread is dropped, and tells those who wait for it.
        let _joined_by_nobody = thread::Builder::new()
            .name("amqp".into())
            .spawn(|| block_on(task));
    }

    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, port).into()]);
        }
        resolve(host.to_owned(), port).await
    }

    async fn connect_tcp(&self, to: SocketAddr) -> io::Result<BlockingStream> {
        let socket = BlockingSocket::from(connect_tcp(to).await?);
        Ok(FuturesStream::boxed(socket))
    }

    #[cfg(unix)]
    async fn connect_unix(&self, path: &std::path::Path) -> io::Result<BlockingStream> {
        let socket = Evented::new(UnixStream::connect(path)?);
        Ok(FuturesStream::boxed(BlockingSocket::from(socket)))
    }

    #[cfg(feature = "tls")]
    async fn secure(
        &self,
        stream: BlockingStream,
        tls: &Tls,
    ) -> io::Result<Secured<BlockingStream>> {
        stream.secure(tls).await
    }
}

async fn connect_tcp(to: SocketAddr) -> io::Result<Evented<TcpStream>> {
    let mut stream = Evented::new(TcpStream::connect(to)?);
    poll_fn(|cx| stream.poll_io(cx, look_whether_connected)).await?;
    stream.socket.set_nodelay(true)?;
    Ok(stream)
}

fn look_whether_connected(stream: &mut TcpStream) -> io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    match stream.peer_addr() {
        Err(error) if error.kind() == io::ErrorKind::NotConnected => {
            Err(io::ErrorKind::WouldBlock.into())
        }
        connected => connected.map(drop),
    }
}

/// Asks the system for the addresses of a host, in a thread, because the system blocks.
async fn resolve(host: String, port: u16) -> io::Result<Vec<SocketAddr>> {
    let answer = Arc::new(Mutex::new(Answer::default()));
    let asked = Arc::clone(&answer);
    let ask = move || {
        let addresses = (host, port).to_socket_addrs().map(Iterator::collect);
        let mut answer = asked.lock().unwrap_or_else(PoisonError::into_inner);
        answer.addresses = Some(addresses);
        let waker = answer.waker.take();
        drop(answer);
        waker.into_iter().for_each(Waker::wake);
    };
    thread::Builder::new()
        .name("amqp-resolve".into())
        .spawn(ask)?;
    poll_fn(|cx| {
        let mut answer = answer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(addresses) = answer.addresses.take() {
            return Poll::Ready(addresses);
        }
        answer.waker = Some(cx.waker().clone());
        Poll::Pending
    })
    .await
}

/// What a thread that resolves a name and who waits for it know of each other.
#[derive(Default)]
struct Answer {
    addresses: Option<io::Result<Vec<SocketAddr>>>,
    waker: Option<Waker>,
}

#[cfg(test)]
mod tests {
    use std::{io, net::TcpListener};

    use crate::block_on;

    #[test]
    fn tri_03_tcp_nodelay_is_on() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let stream = block_on(super::connect_tcp(listener.local_addr()?))?;
        assert!(stream.socket.nodelay()?);
        Ok(())
    }

    #[test]
    fn a_name_is_resolved_and_a_wrong_one_is_an_error() {
        let addresses = block_on(super::resolve("localhost".into(), 7)).expect("it is a name");
        assert!(!addresses.is_empty());
        assert!(
            addresses
                .iter()
                .all(|it| it.ip().is_loopback() && it.port() == 7)
        );
        let nobody = "nobody.invalid".to_owned();
        assert!(block_on(super::resolve(nobody, 7)).is_err());
    }
}
