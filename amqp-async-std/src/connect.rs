//! Making connections.

use amqp_driver::{
    Config, ConnectError, Connection, Error, Options, from_transport, io::FuturesStream,
};
use futures_io::{AsyncRead, AsyncWrite};

use crate::AsyncStd;

/// Connects to the server that an AMQP URI names, and spawns the connection's driver as a task
/// of async-std.
///
/// All that a URI can say: [`amqp_driver`](amqp_driver#connecting).
///
/// ```no_run
/// # async fn example() -> Result<(), amqp_async_std::ConnectError> {
/// let connection = amqp_async_std::connect("amqp://me:secret@broker.example.com/staging").await?;
/// # Ok(()) }
/// ```
///
/// # Cancel safety
/// Dropping it closes what was opened.
///
/// # Errors
/// When the URI is wrong, no host can be reached, or the connection cannot be opened.
pub async fn connect(uri: &str) -> Result<Connection, ConnectError> {
    connect_with(&Options::from_uri(uri)?).await
}

/// Connects as the options say, and spawns the connection's driver as a task of async-std.
///
/// All that they can say: [`amqp_driver`](amqp_driver#connecting).
///
/// # Cancel safety
/// Dropping it closes what was opened.
///
/// # Errors
/// When no host can be reached, or the connection cannot be opened.
pub async fn connect_with(options: &Options) -> Result<Connection, ConnectError> {
    amqp_driver::connect(&AsyncStd, options).await
}

/// Opens a connection over a stream that was made elsewhere: a TCP stream with options of its own,
/// a Unix socket, TLS, a pipe in memory. The driver is spawned as a task of async-std.
///
/// # Cancel safety
/// Dropping it closes the connection.
///
/// # Errors
/// When the connection cannot be opened, or the configuration has a setting that no server would
/// accept.
pub async fn from_stream<S>(stream: S, config: Config) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    from_transport(&AsyncStd, FuturesStream::new(stream), config).await
}
