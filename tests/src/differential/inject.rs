//! Methods that the client refuses to send, sent all the same.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use amqp_tokio::core::{
    ClientSent,
    bytes::{Buf as _, BytesMut},
    frame::{Frame, FrameKind},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// Puts frames in front of the next write on an [`Injected`] stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Injector(Arc<Mutex<BytesMut>>);

impl Injector {
    /// Sends a method with the next output, which the caller has to bring about. Earlier output
    /// must have left, to its end.
    pub(super) fn inject<M: ClientSent>(&self, channel: u16, method: &M) {
        let mut payload = BytesMut::new();
        payload.extend_from_slice(&M::ID.class.to_be_bytes());
        payload.extend_from_slice(&M::ID.method.to_be_bytes());
        method.encode(&mut payload);
        let frame = Frame {
            kind: FrameKind::Method,
            channel,
            payload: &payload,
        };
        frame.encode(&mut self.lock());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BytesMut> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream that a client writes to, and an [`Injector`] too.
#[derive(Debug)]
pub(super) struct Injected {
    stream: TcpStream,
    injector: Injector,
}

impl Injected {
    pub(super) const fn new(stream: TcpStream, injector: Injector) -> Self {
        Self { stream, injector }
    }

    fn poll_injected(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut extra = self.injector.lock();
        while !extra.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &extra))?;
            extra.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Injected {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Injected {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_injected(cx))?;
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_injected(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
