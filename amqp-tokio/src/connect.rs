//! Opening connections.

use amqp_driver::{Config, ConnectError, Connection, ConnectionPair, Connector, Error, Options};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::{runtime::Tokio, stream::TokioStream};

/// Connects to the server of an [AMQP URI](https://www.rabbitmq.com/docs/uri-spec), and spawns the
/// connection's driver on the current runtime.
///
/// All parts of a URI are described in [`amqp_driver`](amqp_driver#connecting).
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_tokio::ConnectError> {
/// let connection = amqp_tokio::connect("amqp://me:secret@broker.example.com/staging").await?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Dropping the future closes the sockets and the connection.
///
/// # Errors
/// If the URI is invalid, no host can be reached, or the connection cannot be opened;
/// [`ConnectError::Misuse`] outside of a tokio runtime.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    connect_with(&Options::from_uri(uri)?).await
}

/// Connects according to the options, and spawns the connection's driver on the current runtime.
///
/// All options are described in [`amqp_driver`](amqp_driver#connecting).
///
/// # Cancel safety
/// Dropping the future closes the sockets and the connection.
///
/// # Errors
/// If no host can be reached, or the connection cannot be opened; [`ConnectError::Misuse`]
/// outside of a tokio runtime.
pub async fn connect_with(options: &Options) -> Result<Connection, ConnectError> {
    amqp_driver::connect(&Tokio, options).await
}

/// Opens a connection to publish and one to consume according to the options, and spawns their
/// drivers on the current runtime.
///
/// # Cancel safety
/// Dropping the future closes the sockets and the connections.
///
/// # Errors
/// If no host can be reached, or one of the connections cannot be opened;
/// [`ConnectError::Misuse`] outside of a tokio runtime.
pub async fn connect_pair(options: &Options) -> Result<ConnectionPair, ConnectError> {
    amqp_driver::connect_pair(&Tokio, options).await
}

/// Returns a [`Connector`] with these options on the current runtime, for programs that do not name their
/// runtime, and run under `amqp-sim` as well.
///
/// ```no_run
/// use amqp_tokio::{Connector, Options, connector};
///
/// async fn service(connector: Connector) -> Result<(), Box<dyn std::error::Error>> {
///     let connection = connector.connect().await?;
///     // ...
///     Ok(connection.close().await?)
/// }
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// service(connector(Options::from_uri("amqp://broker.example.com")?.recovering())).await
/// # }
/// ```
#[must_use]
pub fn connector(options: Options) -> Connector {
    Connector::new(Tokio, options)
}

/// Opens a connection over an existing stream: a TCP stream with custom options, a Unix socket,
/// TLS, a pipe in memory. The driver is spawned on the current runtime.
///
/// # Cancel safety
/// Dropping the future closes the connection.
///
/// # Errors
/// If the connection cannot be opened, or the configuration has a setting that no server accepts;
/// [`Error::Misuse`] outside of a tokio runtime.
pub async fn from_stream<S>(stream: S, config: Config) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    amqp_driver::from_transport(&Tokio, TokioStream::new(stream), config).await
}
