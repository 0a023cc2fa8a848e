//! The identity of a client, as its transport knows it.

use std::{
    io,
    task::{Context, Poll},
};

use amqp_core::Transmit;
use amqp_driver::io::Transport;
use bytes::{Bytes, BytesMut};

/// The client at the other end of a secured transport.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    /// The user that the transport has authenticated, for a login by EXTERNAL. With `None`, as for
    /// a client without a certificate, EXTERNAL is refused. See
    /// <https://www.rabbitmq.com/docs/access-control>.
    pub user: Option<String>,
    /// The certificate of the client, in DER. `Some` if it has presented one.
    pub certificate: Option<Bytes>,
}

impl Peer {
    /// Sets [`user`](Self::user).
    #[must_use]
    pub fn user(mut self, user: impl Into<Option<String>>) -> Self {
        self.user = user.into();
        self
    }

    /// Sets [`certificate`](Self::certificate).
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<Option<Bytes>>) -> Self {
        self.certificate = certificate.into();
        self
    }
}

/// A transport with the identity of its client, for listeners that secure connections by other
/// means.
///
/// ```
/// use amqp_driver::io::pipe;
/// use amqp_embedded::{Identified, Peer};
///
/// let (_client, server) = pipe();
/// let server = Identified {
///     transport: server,
///     peer: Peer::default().user("guest".to_owned()),
/// };
/// assert!(server.peer.user.is_some());
/// ```
#[derive(Clone, Debug)]
pub struct Identified<T> {
    /// The transport.
    pub transport: T,
    /// The client.
    pub peer: Peer,
}

impl<T> Identified<T> {
    /// The client, for [`LocalBroker::accept_identified`](crate::LocalBroker::accept_identified).
    #[must_use]
    pub const fn peer(&self) -> Option<&Peer> {
        Some(&self.peer)
    }
}

impl<T: Transport> Transport for Identified<T> {
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
}
