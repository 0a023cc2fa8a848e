//! Who is at the other end of a transport.

use std::{
    io,
    task::{Context, Poll},
};

use amqp_core::Transmit;
use bytes::BytesMut;

use crate::Transport;

/// Who is at the other end of a transport that is secured.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// The user for whom the transport vouches: a broker lets it log in by EXTERNAL. None if nobody
    /// is named, such as by a client without a certificate, whose EXTERNAL is refused.
    pub user: Option<String>,
}

/// A transport, and who is at its other end. It is for who secures connections to an embedded broker
/// in a way of its own; what adapters serve with TLS does this already.
///
/// ```
/// use amqp_driver::{Introduced, Peer, Transport, pipe};
///
/// let (_ours, theirs) = pipe();
/// let theirs = Introduced {
///     transport: theirs,
///     peer: Peer { user: Some("guest".into()) },
/// };
/// assert!(theirs.peer().is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Introduced<T> {
    /// The transport.
    pub transport: T,
    /// Who is there.
    pub peer: Peer,
}

impl<T: Transport> Transport for Introduced<T> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut BytesMut) -> Poll<io::Result<usize>> {
        self.transport.poll_read(cx, buf)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, out: &mut Transmit) -> Poll<io::Result<usize>> {
        self.transport.poll_write(cx, out)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_flush(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.transport.poll_close(cx)
    }

    fn peer(&self) -> Option<&Peer> {
        Some(&self.peer)
    }
}
