//! A transport of any type.

use std::{
    fmt, io,
    task::{Context, Poll},
};

use amqp_core::Transmit;
use bytes::BytesMut;

use super::{lent::LentDriver, transport::Transport};

/// A transport of any type, for drivers that outlive one.
pub(crate) struct BoxTransport(Box<dyn Transport + Unpin>);

impl BoxTransport {
    pub(crate) fn new(transport: impl Transport + Unpin + 'static) -> Self {
        Self(Box::new(transport))
    }
}

impl Transport for BoxTransport {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.0.poll_read(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        self.0.poll_write(cx, out)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_flush(cx)
    }

    fn is_inline(&self) -> bool {
        self.0.is_inline()
    }

    fn lender(&self) -> Option<fn(LentDriver)> {
        self.0.lender()
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_close(cx)
    }
}

impl fmt::Debug for BoxTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxTransport").finish_non_exhaustive()
    }
}
