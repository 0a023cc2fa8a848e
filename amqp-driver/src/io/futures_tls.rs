//! TLS over byte streams of the futures crates.

use std::io;

use futures_rustls::TlsConnector;

use super::futures_stream::{FuturesStream, Socket};
use crate::tls::{Secured, Tls, peer_certificates};

impl FuturesStream<Box<dyn Socket>> {
    /// Secures the stream with TLS, as a client: what an adapter does for
    /// [`Runtime::secure`](super::Runtime::secure).
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
