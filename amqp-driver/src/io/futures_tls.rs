//! TLS over byte streams of the futures crates.

use std::io;

use futures_rustls::TlsConnector;

use super::{
    futures_stream::{FuturesStream, Socket},
    transport::Transport as _,
};
use crate::tls::{Secured, Tls, peer_certificates};

impl FuturesStream<Box<dyn Socket>> {
    /// Secures the stream with TLS, as a client. Adapters implement
    /// [`Runtime::secure`](super::Runtime::secure) with it.
    ///
    /// # Cancel safety
    /// Dropping it closes the stream.
    ///
    /// # Errors
    /// When the server's certificate is invalid, or the TLS handshake fails.
    pub async fn secure(self, tls: &Tls) -> io::Result<Secured<Self>> {
        let connector = TlsConnector::from(tls.config());
        let (inline, lender) = (self.is_inline(), self.lender());
        let stream = connector
            .connect(tls.server_name(), self.into_inner())
            .await?;
        let certificates = peer_certificates(stream.get_ref().1);
        Ok(Secured {
            stream: Self::boxed(stream).inline(inline).lending(lender),
            certificates,
        })
    }
}
