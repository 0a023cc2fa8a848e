//! A transport that is still being made.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use amqp_core::Transmit;
use bytes::BytesMut;

use crate::{Peer, Transport};

/// A transport that is still being made, such as by the handshake of TLS. Whoever reads or writes
/// makes it, so that a [`Listener`](crate::Listener) can go on to the next client, and the timeout
/// of the connection's handshake counts for this one too.
pub struct Arriving<T>(State<T>);

enum State<T> {
    Coming(Pin<Box<dyn Future<Output = io::Result<T>> + Send>>),
    Here(T),
    Failed,
}

impl<T> Arriving<T> {
    /// What will come of that future.
    pub fn new(coming: impl Future<Output = io::Result<T>> + Send + 'static) -> Self {
        Self(State::Coming(Box::pin(coming)))
    }

    /// The transport, once it is there.
    fn poll_here(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut T>> {
        if let State::Coming(coming) = &mut self.0 {
            match ready!(coming.as_mut().poll(cx)) {
                Ok(transport) => self.0 = State::Here(transport),
                Err(error) => {
                    self.0 = State::Failed;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(match &mut self.0 {
            State::Here(transport) => Ok(transport),
            State::Coming(_) | State::Failed => Err(io::ErrorKind::NotConnected.into()),
        })
    }
}

impl<T: Transport> Transport for Arriving<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        ready!(self.poll_here(cx))?.poll_read(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        ready!(self.poll_here(cx))?.poll_write(cx, out)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_here(cx))?.poll_flush(cx)
    }

    fn peer(&self) -> Option<&Peer> {
        match &self.0 {
            State::Here(transport) => transport.peer(),
            State::Coming(_) | State::Failed => None,
        }
    }

    /// What has not come is given up.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Here(transport) => transport.poll_close(cx),
            State::Coming(_) | State::Failed => {
                self.0 = State::Failed;
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl<T> fmt::Debug for Arriving<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Coming(_) => "Arriving(coming)",
            State::Here(_) => "Arriving(here)",
            State::Failed => "Arriving(failed)",
        })
    }
}
