//! Non-blocking sockets.

use std::{
    fmt,
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, TcpStream},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use amqp_client::{FuturesStream, Socket, blocking::wake_after_park};
use futures_io::{AsyncRead, AsyncWrite};
use mio::{Registry, event::Source};

use crate::reactor::register;

/// A byte stream that [`Blocking`](crate::Blocking) made.
pub type BlockingStream = FuturesStream<Box<dyn Socket>>;

/// A socket that wakes the thread that uses it.
#[derive(Debug)]
pub(crate) struct Evented<S> {
    pub(crate) socket: S,
    /// What it is registered with.
    registry: Option<Arc<Registry>>,
}

impl<S: Source> Evented<S> {
    pub(crate) const fn new(socket: S) -> Self {
        Self {
            socket,
            registry: None,
        }
    }

    /// Does something with the socket that does not block, as soon as that is possible.
    pub(crate) fn poll_io<T>(
        &mut self,
        cx: &Context<'_>,
        mut act: impl FnMut(&mut S) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        register(&mut self.socket, &mut self.registry)?;
        loop {
            match act(&mut self.socket) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wake_after_park(cx.waker());
                    return Poll::Pending;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return Poll::Ready(done),
            }
        }
    }
}

/// A connected socket, made from one of the standard library's, which becomes non-blocking with all
/// its clones. It belongs to no thread: it is used by the one that polls whatever drives it.
#[derive(Debug)]
pub struct BlockingSocket(Evented<Box<dyn Kind>>);

/// A kind of sockets.
pub(crate) trait Kind: Read + Write + Source + Send + fmt::Debug {
    /// Ends what is written.
    fn end(&self) -> io::Result<()>;
}

impl Kind for mio::net::TcpStream {
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

#[cfg(unix)]
impl Kind for mio::net::UnixStream {
    fn end(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl<S: Kind + 'static> From<Evented<S>> for BlockingSocket {
    fn from(stream: Evented<S>) -> Self {
        Self(Evented {
            socket: Box::new(stream.socket),
            registry: stream.registry,
        })
    }
}

impl From<TcpStream> for BlockingSocket {
    fn from(stream: TcpStream) -> Self {
        if stream.set_nonblocking(true).is_err() {
            // What nobody may use is at its end.
            let _closed = stream.shutdown(Shutdown::Both);
        }
        Evented::new(mio::net::TcpStream::from_std(stream)).into()
    }
}

#[cfg(unix)]
impl From<std::os::unix::net::UnixStream> for BlockingSocket {
    fn from(stream: std::os::unix::net::UnixStream) -> Self {
        if stream.set_nonblocking(true).is_err() {
            let _closed = stream.shutdown(Shutdown::Both);
        }
        Evented::new(mio::net::UnixStream::from_std(stream)).into()
    }
}

impl AsyncRead for BlockingSocket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_io(cx, |socket| socket.read(buf))
    }
}

impl AsyncWrite for BlockingSocket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_io(cx, |socket| socket.write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_io(cx, |socket| socket.write_vectored(bufs))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_io(cx, |socket| socket.flush())
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_io(cx, |socket| socket.end())
    }
}
