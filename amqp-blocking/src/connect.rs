//! Opening connections.

use amqp_driver::{Config, ConnectError, Error, Options};

use crate::{
    handles::Connection, linger::linger, runtime::Blocking, stream::BlockingSocket, wait::wait,
};

/// Connects to the server of an AMQP URI ([its syntax](https://www.rabbitmq.com/docs/uri-spec), and
/// [all that it can contain](amqp_driver#connecting)). A thread of its own drives the connection.
///
/// Dropping the last handle closes the connection gracefully, after sending the publishes accepted
/// before. The drop blocks until the close has finished, or the output has made no progress for
/// [`Timeouts::close`](amqp_driver::core::Timeouts), 10 seconds by default.
///
/// ```no_run
/// let connection = amqp_blocking::connect("amqp://me:secret@broker.example.com/staging")?;
/// # Ok::<(), amqp_blocking::ConnectError>(())
/// ```
///
/// # Errors
/// If the URI is invalid, no host can be reached, or the connection cannot be opened;
/// [`ConnectError::TimedOut`] beyond the limit of [`within`](crate::within).
pub fn connect(uri: &str) -> Result<Connection, ConnectError> {
    connect_with(&Options::from_uri(uri)?)
}

/// Connects according to the [options](amqp_driver#connecting). A thread of its own drives the
/// connection.
///
/// # Errors
/// As [`connect`].
pub fn connect_with(options: &Options) -> Result<Connection, ConnectError> {
    let connected = wait(amqp_driver::connect(&Blocking, options));
    let connection = connected.map_err(|_| ConnectError::TimedOut)??;
    connection.linger_on_drop(linger);
    Ok(connection.into())
}

/// Opens a connection over an existing stream: a connected [`TcpStream`](std::net::TcpStream) or a
/// Unix socket. The stream becomes non-blocking, and so do its clones: they must not be used until
/// the connection has ended. `TCP_NODELAY` is not changed.
///
/// # Errors
/// If the connection cannot be opened, or the configuration has a setting that no server accepts;
/// [`Error::TimedOut`] beyond the limit of [`within`](crate::within).
pub fn from_stream(stream: impl Into<BlockingSocket>, config: Config) -> Result<Connection, Error> {
    let stream = stream.into().into_stream();
    let connection = wait(amqp_driver::from_transport(&Blocking, stream, config))??;
    connection.linger_on_drop(linger);
    Ok(connection.into())
}
