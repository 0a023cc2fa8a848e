//! Tokio's byte streams as a transport.

use std::{
    future::Future as _,
    io,
    pin::{Pin, pin},
    task::{Context, Poll},
};

use amqp_driver::{
    core::Transmit,
    io::{Slices, Transport},
};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

/// A byte stream of tokio as a transport.
#[derive(Debug)]
pub struct TokioStream<S> {
    stream: S,
    inline: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> TokioStream<S> {
    /// Creates a transport over that stream.
    pub const fn new(stream: S) -> Self {
        let inline = false;
        Self { stream, inline }
    }

    /// Sets whether it is [inline](Transport::is_inline), for a stream that may be polled on any
    /// thread.
    pub(crate) fn inline(mut self, inline: bool) -> Self {
        self.inline = inline;
        self
    }

    /// Returns the stream.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for TokioStream<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        pin!(self.stream.read_buf(buf)).poll(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.stream);
        let written = if stream.is_write_vectored() {
            stream.poll_write_vectored(cx, &Slices::of(out))
        } else {
            stream.poll_write(cx, out.chunk())
        };
        written.map_ok(|count| {
            out.advance(count);
            count
        })
    }

    fn is_inline(&self) -> bool {
        self.inline
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
