//! Non-blocking sockets as byte streams.

use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
    pin::Pin,
    task::{Context, Poll},
};

use amqp_driver::io::{FuturesStream, Socket};
use futures_io::{AsyncRead, AsyncWrite};
use mio::{Interest, event::Source};

use crate::reactor::Evented;

/// A byte stream over a socket. It belongs to no thread: the one that polls its driver waits for it.
pub type BlockingStream = FuturesStream<Box<dyn Socket>>;

/// A connected socket of the standard library. It becomes non-blocking, with all its clones.
#[derive(Debug)]
pub struct BlockingSocket(BlockingStream);

impl BlockingSocket {
    fn new(nonblocking: io::Result<()>, socket: impl ConnectedSocket) -> Self {
        if nonblocking.is_err() {
            // A blocking socket would stall the driver: the stream ends instead.
            let _closed = socket.end(Shutdown::Both);
        }
        Self(FuturesStream::boxed(Evented::new(socket)))
    }

    /// Converts into a byte stream, of the type that [`Blocking`](crate::Blocking) uses.
    #[must_use]
    pub fn into_stream(self) -> BlockingStream {
        self.0
    }
}

/// A type of connected sockets.
trait ConnectedSocket: Read + Write + Source + Unpin + Send + 'static {
    fn end(&self, how: Shutdown) -> io::Result<()>;
}

macro_rules! connected_socket {
    ($of_std:ty, $of_mio:ty) => {
        impl From<$of_std> for BlockingSocket {
            fn from(socket: $of_std) -> Self {
                let nonblocking = socket.set_nonblocking(true);
                Self::new(nonblocking, <$of_mio>::from_std(socket))
            }
        }

        impl ConnectedSocket for $of_mio {
            fn end(&self, how: Shutdown) -> io::Result<()> {
                self.shutdown(how)
            }
        }
    };
}

connected_socket!(std::net::TcpStream, mio::net::TcpStream);
#[cfg(unix)]
connected_socket!(std::os::unix::net::UnixStream, mio::net::UnixStream);

type Polled<T> = Poll<io::Result<T>>;

impl<S: ConnectedSocket> AsyncRead for Evented<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Polled<usize> {
        self.poll_io(cx, Interest::READABLE, |socket| socket.read(buf))
    }
}

impl<S: ConnectedSocket> AsyncWrite for Evented<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Polled<usize> {
        self.poll_io(cx, Interest::WRITABLE, |socket| socket.write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Polled<usize> {
        self.poll_io(cx, Interest::WRITABLE, |socket| socket.write_vectored(bufs))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_io(cx, Interest::WRITABLE, |socket| socket.flush())
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled<()> {
        self.poll_io(cx, Interest::WRITABLE, |socket| socket.end(Shutdown::Write))
    }
}
