//! Serving a broker to clients.

use std::{io, net::TcpListener};

#[cfg(feature = "tls")]
use amqp_embedded::ServerTls;

#[cfg(feature = "tls")]
use crate::listener::TlsListener;
use crate::{
    listener::SocketListener,
    local::{LocalBroker, Server},
};

/// Serves a broker to the listener's clients: one thread listens, and each connection has one. The
/// listener becomes non-blocking, and so do its clones.
///
/// ```
/// use amqp_blocking::{Config, LocalBroker, connect, serve};
/// use std::net::TcpListener;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = LocalBroker::default();
/// let server = serve(TcpListener::bind("127.0.0.1:0")?, broker.clone())?;
/// let over_tcp = connect(&format!("amqp://{}", server.local_addr()))?;
/// let without_a_socket = broker.connect(Config::default())?;
/// assert_eq!(broker.inspect().connections.len(), 2);
/// server.shutdown(); // which closes the connections
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the listener has no local address, or cannot be made non-blocking.
pub fn serve(listener: TcpListener, broker: impl Into<LocalBroker>) -> io::Result<Server> {
    let listener = SocketListener::try_from(listener)?;
    amqp_embedded::serve(listener, broker.into()).map(Server::from)
}

/// Serves a broker with TLS to the listener's clients, as [`serve`] does. A slow TLS handshake does
/// not delay other clients. A client with a certificate may log in with it (the SASL mechanism
/// [EXTERNAL](https://www.rabbitmq.com/docs/access-control)), see [`ServerTls`].
///
/// # Errors
/// As [`serve`].
#[cfg(feature = "tls")]
pub fn serve_tls(
    listener: TcpListener,
    tls: impl Into<ServerTls>,
    broker: impl Into<LocalBroker>,
) -> io::Result<Server> {
    let listener = TlsListener::new(SocketListener::try_from(listener)?, tls);
    amqp_embedded::serve(listener, broker.into()).map(Server::from)
}
