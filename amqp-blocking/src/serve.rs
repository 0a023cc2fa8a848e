//! Serving a broker to clients.

use std::{
    future::poll_fn,
    io,
    net::{SocketAddr, TcpListener},
};

use amqp_driver::io::FuturesStream;
#[cfg(feature = "tls")]
use amqp_embedded::{FuturesTlsListener, ServerTls};
use amqp_embedded::{Listener, set_accepted_options};

use crate::{
    local::{LocalBroker, Server},
    reactor::Evented,
    stream::BlockingStream,
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
    amqp_embedded::serve(evented(listener)?, broker.into()).map(Server::from)
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
    let listener = FuturesTlsListener::new(evented(listener)?, tls);
    amqp_embedded::serve(listener, broker.into()).map(Server::from)
}

fn evented(listener: TcpListener) -> io::Result<Evented<mio::net::TcpListener>> {
    listener.set_nonblocking(true)?;
    Ok(Evented::new(mio::net::TcpListener::from_std(listener)))
}

impl Listener for Evented<mio::net::TcpListener> {
    type Stream = BlockingStream;

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    async fn accept(&mut self) -> io::Result<BlockingStream> {
        let accepted = poll_fn(|cx| self.poll_io(cx, |socket| socket.accept()));
        let (stream, _) = accepted.await?;
        set_accepted_options(&stream);
        Ok(FuturesStream::boxed(Evented::new(stream)))
    }
}
