//! An in-process broker, and its server.

use std::io;

#[cfg(feature = "tls")]
use amqp_embedded::ServerTls;
use smol::net::TcpListener;

#[cfg(feature = "tls")]
use crate::listener::TlsListener;
use crate::{listener::SocketListener, runtime::Smol};

/// An in-process broker. Clients connect to it without a socket, or over a network with [`serve`].
///
/// All clones share one broker. It can [stop](amqp_embedded::LocalBroker::stop), and come back with
/// its durable entities and persistent messages. The broker and its contents are dropped with the
/// last clone or connection, unless they are in a file (feature `store`).
///
/// ```
/// use amqp_smol::{Config, LocalBroker, protocol::{basic, queue}};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # smol::block_on(async {
/// let broker = LocalBroker::default();
/// let connection = broker.connect(Config::default()).await?;
/// let channel = connection.open_channel().await?.confirm_select().await?;
/// channel.call(queue::Declare::default().queue("tasks")).await?;
///
/// let to_tasks = basic::Publish::default().routing_key("tasks");
/// let confirm = channel
///     .publish(&to_tasks, &basic::Properties::default(), "the first")
///     .await?;
/// confirm.await?;
/// let tasks = broker.with(|broker| broker.queue("/", "tasks"));
/// assert_eq!(tasks.map(|it| it.ready), Some(1));
/// # Ok(()) }) }
/// ```
pub type LocalBroker = amqp_embedded::LocalBroker<Smol>;

/// A broker that is served to clients; see [`serve`].
pub type Server = amqp_embedded::Server<Smol>;

/// Serves a broker to the listener's clients, in tasks of the broker's runtime: on smol's global
/// executor, unless the broker was created [on](amqp_embedded::LocalBroker::on) another one.
///
/// ```
/// use amqp_smol::{LocalBroker, serve};
/// use smol::net::TcpListener;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # smol::block_on(async {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let server = serve(listener, LocalBroker::default())?;
/// let connection = amqp_smol::connect(&format!("amqp://{}", server.local_addr())).await?;
/// connection.close().await?;
/// server.shutdown().await;
/// # Ok(()) }) }
/// ```
///
/// # Errors
/// If the listener has no local address.
pub fn serve(listener: TcpListener, broker: impl Into<LocalBroker>) -> io::Result<Server> {
    amqp_embedded::serve(SocketListener::from(listener), broker)
}

/// Serves a broker with TLS to the listener's clients, in tasks as [`serve`] does. A slow TLS
/// handshake does not delay other clients. A client with a certificate may log in with it (the SASL
/// mechanism [EXTERNAL](https://www.rabbitmq.com/docs/access-control)), see [`ServerTls`].
///
/// ```no_run
/// use amqp_smol::{LocalBroker, rustls::ServerConfig, serve_tls};
/// use smol::net::TcpListener;
///
/// # async fn example(config: ServerConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let server = serve_tls(listener, config, LocalBroker::default())?;
/// println!("amqps://{}", server.local_addr());
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the listener has no local address.
#[cfg(feature = "tls")]
pub fn serve_tls(
    listener: TcpListener,
    tls: impl Into<ServerTls>,
    broker: impl Into<LocalBroker>,
) -> io::Result<Server> {
    amqp_embedded::serve(TlsListener::new(listener.into(), tls), broker)
}
