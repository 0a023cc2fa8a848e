//! An in-process broker, and its server.

use std::io;

#[cfg(feature = "tls")]
use amqp_embedded::ServerTls;
use tokio::net::TcpListener;

#[cfg(feature = "tls")]
use crate::listener::TlsListener;
use crate::{listener::SocketListener, runtime::Tokio};

/// An in-process broker. Clients connect to it without a socket, or over a network with [`serve`].
///
/// All clones share one broker. It can [stop](amqp_embedded::LocalBroker::stop), and come back with
/// its durable entities and persistent messages. The broker and its contents are dropped with the
/// last clone or connection, unless they are in a file (feature `store`).
///
/// ```
/// use amqp_tokio::{LocalBroker, protocol::{basic, queue}};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = LocalBroker::default();
/// let connection = broker.connect(amqp_tokio::Config::default()).await?;
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
/// # Ok(()) }
/// ```
///
/// Faults are injected by [`with`](amqp_embedded::LocalBroker::with). Here each byte arrives alone
/// until the end of the handshake. Then the transport stalls, until the client closes the
/// connection because it has received no [heartbeats](https://www.rabbitmq.com/docs/heartbeats):
///
/// ```
/// use amqp_tokio::{Config, LocalBroker, broker::{ByteFaults, Impairment}};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let broker = LocalBroker::default();
/// let crumbs = ByteFaults::both(Impairment::new().split(1));
/// broker.with(|broker| broker.faults().bytes_of_next(1, crumbs));
/// let connection = broker.connect(Config::default()).await?;
///
/// let key = broker.inspect().connections[0].key;
/// let stall = ByteFaults::new().to_client(Impairment::new().stall_after(0));
/// broker.with(|broker| broker.faults().bytes(key, stall));
/// let reason = connection.closed().await;
/// assert!(reason.to_string().contains("two heartbeat intervals"));
/// # Ok(()) }
/// ```
pub type LocalBroker = amqp_embedded::LocalBroker<Tokio>;

/// A broker that is served to clients; see [`serve`].
pub type Server = amqp_embedded::Server<Tokio>;

/// Serves a broker to the listener's clients, in tasks on the current runtime.
///
/// ```no_run
/// use amqp_tokio::{LocalBroker, serve};
/// use tokio::net::TcpListener;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let server = serve(listener, LocalBroker::default())?;
/// let connection = amqp_tokio::connect(&format!("amqp://{}", server.local_addr())).await?;
/// connection.close().await?;
/// server.shutdown().await;
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the listener has no local address, or the caller is outside of a tokio runtime.
pub fn serve(listener: TcpListener, broker: impl Into<LocalBroker>) -> io::Result<Server> {
    amqp_embedded::serve(SocketListener::from(listener), broker)
}

/// Serves a broker with TLS to the listener's clients, in tasks on the current runtime. A slow TLS
/// handshake does not delay other clients. A client with a certificate may log in with it (the SASL
/// mechanism [EXTERNAL](https://www.rabbitmq.com/docs/access-control)), see [`ServerTls`].
///
/// ```no_run
/// use amqp_tokio::{LocalBroker, rustls::ServerConfig, serve_tls};
/// use tokio::net::TcpListener;
///
/// # async fn example(config: ServerConfig) -> Result<(), Box<dyn std::error::Error>> {
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let server = serve_tls(listener, config, LocalBroker::default())?;
/// println!("amqps://{}", server.local_addr());
/// # Ok(()) }
/// ```
///
/// # Errors
/// If the listener has no local address, or the caller is outside of a tokio runtime.
#[cfg(feature = "tls")]
pub fn serve_tls(
    listener: TcpListener,
    tls: impl Into<ServerTls>,
    broker: impl Into<LocalBroker>,
) -> io::Result<Server> {
    amqp_embedded::serve(TlsListener::new(listener, tls), broker)
}
