//! Tokio's byte streams as a transport.

use std::{
    future::Future as _,
    io::{self, IoSlice},
    pin::{Pin, pin},
    task::{Context, Poll},
};

use amqp_client::{Transport, core::Transmit};
use bytes::{Buf as _, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite};

/// How many pieces go into one vectored write. The kernel takes 1024; beyond a few dozen they gain
/// nothing.
const SLICES: usize = 64;

/// Any byte stream of tokio's, as a transport.
#[derive(Debug)]
pub struct TokioStream<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin + Send> TokioStream<S> {
    /// A transport over that stream.
    pub const fn new(stream: S) -> Self {
        Self(stream)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Transport for TokioStream<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        pin!(self.0.read_buf(buf)).poll(cx)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        let stream = Pin::new(&mut self.0);
        let written = if stream.is_write_vectored() {
            let mut slices = [IoSlice::new(&[]); SLICES];
            let mut count = 0;
            for (slice, segment) in slices.iter_mut().zip(out.segments()) {
                *slice = IoSlice::new(segment);
                count += 1;
            }
            stream.poll_write_vectored(cx, &slices[..count])
        } else {
            stream.poll_write(cx, out.chunk())
        };
        written.map_ok(|count| {
            out.advance(count);
            count
        })
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
