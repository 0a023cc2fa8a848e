//! A transport in the making.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use amqp_core::Transmit;
use amqp_driver::io::Transport;
use bytes::BytesMut;

use crate::identity::{Identified, Peer};

/// A transport in the making, for instance during the TLS handshake, which reading and writing
/// drive. A [`Listener`](crate::Listener) can thereby accept the next client meanwhile, and the
/// timeout of the connection's handshake includes the TLS handshake.
pub struct PendingTransport<T>(Progress<T>);

enum Progress<T> {
    Pending(Pin<Box<dyn Future<Output = io::Result<T>> + Send>>),
    Ready(T),
    Failed,
}

impl<T> PendingTransport<T> {
    /// Wraps the future that makes the transport.
    pub fn new(making: impl Future<Output = io::Result<T>> + Send + 'static) -> Self {
        Self(Progress::Pending(Box::pin(making)))
    }

    /// Drives the future. Returns the transport once it is ready.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut T>> {
        if let Progress::Pending(making) = &mut self.0 {
            match ready!(making.as_mut().poll(cx)) {
                Ok(transport) => self.0 = Progress::Ready(transport),
                Err(error) => {
                    self.0 = Progress::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.0 {
            Progress::Ready(transport) => Ok(transport),
            Progress::Pending(_) | Progress::Failed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl<T> PendingTransport<Identified<T>> {
    /// The client. `Some` once the transport is ready.
    #[must_use]
    pub const fn peer(&self) -> Option<&Peer> {
        match &self.0 {
            Progress::Ready(transport) => transport.peer(),
            Progress::Pending(_) | Progress::Failed => None,
        }
    }
}

impl<T: Transport> Transport for PendingTransport<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx))?.poll_read(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        ready!(self.poll_ready(cx))?.poll_write(cx, out)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_ready(cx))?.poll_flush(cx)
    }

    /// Closes the transport, or drops one that is not ready.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            Progress::Ready(transport) => transport.poll_close(cx),
            Progress::Pending(_) | Progress::Failed => {
                self.0 = Progress::Failed;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<T> fmt::Debug for PendingTransport<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Progress::Pending(_) => "PendingTransport(pending)",
            Progress::Ready(_) => "PendingTransport(ready)",
            Progress::Failed => "PendingTransport(failed)",
        })
    }
}
