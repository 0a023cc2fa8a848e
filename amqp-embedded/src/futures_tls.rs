//! A TLS listener over byte streams of the futures crates.

use std::{fmt, io, net::SocketAddr, sync::Arc};

use amqp_driver::io::{FuturesStream, Secured, Socket, peer_certificates};
use futures_rustls::{TlsAcceptor, server::TlsStream};
use rustls::ServerConfig;

use crate::{
    identity::{Identified, Peer},
    pending_transport::PendingTransport,
    serve::Listener,
    tls::login::ServerTls,
};

/// A listener that expects TLS of its clients. Adapters use it to serve a broker.
pub struct FuturesTlsListener<L> {
    listener: L,
    tls: ServerTls,
}

impl<L> FuturesTlsListener<L> {
    /// Secures the connections of `listener` as configured.
    pub fn new(listener: L, tls: impl Into<ServerTls>) -> Self {
        let tls = tls.into();
        Self { listener, tls }
    }
}

impl<S, L> Listener for FuturesTlsListener<L>
where
    S: Socket + 'static,
    L: Listener<Stream = FuturesStream<S>>,
{
    type Stream = PendingTransport<Identified<FuturesStream<TlsStream<S>>>>;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    fn peer(stream: &Self::Stream) -> Option<&Peer> {
        stream.peer()
    }

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let stream = self.listener.accept().await?;
        let tls = self.tls.clone();
        let securing = TlsAcceptor::from(tls.config()).accept(stream.into_inner());
        Ok(PendingTransport::new(async move {
            let stream = securing.await?;
            Ok(Identified {
                peer: tls.peer(stream.get_ref().1),
                transport: FuturesStream::new(stream),
            })
        }))
    }
}

impl<L: fmt::Debug> fmt::Debug for FuturesTlsListener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FuturesTlsListener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// Secures a stream with TLS, as a server. Adapters implement
/// [`ServerRuntime::secure_accepted`](crate::ServerRuntime::secure_accepted) with it.
///
/// # Cancel safety
/// Dropping it closes the stream.
///
/// # Errors
/// When the client's certificate is invalid, or the TLS handshake fails.
pub async fn secure_accepted_futures(
    stream: FuturesStream<Box<dyn Socket>>,
    tls: Arc<ServerConfig>,
) -> io::Result<Secured<FuturesStream<Box<dyn Socket>>>> {
    let stream = TlsAcceptor::from(tls).accept(stream.into_inner()).await?;
    let certificates = peer_certificates(stream.get_ref().1);
    Ok(Secured {
        stream: FuturesStream::boxed(stream),
        certificates,
    })
}
