//! TLS over byte streams of the futures crates.

use std::io;
#[cfg(feature = "broker")]
use std::{fmt, net::SocketAddr};

use futures_rustls::TlsConnector;
#[cfg(feature = "broker")]
use futures_rustls::{TlsAcceptor, server::TlsStream};

#[cfg(feature = "broker")]
use crate::{Arriving, Introduced, Listener, ServerTls};
use crate::{FuturesStream, Secured, Socket, Tls, peer_certificates};

impl FuturesStream<Box<dyn Socket>> {
    /// Secures the stream with TLS, as a client: what an adapter does for
    /// [`Runtime::secure`](crate::Runtime::secure).
    ///
    /// # Cancel safety
    /// Dropping it closes the stream.
    ///
    /// # Errors
    /// What is wrong with the server's certificate, or with the exchange.
    pub async fn secure(self, tls: &Tls) -> io::Result<Secured<Self>> {
        let connector = TlsConnector::from(tls.config());
        let stream = connector
            .connect(tls.server_name(), self.into_inner())
            .await?;
        let certificates = peer_certificates(stream.get_ref().1);
        Ok(Secured {
            stream: Self::boxed(stream),
            certificates,
        })
    }
}

/// A listener whose clients are to speak TLS: what an adapter serves a broker with.
#[cfg(feature = "broker")]
pub struct FuturesTlsListener<L> {
    listener: L,
    tls: ServerTls,
}

#[cfg(feature = "broker")]
impl<L> FuturesTlsListener<L> {
    /// TLS as configured, over what comes in there.
    pub fn new(listener: L, tls: impl Into<ServerTls>) -> Self {
        let tls = tls.into();
        Self { listener, tls }
    }
}

#[cfg(feature = "broker")]
impl<S, L> Listener for FuturesTlsListener<L>
where
    S: Socket + 'static,
    L: Listener<Stream = FuturesStream<S>>,
{
    type Stream = Arriving<Introduced<FuturesStream<TlsStream<S>>>>;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    async fn accept(&mut self) -> io::Result<Self::Stream> {
        let stream = self.listener.accept().await?;
        let tls = self.tls.clone();
        let securing = TlsAcceptor::from(tls.config()).accept(stream.into_inner());
        Ok(Arriving::new(async move {
            let stream = securing.await?;
            Ok(Introduced {
                peer: tls.peer(stream.get_ref().1),
                transport: FuturesStream::new(stream),
            })
        }))
    }
}

#[cfg(feature = "broker")]
impl<L: fmt::Debug> fmt::Debug for FuturesTlsListener<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FuturesTlsListener")
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}
